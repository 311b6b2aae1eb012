//! Faults from outside: full, read-only and vanishing filesystems, system calls that fail, a user without
//! root's privileges, and a clock that is set. Each is of one daemon or one namespace, never of the machine.
//!
//! What a machine can't do makes a test fail, and the message says how to leave such tests out:
//! `REIMAGINED_TESTS_WITHOUT`, a list of `namespaces`, `strace`, `faketime`, `fuse`, `samba`, `prometheus` and `systemd` (see
//! [`super::boot`]). They say so loudly then.

use std::cell::Cell;
use std::ffi::{CString, OsStr};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::mount::{MountFlags, UnmountFlags};
use rustix::process::{Pid, Signal, kill_process};

use super::{Daemon, PATIENCE, wait_until};

/// Names what a test run does without.
pub const WITHOUT: &str = "REIMAGINED_TESTS_WITHOUT";

/// Says to a test that it runs in namespaces of its own.
const INSIDE: &str = "REIMAGINED_TEST_INSIDE";

/// Whether tests that need `what` are left out. Said on stderr.
pub fn left_out(what: &str) -> bool {
    let list = std::env::var(WITHOUT).unwrap_or_default();
    let out = list.split(',').any(|word| word.trim() == what);
    if out {
        let name = std::thread::current().name().unwrap_or_default().to_owned();
        eprintln!("!!! LEFT OUT, since {WITHOUT} names {what}: {name}");
    }
    out
}

/// Ends a test that needs what this machine can't do, and says how to leave such tests out.
pub fn cannot(what: &str, why: &str) -> ! {
    panic!("this test needs {what}: {why}\nTo leave such tests out, set {WITHOUT}={what}");
}

/// Whether a test that needs `what` can run here: not if such tests are left out. Fails if the machine lacks it.
pub fn can(what: &str, lack: impl FnOnce() -> Option<String>) -> bool {
    if left_out(what) {
        return false;
    }
    match lack() {
        Some(lack) => cannot(what, &lack),
        None => true,
    }
}

/// Namespaces for [`alone`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// Mounts of its own.
    Mounts,
    /// Mounts, processes and a loopback of its own: servers that it starts end with it, whatever happens.
    Network,
    /// Limits of its own, such as those of inotify watches.
    Limits,
}

/// Runs `test` in a process with namespaces of its own: the test binary starts itself for this one test, which
/// is known by the name of the function that `test` is written in.
pub fn alone<F: FnOnce()>(space: Space, test: F) {
    let name = std::any::type_name::<F>();
    let name = name.split_once("::").map_or(name, |(_, rest)| rest).trim_end_matches("::{{closure}}");
    if std::env::var_os(INSIDE).is_some_and(|inside| inside == name) {
        return test();
    }
    if left_out("namespaces") {
        return;
    }
    let root = rustix::process::geteuid().is_root();
    let user = ["--user", "--map-root-user"];
    let flags: Vec<&str> = match space {
        Space::Mounts if root => vec!["--mount"],
        Space::Mounts => [&user[..], &["--mount"]].concat(),
        Space::Network => {
            let own = ["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--net"];
            if root { own.to_vec() } else { [&user[..], &own].concat() }
        }
        Space::Limits => user.to_vec(),
    };
    let first = match space {
        Space::Mounts => "mount -t tmpfs none /mnt",
        Space::Network => "ip link set lo up",
        Space::Limits => "true",
    };
    let tried = Command::new("unshare").args(&flags).args(["sh", "-c", first]).output();
    match tried {
        Ok(tried) if tried.status.success() => {}
        Ok(tried) => cannot("namespaces", &String::from_utf8_lossy(&tried.stderr)),
        Err(e) => cannot("namespaces", &format!("unshare: {e}")),
    }
    // What is mounted in there can't be removed from in there.
    let home = tempfile::Builder::new().prefix("reimagined-alone-").tempdir().unwrap();
    let mut command = Command::new("unshare");
    command.args(&flags);
    if space == Space::Network {
        command.args(["sh", "-c", &format!("{first} && exec \"$@\""), "sh"]);
    }
    let done = command
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(INSIDE, name)
        .env("TMPDIR", home.path())
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success() && out.contains("1 passed"), "{name} in namespaces of its own:\n{out}\n{err}");
}

/// A filesystem of its own at some folder, in memory.
#[derive(Debug)]
pub struct Mount {
    path: PathBuf,
    covered: Cell<bool>,
}

impl Mount {
    /// Mounts one, with room enough.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        fs::create_dir_all(&path).unwrap();
        let options = CString::new("size=64m,nr_inodes=10000,mode=755").unwrap();
        rustix::mount::mount("none", &path, "tmpfs", MountFlags::empty(), Some(options.as_c_str()))
            .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        Self { path, covered: Cell::new(false) }
    }

    fn again(&self, flags: MountFlags, options: &str) {
        let options = CString::new(options).unwrap();
        rustix::mount::mount_remount(&self.path, flags, options.as_c_str())
            .unwrap_or_else(|e| panic!("{}: {e} ({options:?})", self.path.display()));
    }

    /// Leaves so many bytes of room, in whole pages.
    pub fn leave(&self, bytes: u64) {
        let stat = rustix::fs::statvfs(&self.path).unwrap();
        let used = (stat.f_blocks - stat.f_bfree) * stat.f_frsize;
        self.again(MountFlags::empty(), &format!("size={}", (used + bytes).max(stat.f_frsize)));
    }

    /// Leaves so many inodes.
    pub fn leave_inodes(&self, inodes: u64) {
        let stat = rustix::fs::statvfs(&self.path).unwrap();
        self.again(MountFlags::empty(), &format!("nr_inodes={}", stat.f_files - stat.f_ffree + inodes));
    }

    /// Nothing can be made or opened for writing there any more. (What is open already still can be written.)
    pub fn read_only(&self) {
        rustix::mount::mount_bind(&self.path, &self.path).unwrap();
        rustix::mount::mount_remount(&self.path, MountFlags::BIND | MountFlags::RDONLY, c"").unwrap();
        self.covered.set(true);
    }

    /// All is well again.
    pub fn relieve(&self) {
        if self.covered.take() {
            rustix::mount::unmount(&self.path, UnmountFlags::DETACH).unwrap();
        }
        self.again(MountFlags::empty(), "size=64m,nr_inodes=10000");
    }

    /// Shows it at another place, too.
    pub fn also_at(&self, path: &Path) {
        fs::create_dir_all(path).unwrap();
        rustix::mount::mount_bind(&self.path, path).unwrap();
    }

    /// What `shown` shows, at its old place again.
    pub fn again_at(path: impl Into<PathBuf>, shown: &Path) -> Self {
        let path = path.into();
        rustix::mount::mount_bind(shown, &path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        Self { path, covered: Cell::new(false) }
    }

    /// Takes it away, although it is in use.
    pub fn unmount(self) {
        rustix::mount::unmount(&self.path, UnmountFlags::DETACH).unwrap();
    }
}

/// A folder on another filesystem than the temporary files', in memory. `None` where tests of this kind are left out.
pub fn elsewhere() -> Option<tempfile::TempDir> {
    use std::os::unix::fs::MetadataExt as _;
    let device = |path: &Path| fs::metadata(path).map(|m| m.dev()).ok();
    let lack = || {
        let (here, there) = (device(&std::env::temp_dir()), device(Path::new("/dev/shm")));
        (there.is_none() || here == there).then(|| "it is not there, or the filesystem of the temporary files".into())
    };
    can("/dev/shm", lack).then(|| tempfile::Builder::new().prefix("reimagined-").tempdir_in("/dev/shm").unwrap())
}

/// What keeps calls from being watched.
pub fn strace_lacks() -> Option<String> {
    Command::new("strace").arg("-V").output().is_err().then(|| "no strace (Debian: strace)".into())
}

/// System calls of a running daemon that fail for as long as this lives.
#[derive(Debug)]
pub struct Injected {
    strace: Child,
    log: PathBuf,
}

impl Injected {
    /// `fault` as `strace -e inject=` wants it; only for calls that have to do with one of `paths`, if any.
    /// `None` where tests of this kind are left out.
    pub fn into(daemon: &Daemon, fault: &str, paths: &[&Path], log: PathBuf) -> Option<Self> {
        if left_out("strace") {
            return None;
        }
        let calls = fault.split(':').next().unwrap_or_default();
        let said = log.with_extension("said");
        let mut command = Command::new("strace");
        command.args(["-f", "-p", &daemon.pid().to_string(), "-e", &format!("trace={calls}")]);
        command.args(["-e", &format!("inject={fault}"), "-e", "signal=none", "-o"]).arg(&log);
        for path in paths {
            command.arg("-P").arg(path);
        }
        let stderr = fs::File::create(&said).unwrap();
        let strace = match command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr).spawn() {
            Ok(strace) => strace,
            Err(e) => cannot("strace", &e.to_string()),
        };
        let mut this = Self { strace, log };
        let says = || fs::read_to_string(&said).unwrap_or_default();
        let up = wait_until(PATIENCE, || says().contains("attached") || this.strace.try_wait().unwrap().is_some());
        if !up || this.strace.try_wait().unwrap().is_some() {
            cannot("strace", &says());
        }
        Some(this)
    }

    /// How many calls failed by it so far.
    pub fn hits(&self) -> usize {
        fs::read_to_string(&self.log).unwrap_or_default().lines().filter(|l| l.contains("(INJECTED)")).count()
    }

    /// All is well again.
    pub fn end(self) {
        drop(self);
    }
}

impl Drop for Injected {
    fn drop(&mut self) {
        // It lets go of the daemon, and ends.
        let _ = kill_process(Pid::from_child(&self.strace), Signal::TERM);
        let _ = self.strace.wait();
    }
}

/// `command` started by `by` (a program that starts another, with its arguments).
pub fn by(by: &[&OsStr], command: &Command) -> Command {
    let mut all = Command::new(by[0]);
    all.args(&by[1..]).arg(command.get_program()).args(command.get_args()).env_clear().stdin(Stdio::null());
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            all.env(name, value);
        }
    }
    if let Some(dir) = command.get_current_dir() {
        all.current_dir(dir);
    }
    all
}

/// `command` as one who has to keep to permissions: root that may not pass over them, or whoever we are.
pub fn modest(command: &Command) -> Command {
    if !rustix::process::geteuid().is_root() {
        return by(&["env".as_ref()], command);
    }
    powerless("-dac_override,-dac_read_search", command)
}

/// `command` as root without these powers, in the words of setpriv.
pub fn powerless(less: &str, command: &Command) -> Command {
    by(&["setpriv", "--inh-caps", less, "--bounding-set", less].map(AsRef::as_ref), command)
}

/// `command` with a clock of its own, set by [`Wall::set`]. `None` where tests of this kind are left out.
pub fn with_clock(command: &Command, wall: &Wall) -> Option<Command> {
    if left_out("faketime") {
        return None;
    }
    let places = ["/usr/lib", "/usr/lib64", "/usr/local/lib", "/lib"].map(Path::new);
    let library = places
        .iter()
        .flat_map(|place| fs::read_dir(place).into_iter().flatten().filter_map(Result::ok))
        .map(|entry| entry.path().join("faketime/libfaketimeMT.so.1"))
        .chain(places.iter().map(|place| place.join("faketime/libfaketimeMT.so.1")))
        .find(|path| path.exists());
    let Some(library) = library else { cannot("faketime", "no libfaketimeMT.so.1 (Debian: libfaketime)") };
    let mut command = by(&["env".as_ref()], command);
    command.env("LD_PRELOAD", library).env("FAKETIME_TIMESTAMP_FILE", &wall.0);
    command.env("FAKETIME_NO_CACHE", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("NO_FAKE_STAT", "1");
    Some(command)
}

/// A wall clock for one process.
#[derive(Debug)]
pub struct Wall(PathBuf);

impl Wall {
    /// The machine's at first; `file` says how far it is off.
    pub fn new(file: PathBuf) -> Self {
        let wall = Self(file);
        wall.set("+0");
        wall
    }

    /// `-1d`: a day back from the machine's.
    pub fn set(&self, by: &str) {
        let draft = self.0.with_extension("draft");
        fs::write(&draft, by).unwrap();
        fs::rename(draft, &self.0).unwrap();
    }
}
