#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::PathBuf;

use tempfile::TempDir;

use super::*;

struct House {
    near: TempDir,
    target: TempDir,
    working: PathBuf,
    rel: RelPath,
    far: bool,
}

impl House {
    fn new(target: TempDir) -> Self {
        let near = tempfile::tempdir().unwrap();
        let working = near.path().join("working");
        fs::create_dir_all(working.join("a/b")).unwrap();
        fs::write(working.join("a/b/x.jpg"), "original").unwrap();
        let far = fs::metadata(near.path()).unwrap().dev() != fs::metadata(target.path()).unwrap().dev();
        Self { near, target, working, rel: RelPath::new("a/b").unwrap(), far }
    }

    fn both() -> Vec<Self> {
        let far = Self::new(tempfile::tempdir_in("/dev/shm").unwrap());
        if !far.far {
            println!("/dev/shm is the same filesystem; the copying way is not tried");
        }
        vec![Self::new(tempfile::tempdir().unwrap()), far]
    }

    fn filing<'a>(&'a self, to_name: &'a str) -> Move<'a> {
        Move {
            from_root: &self.working,
            from_rel: &self.rel,
            from_name: OsStr::new("x.jpg"),
            to_root: self.target.path(),
            to_rel: &self.rel,
            to_name: OsStr::new(to_name),
            print: Some(Fingerprint::of(b"original")),
            stage: None,
        }
    }

    fn source(&self) -> PathBuf {
        self.working.join("a/b/x.jpg")
    }

    fn target(&self, name: &str) -> PathBuf {
        self.rel.under(self.target.path()).join(name)
    }

    fn folders(&self) -> (Folder, Folder) {
        let from = Folder::existing(&self.working, &self.rel).unwrap().unwrap();
        (from, Folder::made(self.target.path(), &self.rel).unwrap())
    }
}

#[test]
fn an_original_is_filed_with_its_time_and_working_is_tidied() {
    for house in House::both() {
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000);
        fs::File::options().write(true).open(house.source()).unwrap().set_modified(time).unwrap();
        let how = file_away(&house.filing("x (2).jpg")).unwrap();
        assert_eq!(how, if house.far { Moved::Copied } else { Moved::Renamed });
        assert_eq!(fs::read(house.target("x (2).jpg")).unwrap(), b"original");
        assert_eq!(fs::metadata(house.target("x (2).jpg")).unwrap().modified().unwrap(), time);
        assert_eq!(fs::read_dir(house.target("")).unwrap().count(), 1, "no hidden copy stays");
        assert!(!house.working.join("a").exists());
        assert!(house.working.exists());
        assert_eq!(file_away(&house.filing("x (2).jpg")).unwrap(), Moved::AlreadyThere, "again after a crash");
    }
}

#[test]
fn a_taken_name_is_never_overwritten() {
    for house in House::both() {
        house.folders();
        fs::write(house.target("x.jpg"), "theirs").unwrap();
        symlink("nowhere", house.target("y.jpg")).unwrap();
        for name in ["x.jpg", "y.jpg"] {
            assert!(file_away(&house.filing(name)).unwrap_err().is_taken(), "{name}");
        }
        assert_eq!(fs::read(house.target("x.jpg")).unwrap(), b"theirs");
        assert_eq!(fs::read(house.source()).unwrap(), b"original");
        assert_eq!(fs::read_dir(house.target("")).unwrap().count(), 2);
    }
}

#[test]
fn a_crash_between_copy_and_unlink_is_finished() {
    let house = House::new(tempfile::tempdir_in("/dev/shm").unwrap());
    if !house.far {
        println!("/dev/shm is the same filesystem; nothing to try");
        return;
    }
    let filing = house.filing("x.jpg");
    let (from, to) = house.folders();
    copy(&filing, &from, &to).unwrap();
    assert!(house.source().exists() && house.target("x.jpg").exists());
    assert_eq!(file_away(&filing).unwrap(), Moved::Copied);
    assert!(!house.source().exists());
    assert_eq!(fs::read(house.target("x.jpg")).unwrap(), b"original");
}

#[test]
fn a_source_that_changed_after_the_copy_is_not_unlinked() {
    let house = House::new(tempfile::tempdir().unwrap());
    let filing = house.filing("x.jpg");
    let (from, to) = house.folders();
    copy(&filing, &from, &to).unwrap();
    fs::write(house.source(), "edited").unwrap();
    assert!(matches!(unlink_source(&filing, &from, &to), Err(OutboxError::Changed { .. })));
    assert_eq!(fs::read(house.source()).unwrap(), b"edited");
    assert!(file_away(&filing).unwrap_err().is_taken());
    file_away(&house.filing("x (2).jpg")).unwrap();
    assert_eq!(fs::read(house.target("x (2).jpg")).unwrap(), b"edited", "both versions are kept");
}

#[test]
fn one_file_under_both_names_is_never_unlinked_as_its_own_copy() {
    let house = House::new(tempfile::tempdir().unwrap());
    let filing = house.filing("x.jpg");
    let (from, to) = house.folders();
    fs::hard_link(house.source(), house.target("x.jpg")).unwrap();
    assert!(!equal(&filing, &from, &to).unwrap());
    assert_eq!(file_away(&filing).unwrap(), Moved::Renamed);
    assert_eq!(fs::read(house.target("x.jpg")).unwrap(), b"original");
    assert!(!house.source().exists());
}

#[test]
fn an_original_that_is_nowhere_is_said_to_be_gone() {
    for house in House::both() {
        fs::remove_file(house.source()).unwrap();
        assert!(matches!(file_away(&house.filing("x.jpg")), Err(OutboxError::Gone { path }) if path == house.source()));
        house.folders();
        fs::write(house.target("x.jpg"), "theirs").unwrap();
        assert!(matches!(file_away(&house.filing("x.jpg")), Err(OutboxError::Gone { .. })));
    }
}

#[test]
fn symlinks_are_neither_moved_nor_followed() {
    for house in House::both() {
        let outside = tempfile::tempdir().unwrap();
        symlink(outside.path(), house.target.path().join("a")).unwrap();
        assert!(matches!(
            file_away(&house.filing("x.jpg")),
            Err(OutboxError::Obstructed { what: Obstacle::Symlink, .. })
        ));
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
        fs::remove_file(house.target.path().join("a")).unwrap();
        fs::rename(house.source(), house.near.path().join("real")).unwrap();
        symlink(house.near.path().join("real"), house.source()).unwrap();
        assert!(matches!(
            file_away(&house.filing("x.jpg")),
            Err(OutboxError::Obstructed { what: Obstacle::NotAFile, .. })
        ));
    }
}

#[test]
fn a_copy_into_the_inbox_is_prepared_elsewhere() {
    for house in House::both() {
        let stage = house.target.path().join("staging");
        fs::create_dir(&stage).unwrap();
        let filing = Move { stage: Some(&stage), ..house.filing("x.jpg") };
        move_file(&filing).unwrap();
        assert_eq!(fs::read(house.target("x.jpg")).unwrap(), b"original");
        assert_eq!(fs::read_dir(&stage).unwrap().count(), 0);
        assert!(house.working.join("a/b").is_dir(), "only working is tidied, by file_away");
    }
}

#[test]
fn a_file_whose_hash_is_not_known_is_moved_too() {
    for house in House::both() {
        let filing = Move { print: None, ..house.filing("x.jpg") };
        file_away(&filing).unwrap();
        assert_eq!(file_away(&filing).unwrap(), Moved::AlreadyThere);
    }
}
