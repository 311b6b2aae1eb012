//! What became of drops: coming back, notes, failures, uploads; and forgetting it all in time.

use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::rows::{self, print_of, row_of, span};
use super::{Fault, money, steps};
use crate::domain::ids::{DropId, Fingerprint, Place};
use crate::ledger::{Failure, Filed, Known, NewDrop, Role};

/// Uploads are kept for this long, whatever the configuration calls good.
const UPLOADS: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// Rows that one call of [`tidy`] deletes, of drops (each with some ten more rows) and of other things.
const DROPS_AT_ONCE: u32 = 1_000;
const ROWS_AT_ONCE: u32 = 10_000;
/// Pages that one call of [`shrink`] gives back.
const PAGES_AT_ONCE: u32 = 2_000;

// In each of these, what an index holds is written out as in the index, else SQLite does not take it.
pub(super) const BACK_MEMBERS: &str = "
    UPDATE drops SET back = 1 WHERE row = (
        SELECT row FROM drops WHERE used = 0 AND ending = 'failed' AND back = 0 AND members_print = ?1
        ORDER BY closed DESC, row DESC LIMIT 1)";
pub(super) const BACK_PICTURE: &str = "
    UPDATE drops SET back = 1 WHERE row = (
        SELECT row FROM drops WHERE used = 0 AND ending = 'failed' AND back = 0 AND picture = ?1 AND folder = ?2
        ORDER BY closed DESC, row DESC LIMIT 1)";
pub(super) const BACK_PROMPTS: &str = "
    UPDATE drops SET back = 1 WHERE row = (
        SELECT row FROM drops
        WHERE used = 0 AND ending = 'failed' AND prompts = 1 AND back = 0 AND folder = ?1 AND stem = ?2
        ORDER BY closed DESC, row DESC LIMIT 1)";
pub(super) const BACK_FOREIGN: &str = "
    UPDATE drops SET back = 1 WHERE row = (
        SELECT row FROM drops
        WHERE used = 0 AND back = 0 AND ending = 'failed' AND picture IS NULL AND prompts = 0
          AND recognition IS NULL AND folder = ?1 AND name = ?2
        ORDER BY closed DESC, row DESC LIMIT 1)";
pub(super) const RECOGNISE: &str = "
    SELECT row, id, ending, again FROM drops
    WHERE used = 0 AND ending IN ('failed', 'returned') AND recognition = ?1
      AND EXISTS (SELECT 1 FROM shots WHERE drop_row = row)
    ORDER BY closed DESC, row DESC LIMIT 1";
pub(super) const SEEN: &str =
    "SELECT EXISTS (SELECT 1 FROM drops WHERE used = 0 AND ending = 'failed' AND picture = ?1)";
pub(super) const WISH: &str = "
    UPDATE drops SET again = 1 WHERE row = (
        SELECT row FROM (
            SELECT row, recognition, again, closed FROM drops
            WHERE used = 0 AND ending = 'failed' AND members_print = ?1
            UNION
            SELECT row, recognition, again, closed FROM drops
            WHERE used = 0 AND ending = 'failed' AND moving_print = ?1)
        ORDER BY recognition IS NULL, again, closed DESC, row DESC LIMIT 1)";
pub(super) const FILED: &str = "
    SELECT folder, name, sent, closed FROM drops
    WHERE ending IS NOT NULL AND closed >= ?1 AND ending IN ('archived', 'failed')
      AND EXISTS (SELECT 1 FROM members WHERE drop_row = drops.row AND role = 'picture')
    ORDER BY closed, row";
pub(super) const FAILED_COUNT: &str = "SELECT count(*) FROM drops WHERE used = 0 AND back = 0 AND ending = 'failed'";
pub(super) const FAILED: &str = "
    SELECT folder, name, coalesce(reason, failure, ''), closed FROM drops
    WHERE used = 0 AND back = 0 AND ending = 'failed' ORDER BY closed DESC, row DESC LIMIT ?1";
pub(super) const OLD_DROPS: &str = "
    DELETE FROM drops WHERE row IN (
        SELECT row FROM drops WHERE ending IS NOT NULL AND closed < ?1 ORDER BY closed LIMIT ?2)";
pub(super) const OLD_SENDS: &str = "
    DELETE FROM sends WHERE row IN (
        SELECT row FROM sends WHERE at < ?1 AND NOT (boot IS ?3 AND since_boot > ?4) LIMIT ?2)";
pub(super) const OLD_UPLOADS: &str =
    "DELETE FROM uploads WHERE key IN (SELECT key FROM uploads WHERE at < ?1 LIMIT ?2)";

/// Whether a drop is made of sidecars alone.
pub(super) fn is_prompts(drop: &NewDrop) -> bool {
    !drop.members.is_empty() && drop.members.iter().all(|m| m.role == Role::Sidecar)
}

/// A drop is claimed: what it continues is used up, and a failure whose files it brings counts no more.
pub(super) fn files_came_back(tx: &Connection, drop: &NewDrop) -> Result<(), Fault> {
    if let Some(id) = drop.continues {
        tx.prepare_cached("UPDATE drops SET used = 1 WHERE id = ?1 AND used = 0")?.execute([id.0])?;
        return Ok(());
    }
    // One at most: two copies that failed are two failures until both came back. And it stays known: the
    // same files may have been dropped anew elsewhere, and what was delivered of the old is not paid again.
    let members = rows::members_print(&drop.members).map(|p| p.0);
    if tx.prepare_cached(BACK_MEMBERS)?.execute([members])? > 0 {
        return Ok(());
    }
    let folder = drop.folder.as_bytes();
    if let Some(picture) = drop.members.iter().find(|m| m.role == Role::Picture) {
        tx.prepare_cached(BACK_PICTURE)?.execute(params![picture.print.map(|p| p.0), folder])?;
    } else if is_prompts(drop) {
        tx.prepare_cached(BACK_PROMPTS)?.execute(params![folder, drop.stem.as_bytes()])?;
    } else if let Some(foreign) = drop.members.iter().find(|m| m.role == Role::Foreign) {
        // Nobody reads what is no drop, so that it is known by its name alone.
        tx.prepare_cached(BACK_FOREIGN)?.execute(params![folder, foreign.name.as_bytes()])?;
    }
    Ok(())
}

pub(super) fn recognise(tx: &Connection, recognition: Fingerprint) -> Result<Option<Known>, Fault> {
    let found: Option<(i64, [u8; 16], String, bool)> = tx
        .prepare_cached(RECOGNISE)?
        .query_row([recognition.0], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?)))
        .optional()?;
    let Some((row, id, ending, again)) = found else { return Ok(None) };
    let mut notes = tx.prepare_cached("SELECT path, print FROM notes WHERE drop_row = ?1 ORDER BY path")?;
    let notes = notes.query_map([row], |r| Ok((rows::path(r, 0)?, Fingerprint(r.get(1)?))))?;
    Ok(Some(Known {
        id: DropId(id),
        ending: rows::ending(&ending)?,
        shots: rows::shots(tx, row)?,
        notes: notes.collect::<Result<_, _>>()?,
        again,
    }))
}

/// What a drop may be known again by.
pub(super) fn known_by(tx: &Connection, id: DropId) -> Result<Vec<Fingerprint>, Fault> {
    let prints = tx
        .prepare_cached("SELECT recognition, picture FROM drops WHERE id = ?1")?
        .query_row([id.0], |r| Ok([r.get::<_, Option<[u8; 32]>>(0)?, r.get(1)?]))
        .optional()?;
    Ok(prints.into_iter().flatten().flatten().map(Fingerprint).collect())
}

/// The same of all that [`recognise`] and [`seen_picture`] may find.
pub(super) fn all_that_return(conn: &Connection) -> Result<Vec<Fingerprint>, Fault> {
    let mut all = conn.prepare(
        "SELECT recognition FROM drops WHERE used = 0 AND ending IN ('failed', 'returned') AND recognition IS NOT NULL
         UNION ALL SELECT picture FROM drops WHERE used = 0 AND ending = 'failed' AND picture IS NOT NULL",
    )?;
    let prints = all.query_map([], |r| Ok(Fingerprint(r.get(0)?)))?;
    Ok(prints.collect::<Result<_, _>>()?)
}

pub(super) fn seen_picture(tx: &Connection, picture: Fingerprint) -> Result<bool, Fault> {
    Ok(tx.prepare_cached(SEEN)?.query_row([picture.0], |r| r.get(0))?)
}

pub(super) fn noted(tx: &Connection, id: DropId, path: &Path, print: Fingerprint) -> Result<(), Fault> {
    let Some((row, _)) = row_of(tx, id)? else {
        return Err(Fault::Misused(format!("there is no drop {id}")));
    };
    tx.prepare_cached("INSERT OR REPLACE INTO notes (path, drop_row, print) VALUES (?1, ?2, ?3)")?.execute(params![
        path.as_os_str().as_bytes(),
        row,
        print.0
    ])?;
    Ok(())
}

pub(super) fn note_at(tx: &Connection, path: &Path) -> Result<Option<Fingerprint>, Fault> {
    let mut note = tx.prepare_cached("SELECT print FROM notes WHERE path = ?1")?;
    Ok(note.query_row([path.as_os_str().as_bytes()], |r| r.get(0)).optional()?.map(Fingerprint))
}

pub(super) fn note_left_at(
    tx: &Connection,
    path: &Path,
    picture: Option<Fingerprint>,
) -> Result<Option<Fingerprint>, Fault> {
    let mut note = tx.prepare_cached(
        "SELECT print FROM notes JOIN drops ON drops.row = notes.drop_row
         WHERE path = ?1 AND ending IS NOT NULL AND (picture IS NULL OR picture IS ?2)",
    )?;
    let found = note.query_row(params![path.as_os_str().as_bytes(), picture.map(|print| print.0)], |r| r.get(0));
    Ok(found.optional()?.map(Fingerprint))
}

pub(super) fn is_our_note(tx: &Connection, print: Fingerprint) -> Result<bool, Fault> {
    let mut note = tx.prepare_cached("SELECT EXISTS (SELECT 1 FROM notes WHERE print = ?1)")?;
    Ok(note.query_row([print.0], |r| r.get(0))?)
}

pub(super) fn wish_again(tx: &Connection, members: &[Fingerprint]) -> Result<bool, Fault> {
    let print = print_of(members.iter().copied().map(Some)).map(|p| p.0);
    Ok(tx.prepare_cached(WISH)?.execute([print])? > 0)
}

pub(super) fn filed_since(tx: &Connection, since: Timestamp) -> Result<Vec<Filed>, Fault> {
    let mut found = tx.prepare_cached(FILED)?;
    let mut rows = found.query([since.as_millisecond()])?;
    let mut filed = Vec::new();
    while let Some(row) = rows.next()? {
        filed.push(Filed {
            folder: steps::folder(row, 0)?,
            name: rows::name(row, 1)?,
            sent: row.get::<_, Option<i64>>(2)?.map(rows::instant).transpose()?,
            filed: rows::instant(row.get(3)?)?,
        });
    }
    Ok(filed)
}

pub(super) fn failures(tx: &Connection, most: u32) -> Result<(u64, Vec<Failure>), Fault> {
    let count: i64 = tx.prepare_cached(FAILED_COUNT)?.query_row([], |r| r.get(0))?;
    let mut found = tx.prepare_cached(FAILED)?;
    let mut rows = found.query([most])?;
    let mut failures = Vec::new();
    while let Some(row) = rows.next()? {
        let place = Place { folder: steps::folder(row, 0)?, name: rows::name(row, 1)? };
        failures.push(Failure { label: place.to_string(), reason: row.get(2)?, at: rows::instant(row.get(3)?)? });
    }
    Ok((count.unsigned_abs(), failures))
}

pub(super) fn upload_of(
    tx: &Connection,
    key: Fingerprint,
    within: Duration,
    now: Timestamp,
) -> Result<Option<String>, Fault> {
    // One from the future is of unknown age: to upload again costs nothing.
    let mut upload = tx.prepare_cached("SELECT url FROM uploads WHERE key = ?1 AND at BETWEEN ?2 AND ?3")?;
    let now = now.as_millisecond();
    Ok(upload.query_row(params![key.0, now.saturating_sub(span(within)), now], |r| r.get(0)).optional()?)
}

pub(super) fn uploaded(tx: &Connection, key: Fingerprint, url: &str, now: Timestamp) -> Result<(), Fault> {
    tx.prepare_cached("INSERT OR REPLACE INTO uploads (key, url, at) VALUES (?1, ?2, ?3)")?.execute(params![
        key.0,
        url,
        now.as_millisecond()
    ])?;
    Ok(())
}

pub(super) fn forget_upload(tx: &Connection, key: Fingerprint) -> Result<(), Fault> {
    tx.prepare_cached("DELETE FROM uploads WHERE key = ?1")?.execute([key.0])?;
    Ok(())
}

pub(super) fn tidy(tx: &Connection, keep: Duration, now: Timestamp) -> Result<bool, Fault> {
    let now = now.as_millisecond();
    let keep = span(keep);
    let drops = tx.prepare_cached(OLD_DROPS)?.execute(params![now.saturating_sub(keep), DROPS_AT_ONCE])?;
    let mut sends = 0;
    // The last day of the newest boot stays, by that boot's own clock: if the wall clock was just set far
    // ahead, those sends still count against the limits.
    let newest: Option<(String, i64)> = tx
        .prepare_cached("SELECT boot, since_boot FROM sends ORDER BY row DESC LIMIT 1")?
        .query_row([], |r| Ok((r.get(0)?, r.get(1)?)))
        .optional()?;
    if let Some((boot, since)) = newest {
        let boot = Some(boot).filter(|boot| !boot.is_empty());
        sends = tx.prepare_cached(OLD_SENDS)?.execute(params![
            now.saturating_sub(keep.max(money::DAY)),
            ROWS_AT_ONCE,
            boot,
            since.saturating_sub(money::DAY)
        ])?;
    }
    let uploads = tx.prepare_cached(OLD_UPLOADS)?.execute(params![now.saturating_sub(span(UPLOADS)), ROWS_AT_ONCE])?;
    let free: u32 = tx.query_row("PRAGMA freelist_count", [], |r| r.get(0))?;
    let rows = ROWS_AT_ONCE as usize;
    Ok(drops >= DROPS_AT_ONCE as usize || sends >= rows || uploads >= rows || free > PAGES_AT_ONCE)
}

/// Gives room that is free inside the file back to the filesystem.
pub(super) fn shrink(conn: &Connection) -> Result<(), Fault> {
    // Each row that it gives (there is nothing in them) is a page: it stops where one stops asking.
    let mut pages = conn.prepare(&format!("PRAGMA incremental_vacuum({PAGES_AT_ONCE})"))?;
    let mut rows = pages.query([])?;
    while rows.next()?.is_some() {}
    Ok(())
}
