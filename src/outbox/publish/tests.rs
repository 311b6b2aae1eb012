#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

use rustix::fs::Mode;
use tempfile::TempDir;

use super::*;
use crate::domain::ids::Fingerprint;
use crate::outbox::durable::umask;
use crate::outbox::provenance::tests::sample;

const DROP: DropId = DropId([9; 16]);
const SHOT: ShotNo = ShotNo(0);

/// [`recover_unsynced`], synced.
fn recovered(delivery: &Delivery<'_>) -> Result<Recovered, OutboxError> {
    let mut unsynced = Unsynced::default();
    let recovered = recover_unsynced(delivery, &mut unsynced)?;
    unsynced.sync()?;
    Ok(recovered)
}

/// A state directory, and an outbox perhaps on another filesystem.
struct House {
    _state: TempDir,
    outbox: TempDir,
    spool: Spool,
    rel: RelPath,
    far: bool,
}

impl House {
    fn new(outbox: TempDir) -> Self {
        let state = tempfile::tempdir().unwrap();
        let far = fs::metadata(state.path()).unwrap().dev() != fs::metadata(outbox.path()).unwrap().dev();
        let spool = Spool::new(state.path()).unwrap();
        let house = Self { _state: state, outbox, spool, rel: RelPath::new("a/b").unwrap(), far };
        house.fill();
        house
    }

    /// One house on one filesystem, one on two.
    fn both() -> Vec<Self> {
        let far = Self::new(tempfile::tempdir_in("/dev/shm").unwrap());
        if !far.far {
            println!("/dev/shm is the same filesystem; the copying way is not tried");
        }
        vec![Self::new(tempfile::tempdir().unwrap()), far]
    }

    fn fill(&self) {
        let mut part = self.spool.create_part(DROP, SHOT).unwrap();
        std::io::Write::write_all(&mut part, b"picture").unwrap();
        self.spool.seal(DROP, SHOT).unwrap();
    }

    fn delivery<'a>(&'a self, name: &'a str, provenance: Option<(&'a OsStr, &'a [u8])>) -> Delivery<'a> {
        let (drop, shot) = (DROP, SHOT);
        Delivery {
            spool: &self.spool,
            drop,
            shot,
            root: self.outbox.path(),
            rel: &self.rel,
            name: OsStr::new(name),
            provenance,
        }
    }

    fn folder(&self) -> Folder {
        Folder::made(self.outbox.path(), &self.rel).unwrap()
    }

    fn put(&self, name: &str, text: &str) {
        self.folder();
        fs::write(self.rel.under(self.outbox.path()).join(name), text).unwrap();
    }

    /// Everything in the target folder.
    fn files(&self) -> Vec<(String, String)> {
        let folder = self.rel.under(self.outbox.path());
        let mut files: Vec<_> = fs::read_dir(&folder)
            .into_iter()
            .flatten()
            .map(|e| e.unwrap())
            .map(|e| (e.file_name().into_string().unwrap(), fs::read_to_string(e.path()).unwrap()))
            .collect();
        files.sort();
        files
    }

    fn spooled(&self) -> bool {
        self.spool.find(DROP, SHOT).unwrap().is_some()
    }
}

fn pairs(all: &[(&str, &str)]) -> Vec<(String, String)> {
    all.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
}

const JSON: &str = "x.reimagined.json";

#[test]
fn a_picture_and_its_provenance_come_out_with_the_umasks_mode() {
    for house in House::both() {
        let how = publish(&house.delivery("x.png", Some((OsStr::new(JSON), b"{}")))).unwrap();
        assert_eq!(how, if house.far { Published::Copied } else { Published::Renamed });
        assert_eq!(house.files(), pairs(&[("x.png", "picture"), (JSON, "{}")]));
        assert!(!house.spooled());
        let mode = fs::metadata(house.outbox.path().join("a/b/x.png")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o666 & !umask());
        assert_eq!(recovered(&house.delivery("x.png", None)).unwrap(), Recovered::AlreadyDelivered);
    }
}

#[test]
fn a_name_taken_after_it_was_chosen_is_left_and_the_provenance_goes_again() {
    for house in House::both() {
        house.put("x.png", "theirs");
        let error = publish(&house.delivery("x.png", Some((OsStr::new(JSON), b"{}")))).unwrap_err();
        assert!(error.is_taken());
        assert_eq!(house.files(), pairs(&[("x.png", "theirs")]));
        assert!(house.spooled());
        publish(&house.delivery("x (2).png", None)).unwrap();
        assert_eq!(house.files(), pairs(&[("x (2).png", "picture"), ("x.png", "theirs")]));
    }
}

#[test]
fn a_foreign_provenance_is_a_taken_name() {
    for house in House::both() {
        house.put(JSON, "theirs");
        let error = publish(&house.delivery("x.png", Some((OsStr::new(JSON), b"{}")))).unwrap_err();
        assert!(error.is_taken());
        assert_eq!(house.files(), pairs(&[(JSON, "theirs")]));
        assert!(house.spooled());
    }
}

#[test]
fn our_own_provenance_from_before_a_crash_is_no_obstacle() {
    for house in House::both() {
        let first = sample(DROP, SHOT).to_bytes();
        let mut later = sample(DROP, SHOT);
        later.times.published = Some(jiff::Timestamp::UNIX_EPOCH);
        let later = later.to_bytes();
        put_provenance(&house.folder(), OsStr::new(JSON), &first, DROP, SHOT).unwrap();
        let found = recovered(&house.delivery("x.png", Some((OsStr::new(JSON), &later)))).unwrap();
        assert_eq!(found, Recovered::PublishedFromSpool);
        let text = String::from_utf8(later).unwrap();
        assert_eq!(house.files(), pairs(&[("x.png", "picture"), (JSON, &text)]));
    }
}

#[test]
fn provenance_that_a_power_cut_undid_is_written_again_beside_its_picture_and_nowhere_else() {
    for house in House::both() {
        let text = sample(DROP, SHOT).to_bytes();
        let delivery = house.delivery("x.png", Some((OsStr::new(JSON), &text)));
        publish(&delivery).unwrap();
        let whole = house.files();
        house.folder().remove(OsStr::new(JSON)).unwrap();
        assert_eq!(recovered(&delivery).unwrap(), Recovered::AlreadyDelivered);
        assert_eq!(house.files(), whole);
        // Somebody took both: it was delivered.
        for name in ["x.png", JSON] {
            house.folder().remove(OsStr::new(name)).unwrap();
        }
        assert_eq!(recovered(&delivery).unwrap(), Recovered::AlreadyDelivered);
        assert_eq!(house.files(), []);
    }
}

#[test]
fn a_crash_after_each_step_is_finished() {
    type Step = fn(&Delivery<'_>, &Folder);
    let stage: Step = |d, f| super::stage(d, f).unwrap();
    let unspool: Step = |d, _| super::unspool(d).unwrap();
    let finish: Step = |d, f| super::finish(d, f, &mut Unsynced::default()).unwrap();
    let half: Step = |d, f| {
        let path = f.at(&temporary_name(d.drop, d.shot));
        fs::write(path, "pic").unwrap();
    };
    let linked: Step = |d, f| {
        super::stage(d, f).unwrap();
        super::unspool(d).unwrap();
        fs::hard_link(f.at(&temporary_name(d.drop, d.shot)), f.at(d.name)).unwrap();
    };
    for (what, steps, wanted) in [
        ("nothing done", &[][..], Recovered::PublishedFromSpool),
        ("half a copy", &[half], Recovered::PublishedFromSpool),
        ("a whole copy", &[stage], Recovered::PublishedFromSpool),
        ("spool file gone", &[stage, unspool], Recovered::RenamedTemporary),
        ("linked, not unlinked", &[linked], Recovered::RenamedTemporary),
        ("all done", &[stage, unspool, finish], Recovered::AlreadyDelivered),
    ] {
        for house in House::both() {
            let delivery = house.delivery("x.png", None);
            let folder = house.folder();
            for step in steps {
                step(&delivery, &folder);
            }
            assert_eq!(recovered(&delivery).unwrap(), wanted, "{what}");
            assert_eq!(house.files(), pairs(&[("x.png", "picture")]), "{what}");
            assert!(!house.spooled(), "{what}");
            assert_eq!(recovered(&delivery).unwrap(), Recovered::AlreadyDelivered, "{what}, again");
        }
    }
}

#[test]
fn delivered_and_taken_away_by_somebody_is_delivered() {
    for house in House::both() {
        publish(&house.delivery("x.png", None)).unwrap();
        fs::remove_dir_all(house.outbox.path().join("a")).unwrap();
        assert_eq!(recovered(&house.delivery("x.png", None)).unwrap(), Recovered::AlreadyDelivered);
        assert!(matches!(publish(&house.delivery("x.png", None)), Err(OutboxError::Gone { .. })));
        assert!(!house.outbox.path().join("a").exists());
    }
}

#[test]
fn a_name_taken_after_the_spool_file_went_needs_only_another_name() {
    let house = House::new(tempfile::tempdir().unwrap());
    let delivery = house.delivery("x.png", None);
    stage(&delivery, &house.folder()).unwrap();
    unspool(&delivery).unwrap();
    house.put("x.png", "theirs");
    assert!(publish(&delivery).unwrap_err().is_taken());
    assert_eq!(publish(&house.delivery("x (2).png", None)).unwrap(), Published::FromTemporary);
    assert_eq!(house.files(), pairs(&[("x (2).png", "picture"), ("x.png", "theirs")]));
}

#[test]
fn a_hidden_copy_of_which_nobody_knows_is_rescued() {
    let house = House::new(tempfile::tempdir().unwrap());
    let delivery = house.delivery("x.png", None);
    stage(&delivery, &house.folder()).unwrap();
    unspool(&delivery).unwrap();
    let found = crate::outbox::sweep::sweep(house.outbox.path()).unwrap().temporaries;
    assert_eq!(found.len(), 1);
    rescue(house.outbox.path(), &found[0], OsStr::new("recovered-1.png")).unwrap();
    assert_eq!(house.files(), pairs(&[("recovered-1.png", "picture")]));
}

#[test]
fn a_folder_swapped_for_a_symlink_leads_nowhere() {
    for house in House::both() {
        let outside = tempfile::tempdir().unwrap();
        symlink(outside.path(), house.outbox.path().join("a")).unwrap();
        let error = publish(&house.delivery("x.png", None)).unwrap_err();
        assert!(matches!(error, OutboxError::Obstructed { .. }), "{error}");
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
        assert!(house.spooled());
    }
}

#[test]
fn a_setgid_folder_gives_its_group() {
    let house = House::new(tempfile::tempdir().unwrap());
    let folder = house.folder();
    let group = Gid::from_raw(12_345);
    if rustix::fs::fchown(&folder, None, Some(group)).is_err() {
        println!("may not change groups; nothing to try");
        return;
    }
    rustix::fs::fchmod(&folder, Mode::from_raw_mode(0o2775)).unwrap();
    publish(&house.delivery("x.png", None)).unwrap();
    assert_eq!(fs::metadata(folder.at(OsStr::new("x.png"))).unwrap().gid(), 12_345);
}

#[test]
fn a_folder_with_a_default_acl_gives_it_to_its_results() {
    let house = House::new(tempfile::tempdir().unwrap());
    let folder = house.folder();
    // Version 2; then tag, permissions and id of owner, group, a named group, mask and others.
    let mut acl = 2_u32.to_le_bytes().to_vec();
    for (tag, perm, id) in
        [(1_u16, 6_u16, u32::MAX), (4, 4, u32::MAX), (8, 6, 1234), (0x10, 6, u32::MAX), (0x20, 0, u32::MAX)]
    {
        acl.extend([tag.to_le_bytes(), perm.to_le_bytes()].concat());
        acl.extend(id.to_le_bytes());
    }
    let name = "system.posix_acl_default";
    if let Err(e) = rustix::fs::fsetxattr(&folder, name, &acl, rustix::fs::XattrFlags::empty()) {
        println!("this filesystem takes no ACLs ({e}); nothing to try");
        return;
    }
    assert_eq!(publish(&house.delivery("x.png", None)).unwrap(), Published::Copied);
    let file = folder.open(OsStr::new("x.png")).unwrap();
    assert!(rustix::fs::fgetxattr_query(&file, "system.posix_acl_access").unwrap() > 0);
    assert!(!house.spooled());
}

#[test]
fn the_outbox_itself_is_never_made() {
    let house = House::new(tempfile::tempdir().unwrap());
    let root = house.outbox.path().join("not-mounted");
    let delivery = Delivery { root: &root, ..house.delivery("x.png", None) };
    assert!(matches!(publish(&delivery), Err(OutboxError::RootMissing { .. })));
    assert!(!root.exists() && house.spooled());
    assert_eq!(Fingerprint::of(b"picture"), house.spool.find(DROP, SHOT).unwrap().unwrap().fingerprint().unwrap());
}
