//! The real watcher and the real scan, in a folder of their own.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStringExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use super::*;
use crate::domain::arrivals::How;
use crate::domain::ids::RelPath;
use crate::domain::kinds::{NameKind, Special, Why};

fn rel(path: &str) -> RelPath {
    RelPath::new(path).unwrap()
}

/// Everything found: path → kind; folders that failed under `!path`.
fn all(root: &Path) -> BTreeMap<String, NameKind> {
    let mut found = BTreeMap::new();
    let flow = survey(root, &RelPath::root(), true, &|_| false, &mut |_| {}, &mut |report| {
        match report {
            Report::Batch { folder, entries } => {
                assert!(entries.len() <= BATCH);
                for (name, entry) in entries {
                    assert!(found.insert(folder.join(&name).to_string(), entry.kind).is_none(), "{name:?} twice");
                }
            }
            Report::Failed { folder, .. } => {
                found.insert(format!("!{folder}"), NameKind::Folder);
            }
            Report::Begin { .. } | Report::End { .. } | Report::Gone { .. } => {}
        }
        ControlFlow::Continue(())
    });
    assert!(flow.is_continue());
    found
}

/// Drains until `enough` says so; everything drained, last hint per name.
async fn hints(watcher: &Watcher, enough: impl Fn(&BTreeMap<String, HintHow>) -> bool) -> BTreeMap<String, HintHow> {
    let mut seen = BTreeMap::new();
    let end = Instant::now() + Duration::from_secs(20);
    while !enough(&seen) {
        let left = end.saturating_duration_since(Instant::now());
        tokio::time::timeout(left, watcher.changed()).await.unwrap_or_else(|_| panic!("only {seen:?}"));
        for hint in watcher.drain().hints {
            seen.insert(hint.folder.join(&hint.name).to_string(), hint.how);
        }
    }
    seen
}

#[test]
fn a_survey_finds_everything_and_enters_no_link_or_junk() {
    let dir = tempfile::tempdir().unwrap();
    let (root, outside) = (dir.path().join("inbox"), dir.path().join("outside"));
    for folder in ["look/in", "@eaDir", ".working/look"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    fs::create_dir(&outside).unwrap();
    for file in ["a.jpg", "look/in/b.PNG", "@eaDir/c.jpg", ".working/look/d.jpg"] {
        fs::write(root.join(file), b"x").unwrap();
    }
    fs::write(outside.join("secret.jpg"), b"x").unwrap();
    std::os::unix::fs::symlink(&outside, root.join("link")).unwrap();
    std::os::unix::fs::symlink(outside.join("secret.jpg"), root.join("link.jpg")).unwrap();
    let fifo = rustix::fs::mknodat(
        rustix::fs::CWD,
        root.join("pipe.jpg"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    );
    fifo.unwrap();
    let name = OsString::from_vec(b"caf\xe9.jpg".to_vec());
    fs::write(root.join(&name), b"x").unwrap();

    let found = all(&root);
    let names: Vec<&str> = found.keys().map(String::as_str).collect();
    let want = [
        ".working",
        "@eaDir",
        "a.jpg",
        "caf\u{fffd}.jpg",
        "link",
        "link.jpg",
        "look",
        "look/in",
        "look/in/b.PNG",
        "pipe.jpg",
    ];
    assert_eq!(names, want);
    assert_eq!(found["link"], NameKind::Ignored(Why::Special(Special::Symlink)));
    assert_eq!(found["link.jpg"], NameKind::Ignored(Why::Special(Special::Symlink)));
    assert_eq!(found["pipe.jpg"], NameKind::Ignored(Why::Special(Special::Fifo)));
    // Not even when asked for what lies behind the link.
    assert_eq!(look(&root, &rel("link"), OsStr::new("secret.jpg"), &|_| false).unwrap(), None);
    let entry = look(&root, &RelPath::root(), &name, &|_| false).unwrap().unwrap();
    assert_eq!((entry.facts.size, entry.age < Duration::from_secs(60)), (1, true));
}

#[test]
fn a_survey_goes_deep_and_comes_in_batches() {
    let dir = tempfile::tempdir().unwrap();
    let deep = vec!["d"; 120].join("/");
    fs::create_dir_all(dir.path().join(&deep)).unwrap();
    fs::write(dir.path().join(&deep).join("a.jpg"), b"x").unwrap();
    for n in 0..(2 * BATCH + 3) {
        fs::write(dir.path().join(format!("{n}.png")), b"x").unwrap();
    }
    let found = all(dir.path());
    assert_eq!(found.len(), 120 + 1 + 2 * BATCH + 3);
    assert!(found.contains_key(&format!("{deep}/a.jpg")));
}

#[test]
fn an_inbox_that_is_away_is_no_empty_inbox() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(all(&dir.path().join("nowhere")).keys().collect::<Vec<_>>(), ["!."]);
}

#[tokio::test]
async fn the_watcher_tells_copies_moves_links_and_folders_apart() {
    let dir = tempfile::tempdir().unwrap();
    let (root, out) = (dir.path().join("inbox"), dir.path().join("out"));
    fs::create_dir(&root).unwrap();
    fs::create_dir_all(out.join("moved")).unwrap();
    fs::write(out.join("m.jpg"), b"x").unwrap();
    fs::write(out.join("l.jpg"), b"x").unwrap();
    fs::write(root.join("away.jpg"), b"x").unwrap();
    let watcher = Watcher::new(&root, HINT_CAP).unwrap();
    watcher.watch(&RelPath::root()).unwrap();
    fs::copy(out.join("m.jpg"), root.join("copied.jpg")).unwrap();
    fs::rename(out.join("m.jpg"), root.join("moved.jpg")).unwrap();
    fs::hard_link(out.join("l.jpg"), root.join("linked.jpg")).unwrap();
    fs::create_dir(root.join("made")).unwrap();
    fs::rename(out.join("moved"), root.join("moved")).unwrap();
    fs::remove_file(root.join("away.jpg")).unwrap();
    let seen = hints(&watcher, |seen| seen.len() == 6 && seen.get("away.jpg") == Some(&HintHow::Gone)).await;
    let want = [
        ("away.jpg", HintHow::Gone),
        ("copied.jpg", HintHow::Look(How::Closed)),
        ("linked.jpg", HintHow::Look(How::Created)),
        ("made", HintHow::DirAppeared),
        ("moved", HintHow::Look(How::RenamedIn)),
        ("moved.jpg", HintHow::Look(How::RenamedIn)),
    ];
    assert_eq!(seen.iter().map(|(n, h)| (n.as_str(), *h)).collect::<Vec<_>>(), want);
}

#[tokio::test]
async fn folders_made_and_filled_at_once_are_found_by_watching_before_surveying() {
    let dir = tempfile::tempdir().unwrap();
    let watcher = Watcher::new(dir.path(), HINT_CAP).unwrap();
    watcher.watch(&RelPath::root()).unwrap();
    let root = dir.path().to_path_buf();
    let maker = std::thread::spawn(move || {
        for n in 0..100 {
            let folder = root.join(format!("{n}/b/c"));
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("x.jpg"), b"x").unwrap();
        }
    });
    let mut found = std::collections::BTreeSet::new();
    let end = Instant::now() + Duration::from_secs(20);
    while found.len() < 100 {
        let left = end.saturating_duration_since(Instant::now());
        tokio::time::timeout(left, watcher.changed()).await.unwrap_or_else(|_| panic!("only {}", found.len()));
        for hint in watcher.drain().hints {
            let at = hint.folder.join(&hint.name);
            if at.as_path().extension().is_some() {
                found.insert(at);
                continue;
            }
            let flow = survey(
                dir.path(),
                &at,
                true,
                &|_| false,
                &mut |folder| watcher.watch(folder).unwrap(),
                &mut |report| {
                    if let Report::Batch { folder, entries } = report {
                        let files = entries.into_iter().filter(|(_, e)| e.kind != NameKind::Folder);
                        found.extend(files.map(|(name, _)| folder.join(&name)));
                    }
                    ControlFlow::Continue(())
                },
            );
            assert!(flow.is_continue());
        }
    }
    maker.join().unwrap();
}

#[tokio::test]
async fn too_many_hints_become_one_rescan() {
    let dir = tempfile::tempdir().unwrap();
    let watcher = Watcher::new(dir.path(), 10).unwrap();
    watcher.watch(&RelPath::root()).unwrap();
    let end = Instant::now() + Duration::from_secs(20);
    // Whether so many come between two looks depends on who runs when: they come until they did.
    loop {
        for n in 0..50 {
            fs::write(dir.path().join(format!("{n}.jpg")), b"x").unwrap();
        }
        let left = end.saturating_duration_since(Instant::now());
        tokio::time::timeout(left, watcher.changed()).await.unwrap();
        let drained = watcher.drain();
        assert!(drained.hints.len() <= 10);
        if drained.rescan {
            break;
        }
    }
}

#[tokio::test]
async fn the_loss_of_the_inbox_itself_asks_for_a_rescan() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("inbox");
    fs::create_dir(&root).unwrap();
    let watcher = Watcher::new(&root, HINT_CAP).unwrap();
    watcher.watch(&RelPath::root()).unwrap();
    fs::rename(&root, dir.path().join("elsewhere")).unwrap();
    tokio::time::timeout(Duration::from_secs(20), watcher.changed()).await.unwrap();
    assert!(watcher.drain().rescan);
}

#[test]
fn what_says_more_is_kept_of_two_hints() {
    let look = HintHow::Look;
    for (first, second, both) in [
        (look(How::Changed), look(How::Touched), look(How::Changed)),
        (look(How::RenamedIn), look(How::Touched), look(How::RenamedIn)),
        (look(How::RenamedIn), look(How::Closed), look(How::RenamedIn)),
        (look(How::RenamedIn), look(How::Changed), look(How::Changed)),
        (look(How::Changed), look(How::Closed), look(How::Closed)),
        (look(How::Closed), look(How::Changed), look(How::Changed)),
        (HintHow::Gone, look(How::Created), look(How::Created)),
        (look(How::Closed), HintHow::Gone, HintHow::Gone),
        (HintHow::DirAppeared, look(How::Touched), HintHow::DirAppeared),
    ] {
        assert_eq!(first.then(second), both, "{first:?}, then {second:?}");
    }
}
