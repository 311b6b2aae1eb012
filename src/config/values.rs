//! Single values of the configuration: of the right type, within their range, or what is wrong in words.

use std::net::SocketAddr;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use url::Url;

use super::layer::{Raw, what};
use super::problem::nearest;
use super::units;
use crate::domain::params::is_loopback;

pub(super) fn text(value: &Raw) -> Result<&str, String> {
    match value {
        Raw::Text(text) => Ok(text),
        other => Err(format!("must be a text, not {}", what(other))),
    }
}

pub(super) fn flag(value: &Raw) -> Result<bool, String> {
    match value {
        Raw::Flag(flag) => Ok(*flag),
        other => Err(format!("must be true or false, not {}", what(other))),
    }
}

pub(super) fn number(value: &Raw, least: u32, most: i64) -> Result<u32, String> {
    let asked = format!("must be a whole number from {least} to {most}");
    match value {
        Raw::Integer(n) if (i64::from(least)..=most).contains(n) => u32::try_from(*n).map_err(|_| asked),
        Raw::Integer(n) => Err(format!("{n} is out of range: {asked}")),
        other => Err(format!("{asked}, not {}", what(other))),
    }
}

pub(super) fn duration(value: &Raw, least: Duration) -> Result<Duration, String> {
    let Raw::Text(text) = value else {
        return Err(format!("must be a duration as a text, such as \"90s\", not {}", what(value)));
    };
    let duration = units::duration(text)?;
    match duration {
        Duration::ZERO if !least.is_zero() => Err("must be longer than nothing".into()),
        _ if duration < least => Err(format!("is too short: at least {}", units::show_duration(least))),
        _ => Ok(duration),
    }
}

pub(super) fn size(value: &Raw, least: u64, most: u64) -> Result<u64, String> {
    let Raw::Text(text) = value else {
        return Err(format!("must be a size as a text, such as \"12MB\", not {}", what(value)));
    };
    match units::size(text)? {
        size if (least..=most).contains(&size) => Ok(size),
        _ => Err(format!("is out of range: from {} KB to {} MB", least / 1_000, most / 1_000_000)),
    }
}

pub(super) fn choice<T: Copy, const N: usize>(value: &Raw, words: [(&str, T); N]) -> Result<T, String> {
    let written = match value {
        Raw::Text(text) => words.iter().find(|(word, _)| word == text),
        _ => None,
    };
    let names = words.map(|(word, _)| format!("\"{word}\"")).join(", ");
    written.map(|(_, value)| *value).ok_or_else(|| format!("must be one of {names}"))
}

/// An address of the service: what is sent there must not be read by others on the way.
pub(super) fn address(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|e| format!("is no address: {e}"))?;
    match url.scheme() {
        "https" => {}
        "http" if is_loopback(&url) => {}
        "http" => return Err("is http, which is accepted for loopback only: use https".into()),
        _ => return Err("must begin with https://".into()),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must not hold a user name or a password".into());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("must not hold a ? or a #".into());
    }
    Ok(url)
}

/// Where something of ours is served to this machine alone.
pub(super) fn loopback(text: &str) -> Result<SocketAddr, String> {
    let listen: SocketAddr =
        text.parse().map_err(|_| "must be an address and a port, such as \"127.0.0.1:9947\"".to_owned())?;
    if listen.ip().to_canonical().is_loopback() {
        return Ok(listen);
    }
    Err("is no address of this machine alone: listen on 127.0.0.1 or [::1], and let others in by a reverse proxy that \
         asks who they are, or by an SSH tunnel"
        .into())
}

pub(super) fn model(text: &str) -> Result<String, String> {
    if !text.starts_with('/') || text.len() < 2 {
        return Err("must be the path of the model, such as \"/v1/bria-reimagine\"".into());
    }
    let good = |c: char| c.is_ascii_graphic() && !matches!(c, '?' | '#' | '\\' | '%');
    let parts_good = text[1..].split('/').all(|part| !matches!(part, "" | "." | ".."));
    if text.chars().all(good) && parts_good { Ok(text.to_owned()) } else { Err("is no path of a model".into()) }
}

pub(super) fn path(value: &Raw, base: &Path, home: Option<&Path>) -> Result<PathBuf, String> {
    let written = text(value)?;
    if written.trim().is_empty() {
        return Err("is empty: must be a path".into());
    }
    if written.contains('\0') {
        return Err("holds a NUL character, which no path can".into());
    }
    let joined = match written.strip_prefix('~') {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => {
            let home = home.ok_or("needs a home directory, and there is none: write the whole path")?;
            home.join(rest.trim_start_matches('/'))
        }
        Some(_) => return Err("begins with ~ and a name: only your own ~/ is known, write the whole path".into()),
        None => base.join(written),
    };
    // "./inbox" and "inbox/" are "inbox"; ".." stays, as it means something else behind a symlink.
    Ok(joined.components().filter(|part| *part != Component::CurDir).collect())
}

pub(super) fn template(text: &str) -> Result<String, String> {
    const NAMES: [&str; 5] = ["stem", "seed", "variant", "folder", "date"];
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        let placeholder = rest[at..].strip_prefix('{').and_then(|inner| inner.split_once('}'));
        let Some((name, after)) = placeholder.filter(|(name, _)| !name.contains('{')) else {
            return Err("has a brace without its other one".into());
        };
        if !NAMES.contains(&name) {
            let hint = nearest(name, NAMES).map(|near| format!("; did you mean {{{near}}}?")).unwrap_or_default();
            return Err(format!(
                "{{{name}}} is unknown: there are {{stem}}, {{seed}}, {{variant}}, {{folder}} and {{date}}{hint}"
            ));
        }
        rest = after;
    }
    if text.trim().is_empty() {
        return Err("is empty: write at least \"{stem}\"".into());
    }
    if text.contains('/') || text.chars().any(char::is_control) {
        return Err("is the name of a file, so it can't hold / or control characters".into());
    }
    if text.starts_with('.') {
        return Err("begins with a dot, so that the results would be hidden".into());
    }
    if text.len() > 200 {
        return Err("is longer than 200 bytes".into());
    }
    Ok(text.to_owned())
}
