//! Blacks out what must not stand in notes and logs: the key, asset URLs, queries of URLs, inline pictures.

use percent_encoding::percent_decode_str;
use url::Url;

use super::key::ApiKey;

const ASSET: &str = "[asset URL]";

/// `text` without the key, without `assets` (asset URLs, and whatever else lies on their hosts), without the
/// query, fragment and user of any other http(s) URL, and without the payload of data URIs. URLs that hold an
/// e-mail address go wholly.
pub fn redact(text: &str, key: Option<&ApiKey>, assets: &[&str]) -> String {
    let mut text = text.replace("\\/", "/");
    if let Some(key) = key {
        text = blacked(&text, key.expose());
    }
    let mut hosts = Vec::new();
    for asset in assets.iter().filter(|asset| !asset.is_empty()) {
        text = text.replace(asset, ASSET);
        if let Ok(url) = Url::parse(asset) {
            // Also without its scheme, and the path alone, as some messages name it.
            let (path, bare) = (url.path(), asset.split_once("://").map_or(*asset, |(_, rest)| rest));
            for part in [bare, path] {
                if part.len() >= 8 {
                    text = text.replace(part, ASSET);
                }
            }
            for part in parts(&url) {
                text = text.replace(&part, ASSET);
            }
            hosts.extend(url.host_str().map(str::to_owned));
        }
    }
    let text = without_disguised(&text, key, assets, &hosts);
    urls(&text, &hosts)
}

/// `text` without the key, and all else as it is: an address where something that was paid for may still be had.
pub fn without_key(text: &str, key: Option<&ApiKey>) -> String {
    key.map_or_else(|| text.to_owned(), |key| blacked(text, key.expose()))
}

/// So much of a key's beginning is the key: what came was cut, or is.
const TELLING: usize = 8;

/// `text` without the key, in whole or from its beginning on, as it is or percent-encoded in whole or in part.
fn blacked(text: &str, key: &str) -> String {
    let (bytes, mut out, mut copied, mut at) = (text.as_bytes(), String::with_capacity(text.len()), 0, 0);
    while at < bytes.len() {
        match spelt(&bytes[at..], key.as_bytes()) {
            Some(length) => {
                out.push_str(&text[copied..at]);
                out.push_str("[API key]");
                at += length;
                copied = at;
            }
            None => at += 1,
        }
    }
    out.push_str(&text[copied..]);
    out
}

/// The length of the key's beginning, long enough to tell, that `text` begins with.
fn spelt(text: &[u8], key: &[u8]) -> Option<usize> {
    let mut length = 0;
    let mut known = 0;
    for wanted in key {
        let hex = || u8::from_str_radix(std::str::from_utf8(text.get(length + 1..length + 3)?).ok()?, 16).ok();
        match text.get(length) {
            Some(there) if there == wanted => length += 1,
            Some(b'%') if hex() == Some(*wanted) => length += 3,
            _ => break,
        }
        known += 1;
    }
    (known > 0 && known >= key.len().min(TELLING)).then_some(length)
}

/// What of an asset's path names it, or its owner, by itself: its ends of two segments and more, and e-mail addresses.
fn parts(url: &Url) -> Vec<String> {
    let path = percent_decode_str(url.path()).decode_utf8_lossy().into_owned();
    let ends = |path: &str| {
        let slashes: Vec<_> = path.match_indices('/').map(|(at, _)| at).collect();
        let ends = slashes.iter().rev().skip(1).map(|at| path[at + 1..].to_owned()).collect::<Vec<_>>();
        ends.into_iter().filter(|end| end.len() >= 8)
    };
    let mut parts: Vec<String> = ends(url.path()).chain(ends(&path)).collect();
    // The longest first, so that no rest stays.
    parts.sort_by_key(|part| std::cmp::Reverse(part.len()));
    parts.extend(path.split('/').filter(|segment| segment.contains('@')).map(str::to_owned));
    parts
}

/// Without the words in which an asset or the key stands percent-encoded or with entities of HTML.
fn without_disguised(text: &str, key: Option<&ApiKey>, assets: &[&str], hosts: &[String]) -> String {
    let urls = || assets.iter().filter_map(|asset| Url::parse(asset).ok());
    let mut secrets: Vec<String> = assets.iter().map(|asset| (*asset).to_owned()).collect();
    secrets.extend(urls().flat_map(|url| parts(&url)));
    secrets.extend(hosts.iter().map(|host| format!("://{host}")));
    secrets.retain(|secret| !secret.is_empty());
    let key: Vec<String> = key.iter().map(|key| key.expose().to_owned()).collect();
    if secrets.is_empty() && key.is_empty() || !text.contains(['%', '&']) {
        return text.to_owned();
    }
    let stop = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '<' | '>' | '`' | '|');
    text.split_inclusive(stop)
        .map(|word| {
            let bare = word.trim_end_matches(stop);
            let tail = &word[bare.len()..];
            if is_disguised(bare, &key) {
                format!("[API key]{tail}")
            } else if is_disguised(bare, &secrets) {
                format!("{ASSET}{tail}")
            } else {
                word.to_owned()
            }
        })
        .collect()
}

fn is_disguised(word: &str, secrets: &[String]) -> bool {
    let mut plain = word.to_owned();
    // As often as anybody encodes what is encoded already.
    for _ in 0..3 {
        let next = entities(&percent_decode_str(&plain).decode_utf8_lossy());
        if next == plain {
            return false;
        }
        if secrets.iter().any(|secret| next.contains(secret)) {
            return true;
        }
        plain = next;
    }
    false
}

/// With the characters for which HTML's entities stand, as far as URLs and addresses have them.
fn entities(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let end = rest.char_indices().take(10).find(|(_, c)| *c == ';').map(|(end, _)| end);
        let number = |name: &str| {
            let name = name.strip_prefix('#')?;
            let hex = name.strip_prefix(['x', 'X']);
            let code = hex.map_or_else(|| name.parse(), |hex| u32::from_str_radix(hex, 16));
            char::from_u32(code.ok()?)
        };
        let meant = end.and_then(|end| match &rest[1..end] {
            "amp" => Some('&'),
            "sol" => Some('/'),
            "colon" => Some(':'),
            "commat" => Some('@'),
            "period" => Some('.'),
            name => number(name),
        });
        let (plain, taken) = match (meant, end) {
            (Some(c), Some(end)) => (c, end + 1),
            _ => ('&', 1),
        };
        out.push(plain);
        rest = &rest[taken..];
    }
    out.push_str(rest);
    out
}

fn urls(text: &str, hosts: &[String]) -> String {
    let lower = text.to_ascii_lowercase();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    // Each scheme is looked for again only once it is behind: else a text that is full of one is searched to
    // its end for the others each time.
    let mut schemes = ["http://", "https://", "data:"].map(|scheme| (scheme, lower.find(scheme)));
    while at < text.len() {
        for (scheme, found) in &mut schemes {
            if found.is_some_and(|found| found < at) {
                *found = lower[at..].find(*scheme).map(|found| at + found);
            }
        }
        let Some(start) = schemes.iter().filter_map(|(_, found)| *found).min() else { break };
        out.push_str(&text[at..start]);
        let rest = &text[start..];
        let stop = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '<' | '>' | '`' | '{' | '}' | '|' | '\\');
        let end = rest.find(stop).unwrap_or(rest.len());
        let found = rest[..end].trim_end_matches(['.', ',', ';', ':', ')', ']', '!', '…']);
        if found.is_empty() {
            break;
        }
        out.push_str(&shown(found, hosts));
        at = start + found.len();
    }
    out.push_str(&text[at..]);
    out
}

fn shown(found: &str, hosts: &[String]) -> String {
    if found.get(..4).is_some_and(|scheme| scheme.eq_ignore_ascii_case("data")) {
        // Words like "data:" alone stay.
        return if found.contains(',') { "[inline data]".into() } else { found.into() };
    }
    let Ok(mut url) = Url::parse(found) else { return "[URL]".into() };
    if url.host_str().is_some_and(|host| hosts.iter().any(|asset| asset == host)) {
        return ASSET.into();
    }
    if url.path().contains('@') || url.path().to_ascii_lowercase().contains("%40") {
        return "[URL]".into();
    }
    let tail = if url.query().is_some() { "?[…]" } else { "" };
    if tail.is_empty() && url.fragment().is_none() && url.username().is_empty() && url.password().is_none() {
        return found.into();
    }
    url.set_query(None);
    url.set_fragment(None);
    // Both fail only for URLs that can have no user.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    format!("{url}{tail}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn nothing_secret_is_left() {
        let key = ApiKey::new("SG_0123456789", "test").unwrap();
        let asset = "https://assets.example/u/me@example.org/pic.jpg?sig=abc";
        let table = [
            ("bad key SG_0123456789!", "bad key [API key]!"),
            ("cannot fetch https://assets.example/u/me@example.org/pic.jpg?sig=abc.", "cannot fetch [asset URL]."),
            (r#"{"url":"https:\/\/assets.example\/other"}"#, r#"{"url":"[asset URL]"}"#),
            ("HTTPS://ASSETS.example/x", "[asset URL]"),
            ("at assets.example/u/me@example.org/pic.jpg?sig=abc", "at [asset URL]"),
            ("at /u/me@example.org/pic.jpg gone", "at [asset URL] gone"),
            ("for me@example.org/pic.jpg, and for me@example.org", "for [asset URL], and for [asset URL]"),
            ("at /fetch?u=https%3A%2F%2Fassets.example%2Fu%2Fme%40example.org%2Fpic.jpg now", "at [asset URL] now"),
            ("at https%253A%252F%252Fassets.example%252Fother", "at [asset URL]"),
            ("<i>https:&#x2F;&#47;assets.example&sol;u&#x2f;me&#64;example.org</i>", "<i>[asset URL]</i>"),
            (
                "pic.jpg is 100% black & white; 5 &lt; 7 &#x; &#99999999;",
                "pic.jpg is 100% black & white; 5 &lt; 7 &#x; &#99999999;",
            ),
            ("see https://docs.example/a?token=1#x, please", "see https://docs.example/a?[…], please"),
            ("see (https://docs.example/a)", "see (https://docs.example/a)"),
            ("https://u:p@docs.example/a", "https://docs.example/a"),
            ("https://other.example/you%40example.org", "[URL]"),
            ("url data:image/png;base64,AAAA== bad", "url [inline data] bad"),
            ("no data: here, http:// neither", "no data: here, [URL] neither"),
            ("ünï https://", "ünï [URL]"),
        ];
        for (text, want) in table {
            assert_eq!(redact(text, Some(&key), &[asset]), want, "{text}");
        }
    }

    #[test]
    fn a_long_text_takes_time_by_its_length_only() {
        let key = ApiKey::new("SG_0123456789", "test").unwrap();
        let text = "data: ".repeat(500_000);
        assert_eq!(redact(&text, Some(&key), &[]), text);
    }

    #[test]
    fn an_address_loses_the_key_alone() {
        let key = ApiKey::new("SG_0123+4567", "test").unwrap();
        let kept = "https://b.example/a@b/x.jpg?X-Amz-Signature=ab12#f";
        assert_eq!(without_key(kept, Some(&key)), kept);
        for with in ["SG_0123+4567", "SG%5F0123%2B4567", "SG_0123%2b4567", "SG_0123%2B4%3", "SG_0123+45"] {
            let with = format!("https://b.example/x.jpg?k={with}&s=1");
            let without = without_key(&with, Some(&key));
            assert!(without.starts_with("https://b.example/x.jpg?k=[API key]") && !without.contains("SG"), "{without}");
        }
    }

    #[test]
    fn a_key_is_found_cut_and_disguised() {
        let key = ApiKey::new("SG_ab+cd/ef12gh==", "test").unwrap();
        for (text, want) in [
            ("invalid key SG_ab%2Bcd%2Fef12gh%3D%3D", "invalid key [API key]"),
            ("invalid key SG_ab&#43;cd&#47;ef12gh==", "invalid key [API key]"),
            ("invalid key SG_ab%252Bcd%252Fef12gh%253D%253D!", "invalid key [API key]"),
            ("\"x-api-key\": \"SG_ab+cd/ef12…", "\"x-api-key\": \"[API key]…"),
            ("SG_ab+c is no beginning that tells", "SG_ab+c is no beginning that tells"),
        ] {
            assert_eq!(redact(text, Some(&key), &[]), want, "{text}");
        }
        let short = ApiKey::new("k", "test");
        assert!(short.is_err() || redact("a k", short.ok().as_ref(), &[]) == "a [API key]");
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_redacted_without_a_panic_and_without_the_key(a in ".{0,40}", b in ".{0,40}") {
            let key = ApiKey::new("SG_0123456789", "test").unwrap();
            let text = format!("{a}SG_0123456789 https://{b}?q=1 data:{a},");
            proptest::prop_assert!(!redact(&text, Some(&key), &[]).contains("SG_0123456789"));
        }
    }
}
