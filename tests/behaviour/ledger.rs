//! The ledger found damaged, lost, without its end, or of another version, at every state of a drop's life:
//! nothing is sent again by itself, nothing is lost, nothing comes out twice.

#![allow(clippy::unwrap_used, reason = "tests say so by failing")]

use crate::support;

use std::fs;
use std::path::Path;

use serde_json::json;
use support::api::result;
use support::{Answer, Gate, Site};

/// What becomes of the ledger while nobody runs.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Harm {
    /// Its files hold something else.
    Garbage,
    /// A page in its middle holds something else; its log is in it.
    Page,
    /// The beginning of its log cannot be read.
    Log,
    /// It is gone.
    Lost,
    /// Its log is gone.
    LogLost,
    /// What was last written to its log is broken.
    Torn,
}

use Harm::{Garbage, Log, LogLost, Lost, Page, Torn};

const ALL: [Harm; 6] = [Garbage, Page, Log, Lost, LogLost, Torn];

/// The bytes of a frame of its log: a page and its head.
const FRAME: usize = 4_096 + 24;

fn harm(site: &Site, harm: Harm) {
    let (db, log) = (site.path("state/ledger.db"), site.path("state/ledger.db-wal"));
    let overwrite = |path: &Path, at: usize, with: &[u8]| {
        let mut bytes = fs::read(path).unwrap();
        bytes[at..at + with.len()].copy_from_slice(with);
        fs::write(path, bytes).unwrap();
    };
    match harm {
        Garbage => {
            fs::write(&db, "this is no database, whatever it was".repeat(200)).unwrap();
            fs::write(&log, "nor is this its log").unwrap();
        }
        Page => {
            let open = rusqlite::Connection::open(&db).unwrap();
            open.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
            drop(open);
            overwrite(&db, 4_096 * 3, &[0x5a; 4_096]);
        }
        Log => overwrite(&log, 4, &[0x5a; 8]),
        Lost => {
            for name in site.names("state").iter().filter(|n| n.starts_with("ledger.db")) {
                fs::remove_file(site.path("state").join(name)).unwrap();
            }
        }
        LogLost => fs::remove_file(&log).unwrap(),
        Torn => {
            // The last frame of this time that the log was begun.
            let bytes = fs::read(&log).unwrap();
            let frames = bytes[32..].chunks_exact(FRAME).take_while(|frame| frame[8..16] == bytes[16..24]).count();
            overwrite(&log, 32 + (frames - 1) * FRAME + 1_000, &[0x5a; 8]);
            // As after a power cut: else it vouches for the sends, and there is no doubt.
            fs::remove_file(site.path("state/ledger.db-count")).unwrap();
        }
    }
}

/// What must hold after a start that found the ledger harmed; `calls` were made before it.
fn nothing_came_of_it(site: &Site, how: Harm, calls: usize) {
    assert_eq!(site.api.calls().len(), calls, "{how:?}: something was sent again\n{}", site.describe());
    assert!(site.is_empty(), "{how:?}\n{}", site.describe());
    let hidden = walkdir::WalkDir::new(site.path("outbox")).into_iter().filter_map(Result::ok);
    assert!(!hidden.into_iter().any(|e| e.file_name().to_string_lossy().starts_with('.')), "{how:?}");
    let kept: Vec<String> = site.names("state").into_iter().filter(|n| n.contains(".damaged-")).collect();
    let set_aside = matches!(how, Garbage | Page | Log);
    assert_eq!(!kept.is_empty(), set_aside, "{how:?}: {kept:?}");
    let status = site.status();
    assert_eq!(status["damaged_ledgers"].as_array().unwrap().len(), usize::from(set_aside), "{how:?} {status:#}");
    if how != Lost {
        assert!(site.logs().contains("ERROR"), "{how:?} is said loudly\n{}", site.logs());
    }
    // What was settled stays so.
    let before = (site.files("outbox"), site.files("errors"), site.files("archive"));
    assert_eq!(site.once(), 0, "{how:?}\n{}", site.describe());
    assert!(before == (site.files("outbox"), site.files("errors"), site.files("archive")), "{how:?}");
    assert_eq!(site.api.calls().len(), calls, "{how:?}");
    let said = String::from_utf8_lossy(&site.call(&["status"]).stdout).into_owned();
    assert_eq!(said.contains(".damaged-"), set_aside, "{how:?} {said}");
}

/// Lets `begin` bring a site to some state and kill its daemon, harms the ledger, starts again, and looks: how many
/// pictures there are in the outbox, and whether the originals lie in errors.
fn at_every_harm(results: usize, in_errors: impl Fn(Harm) -> bool, begin: impl Fn(&Site)) {
    for how in ALL {
        let site = Site::new();
        begin(&site);
        let calls = site.api.calls().len();
        harm(&site, how);
        let code = site.once();
        assert_eq!(code == 3, in_errors(how), "{how:?}: {code}\n{}", site.describe());
        assert_eq!(site.results().len(), results, "{how:?}\n{}", site.describe());
        assert_eq!(site.has("errors/a.jpg"), in_errors(how), "{how:?}\n{}", site.describe());
        if in_errors(how) {
            let note = site.note("errors/a.error.txt");
            assert!(note.contains("unconfirmed") || note.contains("unknown"), "{how:?} {note}");
        }
        nothing_came_of_it(&site, how, calls);
    }
}

/// The ledger is not as it was: nobody knows any more.
fn always(_: Harm) -> bool {
    true
}

#[test]
fn while_it_is_sent() {
    at_every_harm(0, always, |site| {
        let gate = Gate::default();
        let held = gate.clone();
        site.api.on_model(move |call| call.good().after(&held));
        site.put("inbox/a.txt", "once");
        site.put_picture("inbox/a.jpg");
        let daemon = site.run();
        site.wait("it is sent", || site.api.calls().len() == 1);
        daemon.kill();
        gate.open();
    });
}

/// A daemon that was killed after so many bytes of a picture, which it keeps in a part.
fn killed_in_the_body(site: &Site, bytes: usize) -> std::path::PathBuf {
    let gate = Gate::default();
    let held = gate.clone();
    site.api.on_model(move |call| call.good().stall(bytes, &held));
    site.put_picture("inbox/a.jpg");
    let daemon = site.run();
    let part = || site.names("state/spool").into_iter().find(|n| Path::new(n).extension().is_some_and(|e| e == "part"));
    site.wait("some of it came", || part().is_some_and(|p| site.files("state/spool")[Path::new(&p)].len() == bytes));
    daemon.kill();
    gate.open();
    site.path("state/spool").join(part().unwrap())
}

#[test]
fn while_the_picture_comes() {
    at_every_harm(0, always, |site| drop(killed_in_the_body(site, 30)));
}

#[test]
fn when_the_picture_had_come_and_nobody_had_said_so_yet() {
    at_every_harm(1, always, |site| {
        let part = killed_in_the_body(site, 30);
        fs::write(part, result(1)).unwrap();
    });
}

#[test]
fn while_it_is_downloaded() {
    at_every_harm(0, always, |site| {
        let url = site.api.url() + "/results/x.png";
        site.api.on_model(move |_| Answer::json(200, &json!({ "image": url })));
        let gate = Gate::default();
        let held = gate.clone();
        site.api.on_other(move |request, _| {
            (request.path == "/results/x.png").then(|| Answer::error(500, "later").after(&held))
        });
        site.put_picture("inbox/a.jpg");
        let daemon = site.run();
        site.wait("it downloads", || site.api.to("/results/").len() == 1);
        daemon.kill();
        gate.open();
    });
}

/// Puts a file where a folder was; gives the way back.
fn unusable<'a>(site: &'a Site, folder: &'a str) -> impl Fn() + 'a {
    let away = site.path(format!("{folder}-away"));
    fs::rename(site.path(folder), &away).unwrap();
    fs::write(site.path(folder), "no folder").unwrap();
    move || {
        fs::remove_file(site.path(folder)).unwrap();
        fs::rename(&away, site.path(folder)).unwrap();
    }
}

fn killed_before(site: &Site, folder: &str) {
    let gate = Gate::default();
    let held = gate.clone();
    site.api.on_model(move |call| call.good().after(&held));
    site.put_picture("inbox/a.jpg");
    let daemon = site.run();
    site.wait("it is sent", || site.api.calls().len() == 1);
    let back = unusable(site, folder);
    gate.open();
    site.wait("it waits", || site.status()["state"] == "paused");
    daemon.kill();
    back();
}

#[test]
fn when_it_is_received() {
    at_every_harm(1, |how| how != Torn, |site| killed_before(site, "outbox"));
}

#[test]
fn when_it_is_delivered_and_not_filed() {
    at_every_harm(1, |how| how != Torn, |site| killed_before(site, "archive"));
}

#[test]
fn when_one_of_two_shots_is_delivered_and_the_other_is_sent() {
    at_every_harm(1, always, |site| {
        site.set("api.max_in_flight", 1);
        site.put_picture("inbox/a.jpg");
        site.put("inbox/a.toml", "seeds = [1, 2]\n");
        let gate = Gate::default();
        let held = gate.clone();
        site.api.on_model(move |call| if call.seed == Some(2) { call.good().after(&held) } else { call.good() });
        let daemon = site.run();
        site.wait("the second is sent", || site.api.calls().len() == 2 && site.has("outbox/a-1.png"));
        site.wait("the first is said to be delivered", || daemon.log().contains("delivered drop=a.jpg"));
        daemon.kill();
        gate.open();
    });
}

#[test]
fn when_one_of_two_shots_is_due() {
    at_every_harm(1, always, |site| {
        site.set("retry.first_delay", "10m").set("retry.max_delay", "10m");
        site.put_picture("inbox/a.jpg");
        site.put("inbox/a.toml", "seeds = [1, 2]\n");
        site.api.on_model(|call| if call.seed == Some(2) { Answer::error(503, "later") } else { call.good() });
        let daemon = site.run();
        site.wait("the second is due", || daemon.log().contains("delivered drop=a.jpg") && site.api.calls().len() == 2);
        site.wait("and said to be", || site.status()["work"][0]["state"] == "due");
        daemon.kill();
    });
}

#[test]
fn when_one_of_two_shots_is_sent_again_after_it_was_due() {
    at_every_harm(1, always, |site| {
        site.set("retry.first_delay", "1s").set("retry.max_delay", "1s");
        site.put_picture("inbox/a.jpg");
        site.put("inbox/a.toml", "seeds = [1, 2]\n");
        let gate = Gate::default();
        let held = gate.clone();
        site.api.on_model(move |call| match (call.seed, call.n) {
            (Some(1), _) => call.good(),
            (_, 1..=2) => Answer::error(503, "later"),
            // This send is what was committed last.
            _ => call.good().after(&held),
        });
        let daemon = site.run();
        site.wait("it is sent again", || site.api.calls().len() == 3 && site.has("outbox/a-1.png"));
        daemon.kill();
        gate.open();
    });
}

#[test]
fn when_it_was_on_its_way_back_into_the_inbox() {
    for how in [Garbage, Page, Lost] {
        let site = Site::new();
        assert_eq!(site.once(), 0);
        // Its sidecars are back already.
        site.put("inbox/a.txt", "a prompt that nobody asked for alone");
        site.put("working/a.jpg", site.a_picture());
        harm(&site, how);
        site.set("watch.give_up", "10m");
        assert_eq!(site.once(), 3, "{how:?}\n{}", site.describe());
        assert_eq!(site.api.calls().len(), 0, "{how:?}: the prompt alone was sent\n{}", site.describe());
        assert!(site.has("errors/a.jpg") && site.is_empty(), "{how:?}\n{}", site.describe());
    }
}

#[test]
fn when_it_is_filed_and_its_row_is_open() {
    let site = Site::new();
    killed_before(&site, "archive");
    let before = site.files("state");
    assert_eq!(site.once(), 0, "{}", site.describe());
    assert_eq!(site.names("archive"), ["a.jpg"]);
    let done = (site.files("outbox"), site.files("archive"));
    let put_back = || {
        let _ = fs::remove_file(site.path("state/ledger.db-wal"));
        for name in ["ledger.db", "ledger.db-wal"] {
            fs::write(site.path("state").join(name), &before[Path::new(name)]).unwrap();
        }
    };
    put_back();
    assert_eq!(site.once(), 0, "the row is closed\n{}", site.describe());
    for how in ALL {
        put_back();
        harm(&site, how);
        let code = site.once();
        assert!(code == 0 || code == 3, "{how:?}: {code}\n{}", site.describe());
        assert!(done == (site.files("outbox"), site.files("archive")), "{how:?}\n{}", site.describe());
        assert_eq!(site.api.calls().len(), 1, "{how:?}\n{}", site.describe());
    }
}
