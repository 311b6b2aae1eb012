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
    // Beside an error a bare `url` leads to its documentation, if it names no picture.
    let bare = |text: &'a str| match result(text) {
        Some(Found::Url(url)) if !names_a_picture(url) => None,
        found => found,
    };
    if let Some(found) = known(json, refuses(json), &result, &bare) {
        return Some(found);
    }
    let refused = refuses(json) || refuses_inside(json);
    let spoke = refused || speaks(json);
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

/// Whether what stands where a result should says so.
fn refuses_inside(json: &Value) -> bool {
    KNOWN.iter().filter_map(|key| json.get(key)).any(fails)
}

/// Whether an object has an error of its own. A `detail` may be one of a picture.
fn fails(json: &Value) -> bool {
    ["error", "errors"].iter().any(|key| json.get(key).is_some_and(says_something))
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
    // It is no result; what it leads to may say more to a person.
    if let Some(url) = json.get("url").and_then(Value::as_str).filter(|_| refuses(json) && !words.is_empty()) {
        words.push(format!("see {url}"));
    }
    if words.is_empty() {
        let mut inner = KNOWN.iter().filter_map(|key| json.get(key)).filter(|inner| inner.is_object());
        return inner.find_map(self::words);
    }
    Some(words.join("; "))
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
        Value::Bool(true) => true,
        Value::Number(number) => number.as_f64() != Some(0.0),
    }
}

/// What is picked under the keys of results. Beside an error (`refused`), and in what merely wraps that, `bare` picks under
/// those that may hold any URL.
fn known<'a>(
    json: &'a Value,
    refused: bool,
    pick: &dyn Fn(&'a str) -> Option<Found<'a>>,
    bare: &dyn Fn(&'a str) -> Option<Found<'a>>,
) -> Option<Found<'a>> {
    match json {
        Value::String(text) => pick(text),
        Value::Array(items) => items.iter().find_map(|item| known(item, false, pick, bare)),
        Value::Object(map) => {
            let refused = refused || fails(json);
            KNOWN.iter().find_map(|key| {
                let pick = if refused && ["url", "urls"].contains(key) { bare } else { pick };
                known(map.get(*key)?, refused && ["data", "response"].contains(key), pick, bare)
            })
        }
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
mod tests;
