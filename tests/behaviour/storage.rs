//! Disks that fail while the daemon runs: full, out of inodes, read-only, each of its folders, before a request
//! and in the middle of one.
//!
//! While results or originals could not be kept nothing is bought, `status` says why, and when the disk is well
//! again all goes on without a restart.

#![allow(clippy::unwrap_used, reason = "tests say so by failing")]

use crate::support;

use std::ffi::OsStr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use support::faults::{Mount, Space, alone, by, can, strace_lacks};
use support::{Answer, Gate, Site};

/// What befalls a filesystem: the words that `status` has for it when it looks, and when it was writing.
const FAULTS: [(&str, &str, &str); 3] =
    [("one", "is full", "No space left"), ("two", "inodes", "No space left"), ("three", "is read-only", "read-only")];

fn strike(mount: &Mount, fault: &str) {
    match fault {
        "one" => mount.leave(0),
        "two" => mount.leave_inodes(0),
        _ => mount.read_only(),
    }
}

/// Waits until it says that it is paused for a reason that names the folder and has one of these words.
fn wait_paused(site: &Site, folder: &str, words: &[&str]) {
    let slash = format!("/{folder}");
    if folder == "state" && words[0].contains("read-only") {
        // No new status can be written there; the journal has it, and so has systemd.
        let said = |line: &str| line.contains("paused: ") && line.contains(&slash) && line.contains("ead-only");
        return site.wait("it says so", || site.logs().lines().any(said));
    }
    site.wait(&format!("it is paused for {folder}: {words:?}"), || {
        let told = site.told();
        let reason = told["paused"]["reason"].as_str().unwrap_or_default();
        told["state"] == "paused" && reason.contains(&slash) && words.iter().any(|word| reason.contains(word))
    });
}

/// A site with `folder` on a filesystem of its own.
fn site_with(folder: &str) -> (Site, Mount) {
    let site = Site::new();
    site.set("reference.max_bytes", "1MB");
    if folder != "working" {
        let mount = Mount::at(site.path(folder));
        return (site, mount);
    }
    // A rename must reach it from the inbox, so they share one.
    let mount = Mount::at(site.path("home"));
    mount.also_at(&site.path("backdoor"));
    for folder in ["inbox", "working"] {
        std::fs::remove_dir(site.path(folder)).unwrap();
        std::fs::create_dir(site.path("home").join(folder)).unwrap();
        std::os::unix::fs::symlink(site.path("home").join(folder), site.path(folder)).unwrap();
    }
    (site, mount)
}

/// Pictures to be dropped when nothing can be written any more, as `NAME.jpg`, with their names as prompts.
struct Drafts<'a>(&'a Site, &'static str);

impl<'a> Drafts<'a> {
    fn new(site: &'a Site, folder: &str, names: &[String]) -> Self {
        let place = if folder == "working" { "backdoor" } else { "" };
        for name in names {
            site.put(Path::new(place).join(format!("drafts/{name}.txt")), name);
            site.put(Path::new(place).join(format!("drafts/{name}.jpg")), site.a_picture());
        }
        Self(site, place)
    }

    fn drop(&self, name: &str) {
        let place = self.0.path(self.1);
        for kind in ["txt", "jpg"] {
            let file = format!("{name}.{kind}");
            std::fs::rename(place.join("drafts").join(&file), place.join("inbox").join(&file)).unwrap();
        }
    }
}

/// Each fault strikes while nothing is in work: nothing is sent until it is over.
fn nothing_is_bought_meanwhile(folder: &str) {
    let (site, mount) = site_with(folder);
    let daemon = site.run();
    site.a_later_drop_is_done();
    let drafts = Drafts::new(&site, folder, &FAULTS.map(|(fault, ..)| fault.to_owned()));
    for (fault, words, _) in FAULTS {
        strike(&mount, fault);
        drafts.drop(fault);
        wait_paused(&site, folder, &[words]);
        assert_eq!(site.api.calls_with(fault), 0, "{folder} {fault}\n{}", site.describe());
        assert!(site.has(format!("inbox/{fault}.jpg")), "{folder} {fault}\n{}", site.describe());
        mount.relieve();
        site.wait_archived(&format!("{fault}.jpg"));
        site.wait_running();
    }
    assert!(site.names("errors").is_empty(), "{}", site.describe());
    assert_eq!((site.api.calls().len(), daemon.stop()), (4, 0), "{}", site.describe());
    all_is_there(&site, &["one", "two", "three"]);
    quiet(&site);
}

/// Each fault strikes while an answer is on its way: the result is kept and delivered when it is over, nothing
/// new is sent meanwhile, and nothing is sent twice.
fn what_was_bought_is_kept(folder: &str) {
    let (site, mount) = site_with(folder);
    let gate = Arc::new(Mutex::new(Gate::default()));
    let held = gate.clone();
    let refuse = folder == "errors";
    site.api.on_model(move |call| match call.prompt.as_str() {
        prompt if prompt.starts_with("first") => {
            let gate = held.lock().unwrap().clone();
            if refuse { Answer::error(422, "no").after(&gate) } else { call.good().after(&gate) }
        }
        _ => call.good(),
    });
    let daemon = site.run();
    site.a_later_drop_is_done();
    let names = FAULTS.iter().flat_map(|(fault, ..)| [format!("first-{fault}"), format!("then-{fault}")]);
    let drafts = Drafts::new(&site, folder, &names.collect::<Vec<_>>());
    for (fault, looking, writing) in FAULTS {
        let (first, then) = (format!("first-{fault}"), format!("then-{fault}"));
        *gate.lock().unwrap() = Gate::default();
        drafts.drop(&first);
        site.wait("it is sent", || site.api.calls_with(&first) == 1);
        site.wait_for(&format!("working/{first}.jpg"));
        strike(&mount, fault);
        gate.lock().unwrap().open();
        drafts.drop(&then);
        // Whichever comes first: what is done can't be put there, or the next is to be sent.
        wait_paused(&site, folder, &[looking, writing]);
        assert_eq!(site.api.calls_with(&then), 0, "{folder} {fault}\n{}", site.describe());
        mount.relieve();
        if refuse {
            site.wait_failed(&format!("{first}.jpg"));
        } else {
            site.wait_archived(&format!("{first}.jpg"));
        }
        site.wait_archived(&format!("{then}.jpg"));
        site.wait_running();
        assert_eq!((site.api.calls_with(&first), site.api.calls_with(&then)), (1, 1), "{}", site.describe());
    }
    assert_eq!((site.api.calls().len(), daemon.stop()), (7, 0), "{}", site.describe());
    assert_eq!(site.results().len(), if refuse { 4 } else { 7 }, "{}", site.describe());
    quiet(&site);
}

/// A picture that came from a link while the disk was full is kept until it has room, and not asked for again.
fn a_link_is_fetched_later(fault: &str) {
    let (site, mount) = site_with("state");
    let (picture, link) = (support::pictures::png(7), site.api.url() + "/results/one");
    let (served, gate) = (picture.clone(), Gate::default());
    let opens = gate.clone();
    site.api.on_other(move |request, _| {
        let asked = request.path == "/results/one";
        asked.then(|| Answer::new(200, "image/png", served.clone()).after(&opens))
    });
    site.api.on_model(move |_| Answer::json(200, &serde_json::json!({ "image_url": link })));
    let daemon = site.run();
    site.put_picture("inbox/a.jpg");
    site.wait("it is being fetched", || site.api.to("/results/").len() == 1);
    strike(&mount, fault);
    gate.open();
    wait_paused(&site, "state", &["No space left"]);
    mount.relieve();
    site.wait_archived("a.jpg");
    site.wait_running();
    assert!(site.files("outbox")[Path::new("a.png")] == picture);
    assert_eq!(site.api.to("/results/").len(), 1);
    assert_eq!((site.api.calls().len(), daemon.stop()), (1, 0), "{}", site.describe());
    quiet(&site);
}

#[test]
fn a_full_state_directory_loses_no_picture_that_is_fetched_from_a_link() {
    alone(Space::Mounts, || a_link_is_fetched_later("one"));
}

/// Originals and results stand where they belong.
fn all_is_there(site: &Site, names: &[&str]) {
    for name in names {
        assert!(site.has(format!("archive/{name}.jpg")) && site.has(format!("archive/{name}.txt")), "{name}");
        assert!(site.has(format!("outbox/{name}.png")), "{name}");
    }
    assert!(site.is_empty(), "{}", site.describe());
}

/// No line was logged again and again, and no spool file is left.
fn quiet(site: &Site) {
    let logs = site.logs();
    let lines = logs.lines().count();
    assert!(lines < 200, "{lines} lines:\n{logs}");
    assert!(site.names("state/spool").is_empty(), "{:?}", site.names("state"));
}

#[test]
fn a_bad_disk_of_inbox_and_working_stops_what_is_not_sent() {
    alone(Space::Mounts, || nothing_is_bought_meanwhile("working"));
}

#[test]
fn a_bad_outbox_stops_what_is_not_sent() {
    alone(Space::Mounts, || nothing_is_bought_meanwhile("outbox"));
}

#[test]
fn a_bad_archive_stops_what_is_not_sent() {
    alone(Space::Mounts, || nothing_is_bought_meanwhile("archive"));
}

#[test]
fn a_bad_errors_folder_stops_what_is_not_sent() {
    alone(Space::Mounts, || nothing_is_bought_meanwhile("errors"));
}

#[test]
fn a_bad_state_directory_stops_what_is_not_sent() {
    alone(Space::Mounts, || nothing_is_bought_meanwhile("state"));
}

#[test]
fn a_bad_disk_of_inbox_and_working_holds_what_was_bought() {
    alone(Space::Mounts, || what_was_bought_is_kept("working"));
}

#[test]
fn a_bad_outbox_holds_what_was_bought() {
    alone(Space::Mounts, || what_was_bought_is_kept("outbox"));
}

#[test]
fn a_bad_archive_holds_what_was_bought() {
    alone(Space::Mounts, || what_was_bought_is_kept("archive"));
}

#[test]
fn a_bad_errors_folder_holds_what_was_bought() {
    alone(Space::Mounts, || what_was_bought_is_kept("errors"));
}

#[test]
fn a_bad_state_directory_holds_what_was_bought() {
    alone(Space::Mounts, || what_was_bought_is_kept("state"));
}

/// A folder's filesystem goes while an answer is on its way: nothing is put where it will be hidden.
fn what_is_unmounted_is_waited_for(folder: &str) {
    let (site, mount) = site_with(folder);
    let gate = Gate::default();
    let held = gate.clone();
    site.api.on_model(move |call| if call.prompt == "held" { call.good().after(&held) } else { call.good() });
    let daemon = site.run();
    site.a_later_drop_is_done();
    site.put("inbox/held.txt", "held");
    site.put_picture("inbox/held.jpg");
    site.wait("it is sent", || site.api.calls_with("held") == 1);
    mount.also_at(&site.path("backdoor"));
    mount.unmount();
    site.put_picture("inbox/then.jpg");
    wait_paused(&site, folder, &["not mounted"]);
    gate.open();
    let is_spooled = || !site.names("state/spool").is_empty();
    site.wait("its picture is kept", || is_spooled() || folder != "outbox");
    site.wait("it tried to go on", || site.logs().matches("not mounted").count() >= 2);
    assert!(site.names(folder).is_empty(), "{:?}", site.names(folder));
    assert_eq!(site.api.calls().len(), 2, "{}", site.describe());
    let _again = Mount::again_at(site.path(folder), &site.path("backdoor"));
    for name in ["held.jpg", "then.jpg"] {
        site.wait_archived(name);
    }
    site.wait_running();
    assert_eq!((site.api.calls().len(), site.results().len(), daemon.stop()), (3, 3, 0), "{}", site.describe());
}

#[test]
fn an_outbox_that_is_unmounted_is_waited_for() {
    alone(Space::Mounts, || what_is_unmounted_is_waited_for("outbox"));
}

#[test]
fn an_outbox_below_a_mount_is_waited_for_and_taken_again_by_whatever_number_its_disk_comes_back() {
    alone(Space::Mounts, || {
        let site = Site::new();
        site.set("folders.outbox", "disk/outbox").set("reference.max_bytes", "1MB");
        std::fs::create_dir(site.path("disk")).unwrap();
        // What is below the mount point looks the same.
        std::fs::create_dir(site.path("disk/outbox")).unwrap();
        let mount = Mount::at(site.path("disk"));
        std::fs::create_dir(site.path("disk/outbox")).unwrap();
        let daemon = site.run();
        site.put_picture("inbox/first.jpg");
        site.wait_archived("first.jpg");
        mount.unmount();
        site.put_picture("inbox/then.jpg");
        wait_paused(&site, "disk/outbox", &["not mounted"]);
        assert!(site.names("disk/outbox").is_empty(), "{:?}", site.names("disk/outbox"));
        // Something else takes the old device's number.
        let _other = Mount::at(site.path("other"));
        let _again = Mount::at(site.path("disk"));
        std::fs::create_dir(site.path("disk/outbox")).unwrap();
        site.wait_archived("then.jpg");
        site.wait_running();
        assert!(site.names("disk/outbox").iter().any(|name| name == "then.png"), "{:?}", site.names("disk"));
        assert_eq!((site.api.calls().len(), daemon.stop()), (2, 0), "{}", site.describe());
    });
}

#[test]
fn an_archive_that_is_unmounted_is_waited_for() {
    alone(Space::Mounts, || what_is_unmounted_is_waited_for("archive"));
}

#[test]
fn a_retry_from_another_filesystem_puts_a_drop_into_the_inbox_at_one_moment() {
    alone(Space::Mounts, || {
        let (site, _mount) = site_with("errors");
        site.api.on_model(|call| if call.nth == 1 { Answer::error(422, "no") } else { call.good() });
        site.put("inbox/a.txt", "a look");
        site.put_picture("inbox/a.jpg");
        assert_eq!(site.once(), 3, "{}", site.describe());
        if !can("strace", strace_lacks) {
            return site.give_up();
        }
        let log = site.path("strace.log");
        let mut command = site.command();
        command.args(["retry", "--all"]);
        let traced = ["strace", "-f", "-e", "trace=write,renameat2", "-o", log.to_str().unwrap()].map(OsStr::new);
        let out = by(&traced, &command).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        let log = std::fs::read_to_string(log).unwrap();
        let lines: Vec<&str> = log.lines().collect();
        let named = |name: &str| lines.iter().position(|l| l.contains("renameat2") && l.contains(name)).unwrap();
        let (sidecar, picture) = (named("\"a.txt\""), named("\"a.jpg\""));
        assert!(sidecar < picture, "{log}");
        // Copied before, both of them.
        assert!(!lines[sidecar..picture].iter().any(|line| line.contains("write(")), "{log}");
        assert!(site.names("errors").is_empty(), "{:?}", site.names("errors"));
        assert_eq!((site.once(), site.results().len()), (0, 1), "{}", site.describe());
    });
}

#[test]
fn a_retry_that_cannot_remove_what_it_copied_says_so_and_goes_on() {
    alone(Space::Mounts, || {
        let (site, _mount) = site_with("errors");
        site.api.on_model(|call| if call.nth == 1 { Answer::error(422, "no") } else { call.good() });
        let picture = site.put_picture("inbox/a.jpg");
        assert_eq!(site.once(), 3, "{}", site.describe());
        if !can("strace", strace_lacks) {
            return site.give_up();
        }
        let mut command = site.command();
        command.args(["retry", "--all"]);
        let fails = ["strace", "-f", "-qq", "-e", "inject=unlinkat:error=EACCES", "-o", "/dev/null"].map(OsStr::new);
        let out = by(&fails, &command).output().unwrap();
        let said = String::from_utf8_lossy(&out.stdout);
        assert!(out.status.success() && said.contains("back in the inbox"), "{said}");
        assert!(said.contains("could not be removed from errors") && said.contains("a.jpg"), "{said}");
        assert_eq!(std::fs::read(site.path("errors/a.jpg")).unwrap(), picture);
        assert_eq!((site.once(), site.results().len()), (0, 1), "{}", site.describe());
    });
}

#[test]
fn a_retry_takes_nothing_from_errors_that_it_could_not_remove_there() {
    alone(Space::Mounts, || {
        let (site, mount) = site_with("errors");
        site.api.on_model(|call| if call.nth == 1 { Answer::error(422, "no") } else { call.good() });
        site.put_picture("inbox/deep/a.jpg");
        assert_eq!(site.once(), 3, "{}", site.describe());
        mount.read_only();
        for _ in 0..2 {
            let out = site.call(&["retry", "--all"]);
            let said = String::from_utf8_lossy(&out.stderr);
            assert_eq!(out.status.code(), Some(1), "{said}");
            assert!(said.contains("deep/a.jpg stayed in errors") && said.contains("is read-only"), "{said}");
            assert!(site.files("inbox").is_empty(), "{}", site.describe());
        }
        mount.relieve();
        assert!(site.call(&["retry", "--all"]).status.success());
        assert_eq!((site.once(), site.results().len(), site.api.calls().len()), (0, 1, 2), "{}", site.describe());
    });
}

#[test]
fn an_inbox_that_is_empty_on_a_new_filesystem_is_there() {
    alone(Space::Mounts, || {
        let site = Site::new();
        std::fs::create_dir_all(site.path("volume/inbox")).unwrap();
        site.set("folders.inbox", "volume/inbox").set("folders.working", "volume/inbox/.working");
        let daemon = site.run();
        site.wait_running();
        // Over the folder that it began with, and then over nothing.
        for _ in 0..2 {
            let mount = Mount::at(site.path("volume"));
            std::fs::create_dir(site.path("volume/inbox")).unwrap();
            daemon.signal(rustix::process::Signal::USR1);
            let log = || daemon.log().matches("another directory stands at the inbox's place").count();
            let before = log();
            site.wait("it is there again", || log() > before);
            site.wait_running();
            drop(mount);
        }
    });
}
