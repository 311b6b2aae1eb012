//! Ledgers of every schema that was ever released, made by the real binary of its time, and of none that is known.
//!
//! `tests/ledgers/schema-N` holds a ledger and the folders that belong to it, as a kill left them, with a drop in
//! every state. With `REIMAGINED_TESTS_MAKE_LEDGER=1` the test below makes the one of the present schema anew;
//! those of older ones are never made again.

#![allow(clippy::unwrap_used, reason = "tests say so by failing")]

use crate::support;

use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use serde_json::json;
use support::{Answer, Gate, Site};

/// Nobody listens there.
const NOWHERE: &str = "http://127.0.0.1:9";

const FOLDERS: [&str; 6] = ["inbox", "working", "outbox", "archive", "errors", "state/spool"];

fn ledgers() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ledgers")
}

fn version(ledger: &Path) -> i64 {
    Connection::open(ledger).unwrap().pragma_query_value(None, "user_version", |row| row.get(0)).unwrap()
}

/// The schema that this program makes.
fn newest() -> i64 {
    let site = Site::new();
    assert_eq!(site.once(), 0);
    version(&site.path("state/ledger.db"))
}

fn drop_in(site: &Site, name: &str, sidecar: &str) {
    site.put(format!("inbox/{name}.toml"), format!("prompt = \"{name}\"\n{sidecar}"));
    site.put_picture(format!("inbox/{name}.jpg"));
}

/// A site with a drop in every state of its life, as a kill leaves it; its ledger without a log.
fn make(into: &Path) {
    let site = Site::new();
    site.set("retry.first_delay", "10m").set("retry.max_delay", "10m").set("retry.probe_interval", "10m");
    site.set("api.max_in_flight", 16);
    let (delivered, received, never) = (Gate::default(), Gate::default(), Gate::default());
    let gates = (delivered.clone(), received.clone(), never.clone());
    site.api.on_model(move |call| match (call.prompt.as_str(), call.seed) {
        ("refused", _) | ("partly", Some(2)) => Answer::error(422, "no"),
        ("unconfirmed", _) => Answer::hangup(),
        ("due", Some(2)) => Answer::error(503, "later"),
        ("returned", _) => Answer::error(401, "no such key"),
        ("answered", _) => Answer::json(200, &json!({ "image": format!("{NOWHERE}/x.png") })),
        ("sending", _) => call.good().after(&gates.2),
        ("delivered", _) => call.good().after(&gates.0),
        ("received", _) => call.good().after(&gates.1),
        _ => call.good(),
    });
    let daemon = site.run();
    drop_in(&site, "unconfirmed", "");
    drop_in(&site, "refused", "");
    site.wait_failed("unconfirmed.jpg");
    site.wait_failed("refused.jpg");
    drop_in(&site, "partly", "seeds = [1, 2]\n");
    site.wait_failed("partly.jpg");
    drop_in(&site, "done", "");
    site.wait_archived("done.jpg");
    drop_in(&site, "due", "seeds = [1, 2]\n");
    for name in ["answered", "sending", "delivered", "received"] {
        drop_in(&site, name, "");
    }
    site.wait("all are sent", || site.api.calls().len() == 11 && site.has("outbox/due-1.png"));
    drop_in(&site, "returned", "");
    site.wait("everything pauses", || site.paused().is_some() && site.names("working").len() == 10);
    site.wait_for("inbox/returned.jpg");
    let unusable = |folder: &str| {
        fs::rename(site.path(folder), site.path(format!("{folder}-away"))).unwrap();
        fs::write(site.path(folder), "no folder").unwrap();
    };
    unusable("archive");
    delivered.open();
    let tried = |name: &str| {
        let log = daemon.log();
        log.lines().any(|line| line.contains("cannot be put where it belongs") && line.contains(name))
    };
    site.wait("it is delivered and not filed", || tried("delivered.jpg"));
    unusable("outbox");
    received.open();
    site.wait("it is received", || tried("received.jpg"));
    let states = || {
        let work = site.status()["work"].to_string();
        ["due", "answered", "sending", "filing", "received"].iter().all(|state| work.contains(state))
    };
    site.wait("status says so", states);
    daemon.kill();
    never.open();
    for folder in ["archive", "outbox"] {
        fs::remove_file(site.path(folder)).unwrap();
        fs::rename(site.path(format!("{folder}-away")), site.path(folder)).unwrap();
    }
    let ledger = site.path("state/ledger.db");
    let open = Connection::open(&ledger).unwrap();
    open.pragma_update(None, "journal_mode", "DELETE").unwrap();
    drop(open);
    let _ = fs::remove_dir_all(into);
    for folder in FOLDERS {
        for (name, bytes) in site.files(folder) {
            let to = into.join(folder).join(name);
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::write(to, bytes).unwrap();
        }
    }
    fs::copy(ledger, into.join("ledger.db")).unwrap();
}

/// The site that `make` made, taken up by this program.
fn is_taken_up(from: &Path) {
    let site = Site::new();
    site.set("service.keep_history", "36500d");
    for folder in FOLDERS {
        for entry in walkdir::WalkDir::new(from.join(folder)).into_iter().filter_map(Result::ok) {
            if entry.file_type().is_file() {
                let name = entry.path().strip_prefix(from).unwrap();
                site.put(name, fs::read(entry.path()).unwrap());
            }
        }
    }
    let ledger = site.path("state/ledger.db");
    fs::copy(from.join("ledger.db"), &ledger).unwrap();
    let open = Connection::open(&ledger).unwrap();
    // Time goes on, and the service of then is gone.
    let url = site.api.url() + "/results";
    open.execute("UPDATE shots SET shot = replace(shot, ?1, ?2)", [NOWHERE, &url]).unwrap();
    open.execute(
        "UPDATE shots SET shot = json_set(shot, '$.state.not_before', NULL) WHERE shot LIKE '%not_before%'",
        [],
    )
    .unwrap();
    let count = |what: &str| open.query_row(what, [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(count("SELECT count(*) FROM drops WHERE ending IS NULL"), 5);
    assert_eq!(count("SELECT count(*) FROM uploads"), 10);
    assert_eq!(count("SELECT count(*) FROM notes"), 3);
    drop(open);

    site.api.on_other(|request, _| {
        request.path.starts_with("/results/").then(|| Answer::picture(&support::pictures::png(77)))
    });
    assert_eq!(site.once(), 3, "{}", site.describe());
    let calls = || -> Vec<_> { site.api.calls().iter().map(|call| (call.prompt(), call.seed())).collect() };
    let mut made = calls();
    made.sort();
    assert_eq!(made, [("due".to_owned(), Some(2)), ("returned".to_owned(), None)], "{}", site.describe());
    assert!(site.is_empty(), "{}", site.describe());
    let stems = |folder: &str| -> Vec<_> {
        let names = site.names(folder).into_iter();
        names.filter_map(|name| name.strip_suffix(".jpg").map(str::to_owned)).collect()
    };
    assert_eq!(stems("archive"), ["answered", "delivered", "done", "due", "received", "returned"]);
    assert_eq!(stems("errors"), ["partly", "refused", "sending", "unconfirmed"]);
    let results =
        ["answered.png", "delivered.png", "done.png", "due-1.png", "due-2.png", "partly-1.png", "received.png"];
    assert_eq!(site.results(), [&results[..], &["returned.png"]].concat());
    assert!(site.note("errors/sending.error.txt").contains("billed: unknown"));
    assert_eq!(site.status()["failed"], 4);

    // What ended then is known again now: its notes, its seeds, what of it was delivered.
    let retried = site.call(&["retry", site.path("errors/partly.jpg").to_str().unwrap()]);
    assert!(retried.status.success(), "{}", String::from_utf8_lossy(&retried.stderr));
    assert!(!site.has("errors/partly.error.txt"), "the note was ours");
    assert_eq!(site.once(), 0, "{}", site.describe());
    assert_eq!(calls()[2..], [("partly".to_owned(), Some(2))], "what was delivered is not made again");
    assert_eq!(site.status()["failed"], 3);
}

#[test]
fn a_ledger_of_every_released_schema_is_taken_up_as_it_was_left() {
    let newest = newest();
    if std::env::var_os("REIMAGINED_TESTS_MAKE_LEDGER").is_some() {
        make(&ledgers().join(format!("schema-{newest}")));
    }
    for schema in 1..=newest {
        let folder = ledgers().join(format!("schema-{schema}"));
        assert!(
            folder.join("ledger.db").is_file(),
            "schema {schema} has no ledger in {}; see the head of this file",
            folder.display()
        );
        assert_eq!(version(&folder.join("ledger.db")), schema);
        is_taken_up(&folder);
    }
}

#[test]
fn a_ledger_of_a_newer_version_is_refused_and_left_as_it_is() {
    let site = Site::new();
    site.put_picture("inbox/a.jpg");
    assert_eq!(site.once(), 0);
    let ledger = site.path("state/ledger.db");
    let open = Connection::open(&ledger).unwrap();
    open.pragma_update(None, "user_version", 99).unwrap();
    drop(open);
    // As the newer version left it.
    let mut status = site.status();
    status["version"] = "9.8.7".into();
    status["something"] = json!({ "new": true });
    fs::write(site.path("state/status.json"), status.to_string()).unwrap();
    site.put_picture("inbox/b.jpg");
    let before = fs::read(&ledger).unwrap();
    for _ in 0..2 {
        assert_eq!(site.once(), 2);
        assert_eq!(site.run().ends(), 2);
        assert!(fs::read(&ledger).unwrap() == before, "its bytes have changed");
    }
    let logs = site.logs();
    let retry = site.call(&["retry", "--all"]);
    assert_eq!(retry.status.code(), Some(2));
    let retry = String::from_utf8(retry.stderr).unwrap();
    let ours = format!("this is {}", env!("CARGO_PKG_VERSION"));
    let path = ledger.to_str().unwrap();
    for words in [path, "newer version", "schema 99", "reimagined 9.8.7 ran there last", &ours, "install that version"]
    {
        assert!(logs.contains(words), "{words} is not in: {logs}");
        assert!(retry.contains(words), "{words} is not in: {retry}");
    }
    assert_eq!(logs.matches("newer version").count(), 4, "each said it once: {logs}");
    assert!(site.told()["version"] == "9.8.7", "status needs no ledger");
    assert!(site.names("state").iter().all(|name| !name.contains(".damaged-")), "it is not damaged");
    assert_eq!((site.names("inbox"), site.api.calls().len()), (vec!["b.jpg".to_owned()], 1));
}
