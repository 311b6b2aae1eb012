//! Reading a drop: its members, its presets and its picture, as one frozen look. Spends nothing, moves
//! nothing; `check PATH` uses the same.

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::config::{self, Config, Problem, ReferenceMode, Told};
use crate::domain::arrivals::{Candidate, Member as Found, PresetState};
use crate::domain::ids::{Facts, Fingerprint, RelPath, show};
use crate::domain::kinds::SidecarKind;
use crate::domain::preset::{Layer, Resolved, merge};
use crate::domain::request::{RefPlan, RequestPlan, plan_request};
use crate::ledger::{Member, Role};
use crate::outbox::folder::Folder;
use crate::outbox::{Obstacle, OutboxError};
use crate::reference::{self, Rules, Stripped, Whole};

/// Why a file that is neither picture nor sidecar goes to errors.
pub const FOREIGN: &str = "this is no kind of file that is taken: pictures (.jpg .jpeg .png .webp .tif .tiff .bmp .gif) and sidecars (.txt .toml .json) are";

/// A file that can't be used anyway is not read for its hash if it is longer, in bytes.
pub(super) const LONGEST_HASHED: u64 = 1 << 30;

/// A folder and the spelling of the preset file in it, if it has one.
pub type PresetFile = (RelPath, Option<OsString>);

/// What reading a drop came to.
#[derive(Debug)]
pub enum Reading {
    /// It can be sent.
    Ready(Box<Read>),
    /// The picture is not whole as it stands.
    NotWhole,
    /// A member is another one by now, or gone: look again.
    Changed,
    /// It can't be read; the drop waits.
    Unreadable(String),
    /// A preset above it is broken; its folder and why.
    PresetBroken(RelPath, String),
    /// There is no prompt from anywhere.
    NoPrompt,
    /// The drop's own fault.
    Failed(String, Vec<Member>),
}

/// A drop that was read.
#[derive(Debug)]
pub struct Read {
    /// Its members, sidecars first, with their hashes.
    pub members: Vec<Member>,
    /// What is to be sent.
    pub plan: RequestPlan,
    /// Its picture, opened once: what was hashed is what is sent.
    pub picture: Option<Picture>,
    /// Members' hashes and the request as written.
    pub recognition: Fingerprint,
    /// What is to be said of its sidecars although they are good.
    pub warnings: Vec<Problem>,
}

/// An opened picture.
#[derive(Debug)]
pub struct Picture {
    /// The open file.
    pub file: File,
    /// Its path, for messages.
    pub path: std::path::PathBuf,
    /// Its structure.
    pub whole: Whole,
    /// BLAKE3 of its bytes.
    pub print: Fingerprint,
    /// What the file was while they were read.
    pub facts: Facts,
    /// What is to be sent of it, where it is uploaded and was small enough to be made of the bytes that were hashed.
    pub stripped: Option<Stripped>,
}

impl Picture {
    /// Whether nobody has written to the file since it was hashed: by another name of it, or by a program that
    /// still had it open.
    pub fn is_as_hashed(&self) -> std::io::Result<bool> {
        facts(&self.file).map(|now| now == self.facts)
    }
}

/// Facts of an open file.
pub fn facts(file: &File) -> std::io::Result<Facts> {
    let m = file.metadata()?;
    Ok(Facts {
        dev: m.dev(),
        ino: m.ino(),
        size: m.size(),
        mtime_ns: Facts::time(m.mtime(), m.mtime_nsec()),
        ctime_ns: Facts::time(m.ctime(), m.ctime_nsec()),
    })
}

/// The layer of one folder's preset; `None` if it has none. The error is for a person.
pub fn preset_layer(inbox: &Path, folder: &RelPath, name: &std::ffi::OsStr) -> Result<Option<Told<Layer>>, String> {
    let label = show(folder.join(name).as_path().as_os_str());
    let opened = match Folder::existing(inbox, folder) {
        Ok(Some(dir)) => dir.open_dropped(name),
        Ok(None) => return Ok(None),
        Err(e) => Err(e),
    };
    let file = match opened {
        Ok(file) => file,
        Err(OutboxError::Gone { .. }) => return Ok(None),
        Err(e) => return Err(format!("{label}: {e}")),
    };
    let bytes = config::read_at_most(&file, config::LONGEST_TEXT_BYTES).map_err(|e| format!("{label}: {e}"))?;
    let bytes = bytes.ok_or_else(|| format!("{label}: is over 1 MiB, which is too long for a preset"))?;
    config::preset_file::parse(&bytes, &label).map(Some).map_err(|problems| problems.to_string())
}

/// What the presets above a drop come to.
#[derive(Debug)]
pub struct Looks {
    /// The layers from the configuration down.
    pub layers: Vec<Layer>,
    /// What they come to.
    pub resolved: Resolved,
    /// What is to be said of the preset files although they are good.
    pub warnings: Vec<Problem>,
}

/// The layers from the configuration down to `chain`'s last folder, and what they come to.
pub fn resolve_folder(config: &Config, inbox: &Path, chain: &[PresetFile]) -> Result<Looks, (RelPath, String)> {
    let mut layers = vec![config.preset.clone()];
    let mut warnings = Vec::new();
    let mut at = RelPath::root();
    for (folder, name) in chain {
        at = folder.clone();
        let Some(name) = name else { continue };
        if let Some(layer) = preset_layer(inbox, folder, name).map_err(|why| (folder.clone(), why))? {
            layers.push(layer.value);
            warnings.extend(layer.warnings);
            // Each file answers for itself: a fault shows at the folder whose preset has it.
            merge(&layers, &config.rules()).map_err(|faults| (folder.clone(), faults.to_string()))?;
        }
    }
    let resolved = merge(&layers, &config.rules()).map_err(|faults| (at, faults.to_string()))?;
    Ok(Looks { layers, resolved, warnings })
}

/// How the presets of `chain` want `folder`, its last, treated; and what is to be said of those files.
pub fn folder_state(config: &Config, inbox: &Path, folder: &RelPath, chain: &[PresetFile]) -> Told<PresetState> {
    let mut warnings = Vec::new();
    let value = match resolve_folder(config, inbox, chain) {
        Ok(looks) => {
            warnings = looks.warnings;
            PresetState::Ok {
                sidecar: looks.resolved.sidecar(),
                reference: looks.resolved.reference(),
                enabled: looks.resolved.enabled(),
                priority: looks.resolved.priority(),
            }
        }
        // An outer folder's preset stops its subtree by itself.
        Err((at, _)) if at != *folder => PresetState::default(),
        Err((at, reason)) => {
            let file = show(at.as_path().as_os_str());
            PresetState::Broken {
                reason: if reason.contains("preset.toml") { reason } else { format!("{file}: {reason}") },
            }
        }
    };
    Told { value, warnings }
}

/// Reads `candidate` as it lies below `inbox`.
pub fn read(config: &Config, inbox: &Path, candidate: &Candidate, chain: &[PresetFile]) -> Reading {
    let mut layers = match resolve_folder(config, inbox, chain) {
        Ok(looks) => looks.layers,
        Err((folder, why)) => return Reading::PresetBroken(folder, why),
    };
    let dir = match Folder::existing(inbox, &candidate.folder) {
        Ok(Some(dir)) => dir,
        Ok(None) => return Reading::Changed,
        Err(e) => return Reading::Unreadable(e.to_string()),
    };
    let mut members = Vec::new();
    let mut texts = Vec::new();
    let mut warnings = Vec::new();
    let mut fault = None;
    for sidecar in &candidate.sidecars {
        let file = match open_as_seen(&dir, &sidecar.file) {
            Ok(file) => file,
            Err(reading) => return reading,
        };
        let bytes = match config::read_at_most(&file, config::LONGEST_TEXT_BYTES) {
            Ok(bytes) => bytes,
            Err(e) => return Reading::Unreadable(format!("{}: {e}", show(&sidecar.file.name))),
        };
        let print = bytes.as_deref().map(Fingerprint::of);
        members.push(Member {
            name: sidecar.file.name.clone(),
            role: Role::Sidecar,
            print,
            size: sidecar.file.facts.size,
            moves: !sidecar.shared,
        });
        let label = show(candidate.folder.join(&sidecar.file.name).as_path().as_os_str());
        match bytes {
            None => fault = Some(format!("{label}: is over 1 MiB, which is too long for a sidecar")),
            Some(bytes) if sidecar.used => {
                let layer = match sidecar.kind {
                    SidecarKind::Txt => config::sidecar::parse_txt(&bytes, &label),
                    SidecarKind::Toml => config::sidecar::parse_toml(&bytes, &label),
                    SidecarKind::Json => config::sidecar::parse_json(&bytes, &label),
                };
                match layer {
                    // A text beats the prompt of a request beside it, so it lies on top.
                    Ok(layer) => {
                        texts.push((sidecar.kind == SidecarKind::Txt, layer.value));
                        warnings.extend(layer.warnings);
                    }
                    Err(problems) => fault = fault.or_else(|| Some(problems.to_string())),
                }
            }
            Some(_) => {}
        }
    }
    let picture = match &candidate.image {
        None => None,
        Some(image) => match read_picture(config, &dir, image) {
            Ok(picture) => {
                members.push(Member {
                    name: image.name.clone(),
                    role: Role::Picture,
                    print: Some(picture.print),
                    size: image.facts.size,
                    moves: true,
                });
                Some(picture)
            }
            Err(PictureFault::Reading(reading)) => return reading,
            Err(PictureFault::Bad(why, print)) => {
                members.push(Member {
                    name: image.name.clone(),
                    role: Role::Picture,
                    print,
                    size: image.facts.size,
                    moves: true,
                });
                return Reading::Failed(why, members);
            }
        },
    };
    if let Some(fault) = fault {
        return Reading::Failed(fault, members);
    }
    texts.sort_by_key(|(is_text, _)| *is_text);
    layers.extend(texts.into_iter().map(|(_, layer)| layer));
    let resolved = match merge(&layers, &config.rules()) {
        Ok(resolved) => resolved,
        Err(faults) => return Reading::Failed(faults.to_string(), members),
    };
    let plan = plan_request(&resolved, picture.is_some());
    if !plan.is_ready() {
        return Reading::NoPrompt;
    }
    let recognition = recognition(&members, &plan);
    // A sidecar's own reference beats the picture, which then travels nowhere.
    let picture = picture.filter(|_| plan.reference == RefPlan::Picture);
    Reading::Ready(Box::new(Read { members, plan, picture, recognition, warnings }))
}

/// Knows a drop that comes back: its members' hashes, in whatever order and under whatever names, and its
/// request as written.
fn recognition(members: &[Member], plan: &RequestPlan) -> Fingerprint {
    let mut prints: Vec<_> = members.iter().filter_map(|m| m.print).collect();
    prints.sort_unstable();
    let mut all: Vec<u8> = prints.iter().flat_map(|p| p.0).collect();
    all.extend(plan.written());
    Fingerprint::of(&all)
}

/// A read failure on the way to a picture.
enum PictureFault {
    Reading(Reading),
    Bad(String, Option<Fingerprint>),
}

fn open_as_seen(dir: &Folder, member: &Found) -> Result<File, Reading> {
    let file = match dir.open_dropped(&member.name) {
        Ok(file) => file,
        Err(e @ OutboxError::Obstructed { what: Obstacle::PrivateLink, .. }) => {
            return Err(Reading::Unreadable(e.to_string()));
        }
        Err(OutboxError::Gone { .. } | OutboxError::Obstructed { .. }) => return Err(Reading::Changed),
        Err(e) => return Err(Reading::Unreadable(e.to_string())),
    };
    match facts(&file) {
        Ok(now) if now == member.facts => Ok(file),
        Ok(_) => Err(Reading::Changed),
        Err(e) => Err(Reading::Unreadable(format!("{}: {e}", show(&member.name)))),
    }
}

/// What may be sent of a picture.
pub(super) fn rules(config: &Config) -> Rules {
    let r = &config.reference;
    Rules { max_edge: r.max_edge, max_bytes: r.max_bytes, strip_metadata: r.strip_metadata }
}

fn read_picture(config: &Config, dir: &Folder, image: &Found) -> Result<Picture, PictureFault> {
    let unreadable =
        |e: std::io::Error| PictureFault::Reading(Reading::Unreadable(format!("{}: {e}", show(&image.name))));
    let file = open_as_seen(dir, image).map_err(PictureFault::Reading)?;
    let (whole, print, stripped) = match config.reference.mode {
        ReferenceMode::Upload => reference::check_and_strip(&file, &rules(config)).map_err(unreadable)?,
        ReferenceMode::Inline | ReferenceMode::PublicUrl { .. } => {
            let (whole, print) = reference::check_at_once(&file).map_err(unreadable)?;
            (whole, print, None)
        }
    };
    let bad = match &whole {
        Whole::Whole { .. } => None,
        Whole::Cut { .. } | Whole::Empty => return Err(PictureFault::Reading(Reading::NotWhole)),
        Whole::Broken { format, why } => Some(format!("the picture is broken ({format:?}): {why}")),
        Whole::Unknown { why } => {
            Some(format!("this is no picture that can be used: {why}; accepted are JPEG, PNG, WebP, TIFF, BMP and GIF"))
        }
    };
    if let Some(why) = &bad
        && image.facts.size > LONGEST_HASHED
    {
        return Err(PictureFault::Bad(why.clone(), None));
    }
    let print = print.map_or_else(|| reference::fingerprint(&file), Ok).map_err(unreadable)?;
    if let Some(why) = bad {
        return Err(PictureFault::Bad(why, Some(print)));
    }
    // Nobody wrote to it while it was read.
    match facts(&file) {
        Ok(now) if now == image.facts => {
            Ok(Picture { file, path: dir.at(&image.name), whole, print, facts: now, stripped })
        }
        Ok(_) => Err(PictureFault::Reading(Reading::Changed)),
        Err(e) => Err(unreadable(e)),
    }
}
