//! Reading what became of drops, from beside the daemon or without one.
//!
//! Promises: nothing is written, not even by closing it; no reading lasts, so that the daemon's log does not grow
//! behind a reader who takes their time; what is held in memory is a page. A ledger of an older schema is read as it
//! is. Not the whole of it is checked first: what is damaged shows when it is reached.

use std::io::{Error, ErrorKind};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, Row, Transaction, params};
use rustix::fs::{Access, AtFlags, CWD, accessat};
use rustix::io::Errno;
use serde::Deserialize;

use super::open::{LOG, beside, real};
use super::{BUSY, Fault, rows, schema, steps};
use crate::domain::ids::{DropId, Fingerprint, RelPath};
use crate::domain::life::{Shot, ShotState};
use crate::ledger::past::{Past, Wanted};
use crate::ledger::{Known, LedgerError};

/// Drops that one transaction reads.
const PAGE: u32 = 256;

// Those that went back unbilled are no part of it. Parameters: the moment and row to go on behind, the folder or
// NULL, and the range of the folders below it. `ending IS NOT NULL` stands there for the index.
pub(super) const CLOSED: &str = "
    SELECT row, id, folder, name, ending, coalesce(reason, failure), closed, plan FROM drops
    WHERE ending IS NOT NULL AND closed >= ?1 AND (closed > ?1 OR row > ?2) AND ending <> 'returned'
      AND (?3 IS NULL OR folder = ?3 OR (folder > ?4 AND folder < ?5))
    ORDER BY closed, row LIMIT ?6";
// The one to begin with, so that so many are left.
pub(super) const NTH: &str = "
    SELECT closed, row FROM drops
    WHERE ending IS NOT NULL AND closed >= ?1 AND (closed > ?1 OR row > ?2) AND ending <> 'returned'
      AND (?3 IS NULL OR folder = ?3 OR (folder > ?4 AND folder < ?5))
    ORDER BY closed DESC, row DESC LIMIT 1 OFFSET ?6";
pub(super) const IN_WORK: &str = "
    SELECT row, id, folder, name, coalesce(reason, failure), claimed, plan FROM drops WHERE ending IS NULL ORDER BY row";

/// What became of drops, page by page, oldest first; those in work come last.
#[derive(Debug)]
pub struct SqlitePast {
    conn: Connection,
    path: PathBuf,
    wanted: Wanted,
    at: At,
}

/// How far it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Begin,
    /// Behind the drop that was closed then, in that row.
    Behind(i64, i64),
    End,
}

impl SqlitePast {
    /// What the ledger at `path` knows of an ended drop that has not come back yet: [`crate::ledger::Ledger::recognise`], by
    /// reading only. `None` also where there is no ledger.
    pub fn recognise(path: &Path, recognition: Fingerprint) -> Result<Option<Known>, LedgerError> {
        let known = || match connect(path)? {
            Some(conn) => super::history::recognise(&conn, recognition),
            None => Ok(None),
        };
        known().map_err(|fault: Fault| fault.at(path))
    }

    /// Opens the ledger at `path` for reading; `None` where there is none yet, or an empty file.
    pub fn open(path: &Path, wanted: Wanted) -> Result<Option<Self>, LedgerError> {
        let conn = connect(path).map_err(|fault| fault.at(path))?;
        Ok(conn.map(|conn| Self { conn, path: path.to_path_buf(), wanted, at: At::Begin }))
    }

    /// The next drops, each once; none at the end.
    pub fn page(&mut self) -> Result<Vec<Past>, LedgerError> {
        self.read().map_err(|fault| fault.at(&self.path))
    }

    fn read(&mut self) -> Result<Vec<Past>, Fault> {
        if self.at == At::End {
            return Ok(Vec::new());
        }
        let tx = self.conn.transaction()?;
        let since = self.wanted.since.map_or(i64::MIN, Timestamp::as_millisecond);
        let (behind, skip) = match (self.at, self.wanted.newest) {
            (At::Behind(closed, row), _) => ((closed, row), 0),
            (_, None) => ((since, i64::MIN), 0),
            (_, Some(newest)) => begin(&tx, &self.wanted, since, newest)?,
        };
        let range = Range::of(&self.wanted.folder);
        let mut found = tx.prepare_cached(CLOSED)?;
        let mut rows = found.query(params![behind.0, behind.1, range.own, range.from, range.to, PAGE])?;
        let mut page = Vec::new();
        self.at = At::End;
        while let Some(row) = rows.next()? {
            let shots = rows::shots(&tx, row.get(0)?)?;
            let closed = row.get(6)?;
            self.at = At::Behind(closed, row.get(0)?);
            page.push(Past {
                id: DropId(row.get(1)?),
                folder: steps::folder(row, 2)?,
                name: rows::name(row, 3)?,
                at: rows::instant(closed)?,
                ending: Some(rows::ending(row.get_ref(4)?.as_str().map_err(rusqlite::Error::from)?)?),
                reason: row.get(5)?,
                of: of(row, 7, &shots)?,
                shots,
            });
        }
        if page.len() < PAGE as usize {
            self.at = At::End;
            // In the same transaction: what is closed meanwhile is in one of the two.
            page.extend(in_work(&tx, &self.wanted)?.into_iter().skip(skip));
        }
        Ok(page)
    }
}

/// Where to begin so that the newest so many are left, and how many of those in work are too many by themselves.
fn begin(tx: &Transaction<'_>, wanted: &Wanted, since: i64, newest: u32) -> Result<((i64, i64), usize), Fault> {
    let (newest, open) = (newest as usize, in_work(tx, wanted)?.len());
    if open >= newest {
        return Ok(((i64::MAX, i64::MAX), open - newest));
    }
    let range = Range::of(&wanted.folder);
    let before = i64::try_from(newest - open - 1).unwrap_or(i64::MAX);
    let first: Option<(i64, i64)> = tx
        .prepare_cached(NTH)?
        .query_row(params![since, i64::MIN, range.own, range.from, range.to, before], |r| Ok((r.get(0)?, r.get(1)?)))
        .optional()?;
    // Behind the row before it.
    Ok((first.map_or((since, i64::MIN), |(closed, row)| (closed, row - 1)), 0))
}

/// How many pictures were wanted of a drop at first: one that came back has only those left that were not delivered, under
/// their old numbers. `column` is its plan's.
fn of(row: &Row<'_>, column: usize, shots: &[Shot]) -> Result<u32, Fault> {
    #[derive(Deserialize)]
    struct Plan {
        shots: u32,
    }
    let planned =
        serde_json::from_str(row.get_ref(column)?.as_str().unwrap_or_default()).map_or(0, |plan: Plan| plan.shots);
    Ok(shots.iter().map(|shot| shot.no.0 + 1).max().unwrap_or(0).max(planned))
}

/// Drops in work of which shots have ended.
fn in_work(tx: &Transaction<'_>, wanted: &Wanted) -> Result<Vec<Past>, Fault> {
    let mut found = tx.prepare_cached(IN_WORK)?;
    let mut rows = found.query([])?;
    let mut drops = Vec::new();
    while let Some(row) = rows.next()? {
        let folder = steps::folder(row, 2)?;
        let shots = rows::shots(tx, row.get(0)?)?;
        let of = of(row, 6, &shots)?;
        let shots: Vec<Shot> = shots.into_iter().filter(|shot| shot.state.has_ended()).collect();
        let claimed = rows::instant(row.get(5)?)?;
        let Some(at) = shots.iter().map(|shot| ended(shot).unwrap_or(claimed)).max() else { continue };
        if !folder.is_within(&wanted.folder) || wanted.since.is_some_and(|since| at < since) {
            continue;
        }
        let (id, name) = (DropId(row.get(1)?), rows::name(row, 3)?);
        drops.push(Past { id, folder, name, at, ending: None, reason: row.get(4)?, of, shots });
    }
    Ok(drops)
}

/// When a shot ended, as far as it says.
fn ended(shot: &Shot) -> Option<Timestamp> {
    match &shot.state {
        ShotState::Delivered { picture, .. } => Some(picture.at),
        _ => shot.last_sent,
    }
}

/// A folder and all below it, as ranges of what the database compares: bytes.
struct Range {
    own: Option<Vec<u8>>,
    from: Vec<u8>,
    to: Vec<u8>,
}

impl Range {
    fn of(folder: &RelPath) -> Self {
        let with = |end: u8| [folder.as_bytes(), &[end]].concat();
        // `0` is what comes after `/`.
        Self { own: (!folder.is_root()).then(|| folder.as_bytes().to_vec()), from: with(b'/'), to: with(b'0') }
    }
}

fn connect(path: &Path) -> Result<Option<Connection>, Fault> {
    let missing = |e: &Error| e.kind() == ErrorKind::NotFound;
    let real = match real(path) {
        Err(e) if missing(&e) => return Ok(None),
        found => found?,
    };
    match std::fs::symlink_metadata(&real) {
        Ok(meta) if !meta.is_file() => return Err(Error::new(ErrorKind::InvalidInput, "not a regular file").into()),
        Ok(meta) if meta.len() == 0 => return Ok(None),
        Ok(_) => {}
        Err(e) if missing(&e) => return Ok(None),
        Err(e) => return Err(e.into()),
    }
    // SQLite says only that it could not. To open them here would cost the locks of one who has them open.
    for file in [real.clone(), beside(&real, LOG)] {
        match accessat(CWD, &file, Access::READ_OK, AtFlags::EACCESS) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(e) => return Err(Error::from(e).into()),
        }
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let conn = Connection::open_with_flags(&real, flags)?;
    conn.busy_timeout(BUSY)?;
    // A log that the last one takes along when it goes would be missed at the next start.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    conn.pragma_update(None, "cache_size", -512)?;
    conn.pragma_update(None, "mmap_size", 0)?;
    schema::recognise(&conn)?;
    // The program stopped while it made it.
    let made = "SELECT count(*) = 2 FROM sqlite_schema WHERE name IN ('drops', 'shots')";
    Ok(conn.query_row(made, [], |r| r.get::<_, bool>(0))?.then_some(conn))
}
