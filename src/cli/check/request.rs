//! The exact request of a drop, and where each of its values came from.
//!
//! Read the way the daemon reads it. A picture is prepared into a temporary folder, so that what is said of it
//! is what would be sent; nothing is uploaded.

use std::fmt::Write as _;

use serde_json::{Map, Value as Json};

use crate::config::{Config, ReferenceMode};
use crate::domain::arrivals::{Candidate, CandidateKind, Reason, Waiting};
use crate::domain::ids::{Fingerprint, Place, RelPath, is_unfit, show, show_text};
use crate::domain::kinds::is_preset;
use crate::domain::life::Shot;
use crate::domain::params::Key;
use crate::domain::request::{RefPlan, RequestPlan, Seeds};
use crate::engine::plan::{self, not_servable, public_url};
use crate::engine::read::{FOREIGN, Picture, Read, Reading, read};
use crate::ledger::sqlite::SqlitePast;
use crate::reference::{self, Budget, Original, PrepareError, Rules, Whole};

use super::super::setup;
use super::inbox::{Inbox, Target};
use super::{LISTED, Report};

/// What stands where a seed is drawn when the drop is sent.
const SEED: &str = "<seed drawn when sent>";
/// Memory that decoding may take, bytes: as much as one picture may need.
const DECODE_BYTES: u64 = 1 << 30;

/// Shows what `target` would send, or what it waits for.
pub(super) fn write(config: &Config, inbox: &mut Inbox, target: &Target, out: &mut String, report: &mut Report) {
    match target {
        Target::Folder(folder) => show_folder(config, inbox, folder, out, report),
        Target::File(file) if is_preset(&file.name) => {
            let _ = writeln!(out, "{file} is the look of its folder and no drop; the drops there:\n");
            show_folder(config, inbox, &file.folder, out, report);
        }
        Target::File(file) => show_file(config, inbox, file, out, report),
    }
}

fn show_folder(config: &Config, inbox: &mut Inbox, folder: &RelPath, out: &mut String, report: &mut Report) {
    let (drops, more) = inbox.drops(&|candidate| candidate.folder.is_within(folder));
    for candidate in &drops {
        show_drop(config, inbox, candidate, out, report);
        out.push('\n');
    }
    if more > 0 {
        let _ = writeln!(out, "and {more} more that would be sent\n");
    }
    let waiting = inbox.waiting_in(folder);
    for one in waiting.iter().take(LISTED) {
        say_waiting(inbox, one, out);
    }
    if waiting.len() > LISTED {
        let _ = writeln!(out, "and {} more that wait", waiting.len() - LISTED);
    }
    if drops.is_empty() && waiting.is_empty() {
        let _ = writeln!(out, "Nothing lies there that would be sent.");
    }
}

fn show_file(config: &Config, inbox: &mut Inbox, file: &Place, out: &mut String, report: &mut Report) {
    let (drops, _) = inbox.drops(&|candidate| {
        candidate.folder == file.folder
            && (candidate.lead() == file.name || candidate.sidecars.iter().any(|s| s.file.name == file.name))
    });
    for candidate in &drops {
        show_drop(config, inbox, candidate, out, report);
    }
    if !drops.is_empty() {
        return;
    }
    if let Some(why) = inbox.why_ignored(file) {
        let _ = writeln!(out, "{file} is ignored: {why}");
        return;
    }
    let waiting = inbox.waiting_with(file);
    if waiting.is_empty() {
        report.problem(format!("{file} belongs to no drop; it may be in work or gone by now: look again"));
    }
    for one in waiting {
        say_waiting(inbox, one, out);
    }
}

fn say_waiting(inbox: &Inbox, waiting: &Waiting, out: &mut String) {
    let more = match waiting.reason {
        Reason::PresetBroken => inbox.broken_above(&waiting.place.folder),
        Reason::Disabled => Some("enabled = false in a preset above it"),
        Reason::Sidecar => Some("sidecar = \"required\" in a preset above it"),
        _ => waiting.detail.as_deref(),
    };
    let lines = |why: &str| why.lines().map(show_text).collect::<Vec<_>>().join("\n  ");
    let more = more.map(|why| format!(": {}", lines(why))).unwrap_or_default();
    let _ = writeln!(out, "{} would not be sent now. It {}{more}", waiting.place, waiting.reason.waits());
}

fn show_drop(config: &Config, inbox: &Inbox, candidate: &Candidate, out: &mut String, report: &mut Report) {
    let place = candidate.place();
    let fails = |why: String, out: &mut String, report: &mut Report| {
        let _ = writeln!(
            out,
            "{place} would go to errors: {}",
            why.lines().map(show_text).collect::<Vec<_>>().join("\n  ")
        );
        report.problem(format!("{place} would go to errors: {why}"));
    };
    match &candidate.kind {
        CandidateKind::Foreign => return fails(FOREIGN.to_owned(), out, report),
        CandidateKind::Failed(failure) => return fails(failure.to_string(), out, report),
        CandidateKind::LateSidecar { .. } | CandidateKind::Picture | CandidateKind::PromptOnly => {}
    }
    let waits = |out: &mut String, what: &str| {
        let _ = writeln!(out, "{place} would not be sent now. It waits for {what}");
    };
    match read(config, &config.folders.inbox, candidate, &inbox.chain(&candidate.folder)) {
        Reading::Ready(read) => {
            for warning in &read.warnings {
                report.warn(warning.to_string());
            }
            match reference(config, candidate, &read) {
                Ok(reference) => {
                    let left = left(config, read.recognition, report);
                    request(config, candidate, &read.plan, reference.as_deref(), &left, out);
                }
                Err(why) => fails(why, out, report),
            }
        }
        Reading::NotWhole => waits(out, "the rest of the picture: it is not whole yet"),
        Reading::Changed => waits(out, "it to come to rest: it changed just now, look again"),
        Reading::Unreadable(why) => {
            waits(out, &format!("what can't be read: {why}"));
            report.problem(format!("{place} can't be read: {why}"));
        }
        Reading::PresetBroken(_, why) => waits(out, &format!("a broken preset to be mended: {why}")),
        Reading::NoPrompt => waits(
            out,
            &format!(
                "a prompt: write one into {}.txt beside it, or into a preset.toml above it",
                show(&candidate.stem)
            ),
        ),
        Reading::Failed(why, _) => fails(why, out, report),
    }
}

/// The shots that are left of a drop that comes back, as far as the ledger may be read.
fn left(config: &Config, recognition: Fingerprint, report: &mut Report) -> Vec<Shot> {
    let known = setup::state_dir(config)
        .map_err(|e| e.text)
        .and_then(|dir| SqlitePast::recognise(&dir.join(setup::LEDGER), recognition).map_err(|e| e.to_string()));
    match known {
        Ok(known) => known.as_ref().map(plan::left).unwrap_or_default(),
        Err(why) => {
            report.warn(format!("whether it comes back, and less of it is sent, can't be said: {why}"));
            Vec::new()
        }
    }
}

/// What stands in `structure_image_url` for the drop's own picture.
fn reference(config: &Config, candidate: &Candidate, read: &Read) -> Result<Option<String>, String> {
    let (RefPlan::Picture, Some(picture)) = (&read.plan.reference, &read.picture) else { return Ok(None) };
    let name = candidate.lead();
    let verb = match &config.reference.mode {
        ReferenceMode::PublicUrl { url_base } => {
            return match not_servable(&picture.whole) {
                Some(why) => Err(why),
                None => Ok(Some(public_url(url_base, &candidate.folder, name))),
            };
        }
        ReferenceMode::Upload => "uploaded",
        ReferenceMode::Inline => "inline",
    };
    prepared(config, picture).map(|what| Some(format!("<{verb}: {}, {what}>", show(name))))
}

/// `2048x1365, image/jpeg`: what would be sent of the picture.
fn prepared(config: &Config, picture: &Picture) -> Result<String, String> {
    let Whole::Whole { format, end, .. } = picture.whole else { return Err("the picture is not whole".to_owned()) };
    let r = &config.reference;
    let rules = Rules { max_edge: r.max_edge, max_bytes: r.max_bytes, strip_metadata: r.strip_metadata };
    let original = Original { file: &picture.file, path: &picture.path, format, end };
    let done = tempfile::tempdir()
        .map_err(|source| PrepareError::Io { path: std::env::temp_dir(), source })
        .and_then(|into| reference::prepare(&original, &rules, into.path(), &Budget::new(DECODE_BYTES)));
    match done {
        Ok(p) => Ok(format!("{}x{}, {}", p.width, p.height, p.media_type)),
        // Our own machine's trouble is not the picture's.
        Err(e @ PrepareError::Io { .. }) => Ok(format!("size not known: {e}")),
        Err(e) => Err(e.to_string()),
    }
}

fn request(
    config: &Config,
    candidate: &Candidate,
    plan: &RequestPlan,
    reference: Option<&str>,
    left: &[Shot],
    out: &mut String,
) {
    let _ = writeln!(out, "{}", candidate.place());
    let sidecars: Vec<_> = candidate.sidecars.iter().filter(|s| s.used).map(|s| show(&s.file.name)).collect();
    if !sidecars.is_empty() && candidate.image.is_some() {
        let _ = writeln!(out, "with {}", sidecars.join(", "));
    }
    if let (Some(_), ReferenceMode::Upload) = (reference, &config.reference.mode) {
        let _ = writeln!(out, "first the picture is uploaded to {} (free)", config.api.upload_url);
    }
    let mut shots: Vec<Json> = match &plan.shots {
        Seeds::Unsaid => vec![Json::Null],
        Seeds::Fixed(seeds) => seeds.iter().copied().map(Json::from).collect(),
        Seeds::Random(n) => (0..*n).map(|_| Json::from(SEED)).collect(),
    };
    let all = shots.len();
    let mut numbers: Vec<usize> = (1..=all).collect();
    if !left.is_empty() {
        let _ = writeln!(out, "it comes back: what was delivered of it is not sent again, and seeds stay");
        shots = left.iter().map(|shot| shot.seed.map_or(Json::Null, Json::from)).collect();
        numbers = left.iter().map(|shot| shot.no.0 as usize + 1).collect();
    }
    for (no, seed) in numbers.into_iter().zip(&shots) {
        let of = if all > 1 { format!(", shot {no} of {all}") } else { String::new() };
        let _ = writeln!(out, "\nPOST {}{of}", config.api.model_url());
        let _ = writeln!(out, "{}", json(&body(plan, seed, reference)));
    }
    out.push_str("\nWhere each value comes from:\n");
    for (key, origin) in &plan.origins {
        let _ = writeln!(out, "  {:<26} {}", key.name(), show_text(&origin.to_string()));
    }
    if let Some(image) = candidate.image.as_ref().filter(|_| plan.reference == RefPlan::Picture) {
        let _ = writeln!(
            out,
            "  {:<26} {}",
            Key::StructureImageUrl.name(),
            Place { folder: candidate.folder.clone(), name: image.name.clone() }
        );
    }
}

/// The body in the order of the API's table; a seed that is not drawn yet is a placeholder.
fn body(plan: &RequestPlan, seed: &Json, reference: Option<&str>) -> Map<String, Json> {
    let mut body = plan.body((!seed.is_null()).then_some(0), reference);
    if let Some(there) = body.get_mut(Key::Seed.name()) {
        *there = seed.clone();
    }
    body
}

/// JSON for a terminal: what could move its cursor or turn its text is escaped, which changes no value.
fn json(body: &Map<String, Json>) -> String {
    let text = serde_json::to_string_pretty(body).unwrap_or_default();
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c != '\n' && is_unfit(c) {
            let _ = write!(out, "\\u{:04x}", c as u32);
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_that_is_shown_is_the_body_that_is_meant() {
        let mut map = Map::new();
        map.insert("prompt".into(), Json::from("a\n\"b\"\u{9b}2J\u{202e}ü"));
        let shown = json(&map);
        assert!(shown.is_char_boundary(0) && !shown.contains(['\u{9b}', '\u{202e}']), "{shown}");
        assert_eq!(serde_json::from_str::<Json>(&shown).ok(), Some(Json::Object(map)));
    }
}
