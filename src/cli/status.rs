//! `reimagined status [--watch] [--json]`: the daemon's status file, for a person or as it is, once or as it changes.
//!
//! Reads `status.json` and looks whether the daemon lives; needs neither the database nor its rights.

mod watch;

use std::fmt::Write as _;
use std::path::Path;

use jiff::Zoned;

use super::term::{self, Palette, age, count, dollars, moment, money};
use crate::config::Config;
use crate::domain::ids::show_text;
use crate::service::status_file::{self, Folders, Spend, State, Status, StatusError};

/// How many names are shown below each reason to wait.
const NAMES_SHOWN: usize = 5;
/// How many failures are shown.
const FAILURES_SHOWN: usize = 5;
/// How many folders are shown.
const FOLDERS_SHOWN: usize = 10;

/// Why the status could not be shown.
#[derive(Debug, thiserror::Error)]
pub enum ShowError {
    /// It could not be read.
    #[error(transparent)]
    Status(#[from] StatusError),
    /// It could not be printed.
    #[error("standard output: {0}")]
    Print(#[from] std::io::Error),
}

/// `reimagined status`.
pub fn run(global: &super::args::Global, args: &super::args::Status) -> Result<(), super::exit::Failure> {
    let config = super::setup::configuration(global)?;
    let state_dir = super::setup::state_dir(&config)?;
    let done = if args.watch { watch::run(&state_dir, args.json) } else { show(&config, &state_dir, args.json) };
    done.map_err(|e| match &e {
        ShowError::Status(StatusError::Io { source, .. }) if source.kind() == std::io::ErrorKind::PermissionDenied => {
            super::exit::Failure::usage(format!(
                "{e}; the daemon's user and its group may read it: ask to be in that group, or run this as the daemon's user, such as: sudo -u reimagined reimagined status"
            ))
        }
        _ => super::exit::Failure::unexpected(e.to_string()),
    })
}

/// Prints the status of the daemon whose state directory this is. A daemon that never ran is stopped.
pub fn show(config: &Config, state_dir: &Path, json: bool) -> Result<(), ShowError> {
    let mut status = status_file::read_live(state_dir)?;
    if status.updated.is_none() {
        let folders = &config.folders;
        let show = |path: &Path| crate::domain::ids::show(path.as_os_str());
        status.folders = Folders {
            inbox: show(&folders.inbox),
            working: folders.working.as_deref().map(show).unwrap_or_default(),
            outbox: show(&folders.outbox),
            archive: show(&folders.archive),
            errors: show(&folders.errors),
        };
        status.version = env!("CARGO_PKG_VERSION").into();
    }
    let text = if json { as_json(&status)? } else { render(&status, &Zoned::now(), term::colour(term::Stream::Out)) };
    term::print(&text)?;
    Ok(())
}

/// The status as JSON, one line per value, in the order of the documentation.
fn as_json(status: &Status) -> Result<String, ShowError> {
    let mut text = serde_json::to_string_pretty(status).map_err(std::io::Error::from)?;
    text.push('\n');
    Ok(text)
}

/// The status for a person, with times in the zone of `now`.
pub fn render(status: &Status, now: &Zoned, colour: bool) -> String {
    let mut page = Page { out: String::new(), palette: Palette::new(colour), now };
    page.state(status);
    page.work(status);
    page.waiting(status);
    page.queue(status);
    page.ignored(status);
    page.broken(status);
    page.damaged(status);
    page.failed(status);
    page.money(status);
    page.out
}

struct Page<'a> {
    out: String,
    palette: Palette,
    now: &'a Zoned,
}

impl Page<'_> {
    /// `Label:` in bold, then `text`.
    fn entry(&mut self, label: &str, text: &str) {
        let bold = self.palette.bold;
        let label = format!("{label}:");
        let _ = writeln!(self.out, "{bold}{label:<15}{bold:#} {text}");
    }

    fn detail(&mut self, text: &str) {
        let _ = writeln!(self.out, "  {text}");
    }

    fn state(&mut self, status: &Status) {
        let Palette { good, warn, bad, .. } = self.palette;
        let state = match (status.state, &status.paused) {
            (State::Stopped, _) if status.updated.is_none() => {
                format!("{bad}stopped{bad:#}; no daemon has run here yet (start it with: reimagined run)")
            }
            (State::Stopped, _) => format!("{bad}stopped{bad:#}"),
            (State::Running, None) => format!("{good}running{good:#}"),
            (State::Paused, None) => format!("{warn}paused{warn:#}"),
            (_, Some(paused)) => {
                let since = moment(paused.since, self.now);
                let until = paused.until.map(|at| format!(", until {}", moment(at, self.now))).unwrap_or_default();
                format!("{warn}paused{warn:#}: {} since {since}{until}", show_text(&paused.reason))
            }
        };
        self.entry("State", &state);
        if let (Some(updated), State::Stopped) = (status.updated, status.state) {
            let seen = moment(updated, self.now);
            self.entry("Last seen", &format!("{seen}; what follows is how it was then"));
        }
        if let Some(pid) = status.pid {
            let watched = match status.backend.as_str() {
                "" => String::new(),
                "poll" => ", polling the inbox".to_owned(),
                backend => format!(", watching the inbox by {}", show_text(backend)),
            };
            self.entry("Daemon", &format!("process {pid}, version {}{watched}", show_text(&status.version)));
        }
        if !status.folders.inbox.is_empty() {
            self.entry("Inbox", &show_text(&status.folders.inbox));
        }
    }

    fn work(&mut self, status: &Status) {
        self.entry("In work", &status.in_work.to_string());
        for work in &status.work {
            let now = self.now.timestamp();
            let state = age(work.since, now);
            // Where both are the same, one is said.
            let in_work = work.claimed.map(|at| age(at, now)).filter(|all| *all != state);
            let in_work = in_work.map(|all| format!(" (in work for {all})")).unwrap_or_default();
            self.detail(&format!("{}  {}, {state}{in_work}", show_text(&work.drop), show_text(&work.state)));
        }
        self.rest(status.in_work, status.work.len());
    }

    fn waiting(&mut self, status: &Status) {
        self.entry("Waiting", &status.waiting_in_all().to_string());
        let until = status.limit_until.map(|at| format!(", until {}", moment(at, self.now)));
        for (reason, number) in status.waiting.iter().filter(|(_, number)| **number > 0) {
            let until = if reason == "limit" { until.as_deref().unwrap_or_default() } else { "" };
            self.detail(&format!("{number} {}{until}", waits_for(reason)));
            let dim = self.palette.dim;
            let named = status.waiting_for.iter().filter(|w| w.reason == *reason).take(NAMES_SHOWN);
            let named: Vec<_> = named.map(|w| show_text(&w.drop)).collect();
            for name in &named {
                self.detail(&format!("  {dim}{name}{dim:#}"));
            }
            if !named.is_empty() && (named.len() as u64) < *number {
                self.detail(&format!("  {dim}and {} more{dim:#}", number - named.len() as u64));
            }
        }
        for other in status.waiting_for.iter().filter(|w| !status.waiting.contains_key(&w.reason)).take(NAMES_SHOWN) {
            self.detail(&format!("{}  {}", show_text(&other.drop), show_text(&other.reason)));
        }
        if let (Some(until), false) = (until, status.waiting.contains_key("limit")) {
            self.detail(&format!("the limit is reached{until}"));
        }
    }

    /// Folder by folder, where that says more than the sums above.
    fn queue(&mut self, status: &Status) {
        let all = status.queue.len() as u64 + status.queue_left_out;
        if status.queue.iter().all(|queue| queue.folder == ".") && status.queue_left_out == 0 {
            return;
        }
        self.entry("By folder", &count(all, "folder"));
        let shown = status.queue.iter().take(FOLDERS_SHOWN);
        for queue in shown.clone() {
            let folder = if queue.folder == "." { "the inbox itself".to_owned() } else { show_text(&queue.folder) };
            let numbers = [(queue.waiting, "waiting"), (queue.in_work, "in work")];
            let numbers = numbers.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}"));
            self.detail(&format!("{folder}  {}", numbers.collect::<Vec<_>>().join(", ")));
        }
        self.rest(all, shown.len());
    }

    fn ignored(&mut self, status: &Status) {
        if status.ignored == 0 {
            return;
        }
        self.entry("Ignored", &format!("{} (reimagined check lists them)", status.ignored));
        let shown = status.ignored_files.iter().take(NAMES_SHOWN);
        for ignored in shown.clone() {
            self.detail(&format!("{}  {}", show_text(&ignored.file), show_text(&ignored.why)));
        }
        self.rest(status.ignored, shown.len());
    }

    fn broken(&mut self, status: &Status) {
        if status.broken_presets.is_empty() {
            return;
        }
        let Palette { bad, .. } = self.palette;
        let number = status.broken_presets.len();
        self.entry("Broken presets", &format!("{bad}{number}{bad:#}; their folders wait"));
        for preset in &status.broken_presets {
            let mut lines = preset.reason.lines();
            self.detail(&format!("{}  {}", show_text(&preset.file), show_text(lines.next().unwrap_or_default())));
            for line in lines {
                self.detail(&format!("  {}", show_text(line)));
            }
        }
    }

    fn damaged(&mut self, status: &Status) {
        if status.damaged_ledgers.is_empty() {
            return;
        }
        let Palette { bad, .. } = self.palette;
        let text = format!("{bad}damaged{bad:#}, set aside; what was in work then went to errors as unconfirmed");
        self.entry("Ledger", &text);
        for name in &status.damaged_ledgers {
            self.detail(&format!("{}  (in the state directory; shown until it is taken away)", show_text(name)));
        }
    }

    fn failed(&mut self, status: &Status) {
        let Palette { bad, .. } = self.palette;
        let number = if status.failed > 0 { format!("{bad}{}{bad:#}", status.failed) } else { "0".to_owned() };
        self.entry("Failed", &number);
        let shown = status.last_failures.iter().take(FAILURES_SHOWN);
        for failure in shown.clone() {
            let at = moment(failure.at, self.now);
            self.detail(&format!("{at}  {}  {}", show_text(&failure.drop), show_text(&failure.reason)));
        }
        self.rest(status.failed, shown.len());
    }

    fn money(&mut self, status: &Status) {
        let spans =
            [("Last hour", &status.last_hour), ("Last 24 hours", &status.last_24h), ("Last 30 days", &status.last_30d)];
        for (label, spend) in spans {
            self.entry(label, &made(spend));
        }
        self.entry("Credits left", &status.credits.map_or_else(|| "not known".to_owned(), dollars));
    }

    fn rest(&mut self, all: u64, shown: usize) {
        let shown = shown as u64;
        if shown > 0 && shown < all {
            self.detail(&format!("and {} more", all - shown));
        }
    }
}

fn made(spend: &Spend) -> String {
    format!("{}, {}", count(spend.images, "image"), money(spend))
}

/// A key of [`Status::waiting`] in words. What is not known here stands as it is.
fn waits_for(reason: &str) -> String {
    let words = match reason {
        "settling" => "for their writer to finish",
        "folder_settling" => "for their new folder to come to rest",
        "incomplete" => "for the rest of the picture",
        "sidecar" => "for a sidecar",
        "empty_sidecar" => "for an empty sidecar to be written",
        "image" => "for an image",
        "prompt" => "for a prompt",
        "preset_broken" => "for a broken preset.toml to be mended",
        "preset_changing" => "for a preset.toml that changes",
        "disabled" => "in folders with enabled = false",
        "busy" => "for a drop of the same name in work",
        "unreadable" => "until they can be read and moved",
        "planning" => "being looked at",
        "queued" => "for their turn",
        "limit" => "for room under the limit",
        "paused" => "for the pause to end",
        other => return format!("for: {}", show_text(other)),
    };
    words.to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use jiff::Timestamp;

    use super::*;
    use crate::service::status_file::{
        BrokenPreset, Failure, Folders, Ignored, PauseKind, Paused, Queue, Waiting, Work,
    };

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn now() -> Zoned {
        at("2026-11-23T15:00:00Z").to_zoned(jiff::tz::TimeZone::UTC)
    }

    fn full() -> Status {
        Status {
            state: State::Paused,
            paused: Some(Paused {
                kind: PauseKind::Credits,
                reason: "out of credits".into(),
                since: at("2026-11-23T14:02:00Z"),
                until: Some(at("2026-11-23T15:01:00Z")),
            }),
            in_work: 3,
            work: vec![
                Work {
                    drop: "cafe/a.jpg".into(),
                    state: "received".into(),
                    since: at("2026-11-23T14:57:00Z"),
                    claimed: Some(at("2026-11-23T14:55:00Z")),
                },
                Work {
                    drop: "b\n.txt".into(),
                    state: "sending".into(),
                    since: at("2026-11-23T14:59:48Z"),
                    claimed: Some(at("2026-11-23T14:59:48Z")),
                },
            ],
            waiting: [("prompt".into(), 7), ("limit".into(), 2), ("moon_phase".into(), 1)].into(),
            waiting_for: (1..=6)
                .map(|n| Waiting { drop: format!("{n}.jpg"), reason: "prompt".into() })
                .chain([Waiting { drop: "z.jpg".into(), reason: "permission denied".into() }])
                .collect(),
            queue: vec![
                Queue { folder: "cafe".into(), waiting: 7, in_work: 2 },
                Queue { folder: ".".into(), waiting: 3, in_work: 0 },
                Queue { folder: "late\t".into(), waiting: 0, in_work: 1 },
            ],
            queue_left_out: 4,
            failed: 2,
            last_failures: vec![Failure {
                drop: "cafe/x.jpg".into(),
                reason: "refused by moderation".into(),
                at: at("2026-11-22T09:30:00Z"),
            }],
            last_24h: Spend { images: 233, cost: 9.2, unpriced: 3 },
            last_hour: Spend { images: 1, cost: 0.04, unpriced: 0 },
            last_30d: Spend { images: 4100, cost: 160.0, unpriced: 3 },
            credits: Some(0.018),
            ignored: 4,
            ignored_files: vec![Ignored { file: ".DS_Store".into(), why: "its name begins with a dot".into() }],
            broken_presets: vec![BrokenPreset {
                file: "cafe/preset.toml".into(),
                reason: "line 3: unknown key\nline 4: another".into(),
            }],
            damaged_ledgers: Vec::new(),
            limit_until: Some(at("2026-11-23T15:30:00Z")),
            backend: "events".into(),
            folders: Folders { inbox: "/srv/reimagine/inbox".into(), ..Folders::default() },
            version: "0.1.0".into(),
            pid: Some(42),
            updated: Some(at("2026-11-23T14:59:59Z")),
        }
    }

    #[test]
    fn everything_is_shown_in_words() {
        insta::assert_snapshot!(render(&full(), &now(), false), @r"
        State:          paused: out of credits since 14:02, until 15:01
        Daemon:         process 42, version 0.1.0, watching the inbox by events
        Inbox:          /srv/reimagine/inbox
        In work:        3
          cafe/a.jpg  received, 3 min (in work for 5 min)
          b\n.txt  sending, 12 s
          and 1 more
        Waiting:        10
          2 for room under the limit, until 15:30
          1 for: moon_phase
          7 for a prompt
            1.jpg
            2.jpg
            3.jpg
            4.jpg
            5.jpg
            and 2 more
          z.jpg  permission denied
        By folder:      7 folders
          cafe  7 waiting, 2 in work
          the inbox itself  3 waiting
          late\t  1 in work
          and 4 more
        Ignored:        4 (reimagined check lists them)
          .DS_Store  its name begins with a dot
          and 3 more
        Broken presets: 1; their folders wait
          cafe/preset.toml  line 3: unknown key
            line 4: another
        Failed:         2
          2026-11-22 09:30  cafe/x.jpg  refused by moderation
          and 1 more
        Last hour:      1 image, $0.04
        Last 24 hours:  233 images, at least $9.20, 3 without a price
        Last 30 days:   4100 images, at least $160.00, 3 without a price
        Credits left:   $0.02
        ");
    }

    #[test]
    fn an_idle_daemon_is_short() {
        let idle = Status { state: State::Running, updated: Some(at("2026-11-23T14:59:59Z")), ..Status::default() };
        insta::assert_snapshot!(render(&idle, &now(), false), @r"
        State:          running
        In work:        0
        Waiting:        0
        Failed:         0
        Last hour:      0 images, $0.00
        Last 24 hours:  0 images, $0.00
        Last 30 days:   0 images, $0.00
        Credits left:   not known
        ");
    }

    #[test]
    fn drops_of_the_inbox_alone_are_not_counted_by_folder() {
        let queue = vec![Queue { folder: ".".into(), waiting: 3, in_work: 0 }];
        let page = render(&Status { queue, ..full() }, &now(), false);
        assert!(page.contains("By folder:      5 folders\n"), "four are left out\n{page}");
        let queue = vec![Queue { folder: ".".into(), waiting: 3, in_work: 0 }];
        let page = render(&Status { queue, queue_left_out: 0, ..full() }, &now(), false);
        assert!(!page.contains("By folder"), "{page}");
    }

    #[test]
    fn a_stopped_one_says_when_it_was_last_seen_and_a_new_one_how_to_start() {
        let died = render(&full().stopped(), &now(), false);
        assert!(died.starts_with("State:          stopped\nLast seen:      14:59; what follows"), "{died}");
        assert!(!died.contains("until"), "{died}");
        let never = render(&Status::default(), &now(), false);
        assert!(never.contains("reimagined run"), "{never}");
    }

    #[test]
    fn colour_changes_no_words() {
        let coloured = render(&full(), &now(), true);
        assert!(coloured.contains("\u{1b}[33mpaused\u{1b}[0m"), "{coloured:?}");
        let plain = anstream::adapter::strip_str(&coloured).to_string();
        assert_eq!(plain, render(&full(), &now(), false));
    }

    #[test]
    fn the_json_is_the_status_itself() {
        let again: Status = serde_json::from_str(&as_json(&full()).unwrap()).unwrap();
        assert_eq!(again, full());
    }
}
