//! Finds the picture, or the words of a refusal, in a JSON reply whose shape is known only from hearsay.

use base64::Engine as _;
use base64::alphabet::STANDARD as ALPHABET;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::Value;
use url::Url;

use super::sniff::{SNIFF, sniff};
use crate::domain::ids::Fingerprint;

/// Keys under which services put their result, the likeliest first.
const KNOWN: [&str; 19] = [
    "image",
    "output",
    "image_url",
    "output_url",
    "url",
    "images",
    "result",
    "results",
    "data",
    "urls",
    "outputs",
    "file_urls",
    "file_url",
    "b64_json",
    "image_base64",
    "base64",
    "image_b64",
    "result_url",
    "response",
];

/// Keys that hold a URL and nothing else worth a look.
const URL_KEYS: [&str; 7] = ["image", "images", "image_url", "output_url", "url", "urls", "result_url"];

/// Where an upload's reply has its URLs.
const ASSETS: [&str; 4] = ["file_urls", "urls", "file_url", "url"];

/// What was asked, echoed: never the result.
const ECHO: [&str; 7] = ["input", "inputs", "request", "params", "parameters", "structure_image_url", "prompt"];

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found<'a> {
    /// An http(s) URL.
    Url(&'a str),
    /// Base64 of a picture, perhaps as a data URI.
    Encoded(&'a str),
    /// The service's refusal.
    Refusal,
    /// What stands where a URL should.
    Odd(&'a str),
}

/// The reference that was sent: no result, wherever an answer gives it back.
#[derive(Clone, Debug, Default)]
pub(super) struct Sent {
    /// Its URL, if it has one.
    pub(super) url: Option<String>,
    /// Of the picture that was uploaded, or travelled in the request.
    pub(super) picture: Option<Fingerprint>,
}

impl Sent {
    /// Whether this is its URL, whatever way it is written, or its bytes.
    pub(super) fn is(&self, text: &str) -> bool {
        self.is_at(text) || self.picture.is_some_and(|picture| decoded(text) == Some(picture))
    }

    fn is_at(&self, text: &str) -> bool {
        let url = |text: &str| {
            let mut url = Url::parse(text.trim()).ok()?;
            url.set_fragment(None);
            Some(url)
        };
        let sent = self.url.as_deref();
        sent.is_some_and(|sent| text.trim() == sent || url(text).is_some_and(|text| url(sent) == Some(text)))
    }
}

/// The fingerprint of the picture in `text`, if that is base64 of one.
fn decoded(text: &str) -> Option<Fingerprint> {
    let Some(Found::Encoded(text)) = candidate(text) else { return None };
    let mut hasher = blake3::Hasher::new();
    decode(text, &mut |piece| {
        hasher.update(piece);
        Ok(())
    })
    .ok()?;
    Some(Fingerprint(*hasher.finalize().as_bytes()))
}

/// What `json` says.
pub(super) fn find<'a>(json: &'a Value, sent: &Sent) -> Option<Found<'a>> {
    let result = |text: &'a str| candidate(text).filter(|_| !sent.is(text));
    if let Some(found) = known(json, &result) {
        return Some(found);
    }
    let (refused, spoke) = (refuses(json), speaks(json));
    if let Some(found) = anywhere(json, &|text| match result(text) {
        // Beside an error's text a URL under a strange name leads to its documentation, not to a picture.
        Some(Found::Url(url)) if spoke && !names_a_picture(url) => None,
        found => found,
    }) {
        return Some(found);
    }
    if refused {
        return Some(Found::Refusal);
    }
    let place = |text: &'a str| {
        let fits = !text.is_empty() && text.len() <= 2048 && !sent.is(text) && (!spoke || names_a_picture(text));
        fits.then_some(Found::Odd(text))
    };
    odd(json, &place).or_else(|| spoke.then_some(Found::Refusal))
}

/// Whether it says that something went wrong.
fn refuses(json: &Value) -> bool {
    ["error", "errors", "detail"].iter().any(|key| json.get(key).is_some_and(says_something))
}

/// Whether it has words for people, of what went wrong or of anything.
fn speaks(json: &Value) -> bool {
    refuses(json) || json.get("message").is_some_and(says_something)
}

/// The first https URL (http too, where `http` is allowed) in an upload's reply. Beside an error only what stands where
/// assets do, and beside other words what names a picture: another may lead to documentation, and would be paid for as a
/// reference.
pub(super) fn asset_url(json: &Value, http: bool) -> Option<&str> {
    let fits = |text: &str| {
        let lower = text.get(..8).unwrap_or(text).to_ascii_lowercase();
        lower.starts_with("https://") || http && lower.starts_with("http://")
    };
    let pick = |text| match candidate(text) {
        Some(Found::Url(url)) if fits(url) => Some(Found::Url(url)),
        _ => None,
    };
    let named = |text| pick(text).filter(|_| names_a_picture(text));
    let found = if refuses(json) {
        ASSETS.iter().find_map(|key| {
            // A bare `url` leads to anything.
            let pick: &dyn Fn(_) -> _ = if *key == "url" { &named } else { &pick };
            anywhere(json.get(*key)?, pick)
        })
    } else {
        let found = ASSETS.iter().find_map(|key| below(json, key, &pick));
        found.or_else(|| anywhere(json, if speaks(json) { &named } else { &pick }))
    };
    match found {
        Some(Found::Url(url)) => Some(url),
        _ => None,
    }
}

/// What is picked below `key`, wherever that stands.
fn below<'a>(json: &'a Value, key: &str, pick: &dyn Fn(&'a str) -> Option<Found<'a>>) -> Option<Found<'a>> {
    match json {
        Value::Array(items) => items.iter().find_map(|item| below(item, key, pick)),
        Value::Object(map) => map.get(key).and_then(|value| anywhere(value, pick)).or_else(|| {
            let others = map.iter().filter(|(name, _)| !ECHO.contains(&name.as_str()));
            others.map(|(_, value)| value).find_map(|value| below(value, key, pick))
        }),
        _ => None,
    }
}

/// The words of an error, from all places where services put them.
pub(super) fn words(json: &Value) -> Option<String> {
    let mut words: Vec<String> = Vec::new();
    for key in ["error", "errors", "detail", "message", "error_message", "msg"] {
        if let Some(value) = json.get(key).filter(|value| says_something(value)) {
            let text = plain(value);
            if !words.contains(&text) {
                words.push(text);
            }
        }
    }
    if words.is_empty() { None } else { Some(words.join("; ")) }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join("; "),
        Value::Object(map) => {
            // Validation errors: {"loc": ["body", "prompt"], "msg": "field required"}.
            let text = ["msg", "message", "error", "detail"].iter().find_map(|key| map.get(*key)?.as_str());
            let place = map.get("loc").and_then(Value::as_array).map(|loc| {
                loc.iter()
                    .map(|part| part.as_str().map_or_else(|| part.to_string(), str::to_owned))
                    .collect::<Vec<_>>()
                    .join(".")
            });
            match (text, place) {
                (Some(text), Some(place)) => format!("{place}: {text}"),
                (Some(text), None) => text.to_owned(),
                (None, _) => value.to_string(),
            }
        }
        other => other.to_string(),
    }
}

fn says_something(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.trim().is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(map) => !map.is_empty(),
        Value::Bool(true) | Value::Number(_) => true,
    }
}

fn known<'a>(json: &'a Value, pick: &dyn Fn(&'a str) -> Option<Found<'a>>) -> Option<Found<'a>> {
    match json {
        Value::String(text) => pick(text),
        Value::Array(items) => items.iter().find_map(|item| known(item, pick)),
        Value::Object(map) => KNOWN.iter().find_map(|key| known(map.get(*key)?, pick)),
        _ => None,
    }
}

fn anywhere<'a>(json: &'a Value, pick: &dyn Fn(&'a str) -> Option<Found<'a>>) -> Option<Found<'a>> {
    match json {
        Value::String(text) => pick(text),
        Value::Array(items) => items.iter().find_map(|item| anywhere(item, pick)),
        Value::Object(map) => {
            map.iter().filter(|(key, _)| !ECHO.contains(&key.as_str())).find_map(|(_, value)| anywhere(value, pick))
        }
        _ => None,
    }
}

fn odd<'a>(json: &'a Value, pick: &dyn Fn(&'a str) -> Option<Found<'a>>) -> Option<Found<'a>> {
    fn first<'a>(json: &'a Value, pick: &dyn Fn(&'a str) -> Option<Found<'a>>) -> Option<Found<'a>> {
        match json {
            Value::String(text) => pick(text.trim()),
            Value::Array(items) => items.iter().find_map(|item| first(item, pick)),
            _ => None,
        }
    }
    match json {
        Value::Array(items) => items.iter().find_map(|item| odd(item, pick)),
        Value::Object(map) => URL_KEYS
            .iter()
            .find_map(|key| first(map.get(*key)?, pick))
            .or_else(|| KNOWN.iter().find_map(|key| odd(map.get(*key)?, pick))),
        _ => None,
    }
}

/// Whether a text in `json` speaks of it. Keys say nothing, nor does the prompt, given back.
pub(super) fn says(json: &Value, of: &dyn Fn(&str) -> bool) -> bool {
    match json {
        Value::String(text) => of(text),
        Value::Array(items) => items.iter().any(|item| says(item, of)),
        Value::Object(map) => map.iter().any(|(key, value)| key != "prompt" && says(value, of)),
        _ => false,
    }
}

/// Every URL where an upload's reply has assets.
pub(super) fn asset_urls(json: &Value) -> Vec<String> {
    fn all(json: &Value, into: &mut Vec<String>) {
        match json {
            Value::String(text) => into.push(text.trim().to_owned()),
            Value::Array(items) => items.iter().for_each(|item| all(item, into)),
            Value::Object(map) => map.values().for_each(|value| all(value, into)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    match json {
        Value::Array(items) => items.iter().for_each(|item| found.extend(asset_urls(item))),
        Value::Object(map) => {
            for (key, value) in map {
                if ASSETS.contains(&key.as_str()) {
                    all(value, &mut found);
                } else {
                    found.extend(asset_urls(value));
                }
            }
        }
        _ => {}
    }
    found.retain(|text| text.contains("://"));
    found.truncate(64);
    found
}

/// What a string is, if it can be a result.
pub(super) fn candidate(text: &str) -> Option<Found<'_>> {
    let text = text.trim();
    let lower = text.get(..8).unwrap_or(text).to_ascii_lowercase();
    if lower.starts_with("https://") || lower.starts_with("http://") {
        let fits = text.len() <= super::MAX_URL && !text.contains(|c: char| c.is_whitespace() || c.is_control());
        return fits.then_some(Found::Url(text));
    }
    let payload = payload(text)?;
    let mut first = Vec::new();
    // Only the first characters are decoded here; the rest while it is written.
    let head: String = payload.chars().filter(|c| !c.is_ascii_whitespace()).take(4 * SNIFF).collect();
    decode(&head[..head.len() / 4 * 4], &mut |bytes| {
        first.extend_from_slice(bytes);
        Ok(())
    })
    .ok()?;
    sniff(&first).map(|_| Found::Encoded(text))
}

fn names_a_picture(url: &str) -> bool {
    let path = url.split(['?', '#']).next().unwrap_or(url).to_ascii_lowercase();
    [".png", ".jpg", ".jpeg", ".webp"].iter().any(|end| path.ends_with(end))
}

/// The base64 in `text`: behind a data URI's comma, or all of it.
fn payload(text: &str) -> Option<&str> {
    match text.get(..5) {
        Some(scheme) if scheme.eq_ignore_ascii_case("data:") => {
            let (head, payload) = text.split_once(',')?;
            head.to_ascii_lowercase().ends_with(";base64").then_some(payload)
        }
        _ => Some(text),
    }
}

/// Decodes the base64 in `text` (bare, or a data URI; blanks inside, the URL alphabet and missing padding
/// are all right) piece by piece into `sink`. Errors: what is no base64, and those of `sink`.
pub(super) fn decode(text: &str, sink: &mut dyn FnMut(&[u8]) -> std::io::Result<()>) -> std::io::Result<()> {
    const ENGINE: GeneralPurpose = GeneralPurpose::new(
        &ALPHABET,
        GeneralPurposeConfig::new()
            .with_decode_padding_mode(DecodePaddingMode::Indifferent)
            .with_decode_allow_trailing_bits(true),
    );
    let bad = || std::io::Error::new(std::io::ErrorKind::InvalidData, "broken base64");
    let payload = payload(text).ok_or_else(bad)?;
    let mut piece = Vec::with_capacity(PIECE);
    let mut ended = false;
    for byte in payload.bytes().filter(|b| !b.is_ascii_whitespace()) {
        match byte {
            b'=' => ended = true,
            _ if ended => return Err(bad()),
            b'-' => piece.push(b'+'),
            b'_' => piece.push(b'/'),
            other => piece.push(other),
        }
        if piece.len() == PIECE {
            sink(&ENGINE.decode(&piece).map_err(|_| bad())?)?;
            piece.clear();
        }
    }
    sink(&ENGINE.decode(&piece).map_err(|_| bad())?)
}

/// A multiple of four.
const PIECE: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
    use serde_json::json;

    use super::*;

    fn find<'a>(json: &'a Value, sent: Option<&str>) -> Option<Found<'a>> {
        super::find(json, &Sent { url: sent.map(str::to_owned), picture: None })
    }

    fn png() -> Vec<u8> {
        let mut bytes = b"\x89PNG\r\n\x1a\n".to_vec();
        bytes.extend((0..200_000u32).map(|n| (n % 251) as u8));
        bytes
    }

    #[test]
    fn a_result_is_found_under_every_shape_that_was_told() {
        let u = "https://cdn.example/x";
        let shapes = [
            json!({"image": u}),
            json!({"output": u}),
            json!({"image_url": u}),
            json!({"url": u}),
            json!({"images": [{"url": u}]}),
            json!({"images": [u]}),
            json!({"result": [{"urls": [u], "seed": 5}]}),
            json!({"data": [{"url": u}]}),
            json!({"output": [u]}),
            json!({"data": {"image": {"url": u}}}),
            json!(u),
            json!([u]),
            json!({"status": "ok", "message": "done", "image": u}),
            json!({"artifact": {"href": u}}),
            json!({"structure_image_url": "https://in.example/a.png", "image": u}),
            json!({"input": {"image": "https://in.example/a.png"}, "made": u}),
            json!({"error": null, "image": u}),
            json!({"image": "", "url": u}),
            json!({"image": null, "output": {"x": u}}),
        ];
        for shape in shapes {
            assert_eq!(find(&shape, None), Some(Found::Url(u)), "{shape}");
        }
    }

    #[test]
    fn base64_is_found_and_decoded_in_every_form() {
        let png = png();
        let plain = STANDARD.encode(&png);
        let lines: Vec<_> = plain.as_bytes().chunks(76).map(|line| std::str::from_utf8(line).unwrap()).collect();
        let lines = lines.join("\r\n");
        let forms = [
            plain.clone(),
            format!("data:image/png;base64,{plain}"),
            format!("DATA:;BASE64,{plain}"),
            lines,
            URL_SAFE_NO_PAD.encode(&png),
            plain.trim_end_matches('=').to_owned(),
        ];
        for form in forms {
            for shape in [json!({"data": [{"b64_json": form}]}), json!({"image": form}), json!({"strange": [form]})] {
                let Some(Found::Encoded(text)) = find(&shape, None) else { panic!("{}", &shape.to_string()[..60]) };
                let mut out = Vec::new();
                decode(text, &mut |bytes| {
                    out.extend_from_slice(bytes);
                    Ok(())
                })
                .unwrap();
                assert!(out == png);
            }
        }
        for broken in ["AAAA=AAAA", "A", "????", "data:image/png,AAAA"] {
            assert!(decode(broken, &mut |_| Ok(())).is_err(), "{broken}");
        }
    }

    #[test]
    fn a_picture_that_was_sent_is_no_result_in_any_form() {
        let (sent, other) = (png(), [&png()[..], b"x"].concat());
        let reference = Sent { url: None, picture: Some(Fingerprint::of(&sent)) };
        for form in [STANDARD.encode(&sent), format!("data:image/png;base64,{}", URL_SAFE_NO_PAD.encode(&sent))] {
            let refused = json!({"error": "refused by moderation", "image": form});
            assert_eq!(super::find(&refused, &reference), Some(Found::Refusal));
            assert_eq!(super::find(&json!({"image": form}), &reference), None);
            let made = STANDARD.encode(&other);
            let both = json!({"image": form, "output": made});
            assert_eq!(super::find(&both, &reference), Some(Found::Encoded(&made)));
        }
    }

    #[test]
    fn an_uploads_refusal_names_no_asset() {
        let u = "https://assets.example/a.jpg";
        for json in [
            json!({"file_urls": [u]}),
            json!({"message": "ok", "urls": [u]}),
            json!({"x": {"y": u}}),
            json!({"error": "", "url": u}),
            json!({"error": "late", "url": u}),
            json!({"message": "Upload successful", "data": {"file_urls": [u]}}),
            json!({"message": "ok", "image_url": u}),
        ] {
            assert_eq!(asset_url(&json, false), Some(u), "{json}");
        }
        for json in [
            json!({"error": "quota exceeded", "docs": "https://docs.example/errors"}),
            json!({"error": {"code": "TOO_LARGE", "more_info": "https://docs.example/limits"}, "file_urls": []}),
            json!({"detail": "bad token", "login": "https://cloud.example/login"}),
            json!({"error": "no", "url": "https://docs.example/errors"}),
            json!({"message": "see below", "help": "https://docs.example/help"}),
        ] {
            assert_eq!(asset_url(&json, false), None, "{json}");
        }
    }

    #[test]
    fn a_refusal_is_told_from_a_result_and_from_nothing() {
        let refusals = [
            json!({"error": "no"}),
            json!({"detail": [{"loc": ["body"], "msg": "no"}]}),
            json!({"message": "no"}),
            json!({"error": {"code": 5}}),
            json!({"error": "no", "image": null}),
            json!({"error": "no", "images": []}),
            json!({"error": "no", "docs": "https://docs.example/errors"}),
            json!({"error": "no", "url": "/docs"}),
            json!({"message": "no", "url": "/docs/moderation"}),
            json!({"message": "no", "image": "N/A"}),
            json!({"error": "no", "request": {"image": "https://in.example/a.png"}}),
        ];
        for json in refusals {
            assert_eq!(find(&json, None), Some(Found::Refusal), "{json}");
        }
        for json in [
            json!({}),
            json!([]),
            json!(null),
            json!(5),
            json!({"error": ""}),
            json!({"status": "ok"}),
            json!({"image": ""}),
        ] {
            assert_eq!(find(&json, None), None, "{json}");
        }
        for json in [
            json!({"image_url": "/x.png"}),
            json!({"images": [{"url": "/x.png"}]}),
            json!({"message": "ok", "url": " /x.png "}),
        ] {
            assert_eq!(find(&json, None), Some(Found::Odd("/x.png")), "{json}");
        }
    }

    #[test]
    fn the_reference_that_was_sent_is_no_result_wherever_it_comes_back() {
        let sent = "https://assets.example/u/a%20b.jpg";
        for text in [sent, " https://ASSETS.example/u/a%20b.jpg#x ", "https://assets.example:443/u/a b.jpg"] {
            for key in ["image_url", "url", "reference", "image"] {
                let refused = json!({"error": "could not download the reference", key: text});
                assert_eq!(find(&refused, Some(sent)), Some(Found::Refusal), "{refused}");
                let alone = json!({key: text});
                assert_eq!(find(&alone, Some(sent)), None, "{alone}");
                let beside = json!({key: text, "result": "https://out.example/r.png"});
                assert_eq!(find(&beside, Some(sent)), Some(Found::Url("https://out.example/r.png")), "{beside}");
            }
        }
        let other = json!({"image_url": "https://assets.example/u/other.jpg"});
        assert!(matches!(find(&other, Some(sent)), Some(Found::Url(_))));
    }

    #[test]
    fn all_that_an_upload_names_is_an_asset() {
        let json = json!({"data": [{"file_urls": ["https://a.example/1", "no"]}], "url": {"x": "http://b.example/2"},
                          "docs": "https://docs.example/"});
        assert_eq!(asset_urls(&json), ["https://a.example/1", "http://b.example/2"]);
    }

    #[test]
    fn the_words_of_an_error_are_gathered() {
        let said = |json| words(&json);
        assert_eq!(said(json!({"error": "no", "message": "no"})).as_deref(), Some("no"));
        assert_eq!(said(json!({"error": "no", "detail": "polling"})).as_deref(), Some("no; polling"));
        let detail = json!({"detail": [{"loc": ["body", "prompt", 0], "msg": "field required", "type": "x"}]});
        assert_eq!(said(detail).as_deref(), Some("body.prompt.0: field required"));
        assert_eq!(said(json!({"error": {"message": "deep"}})).as_deref(), Some("deep"));
        assert_eq!(said(json!({"status": 1})), None);
    }

    #[test]
    fn an_asset_url_is_https_unless_all_is_on_loopback() {
        let u = "https://assets.example/a";
        for json in [
            json!({"file_urls": [u], "message": "ok"}),
            json!({"urls": [u]}),
            json!({"data": {"file_urls": [u]}}),
            json!({"file_urls": u}),
        ] {
            assert_eq!(asset_url(&json, false), Some(u), "{json}");
        }
        let http = json!({"file_urls": ["http://127.0.0.1/a"]});
        assert_eq!(asset_url(&http, false), None);
        assert_eq!(asset_url(&http, true), Some("http://127.0.0.1/a"));
        assert_eq!(asset_url(&json!({"file_urls": []}), true), None);
    }
}
