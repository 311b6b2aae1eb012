//! The steps of drops and shots, from the claim to the close.

use std::os::unix::ffi::OsStrExt as _;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::rows::{self, open_row};
use super::{Fault, history, money};
use crate::domain::ids::{DropId, RelPath, ShotNo};
use crate::domain::life::{Shot, ShotEvent, ShotState};
use crate::domain::verdict::Billed;
use crate::ledger::{Ending, Filing, Limits, Moment, NewDrop, OpenDrop, Role, Sent};

pub(super) const OPEN: &str = "
    SELECT row, id, folder, stem, working, recognition, plan, failure, continues, claimed, number, filing
    FROM drops WHERE ending IS NULL ORDER BY row";

pub(super) fn open_drops(tx: &Connection) -> Result<Vec<OpenDrop>, Fault> {
    let mut found = tx.prepare_cached(OPEN)?;
    let mut rows = found.query([])?;
    let mut drops = Vec::new();
    while let Some(row) = rows.next()? {
        drops.push(open_drop(tx, row)?);
    }
    Ok(drops)
}

fn open_drop(tx: &Connection, row: &Row<'_>) -> Result<OpenDrop, Fault> {
    let drop_row = row.get(0)?;
    let filing = row.get::<_, Option<String>>(11)?.map(|text| rows::from_json::<Filing>(&text)).transpose()?;
    Ok(OpenDrop {
        drop: NewDrop {
            id: DropId(row.get(1)?),
            folder: folder(row, 2)?,
            stem: rows::name(row, 3)?,
            members: rows::members(tx, drop_row)?,
            working: rows::path(row, 4)?,
            recognition: rows::print(row, 5)?,
            plan: row.get(6)?,
            shots: rows::shots(tx, drop_row)?,
            failure: row.get(7)?,
            continues: row.get::<_, Option<_>>(8)?.map(DropId),
        },
        claimed: rows::instant(row.get(9)?)?,
        number: row.get(10)?,
        filing,
    })
}

pub(super) fn folder(row: &Row<'_>, at: usize) -> Result<RelPath, Fault> {
    let bytes = row.get_ref(at)?.as_blob().map_err(rusqlite::Error::from)?;
    RelPath::from_bytes(bytes).ok_or_else(|| Fault::Damaged("a folder leads out of the inbox".into()))
}

pub(super) fn begin(
    tx: &Connection,
    drop: &NewDrop,
    first: Option<ShotNo>,
    limits: Limits,
    now: &Moment,
    may_be_back: bool,
) -> Result<Sent, Fault> {
    let mut shots = drop.shots.clone();
    if let Some(no) = first {
        let shot = shots.iter_mut().find(|shot| shot.no == no);
        let shot = shot.ok_or_else(|| Fault::Misused(format!("the drop {} has no shot {}", drop.id, no.0)))?;
        *shot = shot.apply(ShotEvent::Send { at: now.wall }).map_err(|e| Fault::Misused(e.to_string()))?;
        if let limited @ Sent::Limited { .. } = money::fits(tx, limits, now)? {
            return Ok(limited);
        }
    }
    if may_be_back || drop.continues.is_some() {
        history::files_came_back(tx, drop)?;
    }
    let row = insert(tx, drop, first.is_some(), now)?;
    for shot in &shots {
        tx.prepare_cached("INSERT INTO shots (drop_row, no, shot) VALUES (?1, ?2, ?3)")?.execute(params![
            row,
            shot.no.0,
            rows::json(shot)?
        ])?;
    }
    if let Some(no) = first {
        money::record(tx, drop.id, no, now)?;
    }
    Ok(Sent::Committed)
}

/// The rows of the drop and of its members; the number of the former.
fn insert(tx: &Connection, drop: &NewDrop, sent: bool, now: &Moment) -> Result<i64, Fault> {
    let picture = drop.members.iter().find(|m| m.role == Role::Picture);
    let named = picture.or_else(|| drop.members.first()).map_or(&drop.stem, |m| &m.name);
    let claimed = now.wall.as_millisecond();
    tx.prepare_cached(
        "INSERT INTO drops (id, folder, stem, name, working, recognition, picture, members_print, moving_print,
                            prompts, plan, failure, continues, claimed, sent)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)",
    )?
    .execute(params![
        drop.id.0,
        drop.folder.as_bytes(),
        drop.stem.as_bytes(),
        named.as_bytes(),
        drop.working.as_os_str().as_bytes(),
        drop.recognition.map(|p| p.0),
        picture.and_then(|m| m.print).map(|p| p.0),
        rows::members_print(&drop.members).map(|p| p.0),
        rows::moving_print(&drop.members).map(|p| p.0),
        history::is_prompts(drop),
        drop.plan,
        drop.failure,
        drop.continues.map(|id| id.0),
        claimed,
        sent.then_some(claimed),
    ])?;
    let row = tx.last_insert_rowid();
    for (place, member) in drop.members.iter().enumerate() {
        tx.prepare_cached(
            "INSERT INTO members (drop_row, place, name, role, print, size, moves) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute(params![
            row,
            i64::try_from(place).unwrap_or(i64::MAX),
            member.name.as_bytes(),
            rows::role_word(member.role),
            member.print.map(|p| p.0),
            i64::try_from(member.size).unwrap_or(i64::MAX),
            member.moves,
        ])?;
    }
    Ok(row)
}

pub(super) fn send(tx: &Connection, id: DropId, shot: &Shot, limits: Limits, now: &Moment) -> Result<Sent, Fault> {
    let row = open_row(tx, id)?;
    let was = stored(tx, row, id, shot.no)?;
    // Money: whatever the caller believes, only what is surely not being sent may be sent.
    if !matches!(was.state, ShotState::Due { .. }) || !matches!(shot.state, ShotState::Sending { .. }) {
        let what = format!("a shot of {id} that is {} cannot be sent to be {}", was.state.word(), shot.state.word());
        return Err(Fault::Misused(what));
    }
    if let limited @ Sent::Limited { .. } = money::fits(tx, limits, now)? {
        return Ok(limited);
    }
    store(tx, row, shot)?;
    money::record(tx, id, shot.no, now)?;
    tx.prepare_cached("UPDATE drops SET sent = coalesce(sent, ?2) WHERE row = ?1")?
        .execute(params![row, now.wall.as_millisecond()])?;
    Ok(Sent::Committed)
}

pub(super) fn step(tx: &Connection, id: DropId, shot: &Shot, billed: Billed) -> Result<(), Fault> {
    let row = open_row(tx, id)?;
    let was = stored(tx, row, id, shot.no)?;
    let sending = |shot: &Shot| matches!(shot.state, ShotState::Sending { .. });
    if sending(shot) && !sending(&was) {
        return Err(Fault::Misused(format!(
            "a shot of {id} that is {} is sent without being counted",
            was.state.word()
        )));
    }
    // Money: what comes late from an earlier send says nothing of this one.
    if sending(&was) && was.last_sent != shot.last_sent {
        return Err(Fault::Misused(format!("a step of an earlier send of a shot of {id} comes too late")));
    }
    store(tx, row, shot)?;
    // A send that was lost was not proven to be free, whatever state the shot is in now.
    let lost = shot.unconfirmed > was.unconfirmed;
    let billed = if lost && billed == Billed::No { Billed::Unknown } else { billed };
    // As long as it is being sent, nothing is known.
    if !sending(shot) {
        money::judge(tx, id, shot.no, billed, shot.receipt.cost)?;
    }
    Ok(())
}

/// The shot as it stands.
fn stored(tx: &Connection, drop_row: i64, id: DropId, no: ShotNo) -> Result<Shot, Fault> {
    let text: Option<String> = tx
        .prepare_cached("SELECT shot FROM shots WHERE drop_row = ?1 AND no = ?2")?
        .query_row(params![drop_row, no.0], |r| r.get(0))
        .optional()?;
    let text = text.ok_or_else(|| Fault::Misused(format!("the drop {id} has no shot {}", no.0)))?;
    rows::from_json(&text)
}

fn store(tx: &Connection, drop_row: i64, shot: &Shot) -> Result<(), Fault> {
    tx.prepare_cached("UPDATE shots SET shot = ?3 WHERE drop_row = ?1 AND no = ?2")?.execute(params![
        drop_row,
        shot.no.0,
        rows::json(shot)?
    ])?;
    Ok(())
}

pub(super) fn number(tx: &Connection, id: DropId, number: u32) -> Result<(), Fault> {
    let row = open_row(tx, id)?;
    tx.prepare_cached("UPDATE drops SET number = ?2 WHERE row = ?1")?.execute(params![row, number])?;
    Ok(())
}

pub(super) fn replan(tx: &Connection, id: DropId, plan: &str) -> Result<(), Fault> {
    let row = open_row(tx, id)?;
    tx.prepare_cached("UPDATE drops SET plan = ?2 WHERE row = ?1")?.execute(params![row, plan])?;
    Ok(())
}

pub(super) fn file_under(tx: &Connection, id: DropId, filing: &Filing) -> Result<(), Fault> {
    let row = open_row(tx, id)?;
    tx.prepare_cached("UPDATE drops SET filing = ?2 WHERE row = ?1")?.execute(params![row, rows::json(filing)?])?;
    Ok(())
}

pub(super) fn close(
    tx: &Connection,
    id: DropId,
    ending: Ending,
    reason: Option<&str>,
    now: Timestamp,
) -> Result<(), Fault> {
    let row = open_row(tx, id)?;
    // Of the plan nothing is read any more but how many shots it was at first; it is the biggest thing kept, and holds
    // asset URLs.
    tx.prepare_cached(
        "UPDATE drops SET ending = ?2, closed = ?3, reason = ?4,
            plan = CASE WHEN json_valid(plan) THEN json_object('shots', plan ->> 'shots') ELSE '' END
         WHERE row = ?1",
    )?
    .execute(params![row, rows::ending_word(ending), now.as_millisecond(), reason])?;
    Ok(())
}
