//! Folders that other machines share: what they write makes no event here, may stay half-written for long, and the
//! server may fall silent or die.
//!
//! The share is a real one: `sshfs` speaks to `sftp-server`, and the tests play the other machine, which writes
//! behind this kernel's back.

#![allow(clippy::unwrap_used, reason = "tests say so by failing")]

use crate::support;

use std::fs::{self, FileTimes, OpenOptions};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use rustix::fs::{CWD, Mode};
use rustix::process::Signal;

use support::faults::{Space, alone, by, can};
use support::shares::{Smbd, Sshfs, samba_lacks, sshfs_lacks};
use support::{Gate, PATIENCE, Site, pictures, wait_until};

/// A site whose folders all lie on a share. The test sees them, at their usual places, from the other machine.
fn on_a_share(options: &str) -> (Site, Sshfs) {
    let site = Site::new();
    let share = Sshfs::mount(site.path("elsewhere"), site.path("share"), options);
    for folder in ["inbox", "working", "outbox", "archive", "errors"] {
        fs::remove_dir(site.path(folder)).unwrap();
        fs::create_dir(share.there.join(folder)).unwrap();
        symlink(share.there.join(folder), site.path(folder)).unwrap();
        if folder != "working" {
            site.set(&format!("folders.{folder}"), format!("share/{folder}"));
        }
    }
    site.set("watch.poll_interval", "200ms").set("watch.give_up", "2m");
    (site, share)
}

/// Runs a test with a share whose client asks again soon.
fn with_a_share(test: impl FnOnce(Site, Sshfs)) {
    let (site, share) = on_a_share("dcache_timeout=1");
    test(site, share);
}

#[test]
fn an_inbox_on_a_share_is_polled_and_all_goes_its_way() {
    if !can("fuse", sshfs_lacks) {
        return;
    }
    alone(Space::Network, || {
        with_a_share(|site, _share| {
            site.put("inbox/sea/preset.toml", "prompt = \"the sea\"\nvariants = 2\n");
            site.put_picture("inbox/sea/a.jpg");
            let daemon = site.run();
            site.put_picture("inbox/b.jpg");
            site.put("inbox/b.txt", "a wood");
            site.put("inbox/c.txt", "a prompt alone");
            for name in ["sea/a.jpg", "b.jpg", "b.txt", "c.txt"] {
                site.wait_archived(name);
            }
            site.put("inbox/sea/d.gif", "no picture");
            let note = site.wait_failed("sea/d.gif");
            assert!(note.contains("d.gif"), "{note}");
            // A clock that is behind there makes no folder older than it is here: its preset still counts.
            site.set("watch.folder_settle", "3s");
            daemon.signal(Signal::HUP);
            site.wait("it has read that", || site.logs().contains("the configuration was read again"));
            site.put_picture("inbox/late/e.jpg");
            for path in ["inbox/late/e.jpg", "inbox/late"] {
                let long_ago = SystemTime::now() - Duration::from_secs(7200);
                let file = fs::File::open(site.path(path)).unwrap();
                file.set_times(FileTimes::new().set_modified(long_ago)).unwrap();
            }
            site.wait("the folder is seen", || site.waiting("folder_settling") == 1);
            site.put("inbox/late/preset.toml", "prompt = \"too late?\"\n");
            site.wait_archived("late/e.jpg");
            assert_eq!(site.api.calls_with("too late?"), 1, "{}", site.describe());
            assert_eq!(site.results().len(), 5, "{}", site.describe());
            assert_eq!(site.told()["backend"], "poll");
            let said = site.logs();
            let said = said.lines().find(|line| line.contains("polling")).unwrap();
            assert!(said.contains("lies on FUSE") && said.contains("200ms"), "{said}");
            let checked = String::from_utf8(site.call(&["check", "--offline"]).stdout).unwrap();
            assert!(checked.contains("share/inbox, polled: the inbox lies on FUSE"), "{checked}");
            assert_eq!((site.api.calls().len(), daemon.stop()), (5, 0), "{}", site.describe());
        });
    });
}

#[test]
fn what_another_machine_has_half_written_is_not_sent_until_it_is_whole() {
    if !can("fuse", sshfs_lacks) {
        return;
    }
    alone(Space::Network, || {
        with_a_share(|site, share| {
            let daemon = site.run();
            let inbox = share.there.join("inbox");
            let words = "a prompt that is written word by word, as somebody types who thinks in between";
            site.put("inbox/typed.jpg", site.a_picture());
            let slowly = inbox.join("typed.txt");
            let typist = std::thread::spawn(move || {
                let mut file = fs::File::create(slowly).unwrap();
                for word in words.split_inclusive(' ') {
                    file.write_all(word.as_bytes()).unwrap();
                    std::thread::sleep(Duration::from_millis(700));
                }
            });
            // One grows; the other has its whole length from the start, as Explorer copies.
            let [grows, filled] = [1000, 1001].map(pictures::jpeg);
            fs::write(inbox.join("grows.jpg"), &grows[..grows.len() / 2]).unwrap();
            fs::write(inbox.join("filled.jpg"), &filled[..filled.len() / 2]).unwrap();
            let writer = OpenOptions::new().write(true).open(inbox.join("filled.jpg")).unwrap();
            writer.set_len(filled.len() as u64).unwrap();
            site.wait("both are found incomplete", || site.waiting("incomplete") == 2);
            site.a_later_drop_is_done();
            assert_eq!(site.waiting("incomplete"), 2, "{}", site.describe());
            for (name, bytes) in [("grows.jpg", &grows), ("filled.jpg", &filled)] {
                let mut writer = OpenOptions::new().write(true).open(inbox.join(name)).unwrap();
                let half = bytes.len() / 2;
                writer.seek(SeekFrom::Start(half as u64)).unwrap();
                writer.write_all(&bytes[half..]).unwrap();
                // Where a rename can't spare what is there, an empty file reserves the name for a moment.
                let archived = site.path("archive").join(name);
                site.wait(name, || fs::read(&archived).is_ok_and(|read| read == *bytes));
            }
            typist.join().unwrap();
            site.wait_archived("typed.txt");
            assert_eq!(site.api.calls_with(words), 1, "{}", site.describe());
            assert!(site.names("errors").is_empty(), "{}", site.describe());
            assert_eq!((site.api.calls().len(), daemon.stop()), (4, 0), "{}", site.describe());
        });
    });
}

#[test]
fn a_share_that_dies_pauses_and_all_goes_on_when_it_is_mounted_again() {
    if !can("fuse", sshfs_lacks) {
        return;
    }
    alone(Space::Network, || {
        with_a_share(|site, mut share| {
            let gate = Gate::default();
            let held = gate.clone();
            site.api.on_model(move |call| if call.prompt == "held" { call.good().after(&held) } else { call.good() });
            let daemon = site.run();
            site.put("inbox/a.txt", "held");
            site.put_picture("inbox/a.jpg");
            site.wait("it is on its way", || site.api.calls_with("held") == 1);
            let half = site.a_picture();
            fs::write(share.there.join("inbox/half.jpg"), &half[..half.len() / 2]).unwrap();
            site.wait("the other is found incomplete", || site.waiting("incomplete") == 1);

            share.break_mount();
            site.wait_paused(&["share/inbox", "not connected"]);
            gate.open();
            fs::write(share.there.join("inbox/b.jpg"), site.a_picture()).unwrap();
            share.unmount();
            site.wait_paused(&["share/inbox is not there"]);
            assert!(site.names("errors").is_empty() && site.results().is_empty(), "{}", site.describe());

            share.mount_again();
            site.wait_archived("a.jpg");
            site.wait_archived("b.jpg");
            share.lose_server();
            site.wait_paused(&["share/inbox is not there"]);
            fs::write(share.there.join("inbox/half.jpg"), &half).unwrap();
            share.mount_again();
            site.wait_archived("half.jpg");
            assert!(site.names("errors").is_empty(), "{}", site.describe());
            assert_eq!((site.api.calls().len(), daemon.stop()), (3, 0), "{}", site.describe());
        });
    });
}

/// Listens as systemd does: all that it is told.
fn listening(site: &Site) -> Arc<Mutex<String>> {
    let socket = UnixDatagram::bind(site.path("notify")).unwrap();
    let told = Arc::new(Mutex::new(String::new()));
    let ear = Arc::clone(&told);
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(n) = socket.recv(&mut buffer) {
            ear.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..n]));
        }
    });
    told
}

/// A daemon that tells [`listening`], with a watchdog.
fn watched_by(site: &Site, command: &Command) -> Command {
    let mut command = by(&["env".as_ref()], command);
    command.env("NOTIFY_SOCKET", site.path("notify")).env("WATCHDOG_USEC", "500000");
    command
}

#[test]
fn a_server_that_says_nothing_stops_neither_the_watchdog_nor_what_comes_after() {
    if !can("fuse", sshfs_lacks) {
        return;
    }
    alone(Space::Network, || {
        with_a_share(|site, share| {
            let told = listening(&site);
            let heard = |what: &str| told.lock().unwrap().lines().filter(|line| *line == what).count();
            let daemon = site.run_by(|command| watched_by(&site, command));
            site.wait("it is ready", || heard("READY=1") == 1);
            site.a_later_drop_is_done();
            for name in ["a.jpg", "b.jpg", "c.jpg"] {
                site.put_picture(format!("inbox/{name}"));
            }
            share.stall();
            let before = heard("WATCHDOG=1");
            site.wait("the watchdog is fed", || heard("WATCHDOG=1") >= before + 20);
            site.wait("it is paused", || site.paused().is_some_and(|why| why.contains("does not answer")));
            assert_eq!(site.api.calls().len(), 1, "{}", site.describe());
            share.resume();
            for name in ["a.jpg", "b.jpg", "c.jpg"] {
                site.wait_archived(name);
            }
            assert!(site.names("errors").is_empty(), "{}", site.describe());
            assert_eq!((site.api.calls().len(), daemon.stop()), (4, 0), "{}", site.describe());
        });
    });
}

#[test]
fn a_server_that_says_nothing_from_the_start_on_stops_neither_the_watchdog_nor_the_end() {
    if !can("fuse", sshfs_lacks) {
        return;
    }
    alone(Space::Network, || {
        with_a_share(|site, share| {
            let told = listening(&site);
            let heard = |what: &str| told.lock().unwrap().lines().filter(|line| *line == what).count();
            share.stall();
            let daemon = site.begin_by(|command| watched_by(&site, command));
            site.wait("the watchdog is fed", || heard("WATCHDOG=1") >= 10);
            daemon.signal(Signal::TERM);
            // What hangs in the kernel keeps a process from going, whatever it does.
            wait_until(PATIENCE, || daemon.log().contains("stopped before it could begin"));
            share.resume();
            assert_eq!((heard("READY=1"), daemon.ends()), (0, 0));
            share.stall();
            let daemon = site.begin_by(|command| watched_by(&site, command));
            let before = heard("WATCHDOG=1");
            site.wait("the watchdog is fed", || heard("WATCHDOG=1") >= before + 5);
            share.resume();
            site.a_later_drop_is_done();
            assert_eq!((heard("READY=1"), daemon.stop()), (1, 0), "{}", site.describe());
        });
    });
}

#[test]
fn a_state_directory_on_a_share_is_refused_before_anything_is_made_there() {
    if !can("fuse", sshfs_lacks) {
        return;
    }
    alone(Space::Network, || {
        with_a_share(|site, share| {
            site.set("service.state_dir", "share/state");
            for args in [&["run"][..], &["run", "--once"], &["check", "--offline"]] {
                let done = site.call(args);
                let said = String::from_utf8_lossy(&done.stderr).into_owned();
                assert_eq!(done.status.code(), Some(2), "{args:?}: {said}");
                for words in ["state directory", "share/state", "FUSE", "[service] state_dir", "local disk"] {
                    assert!(said.contains(words), "{args:?}: {said}");
                }
            }
            assert!(!share.there.join("state").exists());
        });
    });
}

#[test]
fn what_a_client_of_samba_has_half_written_into_a_local_inbox_is_not_sent_until_it_is_whole() {
    if !can("samba", samba_lacks) {
        return;
    }
    alone(Space::Network, || {
        let site = Site::new();
        site.set("watch.give_up", "2m").set("watch.rescan", "2m");
        let samba = Smbd::share(&site.path("inbox"), &site.path("samba"));
        let daemon = site.run();
        let picture = site.a_picture();
        let [whole, half] = ["whole", "half"].map(|name| site.path(name));
        fs::write(&whole, &picture).unwrap();
        fs::write(&half, &picture[..picture.len() / 2]).unwrap();
        let (whole, half) = (whole.display(), half.display());
        // An upload that broke off, one under a name of its own, and one of which nothing has come yet.
        samba.does(&format!("put {half} a.jpg; put {half} b.part"));
        let pipe = site.path("pipe");
        rustix::fs::mkfifoat(CWD, &pipe, Mode::RWXU).unwrap();
        let slow = samba.begins(&format!("put {} c.jpg", pipe.display()));
        let mut slowly = OpenOptions::new().write(true).open(&pipe).unwrap();
        slowly.write_all(&picture[..picture.len() / 2]).unwrap();
        site.wait_for("inbox/c.jpg");
        site.wait("the first is found incomplete", || site.waiting("incomplete") >= 1);
        site.a_later_drop_is_done();
        assert_eq!(site.api.calls().len(), 1, "{}", site.describe());
        samba.does(&format!("put {whole} a.jpg; put {whole} b.part; rename b.part b.jpg"));
        slowly.write_all(&picture[picture.len() / 2..]).unwrap();
        drop(slowly);
        assert!(slow.wait_with_output().unwrap().status.success());
        for name in ["a.jpg", "b.jpg", "c.jpg"] {
            site.wait_archived(name);
            assert!(fs::read(site.path("archive").join(name)).unwrap() == picture, "{name}");
        }
        assert_eq!(site.told()["backend"], "events");
        assert!(site.names("errors").is_empty(), "{}", site.describe());
        assert_eq!((site.api.calls().len(), daemon.stop()), (4, 0), "{}", site.describe());
    });
}
