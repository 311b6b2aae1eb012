//! `[output] name`: the text with placeholders, and what it gives for one shot.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

use jiff::civil::Date;

use crate::domain::ids::RelPath;

/// Why the text of `[output] name` is no template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// Nothing in it.
    #[error("the name is empty; \"{{stem}}\" keeps the original's name")]
    Empty,
    /// It names another folder.
    #[error("a name can't hold \"/\": results lie in the folder their original came from")]
    Slash,
    /// A character that no name should hold.
    #[error("a name can't hold control characters")]
    Control,
    /// `{…}` with another word in it.
    #[error("unknown placeholder \"{{{0}}}\"; there are {{stem}} {{seed}} {{variant}} {{folder}} {{date}}")]
    Unknown(String),
    /// A brace without its partner.
    #[error("a brace without its partner; a brace itself is written \"{{{{\" or \"}}}}\"")]
    Brace,
}

/// A parsed `[output] name`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Stem,
    Seed,
    Variant,
    Folder,
    Date,
}

/// What the placeholders stand for.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    /// The drop's stem, any bytes.
    pub stem: &'a OsStr,
    /// The shot's seed, if it has one.
    pub seed: Option<i64>,
    /// The shot's place in its drop, from 1.
    pub variant: u32,
    /// How many shots the drop has.
    pub shots: u32,
    /// The drop's folder.
    pub folder: &'a RelPath,
    /// The day on which the result came, where the daemon runs.
    pub date: Date,
}

impl Template {
    /// Reads a template. `{{` and `}}` are braces themselves.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        if text.trim().is_empty() {
            return Err(TemplateError::Empty);
        }
        if text.contains('/') {
            return Err(TemplateError::Slash);
        }
        if text.chars().any(char::is_control) {
            return Err(TemplateError::Control);
        }
        let mut pieces = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            plain.push_str(&rest[..at]);
            rest = &rest[at..];
            if let Some(after) = rest.strip_prefix("{{") {
                plain.push('{');
                rest = after;
            } else if let Some(after) = rest.strip_prefix("}}") {
                plain.push('}');
                rest = after;
            } else {
                let inner = rest.strip_prefix('{').ok_or(TemplateError::Brace)?;
                let (word, after) = inner.split_once('}').ok_or(TemplateError::Brace)?;
                if !plain.is_empty() {
                    pieces.push(Piece::Text(std::mem::take(&mut plain)));
                }
                pieces.push(match word {
                    "stem" => Piece::Stem,
                    "seed" => Piece::Seed,
                    "variant" => Piece::Variant,
                    "folder" => Piece::Folder,
                    "date" => Piece::Date,
                    other if other.contains('{') => return Err(TemplateError::Brace),
                    other => return Err(TemplateError::Unknown(other.to_owned())),
                });
                rest = after;
            }
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain));
        }
        Ok(Self(pieces))
    }

    /// The stem of a shot's result, without number and extension: one component, not hidden, not empty, no
    /// control characters. May be longer than a name can be; [`super::numbered`] sees to that.
    ///
    /// A drop with several shots gets `-SEED` behind a template that tells them apart by neither seed nor
    /// variant (`-VARIANT` if the shot has no seed). `{seed}` of a shot without a seed is `vVARIANT`.
    pub fn render(&self, parts: &Parts<'_>) -> OsString {
        let mut out = Vec::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => out.extend_from_slice(text.as_bytes()),
                Piece::Stem => out.extend_from_slice(parts.stem.as_bytes()),
                Piece::Seed => match parts.seed {
                    Some(seed) => out.extend(seed.to_string().into_bytes()),
                    None => out.extend(format!("v{}", parts.variant).into_bytes()),
                },
                Piece::Variant => out.extend(parts.variant.to_string().into_bytes()),
                Piece::Folder => out.extend_from_slice(parts.folder.as_bytes()),
                Piece::Date => out.extend(parts.date.to_string().into_bytes()),
            }
        }
        if parts.shots > 1 && !self.0.iter().any(|p| matches!(p, Piece::Seed | Piece::Variant)) {
            let mark = parts.seed.unwrap_or_else(|| i64::from(parts.variant));
            out.extend(format!("-{mark}").into_bytes());
        }
        OsString::from_vec(visible(&out))
    }
}

/// One component that everybody can see: no slashes, no control characters, no leading dot, not blank.
fn visible(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            let c = match c {
                '/' => '-',
                c if c.is_control() => '_',
                c => c,
            };
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        }
        out.extend_from_slice(chunk.invalid());
    }
    if out.iter().all(u8::is_ascii_whitespace) {
        return b"image".to_vec();
    }
    if out[0] == b'.' {
        out[0] = b'_';
    }
    out
}
