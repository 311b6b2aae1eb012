//! How the database is found, made, checked, and put aside.

use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::ground::{self, COUNT, Ground};
use super::log::{self, End};
use super::{Fault, SqliteLedger, schema, steps};
use crate::ledger::LedgerError;

/// The log that lies beside the database holds commits that are not in it yet.
pub(super) const LOG: &str = "-wal";

/// The database's mark that it is written through a log.
const WITH_LOG: u8 = 2;

pub(super) fn open(path: &Path, busy: Duration) -> Result<SqliteLedger, LedgerError> {
    prepare(path, busy).map_err(|fault| fault.at(path))
}

fn prepare(path: &Path, busy: Duration) -> Result<SqliteLedger, Fault> {
    let real = real(path)?;
    let dir = real.parent().unwrap_or(Path::new("/"));
    let mut doubt = None;
    // First, so that what another program commits meanwhile is not missed.
    let noted = ground::noted(&real);
    match std::fs::symlink_metadata(&real) {
        Ok(meta) if !meta.is_file() => {
            return Err(io::Error::new(ErrorKind::InvalidInput, "not a regular file").into());
        }
        Ok(meta) if meta.len() > 0 => doubt = look(&real)?,
        // SQLite would quietly throw the log away here, and with it what was committed last.
        _ if has_log(&real)? => return Err(Fault::Damaged("the database is empty, but its log is not".into())),
        Ok(_) => {}
        Err(e) if e.kind() == ErrorKind::NotFound => create(&real, dir)?,
        Err(e) => return Err(e.into()),
    }
    let mut conn = connect(&real, busy)?;
    schema::recognise(&conn)?;
    schema::check(&conn)?;
    let torn = log_end(&mut conn, &real)? == End::Torn;
    if torn {
        doubt = Some("the last commit in its log is broken");
    }
    match ground::lost(&conn, noted)? {
        // A kill in the midst of a commit: nothing that was sent is missing.
        Some(0) => doubt = None,
        Some(lost) if doubt.is_none() => return Err(ground::damage(lost)),
        // A power cut leaves an older note, or none.
        _ => {}
    }
    settle(&conn)?;
    schema::migrate(&mut conn)?;
    // What makes no sense only when it is worked on would stop every start anew.
    steps::open_drops(&*conn.transaction()?)?;
    if let Some(why) = doubt {
        schema::distrust(&conn)?;
        tracing::error!(ledger = %real.display(), "the ledger's last words may be missing ({why}): what lies in working and is not surely sent or unsent goes to errors as unconfirmed");
    } else if torn {
        schema::empty_log(&conn);
    }
    let ground = Ground::of(&real, &conn)?;
    // From here on it is ours and sound: what is closed cleanly leaves no log behind.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
    restrict(&real);
    File::open(dir)?.sync_all()?;
    let returning = std::sync::Arc::<super::Returning>::default();
    returning.note(super::history::all_that_return(&conn)?);
    Ok(SqliteLedger {
        conn,
        path: path.to_path_buf(),
        ground,
        commits: super::Commits::default(),
        returning,
        shared: None,
    })
}

/// `path` with every symlink of its folder resolved: `SQLite` then follows none at all. It is absolute, so that
/// it cannot be taken for a URI either.
pub(super) fn real(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or_else(|| io::Error::new(ErrorKind::InvalidInput, "no file name"))?;
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    Ok(dir.canonicalize()?.join(name))
}

/// An empty file that is the owner's alone, so that the database never has another mode.
fn create(real: &Path, dir: &Path) -> io::Result<()> {
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(real);
    match made {
        Ok(_) => File::open(dir)?.sync_all(),
        // Another program was faster, or it is a link, which SQLite refuses.
        Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(e) => Err(e),
    }
}

/// Refuses a database of a newer version or another program by its first bytes, so that `SQLite` need not
/// touch it. Only where no log is: a log may hold a newer first page. (And where one is, this program may
/// have the database open elsewhere, whose locks would go with this file handle.) Gives the doubt where a log
/// should be and is not.
fn look(real: &Path) -> Result<Option<&'static str>, Fault> {
    if has_log(real)? {
        return Ok(None);
    }
    let mut head = [0_u8; 100];
    if let Err(e) = File::open(real)?.read_exact(&mut head) {
        return match e.kind() {
            ErrorKind::UnexpectedEof => Err(Fault::Damaged("the file is cut off in its first bytes".into())),
            _ => Err(e.into()),
        };
    }
    if !head.starts_with(b"SQLite format 3\0") {
        return Err(Fault::Damaged("this is no database".into()));
    }
    let number = |at: usize| i64::from(i32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]));
    let (version, application) = (number(60), number(68));
    // Both are 0 where the program stopped while it made the database.
    if version != 0 || application != 0 {
        schema::judge(application, version)?;
    }
    // [`close`] takes this mark away: it was a crash, or a copy, and what came last stood in the log.
    // The first version did not, so one that it left says nothing.
    let gone = head[18] == WITH_LOG && version != 1;
    Ok(gone.then_some("it was not closed, and its log is gone"))
}

/// How the log ends. While the database is taken nobody else writes to it.
fn log_end(conn: &mut Connection, real: &Path) -> Result<End, Fault> {
    if !has_log(real)? {
        return Ok(End::Whole);
    }
    let taken = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let end = log::end(io::BufReader::with_capacity(1 << 16, File::open(beside(real, LOG))?))?;
    taken.rollback()?;
    match end {
        End::Damaged(why) => Err(Fault::Damaged(why.into())),
        end => Ok(end),
    }
}

/// The last one to close a sound database leaves it without a log, and marked as such.
pub(super) fn close(conn: &Connection) {
    // Not while somebody else has it: then they do.
    let _ = conn.busy_timeout(Duration::ZERO);
    let _ = conn.pragma_update(None, "journal_mode", "DELETE");
}

fn connect(real: &Path, busy: Duration) -> Result<Connection, Fault> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let conn = Connection::open_with_flags(real, flags)?;
    conn.busy_timeout(busy)?;
    // While it is looked at, nothing of it may change, not even by closing it.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    // Else a statement is parsed and planned again for each value of some kinds that it is bound to.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    // Small: the daemon runs for months on small machines, and reads little.
    conn.pragma_update(None, "cache_size", -512)?;
    conn.pragma_update(None, "mmap_size", 0)?;
    // What a step may have to be undone with would else be written to a file of /var/tmp: work for nothing, and a full
    // disk there would stop a ledger whose own has room.
    conn.pragma_update(None, "temp_store", "MEMORY")?;
    conn.set_prepared_statement_cache_capacity(96);
    Ok(conn)
}

/// How it writes. The order matters: what a new database is made with comes first.
fn settle(conn: &Connection) -> Result<(), Fault> {
    conn.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    let mode: String = conn.pragma_update_and_check(None, "journal_mode", "WAL", |r| r.get(0))?;
    if mode != "wal" {
        let why = format!("no write-ahead log is possible on this filesystem (journal mode {mode})");
        return Err(io::Error::new(ErrorKind::Unsupported, why).into());
    }
    conn.pragma_update(None, "synchronous", "FULL")?;
    conn.pragma_update(None, "foreign_keys", true)?;
    conn.pragma_update(None, "wal_autocheckpoint", 1_000)?;
    conn.pragma_update(None, "journal_size_limit", 4 << 20)?;
    Ok(())
}

/// One that was copied back from a backup may be everybody's to read. Where it is another user's it stays so:
/// its mode is then theirs to choose.
fn restrict(real: &Path) {
    for file in [real.to_path_buf(), beside(real, LOG), beside(real, "-shm"), beside(real, COUNT)] {
        let open = std::fs::symlink_metadata(&file).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o077 != 0);
        if open {
            let _ = std::fs::set_permissions(&file, Permissions::from_mode(0o600));
        }
    }
}

/// Whether commits lie in a log beside it.
fn has_log(real: &Path) -> io::Result<bool> {
    match std::fs::symlink_metadata(beside(real, LOG)) {
        Ok(meta) => Ok(meta.len() > 0),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}

pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(suffix);
    name.into()
}

pub(super) fn set_aside(path: &Path, now: Timestamp) -> io::Result<Option<PathBuf>> {
    // The database first: alone, a log is found damaged again; alone, a database looks good without the
    // commits that its log held.
    const PARTS: [&str; 5] = ["", LOG, "-shm", "-journal", COUNT];
    let named = |e: io::Error, path: &Path| io::Error::new(e.kind(), format!("{}: {e}", path.display()));
    let exists = |path: &Path| match std::fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
        Err(e) => Err(named(e, path)),
    };
    let mut parts = Vec::new();
    for part in PARTS {
        if exists(&beside(path, part))? {
            parts.push(part);
        }
    }
    if parts.is_empty() {
        return Ok(None);
    }
    let stamp = now.strftime("%Y%m%dT%H%M%SZ").to_string();
    let mut tries = 1_u32;
    let target = loop {
        let counter = if tries == 1 { String::new() } else { format!("-{tries}") };
        let mut name = OsString::from(path.file_name().unwrap_or(OsStr::new("ledger.db")));
        name.push(format!(".damaged-{stamp}{counter}"));
        let target = path.with_file_name(name);
        let mut taken = false;
        for part in PARTS {
            taken |= exists(&beside(&target, part))?;
        }
        if !taken {
            break target;
        }
        tries += 1;
    };
    for part in parts {
        let from = beside(path, part);
        rename_new(&from, &beside(&target, part)).map_err(|e| named(e, &from))?;
    }
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(|e| named(e, dir))?;
    Ok(Some(target))
}

/// Renames without replacing, also where the filesystem has no such rename.
fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
            std::fs::hard_link(from, to)?;
            std::fs::remove_file(from)
        }
        done => Ok(done?),
    }
}
