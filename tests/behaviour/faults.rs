//! Faults while the daemon runs, other than those of a whole disk (`storage.rs`): quota, permissions, errors of
//! the disk, open files, inotify's limits, mounts, clocks, slowness, and the ledger's file.
//!
//! While results or originals could not be kept nothing is bought, `status` says why, and when the fault is over
//! all goes on without a restart, unless a test says why it needs one.

#![allow(clippy::unwrap_used, reason = "tests say so by failing")]

use crate::support;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};
use support::faults::{Injected, Mount, Space, Wall, alone, modest, with_clock};
use support::{Daemon, Gate, Site};

/// A drop whose answer waits: it is sent, and its prompt is `held`.
fn held(site: &Site) -> Gate {
    let gate = Gate::default();
    let opens = gate.clone();
    site.api.on_model(move |call| if call.prompt == "held" { call.good().after(&opens) } else { call.good() });
    site.put("inbox/held.txt", "held");
    site.put_picture("inbox/held.jpg");
    site.wait("it is sent", || site.api.calls_with("held") == 1);
    site.wait_for("working/held.jpg");
    gate
}

/// All that was dropped is archived, with one call each, and no line was logged again and again.
fn all_is_well(site: &Site, daemon: Daemon, calls: usize) {
    site.wait("all is archived", || site.is_empty());
    site.wait_running();
    assert_eq!(site.api.calls().len(), calls, "{}", site.describe());
    assert_eq!(site.results().len(), calls, "{}", site.describe());
    assert!(site.names("errors").is_empty(), "{}", site.describe());
    assert_eq!(daemon.stop(), 0);
    let lines = site.logs().lines().count();
    assert!(lines < 150, "{lines} lines:\n{}", site.logs());
}

fn mode(site: &Site, path: &str, mode: u32) {
    fs::set_permissions(site.path(path), fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_quota_that_is_reached_holds_what_was_bought_and_stops_what_was_not() {
    let site = Site::new();
    let daemon = site.run();
    let gate = held(&site);
    let outbox = site.path("outbox");
    let fault = "renameat2:error=EDQUOT";
    let Some(quota) = Injected::into(&daemon, fault, &[&outbox], site.path("strace.log")) else {
        return site.give_up();
    };
    gate.open();
    site.wait_paused(&["/outbox", "uota"]);
    site.put_picture("inbox/later.jpg");
    let hits = quota.hits();
    site.wait("it tried again", || quota.hits() > hits);
    assert_eq!(site.api.calls().len(), 1, "{}", site.describe());
    assert_eq!(site.names("state/spool").len(), 1);
    quota.end();
    site.wait_archived("later.jpg");
    all_is_well(&site, daemon, 2);
}

#[test]
fn a_permission_that_is_taken_away_pauses_until_it_is_given_back() {
    let site = Site::new();
    let daemon = site.run_by(modest);
    for folder in ["outbox", "archive", "errors", "state"] {
        mode(&site, folder, 0o555);
        site.put_picture(format!("inbox/{folder}.jpg"));
        if folder == "state" {
            // No new status can be written there.
            site.wait("it says so", || site.logs().lines().any(|l| l.contains("paused") && l.contains("/state")));
        } else {
            site.wait_paused(&[&format!("/{folder}"), "not writable"]);
        }
        assert!(site.has(format!("inbox/{folder}.jpg")), "{}", site.describe());
        let sent = site.api.calls().len();
        mode(&site, folder, 0o755);
        site.wait_archived(&format!("{folder}.jpg"));
        assert_eq!(site.api.calls().len(), sent + 1);
    }
    let gate = held(&site);
    mode(&site, "archive", 0o555);
    gate.open();
    site.wait_paused(&["/archive", "not permitted"]);
    site.put_picture("inbox/later.jpg");
    assert!(site.has("outbox/held.png"), "{}", site.describe());
    mode(&site, "archive", 0o755);
    site.wait_archived("later.jpg");
    all_is_well(&site, daemon, 6);
}

#[test]
fn a_claim_that_cannot_be_undone_is_undone_when_it_can_be() {
    let site = Site::new();
    let daemon = site.run_by(modest);
    site.a_later_drop_is_done();
    site.wait("its row is closed", || site.logs().contains("done, original in the archive"));
    // The claim is made, and its record waits for a ledger that another program has locked.
    let mut other = rusqlite::Connection::open(site.path("state/ledger.db")).unwrap();
    let locked = other.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).unwrap();
    // (A prompt alone: nothing is uploaded, so nothing is recorded before.)
    site.put("inbox/a.txt", "alone");
    site.wait_for("working/a.txt");
    mode(&site, "inbox", 0o555);
    site.wait("it can't go back", || site.logs().contains("could not go back"));
    drop(locked);
    site.wait("it was tried again", || site.logs().contains("stays in working until it can"));
    assert_eq!((site.api.calls().len(), site.names("working").len()), (1, 1), "{}", site.describe());
    mode(&site, "inbox", 0o755);
    site.wait_archived("a.txt");
    all_is_well(&site, daemon, 2);
}

#[test]
fn a_folder_of_the_outbox_that_is_closed_holds_its_own_drops_before_they_are_paid() {
    let site = Site::new();
    fs::create_dir(site.path("outbox/look")).unwrap();
    mode(&site, "outbox/look", 0o555);
    let daemon = site.run_by(modest);
    site.put("inbox/look/a.txt", "closed");
    site.put_picture("inbox/look/a.jpg");
    site.wait("it waits", || site.waiting("unreadable") == 1);
    let waits = site.told()["waiting_for"].to_string();
    assert!(waits.contains("outbox/look") && waits.contains("not writable"), "{waits}");
    site.a_later_drop_is_done();
    assert_eq!(site.api.calls_with("closed"), 0);
    mode(&site, "outbox/look", 0o755);
    site.wait_archived("look/a.jpg");
    all_is_well(&site, daemon, 2);
}

#[test]
fn a_disk_that_cannot_sync_stops_everything_and_loses_nothing() {
    let site = Site::new();
    let daemon = site.run();
    site.a_later_drop_is_done();
    let log = site.path("strace.log");
    let fault = "fsync,fdatasync:error=EIO";
    let Some(eio) = Injected::into(&daemon, fault, &[], log.clone()) else { return site.give_up() };
    site.put_picture("inbox/before.jpg");
    site.wait_paused(&["/state", "I/O error"]);
    assert_eq!(site.api.calls().len(), 1, "{}", site.describe());
    site.wait_for("inbox/before.jpg");
    eio.end();
    site.wait_archived("before.jpg");
    // And in the middle of a request.
    let gate = held(&site);
    let eio = Injected::into(&daemon, fault, &[], log).unwrap();
    gate.open();
    site.wait_paused(&["/state", "error"]);
    site.put_picture("inbox/then.jpg");
    let hits = eio.hits();
    site.wait("it tried again", || eio.hits() > hits + 3);
    assert_eq!((site.api.calls().len(), site.results().len()), (3, 2), "{}", site.describe());
    eio.end();
    site.wait_archived("then.jpg");
    all_is_well(&site, daemon, 4);
}

#[test]
fn a_folder_that_cannot_be_synced_holds_what_was_bought() {
    let site = Site::new();
    let daemon = site.run();
    let gate = held(&site);
    let archive = site.path("archive");
    let log = site.path("strace.log");
    let Some(eio) = Injected::into(&daemon, "fsync:error=EIO", &[&archive], log) else { return site.give_up() };
    gate.open();
    site.wait_paused(&["/archive", "sync", "error"]);
    site.put_picture("inbox/then.jpg");
    assert!(site.has("outbox/held.png"));
    eio.end();
    site.wait_archived("then.jpg");
    all_is_well(&site, daemon, 2);
}

/// How many files the daemon may have open.
fn open_files(daemon: &Daemon, most: Option<u64>) -> Rlimit {
    let pid = Pid::from_raw(i32::try_from(daemon.pid()).unwrap());
    let now = rustix::process::getrlimit(Resource::Nofile);
    prlimit(pid, Resource::Nofile, Rlimit { current: most.or(now.current), maximum: now.maximum }).unwrap()
}

#[test]
fn no_file_can_be_opened_any_more_and_again() {
    let site = Site::new();
    let daemon = site.run();
    site.a_later_drop_is_done();
    // A request of its own keeps its connection through it.
    let gate = held(&site);
    open_files(&daemon, Some(3));
    gate.open();
    site.put_picture("inbox/then.jpg");
    site.wait("it says so", || site.logs().contains("Too many open files"));
    site.wait("it pauses", || site.logs().contains("paused: "));
    assert_eq!(site.api.calls().len(), 2, "{}", site.describe());
    open_files(&daemon, None);
    site.wait_archived("held.jpg");
    site.wait_archived("then.jpg");
    all_is_well(&site, daemon, 3);
}

#[test]
fn without_watches_it_polls_and_says_so() {
    alone(Space::Limits, || {
        // Of this namespace alone: what stands in fs.inotify is the whole machine's.
        fs::write("/proc/sys/user/max_inotify_watches", "2").unwrap();
        let site = Site::new();
        site.set("watch.rescan", "10m").set("watch.poll_interval", "200ms");
        let daemon = site.run();
        site.a_later_drop_is_done();
        for n in 0..4 {
            site.put_picture(format!("inbox/{n}/a.jpg"));
        }
        site.wait("it polls", || site.told()["backend"] == "poll");
        for n in 0..4 {
            site.wait_archived(&format!("{n}/a.jpg"));
        }
        site.put_picture("inbox/3/later.jpg");
        site.wait_archived("3/later.jpg");
        assert!(site.logs().contains("limit of inotify watches"), "{}", site.logs());
        all_is_well(&site, daemon, 6);
    });
}

#[test]
fn without_room_in_the_kernel_for_a_watch_it_polls() {
    let site = Site::new();
    site.set("watch.rescan", "10m").set("watch.poll_interval", "200ms");
    let daemon = site.run();
    site.a_later_drop_is_done();
    let log = site.path("strace.log");
    let fault = "inotify_add_watch:error=ENOSPC";
    let Some(_full) = Injected::into(&daemon, fault, &[], log) else { return site.give_up() };
    site.put_picture("inbox/new/a.jpg");
    site.wait("it polls", || site.told()["backend"] == "poll");
    site.wait_archived("new/a.jpg");
    site.put_picture("inbox/new/b.jpg");
    site.wait_archived("new/b.jpg");
    all_is_well(&site, daemon, 3);
}

#[test]
fn events_that_were_lost_lose_no_drop_and_send_none_twice() {
    let site = Site::new();
    // Only a scan because of the loss can find them.
    site.set("watch.rescan", "10m");
    let daemon = site.run();
    site.a_later_drop_is_done();
    let most = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
    let most: usize = most.trim().parse().unwrap();
    for name in ["a", "b"] {
        site.put(format!("inbox/.{name}"), "");
    }
    daemon.signal(Signal::STOP);
    // Every thread of it, or one reads on and nothing is lost.
    let tasks = format!("/proc/{}/task", daemon.pid());
    let stopped = |task: fs::DirEntry| {
        fs::read_to_string(task.path().join("stat"))
            .is_ok_and(|stat| stat.rsplit(')').next().unwrap().trim().starts_with('T'))
    };
    site.wait("it stands still", || fs::read_dir(&tasks).unwrap().all(|task| stopped(task.unwrap())));
    // Two files in turn, so that no event is merged with the one before.
    for n in 0..most + 1000 {
        let name = if n % 2 == 0 { "inbox/.a" } else { "inbox/.b" };
        mode(&site, name, 0o600 + u32::from(n % 4 < 2) * 0o40);
    }
    for n in 0..20 {
        site.put_picture(format!("inbox/{}/{n}.jpg", n % 3));
    }
    daemon.signal(Signal::CONT);
    site.wait("all are archived", || site.names("archive").len() == 21);
    all_is_well(&site, daemon, 21);
}

#[test]
fn an_inbox_that_is_unmounted_is_waited_for_and_loses_nothing() {
    alone(Space::Mounts, || {
        let site = Site::new();
        // A rescan comes late: it must be noticed by itself.
        site.set("watch.rescan", "10m");
        let mount = Mount::at(site.path("inbox"));
        // What stays when it is taken away from its place.
        mount.also_at(&site.path("disk"));
        let daemon = site.run();
        site.put_picture("inbox/first.jpg");
        site.wait_archived("first.jpg");
        assert!(site.has("inbox/.working"));
        site.put("inbox/waits/preset.toml", "enabled = false\n");
        site.put_picture("inbox/waits/a.jpg");
        site.wait("it waits", || site.waiting("disabled") == 1);
        mount.unmount();
        site.wait_paused(&["/inbox", "not mounted"]);
        assert_eq!(fs::read_dir(site.path("inbox")).unwrap().count(), 0, "nothing is made under the mount");
        let mount = Mount::again_at(site.path("inbox"), &site.path("disk"));
        site.wait_running();
        site.put("inbox/waits/preset.toml", "enabled = true\n");
        site.forget(b"enabled = false\n");
        site.wait_archived("waits/a.jpg");
        // In the middle of a request.
        let gate = Gate::default();
        let opens = gate.clone();
        site.api.on_model(move |call| call.good().after(&opens));
        site.put_picture("inbox/held.jpg");
        site.wait_for("inbox/.working/held.jpg");
        site.wait("it is sent", || site.api.calls().len() == 3);
        mount.unmount();
        site.wait_paused(&["/inbox", "not mounted"]);
        gate.open();
        site.wait_for("outbox/held.png");
        let mount = Mount::again_at(site.path("inbox"), &site.path("disk"));
        site.wait_archived("held.jpg");
        site.put_picture("inbox/last.jpg");
        site.wait_archived("last.jpg");
        assert!(!site.logs().contains("nowhere"), "{}", site.logs());
        all_is_well(&site, daemon, 4);
        drop(mount);
    });
}

#[test]
fn a_clock_that_is_set_frees_no_money_and_blocks_none() {
    let site = Site::new();
    site.set("limits.images_per_hour", 3);
    let wall = Wall::new(site.path("clock"));
    let mut left_out = false;
    let daemon = site.run_by(|command| {
        with_clock(command, &wall).unwrap_or_else(|| {
            left_out = true;
            support::faults::by(&["true".as_ref()], command)
        })
    });
    if left_out {
        return site.give_up();
    }
    let today = || site.told()["updated"].as_str().unwrap_or_default()[..10].to_owned();
    let at_first = today();
    for (n, by) in ["-1d", "+1d", "+0"].into_iter().enumerate() {
        wall.set(by);
        site.put(format!("inbox/x/{n}.txt"), format!("drop {n}"));
        site.put_picture(format!("inbox/x/{n}.jpg"));
        site.wait_archived(&format!("x/{n}.jpg"));
        assert_eq!(site.api.calls_with(&format!("drop {n}")), 1);
        site.wait("the clock is set", || (today() == at_first) == (by == "+0"));
    }
    // The hour's three are used up, whatever the clock says.
    site.put_picture("inbox/fourth.jpg");
    site.wait("it waits", || site.waiting("limit") == 1);
    for by in ["+1d", "-1d", "+2d"] {
        wall.set(by);
        daemon.signal(Signal::USR1);
        site.put("inbox/nudge.jpg", "");
        site.forget(b"");
        fs::remove_file(site.path("inbox/nudge.jpg")).unwrap();
        site.wait("it goes on", || site.told()["state"] == "running");
        assert_eq!((site.api.calls().len(), site.waiting("limit")), (3, 1), "{by}\n{}", site.describe());
    }
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn a_slow_outbox_holds_up_nothing_but_its_own_and_delivers_once() {
    let site = Site::new();
    let daemon = site.run();
    let gate = held(&site);
    let outbox = site.path("outbox");
    let fault = "renameat2,fsync:delay_enter=1500000";
    let Some(slow) = Injected::into(&daemon, fault, &[&outbox], site.path("strace.log")) else { return site.give_up() };
    gate.open();
    // Another is sent while the first is still being put there.
    site.put("inbox/other.txt", "other");
    site.put_picture("inbox/other.jpg");
    site.wait("the other is sent", || site.api.calls_with("other") == 1);
    assert!(!site.has("archive/held.jpg"), "it was slow enough\n{}", site.describe());
    site.wait_archived("held.jpg");
    site.wait_archived("other.jpg");
    slow.end();
    all_is_well(&site, daemon, 2);
}
