//! What the database looks like, and how an older one becomes like it.
//!
//! Migrations are only ever added at the end, never changed; the database holds how many it has seen.

use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior};

use super::Fault;

/// "rmgl": tells our databases from others'.
pub(super) const APPLICATION: i64 = 0x726d_676c;

/// Each is run once, in this order. The number of those that ran is the schema's version.
const MIGRATIONS: &[&str] = &[
    // 1. Moments are milliseconds since 1970. `members_print` and `moving_print` stand for a drop's files,
    //    whatever their names and order; `prompts` says that it has sidecars only. `used`: another drop
    //    continues it. `back`: its files came back with a drop that does not. Sends outlive their drops, and drops their sends, so nothing ties them.
    "
    CREATE TABLE drops (
        row INTEGER PRIMARY KEY,
        id BLOB NOT NULL UNIQUE,
        folder BLOB NOT NULL,
        stem BLOB NOT NULL,
        name BLOB NOT NULL,
        working BLOB NOT NULL,
        recognition BLOB,
        picture BLOB,
        members_print BLOB,
        moving_print BLOB,
        prompts INTEGER NOT NULL,
        plan TEXT NOT NULL,
        failure TEXT,
        continues BLOB,
        claimed INTEGER NOT NULL,
        number INTEGER,
        filing TEXT,
        ending TEXT,
        closed INTEGER,
        reason TEXT,
        sent INTEGER,
        used INTEGER NOT NULL DEFAULT 0,
        back INTEGER NOT NULL DEFAULT 0,
        again INTEGER NOT NULL DEFAULT 0,
        CHECK ((ending IS NULL) = (closed IS NULL))
    ) STRICT;
    CREATE INDEX drops_open ON drops (row) WHERE ending IS NULL;
    CREATE INDEX drops_closed ON drops (closed) WHERE ending IS NOT NULL;
    CREATE INDEX drops_recognition ON drops (recognition, closed)
        WHERE used = 0 AND ending IN ('failed', 'returned');
    CREATE INDEX drops_failed ON drops (closed) WHERE used = 0 AND back = 0 AND ending = 'failed';
    CREATE INDEX drops_members ON drops (members_print) WHERE used = 0 AND ending = 'failed';
    CREATE INDEX drops_moving ON drops (moving_print) WHERE used = 0 AND ending = 'failed';
    CREATE INDEX drops_picture ON drops (picture) WHERE used = 0 AND ending = 'failed';
    CREATE INDEX drops_prompts ON drops (folder, stem)
        WHERE used = 0 AND ending = 'failed' AND prompts = 1;

    CREATE TABLE members (
        drop_row INTEGER NOT NULL REFERENCES drops (row) ON DELETE CASCADE,
        place INTEGER NOT NULL,
        name BLOB NOT NULL,
        role TEXT NOT NULL,
        print BLOB,
        size INTEGER NOT NULL,
        moves INTEGER NOT NULL,
        PRIMARY KEY (drop_row, place)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE shots (
        drop_row INTEGER NOT NULL REFERENCES drops (row) ON DELETE CASCADE,
        no INTEGER NOT NULL,
        shot TEXT NOT NULL,
        PRIMARY KEY (drop_row, no)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE notes (
        path BLOB PRIMARY KEY,
        drop_row INTEGER NOT NULL REFERENCES drops (row) ON DELETE CASCADE,
        print BLOB NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX notes_drop ON notes (drop_row);
    CREATE INDEX notes_print ON notes (print);

    CREATE TABLE sends (
        row INTEGER PRIMARY KEY,
        id BLOB NOT NULL,
        shot INTEGER NOT NULL,
        at INTEGER NOT NULL,
        boot TEXT NOT NULL,
        since_boot INTEGER NOT NULL,
        billed TEXT NOT NULL,
        cost REAL
    ) STRICT;
    CREATE INDEX sends_shot ON sends (id, shot);
    CREATE INDEX sends_boot ON sends (boot, since_boot, billed, cost);
    CREATE INDEX sends_at ON sends (at, boot, billed, cost);
    CREATE INDEX sends_priced ON sends (row) WHERE cost IS NOT NULL;

    CREATE TABLE uploads (key BLOB PRIMARY KEY, url TEXT NOT NULL, at INTEGER NOT NULL) STRICT, WITHOUT ROWID;
    CREATE INDEX uploads_at ON uploads (at);

    -- Its one row says that what lay in working/ when this database was made is dealt with.
    CREATE TABLE trusted (one INTEGER PRIMARY KEY CHECK (one = 1)) STRICT;
    ",
    // 2. Its one row holds how many sends were ever committed, see ground.rs.
    "
    CREATE TABLE counted (one INTEGER PRIMARY KEY CHECK (one = 1), sends INTEGER NOT NULL) STRICT;
    INSERT INTO counted VALUES (1, 0);
    ",
];

/// The newest schema known here.
#[expect(clippy::cast_possible_wrap, reason = "a handful of migrations")]
pub(super) const KNOWN: i64 = MIGRATIONS.len() as i64;

const TABLES: &[&str] = &["counted", "drops", "members", "notes", "sends", "shots", "trusted", "uploads"];

/// Whether the database is ours, and of a version that is known here. An empty one is.
pub(super) fn recognise(conn: &Connection) -> Result<(), Fault> {
    let application = pragma(conn, "application_id")?;
    let version = pragma(conn, "user_version")?;
    if application == 0 && version == 0 {
        let objects: i64 = conn.query_row("SELECT count(*) FROM sqlite_schema", [], |r| r.get(0))?;
        if objects == 0 {
            return Ok(());
        }
    }
    judge(application, version)
}

/// The same of the two numbers alone.
pub(super) fn judge(application: i64, version: i64) -> Result<(), Fault> {
    if application != APPLICATION {
        Err(Fault::Damaged("this is another program's database".into()))
    } else if version > KNOWN {
        Err(Fault::Newer(version))
    } else if version < 0 {
        Err(Fault::Damaged(format!("its schema is said to be {version}")))
    } else {
        Ok(())
    }
}

/// Looks at every page, and whether each index says what its table says: an open drop that is missing in an
/// index would be no open drop, and its files would be sent again. `Ok` means a sound database, as far as
/// `SQLite` can tell. A few seconds for a history of 200,000 drops.
pub(super) fn check(conn: &Connection) -> Result<(), Fault> {
    let found: String = conn.query_row("PRAGMA integrity_check(1)", [], |r| r.get(0))?;
    if found == "ok" { Ok(()) } else { Err(Fault::Damaged(found)) }
}

/// Brings the schema up to date, in one transaction that holds the database alone.
pub(super) fn migrate(conn: &mut Connection) -> Result<(), Fault> {
    if pragma(conn, "user_version")? != KNOWN {
        let tx = conn.transaction_with_behavior(TransactionBehavior::Exclusive)?;
        // Read again: another program may have done it while this one waited.
        let version = pragma(&tx, "user_version")?;
        if version > KNOWN {
            return Err(Fault::Newer(version));
        }
        for migration in MIGRATIONS.iter().skip(usize::try_from(version).unwrap_or_default()) {
            tx.execute_batch(migration)?;
        }
        tx.pragma_update(None, "application_id", APPLICATION)?;
        tx.pragma_update(None, "user_version", KNOWN)?;
        tx.commit()?;
    }
    let mut names = conn.prepare("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")?;
    let names = names.query_map([], |r| r.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()?;
    match TABLES.iter().find(|table| !names.iter().any(|name| name == *table)) {
        Some(table) => Err(Fault::Damaged(format!("the table {table} is missing"))),
        None => Ok(()),
    }
}

/// A pragma that is a number.
pub(super) fn pragma(conn: &Connection, name: &str) -> Result<i64, Fault> {
    Ok(conn.pragma_query_value(None, name, |r| r.get(0))?)
}

pub(super) fn is_fresh(tx: &Connection) -> Result<bool, Fault> {
    Ok(tx.query_row("SELECT 1 FROM trusted", [], |_| Ok(())).optional()?.is_none())
}

/// As if it were made just now, as far as `working/` goes. What the log held until now is put into the database,
/// so that the same doubt does not come twice.
pub(super) fn distrust(conn: &Connection) -> Result<(), Fault> {
    conn.execute("DELETE FROM trusted", [])?;
    conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    Ok(())
}

/// What a crash left of a commit stays behind those that follow it, and with what a second crash leaves it would look as
/// if two were missing. So the log is emptied into the database, as [`distrust`] does; where a full disk or another
/// program is in the way of that, it stays as it is.
pub(super) fn empty_log(conn: &Connection) {
    let busy = conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |r| r.get::<_, bool>(0));
    if !matches!(busy, Ok(false)) {
        tracing::debug!(?busy, "what a crash left in the ledger's log stays there");
    }
}

pub(super) fn trust(tx: &Connection) -> Result<(), Fault> {
    tx.execute("INSERT OR IGNORE INTO trusted VALUES (1)", [])?;
    Ok(())
}
