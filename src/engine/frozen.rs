//! A drop's request as it is frozen when the drop is claimed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use crate::domain::ids::Fingerprint;
use crate::domain::params::Key;
use crate::domain::request::{RefPlan, RequestPlan, Seeds};

/// Where the reference picture of a request comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Reference {
    /// There is none.
    None,
    /// A sidecar or preset gave its URL.
    Given {
        /// As written.
        url: String,
    },
    /// It was uploaded.
    Uploaded {
        /// The asset's URL; public and perhaps with an e-mail address in it, so never shown.
        url: String,
        /// BLAKE3 of the picture, hexadecimal.
        blake3: String,
        /// The key of the upload cache, hexadecimal.
        key: String,
        /// Whether the upload was made for an earlier drop.
        cached: bool,
    },
    /// It is served where it lies.
    Public {
        /// Where.
        url: String,
    },
    /// It travels in the request itself.
    Inline {
        /// BLAKE3 of the prepared picture, hexadecimal.
        blake3: String,
        /// Its media type.
        media_type: String,
    },
}

/// What is sent for each shot of a drop, but for its seed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Frozen {
    /// The body without `seed` and `structure_image_url`.
    pub body: Map<String, Json>,
    /// The reference.
    pub reference: Reference,
    /// Which file each value came from.
    pub origins: BTreeMap<String, String>,
    /// How many shots were planned at first: names depend on it also when only some are sent again.
    pub shots: u32,
    /// There is no good ledger of the time when it was in work: nobody knows what was sent and billed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub forgotten: bool,
}

impl Frozen {
    /// The plan of a drop with this reference.
    ///
    /// `picture` is the drop's own picture for people: where its reference came from.
    pub fn new(plan: &RequestPlan, reference: Reference, shots: u32, picture: &str) -> Self {
        let mut origins: BTreeMap<String, String> =
            plan.origins.iter().map(|(key, origin)| (key.name().to_owned(), origin.to_string())).collect();
        if plan.reference == RefPlan::Picture {
            origins.insert(Key::StructureImageUrl.name().to_owned(), picture.to_owned());
        }
        if let Seeds::Random(_) = plan.shots {
            origins.insert(Key::Seed.name().to_owned(), "drawn".to_owned());
        }
        let mut body = plan.body(None, None);
        body.remove(Key::StructureImageUrl.name());
        Self { body, reference, origins, shots, forgotten: false }
    }

    /// The plan of a drop that has no request: it failed before.
    pub fn nothing() -> Self {
        Self { body: Map::new(), reference: Reference::None, origins: BTreeMap::new(), shots: 0, forgotten: false }
    }

    /// The plan of a drop that may have been sent, and nobody knows as what.
    pub fn forgotten() -> Self {
        Self { forgotten: true, ..Self::nothing() }
    }

    /// The body of the shot with `seed`, in the order of the API's table; `url` goes where the reference does.
    pub fn body(&self, seed: Option<i64>, url: Option<&str>) -> Map<String, Json> {
        let mut body = Map::new();
        for key in Key::ALL.into_iter().filter(|key| key.is_api()) {
            let name = key.name();
            let value = match key {
                Key::Seed => seed.map(Json::from),
                Key::StructureImageUrl => url.map(Json::from),
                _ => self.body.get(name).cloned(),
            };
            if let Some(value) = value {
                body.insert(name.to_owned(), value);
            }
        }
        body
    }

    /// [`Self::body`] as it may be shown: an uploaded or inline reference by its hash.
    pub fn shown(&self, seed: Option<i64>) -> Map<String, Json> {
        let reference = match &self.reference {
            Reference::None => None,
            Reference::Given { url } => Some(inline_by_its_hash(url)),
            Reference::Public { url } => Some(url.clone()),
            Reference::Uploaded { blake3, .. } | Reference::Inline { blake3, .. } => Some(format!("blake3:{blake3}")),
        };
        self.body(seed, reference.as_deref())
    }

    /// The reference's URL where it is one.
    pub fn url(&self) -> Option<&str> {
        match &self.reference {
            Reference::Given { url } | Reference::Uploaded { url, .. } | Reference::Public { url } => Some(url),
            Reference::None | Reference::Inline { .. } => None,
        }
    }

    /// The picture that was uploaded, or travels in the request, as it was sent.
    pub fn picture(&self) -> Option<Fingerprint> {
        match &self.reference {
            Reference::Uploaded { blake3, .. } | Reference::Inline { blake3, .. } => Fingerprint::parse(blake3),
            Reference::None | Reference::Given { .. } | Reference::Public { .. } => None,
        }
    }

    /// As it is kept in the ledger.
    pub fn to_text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads [`Self::to_text`].
    pub fn from_text(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }
}

/// A picture that a sidecar holds itself (`data:`), by the hash of its bytes; any other address as it is.
fn inline_by_its_hash(url: &str) -> String {
    use base64::Engine as _;
    let Some((_, data)) = url.split_at_checked(5).filter(|(scheme, _)| scheme.eq_ignore_ascii_case("data:")) else {
        return url.to_owned();
    };
    let payload = data.split_once(',').map_or(data, |(_, payload)| payload).trim();
    let bytes = base64::engine::general_purpose::STANDARD.decode(payload);
    let print = bytes.map_or_else(|_| Fingerprint::of(url.as_bytes()), |bytes| Fingerprint::of(&bytes));
    format!("blake3:{print}")
}
