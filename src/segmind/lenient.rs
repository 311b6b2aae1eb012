//! JSON as services really write it: what Python's `json` lets through (`NaN`, `Infinity`, halves of a surrogate pair,
//! numbers out of range) costs nobody the picture beside it.

use std::borrow::Cow;

use serde_json::Value;

/// The value that `bytes` are, strictly or nearly; `None` where they are no JSON.
pub(super) fn parse(bytes: &[u8]) -> Option<Value> {
    match serde_json::from_slice(bytes) {
        Ok(value) => Some(value),
        // Plain words are no JSON, however it is softened.
        Err(_) if matches!(bytes.trim_ascii_start().first(), Some(b'{' | b'[')) => {
            serde_json::from_str(&soften(std::str::from_utf8(bytes).ok()?)).ok()
        }
        Err(_) => None,
    }
}

/// Whether it is one of the words for what is no number, or a number that is out of range.
fn is_no_number(word: &str) -> bool {
    let digits = word.strip_prefix('-').unwrap_or(word);
    matches!(word, "NaN" | "Infinity" | "-Infinity")
        || digits.starts_with(|c: char| c.is_ascii_digit()) && word.parse::<f64>().is_ok_and(f64::is_infinite)
}

/// `text` with `null` for words and numbers that JSON has not, and U+FFFD for half a surrogate pair.
fn soften(text: &str) -> String {
    let mut soft = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let (taken, kept): (usize, Cow<'_, str>) = match first {
            '"' => {
                let end = end_of_string(rest);
                (end, without_halves(&rest[..end]))
            }
            'a'..='z' | 'A'..='Z' | '0'..='9' | '-' | '+' | '.' => {
                let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && !"+-.".contains(c)).unwrap_or(rest.len());
                let word = &rest[..end];
                (end, if is_no_number(word) { "null".into() } else { word.into() })
            }
            other => (other.len_utf8(), rest[..other.len_utf8()].into()),
        };
        soft.push_str(&kept);
        rest = &rest[taken..];
    }
    soft
}

/// Behind the closing quote of the string that `text` begins with.
fn end_of_string(text: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// A string, quotes and all, with U+FFFD for each escape that is half a pair.
fn without_halves(string: &str) -> Cow<'_, str> {
    if !string.contains("\\u") || serde_json::from_str::<String>(string).is_ok() {
        return string.into();
    }
    let unit = |at: usize| {
        let digits = string.get(at..at + 6)?.strip_prefix("\\u")?;
        u16::from_str_radix(digits, 16).ok()
    };
    let (mut kept, mut at) = (String::with_capacity(string.len()), 0);
    while let Some(next) = string[at..].chars().next() {
        // What is escaped, and how long it is.
        let length = match (unit(at), unit(at + 6)) {
            (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => 12,
            (Some(0xd800..=0xdfff), _) => {
                kept.push('\u{fffd}');
                at += 6;
                continue;
            }
            (Some(_), _) => 6,
            (None, _) if next == '\\' => 1 + string[at + 1..].chars().next().map_or(0, char::len_utf8),
            (None, _) => next.len_utf8(),
        };
        kept.push_str(&string[at..at + length]);
        at += length;
    }
    kept.into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn what_python_lets_through_is_read() {
        for (text, value) in [
            (r#"{"image_url":"u","cfg":NaN}"#, json!({"image_url": "u", "cfg": null})),
            (
                r#"{"a":-Infinity,"b":[Infinity,1e999,-1e999,1.5],"c":true}"#,
                json!({"a": null, "b": [null, null, null, 1.5], "c": true}),
            ),
            (r#"{"prompt":"a\ud83d","image":"u"}"#, json!({"prompt": "a\u{fffd}", "image": "u"})),
            (r#"["\udE00\ud83d\ude00\\ud83d \"NaN\"", NaN]"#, json!(["\u{fffd}\u{1f600}\\ud83d \"NaN\"", null])),
        ] {
            assert_eq!(parse(text.as_bytes()), Some(value), "{text}");
        }
        for text in [
            "",
            "Timeout",
            "gateway-timeout",
            r#"{"error": timeout}"#,
            "NaN",
            "<html>",
            r#"{"a":1"#,
            r#"{"a" NaN}"#,
            "{'a':1}",
            r#""open"#,
            r#""\"#,
            r#""\ud8"#,
        ] {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn good_json_stays_as_it_is(text in r#"[\[\]{}:,"\\a-z0-9u. \-+éD8dC]{0,60}"#) {
            // Never a panic; and what is JSON is the same before and after.
            let soft = soften(&text);
            if let Ok(value) = serde_json::from_str::<Value>(&text) {
                prop_assert_eq!(serde_json::from_str::<Value>(&soft).ok(), Some(value));
            }
        }
    }
}
