//! Crashes, stops, signals and limits: what the real binary makes of them.

#![allow(clippy::unwrap_used, reason = "tests say so by failing")]

use crate::support;

use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;
use support::api::result;
use support::{Answer, Daemon, Gate, Site, pictures};

/// A site whose first model call is held until the gate opens, and a daemon that made it.
fn held(site: &Site) -> (Gate, Daemon) {
    let gate = Gate::default();
    let held = gate.clone();
    site.api.on_model(move |call| if call.n == 1 { call.good().after(&held) } else { call.good() });
    let daemon = site.run();
    site.wait("it is sent", || site.api.calls().len() == 1);
    (gate, daemon)
}

#[test]
fn a_kill_while_sending_is_unconfirmed_and_never_sent_again() {
    let site = Site::new();
    site.put_picture("inbox/deep/a.jpg");
    site.put("inbox/deep/a.txt", "once");
    let (gate, daemon) = held(&site);
    assert_eq!(site.names("working"), ["deep/a.jpg", "deep/a.txt"], "what is being sent is in working");
    daemon.kill();
    gate.open();
    assert_eq!(site.once(), 3, "{}", site.describe());
    assert_eq!(site.names("errors"), ["deep/a.error.txt", "deep/a.jpg", "deep/a.txt"]);
    let note = site.note("errors/deep/a.error.txt");
    assert!(note.contains("billed: unknown") && note.contains("again"), "{note}");
    assert_eq!(site.once(), 0);
    assert_eq!(site.api.calls().len(), 1);
    // A person drops it again: then it is sent again.
    fs::rename(site.path("errors/deep/a.txt"), site.path("inbox/deep/a.txt")).unwrap();
    fs::rename(site.path("errors/deep/a.jpg"), site.path("inbox/deep/a.jpg")).unwrap();
    assert_eq!(site.once(), 0);
    assert_eq!(site.api.calls().len(), 2);
    assert!(site.names("errors").is_empty(), "the note was ours");
}

#[test]
fn a_kill_while_sending_is_sent_once_more_where_that_is_asked_for() {
    let site = Site::new();
    site.set("retry.unconfirmed", "retry");
    site.put_picture("inbox/a.jpg");
    let (gate, daemon) = held(&site);
    daemon.kill();
    gate.open();
    assert_eq!(site.once(), 0, "{}", site.describe());
    assert_eq!(site.api.calls().len(), 2);
    assert_eq!(site.provenance("outbox/a.reimagined.json")["unconfirmed_attempts"], true);
}

#[test]
fn a_kill_between_two_shots_sends_only_what_was_not_sent() {
    let site = Site::new();
    site.set("api.max_in_flight", 1);
    site.put_picture("inbox/a.jpg");
    site.put("inbox/a.toml", "seeds = [1, 2, 3]\n");
    let gate = Gate::default();
    let held = gate.clone();
    site.api.on_model(move |call| if call.seed == Some(2) { call.good().after(&held) } else { call.good() });
    let daemon = site.run();
    site.wait("the second is sent", || site.api.calls().len() == 2);
    site.wait_for("outbox/a-1.png");
    daemon.kill();
    gate.open();
    assert_eq!(site.once(), 3, "{}", site.describe());
    let seeds: Vec<_> = site.api.calls().iter().map(support::api::Request::seed).collect();
    assert_eq!(seeds, [Some(1), Some(2), Some(3)]);
    assert_eq!(site.results(), ["a-1.png", "a-3.png"]);
    let note = site.note("errors/a.error.txt");
    for words in ["seed 1: delivered as a-1.png; billed: yes", "seed 2: unconfirmed", "seed 3: delivered as a-3.png"] {
        assert!(note.contains(words), "{words} is not in: {note}");
    }
}

#[test]
fn a_kill_while_the_answers_body_comes_is_unconfirmed() {
    let site = Site::new();
    let gate = Gate::default();
    let held = gate.clone();
    site.api.on_model(move |call| call.good().stall(30, &held));
    site.put_picture("inbox/a.jpg");
    let daemon = site.run();
    site.wait("it is sent", || site.api.calls().len() == 1);
    site.wait("some of it came", || {
        walkdir::WalkDir::new(site.path("state/spool"))
            .into_iter()
            .filter_map(Result::ok)
            .any(|e| e.file_type().is_file())
    });
    daemon.kill();
    gate.open();
    assert_eq!(site.once(), 3, "{}", site.describe());
    assert!(site.note("errors/a.error.txt").contains("billed: unknown"));
    assert!(site.results().is_empty());
    assert_eq!(site.api.calls().len(), 1);
}

#[test]
fn a_kill_between_answer_and_download_is_downloaded_without_a_new_request() {
    let site = Site::new();
    let gate = Gate::default();
    let held = gate.clone();
    let url = site.api.url() + "/results/x.png";
    site.api.on_model(move |_| Answer::json(200, &json!({ "image": url })).header("x-cost", "0.05"));
    site.api.on_other(move |request, n| {
        let answer = Answer::picture(&pictures::png(5));
        (request.path == "/results/x.png").then(|| if n == 1 { answer.after(&held) } else { answer })
    });
    site.put_picture("inbox/a.jpg");
    let daemon = site.run();
    site.wait("it downloads", || site.api.to("/results/").len() == 1);
    daemon.kill();
    gate.open();
    assert_eq!(site.once(), 0, "{}", site.describe());
    assert_eq!(site.files("outbox")[Path::new("a.png")], pictures::png(5));
    assert_eq!(site.provenance("outbox/a.reimagined.json")["cost"], 0.05);
    assert_eq!(site.api.calls().len(), 1);
}

#[test]
fn a_picture_that_was_received_is_delivered_after_a_crash_without_a_new_request() {
    let site = Site::new();
    // The outbox can't be written, so that the picture stays in the spool.
    fs::remove_dir(site.path("outbox")).unwrap();
    fs::create_dir(site.path("outbox")).unwrap();
    site.put_picture("inbox/a.jpg");
    let (gate, daemon) = held(&site);
    fs::rename(site.path("outbox"), site.path("away")).unwrap();
    fs::write(site.path("outbox"), "no folder").unwrap();
    gate.open();
    site.wait("it waits for its outbox", || site.status()["state"] == "paused");
    daemon.kill();
    assert!(site.has("working/a.jpg"));
    fs::remove_file(site.path("outbox")).unwrap();
    fs::rename(site.path("away"), site.path("outbox")).unwrap();
    assert_eq!(site.once(), 0, "{}", site.describe());
    assert_eq!(site.files("outbox")[Path::new("a.png")], result(1));
    assert_eq!(site.api.calls().len(), 1);
}

#[test]
fn a_termination_lets_what_is_in_flight_finish_and_takes_nothing_new() {
    let site = Site::new();
    site.put_picture("inbox/a.jpg");
    let (gate, mut daemon) = held(&site);
    daemon.signal(Signal::TERM);
    site.wait("it says so", || daemon.log().contains("stopping"));
    site.put_picture("inbox/b.jpg");
    assert!(daemon.runs());
    gate.open();
    assert_eq!(daemon.ends(), 0);
    assert_eq!(site.results(), ["a.png"]);
    assert_eq!(site.names("archive"), ["a.jpg"]);
    assert_eq!(site.names("inbox"), ["b.jpg"]);
    assert_eq!(site.status()["state"], "stopped");
    assert_eq!(site.once(), 0);
    assert_eq!(site.api.calls().len(), 2);
}

#[test]
fn a_termination_sends_back_what_was_not_sent() {
    let site = Site::new();
    site.set("retry.first_delay", "10m").set("retry.max_delay", "10m");
    site.api.on_model(|_| Answer::error(503, "later"));
    site.put_picture("inbox/a.jpg");
    site.put("inbox/a.txt", "in backoff");
    let daemon = site.run();
    site.wait("it is in backoff", || site.status()["work"][0]["state"] == "due" || daemon.log().contains("later"));
    site.wait("it was answered", || site.api.calls().len() == 1 && site.status()["in_work"] == 1);
    assert_eq!(daemon.stop(), 0);
    assert_eq!(site.names("inbox"), ["a.jpg", "a.txt"], "a shot in backoff is not in flight");
    assert!(site.names("working").is_empty());
    site.set("retry.max_attempts", 2);
    assert_eq!(site.once(), 3, "its attempts are remembered");
    assert_eq!(site.api.calls().len(), 2);
}

#[test]
fn the_end_of_the_grace_ends_it_whatever_is_in_flight() {
    let site = Site::new();
    site.set("service.grace", "300ms");
    site.put_picture("inbox/a.jpg");
    let (gate, daemon) = held(&site);
    assert_eq!(daemon.stop(), 0);
    assert!(site.has("working/a.jpg"));
    gate.open();
    assert_eq!(site.once(), 3);
    assert!(site.note("errors/a.error.txt").contains("billed: unknown"));
    assert_eq!(site.api.calls().len(), 1);
}

#[test]
fn a_second_termination_ends_it_at_once() {
    let site = Site::new();
    site.put_picture("inbox/a.jpg");
    let (gate, daemon) = held(&site);
    daemon.signal(Signal::INT);
    site.wait("it says so", || daemon.log().contains("stopping"));
    daemon.signal(Signal::INT);
    daemon.ends();
    gate.open();
    assert_eq!(site.api.calls().len(), 1);
    assert!(site.has("working/a.jpg"));
}

#[test]
fn a_second_daemon_for_the_same_inbox_or_state_is_refused() {
    let site = Site::new();
    let first = site.run();
    site.wait("it runs", || site.status()["state"] == "running");
    assert_eq!(site.run().ends(), 5);
    assert_eq!(site.once(), 5);
    // Another state directory, the same inbox.
    site.set("service.state_dir", "other-state");
    assert_eq!(site.run().ends(), 5);
    assert!(site.logs().contains("another daemon holds this inbox"), "{}", site.logs());
    // Nor does it help to have another working folder, or only a part of the inbox.
    fs::create_dir_all(site.path("inbox/look")).unwrap();
    for working in ["other-working", "inbox/.working"] {
        site.set("folders.working", working);
        assert_eq!(site.once(), 5, "{working}: {}", site.logs());
    }
    site.unset("folders.working").set("folders.inbox", "inbox/look");
    assert_eq!(site.once(), 5, "{}", site.logs());
    site.set("folders.inbox", "inbox");
    fs::remove_file(site.path("working/.lock")).unwrap();
    assert_eq!(site.once(), 5, "whatever became of the file");
    site.set("service.state_dir", "state");
    assert_eq!(first.stop(), 0);
    assert_eq!(site.once(), 0, "the locks went with it");
}

/// The one around it is started later, so that nothing keeps it from starting.
#[test]
fn the_working_folder_of_a_daemon_whose_inbox_lies_in_another_is_left_to_it() {
    let site = Site::new();
    fs::create_dir_all(site.path("inbox/look")).unwrap();
    site.set("folders.inbox", "inbox/look");
    site.put_picture("inbox/look/a.jpg");
    let (gate, daemon) = held(&site);
    assert!(site.has("inbox/working/a.jpg"));
    site.set("folders.inbox", "inbox").set("service.state_dir", "other-state");
    assert_eq!(site.once(), 0, "{}", site.logs());
    assert!(site.logs().contains("is the working folder of another daemon"), "{}", site.logs());
    assert!(site.has("inbox/working/a.jpg"));
    assert_eq!(site.api.uploads().len(), 1, "not even read");
    gate.open();
    site.wait_archived("a.jpg");
    assert_eq!(daemon.stop(), 0);
    assert_eq!(site.api.calls().len(), 1);
}

/// As between a daemon on a machine and one in a container that was given the inbox alone.
#[test]
fn what_another_daemon_of_the_same_inbox_has_in_flight_is_left_to_it() {
    let site = Site::new();
    site.set("service.state_dir", "other-state");
    assert_eq!(site.once(), 0, "its ledger is good");
    site.set("service.state_dir", "state").set("folders.working", "inbox/.working");
    site.put_picture("inbox/a.jpg");
    let (gate, daemon) = held(&site);
    assert!(site.has("inbox/.working/a.jpg"));
    site.set("service.state_dir", "other-state").unset("folders.working");
    assert_eq!(site.once(), 5, "{}", site.logs());
    assert!(site.has("inbox/.working/a.jpg"), "{}", site.logs());
    gate.open();
    site.wait("it is delivered", || site.has("archive/a.jpg"));
    assert_eq!(daemon.stop(), 0);
    assert_eq!(site.api.calls().len(), 1);
}

#[test]
fn once_says_by_its_exit_code_how_it_went() {
    let site = Site::new();
    assert_eq!(site.once(), 0, "nothing to do");
    site.put_picture("inbox/a.jpg");
    assert_eq!(site.once(), 0);
    site.api.on_model(|_| Answer::error(422, "no"));
    site.put_picture("inbox/b.jpg");
    assert_eq!(site.once(), 3, "one failed");
    assert_eq!(site.once(), 0, "what failed before is no news");
    site.put("inbox/broken/preset.toml", "oops = 1\n");
    assert_eq!(site.once(), 3, "a broken preset");
    fs::remove_file(site.path("inbox/broken/preset.toml")).unwrap();
    site.forget(b"oops = 1\n");
    site.api.on_model(|_| Answer::error(402, "out of credits"));
    site.put_picture("inbox/c.jpg");
    assert_eq!(site.once(), 4, "an account pause, at once");
    assert_eq!(site.names("inbox"), ["c.jpg"]);
    site.set("folders.inboxx", "typo");
    assert_eq!(site.once(), 2, "a broken configuration");
    assert!(site.logs().contains("inboxx"));
    site.unset("folders.inboxx");
    site.api.on_model(support::Call::good);
    assert_eq!(site.once(), 0);
}

#[test]
fn once_leaves_what_waits_for_a_person_and_lists_it() {
    let site = Site::new();
    site.unset("preset.prompt");
    site.put_picture("inbox/no-prompt.jpg");
    site.put_picture("inbox/off/a.jpg");
    site.put("inbox/off/preset.toml", "enabled = false\nprompt = \"x\"\n");
    assert_eq!(site.once(), 0);
    assert!(site.names("errors").is_empty());
    let status = site.status();
    assert_eq!(status["waiting"], json!({ "disabled": 1, "prompt": 1 }), "{status:#}");
    assert!(site.logs().contains("no-prompt.jpg"), "{}", site.logs());
}

#[test]
fn without_a_key_it_waits_for_one() {
    let site = Site::new();
    site.put_picture("inbox/a.jpg");
    let mut command = site.command();
    command.env_remove("SEGMIND_API_KEY").args(["run", "--once"]);
    assert_eq!(Daemon::spawn(command, &site.path("no-key.log")).ends(), 4);
    site.set("api.key_file", "key");
    let mut command = site.command();
    command.env_remove("SEGMIND_API_KEY").arg("run");
    let _daemon = Daemon::spawn(command, &site.path("no-key.log"));
    site.wait("it is paused", || site.status()["state"] == "paused");
    assert!(site.api.requests().is_empty(), "without a key nobody is asked");
    let secret = site.path("key");
    fs::write(&secret, support::KEY).unwrap();
    fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    site.wait_archived("a.jpg");
    fs::remove_file(&secret).unwrap();
}

#[test]
fn a_hangup_reads_the_configuration_again_and_keeps_the_old_one_where_the_new_one_is_broken() {
    let site = Site::new();
    let daemon = site.run();
    site.a_later_drop_is_done();
    site.set("preset.prompt", "a new look");
    daemon.signal(Signal::HUP);
    site.wait("the new one holds", || {
        site.a_later_drop_is_done();
        site.api.calls_with("a new look") > 0
    });
    site.set("preset.steps_num", 1000);
    daemon.signal(Signal::HUP);
    site.wait("it says that it is broken", || daemon.log().contains("the old one stays"));
    assert!(daemon.log().contains("steps_num"), "{}", daemon.log());
    site.a_later_drop_is_done();
    site.unset("preset.steps_num");
    site.set("folders.outbox", "other-outbox").set("preset.prompt", "third");
    daemon.signal(Signal::HUP);
    site.wait("it says what counts only later", || daemon.log().contains("only on restart"));
    site.a_later_drop_is_done();
    assert!(!site.has("other-outbox"));
    assert_eq!(site.api.calls_with("third"), 1);
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn a_hangup_that_hangs_or_comes_early_keeps_nothing_up() {
    use std::os::unix::net::UnixDatagram;
    let site = Site::new();
    let socket = UnixDatagram::bind(site.path("notify")).unwrap();
    socket.set_nonblocking(true).unwrap();
    let told = || {
        let (mut all, mut buffer) = (String::new(), [0; 4096]);
        while let Ok(length) = socket.recv(&mut buffer) {
            all.push_str(std::str::from_utf8(&buffer[..length]).unwrap());
        }
        all
    };
    // The first scan takes a moment.
    for n in 0..4000 {
        fs::write(site.path(format!("inbox/{n}.ignored.part")), "x").unwrap();
    }
    let mut command = site.command();
    command.arg("run").env("NOTIFY_SOCKET", site.path("notify"));
    let daemon = Daemon::spawn(command, &site.next_log());
    site.wait("it is there, and hears signals", || site.has("state/daemon.lock"));
    for _ in 0..20 {
        daemon.signal(Signal::HUP);
        std::thread::sleep(Duration::from_millis(5));
    }
    let mut heard = String::new();
    site.wait("it is ready", || {
        heard.push_str(&told());
        heard.contains("READY=1")
    });
    let early = heard.split("READY=1").next().unwrap();
    assert!(!early.contains("RELOADING"), "{heard}");
    // A file that nobody writes into.
    fs::remove_file(site.config_file()).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, site.config_file(), rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
    daemon.signal(Signal::HUP);
    site.wait("it begins", || {
        heard.push_str(&told());
        heard.contains("RELOADING=1")
    });
    assert_eq!(daemon.stop(), 0);
    heard.push_str(&told());
    assert!(heard.contains("STOPPING=1\n") && heard.contains("EXTEND_TIMEOUT_USEC="), "{heard}");
}

#[test]
fn once_that_is_ended_by_a_person_says_that_something_is_left() {
    let site = Site::new();
    site.set("api.max_in_flight", 1);
    for name in ["a", "b", "c"] {
        site.put_picture(format!("inbox/{name}.jpg"));
    }
    let gate = Gate::default();
    let held = gate.clone();
    site.api.on_model(move |call| call.good().after(&held));
    let daemon = site.begin_once();
    site.wait("the first is sent", || site.api.calls().len() == 1);
    daemon.signal(Signal::INT);
    site.wait("it says so", || daemon.log().contains("stopping"));
    gate.open();
    assert_eq!(daemon.ends(), 4, "{}", site.describe());
    assert_eq!(site.once(), 0);
    assert_eq!(site.api.calls().len(), 3);
}

#[test]
fn folders_that_a_reload_would_put_into_one_another_are_refused_and_those_that_came_to_lie_so_pause() {
    let site = Site::new();
    let daemon = site.run();
    site.set("folders.errors", "inbox/errors");
    daemon.signal(Signal::HUP);
    site.wait("it is refused", || daemon.log().contains("overlap") && daemon.log().contains("the old one stays"));
    site.set("folders.errors", "errors");
    // Made before the other goes, or it would get its inode.
    fs::create_dir(site.path("inbox/look")).unwrap();
    fs::remove_dir(site.path("outbox")).unwrap();
    std::os::unix::fs::symlink("inbox/look", site.path("outbox")).unwrap();
    daemon.signal(Signal::HUP);
    site.wait_paused(&["overlap"]);
    fs::remove_file(site.path("outbox")).unwrap();
    fs::create_dir(site.path("outbox")).unwrap();
    site.wait_running();
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn a_changed_key_is_read_before_each_probe() {
    let site = Site::new();
    site.set("api.key_file", "key");
    let secret = site.path("key");
    let write = |key: &str| {
        fs::write(&secret, key).unwrap();
        fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    };
    write("an old key");
    site.put_picture("inbox/a.jpg");
    let mut command = site.command();
    command.env_remove("SEGMIND_API_KEY").arg("run");
    let _daemon = Daemon::spawn(command, &site.path("key.log"));
    site.wait("it is paused", || site.status()["state"] == "paused");
    write(&format!("{}\n", support::KEY));
    site.wait_archived("a.jpg");
    fs::remove_file(&secret).unwrap();
}

#[test]
fn what_the_former_working_folder_holds_is_not_forgotten_and_not_sent_again() {
    for ledger_is_lost in [false, true] {
        let site = Site::new();
        site.put_picture("inbox/a.jpg");
        let (_gate, daemon) = held(&site);
        daemon.kill();
        if ledger_is_lost {
            for name in site.names("state").into_iter().filter(|name| name.starts_with("ledger")) {
                fs::remove_file(site.path("state").join(name)).unwrap();
            }
        }
        // As a kill between claim and commit leaves it.
        site.put_picture("working/b.jpg");
        site.set("folders.working", "inbox/.working");
        let _daemon = site.run();
        let note = site.wait_failed("a.jpg");
        assert!(note.contains("unconfirmed"), "{note}");
        if ledger_is_lost {
            site.wait_failed("b.jpg");
        } else {
            site.wait_archived("b.jpg");
        }
        assert_eq!(site.api.calls().len(), if ledger_is_lost { 1 } else { 2 }, "{}", site.describe());
    }
}

#[test]
fn a_folder_beside_the_inbox_that_never_was_its_working_folder_is_left_alone() {
    for lock in [None, Some("some other program's"), Some("\n/srv/another/inbox\n")] {
        let site = Site::new();
        left_alone(&site, lock);
    }
}

fn left_alone(site: &Site, lock: Option<&str>) {
    site.set("folders.working", "elsewhere");
    if let Some(lock) = lock {
        fs::write(site.path("working/.lock"), lock).unwrap();
    }
    let mine = site.put_picture("working/mine.jpg");
    let daemon = site.run();
    site.a_later_drop_is_done();
    assert_eq!(daemon.stop(), 0);
    assert_eq!((fs::read(site.path("working/mine.jpg")).unwrap(), site.names("errors").len()), (mine, 0));
}

#[test]
fn what_went_back_at_the_end_is_told_as_waiting() {
    let waiting = |site: &Site| -> u64 {
        site.status()["waiting"].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum()
    };
    let site = Site::new();
    site.api.on_model(|_| Answer::error(401, "Invalid API key"));
    site.put_picture("inbox/a.jpg");
    site.put_picture("inbox/deep/b.jpg");
    assert_eq!(site.once(), 4, "{}", site.describe());
    assert_eq!(waiting(&site), 2, "{}", site.status());
    // In a backoff that the end does not wait for.
    let site = Site::new();
    site.set("retry.first_delay", "10s").set("retry.max_delay", "10s");
    site.api.on_model(|_| Answer::error(500, "later"));
    site.put_picture("inbox/a.jpg");
    let daemon = site.run();
    site.wait("it is tried again later", || site.status()["work"][0]["state"] == "due");
    assert_eq!(daemon.stop(), 0);
    assert_eq!((waiting(&site), site.names("inbox").len()), (1, 1), "{}", site.status());
}

#[test]
fn a_failure_whose_picture_comes_back_and_is_delivered_counts_no_more() {
    let site = Site::new();
    site.api.on_other(|request, n| {
        (request.path == support::api::UPLOAD && n == 1).then(|| Answer::error(422, "the picture was not nice"))
    });
    site.put_picture("inbox/a.jpg");
    site.put_picture("inbox/b.jpg");
    site.put("inbox/b.toml", "prompt = \"one\"");
    site.put("inbox/b.TOML", "prompt = \"two\"");
    assert_eq!(site.once(), 3, "{}", site.describe());
    assert_eq!(site.status()["failed"], 2, "{}", site.status());
    fs::remove_file(site.path("errors/b.TOML")).unwrap();
    site.forget(b"prompt = \"two\"");
    assert!(site.call(&["retry", "--all"]).status.success());
    assert_eq!(site.once(), 0, "{}", site.describe());
    assert_eq!((site.status()["failed"].as_u64(), site.results().len()), (Some(0), 2), "{}", site.status());
}

#[test]
fn a_late_sidecar_stays_in_errors_unless_it_is_named() {
    let site = Site::new();
    let daemon = site.run();
    site.put_picture("inbox/a.jpg");
    site.wait_archived("a.jpg");
    for (late, filed) in [("first", "a.txt"), ("second", "a (2).txt")] {
        site.put("inbox/a.txt", late);
        assert!(site.wait_failed(filed).contains("drop both again"));
    }
    site.wait("both are filed", || daemon.log().matches("in errors").count() == 2);
    let out = site.call(&["retry", "--all"]);
    let said = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success() && said.matches("stays in errors").count() == 2, "{said}");
    site.a_later_drop_is_done();
    assert_eq!(site.api.calls().len(), 2, "{}", site.describe());
    assert!(site.call(&["retry", "a (2).txt"]).status.success());
    site.wait("it is sent as a prompt", || site.api.calls_with("second") == 1);
    site.wait_archived("a (2).txt");
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn a_drop_whose_folder_was_renamed_meanwhile_keeps_its_look() {
    let (site, gate) = (Site::new(), Gate::default());
    site.put("inbox/look/preset.toml", "prompt = 'the inner look'");
    let held = gate.clone();
    site.api.on_model(move |call| match call.n {
        1 => Answer::error(401, "Invalid API key").after(&held),
        _ => call.good(),
    });
    let _daemon = site.run();
    site.wait("the preset is known", || site.status()["state"] == "running");
    site.put_picture("inbox/look/a.jpg");
    site.wait("it is sent", || site.api.calls().len() == 1);
    fs::rename(site.path("inbox/look"), site.path("inbox/renamed")).unwrap();
    gate.open();
    site.wait_archived("look/a.jpg");
    assert_eq!(site.api.calls_with("the inner look"), 2, "{}", site.describe());
    assert!(!site.has("inbox/look"), "{}", site.describe());
}

#[test]
fn no_key_goes_to_the_hosts_of_another_configuration() {
    let (site, other, gate) = (Site::new(), support::Api::start(), Gate::default());
    let write = |name: &str, key: &str| {
        fs::write(site.path(name), key).unwrap();
        fs::set_permissions(site.path(name), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    };
    write("first-key", "the-first-key");
    write("second-key", support::KEY);
    let held = gate.clone();
    site.api.on_other(move |request, n| match (request.path.as_str(), n) {
        (support::api::UPLOAD, 1) => Some(Answer::error(500, "try again").after(&held)),
        (support::api::UPLOAD, _) => {
            Some(Answer::json(200, &json!({ "file_urls": ["https://assets.example.com/b.jpg"] })))
        }
        _ => None,
    });
    // The same bytes: the second waits for the first's upload, and then makes its own.
    let bytes = site.put_picture("inbox/a.jpg");
    site.put("inbox/b.jpg", &bytes);
    site.set("api.key_file", "first-key");
    let mut command = site.command();
    command.env_remove("SEGMIND_API_KEY").arg("run");
    let daemon = Daemon::spawn(command, &site.path("keys.log"));
    site.wait("one uploads", || site.api.to(support::api::UPLOAD).len() == 1);
    site.set("api.key_file", "second-key").set("api.base_url", other.url());
    site.set("api.upload_url", other.url() + support::api::UPLOAD);
    daemon.signal(Signal::HUP);
    site.a_later_drop_is_done();
    assert!(!other.calls().is_empty(), "the new configuration holds");
    gate.open();
    site.wait_archived("a.jpg");
    site.wait_archived("b.jpg");
    assert!(site.api.to(support::api::UPLOAD).len() > 1, "{}", site.describe());
    for (api, key) in [(&site.api, "the-first-key"), (&other, support::KEY)] {
        for request in api.requests() {
            assert_eq!(request.header("x-api-key"), Some(key), "{} {}", request.method, request.path);
        }
    }
    // For the end's look at what was told: it knows one key.
    fs::remove_file(site.path("first-key")).unwrap();
    fs::remove_file(site.path("second-key")).unwrap();
}

#[test]
fn a_signal_makes_it_look_again_at_once() {
    let site = Site::new();
    site.set("watch.backend", "poll").set("watch.poll_interval", "10m").set("watch.rescan", "10m");
    let daemon = site.run();
    site.wait("it runs", || site.status()["backend"] == "poll");
    site.put_picture("inbox/a.jpg");
    site.wait("it is old enough", || {
        let age = fs::metadata(site.path("inbox/a.jpg")).unwrap().modified().unwrap().elapsed().unwrap();
        age.as_millis() > 6000
    });
    daemon.signal(Signal::USR1);
    site.wait_archived("a.jpg");
}

#[test]
fn the_hourly_limit_holds_over_restarts_and_the_rest_waits_in_the_inbox() {
    let site = Site::new();
    site.set("limits.images_per_hour", 2);
    for n in 0..3 {
        site.put_picture(format!("inbox/{n}.jpg"));
    }
    assert_eq!(site.once(), 4, "{}", site.describe());
    assert_eq!((site.api.calls().len(), site.names("inbox").len()), (2, 1));
    assert_eq!(site.once(), 4, "{}", site.describe());
    assert_eq!(site.api.calls().len(), 2);
    let daemon = site.run();
    site.wait("it waits for the limit", || site.waiting("limit") == 1);
    let status = site.status();
    let until: jiff::Timestamp = status["limit_until"].as_str().unwrap().parse().unwrap();
    let minutes = until.duration_since(jiff::Timestamp::now()).as_mins();
    assert!((55..=60).contains(&minutes), "{status:#}");
    assert!(site.names("working").is_empty());
    assert_eq!(daemon.stop(), 0);
    assert_eq!(site.api.calls().len(), 2);
    site.set("limits.images_per_hour", 3);
    assert_eq!(site.once(), 0);
}

#[test]
fn a_refused_request_is_given_back_to_the_limit() {
    let site = Site::new();
    site.set("limits.images_per_day", 1);
    site.api.on_model(|call| if call.prompt == "bad" { Answer::error(422, "no") } else { call.good() });
    site.put("inbox/bad.txt", "bad");
    assert_eq!(site.once(), 3);
    site.put("inbox/good.txt", "good");
    assert_eq!(site.once(), 0, "nothing was billed before");
    site.put("inbox/more.txt", "more");
    assert_eq!(site.once(), 4);
}

#[test]
fn more_variants_than_allowed_fail_the_drop() {
    let site = Site::new();
    site.set("limits.max_variants", 2).set("limits.locked", vec!["seed"]);
    site.put("inbox/many.toml", "prompt = \"x\"\nvariants = 3\n");
    site.put("inbox/locked.toml", "prompt = \"x\"\nseed = 3\n");
    assert_eq!(site.once(), 3);
    assert!(site.note("errors/many.error.txt").contains("max_variants"), "{}", site.describe());
    assert!(site.note("errors/locked.error.txt").contains("seed"), "{}", site.describe());
    assert!(site.api.calls().is_empty());
}

#[test]
fn the_status_says_what_is_in_work_what_waits_and_what_failed() {
    let site = Site::new();
    site.api.on_model(|call| if call.prompt == "bad" { Answer::error(422, "not nice") } else { call.good() });
    site.put("inbox/bad.txt", "bad");
    assert_eq!(site.once(), 3);
    let stopped = site.status();
    assert_eq!(stopped["state"], "stopped");
    assert_eq!(stopped["failed"], 1);
    assert_eq!(stopped["last_failures"][0]["drop"], "bad.txt");
    let gate = Gate::default();
    let held = gate.clone();
    site.api.on_model(move |call| call.good().after(&held));
    site.put_picture("inbox/x/a.jpg");
    site.put("inbox/late/preset.toml", "reference = \"required\"\n");
    site.put("inbox/late/b.txt", "waits");
    let daemon = site.run();
    site.wait("one is in work, one waits", || site.status()["in_work"] == 1 && site.waiting("image") == 1);
    let output = site.call(&["status", "--json"]);
    assert!(output.status.success());
    let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    for key in ["state", "paused", "in_work", "waiting", "failed", "last_24h", "last_hour", "credits"] {
        assert!(status.get(key).is_some(), "{key} is not in {status:#}");
    }
    assert_eq!(status["state"], "running");
    assert_eq!(status["paused"], json!(null));
    assert_eq!(status["work"][0]["drop"], "x/a.jpg");
    let text = String::from_utf8(site.call(&["status"]).stdout).unwrap();
    assert!(text.contains("x/a.jpg"), "{text}");
    gate.open();
    site.wait_archived("x/a.jpg");
    assert_eq!(daemon.stop(), 0);
    let status: serde_json::Value = serde_json::from_slice(&site.call(&["status", "--json"]).stdout).unwrap();
    assert_eq!(status["state"], "stopped");
    assert_eq!(status["last_24h"]["images"], 1);
}

#[test]
fn a_lost_inbox_pauses_and_comes_back() {
    let site = Site::new();
    site.set("watch.sidecar_wait", "1500ms");
    let daemon = site.run();
    site.a_later_drop_is_done();
    site.put_picture("inbox/a.jpg");
    site.wait("it waits for a sidecar", || site.waiting("sidecar") == 1);
    fs::rename(site.path("inbox"), site.path("inbox-away")).unwrap();
    site.wait("it is paused", || site.paused().is_some_and(|why| why.contains("inbox")));
    assert_eq!(site.api.calls().len(), 1);
    fs::rename(site.path("inbox-away"), site.path("inbox")).unwrap();
    site.wait_archived("a.jpg");
    site.wait("it runs", || site.status()["state"] == "running");
    // Another folder in its place.
    fs::rename(site.path("inbox"), site.path("inbox-old")).unwrap();
    fs::create_dir(site.path("inbox")).unwrap();
    site.put_picture("inbox/b.jpg");
    site.wait_archived("b.jpg");
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn an_inbox_that_is_not_there_at_the_start_is_waited_for() {
    let site = Site::new();
    fs::remove_dir(site.path("inbox")).unwrap();
    let daemon = site.run();
    site.wait("it is paused", || site.paused().is_some_and(|why| why.contains("inbox")));
    fs::create_dir(site.path("inbox")).unwrap();
    site.a_later_drop_is_done();
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn what_lies_in_working_unsent_goes_back_into_the_inbox() {
    let site = Site::new();
    assert_eq!(site.once(), 0);
    let picture = site.a_picture();
    site.put("working/deep/a.jpg", &picture);
    site.put("working/deep/a.txt", "never sent");
    assert_eq!(site.once(), 0, "{}", site.describe());
    assert_eq!(site.names("archive"), ["deep/a.jpg", "deep/a.txt"]);
    assert_eq!(site.api.calls_with("never sent"), 1);
}

/// The ledger's files.
fn ledger(site: &Site) -> Vec<std::path::PathBuf> {
    let files = site.files("state");
    files.into_keys().filter(|p| p.to_string_lossy().contains("ledger")).map(|p| Path::new("state").join(p)).collect()
}

#[test]
fn a_damaged_or_lost_ledger_sends_nothing_that_lies_in_working() {
    for damaged in [true, false] {
        let site = Site::new();
        site.put_picture("inbox/a.jpg");
        site.put("inbox/a.txt", "who knows");
        let (gate, daemon) = held(&site);
        daemon.kill();
        gate.open();
        let files = ledger(&site);
        assert!(!files.is_empty(), "{:?}", site.names("state"));
        for file in files {
            if damaged {
                fs::write(site.path(&file), "this is no database, whatever it was".repeat(200)).unwrap();
            } else {
                fs::remove_file(site.path(&file)).unwrap();
            }
        }
        site.put("inbox/b.txt", "goes on");
        assert_eq!(site.once(), 3, "{}", site.describe());
        assert_eq!(site.names("errors"), ["a.error.txt", "a.jpg", "a.txt"]);
        assert!(site.note("errors/a.error.txt").contains("unconfirmed"), "{}", site.note("errors/a.error.txt"));
        assert_eq!(site.api.calls_with("who knows"), 1);
        assert_eq!(site.api.calls_with("goes on"), 1);
        let kept = site.names("state").iter().any(|n| n.contains("damaged"));
        assert_eq!(kept, damaged, "{:?}", site.names("state"));
    }
}

#[test]
fn a_spooled_picture_that_no_ledger_knows_reaches_the_outbox() {
    let site = Site::new();
    site.put_picture("inbox/a.jpg");
    let (gate, daemon) = held(&site);
    fs::rename(site.path("outbox"), site.path("away")).unwrap();
    fs::write(site.path("outbox"), "no folder").unwrap();
    gate.open();
    site.wait("it waits for its outbox", || site.status()["state"] == "paused");
    daemon.kill();
    fs::remove_file(site.path("outbox")).unwrap();
    fs::rename(site.path("away"), site.path("outbox")).unwrap();
    for file in ledger(&site) {
        fs::remove_file(site.path(&file)).unwrap();
    }
    assert_eq!(site.once(), 3);
    let results = site.files("outbox");
    let (name, bytes) = results.iter().next().unwrap();
    assert!(name.to_string_lossy().starts_with("recovered-"), "{name:?}");
    assert!(*bytes == result(1));
    assert_eq!(site.api.calls().len(), 1);
}

#[test]
fn an_archive_on_another_filesystem_gets_the_originals_all_the_same() {
    let Some(elsewhere) = support::faults::elsewhere() else { return };
    let site = Site::new();
    for folder in ["outbox", "archive", "errors"] {
        site.set(&format!("folders.{folder}"), elsewhere.path().join(folder).to_str().unwrap());
        fs::create_dir(elsewhere.path().join(folder)).unwrap();
    }
    site.api.on_model(|call| if call.prompt == "bad" { Answer::error(422, "no") } else { call.good() });
    let good = site.put_picture("inbox/x/good.jpg");
    let bad = site.put_picture("inbox/x/bad.jpg");
    site.put("inbox/x/bad.txt", "bad");
    assert_eq!(site.once(), 3, "{}", site.describe());
    assert_eq!(fs::read(elsewhere.path().join("archive/x/good.jpg")).unwrap(), good);
    assert_eq!(fs::read(elsewhere.path().join("errors/x/bad.jpg")).unwrap(), bad);
    assert!(elsewhere.path().join("errors/x/bad.error.txt").exists());
    let name = walkdir::WalkDir::new(elsewhere.path().join("outbox")).into_iter().filter_map(Result::ok);
    let names: Vec<_> = name.filter(|e| e.file_type().is_file()).map(|e| e.file_name().to_owned()).collect();
    assert_eq!(names.len(), 2, "{names:?}: nothing hidden is left over");
    assert!(site.is_empty());
    for bytes in [good, bad, b"bad".to_vec()] {
        site.forget(&bytes);
    }
}

#[test]
fn nothing_is_bought_that_cannot_be_kept() {
    let site = Site::new();
    fs::remove_dir(site.path("outbox")).unwrap();
    fs::write(site.path("outbox"), "no folder").unwrap();
    site.put_picture("inbox/a.jpg");
    let code = site.begin_once().ends();
    assert!(code == 2 || code == 4, "{code}\n{}", site.describe());
    assert!(site.api.calls().is_empty());
    assert_eq!(site.names("inbox"), ["a.jpg"]);
}

#[test]
fn folders_that_lie_in_one_another_are_refused() {
    for (key, value) in [
        ("folders.outbox", "inbox/out"),
        ("folders.archive", "inbox"),
        ("folders.errors", "archive/errors"),
        ("service.state_dir", "outbox/state"),
        ("folders.working", "outbox"),
    ] {
        let site = Site::new();
        site.set(key, value);
        site.put_picture("inbox/a.jpg");
        assert_eq!(site.once(), 2, "{key} = {value}\n{}", site.describe());
        assert!(site.api.requests().is_empty());
    }
    let site = Site::new();
    std::os::unix::fs::symlink(site.path("inbox"), site.path("another-name")).unwrap();
    site.set("folders.outbox", "another-name/out");
    assert_eq!(site.once(), 2, "compared by what they are, not by their names");
}

#[test]
fn working_lies_inside_the_inbox_where_it_is_put_there() {
    let site = Site::new();
    site.set("folders.working", "inbox/.working");
    site.put_picture("inbox/a.jpg");
    let (gate, daemon) = held(&site);
    assert!(site.has("inbox/.working/a.jpg"));
    gate.open();
    site.wait_archived("a.jpg");
    assert_eq!(daemon.stop(), 0);
}
