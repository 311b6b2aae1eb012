//! Programs and a webhook that are told what happened.

#![allow(clippy::unwrap_used, reason = "tests say so by failing")]

use crate::support;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ring::hmac;
use rustix::process::Signal;
use serde_json::Value;

use support::api::Request;
use support::faults::powerless;
use support::{ASSET_MARK, Answer, Api, Daemon, KEY, Site};

/// What a hook program got.
struct Told {
    json: Value,
    env: BTreeMap<OsString, OsString>,
    args: Vec<String>,
    /// What its descriptors are, and which signals it ignores and blocks.
    process: String,
}

impl Told {
    fn env(&self, name: &str) -> &str {
        self.env.get(OsStr::new(name)).map_or("", |value| value.to_str().unwrap())
    }
}

/// A program in the site.
fn program(site: &Site, name: &str, text: &str) -> String {
    let path = site.put(name, format!("#!/bin/sh\n{text}\n"));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path.to_str().unwrap().to_owned()
}

/// A program that keeps what it gets, in one piece, for [`told`]. It reads its signals itself: a shell blocks all of them
/// while it starts another program.
fn recorder(site: &Site) -> String {
    let dir = site.path("told");
    fs::create_dir_all(&dir).unwrap();
    let text = format!(
        "cd '{}' || exit 9\n\
         d=.$$ && mkdir $d\n\
         cat >$d/stdin && env -0 >$d/env && printf '%s\\0' \"$@\" >$d/args\n\
         for fd in /proc/$$/fd/*; do readlink $fd; done >$d/process\n\
         while read -r l; do case $l in SigIgn*|SigBlk*) printf '%s\\n' \"$l\" >>$d/process; esac; done </proc/$$/status\n\
         mv $d \"$(date +%s%N)-$$\"",
        dir.display()
    );
    program(site, "recorder", &text)
}

fn command(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// A site where these occasions are recorded.
fn recorded(occasions: &[&str]) -> Site {
    let site = Site::new();
    let recorder = recorder(&site);
    for on in occasions {
        site.set(&format!("hooks.{on}"), recorder.clone());
    }
    site.set("hooks.paused_after", "0s");
    site
}

/// What was told so far, in the order in which it was kept.
fn told(site: &Site) -> Vec<Told> {
    let Ok(entries) = fs::read_dir(site.path("told")) else { return Vec::new() };
    let mut dirs: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    dirs.retain(|dir| !dir.file_name().unwrap().as_bytes().starts_with(b"."));
    dirs.sort();
    let parts = |dir: &Path, name: &str| -> Vec<Vec<u8>> {
        let bytes = fs::read(dir.join(name)).unwrap();
        let mut parts: Vec<Vec<u8>> = bytes.split(|b| *b == 0).map(<[u8]>::to_vec).collect();
        parts.pop();
        parts
    };
    let one = |dir: &PathBuf| Told {
        json: serde_json::from_slice(&fs::read(dir.join("stdin")).unwrap()).unwrap(),
        env: parts(dir, "env")
            .into_iter()
            .map(|pair| {
                let at = pair.iter().position(|b| *b == b'=').unwrap();
                (OsString::from_vec(pair[..at].to_vec()), OsString::from_vec(pair[at + 1..].to_vec()))
            })
            .collect(),
        args: parts(dir, "args").into_iter().map(|arg| String::from_utf8_lossy(&arg).into_owned()).collect(),
        process: fs::read_to_string(dir.join("process")).unwrap(),
    };
    dirs.iter().map(one).collect()
}

fn wait_told(site: &Site, count: usize) -> Vec<Told> {
    site.wait(&format!("{count} events are told"), || told(site).len() >= count);
    let told = told(site);
    assert_eq!(told.len(), count);
    told
}

fn path_text(site: &Site, rel: &str) -> String {
    site.path(rel).to_str().unwrap().to_owned()
}

#[test]
fn a_drop_that_is_done_is_told_with_its_results() {
    let site = Site::new();
    let recorder = recorder(&site);
    let words = [&recorder, "{event}", "{drop}", "{result}", "to {folder}", "-x", "{results}", "{text}"];
    site.set("hooks.on_done", command(&words));
    site.put("inbox/a look/preset.toml", "seeds = [7, 8]\n");
    site.put_picture("inbox/a look/b c.jpg");
    assert_eq!(site.once(), 0, "{}", site.describe());
    let told = wait_told(&site, 1).pop().unwrap();

    let results = [path_text(&site, "outbox/a look/b c-7.png"), path_text(&site, "outbox/a look/b c-8.png")];
    let drop = "a look/b c.jpg";
    let text = "a look/b c.jpg is done: 2 pictures, $0.08";
    assert_eq!(told.args, ["done", drop, &results[0], "to a look", "-x", &results[0], &results[1], text]);

    let json = &told.json;
    assert_eq!((&json["event"], &json["ending"], &json["drop"]), (&"done".into(), &"done".into(), &drop.into()));
    assert_eq!(json["results"], serde_json::json!(results));
    assert_eq!(json["originals"], serde_json::json!([path_text(&site, "archive/a look/b c.jpg")]));
    assert_eq!((&json["reason"], &json["note"], &json["cost"]), (&Value::Null, &Value::Null, &0.08.into()));
    assert_eq!((&json["shots"][1]["seed"], &json["shots"][1]["billed"]), (&8.into(), &"yes".into()));
    assert!(json["shots"][0]["request_id"].as_str().unwrap().starts_with("r-"), "{json}");
    assert!(json["at"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok(), "{json}");

    for (name, value) in [
        ("REIMAGINED_EVENT", "done"),
        ("REIMAGINED_TEXT", text),
        ("REIMAGINED_DROP", drop),
        ("REIMAGINED_FOLDER", "a look"),
        ("REIMAGINED_RESULT", &results[0]),
        ("REIMAGINED_COST", "0.08"),
        ("REIMAGINED_DROP_ID", json["drop_id"].as_str().unwrap()),
    ] {
        assert_eq!(told.env(name), value, "{name}");
    }
}

#[test]
fn a_program_gets_a_clean_environment_and_nothing_of_ours() {
    let site = recorded(&["on_done"]);
    site.put_picture("inbox/a.jpg");
    // By way of a shell, which says what the daemon is started with: that is nobody's fault here.
    let daemon = site.command();
    let list = "for fd in /proc/$$/fd/*; do readlink $fd; done >\"$0\"; exec \"$@\"";
    let started = site.path("started-with");
    let mut command = std::process::Command::new("/bin/sh");
    command.env_clear().current_dir(site.path("")).args(["-c", list]).arg(&started).arg(daemon.get_program());
    command.envs(daemon.get_envs().filter_map(|(name, value)| Some((name, value?)))).args(daemon.get_args());
    command.args(["run", "--once"]).env("PATH", "/opt/none:/usr/bin:/bin").env("LC_TIME", "C");
    for name in ["NOTIFY_SOCKET", "JOURNAL_STREAM", "LISTEN_FDS", "LISTEN_PID", "CREDENTIALS_DIRECTORY", "SECRET"] {
        command.env(name, "/nowhere");
    }
    assert_eq!(Daemon::spawn(command, &site.next_log()).ends(), 0, "{}", site.describe());
    let told = wait_told(&site, 1).pop().unwrap();
    let foreign: Vec<_> = told
        .env
        .keys()
        .map(|name| name.to_str().unwrap())
        // The last three are the shell's own.
        .filter(|name| !name.starts_with("REIMAGINED_") && !["PWD", "OLDPWD", "SHLVL", "_"].contains(name))
        .collect();
    assert_eq!(foreign, ["HOME", "LC_TIME", "PATH", "TZ"]);
    assert_eq!(told.env("PATH"), "/opt/none:/usr/bin:/bin");
    let inherited: Vec<PathBuf> = fs::read_to_string(&started).unwrap().lines().map(PathBuf::from).collect();
    let (mut pipes, mut signals) = (BTreeSet::new(), Vec::new());
    for line in told.process.lines() {
        if let Some((_, set)) = line.split_once(":\t") {
            signals.push(u64::from_str_radix(set, 16).unwrap());
        } else if line.starts_with("pipe:") && !inherited.contains(&line.into()) {
            pipes.insert(line);
        } else {
            let own = line.ends_with("/recorder") || line.starts_with(&path_text(&site, "told"));
            assert!(own || inherited.contains(&line.into()), "{line} in {}", told.process);
        }
    }
    assert_eq!(pipes.len(), 2, "what it reads and what it writes: {}", told.process);
    let ours = [Signal::TERM, Signal::INT, Signal::HUP, Signal::USR1, Signal::PIPE, Signal::CHILD];
    let ours = ours.iter().fold(0u64, |set, signal| set | 1 << (signal.as_raw() - 1));
    assert!(signals.len() == 2 && signals.iter().all(|set| set & ours == 0), "{}", told.process);
}

#[test]
fn a_failed_drop_is_told_with_its_note_and_without_addresses() {
    let site = recorded(&["on_done", "on_failed"]);
    site.api.on_model(|call| match call.prompt.as_str() {
        "bad" => Answer::error(400, "no: see https://elsewhere.example/help and \u{0} it"),
        "lost" => Answer::hangup(),
        _ => call.good(),
    });
    for name in ["bad", "lost"] {
        site.put(format!("inbox/{name}.txt"), name);
        site.put_picture(format!("inbox/{name}.jpg"));
    }
    site.put("inbox/film.mp4", "no picture");
    assert_eq!(site.once(), 3);
    let told = wait_told(&site, 3);
    let of = |drop: &str| told.iter().find(|t| t.json["drop"] == drop).unwrap();
    for (drop, ending) in [("bad.jpg", "failed"), ("lost.jpg", "unconfirmed"), ("film.mp4", "failed")] {
        let it = of(drop);
        assert_eq!((&it.json["event"], &it.json["ending"]), (&"failed".into(), &ending.into()), "{}", it.json);
        let note = it.json["note"].as_str().unwrap();
        assert!(Path::new(note).is_file() && it.env("REIMAGINED_NOTE") == note, "{}", it.json);
        assert!(!it.env("REIMAGINED_REASON").is_empty() && it.env("REIMAGINED_RESULT").is_empty());
        assert!(!it.json.to_string().contains("://"), "{}", it.json);
    }
    assert!(of("bad.jpg").json["reason"].as_str().unwrap().contains("no: see [address] and"), "{}", of("bad.jpg").json);
    assert_eq!(of("lost.jpg").json["shots"][0]["billed"], "unknown");
}

#[test]
fn what_may_have_been_billed_is_told_as_the_note_says_it() {
    let site = recorded(&["on_failed"]);
    site.set("retry.unconfirmed", "retry");
    site.api.on_model(|call| match (call.prompt.as_str(), call.nth) {
        ("twice", 1) => Answer::hangup(),
        ("twice", _) => Answer::error(400, "no"),
        // A picture was promised, and none came.
        _ => Answer::json(200, &serde_json::json!({ "error": "it could not be made" })),
    });
    for name in ["twice", "refused"] {
        site.put(format!("inbox/{name}.txt"), name);
        site.put_picture(format!("inbox/{name}.jpg"));
    }
    // It was in work once, and there is no ledger of that.
    site.put_picture("working/forgotten.jpg");
    assert_eq!(site.once(), 3);
    let told = wait_told(&site, 3);
    for drop in ["twice", "refused", "forgotten"] {
        let json = &told.iter().find(|t| t.json["drop"] == format!("{drop}.jpg")).unwrap().json;
        assert_eq!(json["ending"], "unconfirmed", "{json}");
        let note = site.note(format!("errors/{drop}.error.txt"));
        if drop == "forgotten" {
            assert!(note.contains("nobody knows whether it was sent"), "{note}");
        } else {
            assert_eq!(json["shots"][0]["billed"], "unknown", "{json}");
            assert!(note.contains("billed: unknown"), "{note}");
        }
    }
}

#[test]
fn a_pause_and_its_end_are_told() {
    let site = recorded(&["on_paused"]);
    let well = Arc::new(AtomicBool::new(false));
    let (is_well, has_credits) = (well.clone(), well.clone());
    let no_credits = || Answer::error(402, "no credits");
    site.api.on_model(move |call| if is_well.load(Ordering::SeqCst) { call.good() } else { no_credits() });
    site.api.on_other(move |request, _| {
        let asked = request.path == support::api::CREDITS && !has_credits.load(Ordering::SeqCst);
        asked.then(|| Answer::json(200, &serde_json::json!({ "credits": 0 })))
    });
    site.put_picture("inbox/a.jpg");
    let daemon = site.run();
    let paused = wait_told(&site, 1).pop().unwrap();
    assert_eq!((&paused.json["event"], &paused.json["kind"]), (&"paused".into(), &"credits".into()));
    assert!(paused.env("REIMAGINED_REASON").contains("out of credits"), "{}", paused.json);
    assert_eq!(paused.env("REIMAGINED_DROP"), "");
    well.store(true, Ordering::SeqCst);
    let resumed = wait_told(&site, 2).pop().unwrap();
    assert_eq!((&resumed.json["event"], &resumed.json["since"]), (&"resumed".into(), &paused.json["since"]));
    site.wait_archived("a.jpg");
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn a_pause_of_a_moment_is_not_told() {
    let site = recorded(&["on_paused", "on_done"]);
    site.set("hooks.paused_after", "1h");
    site.api.on_model(|call| if call.n == 1 { Answer::error(402, "no credits") } else { call.good() });
    site.put_picture("inbox/a.jpg");
    let daemon = site.run();
    let told = wait_told(&site, 1);
    assert_eq!(told[0].json["event"], "done");
    assert!(site.logs().contains("paused"), "{}", site.describe());
    assert_eq!(daemon.stop(), 0);
    assert_eq!(self::told(&site).len(), 1);
}

#[test]
fn working_off_once_tells_of_the_pause_that_ended_it() {
    let site = recorded(&["on_paused"]);
    site.set("hooks.paused_after", "1h");
    site.api.on_model(|_| Answer::error(402, "no credits"));
    site.put_picture("inbox/a.jpg");
    assert_eq!(site.once(), 4);
    assert_eq!(wait_told(&site, 1)[0].json["kind"], "credits");
}

#[test]
fn a_reached_limit_is_told() {
    let site = recorded(&["on_paused"]);
    site.set("limits.images_per_hour", 1);
    site.put_picture("inbox/a.jpg");
    site.put_picture("inbox/b.jpg");
    let daemon = site.run();
    let told = wait_told(&site, 1).pop().unwrap();
    assert_eq!((&told.json["event"], &told.json["kind"]), (&"paused".into(), &"limit".into()));
    assert!(told.json["reason"].as_str().unwrap().contains("images_per_hour"), "{}", told.json);
    assert_eq!(told.env("REIMAGINED_UNTIL"), told.json["until"].as_str().unwrap());
    // It is not told again for every drop that it holds.
    site.put_picture("inbox/c.jpg");
    site.wait("both wait", || site.waiting("limit") == 2);
    assert_eq!(daemon.stop(), 0);
    assert_eq!(self::told(&site).len(), 1);
}

#[test]
fn a_drop_that_waits_for_a_person_is_told_once() {
    let site = recorded(&["on_waiting"]);
    site.unset("preset.prompt");
    site.set("hooks.waiting_after", "300ms");
    site.put("inbox/prompts/preset.toml", "reference = \"required\"\n");
    let picture = site.put_picture("inbox/a.jpg");
    let daemon = site.run();
    let told = wait_told(&site, 1).pop().unwrap();
    let json = &told.json;
    assert_eq!(
        (&json["event"], &json["drop"], &json["waits_for"]),
        (&"waiting".into(), &"a.jpg".into(), &"prompt".into())
    );
    assert!(told.env("REIMAGINED_TEXT").contains("a.jpg waits for a prompt: put one into"), "{json}");
    let since: jiff::Timestamp = json["since"].as_str().unwrap().parse().unwrap();
    let changed =
        jiff::Timestamp::try_from(fs::metadata(site.path("inbox/a.jpg")).unwrap().modified().unwrap()).unwrap();
    assert!(since >= changed && since <= jiff::Timestamp::now(), "{json}");

    site.put("inbox/prompts/b.txt", "a prompt");
    let told = wait_told(&site, 2).pop().unwrap();
    assert_eq!((&told.json["drop"], &told.json["waits_for"]), (&"prompts/b.txt".into(), &"image".into()));

    // Looked at again, and read again: the same waits. Dropped anew: another.
    daemon.signal(Signal::USR1);
    daemon.signal(Signal::HUP);
    site.wait("it read the configuration", || site.logs().contains("the configuration was read again"));
    fs::remove_file(site.path("inbox/a.jpg")).unwrap();
    site.forget(&picture);
    site.wait("it is gone", || site.waiting("prompt") == 0);
    site.put_picture("inbox/a.jpg");
    let told = wait_told(&site, 3).pop().unwrap();
    assert_eq!(told.json["drop"], "a.jpg");
    site.put("inbox/a.txt", "a prompt");
    site.wait_archived("a.jpg");
    assert_eq!(daemon.stop(), 0);
    assert_eq!(self::told(&site).len(), 3);
}

#[test]
fn names_that_are_no_text_reach_programs_as_they_are() {
    let site = recorded(&["on_done"]);
    let name = OsStr::from_bytes(b"-\xff \n;$(x).jpg");
    let recorder = path_text(&site, "recorder");
    site.set("hooks.on_done", command(&[&recorder, "{drop}", "{result}"]));
    site.put_picture(Path::new("inbox").join(name));
    assert_eq!(site.once(), 0, "{}", site.describe());
    let told = wait_told(&site, 1).pop().unwrap();
    assert_eq!(told.env[OsStr::new("REIMAGINED_DROP")], name);
    let result = Path::new(&told.env[OsStr::new("REIMAGINED_RESULT")]);
    assert!(result.is_file() && result.is_absolute(), "{}", result.display());
    assert_eq!(told.args[0], format!("./{}", name.to_string_lossy()));
    assert_eq!(told.json["drop"], name.to_string_lossy().as_ref(), "only what is no UTF-8 is another there");
}

#[test]
fn a_program_that_takes_too_long_is_killed_with_all_that_it_started() {
    let site = Site::new();
    let text = format!("echo starting\nsleep 1000 &\necho $! >'{}'\nwait", path_text(&site, "pid"));
    let slow = program(&site, "slow", &text);
    site.set("hooks.on_done", slow).set("hooks.timeout", "5s");
    site.put_picture("inbox/a.jpg");
    let daemon = site.run();
    site.wait("it is logged", || site.logs().contains("took longer than 5 s"));
    assert!(site.logs().contains("starting"), "its last words: {}", site.logs());
    let stat = format!("/proc/{}/stat", site.text("pid").trim());
    // Gone, or dead and not waited for by whoever inherited it.
    site.wait("the grandchild is dead", || {
        fs::read_to_string(&stat).map_or(true, |stat| stat.rsplit(") ").next().unwrap().starts_with('Z'))
    });
    let threads = || fs::read_dir(format!("/proc/{}/task", daemon.pid())).unwrap().map(|e| e.unwrap().path());
    assert!(threads().any(|thread| thread.join("children").exists()), "this kernel tells no children");
    // A thread may end meanwhile.
    let children = || threads().map(|t| fs::read_to_string(t.join("children")).unwrap_or_default()).collect::<String>();
    site.wait("nothing is left to be waited for", || children().is_empty());
    site.a_later_drop_is_done();
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn a_program_that_cannot_be_killed_is_let_go_and_holds_up_neither_others_nor_the_end() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("!!! LEFT OUT: only root can start a process that another one may not kill");
        return;
    }
    let site = Site::new();
    let text = format!("echo $$ >>'{}'\nexec setpriv --reuid 65534 sleep 1000", path_text(&site, "pids"));
    let immune = program(&site, "immune", &text);
    site.set("hooks.on_done", immune).set("hooks.timeout", "2s").set("hooks.max_running", 1);
    site.put_picture("inbox/a.jpg");
    let daemon = site.run_by(|command| powerless("-kill", command));
    let let_go = || site.logs().matches("took longer than 2 s ([hooks] timeout) and could not be killed").count();
    site.wait("it is logged", || let_go() == 1);
    site.set("hooks.timeout", "1h");
    daemon.signal(Signal::HUP);
    site.wait("it was read", || site.logs().contains("the configuration was read again"));
    site.put_picture("inbox/b.jpg");
    site.wait("its place is another's", || site.text("pids").lines().count() == 2);
    assert_eq!(daemon.stop(), 0);
    for pid in site.text("pids").lines() {
        let pid = rustix::process::Pid::from_raw(pid.parse().unwrap()).unwrap();
        rustix::process::kill_process(pid, Signal::KILL).unwrap();
    }
    assert!(site.logs().contains("could not be killed, as the daemon ends"), "{}", site.logs());
}

#[test]
fn a_failing_program_is_logged_with_its_last_words_and_harms_nobody() {
    let site = Site::new();
    let text = "head -c 100000 /dev/zero | tr '\\0' x\necho\necho \"the disk is full\" >&2\nexit 7";
    let failing = program(&site, "failing", text);
    site.set("hooks.on_done", failing);
    site.put_picture("inbox/a.jpg");
    let daemon = site.run();
    site.wait("it is logged", || site.logs().contains("exit code 7"));
    let logs = site.logs();
    let line = logs.lines().find(|line| line.contains("exit code 7")).unwrap();
    assert!(line.contains("the disk is full") && line.contains("a.jpg") && line.len() < 4_000, "{line}");
    for (program, words) in [("/nowhere/at-all", "can't be run"), ("no-such-program-at-all", "in no folder of PATH")] {
        site.set("hooks.on_done", program);
        daemon.signal(Signal::HUP);
        site.wait("it is said at once", || {
            site.logs().contains(&format!("[hooks] on_done: {}", {
                if program.starts_with('/') {
                    format!("the program {program}")
                } else {
                    format!("there is no program {program}")
                }
            }))
        });
        site.a_later_drop_is_done();
        site.wait("it is logged", || site.logs().contains(words));
    }
    // Programs that read nothing are none that fail.
    site.set("hooks.on_done", "true");
    daemon.signal(Signal::HUP);
    let failures = site.logs().matches("a hook failed").count();
    site.a_later_drop_is_done();
    assert_eq!(daemon.stop(), 0);
    assert!(site.logs().matches("a hook failed").count() <= failures + 1, "{}", site.logs());
}

#[test]
fn no_more_programs_run_at_once_than_may() {
    let site = Site::new();
    fs::create_dir(site.path("now")).unwrap();
    let text = format!(
        "cd '{}' || exit 9\ntouch now/$$\nls now | wc -l >>most\nsleep 0.05\nrm now/$$\necho $REIMAGINED_DROP >>drops",
        path_text(&site, "")
    );
    let slow = program(&site, "slow", &text);
    site.set("hooks.on_done", slow);
    for n in 0..100 {
        site.put_picture(format!("inbox/{n}.jpg"));
    }
    // Working off once ends when everything is told.
    assert_eq!(site.once(), 0, "{}", site.describe());
    let most = site.text("most").lines().map(|n| n.trim().parse::<u32>().unwrap()).max();
    assert!(most.is_some_and(|most| most <= 2), "{most:?}");
    let mut drops: Vec<_> = site.text("drops").lines().map(str::to_owned).collect();
    drops.sort();
    drops.dedup();
    assert_eq!(drops.len(), 100);
}

#[test]
fn at_the_end_what_was_heard_is_told_and_what_was_not_is_said() {
    let site = Site::new();
    let text = format!("echo $REIMAGINED_DROP >>'{}'", path_text(&site, "told"));
    let teller = program(&site, "teller", &text);
    site.set("hooks.on_done", teller);
    site.put_picture("inbox/a.jpg");
    let daemon = site.run();
    site.wait_archived("a.jpg");
    assert_eq!(daemon.stop(), 0);
    assert_eq!(site.text("told"), "a.jpg\n", "{}", site.logs());

    let text = format!("touch '{}'\nsleep 1000", path_text(&site, "begun"));
    let endless = program(&site, "endless", &text);
    site.set("hooks.on_done", endless).set("hooks.timeout", "1h").set("hooks.max_running", 1);
    site.put_picture("inbox/b.jpg");
    site.put_picture("inbox/c.jpg");
    let daemon = site.run();
    site.wait_archived("b.jpg");
    site.wait_archived("c.jpg");
    site.wait_for("begun");
    assert_eq!(daemon.stop(), 0);
    let logs = site.logs();
    assert!(logs.contains("killed, as the daemon ends"), "{logs}");
    assert!(logs.contains("ended before everything was told") && logs.contains("events=1"), "{logs}");
}

#[test]
fn another_configuration_counts_from_its_reload_on() {
    let site = recorded(&["on_done"]);
    let daemon = site.run();
    site.put_picture("inbox/a.jpg");
    wait_told(&site, 1);
    let other = program(&site, "other", &format!("echo $REIMAGINED_DROP >>'{}'", path_text(&site, "other-told")));
    site.set("hooks.on_done", other);
    daemon.signal(Signal::HUP);
    site.wait("it read it", || site.logs().contains("the configuration was read again"));
    site.put_picture("inbox/b.jpg");
    site.wait("the other is told", || site.has("other-told") && site.text("other-told") == "b.jpg\n");
    assert_eq!(told(&site).len(), 1);
    assert_eq!(daemon.stop(), 0);
}

// ---- the webhook ------------------------------------------------------------------------------------------------

const SECRET: &str = "between us";

/// A site that posts to a server of its own, signed.
fn posting(server: &Api) -> Site {
    let site = Site::new();
    let secret = site.put("secret", format!("{SECRET}\n"));
    fs::set_permissions(secret, fs::Permissions::from_mode(0o600)).unwrap();
    site.set("hooks.webhook_url", server.url() + "/hook?to=me").set("hooks.webhook_secret_file", "secret");
    site.set("hooks.paused_after", "0s");
    site
}

/// Answers the `n`-th post (from 1).
fn on_post(server: &Api, answer: impl Fn(usize) -> Answer + Send + Sync + 'static) {
    server.on_other(move |request, n| request.path.starts_with("/hook").then(|| answer(n)));
}

fn good() -> Answer {
    Answer::new(204, "", "")
}

fn signed_well(request: &Request) -> bool {
    let timestamp = request.header("x-reimagined-timestamp").unwrap();
    let signature = request.header("x-reimagined-signature").unwrap().strip_prefix("sha256=").unwrap();
    let tag: Vec<u8> =
        (0..signature.len()).step_by(2).map(|i| u8::from_str_radix(&signature[i..i + 2], 16).unwrap()).collect();
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    let signed = [timestamp.as_bytes(), b".", &request.body].concat();
    let age = jiff::Timestamp::now().as_second() - timestamp.parse::<i64>().unwrap();
    (0..600).contains(&age) && hmac::verify(&key, &signed, &tag).is_ok()
}

#[test]
fn the_webhook_gets_the_event_signed_and_again_after_trouble_that_passes() {
    let server = Api::start();
    on_post(&server, |n| if n == 1 { Answer::error(503, "not now") } else { good() });
    let site = posting(&server);
    site.put_picture("inbox/look/a.jpg");
    assert_eq!(site.once(), 0, "{}", site.describe());
    let posts = server.requests();
    assert_eq!(posts.len(), 2, "told once, after one try that failed");
    assert_eq!(posts[0].header("x-reimagined-delivery"), posts[1].header("x-reimagined-delivery"));
    assert_eq!(posts[0].body, posts[1].body);
    for post in &posts {
        assert!(signed_well(post), "{post:?}");
        assert_eq!((post.method.as_str(), post.path.as_str()), ("POST", "/hook?to=me"));
        assert_eq!(post.header("content-type"), Some("application/json"));
        assert_eq!(post.header("x-reimagined-event"), Some("done"));
        let text = format!("{:?} {}", post.headers, String::from_utf8_lossy(&post.body));
        assert!(!text.contains(KEY) && !text.contains(ASSET_MARK) && !text.contains("x-api-key"), "{text}");
    }
    let json = posts[1].json();
    assert_eq!((&json["event"], &json["drop"]), (&"done".into(), &"look/a.jpg".into()));
    assert_eq!(json["results"][0], path_text(&site, "outbox/look/a.png"));
}

#[test]
fn a_refusal_is_not_posted_again_and_no_redirect_is_followed() {
    let server = Api::start();
    on_post(&server, |n| match n {
        1 => Answer::error(400, "what is this"),
        2 => Answer::new(302, "", "").header("location", "/elsewhere"),
        _ => good(),
    });
    let site = posting(&server);
    for name in ["a", "b", "c"] {
        site.put_picture(format!("inbox/{name}.jpg"));
    }
    assert_eq!(site.once(), 0, "{}", site.describe());
    assert_eq!(server.requests().len(), 3);
    assert!(server.to("/elsewhere").is_empty());
    let logs = site.logs();
    assert!(logs.contains("it answered 400") && logs.contains("redirect, which is not followed: 302"), "{logs}");
    assert!(!logs.contains("to=me"), "the address may be a secret: {logs}");
}

#[test]
fn the_webhook_is_told_of_the_events_that_were_asked_for_in_their_order() {
    let server = Api::start();
    on_post(&server, |_| good());
    let site = posting(&server);
    site.set("hooks.webhook_events", vec!["failed", "waiting"]).set("hooks.waiting_after", "300ms");
    site.unset("preset.prompt");
    let daemon = site.run();
    site.put("inbox/bad.mp4", "no picture");
    site.wait("it is told", || server.requests().len() == 1);
    site.put_picture("inbox/waits.jpg");
    site.wait("it is told, too", || server.requests().len() == 2);
    site.put("inbox/waits.txt", "a prompt");
    site.wait_archived("waits.jpg");
    site.put("inbox/worse.mp4", "no picture, either");
    site.wait("so is this", || server.requests().len() == 3);
    let events: Vec<_> =
        server.requests().iter().map(|r| (r.json()["event"].clone(), r.json()["drop"].clone())).collect();
    let event = |word: &str, drop: &str| (Value::from(word), Value::from(drop));
    assert_eq!(events, [event("failed", "bad.mp4"), event("waiting", "waits.jpg"), event("failed", "worse.mp4")]);
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn a_webhook_that_cannot_be_used_is_logged_and_keeps_no_picture_waiting() {
    let site = Site::new();
    site.set("hooks.webhook_url", "https://nas.example/hook/t0ken");
    site.put_picture("inbox/a.jpg");
    let mut command = site.command();
    // No authority that could vouch for anybody.
    command.args(["run", "--once"]).env("SSL_CERT_FILE", "/nowhere").env("SSL_CERT_DIR", "/nowhere");
    assert_eq!(Daemon::spawn(command, &site.next_log()).ends(), 0, "{}", site.describe());
    let logs = site.logs();
    assert!(logs.contains("webhook_url can't be used") && !logs.contains("t0ken"), "{logs}");
}

#[test]
fn nothing_is_posted_unsigned_where_the_secret_cannot_be_read() {
    let server = Api::start();
    on_post(&server, |_| good());
    let site = posting(&server);
    fs::set_permissions(site.path("secret"), fs::Permissions::from_mode(0o644)).unwrap();
    let daemon = site.run();
    site.wait("it is said", || site.logs().contains("can be used by others (mode 644)"));
    site.put_picture("inbox/a.jpg");
    site.wait_archived("a.jpg");
    fs::set_permissions(site.path("secret"), fs::Permissions::from_mode(0o600)).unwrap();
    site.wait("it is told in the end", || !server.requests().is_empty());
    assert!(server.requests().iter().all(signed_well));
    assert_eq!(daemon.stop(), 0);
}

// ---- the configuration ------------------------------------------------------------------------------------------

fn check(site: &Site) -> (i32, String) {
    let output = site.call(&["check", "--offline"]);
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn check_looks_at_programs_secret_and_address() {
    let site = Site::new();
    site.set("hooks.on_done", "true").set("hooks.webhook_url", "http://nas.example/hook/t0ken");
    let (code, said) = check(&site);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("on_done, a webhook at nas.example, not signed"), "{said}");
    assert!(said.contains("plain http") && !said.contains("t0ken"), "{said}");

    site.set("hooks.webhook_url", "http://127.0.0.1:9/").set("hooks.webhook_secret_file", "secret");
    site.set("hooks.on_done", "no-such-program-at-all").set("hooks.on_failed", vec!["./not-executable"]);
    site.put("not-executable", "x");
    let (code, said) = check(&site);
    assert_eq!(code, 2, "{said}");
    for words in [
        "on_done: there is no program no-such-program-at-all in PATH",
        "not-executable can't be executed by this user: chmod +x",
        "webhook_secret_file",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    assert!(!said.contains("plain http"), "{said}");
}

#[test]
fn what_hooks_may_not_say_is_refused_with_what_to_write() {
    let site = Site::new();
    for (key, value, words) in [
        ("on_done", toml::Value::from("notify-send done"), "write a list, such as [\"notify-send\", \"done\"]"),
        ("on_done", vec!["cp", "{reslt}"].into(), "did you mean \"{result}\"?"),
        ("on_paused", vec!["cp", "{drop}"].into(), "{drop} has no value here: for on_paused there are {event}"),
        ("on_done", vec!["cp", "to {results}"].into(), "an argument of its own"),
        ("on_done", Vec::<String>::new().into(), "is an empty list"),
        ("on_done", 3.into(), "must be a list of a program and its arguments, not a whole number"),
        ("on_don", "true".into(), "did you mean \"on_done\"?"),
        ("max_running", 0.into(), "must be a whole number from 1 to 64"),
        ("timeout", "0s".into(), "longer than nothing"),
        ("webhook_url", "ftp://x/".into(), "must begin with https:// or http://"),
        ("webhook_url", "https://me:pw@x/".into(), "user name or a password"),
        ("webhook_secret_file", "secret".into(), "means nothing without webhook_url"),
        ("webhook_events", vec!["fail"].into(), "did you mean \"failed\"?"),
    ] {
        let key = format!("hooks.{key}");
        site.set(&key, value);
        let (code, said) = check(&site);
        assert!(code == 2 && said.contains(words) && said.contains("config.toml:"), "{key}: {said}");
        site.unset(&key);
    }
}
