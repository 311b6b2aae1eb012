//! `reimagined retry [PATH…] [--all] [--again]`: failed drops go from errors back into the inbox.
//!
//! Promises: nothing is overwritten or lost on the way; a drop goes whole, sidecars first and its picture last,
//! under one number that is free for all of it; a wish to have all shots anew is committed before a file moves;
//! a note that somebody edited stays. All paths are looked at before anything moves. One of it at a
//! time; works beside the daemon, and without its ledger (then notes stay).
//!
//! It also closes the row of a drop whose originals are lost, which nobody but a person can decide.

mod find;
mod lost;
mod moving;

use std::path::Path;

use crate::config::Config;
use crate::domain::ids::show;
use crate::ledger::LedgerError;
use crate::ledger::sqlite::SqliteLedger;
use crate::service::lock::FolderLock;

use super::args::{Global, Retry};
use super::exit::{Code, Failure};
use super::term::count;
use super::{setup, term};

/// The ledger, as far as it can be used here.
enum Book {
    /// It is open.
    Open(Box<SqliteLedger>),
    /// No daemon has run with this state directory yet.
    None,
    /// It can't be used, and why.
    Closed(String),
}

impl Book {
    fn open(state_dir: &Path) -> Result<Self, Failure> {
        let path = state_dir.join(setup::LEDGER);
        match std::fs::symlink_metadata(&path) {
            Ok(_) => {}
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Self::None),
            Err(e) => return Ok(Self::Closed(format!("{}: {e}", show(path.as_os_str())))),
        }
        match SqliteLedger::open(&path) {
            Ok(ledger) => Ok(Self::Open(Box::new(ledger))),
            Err(e @ LedgerError::Newer { .. }) => Err(setup::newer(&e, state_dir)),
            // A damaged one is the daemon's to set aside.
            Err(e) => Ok(Self::Closed(e.to_string())),
        }
    }

    fn ledger(&mut self) -> Option<&mut SqliteLedger> {
        match self {
            Self::Open(ledger) => Some(ledger),
            Self::None | Self::Closed(_) => None,
        }
    }
}

/// Moves them, one line each.
pub fn run(global: &Global, args: &Retry) -> Result<(), Failure> {
    let config = setup::configuration(global)?;
    let state_dir = setup::state_dir(&config)?;
    // What another one is about to move is no drop of its own.
    let _alone = FolderLock::take(&[&state_dir, &config.folders.errors], |folder| {
        term::complain(&format!("another retry has {}: waiting for it to end\n", show(folder.as_os_str())));
    });
    let mut book = Book::open(&state_dir)?;
    if let (Book::Closed(why), true) = (&book, args.again) {
        return Err(Failure::usage(format!(
            "the wish to make all shots anew can't be recorded, so nothing was moved: {why}; run it as the daemon's user"
        )));
    }
    // Whatever is wrong with a path is said before anything moves.
    let found = find::find(&config, &mut book, &args.paths, args.all)?;
    if found.drops.is_empty() && found.lost.is_empty() && found.left.is_empty() {
        term::print(&format!("Nothing to retry: no drop lies in {}.\n", show(config.folders.errors.as_os_str())))?;
        return Ok(());
    }
    let mut failed: u64 = found.left.len() as u64;
    for one in &found.left {
        term::complain(&format!("{one}\n"));
    }
    for open in &found.lost {
        match lost::close(&state_dir, &mut book, &config, open) {
            Ok(line) => term::print(&format!("{line}\n"))?,
            Err(why) => {
                failed += 1;
                term::complain(&format!("{why}\n"));
            }
        }
    }
    if !found.drops.is_empty() {
        if let Book::Closed(why) = &book {
            term::complain(&format!("warning: the ledger can't be read ({why}), so notes stay where they are\n"));
        }
        let place = moving::Places::find(&config, &state_dir)?;
        let mut moved = 0;
        for drop in &found.drops {
            if !drop.is_named && moving::is_late(&place, drop) {
                term::print(&format!(
                    "{} stays in errors: it came after its picture was sent. Drop both again, or it alone under another name, as a prompt\n",
                    drop.place()
                ))?;
                continue;
            }
            match moving::bring_back(&place, &mut book, drop, args.again) {
                Ok(line) => {
                    moved += 1;
                    term::print(&format!("{line}\n"))?;
                }
                Err(why) => {
                    failed += 1;
                    term::complain(&format!("{why}\n"));
                }
            }
        }
        if moved > 1 {
            term::print(&format!(
                "{} went back into {}.\n",
                count(moved, "drop"),
                show(config.folders.inbox.as_os_str())
            ))?;
        }
    }
    if failed > 0 {
        return Err(Failure::new(Code::Unexpected, format!("{} stayed where they are\n", count(failed, "drop"))));
    }
    Ok(())
}

/// What to do where there is nothing to go back into.
fn inbox_is_there(config: &Config) -> Result<(), Failure> {
    let inbox = &config.folders.inbox;
    if inbox.is_dir() {
        return Ok(());
    }
    Err(Failure::usage(format!(
        "the inbox {} is not there, so nothing can go back into it: mount or make it, or look at [folders] inbox",
        show(inbox.as_os_str())
    )))
}
