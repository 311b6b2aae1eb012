//! `NAME.reimagined.json`: what made a result, and what it cost. An interface: documented, stable.
//!
//! Holds no key, no credits left and no asset URL: the request comes in as it may be shown, with
//! the picture's fingerprint where an uploaded or inline reference stood.

use std::collections::BTreeMap;
use std::ffi::OsStr;

use serde::{Deserialize, Serialize};

use crate::domain::ids::{DropId, Fingerprint, ShotNo, show};

/// The version of this file's shape. A key may be added without a new one; none changes its meaning.
pub const SCHEMA: u32 = 1;

/// The provenance of one result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Provenance {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The result's own name.
    pub result: String,
    /// BLAKE3 of the result, 64 hexadecimal digits.
    pub result_blake3: String,
    /// The drop, 32 hexadecimal digits.
    pub drop: String,
    /// The shot's place in its drop, from 1.
    pub shot: u32,
    /// What was dropped.
    pub inputs: Vec<Input>,
    /// The request as sent.
    pub request: serde_json::Map<String, serde_json::Value>,
    /// For each key of the request the file (or other source) that its value came from.
    pub origins: BTreeMap<String, String>,
    /// The service's id of the request, if it gave one.
    pub request_id: Option<String>,
    /// The seed: the one that was sent, else the one that the service reported.
    pub seed: Option<i64>,
    /// The cost in US dollars, if the service reported one.
    pub cost: Option<f64>,
    /// When the request was sent, the result received and published.
    pub times: Times,
    /// How many times the request was sent.
    pub attempts: u32,
    /// Whether it is unknown of any of them if it was billed.
    pub unconfirmed_attempts: bool,
    /// The program's version.
    pub version: String,
}

/// One dropped file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// Its name; what is not UTF-8 in it is replaced.
    pub name: String,
    /// BLAKE3 of its bytes, 64 hexadecimal digits.
    pub blake3: String,
}

/// Moments, RFC 3339 in UTC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Times {
    /// The first byte of the answered attempt.
    pub sent: Option<jiff::Timestamp>,
    /// The result was whole in the spool.
    pub received: Option<jiff::Timestamp>,
    /// Its name was committed, right before it was published.
    pub published: Option<jiff::Timestamp>,
}

impl Input {
    /// A dropped file, shown for people.
    pub fn new(name: &OsStr, print: Fingerprint) -> Self {
        Self { name: show(name), blake3: print.to_string() }
    }
}

impl Provenance {
    /// The file's text: JSON, indented, with a line break at its end.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut text = serde_json::to_string_pretty(self).unwrap_or_else(|e| {
            // Maps have text keys and numbers are finite or null, so this can't be reached; and a result
            // without provenance is better than none.
            format!("{{\"schema\": {SCHEMA}, \"error\": {:?}}}", e.to_string())
        });
        text.push('\n');
        text.into_bytes()
    }
}

/// Whether these bytes are the provenance of this very shot, perhaps from an earlier try.
pub fn is_of(bytes: &[u8], drop: DropId, shot: ShotNo) -> bool {
    serde_json::from_slice::<Provenance>(bytes).is_ok_and(|p| p.drop == drop.to_string() && p.shot == shot.0 + 1)
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::ffi::OsStrExt as _;

    use super::*;

    pub(in crate::outbox) fn sample(drop: DropId, shot: ShotNo) -> Provenance {
        let reference = format!("blake3:{}", Fingerprint::of(b"jpg"));
        let request = serde_json::json!({"prompt": "autumn", "structure_image_url": reference, "seed": 7});
        Provenance {
            schema: SCHEMA,
            result: "terrace.png".into(),
            result_blake3: Fingerprint::of(b"png").to_string(),
            drop: drop.to_string(),
            shot: shot.0 + 1,
            inputs: vec![Input::new(OsStr::from_bytes(b"t\xff.jpg"), Fingerprint::of(b"jpg"))],
            request: request.as_object().unwrap().clone(),
            origins: [("prompt".to_owned(), "autumn-cafe/preset.toml".to_owned())].into(),
            request_id: Some("r-1".into()),
            seed: Some(7),
            cost: Some(0.04),
            times: Times { sent: Some(jiff::Timestamp::UNIX_EPOCH), received: None, published: None },
            attempts: 2,
            unconfirmed_attempts: false,
            version: "0.1.0".into(),
        }
    }

    #[test]
    fn the_shape_is_the_documented_one() {
        let text = String::from_utf8(sample(DropId([1; 16]), ShotNo(3)).to_bytes()).unwrap();
        let wanted = format!(
            r#"{{
  "schema": 1,
  "result": "terrace.png",
  "result_blake3": "{png}",
  "drop": "01010101010101010101010101010101",
  "shot": 4,
  "inputs": [
    {{
      "name": "t{bad}.jpg",
      "blake3": "{jpg}"
    }}
  ],
  "request": {{
    "prompt": "autumn",
    "structure_image_url": "blake3:{jpg}",
    "seed": 7
  }},
  "origins": {{
    "prompt": "autumn-cafe/preset.toml"
  }},
  "request_id": "r-1",
  "seed": 7,
  "cost": 0.04,
  "times": {{
    "sent": "1970-01-01T00:00:00Z",
    "received": null,
    "published": null
  }},
  "attempts": 2,
  "unconfirmed_attempts": false,
  "version": "0.1.0"
}}
"#,
            png = Fingerprint::of(b"png"),
            jpg = Fingerprint::of(b"jpg"),
            bad = '\u{fffd}',
        );
        assert_eq!(text, wanted);
    }

    #[test]
    fn a_shots_own_provenance_is_known_again() {
        let bytes = sample(DropId([1; 16]), ShotNo(3)).to_bytes();
        assert!(is_of(&bytes, DropId([1; 16]), ShotNo(3)));
        assert!(!is_of(&bytes, DropId([1; 16]), ShotNo(2)));
        assert!(!is_of(&bytes, DropId([2; 16]), ShotNo(3)));
        assert!(!is_of(b"{\"drop\": 1}", DropId([1; 16]), ShotNo(3)));
    }
}
