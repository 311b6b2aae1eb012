//! What the database stands on: whether its files are still those that were opened, and whether it has lost sends
//! that it had committed.
//!
//! `SQLite` can tell neither. It writes on into a file that was removed, and takes a log that was cut off or
//! garbled for one that ended there: the commits behind that place are gone without a word, and a drop whose
//! send was among them would look as if it had never been sent. So the number of sends is counted in the
//! database and, after each commit, noted in a small file beside it: a database that knows of fewer has lost
//! some. The file is not synced: after a power cut it may know of fewer sends, which says nothing, never of more.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::Fault;
use super::open::{LOG, beside};

/// The file that notes the number of sends.
pub(super) const COUNT: &str = "-count";

/// Digits and a line's end, so that a new number always covers the old one.
const WIDTH: usize = 20;

type Id = (u64, u64);

/// The files that are open.
#[derive(Debug)]
pub(super) struct Ground {
    database: (PathBuf, Id),
    log: (PathBuf, Option<Id>),
    count: Option<File>,
}

/// What is noted beside the database at `real`, before it is opened.
pub(super) fn noted(real: &Path) -> Option<i64> {
    let text = std::fs::read_to_string(beside(real, COUNT)).ok()?;
    text.trim().parse().ok()
}

/// How many sends that were noted a database does not know that was opened, and not touched yet; `None` where the
/// note says nothing.
pub(super) fn lost(conn: &Connection, noted: Option<i64>) -> Result<Option<i64>, Fault> {
    let has = "SELECT count(*) = 2 FROM sqlite_schema WHERE name IN ('counted', 'trusted')";
    let has: bool = conn.query_row(has, [], |r| r.get(0))?;
    // One that nobody trusts yet, or an older one, knows of nothing anyway.
    if !has || conn.query_row("SELECT count(*) = 0 FROM trusted", [], |r| r.get(0))? {
        return Ok(None);
    }
    let Some(noted) = noted else { return Ok(None) };
    Ok(Some(noted - known(conn)?).filter(|lost| *lost >= 0))
}

/// A database that has lost sends.
pub(super) fn damage(lost: i64) -> Fault {
    Fault::Damaged(format!(
        "{lost} sends that it had recorded are missing: its log was lost or damaged, or an older copy was put in its place"
    ))
}

fn known(conn: &Connection) -> Result<i64, Fault> {
    Ok(conn.query_row("SELECT sends FROM counted", [], |r| r.get(0))?)
}

impl Ground {
    /// The ground of a database that was just opened and is as it should be.
    pub(super) fn of(real: &Path, conn: &Connection) -> Result<Self, Fault> {
        let options = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).to_owned();
        let this = Self {
            database: (real.to_path_buf(), id(real).ok_or_else(gone)?),
            log: (beside(real, LOG), None),
            // Without it no loss is noticed, which is no reason not to work.
            count: options.open(beside(real, COUNT)).ok(),
        };
        this.note(known(conn)?);
        Ok(this)
    }

    /// Fails where a file that is open has gone, or another stands in its place: nothing may be recorded there.
    pub(super) fn holds(&mut self) -> Result<(), Fault> {
        let (path, then) = &self.database;
        if id(path) != Some(*then) {
            return Err(Fault::Moved(path.clone()));
        }
        let (path, then) = &mut self.log;
        let now = id(path);
        match then {
            // It comes with the first transaction, and stays while the database is open.
            None => *then = now,
            Some(_) if now == *then => {}
            Some(_) => return Err(Fault::Moved(path.clone())),
        }
        Ok(())
    }

    /// Notes how many sends are committed by now.
    pub(super) fn note(&self, sends: i64) {
        if let Some(file) = &self.count {
            // As above: a note that is too old says nothing.
            let _ = file.write_all_at(format!("{sends:>WIDTH$}\n").as_bytes(), 0);
        }
    }
}

/// Counts one more send, in its own transaction.
pub(super) fn count(tx: &Connection) -> Result<i64, Fault> {
    let mut more = tx.prepare_cached("UPDATE counted SET sends = sends + 1 RETURNING sends")?;
    Ok(more.query_row([], |r| r.get(0))?)
}

fn id(path: &Path) -> Option<Id> {
    std::fs::symlink_metadata(path).ok().map(|m| (m.dev(), m.ino()))
}

fn gone() -> Fault {
    std::io::Error::from(std::io::ErrorKind::NotFound).into()
}
