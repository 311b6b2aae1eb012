//! Layers of settings, and what results when they are laid over one another.
//!
//! A layer is what one source sets: `[preset]` of the configuration, a `preset.toml`, a sidecar. Laying one
//! over another replaces key by key; every value keeps where it came from. Whether a layer may set what it
//! sets (locked keys, too many variants) is judged here too, since the answer names the layer that is at
//! fault. Reading files is not done here.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use super::params::{Key, Value};

/// Which kind of file sets something. The order is that in which layers lie over one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum By {
    /// The configuration's `[preset]` or a `preset.toml`.
    Preset,
    /// A `.toml` or `.json` of the drop.
    Request,
    /// A `.txt` of the drop; its prompt beats one in the drop's `.toml` or `.json`.
    Text,
}

impl By {
    /// Whether it belongs to the drop, rather than to a folder.
    pub fn is_sidecar(self) -> bool {
        self != Self::Preset
    }
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Which kind of file.
    pub by: By,
    /// The file for people: `config.toml [preset]`, `inbox/preset.toml`, `terrace.txt`.
    pub source: Arc<str>,
    /// The line in it, from 1, where that says something.
    pub line: Option<u32>,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)?;
        self.line.map_or(Ok(()), |line| write!(f, ":{line}"))
    }
}

/// What a source says about one key.
#[derive(Clone, Debug, PartialEq)]
pub enum Setting {
    /// It has this value.
    Set(Value),
    /// It is left out again, whatever an outer source says.
    Unset,
}

/// What one source sets.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Layer {
    entries: BTreeMap<Key, (Setting, Origin)>,
}

impl Layer {
    /// A layer that sets nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets `key`, replacing what this layer said of it (and of the key that is the same setting).
    pub fn put(&mut self, key: Key, setting: Setting, origin: Origin) {
        self.entries.retain(|other, _| !other.same_setting(key));
        self.entries.insert(key, (setting, origin));
    }

    /// What it says about `key`, and where.
    pub fn get(&self, key: Key) -> Option<(&Setting, &Origin)> {
        self.entries.get(&key).map(|(setting, origin)| (setting, origin))
    }

    /// Whether it says nothing at all.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What it says, in the order of [`Key::ALL`].
    pub fn iter(&self) -> impl Iterator<Item = (Key, &Setting, &Origin)> {
        self.entries.iter().map(|(key, (setting, origin))| (*key, setting, origin))
    }

    /// This layer with `inner` laid over it.
    #[must_use]
    pub fn under(mut self, inner: &Self) -> Self {
        for (key, setting, origin) in inner.iter() {
            self.put(key, setting.clone(), origin.clone());
        }
        self
    }

    /// What this layer does that it may not: for looking at a `preset.toml` before any drop needs it.
    pub fn faults(&self, rules: &Rules) -> Vec<Fault> {
        let mut faults = Vec::new();
        for (key, setting, origin) in self.iter() {
            let mut fault = |message: String| faults.push(Fault { key, origin: origin.clone(), message });
            if origin.by.is_sidecar() && rules.is_locked(key) {
                fault("is locked in the configuration ([limits] locked), so a sidecar may not set it".into());
                continue;
            }
            let shots = match (key, setting) {
                (Key::Variants, Setting::Set(Value::Integer(n))) => u64::try_from(*n).unwrap_or(0),
                (Key::Seeds, Setting::Set(Value::Integers(list))) => list.len() as u64,
                _ => continue,
            };
            if shots > u64::from(rules.max_variants) {
                fault(format!(
                    "asks for {shots} pictures, {} are allowed ([limits] max_variants in the configuration)",
                    rules.max_variants
                ));
            }
        }
        faults
    }
}

/// What the configuration's `[limits]` says about layers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// How many shots a drop may have at most.
    pub max_variants: u32,
    /// What sidecars may not set. Locking `variants` or `seeds` locks both: they are one setting.
    pub locked: BTreeSet<Key>,
}

impl Rules {
    fn is_locked(&self, key: Key) -> bool {
        self.locked.iter().any(|locked| locked.same_setting(key))
    }
}

/// A layer does what it may not. `origin.by` says whose fault it is: a preset's stops its subtree, a
/// sidecar's fails its drop.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{origin}: {key}: {message}")]
pub struct Fault {
    /// The key.
    pub key: Key,
    /// The layer, and the line in it.
    pub origin: Origin,
    /// What is wrong and what to do about it.
    pub message: String,
}

/// Every fault of the layers of one drop; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults(pub Vec<Fault>);

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, fault) in self.0.iter().enumerate() {
            write!(f, "{}{fault}", if i == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}

/// Whether a drop has, needs or takes sidecars.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SidecarRule {
    /// A picture waits a moment for one.
    #[default]
    Optional,
    /// A picture waits until one comes.
    Required,
    /// None is waited for or taken.
    Ignore,
}

/// Whether a drop has or needs a picture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReferenceRule {
    /// A sidecar waits a while for one.
    #[default]
    Optional,
    /// A sidecar waits until one comes.
    Required,
    /// There are none here; a sidecar does not wait.
    None,
}

/// How many shots a drop has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shots {
    /// One, as nobody said otherwise.
    One,
    /// That many, at least one.
    Variants(u32),
    /// One for each of these seeds, at least one.
    Seeds(Vec<i64>),
}

/// Layers laid over one another: what holds in the end, and where it came from.
#[derive(Clone, Debug, PartialEq)]
pub struct Resolved {
    values: BTreeMap<Key, (Value, Origin)>,
}

/// Lays `layers` over one another, outermost first, and judges them. A drop's sidecars may stand in any
/// order: they lie over all presets, and a `.txt` over a `.toml` or `.json`.
pub fn merge(layers: &[Layer], rules: &Rules) -> Result<Resolved, Faults> {
    let faults: Vec<_> = layers.iter().flat_map(|layer| layer.faults(rules)).collect();
    if !faults.is_empty() {
        return Err(Faults(faults));
    }
    let resolved = lay(layers);
    match resolved.seeds_overflow() {
        Some(fault) => Err(Faults(vec![fault])),
        None => Ok(resolved),
    }
}

/// [`merge`] for a folder's own layers, when only `enabled`, `priority`, `sidecar` and `reference` are asked
/// for: nothing is judged.
pub fn lay(layers: &[Layer]) -> Resolved {
    let mut order: Vec<&Layer> = layers.iter().collect();
    // A layer comes from one file, so its first entry tells its kind. The sort is stable.
    order.sort_by_key(|layer| layer.iter().next().map(|(_, _, origin)| origin.by));
    let all = order.into_iter().fold(Layer::new(), Layer::under);
    let values = all.entries.into_iter().filter_map(|(key, (setting, origin))| match setting {
        Setting::Set(Value::Text(text)) if key == Key::Prompt && text.trim().is_empty() => None,
        Setting::Set(value) => Some((key, (value, origin))),
        Setting::Unset => None,
    });
    Resolved { values: values.collect() }
}

impl Resolved {
    /// The value of `key` and where it came from; `None` if nobody set it, or it was left out again.
    pub fn get(&self, key: Key) -> Option<(&Value, &Origin)> {
        self.values.get(&key).map(|(value, origin)| (value, origin))
    }

    /// Every value that holds, in the order of [`Key::ALL`].
    pub fn iter(&self) -> impl Iterator<Item = (Key, &Value, &Origin)> {
        self.values.iter().map(|(key, (value, origin))| (*key, value, origin))
    }

    /// Whether the folder is to be worked on at all.
    pub fn enabled(&self) -> bool {
        self.get(Key::Enabled).and_then(|(value, _)| value.as_flag()).unwrap_or(true)
    }

    /// Higher goes first.
    pub fn priority(&self) -> i64 {
        self.get(Key::Priority).and_then(|(value, _)| value.as_integer()).unwrap_or(0)
    }

    /// What holds for sidecars.
    pub fn sidecar(&self) -> SidecarRule {
        match self.text(Key::Sidecar) {
            Some("required") => SidecarRule::Required,
            Some("ignore") => SidecarRule::Ignore,
            _ => SidecarRule::Optional,
        }
    }

    /// What holds for pictures.
    pub fn reference(&self) -> ReferenceRule {
        match self.text(Key::Reference) {
            Some("required") => ReferenceRule::Required,
            Some("none") => ReferenceRule::None,
            _ => ReferenceRule::Optional,
        }
    }

    /// The prompt with what is put before and after it, as they are; `None` if there is no prompt from
    /// anywhere. A prefix or suffix alone makes none.
    pub fn prompt(&self) -> Option<String> {
        let prompt = self.text(Key::Prompt)?;
        let prefix = self.text(Key::PromptPrefix).unwrap_or_default();
        let suffix = self.text(Key::PromptSuffix).unwrap_or_default();
        Some(format!("{prefix}{prompt}{suffix}"))
    }

    /// The address given for the reference. `origin.by` says whether it beats a picture (a sidecar's does) or
    /// counts only without one (a preset's).
    pub fn structure_image_url(&self) -> Option<(&str, &Origin)> {
        self.get(Key::StructureImageUrl).and_then(|(value, origin)| Some((value.as_text()?, origin)))
    }

    /// The seed set for the first shot.
    pub fn seed(&self) -> Option<i64> {
        self.get(Key::Seed).and_then(|(value, _)| value.as_integer())
    }

    /// How many shots, and their seeds where they are listed.
    pub fn shots(&self) -> Shots {
        if let Some((Value::Integers(list), _)) = self.get(Key::Seeds) {
            return Shots::Seeds(list.clone());
        }
        match self.get(Key::Variants).and_then(|(value, _)| value.as_integer()) {
            Some(n) => Shots::Variants(u32::try_from(n.max(1)).unwrap_or(u32::MAX)),
            None => Shots::One,
        }
    }

    fn text(&self, key: Key) -> Option<&str> {
        self.get(key).and_then(|(value, _)| value.as_text())
    }

    /// `seed`, `seed + 1` … must all be numbers that can be sent. The inner of the two keys is at fault.
    fn seeds_overflow(&self) -> Option<Fault> {
        let (Shots::Variants(n), Some((Value::Integer(seed), at_seed))) = (self.shots(), self.get(Key::Seed)) else {
            return None;
        };
        seed.checked_add(i64::from(n) - 1).is_none().then(|| {
            let (_, at_variants) = self.get(Key::Variants).unwrap_or((&Value::Flag(true), at_seed));
            let origin = if at_variants.by > at_seed.by { at_variants } else { at_seed }.clone();
            Fault { key: Key::Seed, origin, message: format!("{seed} is too large for {n} seeds in a row") }
        })
    }
}

#[cfg(test)]
#[path = "preset_tests.rs"]
mod tests;
