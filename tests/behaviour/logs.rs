//! The log that programs read, through the real binary. (What the journal gets is tried where there is one.)

#![allow(clippy::unwrap_used, reason = "tests say so by failing")]

use crate::support;

use serde_json::Value;
use support::{Answer, Daemon, Site};

/// Works off what is there with the log as JSON: the exit code, and each line.
fn logged(site: &Site) -> (i32, Vec<Value>) {
    let mut command = site.command();
    command.args(["run", "--once", "--log-format", "json"]);
    let code = Daemon::spawn(command, &site.next_log()).ends();
    // The last line, of how it ended, is for the person who ran it.
    let text = site.logs();
    let lines = text.lines().filter(|line| line.starts_with('{'));
    (code, lines.map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}"))).collect())
}

fn said<'a>(lines: &'a [Value], message: &str) -> Vec<&'a Value> {
    lines.iter().filter(|line| line["message"] == message).collect()
}

#[test]
fn each_step_of_a_drop_is_one_object_with_drop_folder_request_and_verdict() {
    let site = Site::new();
    site.put_picture("inbox/cafe/a.jpg");
    site.api.on_model(|call| call.good().header("x-cost", "0.04"));
    let (code, lines) = logged(&site);
    assert_eq!(code, 0, "{}", site.describe());
    for (message, keys) in [
        ("sending", &[("drop", "cafe/a.jpg"), ("folder", "cafe")][..]),
        (
            "delivered",
            &[("drop", "cafe/a.jpg"), ("folder", "cafe"), ("verdict", "delivered"), ("request_id", "r-1")][..],
        ),
        ("done, original in the archive", &[("drop", "cafe/a.jpg"), ("folder", "cafe")][..]),
    ] {
        let found = said(&lines, message);
        assert_eq!(found.len(), 1, "{message} once in {lines:#?}");
        for (key, value) in keys {
            assert_eq!(found[0][key], *value, "{key} in {}", found[0]);
        }
        assert_eq!(found[0]["level"], "INFO");
        found[0]["timestamp"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    }
    assert_eq!(said(&lines, "delivered")[0]["cost"], 0.04);
}

#[test]
fn more_is_logged_where_that_is_asked_for() {
    let mut lines = Vec::new();
    for flags in [&[][..], &["-v"]] {
        let site = Site::new();
        site.put_picture("inbox/a.jpg");
        let mut command = site.command();
        command.args(["run", "--once"]).args(flags);
        assert_eq!(Daemon::spawn(command, &site.next_log()).ends(), 0, "{}", site.describe());
        let log = site.logs();
        let all =
            ["scanned", "planned", "uploaded", "answered"].iter().all(|word| log.contains(&format!("DEBUG {word}")));
        assert_eq!(all, !flags.is_empty(), "{log}");
        assert!(!log.contains(support::KEY), "{log}");
        lines.push(log.lines().count());
    }
    assert!(lines[0] < lines[1], "{lines:?}");
}

#[test]
fn a_shot_that_is_sent_again_and_then_refused_says_so_with_the_services_request() {
    let site = Site::new();
    site.put("inbox/a.txt", "a look without a picture");
    site.api.on_model(|call| {
        let answer = if call.n == 1 { Answer::error(503, "busy") } else { Answer::error(400, "no such look") };
        answer.header("x-request-id", &format!("r-{}", call.n))
    });
    let (code, lines) = logged(&site);
    assert_eq!(code, 3, "{}", site.describe());
    let again = said(&lines, "it is sent again later");
    assert_eq!(again.len(), 1, "{lines:#?}");
    assert_eq!((&again[0]["verdict"], &again[0]["request_id"]), (&"retry".into(), &"r-1".into()), "{}", again[0]);
    let failed = said(&lines, "failed");
    assert_eq!(failed.len(), 1, "{lines:#?}");
    assert_eq!((&failed[0]["verdict"], &failed[0]["request_id"]), (&"failed".into(), &"r-2".into()), "{}", failed[0]);
    assert_eq!(failed[0]["billed"], "no");
}
