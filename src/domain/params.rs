//! The parameters of the API and of a preset: names, types, ranges.
//!
//! One table answers every question about a key: what it is called, what may stand in it, whether the API
//! knows it, whether a sidecar may set it. Reading files and reporting places is the configuration's work.

use std::fmt;

use serde_json::Value as Json;

/// A key of a preset, and of a sidecar where [`Key::in_sidecar`] says so.
///
/// The order of the first eleven is the order of the API's own table, in which a request is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// `prompt`
    Prompt,
    /// `structure_image_url`
    StructureImageUrl,
    /// `structure_ref_influence`
    StructureRefInfluence,
    /// `steps_num`
    StepsNum,
    /// `seed`
    Seed,
    /// `fast`
    Fast,
    /// `enhance_image`
    EnhanceImage,
    /// `prompt_content_moderation`
    PromptContentModeration,
    /// `content_moderation`
    ContentModeration,
    /// `ip_signal`
    IpSignal,
    /// `include_generation_prefix`
    IncludeGenerationPrefix,
    /// `prompt_prefix`
    PromptPrefix,
    /// `prompt_suffix`
    PromptSuffix,
    /// `variants`; one setting with `seeds`
    Variants,
    /// `seeds`; one setting with `variants`
    Seeds,
    /// `sidecar`
    Sidecar,
    /// `reference`
    Reference,
    /// `enabled`
    Enabled,
    /// `priority`
    Priority,
}

/// What may stand in a key.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Any text.
    Text,
    /// An https address, http for loopback only, or a `data:image/` URI.
    Address,
    /// A number from the first to the second, both included.
    Number(f64, f64),
    /// A whole number from the first to the second, both included.
    Integer(i64, i64),
    /// `true` or `false`.
    Flag,
    /// One or more whole numbers, none of them twice.
    Integers,
    /// One of these words.
    Choice(&'static [&'static str]),
}

/// What a key is set to, of the type that its [`Kind`] asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// For [`Kind::Text`], [`Kind::Address`] and [`Kind::Choice`].
    Text(String),
    /// For [`Kind::Integer`].
    Integer(i64),
    /// For [`Kind::Number`]; always finite.
    Number(f64),
    /// For [`Kind::Flag`].
    Flag(bool),
    /// For [`Kind::Integers`].
    Integers(Vec<i64>),
}

/// The word that leaves a parameter out again.
pub const UNSET: &str = "unset";

impl Key {
    /// Every key; the API's own first, in the API's order.
    pub const ALL: [Self; 19] = [
        Self::Prompt,
        Self::StructureImageUrl,
        Self::StructureRefInfluence,
        Self::StepsNum,
        Self::Seed,
        Self::Fast,
        Self::EnhanceImage,
        Self::PromptContentModeration,
        Self::ContentModeration,
        Self::IpSignal,
        Self::IncludeGenerationPrefix,
        Self::PromptPrefix,
        Self::PromptSuffix,
        Self::Variants,
        Self::Seeds,
        Self::Sidecar,
        Self::Reference,
        Self::Enabled,
        Self::Priority,
    ];

    /// The key as it is written in files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Prompt => "prompt",
            Self::StructureImageUrl => "structure_image_url",
            Self::StructureRefInfluence => "structure_ref_influence",
            Self::StepsNum => "steps_num",
            Self::Seed => "seed",
            Self::Fast => "fast",
            Self::EnhanceImage => "enhance_image",
            Self::PromptContentModeration => "prompt_content_moderation",
            Self::ContentModeration => "content_moderation",
            Self::IpSignal => "ip_signal",
            Self::IncludeGenerationPrefix => "include_generation_prefix",
            Self::PromptPrefix => "prompt_prefix",
            Self::PromptSuffix => "prompt_suffix",
            Self::Variants => "variants",
            Self::Seeds => "seeds",
            Self::Sidecar => "sidecar",
            Self::Reference => "reference",
            Self::Enabled => "enabled",
            Self::Priority => "priority",
        }
    }

    /// The key of that name, exactly; `None` if there is none.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|key| key.name() == name)
    }

    /// What may stand in it.
    pub const fn kind(self) -> Kind {
        match self {
            Self::Prompt | Self::PromptPrefix | Self::PromptSuffix => Kind::Text,
            Self::StructureImageUrl => Kind::Address,
            Self::StructureRefInfluence => Kind::Number(0.0, 1.0),
            Self::StepsNum => Kind::Integer(4, 50),
            Self::Seed | Self::Priority => Kind::Integer(i64::MIN, i64::MAX),
            Self::Fast
            | Self::EnhanceImage
            | Self::PromptContentModeration
            | Self::ContentModeration
            | Self::IpSignal
            | Self::IncludeGenerationPrefix
            | Self::Enabled => Kind::Flag,
            // How many there may be at most is the configuration's `max_variants`.
            Self::Variants => Kind::Integer(1, i64::MAX),
            Self::Seeds => Kind::Integers,
            Self::Sidecar => Kind::Choice(&["optional", "required", "ignore"]),
            Self::Reference => Kind::Choice(&["optional", "required", "none"]),
        }
    }

    /// Whether it is a parameter of the API, and so may stand in a request.
    pub fn is_api(self) -> bool {
        self <= Self::IncludeGenerationPrefix
    }

    /// Whether a sidecar may set it; the others are for presets alone.
    pub fn in_sidecar(self) -> bool {
        self <= Self::Seeds
    }

    /// Whether the two are the same setting: each key with itself, and `variants` with `seeds`.
    pub fn same_setting(self, other: Self) -> bool {
        let shots = |key| matches!(key, Self::Variants | Self::Seeds);
        self == other || (shots(self) && shots(other))
    }

    /// Whether `value` may stand in this key; if not, what is wrong with it, in words for a person.
    pub fn check(self, value: &Value) -> Result<(), String> {
        let wrong = || Err(format!("must be {}", self.kind()));
        match (self.kind(), value) {
            (Kind::Text, Value::Text(_)) | (Kind::Flag, Value::Flag(_)) => Ok(()),
            (Kind::Address, Value::Text(text)) => check_address(text),
            (Kind::Number(least, most), Value::Number(n)) if (least..=most).contains(n) => Ok(()),
            (Kind::Integer(least, most), Value::Integer(n)) if (least..=most).contains(n) => Ok(()),
            (Kind::Choice(words), Value::Text(text)) if words.contains(&text.as_str()) => Ok(()),
            (Kind::Integers, Value::Integers(list)) => check_seeds(list),
            (Kind::Number(..), Value::Number(n)) => Err(format!("{n} is out of range: must be {}", self.kind())),
            (Kind::Integer(..), Value::Integer(n)) => Err(format!("{n} is out of range: must be {}", self.kind())),
            _ => wrong(),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Kind {
    /// What is asked for, as it follows "must be".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text => f.write_str("a text"),
            Self::Address => f.write_str("an https address or a data:image/ URI, as a text"),
            Self::Number(least, most) => write!(f, "a number from {least} to {most}"),
            Self::Integer(i64::MIN, i64::MAX) => f.write_str("a whole number"),
            Self::Integer(least, i64::MAX) => write!(f, "a whole number, at least {least}"),
            Self::Integer(least, most) => write!(f, "a whole number from {least} to {most}"),
            Self::Flag => f.write_str("true or false"),
            Self::Integers => f.write_str("a list of whole numbers"),
            Self::Choice(words) => {
                for (i, word) in words.iter().enumerate() {
                    let before = match i {
                        0 => "",
                        _ if i + 1 == words.len() => " or ",
                        _ => ", ",
                    };
                    write!(f, "{before}\"{word}\"")?;
                }
                Ok(())
            }
        }
    }
}

impl Value {
    /// The value as it stands in a request or a report.
    pub fn to_json(&self) -> Json {
        match self {
            Self::Text(text) => Json::from(text.as_str()),
            Self::Integer(n) => Json::from(*n),
            Self::Number(n) => Json::from(*n),
            Self::Flag(flag) => Json::from(*flag),
            Self::Integers(list) => Json::from(list.as_slice()),
        }
    }

    /// The text, if it is one.
    pub fn as_text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    /// The whole number, if it is one.
    pub fn as_integer(&self) -> Option<i64> {
        if let Self::Integer(n) = self { Some(*n) } else { None }
    }

    /// The flag, if it is one.
    pub fn as_flag(&self) -> Option<bool> {
        if let Self::Flag(flag) = self { Some(*flag) } else { None }
    }
}

fn check_seeds(list: &[i64]) -> Result<(), String> {
    if list.is_empty() {
        return Err("is empty: must hold at least one seed".into());
    }
    let mut sorted = list.to_vec();
    sorted.sort_unstable();
    match sorted.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(format!("holds {} twice: the same picture would be paid for twice", pair[0])),
        None => Ok(()),
    }
}

fn check_address(text: &str) -> Result<(), String> {
    if text.contains(|c: char| c.is_control() || c.is_whitespace()) {
        return Err("holds blank space or a control character, which an address can't".into());
    }
    if text.get(..11).is_some_and(|head| head.eq_ignore_ascii_case("data:image/")) {
        return if text.contains(',') { Ok(()) } else { Err("is a data: URI without data".into()) };
    }
    let url = url::Url::parse(text).map_err(|e| format!("is no address ({e}): must be {}", Kind::Address))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("holds a user name or a password; an address that is sent must not".into());
    }
    match url.scheme() {
        "https" => Ok(()),
        "http" if is_loopback(&url) => Ok(()),
        "http" => Err("is http, which is accepted for loopback only: use https".into()),
        "data" => Err("is a data: URI that is no picture: it must begin with data:image/".into()),
        "file" => Err("is a file on this machine, which the service can't read: drop the picture itself".into()),
        other => Err(format!("begins with {other}: must be {}", Kind::Address)),
    }
}

/// Whether the host of `url` is this machine: `localhost`, a name below it, or a loopback address.
pub fn is_loopback(url: &url::Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => {
            let name = name.strip_suffix('.').unwrap_or(name);
            name.eq_ignore_ascii_case("localhost") || name.to_ascii_lowercase().ends_with(".localhost")
        }
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.to_canonical().is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_key_is_found_by_its_name_and_the_order_is_that_of_the_table() {
        for key in Key::ALL {
            assert_eq!(Key::parse(key.name()), Some(key));
        }
        assert!(Key::ALL.is_sorted());
        assert_eq!(Key::ALL.iter().filter(|k| k.is_api()).count(), 11);
        assert_eq!(Key::ALL.iter().filter(|k| k.in_sidecar()).count(), 15);
    }

    #[test]
    fn ranges_include_their_ends() {
        for (key, value, good) in [
            (Key::StepsNum, Value::Integer(4), true),
            (Key::StepsNum, Value::Integer(50), true),
            (Key::StepsNum, Value::Integer(3), false),
            (Key::StepsNum, Value::Integer(51), false),
            (Key::StepsNum, Value::Flag(true), false),
            (Key::StructureRefInfluence, Value::Number(0.0), true),
            (Key::StructureRefInfluence, Value::Number(1.0), true),
            (Key::StructureRefInfluence, Value::Number(1.000_001), false),
            (Key::StructureRefInfluence, Value::Number(f64::NAN), false),
            (Key::Seed, Value::Integer(i64::MIN), true),
            (Key::Variants, Value::Integer(0), false),
            (Key::Variants, Value::Integer(1), true),
            (Key::Seeds, Value::Integers(vec![]), false),
            (Key::Seeds, Value::Integers(vec![7, 42]), true),
            (Key::Seeds, Value::Integers(vec![7, 42, 7]), false),
            (Key::Sidecar, Value::Text("ignore".into()), true),
            (Key::Sidecar, Value::Text("none".into()), false),
            (Key::Reference, Value::Text("none".into()), true),
        ] {
            assert_eq!(key.check(&value).is_ok(), good, "{key} = {value:?}");
        }
        assert_eq!(
            Key::Reference.check(&Value::Flag(true)).unwrap_err(),
            "must be \"optional\", \"required\" or \"none\""
        );
    }

    #[test]
    fn an_address_is_https_or_loopback_or_a_picture() {
        for (text, good) in [
            ("https://cdn.example.com/a.png", true),
            ("http://127.0.0.1:8080/a.png", true),
            ("http://localhost/a.png", true),
            ("http://[::1]:1/a.png", true),
            ("http://[::ffff:127.0.0.1]/a.png", true),
            ("http://cdn.example.com/a.png", false),
            ("http://localhost.example.com/a.png", false),
            ("https://me:secret@example.com/", false),
            ("data:image/png;base64,AAAA", true),
            ("data:image/png", false),
            ("data:text/html,hi", false),
            ("file:///etc/passwd", false),
            ("terrace.jpg", false),
            (" https://cdn.example.com/a.png", false),
            ("https://cdn.example.com/a b.png", false),
            ("", false),
            ("dätä:image/x,", false),
        ] {
            assert_eq!(check_address(text).is_ok(), good, "{text}");
        }
    }
}
