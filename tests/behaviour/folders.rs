//! What lies in which folder, and what belongs together: the real binary over scripted answers.

#![allow(clippy::unwrap_used, reason = "tests say so by failing")]

use crate::support;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use serde_json::json;
use support::api::result;
use support::{Answer, Gate, Site};

#[test]
fn the_tree_below_the_inbox_is_mirrored_in_the_others() {
    let site = Site::new();
    let picture = site.put_picture("inbox/autumn-cafe/deep/terrace.jpg");
    site.put("inbox/autumn-cafe/deep/terrace.txt", "orange leaves");
    assert_eq!(site.once(), 0);
    assert_eq!(
        site.names("outbox"),
        ["autumn-cafe/deep/terrace.png", "autumn-cafe/deep/terrace.reimagined.json"],
        "the extension is what the bytes are"
    );
    assert_eq!(site.names("archive"), ["autumn-cafe/deep/terrace.jpg", "autumn-cafe/deep/terrace.txt"]);
    assert_eq!(site.files("archive")[Path::new("autumn-cafe/deep/terrace.jpg")], picture);
    assert_eq!(site.files("outbox")[Path::new("autumn-cafe/deep/terrace.png")], result(1), "byte for byte");
    assert!(site.names("errors").is_empty() && site.is_empty());
    let call = &site.api.calls()[0];
    assert_eq!(call.prompt(), "orange leaves");
    assert!(call.reference().unwrap().starts_with(&site.api.url()));
    assert_eq!(call.header("x-api-key"), Some(support::KEY));
}

#[test]
fn what_nobody_set_is_left_out_of_the_request() {
    let site = Site::new();
    site.put("inbox/a.txt", "alone");
    assert_eq!(site.once(), 0);
    assert_eq!(site.api.calls()[0].json(), json!({ "prompt": "alone" }));
}

#[test]
fn the_folders_presets_lie_over_one_another_and_the_sidecar_on_top() {
    let site = Site::new();
    site.set("preset.steps_num", 10).set("preset.fast", true);
    site.put("inbox/preset.toml", "prompt = \"outer\"\nsteps_num = 20\nseed = 1\n");
    site.put("inbox/in/preset.toml", "steps_num = 30\nprompt_suffix = \", in\"\nseed = \"unset\"\n");
    site.put_picture("inbox/in/a.jpg");
    site.put("inbox/in/a.toml", "steps_num = 40\nprompt_prefix = \"P. \"\n");
    assert_eq!(site.once(), 0);
    let body = site.api.calls()[0].json();
    assert_eq!(body["prompt"], "P. outer, in");
    assert_eq!(body["steps_num"], 40);
    assert_eq!(body["fast"], true);
    assert_eq!(body.get("seed"), None);
    let provenance = site.provenance("outbox/in/a.reimagined.json");
    assert_eq!(provenance["request"]["steps_num"], 40);
    assert!(provenance["request"]["structure_image_url"].as_str().unwrap().starts_with("blake3:"));
    assert!(provenance["origins"]["fast"].as_str().unwrap().contains("config.toml"), "{provenance}");
    assert!(provenance["origins"]["steps_num"].as_str().unwrap().contains("in/a.toml"), "{provenance}");
}

#[test]
fn a_sidecar_belongs_to_the_picture_of_its_stem() {
    let site = Site::new();
    for (stem, sidecar, text) in [
        ("text", "text.txt", "\u{feff}  by text \r\n\n".to_owned()),
        ("toml", "toml.toml", "prompt = \"by toml\"\nseed = 7\n".to_owned()),
        ("json", "json.json", json!({ "prompt": "by json", "seed": 8, "enhance_image": true }).to_string()),
        ("tied", "tied.jpg.txt", "by a tied one".to_owned()),
        ("Upper", "uPPER.TXT", "whatever the case".to_owned()),
    ] {
        site.put(format!("inbox/{sidecar}"), text);
        site.put_picture(format!("inbox/{stem}.jpg"));
    }
    site.put("inbox/two.toml", "prompt = \"not this\"\nseed = 9\n");
    site.put("inbox/two.txt", "the text wins");
    site.put_picture("inbox/two.jpg");
    assert_eq!(site.once(), 0);
    let mut calls: Vec<_> = site.api.calls().iter().map(|r| (r.prompt(), r.seed())).collect();
    calls.sort();
    let wanted = [
        ("by a tied one", None),
        ("by json", Some(8)),
        ("by text", None),
        ("by toml", Some(7)),
        ("the text wins", Some(9)),
        ("whatever the case", None),
    ];
    assert_eq!(calls, wanted.map(|(p, s)| (p.to_owned(), s)));
    assert!(site.api.calls().iter().all(|r| r.reference().is_some()), "each had its picture");
    assert_eq!(site.names("archive").len(), 13, "sidecars move with their pictures");
}

#[test]
fn the_apis_own_request_body_works_as_it_is() {
    let site = Site::new();
    let body = json!({
        "prompt": "A vibrant coffee shop",
        "structure_image_url": "https://example.com/a.png",
        "structure_ref_influence": 0.75,
        "steps_num": 12,
        "seed": 42,
        "fast": true,
        "enhance_image": false,
        "prompt_content_moderation": true,
        "content_moderation": false,
        "ip_signal": false,
        "include_generation_prefix": true,
    });
    site.put("inbox/shop.json", body.to_string());
    assert_eq!(site.once(), 0);
    assert_eq!(site.api.calls()[0].json(), body);
    assert!(site.api.uploads().is_empty());
    assert_eq!(site.results(), ["shop.png"]);
}

#[test]
fn a_sidecars_own_reference_beats_the_picture_beside_it() {
    let site = Site::new();
    site.put("inbox/a.toml", "structure_image_url = \"https://example.com/b.png\"\n");
    site.put_picture("inbox/a.jpg");
    assert_eq!(site.once(), 0);
    assert_eq!(site.api.calls()[0].reference().as_deref(), Some("https://example.com/b.png"));
    assert!(site.api.uploads().is_empty(), "the picture travelled nowhere");
    assert_eq!(site.names("archive"), ["a.jpg", "a.toml"]);
}

#[test]
fn a_sidecar_alone_waits_for_its_picture_and_then_goes_as_a_prompt() {
    let site = Site::new();
    site.set("watch.lone_wait", "4s");
    let _daemon = site.run();
    site.put("inbox/alone.txt", "no picture");
    site.put("inbox/late.txt", "with a picture");
    site.wait("both wait for a picture", || site.waiting("image") == 2);
    site.put_picture("inbox/late.jpg");
    site.wait_archived("late.jpg");
    site.wait_archived("alone.txt");
    let calls = site.api.calls();
    assert_eq!(calls.len(), 2);
    assert!(calls[0].reference().is_some() && calls[0].prompt() == "with a picture");
    assert!(calls[1].reference().is_none() && calls[1].prompt() == "no picture");
}

#[test]
fn junk_is_never_touched() {
    let site = Site::new();
    site.set("watch.ignore", vec!["*.bak"]);
    let junk = [
        ".hidden.jpg",
        "~$a.txt",
        "a.jpg.part",
        "a.partial",
        "a.crdownload",
        "a.download",
        "a.tmp",
        ".DS_Store",
        "Thumbs.db",
        "desktop.ini",
        "README",
        "README.txt",
        "@eaDir/a.jpg",
        "#recycle/a.jpg",
        "@Recycle/a.jpg",
        "#snapshot/a.jpg",
        "$RECYCLE.BIN/a.jpg",
        "lost+found/a.jpg",
        ".stfolder/a.jpg",
        ".stversions/a.jpg",
        "System Volume Information/a.jpg",
        "a.error.txt",
        "a.reimagined.json",
        "old.bak",
        "deep/.hidden.png",
    ];
    for name in junk {
        site.put(Path::new("inbox").join(name), format!("junk {name}"));
    }
    site.put_picture("inbox/good.jpg");
    assert_eq!(site.once(), 0);
    for name in junk {
        assert_eq!(site.text(Path::new("inbox").join(name)), format!("junk {name}"));
    }
    assert_eq!(site.api.calls().len(), 1);
    assert_eq!(site.names("archive"), ["good.jpg"]);
    assert!(site.names("errors").is_empty());
}

#[test]
fn nothing_behind_a_symlink_is_read_and_nothing_special_is_opened() {
    let site = Site::new();
    let outside = site.put("elsewhere/secret.jpg", site.a_picture());
    site.put("elsewhere/folder/inside.jpg", site.a_picture());
    site.put("elsewhere/prompt.txt", "a secret prompt");
    let link = |from: &Path, to: &str| std::os::unix::fs::symlink(from, site.path(to)).unwrap();
    link(&outside, "inbox/link.jpg");
    link(&site.path("elsewhere/folder"), "inbox/linked");
    link(&site.path("elsewhere/prompt.txt"), "inbox/good.txt");
    link(&site.path("nowhere"), "inbox/dangling.jpg");
    let fifo = |rel: &str| {
        rustix::fs::mkfifoat(rustix::fs::CWD, site.path(rel), rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
    };
    fifo("inbox/pipe.jpg");
    fifo("inbox/pipe.txt");
    let _socket = std::os::unix::net::UnixListener::bind(site.path("inbox/socket.png")).unwrap();
    site.put_picture("inbox/good.jpg");
    assert_eq!(site.once(), 0, "nothing hung on a pipe");
    assert_eq!(site.api.calls().len(), 1);
    assert_eq!(site.api.calls()[0].prompt(), "a look", "a linked sidecar is none");
    for name in ["link.jpg", "linked", "good.txt", "dangling.jpg", "pipe.jpg", "pipe.txt", "socket.png"] {
        assert!(site.has(format!("inbox/{name}")), "{name} is where it was");
        assert!(name == "good.txt" || site.logs().contains(name), "{name} is named in the log\n{}", site.logs());
    }
    assert_eq!(site.names("archive"), ["good.jpg"]);
}

#[test]
fn odd_names_go_through_unchanged() {
    let site = Site::new();
    let long = format!("{}.jpg", "é".repeat(118));
    let names: Vec<&[u8]> = vec![
        b"with space.jpg",
        b"quote'\"`.jpg",
        b"line\nbreak.jpg",
        b"not\xff\xfeutf8.jpg",
        b"-rf.jpg",
        "nfd-e\u{301}.jpg".as_bytes(),
        "日本語.JPEG".as_bytes(),
        b"percent%20#?.jpg",
        b"$(touch x);.jpg",
        b"two.dots.jpg",
        b"trailing .jpg",
        long.as_bytes(),
    ];
    assert_eq!(long.len(), 240);
    for name in &names {
        site.put_picture(Path::new("inbox/o d\td").join(OsStr::from_bytes(name)));
    }
    assert_eq!(site.once(), 0, "{}", site.describe());
    let archive: BTreeSet<PathBuf> = site.files("archive").into_keys().collect();
    for name in &names {
        assert!(archive.contains(&Path::new("o d\td").join(OsStr::from_bytes(name))), "{name:?}\n{archive:?}");
    }
    assert_eq!(site.results().len(), names.len());
    assert!(site.files("outbox").contains_key(Path::new(OsStr::from_bytes(b"o d\td/not\xff\xfeutf8.png"))));
    assert!(!site.logs().contains("line\nbreak"), "a name can't write a line of the log");
}

#[test]
fn a_picture_and_a_sidecar_of_one_name_in_two_normal_forms_belong_together() {
    let site = Site::new();
    site.put("inbox/cafe\u{301}.txt", "composed or not");
    site.put_picture("inbox/caf\u{e9}.jpg");
    assert_eq!(site.once(), 0);
    assert_eq!(site.api.calls()[0].prompt(), "composed or not");
    assert_eq!(site.names("archive").len(), 2);
}

#[test]
fn a_taken_name_gets_a_number_for_the_whole_set() {
    let site = Site::new();
    site.put("outbox/terrace.png", "somebody's");
    site.put("outbox/TERRACE (2).PNG", "another's, with a name that differs by case");
    site.put_picture("inbox/terrace.jpg");
    site.put("inbox/terrace.txt", "numbered");
    assert_eq!(site.once(), 0);
    assert_eq!(site.text("outbox/terrace.png"), "somebody's");
    let mut wanted =
        ["TERRACE (2).PNG", "terrace.png", "terrace (3).png", "terrace (3).reimagined.json"].map(String::from);
    wanted.sort();
    assert_eq!(site.names("outbox"), wanted);
    assert_eq!(site.names("archive"), ["terrace (3).jpg", "terrace (3).txt"]);
}

#[test]
fn a_name_taken_in_the_archive_numbers_the_result_too() {
    let site = Site::new();
    let first = site.put_picture("inbox/terrace.jpg");
    assert_eq!(site.once(), 0);
    fs::remove_file(site.path("outbox/terrace.png")).unwrap();
    fs::remove_file(site.path("outbox/terrace.reimagined.json")).unwrap();
    let second = site.put_picture("inbox/Terrace.JPG");
    assert_eq!(site.once(), 0);
    assert_eq!(site.names("archive"), ["Terrace (2).JPG", "terrace.jpg"]);
    assert_eq!(site.names("outbox"), ["Terrace (2).png", "Terrace (2).reimagined.json"]);
    assert_eq!(site.files("archive")[Path::new("terrace.jpg")], first);
    assert_eq!(site.files("archive")[Path::new("Terrace (2).JPG")], second);
}

#[test]
fn a_taken_name_in_errors_gets_a_number_with_its_note() {
    let site = Site::new();
    site.api.on_model(|_| Answer::error(400, "no"));
    site.put("errors/a.error.txt", "an old note");
    site.put_picture("inbox/a.jpg");
    assert_eq!(site.once(), 3);
    assert_eq!(site.names("errors"), ["a (2).error.txt", "a (2).jpg", "a.error.txt"]);
    assert_eq!(site.text("errors/a.error.txt"), "an old note");
}

#[test]
fn what_is_no_picture_and_no_sidecar_goes_to_errors_alone_with_a_note() {
    let site = Site::new();
    for name in ["doc.pdf", "photo.heic", "noextension", "clip.mp4"] {
        site.put(format!("inbox/sub/{name}"), format!("foreign {name}"));
    }
    site.put_picture("inbox/sub/doc.jpg");
    assert_eq!(site.once(), 3);
    assert_eq!(site.names("archive"), ["sub/doc.jpg"], "its namesake has nothing to do with it");
    for name in ["doc", "photo", "noextension", "clip"] {
        let note = site.note(format!("errors/sub/{name}.error.txt"));
        for word in [".jpg", ".png", ".webp", ".txt"] {
            assert!(note.contains(word), "{note}");
        }
    }
    assert_eq!(site.text("errors/sub/photo.heic"), "foreign photo.heic");
    assert_eq!(site.api.calls().len(), 1);
    site.put("inbox/sub/doc.pdf", "another");
    assert_eq!(site.once(), 3);
    assert_eq!(site.text("errors/sub/doc (2).pdf"), "another", "{}", site.describe());
}

#[test]
fn a_picture_with_another_kinds_bytes_or_none_goes_to_errors() {
    let site = Site::new();
    site.put("inbox/text.jpg", "This is a text, whatever its name says.");
    site.put("inbox/html.png", "<!doctype html><title>Not found</title>");
    site.put("inbox/png-inside.jpg", support::pictures::png(1));
    let mut bomb = support::pictures::png(2);
    // IHDR says 60000 × 60000; the checksum is mended, so that only the size speaks.
    bomb[16..24].copy_from_slice(&[0, 0, 0xEA, 0x60, 0, 0, 0xEA, 0x60]);
    let sum = crc32(&bomb[12..29]);
    bomb[29..33].copy_from_slice(&sum.to_be_bytes());
    site.put("inbox/bomb.png", &bomb);
    assert_eq!(site.once(), 3);
    assert_eq!(site.names("archive"), ["png-inside.jpg"], "what counts are the bytes");
    for name in ["text", "html", "bomb"] {
        assert!(site.has(format!("errors/{name}.error.txt")), "{name}\n{}", site.describe());
    }
    assert_eq!((site.api.calls().len(), site.api.uploads().len()), (1, 1));
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |mut sum, byte| {
        sum ^= u32::from(*byte);
        for _ in 0..8 {
            sum = if sum & 1 == 1 { (sum >> 1) ^ 0xEDB8_8320 } else { sum >> 1 };
        }
        sum
    })
}

#[test]
fn a_folder_moved_in_goes_with_its_preset_and_all_that_is_in_it() {
    let site = Site::new();
    let _daemon = site.run();
    site.a_later_drop_is_done();
    let mut pictures = Vec::new();
    for n in 0..3 {
        let picture = site.a_picture();
        site.put(format!("draft/x/y/{n}.jpg"), &picture);
        pictures.push(picture);
    }
    site.put("draft/x/preset.toml", "prompt = \"of the folder\"\n");
    fs::rename(site.path("draft"), site.path("inbox/new")).unwrap();
    for n in 0..3 {
        site.wait_archived(&format!("new/x/y/{n}.jpg"));
    }
    assert_eq!(site.api.calls_with("of the folder"), 3);
    let archived: Vec<_> = site.files("archive").into_values().collect();
    assert!(pictures.iter().all(|p| archived.contains(p)));
}

#[test]
fn folders_made_while_it_looks_lose_no_file() {
    let site = Site::new();
    // So that only what is watched and looked at again can find them.
    site.set("watch.rescan", "10m");
    let daemon = site.run();
    site.a_later_drop_is_done();
    for n in 0..25 {
        site.put_picture(format!("inbox/{n}/b/c/{n}.jpg"));
    }
    site.wait("all 25 are archived", || (0..25).all(|n| site.has(format!("archive/{n}/b/c/{n}.jpg"))));
    assert_eq!(site.api.calls().len(), 26);
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn a_preset_that_comes_with_its_folder_but_after_the_pictures_counts() {
    let site = Site::new();
    site.set("watch.folder_settle", "1500ms");
    let _daemon = site.run();
    site.a_later_drop_is_done();
    for n in 0..3 {
        site.put_picture(format!("inbox/new/{n}.jpg"));
    }
    site.wait("the folder settles", || site.waiting("folder_settling") > 0);
    site.put("inbox/new/preset.toml", "prompt = \"came late\"\n");
    site.wait("all are archived", || (0..3).all(|n| site.has(format!("archive/new/{n}.jpg"))));
    assert_eq!(site.api.calls_with("came late"), 3);
}

#[test]
fn a_half_written_picture_is_never_sent_and_a_finished_one_is() {
    let site = Site::new();
    site.set("watch.give_up", "10m");
    let _daemon = site.run();
    let bytes = site.a_picture();
    let mut file = fs::File::create(site.path("inbox/slow.jpg")).unwrap();
    file.write_all(&bytes[..bytes.len() / 2]).unwrap();
    site.a_later_drop_is_done();
    site.wait("it is seen as not whole", || !site.status()["waiting_for"].as_array().is_none_or(Vec::is_empty));
    assert!(site.has("inbox/slow.jpg"));
    assert_eq!(site.api.uploads().len(), 1);
    file.write_all(&bytes[bytes.len() / 2..]).unwrap();
    drop(file);
    site.wait_archived("slow.jpg");
    assert_eq!(site.files("archive")[Path::new("slow.jpg")], bytes);
    assert_eq!(site.api.calls().len(), 2);
}

#[test]
fn a_picture_that_is_never_finished_goes_to_errors_as_truncated() {
    let site = Site::new();
    let bytes = site.a_picture();
    site.put("inbox/cut.jpg", &bytes[..bytes.len() - 10]);
    site.put("inbox/zero.jpg", "");
    let _daemon = site.run();
    for name in ["cut.jpg", "zero.jpg"] {
        let note = site.wait_failed(name);
        assert!(note.contains("truncated"), "{note}");
    }
    assert!(site.api.requests().is_empty());
}

#[test]
fn a_picture_that_is_written_anew_is_sent_as_it_is_in_the_end() {
    let site = Site::new();
    site.set("watch.sidecar_wait", "1500ms");
    let _daemon = site.run();
    let first = site.put_picture("inbox/a.jpg");
    site.wait("it waits for a sidecar", || site.waiting("sidecar") == 1);
    site.forget(&first);
    let second = site.put_picture("inbox/a.jpg");
    site.wait_archived("a.jpg");
    assert_eq!(site.files("archive")[Path::new("a.jpg")], second);
    assert_eq!(site.api.calls().len(), 1);
    assert_eq!(site.api.uploads().len(), 1);
}

#[test]
fn a_picture_taken_out_of_the_inbox_before_it_is_sent_is_cancelled() {
    let site = Site::new();
    site.set("watch.sidecar_wait", "1500ms");
    let daemon = site.run();
    let picture = site.put_picture("inbox/a.jpg");
    site.wait("it waits for a sidecar", || site.waiting("sidecar") == 1);
    fs::remove_file(site.path("inbox/a.jpg")).unwrap();
    site.forget(&picture);
    site.a_later_drop_is_done();
    assert_eq!(site.api.calls().len(), 1);
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn a_hard_link_is_a_drop_and_its_other_name_stays_as_it_is() {
    let site = Site::new();
    let _daemon = site.run();
    site.a_later_drop_is_done();
    let bytes = site.a_picture();
    site.put("elsewhere/original.jpg", &bytes);
    fs::hard_link(site.path("elsewhere/original.jpg"), site.path("inbox/linked.jpg")).unwrap();
    site.wait_archived("linked.jpg");
    assert_eq!(site.files("elsewhere")[Path::new("original.jpg")], bytes);
}

#[test]
fn two_pictures_of_one_stem_are_two_drops_and_share_their_sidecar() {
    let site = Site::new();
    site.put("inbox/a.txt", "for both");
    site.put("inbox/a.png.txt", "for the png alone");
    site.put_picture("inbox/a.jpg");
    site.put_picture("inbox/a.jpeg");
    site.put("inbox/a.png", support::pictures::png(3));
    assert_eq!(site.once(), 0);
    assert_eq!(site.api.calls_with("for both"), 2);
    assert_eq!(site.api.calls_with("for the png alone"), 1);
    assert!(site.is_empty());
    assert_eq!(site.results().len(), 3);
    let archived = site.names("archive");
    assert_eq!(archived.len(), 5, "{archived:?}");
}

#[test]
fn a_sidecar_that_comes_after_its_picture_was_sent_is_told_so() {
    let site = Site::new();
    site.set("watch.give_up", "10m");
    let _daemon = site.run();
    site.put_picture("inbox/terrace.jpg");
    site.wait_archived("terrace.jpg");
    site.put("inbox/terrace.txt", "too late");
    let note = site.wait_failed("terrace.txt");
    assert!(note.contains("came after terrace.jpg was sent at") && note.contains("drop both again"), "{note}");
    // What went to errors since does not make the next one a prompt of its own.
    for (before, next) in ["terrace.pdf", "terrace.txt", "terrace.jpg.txt"].into_iter().enumerate() {
        site.put(format!("inbox/{next}"), "too late, too");
        site.wait("it is in errors with its note", || site.names("errors").len() == 2 * (before + 2));
    }
    let late = || site.logs().lines().filter(|line| line.contains("came after terrace.jpg was sent")).count();
    site.wait("all are told of", || late() == 3);
    assert_eq!(site.api.calls().len(), 1, "{}", site.describe());
}

#[test]
fn a_sidecar_that_comes_after_a_picture_that_was_never_sent_is_not_told_that_it_was() {
    let site = Site::new();
    site.set("watch.give_up", "10m");
    let _daemon = site.run();
    site.put("inbox/terrace.jpg.toml", "promt = 'a typing mistake'");
    site.put_picture("inbox/terrace.jpg");
    site.wait_failed("terrace.jpg");
    site.put("inbox/terrace.txt", "for the picture that failed");
    site.wait_for("errors/terrace (2).error.txt");
    let note = site.note("errors/terrace (2).error.txt");
    assert!(note.contains("came after terrace.jpg had gone") && !note.contains("was sent"), "{note}");
    assert!(site.api.calls().is_empty());
}

#[test]
fn a_late_sidecar_of_the_very_name_in_work_goes_as_soon_as_that_is_done() {
    let site = Site::new();
    site.set("watch.lone_wait", "100ms").set("watch.give_up", "10m");
    let gate = support::Gate::default();
    let opens = gate.clone();
    site.api.on_model(move |call| call.good().after(&opens));
    site.put("inbox/c/x.txt", "a look");
    site.put_picture("inbox/c/x.jpg");
    let _daemon = site.run();
    site.wait_for("working/c/x.jpg");
    site.put("inbox/c/x.txt", "another look");
    site.wait("it says why it waits", || site.logs().contains("in work just now"));
    assert!(site.has("inbox/c/x.txt"));
    gate.open();
    // No scan is due for minutes.
    site.wait_for("errors/c/x.txt");
    assert!(site.note("errors/c/x.error.txt").contains("came after x.jpg"));
    assert_eq!(site.api.calls().len(), 1);
}

#[test]
fn a_text_with_nul_bytes_is_no_prompt() {
    let site = Site::new();
    site.put("inbox/a.txt", "p\0r\0o\0m\0p\0t\0");
    site.put_picture("inbox/a.jpg");
    assert_eq!(site.once(), 3, "{}", site.describe());
    let note = site.note("errors/a.error.txt");
    assert!(note.contains("NUL") && note.contains("UTF-8"), "{note}");
    assert!(site.api.calls().is_empty());
}

#[test]
fn the_note_of_a_drop_goes_when_its_files_were_mended_and_brought_back() {
    let site = Site::new();
    let wrong = "promt = 'a look'";
    site.put("inbox/l/a.toml", wrong);
    site.put_picture("inbox/l/a.jpg");
    let brought_back = |name: &str| {
        std::fs::rename(site.path("errors/l").join(name), site.path("inbox/l").join(name)).unwrap();
    };
    assert_eq!(site.once(), 3, "{}", site.describe());
    // Not mended: it has one note as before, under the same name.
    ["a.toml", "a.jpg"].into_iter().for_each(brought_back);
    assert_eq!(site.once(), 3, "{}", site.describe());
    assert_eq!(site.names("errors/l"), ["a.error.txt", "a.jpg", "a.toml"]);
    ["a.toml", "a.jpg"].into_iter().for_each(brought_back);
    site.forget(wrong.as_bytes());
    site.put("inbox/l/a.toml", "prompt = 'a look'");
    assert_eq!(site.once(), 0, "{}", site.describe());
    assert!(site.names("errors").is_empty(), "{:?}", site.names("errors"));
}

#[test]
fn a_note_says_which_sidecar_other_pictures_took_along() {
    let site = Site::new();
    site.put("inbox/x.txt", "for both");
    site.put_picture("inbox/x.jpg");
    site.put("inbox/x.png", support::pictures::png(3));
    site.api.on_model(|call| if call.n == 1 { support::Answer::error(400, "no") } else { call.good() });
    let daemon = site.run();
    site.wait("one is done, and one failed", || {
        site.names("errors").len() == 2 && site.names("archive").len() == 2 && site.is_empty()
    });
    assert_eq!(daemon.stop(), 0);
    let note = site.note("errors/x.error.txt").split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(note.contains("Bring x.txt along"), "{note}");
}

#[test]
fn what_cannot_be_put_anywhere_is_not_uploaded_at_each_scan() {
    let site = Site::new();
    site.set("watch.backend", "poll").set("watch.poll_interval", "200ms").set("reference.upload_cache", "0s");
    site.put("outbox/cafe", "a file where the folder would be");
    site.put("inbox/cafe/a.txt", "a look");
    site.put_picture("inbox/cafe/a.jpg");
    let _daemon = site.run();
    site.wait("it says why it waits", || site.logs().contains("outbox/cafe"));
    site.a_later_drop_is_done();
    assert_eq!((site.api.uploads().len(), site.api.calls().len()), (1, 1), "of the later one alone");
    assert_eq!(site.waiting("unreadable"), 1, "{}", site.describe());
    std::fs::rename(site.path("outbox/cafe"), site.path("outbox/other")).unwrap();
    site.wait_for("archive/cafe/a.jpg");
    assert_eq!(site.api.uploads().len(), 2);
}

/// Waits until a file has been as it is for so many seconds.
#[track_caller]
fn quiet_for(site: &Site, rel: &str, seconds: i64) {
    use std::os::unix::fs::MetadataExt as _;
    site.wait("it has been quiet for long", || {
        let changed = fs::metadata(site.path(rel)).unwrap().ctime();
        jiff::Timestamp::now().as_second() - changed > seconds
    });
}

/// The watch tells of what went before it is known that it lies in working: nothing of its name may go meanwhile.
#[test]
fn what_has_the_name_of_a_drop_in_work_never_goes_beside_it() {
    let site = Site::new();
    site.set("watch.lone_wait", "1s").set("watch.give_up", "10m").set("api.max_in_flight", 64);
    site.api.on_model(|call| call.good().later(std::time::Duration::from_millis(300)));
    for n in 0..12 {
        site.put_picture(format!("inbox/a{n}.jpg"));
        site.put(format!("inbox/a{n}.txt"), format!("mine {n}"));
        site.put(format!("inbox/A{n}.txt"), format!("passed over {n}"));
        // Tied, so that it goes with its own and is the second to be seen gone.
        site.put_picture(format!("inbox/b{n}.jpg"));
        site.put(format!("inbox/b{n}.jpg.txt"), format!("first {n}"));
        site.put_picture(format!("inbox/b{n}.png"));
    }
    quiet_for(&site, "inbox/b11.png", 2);
    let daemon = site.begin_once();
    let mut most = 0;
    site.wait("all of them have gone", || {
        let work = site.names("working");
        let both =
            (0..12).filter(|n| [format!("b{n}.jpg"), format!("b{n}.png")].iter().all(|name| work.contains(name)));
        most = most.max(both.count());
        site.names("inbox").is_empty() && work.is_empty()
    });
    assert_eq!(daemon.ends(), 3, "{}", site.describe());
    assert_eq!(most, 0, "two of a name were in work at once");
    let calls = site.api.calls();
    assert_eq!(calls.iter().filter(|call| call.prompt().contains("passed over")).count(), 0);
    assert_eq!(calls.len(), 36);
    assert_eq!(
        site.names("errors").iter().filter(|name| name.starts_with('A') && !name.contains(".error.")).count(),
        12
    );
}

/// Whatever holds it up: a pause moves nothing to errors, and what came too late is no prompt when it is over.
#[test]
fn a_sidecar_that_came_too_late_is_told_so_after_a_long_pause_and_after_a_restart() {
    let site = Site::new();
    site.set("watch.give_up", "2s").set("watch.lone_wait", "1s");
    let well = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let is_well = well.clone();
    site.api.on_model(move |call| {
        if is_well.load(std::sync::atomic::Ordering::SeqCst) {
            call.good()
        } else {
            support::Answer::error(402, "none")
        }
    });
    let is_well = well.clone();
    site.api.on_other(move |request, _| {
        let ill = request.path == support::api::CREDITS && !is_well.load(std::sync::atomic::Ordering::SeqCst);
        ill.then(|| support::Answer::json(200, &serde_json::json!({ "credits": 0.0, "free-credits": 0.0 })))
    });
    site.put_picture("inbox/a.jpg");
    site.put_picture("inbox/b.jpg");
    let daemon = site.run();
    site.wait_archived("a.jpg");
    site.wait_archived("b.jpg");
    well.store(false, std::sync::atomic::Ordering::SeqCst);
    site.put("inbox/a.txt", "too late");
    site.put("inbox/b.jpg.txt", "this one, too");
    site.put_picture("inbox/other.jpg");
    site.wait("it is paused", || site.status()["state"] == "paused");
    // Longer than a name is remembered when nothing of it lies there.
    quiet_for(&site, "inbox/a.txt", 6);
    well.store(true, std::sync::atomic::Ordering::SeqCst);
    site.wait_archived("other.jpg");
    assert!(site.wait_failed("a.txt").contains("came after a.jpg was sent at"));
    assert!(site.wait_failed("b.jpg.txt").contains("came after b.jpg was sent at"));
    // The same where it has to wait for the daemon.
    site.put("inbox/c.jpg", site.a_picture());
    site.wait_archived("c.jpg");
    assert_eq!(daemon.stop(), 0);
    site.put("inbox/c.txt", "too late");
    quiet_for(&site, "inbox/c.txt", 4);
    assert_eq!(site.once(), 3, "{}", site.describe());
    assert!(site.note("errors/c.error.txt").contains("came after c.jpg was sent at"));
    assert_eq!(site.api.calls().iter().filter(|call| call.prompt().contains("too")).count(), 0);
}

#[test]
fn only_an_image_makes_a_sidecar_late_after_a_restart_too() {
    let site = Site::new();
    site.set("watch.give_up", "10m").set("watch.lone_wait", "1s");
    site.api.on_model(|call| if call.n == 1 { support::Answer::error(400, "no") } else { call.good() });
    site.put("inbox/x.txt", "wrong");
    assert_eq!(site.once(), 3);
    fs::write(site.path("errors/x.txt"), "right").unwrap();
    site.forget(b"wrong");
    assert_eq!(site.call(&["retry", "errors/x.txt"]).status.code(), Some(0));
    site.put("inbox/movie.mp4", "no picture");
    assert_eq!(site.once(), 3, "the film");
    assert_eq!(site.api.calls_with("right"), 1, "{}", site.describe());
    site.put("inbox/movie.txt", "a poster");
    site.put("inbox/x.txt", "once more");
    assert_eq!(site.once(), 0, "{}", site.describe());
    assert_eq!((site.api.calls_with("a poster"), site.api.calls_with("once more")), (1, 1));
}

#[test]
fn a_sidecar_that_comes_while_its_picture_is_in_work_goes_with_a_new_picture_of_its_name() {
    let site = Site::new();
    site.set("watch.lone_wait", "10s");
    let gate = Gate::default();
    let held = gate.clone();
    site.api.on_model(move |call| if call.n == 1 { call.good().after(&held) } else { call.good() });
    let _daemon = site.run();
    site.put_picture("inbox/terrace.jpg");
    site.wait("it is sent", || site.api.calls().len() == 1);
    site.put("inbox/terrace.txt", "the second");
    site.put_picture("inbox/terrace.jpg");
    site.wait("they wait for the first", || site.waiting("busy") > 0);
    assert_eq!(site.names("working"), ["terrace.jpg"]);
    gate.open();
    site.wait_archived("terrace (2).jpg");
    assert_eq!(site.api.calls_with("the second"), 1);
    assert_eq!(site.names("archive"), ["terrace (2).jpg", "terrace (2).txt", "terrace.jpg"]);
}

#[test]
fn a_picture_without_a_prompt_waits_in_the_inbox_and_goes_when_one_comes() {
    let site = Site::new();
    site.unset("preset.prompt");
    let _daemon = site.run();
    site.put_picture("inbox/by-sidecar.jpg");
    site.put_picture("inbox/folder/by-preset.jpg");
    site.put_picture("inbox/never.jpg");
    site.wait("they wait for a prompt", || site.waiting("prompt") == 3);
    assert!(site.api.requests().is_empty(), "nothing was uploaded either");
    site.put("inbox/by-sidecar.txt", "here it is");
    site.wait_archived("by-sidecar.jpg");
    site.put("inbox/folder/preset.toml", "prompt = \"for all\"\n");
    site.wait_archived("folder/by-preset.jpg");
    assert_eq!(site.names("inbox"), ["folder/preset.toml", "never.jpg"]);
    assert_eq!((site.api.calls_with("here it is"), site.api.calls_with("for all")), (1, 1));
}

#[test]
fn a_folder_that_is_not_enabled_is_left_alone() {
    let site = Site::new();
    site.put("inbox/off/preset.toml", "enabled = false\n");
    site.put_picture("inbox/off/a.jpg");
    site.put_picture("inbox/off/deeper/b.jpg");
    site.put_picture("inbox/on.jpg");
    let daemon = site.run();
    site.wait_archived("on.jpg");
    site.wait("both wait", || site.waiting("disabled") == 2);
    assert_eq!(site.api.uploads().len(), 1);
    site.put("inbox/off/preset.toml", "enabled = true\n");
    site.wait_archived("off/a.jpg");
    site.wait_archived("off/deeper/b.jpg");
    assert_eq!(daemon.stop(), 0);
    site.forget(b"enabled = false\n");
}

#[test]
fn a_preset_says_whether_a_picture_needs_a_sidecar() {
    let site = Site::new();
    site.put("inbox/must/preset.toml", "sidecar = \"required\"\n");
    site.put("inbox/never/preset.toml", "sidecar = \"ignore\"\n");
    site.put_picture("inbox/must/a.jpg");
    site.put("inbox/never/b.txt", "not read");
    site.put_picture("inbox/never/b.jpg");
    let _daemon = site.run();
    site.wait_archived("never/b.jpg");
    site.wait("the other waits for its sidecar", || site.waiting("sidecar") == 1);
    assert!(site.has("inbox/never/b.txt"), "it is no drop and stays");
    assert_eq!(site.api.calls_with("a look"), 1);
    site.put("inbox/must/a.txt", "now");
    site.wait_archived("must/a.jpg");
    assert_eq!(site.api.calls_with("now"), 1);
    assert_eq!(site.api.calls().len(), 2);
}

#[test]
fn a_preset_says_whether_a_prompt_needs_a_picture() {
    let site = Site::new();
    site.set("watch.lone_wait", "1s");
    site.put("inbox/none/preset.toml", "reference = \"none\"\n");
    site.put("inbox/must/preset.toml", "reference = \"required\"\n");
    site.put("inbox/none/a.txt", "no picture needed");
    site.put_picture("inbox/none/b.jpg");
    site.put("inbox/must/c.txt", "a picture needed");
    let _daemon = site.run();
    site.wait_archived("none/a.txt");
    site.wait_failed("none/b.jpg");
    assert!(site.api.uploads().is_empty());
    site.wait("the other waits for its picture", || site.waiting("image") == 1);
    site.a_later_drop_is_done();
    assert!(site.has("inbox/must/c.txt"));
    site.put_picture("inbox/must/c.jpg");
    site.wait_archived("must/c.jpg");
    assert_eq!(site.api.calls_with("a picture needed"), 1);
}

#[test]
fn a_broken_preset_stops_its_own_subtree_until_it_is_mended() {
    let site = Site::new();
    site.put("inbox/bad/preset.toml", "steps_numb = 12\n");
    site.put_picture("inbox/bad/a.jpg");
    site.put_picture("inbox/bad/deeper/b.jpg");
    site.put_picture("inbox/good/c.jpg");
    let _daemon = site.run();
    site.wait_archived("good/c.jpg");
    site.wait("both wait for the preset", || site.waiting("preset_broken") == 2);
    let broken = site.status()["broken_presets"][0].to_string();
    for word in ["bad/preset.toml", "steps_numb", "steps_num"] {
        assert!(broken.contains(word), "{broken}");
    }
    assert_eq!(site.api.uploads().len(), 1);
    site.forget(b"steps_numb = 12\n");
    site.put("inbox/bad/preset.toml", "steps_num = 12\n");
    site.wait_archived("bad/a.jpg");
    site.wait_archived("bad/deeper/b.jpg");
    assert_eq!(site.api.calls().iter().filter(|r| r.json()["steps_num"] == 12).count(), 2);
    site.wait("it is forgotten", || site.status()["broken_presets"].as_array().is_some_and(Vec::is_empty));
}

#[test]
fn a_broken_sidecar_fails_its_own_drop_and_says_where() {
    let site = Site::new();
    for (stem, kind, text, words) in [
        ("range", "toml", "prompt = \"x\"\nsteps_num = 51\n", vec!["range.toml", "2", "steps_num", "50"]),
        ("unknown", "toml", "promt = \"x\"\n", vec!["unknown.toml", "promt", "prompt"]),
        ("type", "json", "{\"prompt\": 5}", vec!["type.json", "prompt"]),
        ("twice", "json", "{\"prompt\": \"a\", \"prompt\": \"b\"}", vec!["twice.json", "prompt"]),
        ("syntax", "json", "{\"prompt\": ", vec!["syntax.json"]),
        ("both", "toml", "prompt = \"x\"\nvariants = 2\nseeds = [1, 2]\n", vec!["both.toml", "variants", "seeds"]),
        ("blank", "txt", " \n\t\n", vec!["blank.txt"]),
    ] {
        site.put(format!("inbox/{stem}.{kind}"), text);
        site.put_picture(format!("inbox/{stem}.jpg"));
        let _ = words;
    }
    site.put_picture("inbox/fine.jpg");
    assert_eq!(site.once(), 3);
    assert_eq!(site.names("archive"), ["fine.jpg"]);
    for (stem, words) in [
        ("range", vec!["range.toml", "2", "steps_num", "50"]),
        ("unknown", vec!["unknown.toml", "promt", "prompt"]),
        ("type", vec!["type.json", "prompt"]),
        ("twice", vec!["twice.json", "prompt"]),
        ("syntax", vec!["syntax.json"]),
        ("both", vec!["both.toml", "variants", "seeds"]),
        ("blank", vec!["blank.txt"]),
    ] {
        let note = site.note(format!("errors/{stem}.error.txt"));
        for word in words {
            assert!(note.contains(word), "{word} is not in: {note}");
        }
        assert!(site.has(format!("errors/{stem}.jpg")));
    }
    assert_eq!((site.api.calls().len(), site.api.uploads().len()), (1, 1));
}

#[test]
fn an_empty_sidecar_is_not_written_yet_and_holds_its_picture() {
    let site = Site::new();
    site.set("watch.give_up", "10m");
    let _daemon = site.run();
    site.put("inbox/a.txt", "");
    site.put_picture("inbox/a.jpg");
    site.a_later_drop_is_done();
    assert!(site.has("inbox/a.jpg"));
    site.forget(b"");
    site.put("inbox/a.txt", "now it is");
    site.wait_archived("a.jpg");
    assert_eq!(site.api.calls_with("now it is"), 1);
    assert_eq!(site.api.calls().len(), 2);
}

#[test]
fn same_bytes_under_two_names_are_one_upload_and_two_calls() {
    let site = Site::new();
    let bytes = site.a_picture();
    site.put("inbox/a.jpg", &bytes);
    site.put("inbox/b.jpg", &bytes);
    assert_eq!(site.once(), 0);
    assert_eq!((site.api.uploads().len(), site.api.calls().len()), (1, 2));
    site.put("inbox/c.jpg", &bytes);
    assert_eq!(site.once(), 0);
    assert_eq!((site.api.uploads().len(), site.api.calls().len()), (1, 3), "over a restart, too");
}

#[test]
fn what_comes_by_rename_or_by_writing_goes_without_waiting_for_settle() {
    let site = Site::new();
    site.set("watch.settle", "10m").set("watch.rescan", "10m");
    let _daemon = site.run();
    site.wait("it runs", || site.status()["state"] == "running");
    site.move_in("inbox/renamed.jpg", site.a_picture());
    site.put_picture("inbox/written.jpg");
    site.move_in("inbox/both.txt", "with a text");
    site.move_in("inbox/both.jpg", site.a_picture());
    site.wait_archived("renamed.jpg");
    site.wait_archived("written.jpg");
    site.wait_archived("both.jpg");
    assert_eq!(site.api.calls_with("with a text"), 1);
}

#[test]
fn one_folder_does_not_starve_another_and_priority_goes_first() {
    let site = Site::new();
    site.set("api.max_in_flight", 1);
    let gate = Gate::default();
    let held = gate.clone();
    site.api.on_model(move |call| if call.n == 1 { call.good().after(&held) } else { call.good() });
    let _daemon = site.run();
    site.put_picture("inbox/held.jpg");
    site.wait("it is sent", || site.api.calls().len() == 1);
    for n in 0..12 {
        site.put_picture(format!("inbox/many/{n:02}.jpg"));
    }
    site.put("inbox/single/preset.toml", "prompt = \"single\"\n");
    site.put_picture("inbox/single/one.jpg");
    site.put("inbox/first/preset.toml", "prompt = \"first\"\npriority = 5\n");
    site.put_picture("inbox/first/important.jpg");
    site.wait("all are ready", || site.waiting("queued") + site.waiting("planning") == 14);
    gate.open();
    site.wait("all are done", || site.results().len() == 15);
    let prompts: Vec<_> = site.api.calls().iter().map(support::api::Request::prompt).collect();
    // Two may be planned ahead by then.
    assert!(prompts[..4].contains(&"first".to_owned()), "{prompts:?}");
    assert!(prompts[..6].contains(&"single".to_owned()), "{prompts:?}");
}

#[test]
fn what_waits_at_the_start_goes_by_priority_from_the_first_one_on() {
    let site = Site::new();
    site.set("api.max_in_flight", 1);
    for n in 0..6 {
        site.put(format!("inbox/a/{n}.txt"), format!("a{n}"));
    }
    site.put("inbox/c/preset.toml", "priority = 5\n");
    site.put("inbox/c/x.txt", "c1");
    site.put("inbox/c/y.txt", "c2");
    quiet_for(&site, "inbox/c/y.txt", 2);
    assert_eq!(site.once(), 0, "{}", site.describe());
    let prompts: Vec<_> = site.api.calls().iter().map(support::api::Request::prompt).collect();
    assert!(prompts[..2].iter().all(|prompt| prompt.starts_with('c')), "{prompts:?}");
}

#[test]
fn polling_finds_what_events_would_have_told() {
    let site = Site::new();
    site.set("watch.backend", "poll").set("watch.poll_interval", "100ms").set("watch.rescan", "10m");
    let _daemon = site.run();
    site.wait("it polls", || site.status()["backend"] == "poll");
    site.put_picture("inbox/deep/er/a.jpg");
    site.wait_archived("deep/er/a.jpg");
    assert_eq!(site.results(), ["deep/er/a.png"]);
}

#[test]
fn empty_folders_that_somebody_tidies_away_are_made_again() {
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
    let site = Site::new();
    let _daemon = site.run();
    // Somebody takes it away as soon as it is there, some times for each picture.
    let (ended, times) = (AtomicBool::new(false), AtomicU32::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                // Fails where something lies in it.
                if times.load(Ordering::Relaxed) > 0 && fs::remove_dir(site.path("archive/deep")).is_ok() {
                    times.fetch_sub(1, Ordering::Relaxed);
                }
                std::thread::yield_now();
            }
        });
        let _end = End(&ended);
        for n in 0..10 {
            times.store(4, Ordering::Relaxed);
            site.put_picture(format!("inbox/deep/{n}.jpg"));
            site.wait_archived(&format!("deep/{n}.jpg"));
            fs::rename(site.path(format!("archive/deep/{n}.jpg")), site.path(format!("archive/{n}.jpg"))).unwrap();
        }
    });
    assert_eq!((site.results().len(), site.api.calls().len()), (10, 10), "{}", site.describe());
    site.wait("nothing is in work", || site.status()["in_work"] == 0);
}

struct End<'a>(&'a std::sync::atomic::AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, std::sync::atomic::Ordering::Relaxed);
    }
}

#[test]
fn a_folder_that_is_moved_away_and_back_is_watched_on_and_keeps_its_look() {
    let site = Site::new();
    site.set("watch.rescan", "10m").set("watch.folder_settle", "3s");
    fs::create_dir_all(site.path("inbox/look/deep")).unwrap();
    let _daemon = site.run();
    site.wait("it runs", || site.status()["state"] == "running");
    for n in 0..3 {
        fs::rename(site.path("inbox/look"), site.path("away")).unwrap();
        fs::rename(site.path("away"), site.path("inbox/look")).unwrap();
        site.move_in(format!("inbox/look/deep/{n}.jpg"), site.a_picture());
        site.wait_archived(&format!("look/deep/{n}.jpg"));
    }
    fs::create_dir(site.path("inbox/look/new")).unwrap();
    site.move_in("inbox/look/new/a.jpg", site.a_picture());
    fs::rename(site.path("inbox/look"), site.path("away")).unwrap();
    fs::rename(site.path("away"), site.path("inbox/look")).unwrap();
    site.wait("it is seen", || site.status()["waiting"].as_object().is_some_and(|waiting| !waiting.is_empty()));
    site.move_in("inbox/look/new/preset.toml", "prompt = 'its own look'");
    site.wait_archived("look/new/a.jpg");
    assert_eq!(site.api.calls_with("its own look"), 1, "{}", site.describe());
}
