//! `reimagined history`: what was made, when and for how much, from the ledger, for a person, a spreadsheet or a
//! program.
//!
//! Reads the ledger from beside the daemon, or without one, and writes nothing. What it holds in memory does not grow
//! with the history. No asset's address and no key is shown; names are shown with their control characters escaped.

mod form;
mod row;
mod since;

use std::path::{Path, PathBuf};

use jiff::Zoned;

use self::form::Form;
use self::row::Row;
pub use self::since::Since;
use super::args::{Global, History};
use super::exit::Failure;
use super::{setup, term};
use crate::config::{Config, units};
use crate::domain::ids::{RelPath, show};
use crate::domain::status::Spend;
use crate::ledger::LedgerError;
use crate::ledger::past::Wanted;
use crate::ledger::sqlite::SqlitePast;

/// What is said at the end.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Total {
    spend: Spend,
    delivered: u64,
    failed: u64,
    unconfirmed: u64,
}

/// Prints it, oldest first.
pub fn run(global: &Global, args: &History) -> Result<(), Failure> {
    let config = setup::configuration(global)?;
    let state_dir = setup::state_dir(&config)?;
    let now = Zoned::now();
    let since = args.since.map(|since| since.moment(&now)).transpose().map_err(Failure::usage)?;
    let folder = args.folder.as_deref().map_or(Ok(RelPath::root()), |path| folder(&config, path))?;
    warn_of_what_is_missing(&config, &state_dir, since, &now);
    let form = match (args.json, args.csv) {
        (true, _) => Form::Json,
        (_, true) => Form::Csv,
        _ => Form::People { colour: term::colour(term::Stream::Out), now },
    };
    let ledger = state_dir.join(setup::LEDGER);
    let past =
        SqlitePast::open(&ledger, Wanted { since, folder, newest: args.limit }).map_err(|e| failed(e, &state_dir))?;
    let mut total = Total::default();
    if !term::print_on(&form.head())? {
        return Ok(());
    }
    if let Some(mut past) = past {
        loop {
            let page = past.page().map_err(|e| failed(e, &state_dir))?;
            if page.is_empty() {
                break;
            }
            let mut text = String::new();
            for row in page.iter().flat_map(Row::of) {
                total.add(&row);
                form.row(&row, &mut text)?;
            }
            if !term::print_on(&text)? {
                return Ok(());
            }
        }
    }
    term::print(&form.foot(&total))?;
    Ok(())
}

impl Total {
    fn add(&mut self, row: &Row) {
        self.spend.images += u64::from(row.images);
        self.spend.cost += row.cost.unwrap_or_default();
        self.spend.unpriced += u64::from(row.unpriced);
        match row.verdict {
            row::Verdict::Delivered => self.delivered += 1,
            row::Verdict::Failed | row::Verdict::Lost => self.failed += 1,
            row::Verdict::Unconfirmed => self.unconfirmed += 1,
        }
    }
}

/// Says on stderr what nobody could tell from the lines: that more was made than the ledger knows.
fn warn_of_what_is_missing(config: &Config, state_dir: &Path, since: Option<jiff::Timestamp>, now: &Zoned) {
    let keep = config.service.keep_history;
    let kept = jiff::SignedDuration::try_from(keep).ok().and_then(|keep| now.timestamp().checked_sub(keep).ok());
    if since.is_some() && since < kept {
        let keep = units::show_duration(keep);
        term::complain(&format!("note: what is older than {keep} is forgotten ([service] keep_history)\n"));
    }
    let damaged = setup::damaged_ledgers(state_dir);
    if !damaged.is_empty() {
        term::complain(&format!(
            "note: the ledger was damaged and begun anew; what it knew before is not shown ({})\n",
            damaged.join(", ")
        ));
    }
}

/// The folder of the inbox that `path` means: as `status` shows it, or as it lies in one of the folders.
fn folder(config: &Config, path: &Path) -> Result<RelPath, Failure> {
    let folders = &config.folders;
    let roots =
        [&folders.inbox, &folders.outbox, &folders.archive, &folders.errors].into_iter().chain(&folders.working);
    let real = |path: &PathBuf| path.canonicalize().ok();
    let absolute = std::path::absolute(path).ok();
    let spelled = [absolute.clone(), absolute.as_ref().and_then(real)];
    for root in roots {
        for root in [Some(root.clone()), real(root)].iter().flatten() {
            if let Some(rel) = spelled.iter().flatten().find_map(|path| RelPath::below(root, path)) {
                return Ok(rel);
            }
        }
    }
    RelPath::new(path).ok_or_else(|| {
        Failure::usage(format!(
            "--folder {}: name a folder of the inbox {}, such as autumn-cafe",
            show(path.as_os_str()),
            show(folders.inbox.as_os_str())
        ))
    })
}

fn failed(e: LedgerError, state_dir: &Path) -> Failure {
    let text = e.to_string();
    match e {
        LedgerError::Newer { .. } => setup::newer(&e, state_dir),
        LedgerError::Io { source, .. } if is_forbidden(source.as_ref()) => Failure::usage(format!(
            "{text}; the ledger is the daemon's alone: run this as the daemon's user, such as: sudo -u reimagined reimagined history (reimagined status needs no such rights)"
        )),
        LedgerError::Damaged { .. } => Failure::unexpected(format!(
            "{text}; what stands above is what could be read. When the daemon is started again, it keeps the damaged one aside and begins a new one"
        )),
        _ => Failure::unexpected(text),
    }
}

fn is_forbidden(error: &(dyn std::error::Error + 'static)) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::PermissionDenied)
}
