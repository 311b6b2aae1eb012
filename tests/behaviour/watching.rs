//! `status --watch` and what `status` shows, through the real binary: piped, and on a terminal of its own.

#![allow(clippy::unwrap_used, reason = "tests say so by failing")]

use crate::support;

use std::fs::{self, File};
use std::io::Write as _;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use support::{Answer, Gate, Site};

/// A command that goes on, and the file that it writes to. Killed when it goes out of scope.
struct Watch {
    child: Child,
    out: std::path::PathBuf,
}

impl Watch {
    fn begin(site: &Site, mut command: Command, name: &str) -> Self {
        let out = site.path(name);
        let child = command.stdout(File::create(&out).unwrap()).stderr(Stdio::null()).spawn().unwrap();
        Self { child, out }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.out).unwrap()).into_owned()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Its exit code, once it has ended.
    fn ends(&mut self, site: &Site) -> Option<i32> {
        let mut ended = None;
        site.wait("it ends", || {
            ended = self.child.try_wait().unwrap();
            ended.is_some()
        });
        ended.unwrap().code()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn watch(site: &Site, args: &[&str]) -> Command {
    let mut command = site.command();
    command.args(["status", "--watch"]).args(args);
    command
}

#[test]
fn a_pipe_gets_a_block_for_each_change_until_it_is_ended() {
    let site = Site::new();
    let mut watch = Watch::begin(&site, watch(&site, &[]), "watched");
    site.wait("a daemon that never ran is told", || watch.text().contains("no daemon has run here yet"));
    let daemon = site.run();
    site.put_picture("inbox/cafe/a.jpg");
    site.wait_archived("cafe/a.jpg");
    site.wait("what was made is told", || watch.text().contains("Last hour:      1 image, $0.04"));
    assert_eq!(daemon.stop(), 0);
    site.wait("its end is told", || watch.text().contains("Last seen:"));
    let text = watch.text();
    assert!(!text.contains('\u{1b}'), "{text}");
    // Each begins with a line that says when, and ends with an empty one.
    let blocks: Vec<_> = text.trim_end().split("\n\n").collect();
    assert!(blocks.len() >= 3, "{text}");
    for block in &blocks {
        let mut lines = block.lines();
        assert!(lines.next().unwrap().starts_with("20"), "{block}");
        assert!(lines.next().unwrap().starts_with("State:"), "{block}");
    }
    // Each begins with its time.
    let what = |block: &str| block.split_once('\n').map(|(_, rest)| rest.to_owned());
    assert!(blocks.windows(2).all(|two| what(two[0]) != what(two[1])), "{blocks:#?}");
    watch.signal(Signal::INT);
    assert_eq!(watch.ends(&site), Some(0));
}

#[test]
fn with_json_each_change_is_a_line() {
    let site = Site::new();
    let mut watch = Watch::begin(&site, watch(&site, &["--json"]), "watched");
    let last = || -> Value {
        let text = watch.text();
        let whole = text.rfind('\n').map(|end| text[..end].to_owned()).unwrap_or_default();
        serde_json::from_str(whole.lines().last().unwrap_or("null")).unwrap()
    };
    site.wait("it is stopped", || last()["state"] == "stopped");
    let daemon = site.run();
    site.wait("it runs", || last()["state"] == "running");
    assert_eq!(daemon.stop(), 0);
    site.wait("it is stopped again", || last()["state"] == "stopped");
    watch.signal(Signal::TERM);
    assert_eq!(watch.ends(&site), Some(0));
}

/// `status --watch` on a terminal of its own, made by `script`, whose keyboard is a pipe.
fn on_a_terminal(site: &Site, env: &[(&str, &str)]) -> Watch {
    let own = watch(site, &[]);
    let mut command = Command::new("script");
    let quoted = |text: &std::ffi::OsStr| format!("'{}'", text.to_str().unwrap());
    let line = std::iter::once(own.get_program()).chain(own.get_args()).map(quoted).collect::<Vec<_>>().join(" ");
    command.args(["--quiet", "--flush", "--return", "--command"]).arg(format!("stty rows 12 cols 80; exec {line}"));
    command.arg("/dev/null").env_clear().env("PATH", std::env::var_os("PATH").unwrap()).env("SHELL", "/bin/sh");
    for (name, value) in own.get_envs() {
        command.env(name, value.unwrap());
    }
    command.env("TERM", "xterm").envs(env.iter().copied()).stdin(Stdio::piped());
    Watch::begin(site, command, "screen")
}

#[test]
fn a_terminal_is_drawn_in_place_and_is_left_as_it_was() {
    for no_colour in [false, true] {
        let site = Site::new();
        let daemon = site.run();
        for n in 0..20 {
            // They wait for a prompt, so that there is more to show than there are lines.
            site.put_picture(format!("inbox/dark/{n}.jpg"));
        }
        site.put("inbox/dark/preset.toml", "prompt = \"unset\"\n");
        site.wait("they wait", || site.waiting("prompt") == 20);
        let mut watch = on_a_terminal(&site, if no_colour { &[("NO_COLOR", "1")] } else { &[] });
        site.wait("it is drawn again and again", || watch.text().matches("\u{1b}[H").count() >= 3);
        assert_eq!(watch.text().contains("\u{1b}[32mrunning"), !no_colour, "{:?}", watch.text());
        // Ctrl-C, as the keyboard gives it.
        watch.child.stdin.as_mut().unwrap().write_all(b"\x03").unwrap();
        assert_eq!(watch.ends(&site), Some(0), "{:?}", watch.text());
        let text = watch.text();
        let (enter, leave) = ("\u{1b}[?1049h\u{1b}[?25l\u{1b}[?7l", "\u{1b}[?7h\u{1b}[?25h\u{1b}[?1049l");
        assert_eq!((text.matches(enter).count(), text.matches(leave).count()), (1, 1), "{text:?}");
        assert!(text.find(enter) < text.find("State:") && text.rfind("Ctrl-C ends") < text.find(leave), "{text:?}");
        let frame = text.split("\u{1b}[H").nth(1).unwrap();
        assert!(frame.contains("more lines (reimagined status shows all)"), "{frame:?}");
        assert_eq!(frame.matches("\r\n").count(), 11, "twelve lines are all there are\n{frame:?}");
        assert_eq!(daemon.stop(), 0);
    }
}

#[test]
fn a_terminal_that_cannot_be_drawn_on_gets_blocks() {
    let site = Site::new();
    let mut watch = on_a_terminal(&site, &[("TERM", "dumb")]);
    site.wait("it is told", || watch.text().contains("no daemon has run here yet"));
    watch.child.stdin.as_mut().unwrap().write_all(b"\x03").unwrap();
    assert_eq!(watch.ends(&site), Some(0));
    assert!(!watch.text().contains('\u{1b}'), "{:?}", watch.text());
}

#[test]
fn status_tells_folders_ages_money_and_what_is_ignored() {
    let site = Site::new();
    let gate = Gate::default();
    let opens = gate.clone();
    site.api.on_model(move |call| match call.prompt.as_str() {
        "held" => call.good().after(&opens),
        "refused" => Answer::error(422, "no"),
        _ => call.good(),
    });
    let daemon = site.run();
    for (name, prompt) in [("done", "done"), ("refused", "refused"), ("autumn/held", "held")] {
        site.put(format!("inbox/{name}.txt"), prompt);
        site.put_picture(format!("inbox/{name}.jpg"));
    }
    site.put("inbox/dark/preset.toml", "prompt = \"unset\"\n");
    for n in 0..3 {
        site.put_picture(format!("inbox/dark/{n}.jpg"));
    }
    site.put("inbox/dark/.hidden", "");
    site.put("inbox/README", "for people");
    site.wait_archived("done.jpg");
    site.wait_failed("refused.jpg");
    site.wait("all is told", || {
        let told = site.told();
        told["waiting"]["prompt"] == 3
            && told["failed"] == 1
            && told["in_work"] == 1
            && told["ignored"] == 2
            && told["last_hour"]["images"] == 2
    });
    let told = site.told();
    let folder = |folder: &str, waiting, in_work| json!({ "folder": folder, "waiting": waiting, "in_work": in_work });
    assert_eq!(told["queue"], json!([folder("dark", 3, 0), folder("autumn", 0, 1)]), "{told:#}");
    assert_eq!(told["queue_left_out"], 0);
    // The held one counts as an image from its send on.
    let spend = json!({ "images": 2, "cost": 0.04, "unpriced": 0 });
    assert_eq!([&told["last_hour"], &told["last_24h"], &told["last_30d"]], [&spend; 3], "{told:#}");
    let ignored = json!([
        { "file": "README", "why": "a README is for people" },
        { "file": "dark/.hidden", "why": "its name begins with a dot" },
    ]);
    assert_eq!(told["ignored_files"], ignored);
    assert!(told["work"][0]["claimed"].as_str().unwrap() <= told["work"][0]["since"].as_str().unwrap(), "{told:#}");
    let page = String::from_utf8(site.call(&["status"]).stdout).unwrap();
    for line in [
        "By folder:      2 folders\n  dark  3 waiting\n  autumn  1 in work\n",
        "Ignored:        2 (reimagined check lists them)\n  README  a README is for people\n",
        "Last hour:      2 images, $0.04\nLast 24 hours:  2 images, $0.04\nLast 30 days:   2 images, $0.04\n",
        "  autumn/held.jpg  sending, ",
        "  refused.jpg  HTTP 422",
        "Credits left:   $7.50",
    ] {
        assert!(page.contains(line), "{line}\n{page}");
    }
    gate.open();
    site.wait_archived("autumn/held.jpg");
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn the_lists_of_the_status_are_bounded_and_say_what_they_leave_out() {
    let site = Site::new();
    for n in 0..60 {
        site.put_picture(format!("inbox/f{n:02}/a.jpg"));
        site.put(format!("inbox/f{n:02}/.x"), "");
    }
    site.put_picture("inbox/f59/b.jpg");
    site.unset("preset.prompt");
    let daemon = site.run();
    site.wait("they wait", || site.waiting("prompt") == 61 && site.status()["ignored"] == 60);
    let told = site.told();
    let len = |key: &str| told[key].as_array().unwrap().len();
    assert_eq!((len("queue"), len("ignored_files"), len("waiting_for")), (50, 50, 50));
    assert_eq!((&told["queue_left_out"], &told["queue"][0]["folder"]), (&10.into(), &"f59".into()), "fullest first");
    let page = String::from_utf8(site.call(&["status"]).stdout).unwrap();
    assert!(page.contains("By folder:      60 folders\n  f59  2 waiting\n  f00  1 waiting\n"), "{page}");
    assert!(page.contains("  and 50 more\n"), "{page}");
    assert_eq!(daemon.stop(), 0);
}
