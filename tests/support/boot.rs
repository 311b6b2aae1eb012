//! A real systemd as the first process of namespaces of its own, to install and try a service in.
//!
//! It sees the files of this machine, and what it writes goes with it: the root filesystem is an overlay whose
//! upper layer is memory. `/run`, `/tmp`, `/dev`, `/proc` and `/sys` are its own; the network is the machine's, so
//! that 127.0.0.1 (an [`super::Api`] of the test, say) is the same inside and outside. Nothing that the machine has
//! enabled is started. What lies on other filesystems than the root one is not there: bring it with [`Boot::put`].
//!
//! ```ignore
//! let Some(boot) = Boot::start() else { return };          // None: left out by REIMAGINED_TESTS_WITHOUT
//! boot.put_binary("/usr/local/bin/reimagined");
//! boot.put("/etc/reimagined/api-key", KEY, 0o600);
//! boot.sh("systemctl daemon-reload && systemctl enable --now reimagined");
//! boot.wait("it is up", || boot.show("reimagined", "ActiveState") == "active");
//! ```
//!
//! It needs root, a cgroup v2 hierarchy that may be written to, and Debian's `systemd`, `dbus` and
//! `libpam-systemd`. Not as on a machine of its own: limits of memory and tasks do nothing where the kernel's
//! controllers are bound to cgroup v1, and a folder that the machine has cannot be renamed (it is an overlay's).
//!
//! All of it ends when the value goes, with the thread that started it, and with the test process.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::faults::{cannot, left_out};
use super::{PATIENCE, wait_until};

/// What [`super::faults::WITHOUT`] calls this.
pub const WHAT: &str = "systemd";

/// The program that is tried, as cargo built it.
pub const BINARY: &str = env!("CARGO_BIN_EXE_reimagined");

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Prefix of the cgroups of boots; the process that made one and a number follow.
const CGROUP: &str = "reimagined-boot-";

/// How long a command inside may take. One that hangs is ended inside, too.
const COMMAND: Duration = Duration::from_secs(90);

/// Units that have nothing to do in here: what they care for is the machine's.
const MASKED: [&str; 15] = [
    "systemd-journald-audit.socket",
    "systemd-networkd.socket",
    "systemd-timesyncd.service",
    "systemd-firstboot.service",
    "systemd-sysctl.service",
    "systemd-modules-load.service",
    "modprobe@.service",
    "systemd-udevd.service",
    "console-getty.service",
    "getty@.service",
    "getty-static.service",
    "systemd-binfmt.service",
    "dev-hugepages.mount",
    "sys-fs-fuse-connections.mount",
    "proc-sys-fs-binfmt_misc.automount",
];

static BOOTS: AtomicU32 = AtomicU32::new(0);

/// A machine of namespaces.
#[derive(Debug)]
pub struct Boot {
    /// `unshare`, which waits for the first process inside.
    outer: Child,
    /// Where the first process and everything it starts are.
    cgroup: PathBuf,
    /// The first process, as it is numbered outside.
    pid: String,
    /// What was said before there was a journal.
    said: File,
}

impl Boot {
    /// Boots until systemd has no more to do. `None` where tests of this kind are left out.
    #[track_caller]
    pub fn start() -> Option<Self> {
        if left_out(WHAT) || left_out("namespaces") {
            return None;
        }
        if !rustix::process::geteuid().is_root() {
            cannot(WHAT, "only root may start one in namespaces of its own, and this is not root");
        }
        if !Path::new("/lib/systemd/systemd").exists() {
            cannot(WHAT, "there is no /lib/systemd/systemd (Debian: systemd, dbus, libpam-systemd)");
        }
        let home = own_cgroup().unwrap_or_else(|why| cannot(WHAT, &why));
        sweep(&home);
        let n = BOOTS.fetch_add(1, Ordering::Relaxed);
        let cgroup = home.join(format!("{CGROUP}{}-{n}", std::process::id()));
        fs::create_dir(&cgroup).unwrap_or_else(|e| cannot(WHAT, &format!("{}: {e}", cgroup.display())));
        let said = tempfile::tempfile().unwrap();
        // The shell goes into the cgroup, so that the namespace's root is there; what it becomes ends with us.
        let outer = bare("sh")
            .args(["-c", ENTER])
            .arg(&cgroup)
            .args([include_str!("boot.sh"), "boot.sh"])
            .args(MASKED)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(said.try_clone().unwrap())
            .stderr(said.try_clone().unwrap())
            .spawn()
            .unwrap();
        let mut boot = Self { outer, cgroup, pid: String::new(), said };
        boot.come_up(&home);
        Some(boot)
    }

    #[track_caller]
    fn come_up(&mut self, home: &Path) {
        let outer = self.outer.id();
        // In the cgroup of the first process another one, which no unit has, would keep controllers off.
        let moved = || fs::write(home.join("cgroup.procs"), outer.to_string()).is_ok();
        let first = || {
            let children = fs::read_to_string(format!("/proc/{outer}/task/{outer}/children")).ok()?;
            let pid = children.split_whitespace().next()?.to_owned();
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
            (name == "systemd\n").then_some(pid)
        };
        let mut pid = None;
        let mut ended = false;
        wait_until(PATIENCE, || {
            pid = first();
            ended = self.outer.try_wait().unwrap().is_some();
            pid.is_some() || ended
        });
        let Some(pid) = pid else { cannot(WHAT, &format!("none came up here: {}", self.all_said())) };
        self.pid = pid;
        let _ = moved();
        let mut state = String::new();
        wait_until(PATIENCE, || {
            let told = self.run("systemctl is-system-running --wait");
            String::from_utf8_lossy(&told.stdout).trim().clone_into(&mut state);
            ["running", "degraded"].contains(&state.as_str())
        });
        match state.as_str() {
            "running" => {}
            // A unit of the machine's that does not do in here is no matter of ours.
            "degraded" => eprintln!("in the boot there failed: {}", self.sh("systemctl --failed --no-legend --plain")),
            _ => cannot(WHAT, &format!("it did not finish to boot: {state:?}\n{}", self.describe())),
        }
    }

    fn all_said(&mut self) -> String {
        let mut text = String::new();
        let _ = self.said.rewind().and_then(|()| self.said.read_to_string(&mut text));
        text
    }

    /// The cgroup of all that runs inside.
    pub fn cgroup(&self) -> &Path {
        &self.cgroup
    }

    /// The number that the first process inside has outside.
    pub fn pid(&self) -> &str {
        &self.pid
    }

    /// A program inside, as root, with nothing of our environment.
    pub fn command(&self, program: &str) -> Command {
        let mut command = bare("nsenter");
        command.args(["-t", &self.pid, "-m", "-p", "-C", "-u", "-i", "--", program]).stdin(Stdio::null());
        command
    }

    /// A shell command inside, as root, to its end.
    pub fn run(&self, script: &str) -> Output {
        let limit = COMMAND.as_secs().to_string();
        let script = format!("umask 022\n{script}");
        self.command("timeout").args(["-k", "1", &limit, "sh", "-c", &script]).output().unwrap()
    }

    /// [`Self::run`], which must end well: what it printed, without the last line's end.
    #[track_caller]
    pub fn sh(&self, script: &str) -> String {
        self.well(script, &self.run(script))
    }

    /// A shell command inside as `user`, in the user's groups and home, with the user's umask. It must end well.
    #[track_caller]
    pub fn sh_as(&self, user: &str, umask: &str, script: &str) -> String {
        self.well(script, &self.run_as(user, umask, script))
    }

    /// [`Self::sh_as`], however it ends.
    pub fn run_as(&self, user: &str, umask: &str, script: &str) -> Output {
        let inner = format!("umask {umask}\n{script}");
        self.run(&format!(
            "home=$(getent passwd {user} | cut -d: -f6) && cd \"$home\" && exec env -i PATH={PATH} HOME=\"$home\" \
             USER={user} XDG_RUNTIME_DIR=/run/user/$(id -u {user}) \
             setpriv --reuid={user} --regid=$(id -g {user}) --init-groups sh -ec {}",
            quoted(&inner)
        ))
    }

    #[track_caller]
    fn well(&self, script: &str, done: &Output) -> String {
        let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        assert!(done.status.success(), "inside, {script}: {}\n{out}{err}\n{}", done.status, self.describe());
        out.trim_end_matches('\n').to_owned()
    }

    /// Writes a file inside, with the folders above it. Root's.
    #[track_caller]
    pub fn put(&self, path: &str, bytes: impl AsRef<[u8]>, mode: u32) {
        let mut install = self
            .command("install")
            .args(["-D", "-m", &format!("{mode:o}"), "/dev/stdin", path])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        install.stdin.take().unwrap().write_all(bytes.as_ref()).unwrap();
        assert!(install.wait().unwrap().success(), "{path} could not be written inside");
    }

    /// The program that is tried, at a path inside.
    #[track_caller]
    pub fn put_binary(&self, path: &str) {
        self.put(path, fs::read(BINARY).unwrap(), 0o755);
    }

    /// The bytes of a file inside; `None` if it cannot be read.
    pub fn read(&self, path: &str) -> Option<Vec<u8>> {
        let done = self.command("cat").args(["--", path]).output().unwrap();
        done.status.success().then_some(done.stdout)
    }

    /// Whether there is something of that path.
    pub fn has(&self, path: &str) -> bool {
        self.command("test").args(["-e", path]).output().unwrap().status.success()
    }

    /// A property of a unit.
    pub fn show(&self, unit: &str, property: &str) -> String {
        self.sh(&format!("systemctl show --value -p {property} {unit}"))
    }

    /// What a unit wrote, and what systemd wrote about it.
    pub fn journal(&self, unit: &str) -> String {
        let done = self.run(&format!("journalctl --sync; journalctl -o cat --no-pager -u {unit}"));
        String::from_utf8_lossy(&done.stdout).into_owned()
    }

    /// Waits for a condition; the test fails with what can be seen if it never comes.
    #[track_caller]
    pub fn wait(&self, what: &str, done: impl FnMut() -> bool) {
        assert!(wait_until(PATIENCE, done), "waited in vain: {what}\n{}", self.describe());
    }

    /// All that can be seen, for a failing test.
    pub fn describe(&self) -> String {
        let mut text = String::new();
        for script in ["systemctl list-jobs; systemctl --failed", "journalctl -b --no-pager | tail -n 200"] {
            let done = self.run(script);
            let _ = write!(text, "{}", String::from_utf8_lossy(&done.stdout));
        }
        text
    }
}

impl Drop for Boot {
    fn drop(&mut self) {
        // `unshare` ends when the first process, and so everything inside, is gone. Older kernels can't do this.
        if fs::write(self.cgroup.join("cgroup.kill"), "1").is_err() || self.pid.is_empty() {
            let _ = self.outer.kill();
        }
        let _ = self.outer.wait();
        let gone = wait_until(Duration::from_secs(10), || remove(&self.cgroup));
        assert!(gone || std::thread::panicking(), "something still runs in {}", self.cgroup.display());
    }
}

/// In the order of its arguments: the cgroup, the script, its name, the script's arguments.
const ENTER: &str = "echo $$ >\"$0/cgroup.procs\" && exec setpriv --pdeathsig KILL \
                     unshare --fork --kill-child --pid --mount --cgroup --uts --ipc bash -c \"$@\"";

/// A command without our environment.
fn bare(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", PATH).env("HOME", "/root").env("LANG", "C.UTF-8").env("TERM", "dumb");
    command
}

/// One word for a shell.
pub fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// The cgroup that this process is in, as a folder.
fn own_cgroup() -> Result<PathBuf, String> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").map_err(|e| e.to_string())?;
    let mount = mounts.lines().find(|line| line.contains(" - cgroup2 ")).and_then(|line| line.split(' ').nth(4));
    let groups = fs::read_to_string("/proc/self/cgroup").map_err(|e| e.to_string())?;
    let own = groups.lines().find_map(|line| line.strip_prefix("0::"));
    let (Some(mount), Some(own)) = (mount, own) else { return Err("there is no cgroup v2 hierarchy".to_owned()) };
    Ok(Path::new(mount).join(own.trim_start_matches('/')))
}

/// Takes away what test processes that were killed left: empty cgroups.
fn sweep(home: &Path) {
    for entry in fs::read_dir(home).into_iter().flatten().filter_map(Result::ok) {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name.strip_prefix(CGROUP).and_then(|rest| rest.split('-').next());
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            remove(&entry.path());
        }
    }
}

/// Removes a cgroup and those below it, if nothing runs in them any more; whether it is gone.
fn remove(cgroup: &Path) -> bool {
    for entry in walkdir::WalkDir::new(cgroup).contents_first(true).into_iter().filter_map(Result::ok) {
        if entry.file_type().is_dir() {
            let _ = fs::remove_dir(entry.path());
        }
    }
    !cgroup.exists()
}
