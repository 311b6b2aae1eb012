//! The ledger's file while others do things to it: locked, moved, replaced, cut off, garbled. Whatever happens to
//! it, nothing that may have been sent is sent again.

#![allow(clippy::unwrap_used, reason = "tests say so by failing")]

use crate::support;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use rusqlite::{Connection, TransactionBehavior};
use support::{Daemon, Gate, Site};

/// Drops a picture with this prompt, as `PROMPT.jpg`.
fn put(site: &Site, prompt: &str) {
    site.put(format!("inbox/{prompt}.txt"), prompt);
    site.put_picture(format!("inbox/{prompt}.jpg"));
}

/// A daemon that waits for the answer to a drop with the prompt `held`.
fn held(site: &Site) -> (Daemon, Gate) {
    let gate = Gate::default();
    let opens = gate.clone();
    site.api.on_model(move |call| if call.prompt == "held" { call.good().after(&opens) } else { call.good() });
    let daemon = site.run();
    put(site, "first");
    site.wait_archived("first.jpg");
    site.wait("its row is closed", || site.logs().contains("done, original in the archive"));
    put(site, "held");
    site.wait("it is sent", || site.api.calls_with("held") == 1);
    site.wait_for("working/held.jpg");
    (daemon, gate)
}

/// Each prompt was sent once, and all is archived.
fn all_is_well(site: &Site, daemon: Daemon, prompts: &[&str]) {
    for prompt in prompts {
        site.wait_archived(&format!("{prompt}.jpg"));
        assert_eq!(site.api.calls_with(prompt), 1, "{prompt}\n{}", site.describe());
        assert!(site.has(format!("outbox/{prompt}.png")), "{}", site.describe());
    }
    site.wait_running();
    assert!(site.is_empty() && site.names("errors").is_empty(), "{}", site.describe());
    assert_eq!(daemon.stop(), 0);
    let lines = site.logs().lines().count();
    assert!(lines < 100, "{lines} lines:\n{}", site.logs());
}

fn lock(connection: &mut Connection) -> rusqlite::Transaction<'_> {
    connection.transaction_with_behavior(TransactionBehavior::Immediate).unwrap()
}

#[test]
fn a_ledger_that_another_program_has_locked_pauses_until_it_lets_go() {
    let site = Site::new();
    let (daemon, gate) = held(&site);
    let mut other = Connection::open(site.path("state/ledger.db")).unwrap();
    let locked = lock(&mut other);
    // The answer comes meanwhile: it is kept, and nothing new is sent.
    gate.open();
    site.wait_paused(&["ledger.db", "locked by another program"]);
    put(&site, "then");
    site.wait("it is seen", || site.waiting("paused") == 1);
    assert_eq!(site.api.calls().len(), 2, "{}", site.describe());
    drop(locked);
    site.wait_archived("then.jpg");
    // And with nothing in work.
    let locked = lock(&mut other);
    put(&site, "later");
    site.wait_paused(&["ledger.db", "locked by another program"]);
    assert_eq!(site.api.calls().len(), 3, "{}", site.describe());
    drop(locked);
    all_is_well(&site, daemon, &["first", "held", "then", "later"]);
}

#[test]
fn a_ledger_that_is_locked_at_the_start_ends_it_so_that_the_service_is_started_again() {
    let site = Site::new();
    assert_eq!(site.once(), 0);
    put(&site, "one");
    let other = Connection::open(site.path("state/ledger.db")).unwrap();
    other.pragma_update(None, "locking_mode", "EXCLUSIVE").unwrap();
    other.execute_batch("BEGIN IMMEDIATE; COMMIT").unwrap();
    // Not one of those codes that keep systemd from starting it again.
    assert_eq!(site.once(), 1, "{}", site.describe());
    assert!(site.logs().contains("locked by another program"), "{}", site.logs());
    assert!(site.api.requests().is_empty());
    drop(other);
    assert_eq!(site.once(), 0);
    assert_eq!(site.api.calls_with("one"), 1);
}

#[test]
fn a_ledger_that_is_moved_away_stops_everything_until_it_is_back() {
    let site = Site::new();
    let (daemon, gate) = held(&site);
    let (there, away) = (site.path("state/ledger.db"), site.path("away.db"));
    fs::rename(&there, &away).unwrap();
    fs::copy(&away, &there).unwrap();
    gate.open();
    site.wait_paused(&["ledger.db", "another file in its place", "put it back, or restart"]);
    put(&site, "then");
    site.wait("it is seen", || site.waiting("paused") == 1);
    assert_eq!((site.api.calls().len(), site.names("state/spool").len()), (2, 1), "{}", site.describe());
    fs::rename(&away, &there).unwrap();
    all_is_well(&site, daemon, &["first", "held", "then"]);
}

#[test]
fn a_state_directory_that_is_moved_away_stops_everything_until_it_is_back() {
    let site = Site::new();
    let (daemon, gate) = held(&site);
    let (there, away) = (site.path("state"), site.path("away"));
    fs::rename(&there, &away).unwrap();
    gate.open();
    let said = || site.logs().lines().any(|l| l.contains("paused: ") && l.contains("/state"));
    site.wait("it says so", said);
    put(&site, "then");
    assert_eq!(site.api.calls().len(), 2, "{}", site.describe());
    assert!(site.logs().contains("kept in memory"), "{}", site.logs());
    fs::rename(&away, &there).unwrap();
    all_is_well(&site, daemon, &["first", "held", "then"]);
}

#[test]
fn a_state_directory_that_is_lost_stops_everything_until_a_restart() {
    // What was recorded is gone, and only a start settles what that means for working.
    let site = Site::new();
    let daemon = site.run();
    put(&site, "first");
    site.wait_archived("first.jpg");
    site.wait("its row is closed", || site.logs().contains("done, original in the archive"));
    fs::remove_dir_all(site.path("state")).unwrap();
    put(&site, "then");
    site.wait("it says so", || site.logs().lines().any(|l| l.contains("paused: ") && l.contains("/state")));
    fs::create_dir(site.path("state")).unwrap();
    // It makes its own folders again, and goes no further.
    site.wait_paused(&["ledger.db", "restart the daemon"]);
    assert_eq!(site.api.calls().len(), 1, "{}", site.describe());
    assert_eq!((daemon.stop(), site.names("inbox").len()), (0, 2));
    let daemon = site.run();
    all_is_well(&site, daemon, &["first", "then"]);
}

#[test]
fn a_spool_that_is_lost_is_made_again() {
    let site = Site::new();
    let (daemon, gate) = held(&site);
    fs::remove_dir_all(site.path("state/spool")).unwrap();
    gate.open();
    put(&site, "then");
    all_is_well(&site, daemon, &["first", "held", "then"]);
    assert!(site.logs().contains("kept in memory"), "{}", site.logs());
}

/// What is done to a file, by its length.
type Damage = fn(&mut Vec<u8>);

/// Puts something else at a place, from 0 (the beginning) to 1 (the end).
fn garble(bytes: &mut [u8], place: f64) {
    let from = ((bytes.len() - 64) as f64 * place) as usize;
    bytes[from..from + 64].iter_mut().for_each(|b| *b = !*b);
}

#[test]
fn a_ledger_that_was_cut_off_or_garbled_sends_nothing_again() {
    let site = Site::new();
    let (daemon, gate) = held(&site);
    daemon.kill();
    gate.open();
    let (state, working) = (site.files("state"), site.files("working"));
    let damages: [(&str, Damage); 11] = [
        ("emptied", Vec::clear),
        ("cut to 20 bytes", |b| b.truncate(20)),
        ("cut to 32 bytes", |b| b.truncate(32)),
        ("cut to 1000 bytes", |b| b.truncate(1000)),
        ("cut to a page", |b| b.truncate(4096)),
        ("cut in the middle", |b| b.truncate(b.len() / 2)),
        ("cut by one byte", |b| b.truncate(b.len() - 1)),
        ("its head garbled", |b| garble(b, 0.0)),
        ("its middle garbled", |b| garble(b, 0.5)),
        ("its end garbled", |b| garble(b, 1.0)),
        ("overwritten", |b| b.fill(b'x')),
    ];
    for part in ["ledger.db", "ledger.db-wal"] {
        for (n, (what, damage)) in damages.into_iter().enumerate() {
            let name = format!("{part} {what}");
            restore(&site, &state, &working);
            let mut bytes = state[&PathBuf::from(part)].clone();
            damage(&mut bytes);
            fs::write(site.path("state").join(part), &bytes).unwrap();
            let on = format!("on-{}-{n}", part.len());
            site.put(format!("inbox/{on}.txt"), &on);
            let code = site.once();
            assert_eq!((code, site.api.calls_with("held")), (3, 1), "{name}\n{}", site.describe());
            assert_eq!(site.api.calls_with(&on), 1, "{name}: others go on\n{}", site.describe());
            let note = site.note("errors/held.error.txt");
            assert!(note.contains("unconfirmed") && site.has("errors/held.jpg"), "{name}: {note}");
            // What was found damaged is kept as it was; else it was good enough to know of the send.
            let kept = site.files("state").iter().any(|(path, there)| {
                let path = path.to_string_lossy();
                path.contains("damaged") && path.ends_with("-wal") == part.ends_with("-wal") && *there == bytes
            });
            let believed = site.files("state").keys().all(|path| !path.to_string_lossy().contains("damaged"));
            assert!(kept || believed, "{name}: {:?}", site.names("state"));
        }
    }
}

/// As it was when the daemon was killed, but for what was archived since.
fn restore(site: &Site, state: &BTreeMap<PathBuf, Vec<u8>>, working: &BTreeMap<PathBuf, Vec<u8>>) {
    for (folder, files) in [("state", state), ("working", working), ("errors", &BTreeMap::new())] {
        fs::remove_dir_all(site.path(folder)).unwrap();
        fs::create_dir(site.path(folder)).unwrap();
        for (path, bytes) in files {
            let path = site.path(folder).join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
    }
}

#[test]
fn a_ledger_that_is_garbled_while_it_is_open_sends_nothing_twice() {
    // By its nature this needs a restart: only a start puts it aside and settles what was in work.
    let site = Site::new();
    let (daemon, gate) = held(&site);
    for part in ["ledger.db", "ledger.db-wal"] {
        let path = site.path("state").join(part);
        let length = fs::metadata(&path).unwrap().len();
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &vec![0x5a; usize::try_from(length).unwrap()], 0).unwrap();
    }
    gate.open();
    put(&site, "then");
    site.wait("something came of it", || {
        site.has("archive/then.jpg") || site.logs().contains("restart the daemon") || site.logs().contains("paused: ")
    });
    daemon.kill();
    assert_ne!(site.once(), 2, "{}", site.describe());
    assert_ne!(site.once(), 2, "{}", site.describe());
    assert_eq!(site.api.calls_with("held"), 1, "{}", site.describe());
    assert!(site.api.calls_with("then") <= 1, "{}", site.describe());
    assert!(site.is_empty(), "{}", site.describe());
    assert!(site.results().len() >= 2, "what was received reaches the outbox\n{}", site.describe());
}
