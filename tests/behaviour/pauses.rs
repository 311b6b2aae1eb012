//! What pauses everything, and the way back: found by hard looks at the engine, held here.

#![allow(clippy::unwrap_used, reason = "tests say so by failing")]

use crate::support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;
use support::api::{CREDITS, UPLOAD};
use support::{Answer, Site};

/// A service that is unwell until it is told.
fn unwell(site: &Site, path: &'static str, status: u16) -> Arc<AtomicBool> {
    let well = Arc::new(AtomicBool::new(false));
    let is_well = well.clone();
    site.api.on_other(move |request, _| {
        let ill = request.path == path && !is_well.load(Ordering::SeqCst);
        ill.then(|| Answer::error(status, "not now"))
    });
    well
}

/// An inbox that is deleted is told by no watch on it, while the daemon has it locked.
#[test]
fn an_inbox_that_is_deleted_and_made_again_is_noticed_at_once() {
    let site = Site::new();
    site.set("watch.backend", "events").set("watch.rescan", "1h");
    let daemon = site.run();
    site.put_picture("inbox/a.jpg");
    site.wait_archived("a.jpg");
    for (round, name) in ["b.jpg", "c.jpg"].into_iter().enumerate() {
        site.wait("it is at rest", || site.names("working").is_empty());
        std::fs::remove_dir(site.path("inbox")).unwrap();
        if round == 0 {
            site.wait("it is missed", || site.paused().is_some_and(|why| why.contains("inbox")));
        }
        std::fs::create_dir(site.path("inbox")).unwrap();
        site.put_picture(format!("inbox/{name}"));
        site.wait_archived(name);
    }
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn once_ends_after_a_minute_of_one_wait_after_another() {
    // Told to wait for less than that, again and again; and a picture that its address does not give.
    let limited = Site::new();
    limited.api.on_model(|_| Answer::error(429, "slow down").header("retry-after", "3"));
    limited.put_picture("inbox/a.jpg");
    let fetched = Site::new();
    fetched.api.on_model(|_| Answer::json(200, &serde_json::json!({ "image": "http://127.0.0.1:9/none.png" })));
    fetched.put_picture("inbox/a.jpg");
    // Polled, so that it is scanned all the while.
    let polled = Site::new();
    polled.set("watch.backend", "poll").set("watch.poll_interval", "200ms").set("retry.probe_interval", "1s");
    polled.api.on_model(|_| Answer::error(503, "not now"));
    for n in 0..3 {
        polled.put_picture(format!("inbox/{n}.jpg"));
    }
    let sites = [limited, fetched, polled];
    let runs: Vec<_> = sites.iter().map(Site::begin_once).collect();
    for (site, run) in sites.iter().zip(runs) {
        assert_eq!(run.ends(), 4, "{}", site.describe());
    }
    let [limited, fetched, polled] = sites;
    assert_eq!(limited.names("inbox"), ["a.jpg"]);
    assert_eq!(polled.names("inbox").len(), 3, "an outage sends nothing to errors");
    // It was paid for, so it is not sent again, but asked for at the next start.
    assert_eq!((fetched.names("working").len(), fetched.api.calls().len()), (1, 1));
}

#[test]
fn an_outage_of_uploads_costs_no_drop_a_try() {
    let site = Site::new();
    let well = unwell(&site, UPLOAD, 503);
    for n in 0..8 {
        site.put_picture(format!("inbox/{n}.jpg"));
    }
    let daemon = site.run();
    site.wait("it is paused", || site.status()["state"] == "paused");
    let uploads = site.api.to(UPLOAD).len();
    site.wait("it went on probing", || site.api.to(UPLOAD).len() > uploads + 8);
    assert!(site.names("errors").is_empty() && site.api.calls().is_empty(), "{}", site.describe());
    well.store(true, Ordering::SeqCst);
    site.wait("all are filed", || site.names("archive").len() == 8);
    assert!(site.names("errors").is_empty());
    assert_eq!((site.api.calls().len(), daemon.stop()), (8, 0));
}

#[test]
fn a_bad_drop_does_not_hold_up_the_way_back() {
    let site = Site::new();
    let well = unwell(&site, CREDITS, 401);
    let is_well = well.clone();
    site.api.on_model(
        move |call| {
            if is_well.load(Ordering::SeqCst) { call.good() } else { Answer::error(401, "no such key") }
        },
    );
    site.put_picture("inbox/0.jpg");
    let daemon = site.run();
    site.wait("it is paused", || site.status()["state"] == "paused");
    for n in 1..4 {
        site.put(format!("inbox/bad{n}.toml"), "steps_num = \"many\"\n");
        site.put_picture(format!("inbox/bad{n}.jpg"));
    }
    site.put_picture("inbox/z.jpg");
    well.store(true, Ordering::SeqCst);
    site.wait("the good are filed", || site.names("archive").len() == 2);
    site.wait("the bad are in errors", || site.names("errors").len() == 9);
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn a_refused_cached_upload_that_cannot_be_renewed_ends() {
    let site = Site::new();
    let bytes = site.put_picture("inbox/a.jpg");
    assert_eq!(site.once(), 0);
    let _well = unwell(&site, UPLOAD, 503);
    site.api.on_model(|_| Answer::error(400, "can't fetch it"));
    site.put("inbox/b.jpg", &bytes);
    assert_eq!(site.once(), 3, "{}", site.describe());
    assert!(site.api.calls().len() <= 1 + 4, "max_attempts holds: {}", site.api.calls().len());
    assert!(site.note("errors/b.error.txt").contains("can't fetch it"));
}

#[test]
fn an_outbox_that_became_the_inbox_pauses_before_anything_is_paid() {
    let site = Site::new();
    std::fs::create_dir_all(site.path("outbox")).unwrap();
    let daemon = site.run();
    site.wait("it runs", || site.status()["state"] == "running");
    std::fs::rename(site.path("outbox"), site.path("outbox.away")).unwrap();
    std::os::unix::fs::symlink(site.path("inbox"), site.path("outbox")).unwrap();
    site.put_picture("inbox/a.jpg");
    site.wait("it says why", || site.paused().is_some_and(|why| why.contains("overlap")));
    assert!(site.api.calls().is_empty());
    std::fs::remove_file(site.path("outbox")).unwrap();
    std::fs::rename(site.path("outbox.away"), site.path("outbox")).unwrap();
    site.wait_archived("a.jpg");
    assert_eq!((site.api.calls().len(), daemon.stop()), (1, 0));
}

#[test]
fn a_state_directory_in_the_inbox_is_refused_before_it_is_made() {
    let site = Site::new();
    site.set("service.state_dir", site.path("inbox/state").to_str().unwrap());
    assert_eq!(site.once(), 2);
    assert!(site.names("inbox").is_empty() && !site.path("inbox/state").exists());
}

#[test]
fn what_the_daemon_needs_is_never_taken_for_a_drop() {
    let site = Site::new();
    site.put("inbox/api-key.txt", "SG_0123456789");
    site.set("api.key_file", site.path("inbox/api-key.txt").to_str().unwrap());
    for args in [&["run", "--once"][..], &["check", "--offline"]] {
        let said = site.call(args);
        assert_eq!(said.status.code(), Some(2), "{args:?}");
        let text = [said.stdout, said.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        assert!(text.contains("lies in the inbox") && text.contains("[api] key_file"), "{text}");
    }
    assert_eq!(std::fs::read(site.path("inbox/api-key.txt")).unwrap(), b"SG_0123456789");
    // What has a hidden name is never touched.
    site.forget(b"SG_0123456789");
    std::fs::rename(site.path("inbox/api-key.txt"), site.path("inbox/.api-key")).unwrap();
    site.set("api.key_file", site.path("inbox/.api-key").to_str().unwrap());
    assert_eq!(site.call(&["run", "--once"]).status.code(), Some(0));
    // Nor the configuration itself.
    let site = Site::new();
    let around = site.config_file().parent().unwrap().to_path_buf();
    site.set("folders.inbox", around.to_str().unwrap());
    for folder in ["outbox", "archive", "errors"] {
        let elsewhere = tempfile::tempdir().unwrap().keep();
        site.set(&format!("folders.{folder}"), elsewhere.join(folder).to_str().unwrap());
    }
    assert_eq!(site.call(&["run", "--once"]).status.code(), Some(2));
    assert!(site.config_file().is_file());
}

#[test]
fn an_obstructed_folder_of_the_outbox_holds_its_own_drops_before_they_are_paid() {
    let site = Site::new();
    std::fs::create_dir_all(site.path("elsewhere")).unwrap();
    std::fs::create_dir_all(site.path("outbox")).unwrap();
    std::os::unix::fs::symlink(site.path("elsewhere"), site.path("outbox/look")).unwrap();
    let daemon = site.run();
    site.wait("it runs", || site.status()["state"] == "running");
    site.put_picture("inbox/look/a.jpg");
    site.wait("it waits", || site.waiting("unreadable") == 1);
    site.put_picture("inbox/b.jpg");
    site.wait_archived("b.jpg");
    assert_eq!((site.api.calls().len(), daemon.stop()), (1, 0), "{}", site.describe());
    assert!(site.files("elsewhere").is_empty());
}

#[test]
fn once_ends_when_nothing_is_in_flight_and_not_after_the_grace() {
    let site = Site::new();
    site.set("service.grace", "10m");
    site.api.on_model(|_| Answer::error(402, "no credits"));
    site.put_picture("inbox/a.jpg");
    // An account's pause ends it at once: what is in flight ends first, and nothing is.
    assert_eq!(site.once(), 4);
    assert_eq!(site.names("inbox"), ["a.jpg"]);
}

#[test]
fn a_pause_that_turns_to_another_reason_says_that_ones_words() {
    let site = Site::new();
    site.api.on_model(|_| Answer::error(402, "nothing left"));
    let revoked = Arc::new(AtomicBool::new(false));
    let is_revoked = revoked.clone();
    site.api.on_other(move |request, _| {
        (request.path == CREDITS).then(|| {
            if is_revoked.load(Ordering::SeqCst) {
                Answer::error(401, "key revoked")
            } else {
                Answer::json(200, &json!({ "credits": 0.0, "free-credits": 0.0 }))
            }
        })
    });
    site.put_picture("inbox/a.jpg");
    let daemon = site.run();
    site.wait_paused(&["out of credits", "nothing left"]);
    revoked.store(true, Ordering::SeqCst);
    site.wait_paused(&["API key", "key revoked"]);
    assert!(!site.paused().unwrap().contains("nothing left"), "{}", site.status());
    assert_eq!(daemon.stop(), 0);
}
