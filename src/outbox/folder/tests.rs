#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

use super::*;

fn rel(path: &str) -> RelPath {
    RelPath::new(path).unwrap()
}

fn os(name: &str) -> &OsStr {
    OsStr::new(name)
}

#[test]
fn a_missing_root_is_an_error_of_its_own_and_is_not_made() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("outbox");
    assert!(matches!(Folder::made(&root, &rel("a")), Err(OutboxError::RootMissing { path }) if path == root));
    assert!(!root.exists());
    fs::write(&root, "a file").unwrap();
    assert!(matches!(Folder::existing(&root, &rel("a")), Err(OutboxError::RootMissing { .. })));
}

#[test]
fn folders_that_are_made_copy_their_roots_mode() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("outbox");
    fs::create_dir(&root).unwrap();
    fs::set_permissions(&root, fs::Permissions::from_mode(0o2775)).unwrap();
    Folder::made(&root, &rel("a/b")).unwrap();
    for made in ["a", "a/b"] {
        assert_eq!(fs::metadata(root.join(made)).unwrap().mode() & 0o7777, 0o2775, "{made}");
    }
}

/// An ACL as the kernel keeps it: version 2, then tag, permissions, id of each entry.
fn acl(group: u32) -> Vec<u8> {
    let mut value = 2_u32.to_le_bytes().to_vec();
    for (tag, perm, id) in
        [(1_u16, 7_u16, u32::MAX), (4, 5, u32::MAX), (8, 7, group), (0x10, 7, u32::MAX), (0x20, 0, u32::MAX)]
    {
        value.extend(tag.to_le_bytes());
        value.extend(perm.to_le_bytes());
        value.extend(id.to_le_bytes());
    }
    value
}

#[test]
fn folders_that_are_made_copy_their_roots_acls() {
    let dir = tempfile::tempdir().unwrap();
    let root = Folder::root(dir.path()).unwrap();
    for name in ["system.posix_acl_default", "system.posix_acl_access"] {
        if let Err(e) = rustix::fs::fsetxattr(&root, name, &acl(1234), XattrFlags::empty()) {
            println!("this filesystem takes no ACLs ({e}); nothing to try");
            return;
        }
    }
    let made = Folder::made(dir.path(), &rel("a/b")).unwrap();
    assert!(made.has_default_acl());
    for name in ["system.posix_acl_default", "system.posix_acl_access"] {
        assert_eq!(read_xattr(&made.fd, name), read_xattr(&root.fd, name), "{name}");
    }
}

#[test]
fn a_symlink_below_the_root_is_refused_wherever_it_leads() {
    let dir = tempfile::tempdir().unwrap();
    let (root, outside) = (dir.path().join("outbox"), dir.path().join("outside"));
    fs::create_dir_all(root.join("real")).unwrap();
    fs::create_dir_all(outside.join("b")).unwrap();
    symlink(&outside, root.join("away")).unwrap();
    symlink("real", root.join("near")).unwrap();
    fs::write(root.join("file"), "x").unwrap();
    for (path, wanted) in [
        ("away", Obstacle::Symlink),
        ("away/b", Obstacle::Symlink),
        ("near/new", Obstacle::Symlink),
        ("file/new", Obstacle::NotAFolder),
    ] {
        let found = Folder::made(&root, &rel(path));
        assert!(matches!(&found, Err(OutboxError::Obstructed { what, .. }) if *what == wanted), "{path}: {found:?}");
        assert!(Folder::existing(&root, &rel(path)).is_err(), "{path}");
    }
    assert!(fs::read_dir(root.join("real")).unwrap().next().is_none());
}

#[test]
fn a_root_that_is_itself_a_symlink_is_followed() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("real")).unwrap();
    symlink("real", dir.path().join("outbox")).unwrap();
    Folder::made(&dir.path().join("outbox"), &rel("a")).unwrap();
    assert!(dir.path().join("real/a").is_dir());
}

type Way = fn(&Folder, &OsStr, &Folder, &OsStr) -> Result<(), Errno>;

#[test]
fn no_way_of_renaming_replaces_anything() {
    let ways: [(&str, Way); 3] = [
        ("rename", |f, o, t, n| rustix::fs::renameat_with(f, o, t, n, RenameFlags::NOREPLACE)),
        ("link", link_and_unlink),
        ("placeholder", over_placeholder),
    ];
    for (way, rename) in ways {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::root(dir.path()).unwrap();
        fs::write(dir.path().join("old"), "old").unwrap();
        fs::write(dir.path().join("taken"), "taken").unwrap();
        assert_eq!(rename(&folder, os("old"), &folder, os("taken")), Err(Errno::EXIST), "{way}");
        assert_eq!(fs::read(dir.path().join("taken")).unwrap(), b"taken", "{way}");
        rename(&folder, os("old"), &folder, os("free")).unwrap();
        assert_eq!(fs::read(dir.path().join("free")).unwrap(), b"old", "{way}");
        assert!(!dir.path().join("old").exists(), "{way}");
        assert_eq!(rename(&folder, os("nothing"), &folder, os("new")), Err(Errno::NOENT), "{way}");
        assert!(!dir.path().join("new").exists(), "{way} leaves nothing behind");
    }
}

#[test]
fn a_crash_between_link_and_unlink_is_finished_by_the_next_rename() {
    let dir = tempfile::tempdir().unwrap();
    let folder = Folder::root(dir.path()).unwrap();
    fs::write(dir.path().join("old"), "x").unwrap();
    fs::hard_link(dir.path().join("old"), dir.path().join("new")).unwrap();
    rename(&folder, os("old"), &folder, os("new")).unwrap();
    assert!(!dir.path().join("old").exists());
    assert_eq!(fs::read(dir.path().join("new")).unwrap(), b"x");
    assert!(rename(&folder, os("new"), &folder, os("new")).unwrap_err().is_taken());
    assert!(dir.path().join("new").exists());
}

#[test]
fn only_regular_files_are_opened() {
    let dir = tempfile::tempdir().unwrap();
    let folder = Folder::root(dir.path()).unwrap();
    fs::write(dir.path().join("file"), "x").unwrap();
    symlink("file", dir.path().join("link")).unwrap();
    rustix::fs::mkfifoat(&folder, "fifo", Mode::from_raw_mode(0o600)).unwrap();
    assert!(folder.open(os("file")).is_ok());
    for name in ["link", "fifo"] {
        assert!(matches!(folder.open(os(name)), Err(OutboxError::Obstructed { .. })), "{name}");
    }
    assert!(matches!(folder.open(os("none")), Err(OutboxError::Gone { .. })));
}
