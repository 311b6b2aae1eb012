//! What lies in the inbox, as the daemon sees it once every wait for more files is over.
//!
//! The same scan and the same rules as the daemon's, fed once. Nothing is opened but presets.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::config::{Config, Problem};
use crate::domain::arrivals::{Arrivals, Candidate, Reason, Rules, Waiting};
use crate::domain::ids::{Mono, Place, RelPath, show};
use crate::domain::kinds::{NameKind, Why, classify};
use crate::domain::pairing::group_key;
use crate::engine::read::{PresetFile, folder_state, preset_layer, resolve_folder};
use crate::engine::site::INNER_WORKING;
use crate::inbox::{self, Report as Scan};

use super::super::exit::Failure;
use super::{IGNORED_LISTED, LISTED, Report, counted};

/// The domain's clock begins this long before the program, so that whatever was there is not in its future.
const BEFORE: Duration = Duration::from_secs(24 * 60 * 60);
/// Nothing is given up here: what is not whole yet waits.
const NEVER: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// What `check` is asked about.
#[derive(Debug)]
pub(super) enum Target {
    /// A folder of the inbox, with all below it.
    Folder(RelPath),
    /// A file.
    File(Place),
}

/// Where `path` lies in the inbox. A path that is not there is looked for below the inbox, too: so are drops
/// shown by `status`.
pub(super) fn target(config: &Config, path: &Path) -> Result<Target, Failure> {
    let inbox = &config.folders.inbox;
    let shown = show(path.as_os_str());
    let path = match fs::symlink_metadata(path) {
        Ok(_) => path.to_path_buf(),
        Err(_) if path.is_relative() && fs::symlink_metadata(inbox.join(path)).is_ok() => inbox.join(path),
        Err(e) => {
            return Err(Failure::usage(format!(
                "{shown}: {e}; name a file or folder of the inbox {}",
                show(inbox.as_os_str())
            )));
        }
    };
    let root =
        inbox.canonicalize().map_err(|e| Failure::usage(format!("the inbox {}: {e}", show(inbox.as_os_str()))))?;
    let found = fs::symlink_metadata(&path)?;
    // Of a file, only the folder around it: a link is itself, not what it points to.
    let resolved = match (found.is_dir(), path.file_name()) {
        (false, Some(name)) => {
            let around = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
            around.canonicalize()?.join(name)
        }
        _ => path.canonicalize()?,
    };
    let Some(rel) = RelPath::below(&root, &resolved) else {
        return Err(Failure::usage(format!(
            "{shown} does not lie in the inbox {}: only what is dropped there is sent",
            show(inbox.as_os_str())
        )));
    };
    if let Some((at, why)) = ignored_on_the_way(config, &rel, found.is_dir()) {
        return Err(Failure::usage(format!("{shown} is never looked at: {at} is ignored ({why})")));
    }
    match (found.is_dir(), rel.name()) {
        (false, Some(name)) => {
            Ok(Target::File(Place { folder: rel.parent().unwrap_or_default(), name: name.to_owned() }))
        }
        _ => Ok(Target::Folder(rel)),
    }
}

/// The first folder above `rel` (or `rel` itself) that is not looked into.
fn ignored_on_the_way(config: &Config, rel: &RelPath, is_folder: bool) -> Option<(RelPath, Why)> {
    let ignore = ignore(config);
    let mut chain = rel.chain();
    if !is_folder {
        chain.pop();
    }
    chain.into_iter().find_map(|at| match classify(&at.parent()?, at.name()?, true, &ignore) {
        NameKind::Ignored(why) => Some((at, why)),
        _ => None,
    })
}

fn ignore(config: &Config) -> impl Fn(&Path) -> bool + Send + Sync + 'static {
    let globs = config.watch.ignore.clone();
    move |path: &Path| RelPath::new(path).is_some_and(|path| globs.matches(&path))
}

/// The inbox as it was found.
pub(super) struct Inbox {
    arrivals: Arrivals,
    now: Mono,
    presets: BTreeMap<RelPath, Option<OsString>>,
    broken: BTreeMap<RelPath, String>,
    warnings: Vec<Problem>,
    waiting: Vec<Waiting>,
    ignored: Vec<(Place, Why)>,
}

/// Looks at all of it, and reads its presets.
pub(super) fn survey(config: &Config) -> Inbox {
    let rules = Rules {
        settle: Duration::ZERO,
        folder_settle: Duration::ZERO,
        sidecar_wait: Duration::ZERO,
        lone_wait: Duration::ZERO,
        give_up: NEVER,
        tell_after: None,
    };
    let began = Instant::now();
    let at = |moment: Instant| Mono(BEFORE + moment.saturating_duration_since(began));
    let mut arrivals = Arrivals::new(rules);
    let mut take = |report: Scan| {
        let now = at(Instant::now());
        match report {
            Scan::Begin { folder, started } => arrivals.begin_scan(&folder, at(started)),
            Scan::Batch { folder, entries } => {
                for (name, entry) in entries {
                    arrivals.observe_scanned(&folder, &name, &entry, now);
                }
            }
            Scan::End { folder } => arrivals.end_scan(&folder, now),
            Scan::Failed { folder, error } => arrivals.scan_failed(&folder, &error.to_string(), now),
            Scan::Gone { folder } => arrivals.folder_gone(&folder, now),
        }
        ControlFlow::Continue(())
    };
    let root = &config.folders.inbox;
    let _ = inbox::survey(root, &RelPath::root(), true, &ignore(config), &mut |_| {}, &mut take);

    let now = at(Instant::now()) + Duration::from_secs(1);
    let mut found = Inbox {
        arrivals,
        now,
        presets: BTreeMap::new(),
        broken: BTreeMap::new(),
        warnings: Vec::new(),
        waiting: Vec::new(),
        ignored: Vec::new(),
    };
    found.read_presets(config);
    // Special files first: those surprise people.
    found.ignored = found.arrivals.ignored().filter(|(place, _)| !is_working(place)).collect();
    found.ignored.sort_by_key(|(place, why)| (!matches!(why, Why::Special(_)), place.clone()));
    found.waiting = found.arrivals.waiting().filter(|w| w.reason != Reason::Queued).collect();
    found
}

/// `.working` in the inbox is the daemon's own.
fn is_working(place: &Place) -> bool {
    place.folder.is_root() && place.name == INNER_WORKING
}

impl Inbox {
    fn read_presets(&mut self, config: &Config) {
        let inbox = &config.folders.inbox;
        loop {
            let queries = self.arrivals.presets_to_read(self.now);
            if queries.is_empty() {
                break;
            }
            for query in queries {
                self.presets.insert(query.folder.clone(), query.file.clone());
                let chain = self.chain(&query.folder);
                let state = folder_state(config, inbox, &query.folder, &chain);
                self.warnings.extend(state.warnings);
                self.arrivals.preset_state(&query, state.value, self.now);
                if let Some(why) = fault(config, &query.folder, &chain) {
                    self.broken.insert(query.folder, why);
                }
            }
        }
        for (folder, why) in self.arrivals.broken_presets() {
            self.broken.entry(folder.clone()).or_insert_with(|| {
                let file = folder.join(OsStr::new("preset.toml"));
                if why.contains("preset.toml:") { why.to_owned() } else { format!("{file}: {why}") }
            });
        }
    }

    /// The preset files from the inbox down to `folder`.
    pub(super) fn chain(&self, folder: &RelPath) -> Vec<PresetFile> {
        let file = |folder: &RelPath| self.presets.get(folder).cloned().flatten();
        folder.chain().into_iter().map(|folder| (folder.clone(), file(&folder))).collect()
    }

    /// What is to be said of all of it.
    pub(super) fn tell(&self, report: &mut Report) {
        let presets = self.presets.values().flatten().count();
        report.fact(
            "Presets",
            match self.broken.len() {
                0 => counted(presets, "preset"),
                broken => format!("{}, {broken} broken", counted(presets, "preset")),
            },
        );
        let drops: usize = self.arrivals.counts(Reason::Queued).values().sum();
        let folders = self.presets.len().saturating_sub(1);
        report.fact("Dropped", format!("{} in {} below the inbox", counted(drops, "drop"), counted(folders, "folder")));
        for warning in &self.warnings {
            report.warn(warning.to_string());
        }
        for why in self.broken.values() {
            report.problem(format!("{why}\nNothing in its folder, and in those below it, is sent until it is mended."));
        }
        for waiting in self.waiting.iter().filter(|w| w.reason == Reason::Unreadable) {
            let why = waiting.detail.as_deref().unwrap_or("can't be read");
            report.problem(format!("{}: {why}; give the daemon's user the right to read it", waiting.place));
        }
    }

    /// What is ignored, and why.
    pub(super) fn ignored_page(&self) -> String {
        let mut out = String::new();
        if self.ignored.is_empty() {
            return out;
        }
        let _ = writeln!(out, "Ignored:        {}", self.ignored.len());
        for (place, why) in self.ignored.iter().take(IGNORED_LISTED) {
            let _ = writeln!(out, "  {place}  {why}");
        }
        if self.ignored.len() > IGNORED_LISTED {
            let _ = writeln!(out, "  and {} more", self.ignored.len() - IGNORED_LISTED);
        }
        out
    }

    /// Every drop that waits for nothing and that `wanted` wants: the first ones, and how many more there are.
    pub(super) fn drops(&mut self, wanted: &dyn Fn(&Candidate) -> bool) -> (Vec<Candidate>, usize) {
        let (mut drops, mut more) = (Vec::new(), 0);
        loop {
            let mut next = self.arrivals.ready(self.now, 64);
            next.extend(self.arrivals.rejects(self.now, 64));
            if next.is_empty() {
                drops.sort_by_key(Candidate::place);
                return (drops, more);
            }
            for candidate in next {
                // Out of the queue, so that the next of its name comes up.
                self.arrivals.blocked(&candidate.place(), "shown", self.now);
                if !wanted(&candidate) {
                    continue;
                }
                if drops.len() < LISTED {
                    drops.push(candidate);
                } else {
                    more += 1;
                }
            }
        }
    }

    /// What waits in or below `folder`.
    pub(super) fn waiting_in(&self, folder: &RelPath) -> Vec<&Waiting> {
        self.waiting.iter().filter(|w| w.place.folder.is_within(folder)).collect()
    }

    /// What waits that this file has to do with.
    pub(super) fn waiting_with(&self, file: &Place) -> Vec<&Waiting> {
        let key = group_key(&file.name);
        let same = |w: &&Waiting| w.place.folder == file.folder && group_key(&w.place.name) == key;
        self.waiting.iter().filter(same).collect()
    }

    /// Why this file is ignored, if it is.
    pub(super) fn why_ignored(&self, file: &Place) -> Option<Why> {
        self.ignored.iter().find(|(place, _)| place == file).map(|(_, why)| *why)
    }

    /// Why the presets of `folder` can't be used, if so.
    pub(super) fn broken_above(&self, folder: &RelPath) -> Option<&str> {
        folder.chain().iter().find_map(|at| self.broken.get(at)).map(String::as_str)
    }
}

/// What is wrong with the preset of `folder` itself, also where an outer one is broken.
fn fault(config: &Config, folder: &RelPath, chain: &[PresetFile]) -> Option<String> {
    let inbox = &config.folders.inbox;
    match resolve_folder(config, inbox, chain) {
        Ok(_) => None,
        Err((at, why)) if at == *folder => Some(why),
        Err(_) => {
            let (_, name) = chain.last()?;
            match preset_layer(inbox, folder, name.as_deref()?) {
                Err(why) => Some(why),
                Ok(layer) => {
                    let faults = layer?.value.faults(&config.rules());
                    let faults: Vec<_> = faults.iter().map(ToString::to_string).collect();
                    (!faults.is_empty()).then(|| faults.join("\n"))
                }
            }
        }
    }
}
