//! `reimagined history` through the real binary: beside a daemon, without one, and where the ledger cannot be read.

#![allow(clippy::unwrap_used, reason = "tests say so by failing")]

use crate::support;

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Output, Stdio};

use rusqlite::Connection;
use serde_json::{Value, json};
use support::{ASSET_MARK, Answer, Gate, KEY, Site};

fn put(site: &Site, name: &str, prompt: &str, more: &str) {
    site.put(format!("inbox/{name}.toml"), format!("prompt = \"{prompt}\"\n{more}"));
    site.put_picture(format!("inbox/{name}.jpg"));
}

/// A history with everything in it: variants, a refusal, half a drop, a lost request, no price, no picture.
fn eventful() -> (Site, Gate) {
    let site = Site::new();
    let gate = Gate::default();
    let opens = gate.clone();
    site.api.on_model(move |call| match (call.prompt.as_str(), call.seed) {
        ("refused", _) | ("partly", Some(2)) => {
            Answer::error(422, &format!("no: https://assets.example.com/{ASSET_MARK}/x.jpg"))
                .header("x-request-id", "r-no")
        }
        ("unconfirmed", _) => Answer::hangup(),
        ("unpriced", _) => Answer::new(200, "image/png", support::api::result(50)).header("x-request-id", "r-0"),
        ("held", Some(2)) => call.good().after(&opens),
        _ => call.good(),
    });
    (site, gate)
}

/// Drops them one after the other.
fn fill(site: &Site) {
    put(site, "two", "two", "seeds = [7, 8]\n");
    site.wait_archived("two.jpg");
    put(site, "autumn/refused", "refused", "");
    site.wait_failed("autumn/refused.jpg");
    put(site, "autumn/late/partly", "partly", "seeds = [1, 2]\n");
    site.wait_failed("autumn/late/partly.jpg");
    put(site, "unconfirmed", "unconfirmed", "seed = 5\n");
    site.wait_failed("unconfirmed.jpg");
    put(site, "unpriced", "unpriced", "");
    site.wait_archived("unpriced.jpg");
    site.put("inbox/=cmd,\n.pdf", "no picture");
    site.wait_for("errors/=cmd,\n.error.txt");
    site.wait("all are closed", || lines(site, &[]).len() == 8);
}

fn call(site: &Site, args: &[&str]) -> Output {
    let mut command = site.command();
    command.arg("history").args(args).output().unwrap()
}

fn text(site: &Site, args: &[&str]) -> String {
    let done = call(site, args);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

fn lines(site: &Site, args: &[&str]) -> Vec<Value> {
    let text = text(site, &[&["--json"], args].concat());
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The drops of the rows, each once.
fn drops(site: &Site, args: &[&str]) -> Vec<String> {
    let mut drops: Vec<_> = lines(site, args).iter().map(|row| row["drop"].as_str().unwrap().to_owned()).collect();
    drops.dedup();
    drops
}

/// Without what differs from one run to another: the times in front, and which of two requests came first.
fn steady(text: &str) -> String {
    let line = |line: &str| {
        let (time, rest) = line.split_once("  ").filter(|_| line.starts_with("20")).unwrap_or(("", line));
        assert!(time.is_empty() || time.len() == "2026-11-23 14:02".len(), "{line}");
        rest.split_inclusive("request r-").map(|part| part.trim_start_matches(|c: char| c.is_ascii_digit())).collect()
    };
    text.lines().map(line).collect::<Vec<String>>().join("\n")
}

#[test]
fn everything_that_was_made_is_told_while_the_daemon_runs() {
    let (site, gate) = eventful();
    let daemon = site.run();
    fill(&site);
    insta::assert_snapshot!(steady(&text(&site, &[])), @r"
    delivered    $0.04       two.jpg (1 of 2) -> two-7.png  [seed 7, request r-]
    delivered    $0.04       two.jpg (2 of 2) -> two-8.png  [seed 8, request r-]
    failed       -           autumn/refused.jpg: HTTP 422: no: [asset URL]  [request r-no]
    delivered    $0.04       autumn/late/partly.jpg (1 of 2) -> autumn/late/partly-1.png  [seed 1, request r-]
    failed       -           autumn/late/partly.jpg (2 of 2): HTTP 422: no: [asset URL]  [seed 2, request r-no]
    unconfirmed  no price    unconfirmed.jpg: the request was sent, then the connection was lost: error sending request: client error (SendRequest): connection closed before message completed  [seed 5]
    delivered    no price    unpriced.jpg -> unpriced.png  [request r-]
    failed       -           =cmd,\n.pdf: this is no kind of file that is taken: pictures (.jpg .jpeg .png .webp .tif .tiff .bmp .gif) and sidecars (.txt .toml .json) are
    Total: 5 images, at least $0.12, 2 without a price; 4 delivered, 3 failed, 1 unconfirmed
    ");

    // A drop in work tells what of it has ended.
    put(&site, "held", "held", "seeds = [1, 2]\n");
    site.wait("its first is made", || site.has("outbox/held-1.png"));
    site.wait("it is told", || lines(&site, &[]).len() == 9);
    let held = lines(&site, &[]).pop().unwrap();
    assert_eq!((&held["drop"], &held["result"]), (&"held.jpg".into(), &"held-1.png".into()), "{held:#}");
    assert_eq!((&held["shot"], &held["shots"]), (&1.into(), &2.into()), "{held:#}");
    gate.open();
    site.wait_archived("held.jpg");
    site.wait("it is closed", || lines(&site, &[]).len() == 10);

    // The sums are those of the status.
    let rows = lines(&site, &[]);
    site.wait("the status has the same sums", || {
        let spend = site.told()["last_24h"].clone();
        let sum = |key: &str| rows.iter().filter_map(|row| row[key].as_f64()).sum::<f64>();
        let same = |key: &str| (sum(key) - spend[key].as_f64().unwrap()).abs() < 1e-9;
        same("images") && same("cost") && same("unpriced")
    });
    let told = text(&site, &[]);
    assert!(
        told.ends_with("Total: 7 images, at least $0.20, 2 without a price; 6 delivered, 3 failed, 1 unconfirmed\n"),
        "{told}"
    );
    for secret in [KEY, ASSET_MARK, "assets.example"] {
        for args in [&[][..], &["--json"], &["--csv"]] {
            assert!(!text(&site, args).contains(secret), "{secret} in {}", text(&site, args));
        }
    }
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn a_row_has_the_documented_keys_in_json_and_in_csv() {
    let (site, _) = eventful();
    let daemon = site.run();
    fill(&site);
    let rows = lines(&site, &[]);
    let row = &rows[0];
    for key in ["at", "sent"] {
        assert!(row[key].as_str().unwrap().parse::<jiff::Timestamp>().is_ok(), "{row:#}");
    }
    assert_eq!(row["id"], site.provenance("outbox/two-7.reimagined.json")["drop"], "{row:#}");
    let known: serde_json::Map<_, _> = row
        .as_object()
        .unwrap()
        .iter()
        .filter(|(key, _)| !["at", "sent", "id", "request_id"].contains(&key.as_str()))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    let expected = json!({
        "drop": "two.jpg", "shot": 1, "shots": 2, "verdict": "delivered", "result": "two-7.png", "seed": 7,
        "images": 1, "cost": 0.04, "unpriced": 0, "reason": null,
    });
    assert_eq!(Value::Object(known), expected);
    assert!(row["request_id"].as_str().unwrap().starts_with("r-"), "{row:#}");
    let foreign = rows.last().unwrap();
    assert_eq!(
        (&foreign["drop"], &foreign["shot"], &foreign["shots"]),
        (&"=cmd,\\n.pdf".into(), &Value::Null, &0.into())
    );

    let csv = text(&site, &["--csv"]);
    let (head, body) = csv.split_once("\r\n").unwrap();
    let keys: Vec<_> = row.as_object().unwrap().keys().cloned().collect();
    assert_eq!(head, keys.join(","));
    assert_eq!(body.matches("\r\n").count(), rows.len());
    assert!(body.ends_with("\r\n") && !body.replace("\r\n", "").contains(['\r', '\n']), "{body}");
    assert!(body.contains(",\"'=cmd,\\n.pdf\",,0,failed,"), "no formula, and its comma is quoted\n{body}");
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn it_is_asked_for_by_time_by_folder_and_by_number() {
    let (site, _) = eventful();
    let daemon = site.run();
    fill(&site);
    let foreign = "=cmd,\\n.pdf";
    assert_eq!(drops(&site, &["--limit", "2"]), ["unpriced.jpg", foreign]);
    assert_eq!(drops(&site, &["--limit", "100"]).len(), 6);
    let autumn = ["autumn/refused.jpg", "autumn/late/partly.jpg"];
    let (inbox, errors) = (site.path("inbox/autumn"), site.path("errors/autumn/"));
    for folder in ["autumn", "./autumn/", inbox.to_str().unwrap(), errors.to_str().unwrap()] {
        assert_eq!(drops(&site, &["--folder", folder]), autumn, "{folder}");
    }
    assert_eq!(drops(&site, &["--folder", "autumn", "--limit", "1"]), autumn[1..]);
    assert!(drops(&site, &["--folder", "aut"]).is_empty(), "a folder is no beginning of a name");
    assert_eq!(drops(&site, &["--folder", site.path("inbox").to_str().unwrap()]).len(), 6);
    assert_eq!(call(&site, &["--folder", "/etc"]).status.code(), Some(2));

    // Two of them ended long ago.
    assert_eq!(daemon.stop(), 0);
    let ledger = Connection::open(site.path("state/ledger.db")).unwrap();
    let long_ago = jiff::Timestamp::now().as_millisecond() - 3 * 24 * 3600 * 1000;
    ledger.execute("UPDATE drops SET closed = ?1 WHERE row <= 2", [long_ago]).unwrap();
    drop(ledger);
    assert_eq!(drops(&site, &[]).len(), 6);
    assert_eq!(drops(&site, &["--since", "4d"]).len(), 6);
    assert_eq!(drops(&site, &["--since", "2d"]).len(), 4);
    let day = (jiff::Zoned::now() - jiff::Span::new().days(1)).strftime("%Y-%m-%d").to_string();
    assert_eq!(drops(&site, &["--since", &day]).len(), 4);
    assert_eq!(drops(&site, &["--since", "2d", "--limit", "5"]).len(), 4);
    assert_eq!(drops(&site, &["--since", "4d", "--limit", "5"]).len(), 5);
    assert!(drops(&site, &["--since", "0s"]).is_empty());
    assert_eq!(text(&site, &["--since", "0s"]), "Nothing was made, as far as is known.\n");
    let older = call(&site, &["--since", "500d"]);
    let said = String::from_utf8_lossy(&older.stderr);
    assert!(said.contains("keep_history") && older.status.success(), "{said}");
}

#[test]
fn it_changes_nothing_whatever_the_daemon_left() {
    let (site, gate) = eventful();
    let before = |site: &Site| {
        let mut files = site.files("state");
        files.retain(|path, _| !path.to_string_lossy().ends_with("-shm"));
        files
    };
    assert_eq!((text(&site, &[]).as_str(), before(&site).len()), ("Nothing was made, as far as is known.\n", 0));
    assert_eq!(text(&site, &["--json"]), "");
    assert_eq!(text(&site, &["--csv"]).lines().count(), 1);
    // Stopped.
    let daemon = site.run();
    fill(&site);
    assert_eq!(daemon.stop(), 0);
    let stopped = before(&site);
    assert_eq!(drops(&site, &[]).len(), 6);
    assert_eq!(before(&site), stopped);
    // Killed, with a log that the next start needs.
    let daemon = site.run();
    put(&site, "held", "held", "seeds = [1, 2]\n");
    site.wait("its first is made", || site.has("outbox/held-1.png"));
    site.wait("it is told", || drops(&site, &[]).len() == 7);
    daemon.kill();
    gate.open();
    let killed = before(&site);
    assert!(killed[Path::new("ledger.db-wal")].len() > 1000);
    assert_eq!(drops(&site, &[]).len(), 7);
    assert_eq!(before(&site), killed);
    // And it was not missed: what was in work is known, and only that.
    assert_eq!(site.once(), 3);
    assert!(!site.logs().contains("last words may be missing"), "{}", site.logs());
    assert!(site.note("errors/held.error.txt").contains("held-1.png"), "{}", site.describe());
    let daemon = site.run();
    drops(&site, &[]);
    site.a_later_drop_is_done();
    assert_eq!(daemon.stop(), 0);
    assert!(!site.has("state/ledger.db-wal"), "a reader keeps nobody from closing it well");
}

#[test]
fn a_reader_who_takes_their_time_does_not_hold_up_the_daemon() {
    let site = Site::new();
    assert_eq!(site.once(), 0);
    let ledger = Connection::open(site.path("state/ledger.db")).unwrap();
    let many = 20_000;
    ledger
        .execute_batch(&format!(
            "BEGIN;
            WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {many})
            INSERT INTO drops (id, folder, stem, name, working, prompts, plan, claimed, ending, closed, failure)
            SELECT randomblob(16), x'', CAST(i AS BLOB), CAST(i || '.pdf' AS BLOB), x'', 0, '', i, 'failed',
                   1000 * CAST(strftime('%s') AS INTEGER) - 9000000 + i, 'no picture' FROM n;
            COMMIT;"
        ))
        .unwrap();
    drop(ledger);
    let daemon = site.run();
    // It reads a bit, and then nothing for as long as the daemon works.
    let mut reader = site.command().args(["history", "--csv"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut out = reader.stdout.take().unwrap();
    let mut some = [0; 4096];
    out.read_exact(&mut some).unwrap();
    site.a_later_drop_is_done();
    // A transaction that lasted would keep the log from beginning anew.
    let writer = Connection::open(site.path("state/ledger.db")).unwrap();
    let (busy, left): (i64, i64) = writer
        .query_row("PRAGMA wal_checkpoint(RESTART)", [], |r| Ok((r.get(0)?, r.get::<_, i64>(1)? - r.get::<_, i64>(2)?)))
        .unwrap();
    assert_eq!((busy, left), (0, 0));
    drop(writer);
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    assert!(reader.wait().unwrap().success());
    assert!(rest.contains(",later-"), "what ends meanwhile is told, too");
    // Each once.
    let mut whole = String::from_utf8(some.to_vec()).unwrap() + &rest;
    whole.retain(|c| c != '\r');
    let mut rows: Vec<_> = whole.lines().skip(1).collect();
    let all = rows.len();
    rows.sort_unstable();
    rows.dedup();
    assert_eq!((all, rows.len()), (many + 1, many + 1));
    // One who has seen enough is no error.
    let mut reader = site.command().args(["history"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(reader.stdout.take());
    assert!(reader.wait().unwrap().success());
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn a_newer_a_damaged_and_a_foreign_ledger_are_told_apart() {
    let (site, _) = eventful();
    let daemon = site.run();
    fill(&site);
    assert_eq!(daemon.stop(), 0);
    let ledger = site.path("state/ledger.db");
    let good = fs::read(&ledger).unwrap();
    let set = |pragma: &str, value: i64| {
        fs::write(&ledger, &good).unwrap();
        Connection::open(&ledger).unwrap().pragma_update(None, pragma, value).unwrap();
    };
    let fails = |code: i32, words: &[&str]| {
        let before = fs::read(&ledger).unwrap();
        let done = call(&site, &[]);
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert_eq!(done.status.code(), Some(code), "{said}");
        for word in words {
            assert!(said.contains(word), "{word}: {said}");
        }
        assert!(fs::read(&ledger).unwrap() == before, "it was changed");
    };
    set("user_version", 99);
    fails(2, &["newer version", "schema 99", "install that version again", "Nothing was changed"]);
    set("application_id", 7);
    fails(1, &["another program's database"]);
    fs::write(&ledger, "this is no database at all, but it is long enough to be taken for one".repeat(30)).unwrap();
    fails(1, &["ledger.db", "damaged", "keeps the damaged one aside"]);
    let mut bytes = good.clone();
    for page in bytes.chunks_mut(4096).skip(1) {
        page.fill(0x5a);
    }
    fs::write(&ledger, bytes).unwrap();
    fails(1, &["ledger.db", "damaged"]);
    // An older schema is read as it is.
    let old = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ledgers/schema-1/ledger.db");
    fs::copy(old, &ledger).unwrap();
    let version = || -> i64 {
        Connection::open(&ledger).unwrap().pragma_query_value(None, "user_version", |row| row.get(0)).unwrap()
    };
    assert!(drops(&site, &[]).contains(&"partly.jpg".to_owned()));
    assert_eq!(version(), 1, "and stays one");
}

#[test]
fn who_may_not_read_the_ledger_is_told_what_to_do() {
    let site = Site::new();
    assert_eq!(site.once(), 0);
    fs::set_permissions(site.path("state/ledger.db"), fs::Permissions::from_mode(0o000)).unwrap();
    let mut command = site.command();
    let done = support::faults::modest(command.arg("history")).output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert_eq!(done.status.code(), Some(2), "{said}");
    for word in ["ledger.db", "ermission denied", "sudo -u reimagined"] {
        assert!(said.contains(word), "{word}: {said}");
    }
}
