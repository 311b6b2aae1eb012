//! What is sent for a shot.
//!
//! A plan is made from what resolved for a drop and from whether it has a picture. It knows the request as
//! written ([`RequestPlan::written`], by which a drop that comes back is known again) and as sent
//! ([`RequestPlan::body`]). It draws no seeds and prepares no pictures: both are arguments.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json, json};

use super::ids::Fingerprint;
use super::params::{Key, Value};
use super::preset::{Origin, Resolved, Shots};

/// The largest seed to draw, the least being 0: what every service that takes seeds accepts.
pub const LARGEST_DRAWN_SEED: i64 = i32::MAX as i64;

/// The picture whose structure is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RefPlan {
    /// None.
    None,
    /// The one at this address, written in a sidecar or preset; nothing is uploaded.
    Given {
        /// As it was written.
        url: String,
    },
    /// The drop's own picture.
    Picture,
}

/// The seeds of a drop's shots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seeds {
    /// One shot, and no seed is sent: nobody asked for one, so the service chooses.
    Unsaid,
    /// One shot for each.
    Fixed(Vec<i64>),
    /// That many shots (two or more), each with a seed to be drawn once and kept.
    Random(u32),
}

impl Seeds {
    /// How many shots, at least one.
    pub fn count(&self) -> u32 {
        match self {
            Self::Unsaid => 1,
            Self::Fixed(list) => list.len() as u32,
            Self::Random(n) => *n,
        }
    }
}

/// What is to be sent for a drop.
#[derive(Clone, Debug, PartialEq)]
pub struct RequestPlan {
    /// The API's parameters that somebody set, without `prompt`, `seed` and `structure_image_url`.
    pub params: BTreeMap<Key, Value>,
    /// The prompt, composed; `None` while the drop waits for one.
    pub prompt: Option<String>,
    /// The reference.
    pub reference: RefPlan,
    /// The shots and their seeds.
    pub shots: Seeds,
    /// Where each value that counts came from, also those of `prompt_prefix`, `variants` and the like.
    pub origins: BTreeMap<Key, Origin>,
}

/// What is to be sent for a drop with, or without, a picture of its own.
///
/// A sidecar's `structure_image_url` beats the picture; a preset's counts only for a drop without one.
pub fn plan_request(resolved: &Resolved, has_picture: bool) -> RequestPlan {
    let mut origins = BTreeMap::new();
    let mut params = BTreeMap::new();
    for (key, value, origin) in resolved.iter() {
        if !key.in_sidecar() {
            continue;
        }
        origins.insert(key, origin.clone());
        if key.is_api() && !matches!(key, Key::Prompt | Key::Seed | Key::StructureImageUrl) {
            params.insert(key, value.clone());
        }
    }

    let reference = match resolved.structure_image_url() {
        Some((url, origin)) if !has_picture || origin.by.is_sidecar() => RefPlan::Given { url: url.to_owned() },
        _ if has_picture => RefPlan::Picture,
        _ => RefPlan::None,
    };
    if !matches!(reference, RefPlan::Given { .. }) {
        origins.remove(&Key::StructureImageUrl);
    }

    let shots = match (resolved.shots(), resolved.seed()) {
        (Shots::Seeds(list), _) => {
            origins.remove(&Key::Seed);
            Seeds::Fixed(list)
        }
        (Shots::Variants(n), Some(seed)) => Seeds::Fixed((0..i64::from(n)).map(|i| seed.saturating_add(i)).collect()),
        (Shots::One, Some(seed)) => Seeds::Fixed(vec![seed]),
        (Shots::Variants(n), None) if n > 1 => Seeds::Random(n),
        (Shots::Variants(_) | Shots::One, None) => Seeds::Unsaid,
    };

    RequestPlan { params, prompt: resolved.prompt(), reference, shots, origins }
}

impl RequestPlan {
    /// Whether it can be sent; if not, the drop waits for a prompt.
    pub fn is_ready(&self) -> bool {
        self.prompt.is_some()
    }

    /// The request as written, before seeds are drawn or a reference is uploaded, as bytes that are the same
    /// exactly when the request is: where its values came from plays no part.
    pub fn written(&self) -> Vec<u8> {
        let params: Map<_, _> = self.params.iter().map(|(key, value)| (key.name().into(), value.to_json())).collect();
        let reference = match &self.reference {
            RefPlan::None => Json::Null,
            RefPlan::Given { url } => json!({ "url": url }),
            RefPlan::Picture => json!("picture"),
        };
        let seeds = match &self.shots {
            Seeds::Unsaid => Json::Null,
            Seeds::Fixed(list) => json!(list),
            Seeds::Random(n) => json!({ "random": n }),
        };
        // An array, so that its order can't depend on how maps are kept.
        json!([1, self.prompt, params, reference, seeds]).to_string().into_bytes()
    }

    /// [`Self::written`], shortened.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.written())
    }

    /// The exact body of one shot, in the order of the API's own table. `picture` is the address of the
    /// drop's own picture as it was uploaded, served or inlined; it counts for [`RefPlan::Picture`] alone.
    pub fn body(&self, seed: Option<i64>, picture: Option<&str>) -> Map<String, Json> {
        let url = match &self.reference {
            RefPlan::None => None,
            RefPlan::Given { url } => Some(url.as_str()),
            RefPlan::Picture => picture,
        };
        let mut body = Map::new();
        for key in Key::ALL.into_iter().filter(|key| key.is_api()) {
            let value = match key {
                Key::Prompt => self.prompt.as_deref().map(Json::from),
                Key::StructureImageUrl => url.map(Json::from),
                Key::Seed => seed.map(Json::from),
                other => self.params.get(&other).map(Value::to_json),
            };
            if let Some(value) = value {
                body.insert(key.name().into(), value);
            }
        }
        body
    }
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
