//! One daemon per inbox and per state directory: a file that is locked as long as its holder lives. An inbox is locked
//! itself, too: daemons whose working folders differ would not meet in one of those. Whoever may enter the inbox can lock
//! it, so that alone says nothing of a daemon.
//!
//! The lock is the kernel's (`flock`), so a crash releases it and a file that was left behind means nothing.
//! The holder's process number stands in the file for people; it is never what decides. The file stays when
//! the lock is released: removing it would let two processes hold two files of one name. In that of a working folder
//! stands behind it, and stays there, whose inbox it serves.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

/// The lock's name in a state directory.
pub const STATE_LOCK: &str = "daemon.lock";
/// The lock's name in `working/`: a dotfile there is the daemon's.
pub const WORKING_LOCK: &str = ".lock";

/// How long [`Lock::take`] goes on trying: [`holder`] takes the lock for a moment to look whether it is free,
/// and a daemon must not fail because somebody asked for its status.
const PATIENCE: Duration = Duration::from_millis(300);
const PAUSE: Duration = Duration::from_millis(10);

/// A lock that is held, until this is dropped or the process ends.
#[derive(Debug)]
pub struct Lock {
    file: File,
    /// The process number stands in it.
    says_who: bool,
    /// Whose it is stands in it.
    inbox: Option<PathBuf>,
}

/// Why a lock could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process, or another handle of this one, holds it.
    #[error("{path} is locked by another daemon{}", pid.map(|pid| format!(" (process {pid})")).unwrap_or_default(), path = path.display())]
    Held {
        /// The lock file.
        path: PathBuf,
        /// The holder's process number, if it has written it already.
        pid: Option<u32>,
    },
    /// Another process holds a folder itself.
    #[error("the inbox {} is locked by another program", .path.display())]
    Taken {
        /// The folder.
        path: PathBuf,
    },
    /// The file could not be made, opened or locked.
    #[error("{}: {source}", path.display())]
    Io {
        /// The lock file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl Lock {
    /// Takes the lock at `path`, making the file if needed (readable for all, as far as the umask allows), and
    /// writes the process number into it. A symlink or anything but a regular file is refused. May block for
    /// 0.3 s.
    pub fn take(path: &Path) -> Result<Self, LockError> {
        Self::take_with(path, OFlags::RDWR | OFlags::CREATE)
    }

    /// [`Self::take`] of a working folder, which serves this inbox (as [`Path::canonicalize`] has it).
    pub fn take_working(path: &Path, inbox: &Path) -> Result<Self, LockError> {
        let mut lock = Self::take(path)?;
        lock.inbox = Some(inbox.to_path_buf());
        write(&mut lock.file, true, Some(inbox))
            .map_err(|source| LockError::Io { path: path.to_path_buf(), source })?;
        Ok(lock)
    }

    /// [`Self::take`] where the file is there, without a word in it; `None` where it is not, and nobody has a lock then.
    pub fn take_existing(path: &Path) -> Result<Option<Self>, LockError> {
        match Self::take_with(path, OFlags::RDWR) {
            Err(LockError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            taken => taken.map(Some),
        }
    }

    fn take_with(path: &Path, how: OFlags) -> Result<Self, LockError> {
        let fail = |source: io::Error| LockError::Io { path: path.to_path_buf(), source };
        let give_up = Instant::now() + PATIENCE;
        loop {
            let mut file = open(path, how).map_err(fail)?;
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) if is_at(&file, path) => {
                    let says_who = how.contains(OFlags::CREATE);
                    if says_who {
                        write(&mut file, true, None).map_err(fail)?;
                    }
                    return Ok(Self { file, says_who, inbox: None });
                }
                // Somebody removed the file between opening and locking: what we hold is a lock on nothing.
                Ok(()) => {}
                Err(Errno::WOULDBLOCK | Errno::INTR) if Instant::now() < give_up => std::thread::sleep(PAUSE),
                Err(Errno::WOULDBLOCK) => {
                    return Err(LockError::Held { path: path.to_path_buf(), pid: read_pid(&mut file) });
                }
                Err(e) => return Err(fail(e.into())),
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // The number of an ended process would be misleading; the lock itself goes with the file.
        if self.says_who {
            let _ = write(&mut self.file, false, self.inbox.as_deref());
        }
    }
}

/// An inbox that is held, until this is dropped or the process ends: its own directory. Nothing is written there.
/// Filesystems that cannot lock a directory (NFS) leave it to the lock in `working/`.
#[derive(Debug)]
pub struct InboxLock {
    _folder: Option<File>,
}

impl InboxLock {
    /// Takes the lock of `inbox`, which must be there and may not lie in another daemon's. [`LockError::Held`] where a
    /// daemon has it, [`LockError::Taken`] where nobody knows who has. May block for 0.3 s for it and for each folder
    /// around it that somebody else has locked.
    pub fn take(inbox: &Path) -> Result<Self, LockError> {
        let real = inbox.canonicalize().map_err(|source| LockError::Io { path: inbox.to_path_buf(), source })?;
        let folder = hold(&real, FlockOperation::NonBlockingLockExclusive)?;
        // Behind the own lock, so that of two that start at one time the inner one sees the other.
        for around in real.ancestors().skip(1) {
            // What others lock there for other reasons is theirs.
            if let Err(held @ LockError::Held { .. }) = hold(around, FlockOperation::NonBlockingLockShared) {
                return Err(held);
            }
        }
        Ok(Self { _folder: folder })
    }
}

/// A folder that one program of ours has for itself, until this is dropped or the process ends.
#[derive(Debug)]
pub struct FolderLock {
    _folder: Option<File>,
}

impl FolderLock {
    /// Takes the first of these that can be opened, for as long as that takes; `waits` is called once if somebody else has
    /// it. A folder whose filesystem locks none is nobody's.
    pub fn take(folders: &[&Path], waits: impl FnOnce(&Path)) -> Self {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let open = |path: &&Path| Some((path.to_path_buf(), rustix::fs::open(*path, flags, Mode::empty()).ok()?));
        let Some((path, folder)) = folders.iter().find_map(open) else { return Self { _folder: None } };
        let mut locked = rustix::fs::flock(&folder, FlockOperation::NonBlockingLockExclusive);
        if locked == Err(Errno::WOULDBLOCK) {
            waits(&path);
        }
        while matches!(locked, Err(Errno::WOULDBLOCK | Errno::INTR)) {
            locked = rustix::fs::flock(&folder, FlockOperation::LockExclusive);
        }
        Self { _folder: locked.is_ok().then(|| folder.into()) }
    }
}

/// Holds a directory; `None` where it cannot be opened or its filesystem locks none.
fn hold(path: &Path, how: FlockOperation) -> Result<Option<File>, LockError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(folder) = rustix::fs::open(path, flags, Mode::empty()) else { return Ok(None) };
    let give_up = Instant::now() + PATIENCE;
    loop {
        match rustix::fs::flock(&folder, how) {
            Ok(()) => return Ok(Some(folder.into())),
            Err(Errno::WOULDBLOCK | Errno::INTR) if Instant::now() < give_up => std::thread::sleep(PAUSE),
            Err(Errno::WOULDBLOCK) => {
                let path = path.to_path_buf();
                return Err(match daemon_of(&path, &folder) {
                    Probe::Held(pid) => LockError::Held { path, pid },
                    Probe::Free => LockError::Taken { path },
                });
            }
            Err(_) => return Ok(None),
        }
    }
}

/// The daemon that has locked this inbox, if it is one: the kernel's list says so, or it holds the working folder in the
/// inbox, or beside it and is not seen from here. Anybody who may enter a folder can lock it.
fn daemon_of(inbox: &Path, folder: impl AsFd) -> Probe {
    let holders = holders(folder);
    let (name, own) = (|pid: u32| std::fs::read_to_string(format!("/proc/{pid}/comm")).ok(), std::process::id());
    if let Some(pid) = holders.iter().find(|pid| name(**pid).is_some() && name(**pid) == name(own)) {
        return Probe::Held(Some(*pid));
    }
    if let Ok(held @ Probe::Held(_)) = probe(&inbox.join(".working").join(WORKING_LOCK)) {
        return held;
    }
    let beside = inbox.parent().map(|parent| parent.join("working").join(WORKING_LOCK));
    match beside.map(|lock| probe(&lock)) {
        // One that is seen and does not hold this inbox has another one beside it.
        Some(Ok(Probe::Held(Some(pid)))) if name(pid).is_some() && !holders.contains(&pid) => Probe::Free,
        Some(Ok(held @ Probe::Held(_))) => held,
        _ => Probe::Free,
    }
}

/// Processes that hold a folder for themselves, as far as they are seen from here.
fn holders(folder: impl AsFd) -> Vec<u32> {
    let Ok(stat) = rustix::fs::fstat(folder) else { return Vec::new() };
    let locks = std::fs::read_to_string("/proc/locks").unwrap_or_default();
    // 3: FLOCK  ADVISORY  WRITE 31656 fe:00:10305572 0 EOF
    let holder = |line: &str| {
        let words: Vec<_> = line.split_whitespace().collect();
        let [_, "FLOCK", _, "WRITE", pid, place, ..] = words[..] else { return None };
        let mut place = place.split(':');
        let mut number = || u32::from_str_radix(place.next()?, 16).ok();
        let device = (number()?, number()?);
        // Filesystems without a device of their own (btrfs, overlay) say another one there.
        let is_own = rustix::fs::major(stat.st_dev) == 0
            || device == (rustix::fs::major(stat.st_dev), rustix::fs::minor(stat.st_dev));
        let same = is_own && place.next()?.parse() == Ok(stat.st_ino);
        same.then(|| pid.parse().ok()).flatten()
    };
    locks.lines().filter_map(holder).collect()
}

/// Whether a folder is the working folder of a daemon that runs.
pub fn is_in_work(folder: &Path) -> bool {
    matches!(probe(&folder.join(WORKING_LOCK)), Ok(Probe::Held(_)))
}

/// Whether a lock is held, and by whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// Nobody holds it, or there is no such file.
    Free,
    /// Held, by this process as far as it has said so.
    Held(Option<u32>),
}

/// Looks whether the lock at `path` is held, without keeping it.
///
/// # Errors
///
/// When the file is there and can't be opened, named with its path.
pub fn probe(path: &Path) -> Result<Probe, LockError> {
    let fail = |source: io::Error| LockError::Io { path: path.to_path_buf(), source };
    let mut file = match open(path, OFlags::RDONLY) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Probe::Free),
        Err(e) => return Err(fail(e)),
    };
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(Probe::Free),
        Err(Errno::WOULDBLOCK) => Ok(Probe::Held(read_pid(&mut file))),
        Err(e) => Err(fail(e.into())),
    }
}

/// The process that holds the lock at `path`; `None` when nobody does, or when that can't be seen.
pub fn holder(path: &Path) -> Option<u32> {
    match probe(path) {
        Ok(Probe::Held(pid)) => pid,
        Ok(Probe::Free) | Err(_) => None,
    }
}

fn open(path: &Path, how: OFlags) -> io::Result<File> {
    let flags = how | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
    let file: File = rustix::fs::open(path, flags, Mode::from_raw_mode(0o644))?.into();
    if FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) != FileType::RegularFile {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    Ok(file)
}

fn is_at(file: &File, path: &Path) -> bool {
    match (rustix::fs::fstat(file), rustix::fs::lstat(path)) {
        (Ok(held), Ok(there)) => (held.st_dev, held.st_ino) == (there.st_dev, there.st_ino),
        _ => false,
    }
}

/// Whether the lock of a working folder, held or not, says that it serves this inbox.
pub fn serves(path: &Path, inbox: &Path) -> bool {
    open(path, OFlags::RDONLY).ok().and_then(|mut file| read(&mut file)).is_some_and(|text| {
        let mut lines = text.splitn(2, |byte| *byte == b'\n').skip(1);
        lines.next().and_then(|rest| rest.strip_suffix(b"\n")) == Some(inbox.as_os_str().as_bytes())
    })
}

/// The process number, if it is held, and whose it is, if that is known.
fn write(file: &mut File, held: bool, inbox: Option<&Path>) -> io::Result<()> {
    let mut text = if held { std::process::id().to_string().into_bytes() } else { Vec::new() };
    if held || inbox.is_some() {
        text.push(b'\n');
    }
    if let Some(inbox) = inbox {
        text.extend_from_slice(inbox.as_os_str().as_bytes());
        text.push(b'\n');
    }
    file.set_len(0)?;
    file.rewind()?;
    file.write_all(&text)
}

fn read_pid(file: &mut File) -> Option<u32> {
    let text = read(file)?;
    std::str::from_utf8(text.split(|byte| *byte == b'\n').next()?).ok()?.trim().parse().ok()
}

fn read(file: &mut File) -> Option<Vec<u8>> {
    /// More than a path can have.
    const MOST: u64 = 8192;
    let mut text = Vec::new();
    file.rewind().ok()?;
    file.take(MOST).read_to_end(&mut text).ok()?;
    Some(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::io::{BufRead as _, BufReader};
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_second_handle_is_refused_and_told_who_holds_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(STATE_LOCK);
        let first = Lock::take(&path).unwrap();
        assert!(matches!(
            Lock::take(&path).unwrap_err(),
            LockError::Held { pid: Some(pid), .. } if pid == std::process::id()
        ));
        assert_eq!(holder(&path), Some(std::process::id()));
        drop(first);
        assert_eq!(probe(&path).unwrap(), Probe::Free);
        Lock::take(&path).unwrap();
    }

    #[test]
    fn a_file_left_from_a_crash_is_taken_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(WORKING_LOCK);
        std::fs::write(&path, "999999999\nand more that is longer than a number\n").unwrap();
        assert_eq!(holder(&path), None);
        let _lock = Lock::take(&path).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
    }

    #[test]
    fn a_working_folders_lock_says_whose_it_is_also_when_nobody_holds_it() {
        let folder = tempfile::tempdir().unwrap();
        let (path, inbox) = (folder.path().join(WORKING_LOCK), folder.path().join("in\nbox"));
        assert!(!serves(&path, &inbox));
        let held = Lock::take_working(&path, &inbox).unwrap();
        assert_eq!((holder(&path), serves(&path, &inbox)), (Some(std::process::id()), true));
        drop(held);
        assert_eq!((probe(&path).unwrap(), serves(&path, &inbox)), (Probe::Free, true));
        assert!(!serves(&path, folder.path()));
        drop(Lock::take_existing(&path).unwrap());
        assert!(serves(&path, &inbox), "whoever only looks changes nothing");
        let other = Lock::take_working(&path, folder.path()).unwrap();
        assert!(!serves(&path, &inbox));
        drop(other);
        drop(Lock::take(&path).unwrap());
        assert!(!serves(&path, folder.path()));
    }

    #[test]
    fn an_inbox_keeps_other_daemons_from_itself_and_from_what_lies_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let at = |path: &str| folder.path().join(path);
        std::fs::create_dir_all(at("a/inbox/look")).unwrap();
        std::fs::create_dir_all(at("a/other")).unwrap();
        std::os::unix::fs::symlink(at("a/inbox"), at("link")).unwrap();
        let held = InboxLock::take(&at("a/inbox")).unwrap();
        for taken in ["a/inbox", "link", "a/inbox/look"] {
            let error = InboxLock::take(&at(taken)).unwrap_err();
            // This very process, so by its name it is one.
            assert!(matches!(&error, LockError::Held { pid: Some(pid), .. } if *pid == std::process::id()), "{error}");
        }
        InboxLock::take(&at("a/other")).unwrap();
        drop(held);
        for free in ["a/inbox", "link", "a/inbox/look"] {
            InboxLock::take(&at(free)).unwrap();
        }
        assert_eq!(std::fs::read_dir(at("a/inbox")).unwrap().count(), 1, "nothing is written");
    }

    #[test]
    fn what_other_programs_lock_is_told_from_a_daemons() {
        let folder = tempfile::tempdir().unwrap();
        let inbox = folder.path().join("inbox");
        std::fs::create_dir(&inbox).unwrap();
        let hold = |path: &Path| {
            let mut command = Command::new("flock");
            command.arg(path).args(["sh", "-c", "echo held; cat"]);
            let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
            BufReader::new(child.stdout.take().unwrap()).read_line(&mut String::new()).unwrap();
            child
        };
        let end = |mut child: std::process::Child| {
            drop(child.stdin.take());
            child.wait().unwrap();
        };
        let child = hold(folder.path());
        InboxLock::take(&inbox).unwrap();
        end(child);
        let child = hold(&inbox);
        assert!(matches!(InboxLock::take(&inbox).unwrap_err(), LockError::Taken { .. }));
        // A daemon of another inbox, whose working folder lies beside both; and one that is not seen from here.
        let working = folder.path().join("working");
        std::fs::create_dir(&working).unwrap();
        let path = working.join(WORKING_LOCK);
        let lock = Lock::take(&path).unwrap();
        assert!(matches!(InboxLock::take(&inbox).unwrap_err(), LockError::Taken { .. }));
        assert!(is_in_work(&working));
        std::fs::write(&path, "4294967\n").unwrap();
        assert!(matches!(InboxLock::take(&inbox).unwrap_err(), LockError::Held { pid: Some(4_294_967), .. }));
        drop(lock);
        assert!(!is_in_work(&working));
        end(child);
        InboxLock::take(&inbox).unwrap();
    }

    #[test]
    fn a_lock_that_nobody_ever_took_is_not_made_by_taking_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(WORKING_LOCK);
        assert!(Lock::take_existing(&path).unwrap().is_none());
        assert!(!path.exists());
        drop(Lock::take(&path).unwrap());
        let held = Lock::take_existing(&path).unwrap();
        assert!(held.is_some());
        assert!(matches!(Lock::take_existing(&path).unwrap_err(), LockError::Held { .. }));
        drop(held);
        std::fs::write(&path, "somebody's").unwrap();
        drop(Lock::take_existing(&path).unwrap());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "somebody's");
    }

    /// Runs in a child process of the test below, and does nothing elsewhere.
    #[test]
    fn helper_holds_the_lock_until_it_is_killed() {
        let Some(path) = std::env::var_os("LOCK") else { return };
        let _lock = Lock::take(Path::new(&path)).unwrap();
        println!("\n> held");
        let _ = io::stdin().read_line(&mut String::new());
    }

    #[test]
    fn a_lock_of_another_process_holds_until_that_process_is_killed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(STATE_LOCK);
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture"])
            .arg("service::lock::tests::helper_holds_the_lock_until_it_is_killed")
            .env("LOCK", &path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        while lines.next().unwrap().unwrap() != "> held" {}
        let held = Lock::take(&path).unwrap_err();
        assert!(held.to_string().contains(&format!("process {}", child.id())), "{held}");
        child.kill().unwrap();
        child.wait().unwrap();
        Lock::take(&path).unwrap();
    }

    #[test]
    fn a_symlink_and_a_folder_are_refused_and_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("link");
        std::os::unix::fs::symlink(folder.path().join("elsewhere"), &path).unwrap();
        let error = Lock::take(&path).unwrap_err();
        assert!(matches!(&error, LockError::Io { .. }), "{error}");
        assert!(error.to_string().contains("link"), "{error}");
        assert!(!folder.path().join("elsewhere").exists());
        assert!(matches!(Lock::take(folder.path()).unwrap_err(), LockError::Io { .. }));
    }

    #[test]
    fn a_missing_file_is_free_and_is_not_made_by_looking() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(STATE_LOCK);
        assert_eq!(probe(&path).unwrap(), Probe::Free);
        assert!(!path.exists());
    }

    #[test]
    fn someone_who_looks_again_and_again_does_not_keep_a_daemon_from_starting() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(STATE_LOCK);
        drop(Lock::take(&path).unwrap());
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    probe(&path).unwrap();
                }
            });
            let taken: Vec<_> = (0..20).map(|_| Lock::take(&path).map(drop)).collect();
            done.store(true, std::sync::atomic::Ordering::Relaxed);
            assert!(taken.iter().all(Result::is_ok), "{taken:?}");
        });
    }
}
