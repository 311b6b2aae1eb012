#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use tempfile::TempDir;

use super::*;

struct House {
    _dir: TempDir,
    inbox: PathBuf,
    working: PathBuf,
    rel: RelPath,
}

impl House {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (inbox, working) = (dir.path().join("inbox"), dir.path().join("working"));
        fs::create_dir_all(inbox.join("a/b")).unwrap();
        fs::create_dir(&working).unwrap();
        Self { _dir: dir, inbox, working, rel: RelPath::new("a/b").unwrap() }
    }

    fn drop_in(&self, name: impl AsRef<OsStr>) -> Member {
        let name = name.as_ref();
        fs::write(self.rel.under(&self.inbox).join(name), name.as_bytes()).unwrap();
        let folder = Folder::existing(&self.inbox, &self.rel).unwrap().unwrap();
        Member { name: name.to_os_string(), facts: folder.look(name).unwrap().unwrap().facts }
    }

    fn in_inbox(&self) -> Vec<OsString> {
        names(&self.rel.under(&self.inbox))
    }

    fn in_working(&self) -> Vec<OsString> {
        names(&self.rel.under(&self.working))
    }

    fn claim(&self, members: &[Member]) -> Result<Claimed, ClaimError> {
        claim(&self.inbox, &self.working, &self.rel, members)
    }

    fn unclaim(&self, members: &[&str]) -> Result<Returned, ClaimError> {
        let members: Vec<_> = members.iter().map(OsString::from).collect();
        unclaim(&self.working, &self.inbox, &self.rel, &members)
    }
}

fn names(folder: &Path) -> Vec<OsString> {
    let mut names: Vec<_> = fs::read_dir(folder).into_iter().flatten().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    names
}

#[test]
fn a_claimed_drop_lies_in_working_and_goes_back_whole() {
    let house = House::new();
    let broken = OsStr::from_bytes(b"x\xff.txt");
    let members = [house.drop_in(broken), house.drop_in("x.jpg")];
    let claimed = house.claim(&members).unwrap();
    assert!(claimed.facts.iter().zip(&members).all(|(after, before)| same_inode(after, &before.facts)));
    assert_eq!((house.in_inbox().len(), house.in_working().len()), (0, 2));
    fs::remove_dir_all(house.inbox.join("a")).unwrap();
    let names: Vec<_> = members.iter().map(|m| m.name.clone()).collect();
    let returned = unclaim(&house.working, &house.inbox, &house.rel, &names).unwrap();
    assert!(returned.is_back());
    assert_eq!(returned.back, names);
    assert_eq!(house.in_inbox().len(), 2, "its folder is made again");
    assert!(!house.working.join("a").exists(), "empty folders go");
    assert!(house.working.exists());
}

#[test]
fn what_changed_since_it_was_read_is_not_claimed() {
    type Change = fn(&Path);
    let changes: [(&str, Change); 5] = [
        ("other bytes", |p| fs::write(p, "longer than before").unwrap()),
        ("another time", |p| {
            let file = fs::File::options().write(true).open(p).unwrap();
            file.set_modified(std::time::UNIX_EPOCH).unwrap();
        }),
        ("another file", |p| {
            fs::write(p.with_extension("new"), "x.jpg").unwrap();
            fs::rename(p.with_extension("new"), p).unwrap();
        }),
        ("a symlink", |p| {
            fs::rename(p, p.with_extension("moved")).unwrap();
            symlink(p.with_extension("moved"), p).unwrap();
        }),
        ("gone", |p| fs::remove_file(p).unwrap()),
    ];
    for (what, change) in changes {
        let house = House::new();
        let members = [house.drop_in("x.txt"), house.drop_in("x.jpg")];
        change(&house.inbox.join("a/b/x.jpg"));
        let error = house.claim(&members).unwrap_err();
        assert!(matches!(error.cause, OutboxError::Changed { .. } | OutboxError::Gone { .. }), "{what}: {error}");
        assert!(error.stranded.is_empty(), "{what}");
        assert!(house.in_inbox().contains(&"x.txt".into()), "{what}: the sidecar is put back");
        assert!(!house.working.join("a").exists(), "{what}");
    }
}

#[test]
fn what_is_swapped_during_a_claim_is_put_back_or_named() {
    let house = House::new();
    let place = house.inbox.join("a/b/x.jpg");
    let ended = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !ended.load(std::sync::atomic::Ordering::Relaxed) {
                fs::write(place.with_extension("new"), "another").unwrap();
                fs::rename(place.with_extension("new"), &place).unwrap();
            }
        });
        let folder = Folder::existing(&house.inbox, &house.rel).unwrap().unwrap();
        // However this ends, the other one does.
        let _end = End(&ended);
        for _ in 0..2000 {
            let Some(entry) = folder.look(OsStr::new("x.jpg")).unwrap() else { continue };
            let left = match house.claim(&[Member { name: "x.jpg".into(), facts: entry.facts }]) {
                Ok(_) => house.in_working(),
                Err(e) => e.stranded,
            };
            assert_eq!(left, house.in_working());
            for name in left {
                fs::remove_file(house.rel.under(&house.working).join(name)).unwrap();
            }
        }
    });
}

struct End<'a>(&'a std::sync::atomic::AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, std::sync::atomic::Ordering::Relaxed);
    }
}

#[test]
fn a_name_that_is_in_work_is_not_claimed_again() {
    let house = House::new();
    house.claim(&[house.drop_in("x.jpg")]).unwrap();
    let members = [house.drop_in("x.txt"), house.drop_in("x.jpg")];
    let error = house.claim(&members).unwrap_err();
    assert!(error.cause.is_taken());
    assert_eq!(house.in_inbox(), ["x.jpg", "x.txt"]);
    assert_eq!(house.in_working(), ["x.jpg"]);
}

#[test]
fn a_drop_whose_name_is_taken_in_the_inbox_stays_whole_in_working() {
    for taken in ["x.jpg", "X.JPG", "x.txt"] {
        let house = House::new();
        house.claim(&[house.drop_in("x.txt"), house.drop_in("x.jpg")]).unwrap();
        house.drop_in(taken);
        let returned = house.unclaim(&["x.txt", "x.jpg"]).unwrap();
        assert_eq!(returned.taken, [taken.to_lowercase().as_str()]);
        assert!(returned.back.is_empty() && !returned.is_back());
        assert_eq!(house.in_working(), ["x.jpg", "x.txt"]);
    }
}

#[test]
fn going_back_can_be_repeated_after_a_crash_in_its_middle() {
    let house = House::new();
    house.claim(&[house.drop_in("x.txt"), house.drop_in("x.jpg")]).unwrap();
    house.unclaim(&["x.txt"]).unwrap();
    let returned = house.unclaim(&["x.txt", "x.jpg"]).unwrap();
    assert_eq!((returned.missing.as_slice(), returned.back.as_slice()), (&["x.txt".into()][..], &["x.jpg".into()][..]));
    assert_eq!(house.in_inbox(), ["x.jpg", "x.txt"]);
}

#[test]
fn one_file_under_both_names_after_a_crash_is_one_file() {
    let house = House::new();
    house.claim(&[house.drop_in("x.jpg")]).unwrap();
    fs::hard_link(house.working.join("a/b/x.jpg"), house.inbox.join("a/b/x.jpg")).unwrap();
    assert!(house.unclaim(&["x.jpg"]).unwrap().is_back());
    assert_eq!(house.in_inbox(), ["x.jpg"]);
    assert!(house.in_working().is_empty());
}

#[test]
fn a_symlink_in_either_tree_is_not_followed() {
    for side in ["inbox", "working"] {
        let house = House::new();
        let member = house.drop_in("x.jpg");
        let outside = tempfile::tempdir().unwrap();
        if side == "inbox" {
            fs::rename(house.inbox.join("a"), house.inbox.join("real")).unwrap();
            symlink("real", house.inbox.join("a")).unwrap();
        } else {
            symlink(outside.path(), house.working.join("a")).unwrap();
        }
        let error = house.claim(&[member]).unwrap_err();
        assert!(matches!(error.cause, OutboxError::Obstructed { what: Obstacle::Symlink, .. }), "{side}: {error}");
        assert_eq!(names(outside.path()).len(), 0);
    }
}

#[test]
fn a_missing_working_pauses_and_moves_nothing() {
    let house = House::new();
    let member = house.drop_in("x.jpg");
    fs::remove_dir(&house.working).unwrap();
    let error = house.claim(&[member]).unwrap_err();
    assert!(matches!(error.cause, OutboxError::RootMissing { .. }), "{error}");
    assert_eq!(house.in_inbox(), ["x.jpg"]);
}

#[test]
fn claims_and_prunes_side_by_side_never_lose_a_drop() {
    let house = House::new();
    let members: Vec<_> = (0..2).map(|i| house.drop_in(format!("{i}.jpg"))).collect();
    std::thread::scope(|scope| {
        for member in &members {
            let house = &house;
            scope.spawn(move || {
                for _ in 0..200 {
                    // Looked at again each time: a move changes the ctime.
                    let folder = Folder::existing(&house.inbox, &house.rel).unwrap().unwrap();
                    let facts = folder.look(&member.name).unwrap().unwrap().facts;
                    house.claim(&[Member { facts, ..member.clone() }]).unwrap();
                    let names = [member.name.clone()];
                    assert!(unclaim(&house.working, &house.inbox, &house.rel, &names).unwrap().is_back());
                }
            });
        }
    });
    assert_eq!(house.in_inbox(), ["0.jpg", "1.jpg"]);
}
