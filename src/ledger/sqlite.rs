//! The ledger in an embedded database, one file of the state directory.
//!
//! Promises: a method that returned is on the disk (`synchronous=FULL` behind a write-ahead log); writers
//! take the database before they read, so that two programs never decide on the same facts; a database of a
//! newer version or a damaged one is not written to. The file is the owner's alone. It does not decide what
//! a damaged ledger means for the drops in `working/`: [`set_aside`](SqliteLedger::set_aside) is the
//! caller's choice, and [`Ledger::is_fresh`] tells it afterwards.

mod ground;
mod history;
mod log;
mod money;
mod open;
mod past;
mod rows;
mod schema;
mod shared;
mod steps;

#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rusqlite::{Connection, ErrorCode, TransactionBehavior};

pub use self::past::SqlitePast;
use super::returning::Returning;
use super::{
    Ending, Failure, Filed, Filing, Known, Ledger, LedgerError, Limits, Moment, NewDrop, Older, OpenDrop, Role, Sent,
    Usage,
};
use crate::domain::ids::{DropId, Fingerprint, ShotNo};
use crate::domain::life::Shot;
use crate::domain::verdict::Billed;

/// How long a call waits for another program that writes just now, before it is [`LedgerError::Busy`].
const BUSY: Duration = Duration::from_secs(5);

/// The [`Ledger`] in an `SQLite` database.
#[derive(Debug)]
pub struct SqliteLedger {
    conn: Connection,
    path: PathBuf,
    ground: ground::Ground,
    commits: Commits,
    returning: Arc<Returning>,
    /// The commit that steps share just now.
    shared: Option<shared::Shared>,
}

/// Who is told how long each commit waited for the disk.
struct Commits(Box<dyn Fn(Duration) + Send>);

impl fmt::Debug for Commits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Commits")
    }
}

impl Default for Commits {
    fn default() -> Self {
        Self(Box::new(|_| {}))
    }
}

impl SqliteLedger {
    /// Opens the ledger at `path`, and creates it (mode 0600) where there is none or an empty file. Its
    /// folder must exist.
    ///
    /// Checks the whole database and its log, which takes a while for a long history. [`LedgerError::Newer`]
    /// and [`LedgerError::Damaged`] leave the files as they were. Where the last commit may be missing (its log
    /// is gone, or torn at its end) it is [fresh](Ledger::is_fresh) again.
    pub fn open(path: &Path) -> Result<Self, LedgerError> {
        open::open(path, BUSY)
    }

    /// Renames the database at `path`, with its log, to `PATH.damaged-YYYYMMDDTHHMMSSZ` (with `-2` and so
    /// on where that is taken); the new name, or `None` if nothing was there. No other handle may be open.
    pub fn set_aside(path: &Path, now: Timestamp) -> io::Result<Option<PathBuf>> {
        open::set_aside(path, now)
    }

    /// Tells `observe` from now on how long each commit waited for the disk. It must neither block nor panic.
    pub fn observe_commits(&mut self, observe: impl Fn(Duration) + Send + 'static) {
        self.commits = Commits(Box::new(observe));
    }

    /// One transaction that writes, or one that can be undone by itself within a shared one: the database is taken
    /// before `f` looks, so it decides on facts that stay.
    fn write<T>(&mut self, f: impl FnOnce(&Connection) -> Result<T, Fault>) -> Result<T, LedgerError> {
        let done = if let Some(shared) = &mut self.shared {
            shared.take_part(&self.conn, &mut self.ground, f)
        } else {
            (|| {
                self.ground.holds()?;
                let tx = self.conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
                let done = f(&tx)?;
                let begun = Instant::now();
                tx.commit()?;
                (self.commits.0)(begun.elapsed());
                Ok(done)
            })()
        };
        done.map_err(|fault: Fault| fault.at(&self.path))
    }

    /// [`Self::write`] of what may be a send, which is counted.
    fn write_send(&mut self, f: impl FnOnce(&Connection) -> Result<Sent, Fault>) -> Result<Sent, LedgerError> {
        let (sent, sends) = self.write(|tx| {
            let sent = f(tx)?;
            Ok((sent, if sent == Sent::Committed { Some(ground::count(tx)?) } else { None }))
        })?;
        match (sends, &mut self.shared) {
            (Some(sends), Some(shared)) => shared.sends = Some(sends),
            (Some(sends), None) => self.ground.note(sends),
            (None, _) => {}
        }
        Ok(sent)
    }

    /// One transaction that reads: all of `f` sees the same state. Within a shared one, what was done in it so far.
    fn read<T>(&mut self, f: impl FnOnce(&Connection) -> Result<T, Fault>) -> Result<T, LedgerError> {
        let done = if self.shared.as_ref().is_some_and(|shared| shared.begun) {
            f(&self.conn)
        } else {
            (|| {
                let tx = self.conn.transaction_with_behavior(TransactionBehavior::Deferred)?;
                f(&tx)
            })()
        };
        done.map_err(|fault: Fault| fault.at(&self.path))
    }
}

impl Drop for SqliteLedger {
    fn drop(&mut self) {
        open::close(&self.conn);
    }
}

/// What went wrong, before it is known with which file.
#[derive(Debug)]
enum Fault {
    Sql(rusqlite::Error),
    Io(io::Error),
    Damaged(String),
    Newer(i64),
    Moved(PathBuf),
    Misused(String),
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Fault {
    fn at(self, path: &Path) -> LedgerError {
        use rusqlite::Error as E;
        let path = path.to_path_buf();
        match self {
            Self::Newer(found) => LedgerError::Newer { path, found, known: schema::KNOWN },
            Self::Damaged(why) => LedgerError::Damaged { path, why },
            Self::Moved(path) => LedgerError::Moved { path },
            Self::Misused(what) => LedgerError::Misused { path, what },
            Self::Io(source) => LedgerError::Io { path, source: source.into() },
            Self::Sql(error) => match error.sqlite_error_code() {
                Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => LedgerError::Busy { path },
                Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                    LedgerError::Damaged { path, why: error.to_string() }
                }
                // Only rows that contradict each other are refused by constraints, and those come from callers.
                Some(ErrorCode::ConstraintViolation) => LedgerError::Misused { path, what: error.to_string() },
                Some(_) => LedgerError::Io { path, source: error.into() },
                None => match error {
                    E::FromSqlConversionFailure(..)
                    | E::IntegralValueOutOfRange(..)
                    | E::InvalidColumnType(..)
                    | E::Utf8Error(..) => LedgerError::Damaged { path, why: error.to_string() },
                    other => LedgerError::Io { path, source: other.into() },
                },
            },
        }
    }
}

impl Ledger for SqliteLedger {
    fn hold(&mut self) {
        self.shared.get_or_insert_default();
    }

    fn flush(&mut self) -> Result<(), LedgerError> {
        let Some(shared) = self.shared.take() else { return Ok(()) };
        let (shrink, writes, begun) = (shared.shrink, shared.begun, Instant::now());
        let sends = shared.commit(&self.conn).map_err(|fault| fault.at(&self.path))?;
        if writes {
            (self.commits.0)(begun.elapsed());
        }
        if let Some(sends) = sends {
            self.ground.note(sends);
        }
        if shrink {
            // What was tidied is; the room that it took can be given back another day.
            let _ = history::shrink(&self.conn);
        }
        Ok(())
    }

    fn is_fresh(&mut self) -> Result<bool, LedgerError> {
        self.read(schema::is_fresh)
    }

    fn trust(&mut self) -> Result<(), LedgerError> {
        self.write(schema::trust)
    }

    fn open_drops(&mut self) -> Result<Vec<OpenDrop>, LedgerError> {
        self.read(steps::open_drops)
    }

    fn begin(
        &mut self,
        drop: &NewDrop,
        first: Option<ShotNo>,
        limits: Limits,
        now: &Moment,
    ) -> Result<Sent, LedgerError> {
        // Without a picture there is nothing to tell by.
        let picture = drop.members.iter().find(|m| m.role == Role::Picture).and_then(|m| m.print);
        let may_be_back = picture.is_none_or(|print| self.returning.may_know([print]));
        self.write_send(|tx| steps::begin(tx, drop, first, limits, now, may_be_back))
    }

    fn send(&mut self, id: DropId, shot: &Shot, limits: Limits, now: &Moment) -> Result<Sent, LedgerError> {
        self.write_send(|tx| steps::send(tx, id, shot, limits, now))
    }

    fn step(&mut self, id: DropId, shot: &Shot, billed: Billed) -> Result<(), LedgerError> {
        self.write(|tx| steps::step(tx, id, shot, billed))
    }

    fn number(&mut self, id: DropId, number: u32) -> Result<(), LedgerError> {
        self.write(|tx| steps::number(tx, id, number))
    }

    fn replan(&mut self, id: DropId, plan: &str) -> Result<(), LedgerError> {
        self.write(|tx| steps::replan(tx, id, plan))
    }

    fn file_under(&mut self, id: DropId, filing: &Filing) -> Result<(), LedgerError> {
        self.write(|tx| steps::file_under(tx, id, filing))
    }

    fn noted(&mut self, id: DropId, path: &Path, print: Fingerprint) -> Result<(), LedgerError> {
        self.write(|tx| history::noted(tx, id, path, print))
    }

    fn close(&mut self, id: DropId, ending: Ending, reason: Option<&str>, now: Timestamp) -> Result<(), LedgerError> {
        if matches!(ending, Ending::Failed | Ending::Returned) {
            // Before it is committed, so that nobody ever looks in between.
            let prints = self.read(|tx| history::known_by(tx, id))?;
            self.returning.note(prints);
        }
        self.write(|tx| steps::close(tx, id, ending, reason, now))
    }

    fn returning(&self) -> Arc<Returning> {
        Arc::clone(&self.returning)
    }

    fn recognise(&mut self, recognition: Fingerprint) -> Result<Option<Known>, LedgerError> {
        self.read(|tx| history::recognise(tx, recognition))
    }

    fn seen_picture(&mut self, picture: Fingerprint) -> Result<bool, LedgerError> {
        self.read(|tx| history::seen_picture(tx, picture))
    }

    fn note_at(&mut self, path: &Path) -> Result<Option<Fingerprint>, LedgerError> {
        self.read(|tx| history::note_at(tx, path))
    }

    fn note_left_at(&mut self, path: &Path, picture: Option<Fingerprint>) -> Result<Option<Fingerprint>, LedgerError> {
        self.read(|tx| history::note_left_at(tx, path, picture))
    }

    fn is_our_note(&mut self, print: Fingerprint) -> Result<bool, LedgerError> {
        self.read(|tx| history::is_our_note(tx, print))
    }

    fn wish_again(&mut self, members: &[Fingerprint]) -> Result<bool, LedgerError> {
        self.write(|tx| history::wish_again(tx, members))
    }

    fn filed_since(&mut self, since: Timestamp) -> Result<Vec<Filed>, LedgerError> {
        self.read(|tx| history::filed_since(tx, since))
    }

    fn usage_after(&mut self, now: &Moment, older: Option<Older>) -> Result<Usage, LedgerError> {
        self.read(|tx| money::usage(tx, now, older))
    }

    fn last_cost(&mut self) -> Result<Option<f64>, LedgerError> {
        self.read(money::last_cost)
    }

    fn failures(&mut self, most: u32) -> Result<(u64, Vec<Failure>), LedgerError> {
        self.read(|tx| history::failures(tx, most))
    }

    fn upload_of(&mut self, key: Fingerprint, within: Duration, now: Timestamp) -> Result<Option<String>, LedgerError> {
        self.read(|tx| history::upload_of(tx, key, within, now))
    }

    fn uploaded(&mut self, key: Fingerprint, url: &str, now: Timestamp) -> Result<(), LedgerError> {
        self.write(|tx| history::uploaded(tx, key, url, now))
    }

    fn forget_upload(&mut self, key: Fingerprint) -> Result<(), LedgerError> {
        self.write(|tx| history::forget_upload(tx, key))
    }

    fn tidy(&mut self, keep: Duration, now: Timestamp) -> Result<bool, LedgerError> {
        let more = self.write(|tx| history::tidy(tx, keep, now))?;
        if let Some(shared) = &mut self.shared {
            shared.shrink = true;
            return Ok(more);
        }
        history::shrink(&self.conn).map_err(|fault| fault.at(&self.path))?;
        Ok(more)
    }
}
