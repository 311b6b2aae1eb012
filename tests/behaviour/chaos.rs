//! What must hold whatever happens: kills at any moment, and an API in a bad mood.

#![allow(clippy::unwrap_used, reason = "tests say so by failing")]

use crate::support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::Signal;
use support::{Answer, Site, pictures};

/// Numbers that look like chance and are the same each time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// Puts `n` drops with a prompt of their own: some of pictures, some of prompts alone, some with two shots.
fn drop_many(site: &Site, n: usize) {
    for i in 0..n {
        let folder = ["inbox", "inbox/a", "inbox/a/b"][i % 3];
        match i % 4 {
            0 => drop(site.put(format!("{folder}/{i}.txt"), format!("prompt {i}"))),
            1 => {
                site.put(format!("{folder}/{i}.toml"), format!("prompt = \"prompt {i}\"\nseeds = [1, 2]\n"));
                site.put_picture(format!("{folder}/{i}.jpg"));
            }
            _ => {
                site.put(format!("{folder}/{i}.txt"), format!("prompt {i}"));
                site.put_picture(format!("{folder}/{i}.jpg"));
            }
        }
    }
}

/// Calls by prompt and seed.
fn calls(site: &Site) -> BTreeMap<(String, Option<i64>), usize> {
    let mut calls = BTreeMap::new();
    for call in site.api.calls() {
        *calls.entry((call.prompt(), call.seed())).or_default() += 1;
    }
    calls
}

/// Every shot went to exactly one of: a result in the outbox, or a line of a note.
fn all_is_accounted_for(site: &Site, drops: usize) {
    assert!(site.is_empty(), "{}", site.describe());
    let stems = |folder: &str| -> BTreeSet<String> {
        let stem = |p: &Path| p.file_name().unwrap().to_string_lossy().split('.').next().unwrap().to_owned();
        site.files(folder).keys().map(|p| stem(p)).collect()
    };
    let (archived, failed) = (stems("archive"), stems("errors"));
    assert!(archived.is_disjoint(&failed), "a drop lies in one of them: {archived:?} {failed:?}");
    assert_eq!(archived.len() + failed.len(), drops, "{archived:?} {failed:?}");
    for stem in &archived {
        let results = site.results();
        let mine = |name: &&String| {
            let name = Path::new(name).file_stem().unwrap().to_string_lossy().into_owned();
            name == *stem || name == format!("{stem}-1") || name == format!("{stem}-2")
        };
        let wanted = if stem.parse::<usize>().unwrap() % 4 == 1 { 2 } else { 1 };
        assert_eq!(results.iter().filter(mine).count(), wanted, "{stem}: {results:?}");
    }
    for stem in &failed {
        let note = site.files("errors").into_iter().find(|(p, _)| p.ends_with(format!("{stem}.error.txt")));
        assert!(note.is_some(), "{stem} has no note");
    }
    let hidden = walkdir::WalkDir::new(site.path("outbox")).into_iter().filter_map(Result::ok);
    let hidden: Vec<_> = hidden.filter(|e| e.file_name().to_string_lossy().starts_with('.')).collect();
    assert!(hidden.is_empty(), "{hidden:?}");
    let provenance = site.names("outbox").iter().filter(|n| n.ends_with(".reimagined.json")).count();
    assert_eq!(provenance, site.results().len(), "a picture never comes without its provenance");
}

/// Starts and kills a daemon until nothing is left, or `times` times.
fn run_and_kill(site: &Site, dice: &mut Dice, times: usize) {
    for _ in 0..times {
        let daemon = site.begin();
        // From before the first scan until some are done.
        std::thread::sleep(Duration::from_millis(30 + dice.roll(400)));
        daemon.kill();
        if site.is_empty() {
            break;
        }
    }
}

#[test]
fn kills_at_any_moment_lose_nothing_and_pay_for_nothing_twice() {
    for seed in 0..2 {
        let site = Site::new();
        site.set("api.max_in_flight", 2).set("watch.lone_wait", "100ms");
        if seed == 1 {
            site.serve_pictures();
        }
        site.api.on_model(|call| call.good().later(Duration::from_millis(call.n as u64 % 7 * 10)));
        let drops = 16;
        drop_many(&site, drops);
        run_and_kill(&site, &mut Dice(seed), 15);
        let code = site.once();
        assert!(code == 0 || code == 3, "{code}\n{}", site.describe());
        for (shot, times) in calls(&site) {
            assert_eq!(times, 1, "{shot:?} was sent {times} times\n{}", site.describe());
        }
        all_is_accounted_for(&site, drops);
    }
}

#[test]
fn kills_lose_nothing_between_filesystems_either() {
    let Some(elsewhere) = support::faults::elsewhere() else { return };
    let site = Site::new();
    site.set("api.max_in_flight", 2).set("watch.lone_wait", "100ms");
    for folder in ["outbox", "archive", "errors"] {
        let there = elsewhere.path().join(folder);
        std::fs::create_dir(&there).unwrap();
        site.set(&format!("folders.{folder}"), there.to_str().unwrap());
        // For the test's own eyes.
        std::fs::remove_dir(site.path(folder)).unwrap();
        std::os::unix::fs::symlink(&there, site.path(folder)).unwrap();
    }
    site.api.on_model(|call| {
        let answer = if call.n % 5 == 0 { Answer::error(409, "no") } else { call.good() };
        answer.later(Duration::from_millis(call.n as u64 % 5 * 10))
    });
    let drops = 16;
    drop_many(&site, drops);
    run_and_kill(&site, &mut Dice(11), 20);
    let code = site.once();
    assert!(code == 0 || code == 3, "{code}\n{}", site.describe());
    assert!(calls(&site).values().all(|times| *times == 1), "{:?}", calls(&site));
    all_is_accounted_for(&site, drops);
}

#[test]
fn stops_at_any_moment_end_every_drop_well() {
    let site = Site::new();
    site.set("api.max_in_flight", 3).set("watch.lone_wait", "100ms").serve_pictures();
    site.api.on_model(|call| call.good().later(Duration::from_millis(call.n as u64 % 5 * 20)));
    let drops = 24;
    drop_many(&site, drops);
    let mut dice = Dice(7);
    for _ in 0..20 {
        let daemon = site.begin();
        std::thread::sleep(Duration::from_millis(20 + dice.roll(200)));
        daemon.signal(if dice.roll(2) == 0 { Signal::TERM } else { Signal::INT });
        let code = daemon.ends();
        // Before it looks for signals they end it as they end anything.
        assert!(code == 0 || code == -15 || code == -2, "{code}\n{}", site.logs());
        for name in site.names("working") {
            let n: usize = Path::new(&name).file_stem().unwrap().to_str().unwrap().parse().unwrap();
            assert_eq!(n % 4, 1, "only what is half done stays there: {name}\n{}", site.describe());
        }
    }
    assert_eq!(site.once(), 0, "{}", site.describe());
    assert!(calls(&site).values().all(|times| *times == 1), "{:?}", calls(&site));
    assert!(site.names("errors").is_empty());
    all_is_accounted_for(&site, drops);
}

/// Shots, by prompt and seed.
type Shots = Arc<Mutex<Vec<(String, Option<i64>)>>>;

/// An API that answers by the dice. What was asked for again although it was, or may have been, billed
/// stands in what is returned.
fn bad_mood(site: &Site, seed: u64) -> Shots {
    site.set("retry.probe_interval", "20ms").set("retry.first_delay", "5ms").set("retry.max_delay", "20ms");
    site.set("retry.max_attempts", 3).set("watch.lone_wait", "100ms");
    let (spent, again) = (Shots::default(), Shots::default());
    let repeated = again.clone();
    let dice = Mutex::new(Dice(seed));
    site.api.on_model(move |call| {
        let shot = (call.prompt.clone(), call.seed);
        if spent.lock().unwrap().contains(&shot) {
            repeated.lock().unwrap().push(shot.clone());
        }
        let (answer, may_be_billed) = match dice.lock().unwrap().roll(12) {
            0 => (Answer::error(401, "who are you"), false),
            1 => (Answer::error(402, "no credits"), false),
            2 => (Answer::error(429, "slow down"), false),
            3 => (Answer::error(503, "oops"), false),
            4 => (Answer::error(404, "gone"), false),
            5 => (Answer::error(403, "not permitted"), false),
            6 => (Answer::hangup(), true),
            7 => (Answer::error(504, "gave up"), true),
            8 => (Answer::picture(&pictures::png(1)).cut(20), true),
            _ => (call.good(), true),
        };
        if may_be_billed {
            spent.lock().unwrap().push(shot);
        }
        answer.later(Duration::from_millis(call.n as u64 % 3 * 10))
    });
    again
}

#[test]
fn an_api_in_a_bad_mood_is_not_paid_twice() {
    let site = Site::new();
    let again = bad_mood(&site, 3);
    let drops = 24;
    drop_many(&site, drops);
    let daemon = site.run();
    site.wait("all has ended", || site.is_empty());
    assert_eq!(daemon.stop(), 0);
    assert_eq!(*again.lock().unwrap(), [], "{}", site.describe());
    all_is_accounted_for(&site, drops);
}

#[test]
fn kills_while_the_api_is_in_a_bad_mood_pay_for_nothing_twice() {
    let site = Site::new();
    let again = bad_mood(&site, 5);
    let drops = 24;
    drop_many(&site, drops);
    run_and_kill(&site, &mut Dice(5), 12);
    let daemon = site.run();
    site.wait("all has ended", || site.is_empty());
    assert_eq!(daemon.stop(), 0);
    assert_eq!(*again.lock().unwrap(), [], "{}", site.describe());
    all_is_accounted_for(&site, drops);
}
