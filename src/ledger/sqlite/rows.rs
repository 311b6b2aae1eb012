//! Between the words of the ledger and what the database keeps.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{Connection, Row};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Fault;
use crate::domain::ids::{DropId, Fingerprint};
use crate::domain::life::Shot;
use crate::domain::verdict::Billed;
use crate::ledger::{Ending, Member, Role};

/// Whole milliseconds; a span too long for the column is the longest one.
pub(super) fn span(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

pub(super) fn instant(ms: i64) -> Result<Timestamp, Fault> {
    Timestamp::from_millisecond(ms).map_err(|e| Fault::Damaged(e.to_string()))
}

pub(super) fn name(row: &Row<'_>, at: usize) -> rusqlite::Result<OsString> {
    Ok(OsString::from_vec(row.get(at)?))
}

pub(super) fn path(row: &Row<'_>, at: usize) -> rusqlite::Result<PathBuf> {
    Ok(name(row, at)?.into())
}

pub(super) fn print(row: &Row<'_>, at: usize) -> rusqlite::Result<Option<Fingerprint>> {
    Ok(row.get::<_, Option<_>>(at)?.map(Fingerprint))
}

pub(super) fn json<T: Serialize>(value: &T) -> Result<String, Fault> {
    serde_json::to_string(value).map_err(|e| Fault::Misused(e.to_string()))
}

pub(super) fn from_json<T: DeserializeOwned>(text: &str) -> Result<T, Fault> {
    serde_json::from_str(text).map_err(|e| Fault::Damaged(e.to_string()))
}

pub(super) fn ending_word(ending: Ending) -> &'static str {
    match ending {
        Ending::Archived => "archived",
        Ending::Failed => "failed",
        Ending::Returned => "returned",
        Ending::Lost => "lost",
    }
}

pub(super) fn ending(word: &str) -> Result<Ending, Fault> {
    let all = [Ending::Archived, Ending::Failed, Ending::Returned, Ending::Lost];
    let found = all.into_iter().find(|e| ending_word(*e) == word);
    found.ok_or_else(|| Fault::Damaged(format!("no drop ends {word:?}")))
}

pub(super) fn role_word(role: Role) -> &'static str {
    match role {
        Role::Picture => "picture",
        Role::Sidecar => "sidecar",
        Role::Foreign => "foreign",
    }
}

fn role(word: &str) -> Result<Role, Fault> {
    let all = [Role::Picture, Role::Sidecar, Role::Foreign];
    all.into_iter().find(|r| role_word(*r) == word).ok_or_else(|| Fault::Damaged(format!("no file is {word:?}")))
}

/// What is known of a send whose answer was not read yet.
pub(super) const IN_FLIGHT: &str = "in_flight";

/// What is kept of a send that counts; `None` for one that is given back.
pub(super) fn billed_word(billed: Billed) -> Option<&'static str> {
    match billed {
        Billed::No => None,
        Billed::Yes => Some("yes"),
        Billed::Unknown => Some("unknown"),
    }
}

/// The number of a row of `drops`; `None` if there is none, or only a closed one where `open` is asked for.
pub(super) fn row_of(tx: &Connection, id: DropId) -> Result<Option<(i64, bool)>, Fault> {
    let mut found = tx.prepare_cached("SELECT row, ending IS NULL FROM drops WHERE id = ?1")?;
    let mut rows = found.query([id.0])?;
    Ok(match rows.next()? {
        Some(row) => Some((row.get(0)?, row.get(1)?)),
        None => None,
    })
}

/// The row of a drop that is not closed.
pub(super) fn open_row(tx: &Connection, id: DropId) -> Result<i64, Fault> {
    match row_of(tx, id)? {
        Some((row, true)) => Ok(row),
        Some((_, false)) => Err(Fault::Misused(format!("the drop {id} is closed"))),
        None => Err(Fault::Misused(format!("there is no drop {id}"))),
    }
}

pub(super) fn members(tx: &Connection, drop_row: i64) -> Result<Vec<Member>, Fault> {
    let mut found =
        tx.prepare_cached("SELECT name, role, print, size, moves FROM members WHERE drop_row = ?1 ORDER BY place")?;
    let mut rows = found.query([drop_row])?;
    let mut members = Vec::new();
    while let Some(row) = rows.next()? {
        members.push(Member {
            name: name(row, 0)?,
            role: role(row.get_ref(1)?.as_str().map_err(rusqlite::Error::from)?)?,
            print: print(row, 2)?,
            size: u64::try_from(row.get::<_, i64>(3)?).unwrap_or_default(),
            moves: row.get(4)?,
        });
    }
    Ok(members)
}

pub(super) fn shots(tx: &Connection, drop_row: i64) -> Result<Vec<Shot>, Fault> {
    let mut found = tx.prepare_cached("SELECT shot FROM shots WHERE drop_row = ?1 ORDER BY no")?;
    let mut rows = found.query([drop_row])?;
    let mut shots = Vec::new();
    while let Some(row) = rows.next()? {
        shots.push(from_json(row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?)?);
    }
    Ok(shots)
}

/// Stands for some files, whatever their names and order; `None` if one could not be read, or for none.
pub(super) fn print_of(prints: impl IntoIterator<Item = Option<Fingerprint>>) -> Option<Fingerprint> {
    let mut prints: Vec<Fingerprint> = prints.into_iter().collect::<Option<_>>()?;
    prints.sort_unstable();
    let bytes: Vec<u8> = prints.iter().flat_map(|print| print.0).collect();
    (!bytes.is_empty()).then(|| Fingerprint::of(&bytes))
}

/// [`print_of`] all files of a drop. A file that is no drop never equals a drop of the same bytes.
pub(super) fn members_print(members: &[Member]) -> Option<Fingerprint> {
    let foreign = members.iter().any(|m| m.role == Role::Foreign);
    let mark = foreign.then(|| Some(Fingerprint::of(b"foreign")));
    print_of(members.iter().map(|m| m.print).chain(mark))
}

/// [`print_of`] those files of a drop that move with it.
pub(super) fn moving_print(members: &[Member]) -> Option<Fingerprint> {
    print_of(members.iter().filter(|m| m.moves && m.role != Role::Foreign).map(|m| m.print))
}
