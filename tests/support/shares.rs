//! A folder that is shared: one side is the other machine's disk, the other is this one's mount, and in between
//! stands a server that can be slow, silent or dead. What the other side does makes no event on the mount.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::mount::UnmountFlags;
use rustix::process::{Pid, Signal, kill_process};

use super::{PATIENCE, wait_until};

/// Where `sftp-server` may be.
const SFTP_SERVERS: [&str; 3] =
    ["/usr/lib/openssh/sftp-server", "/usr/lib/ssh/sftp-server", "/usr/libexec/openssh/sftp-server"];

/// What [`Sshfs`] needs and this machine lacks.
pub fn sshfs_lacks() -> Option<String> {
    if let Err(e) = fs::OpenOptions::new().read(true).write(true).open("/dev/fuse") {
        return Some(format!("/dev/fuse: {e}"));
    }
    if Command::new("sshfs").arg("--version").output().is_err() {
        return Some("no sshfs (Debian: sshfs)".into());
    }
    sftp_server().is_none().then(|| "no sftp-server (Debian: openssh-sftp-server)".into())
}

fn sftp_server() -> Option<&'static str> {
    SFTP_SERVERS.into_iter().find(|path| Path::new(path).exists())
}

/// A directory that is mounted by `sshfs`, which speaks to `sftp-server` as over a network, without `ssh` and
/// without a network. To be used in mount and process namespaces of its own: nothing of it outlives them.
pub struct Sshfs {
    /// What the other machine has.
    pub there: PathBuf,
    /// Where it is mounted.
    pub here: PathBuf,
    options: String,
    pid_file: PathBuf,
    client: Child,
}

impl Sshfs {
    /// Shares `there`, and mounts it at `here` with these options of sshfs.
    pub fn mount(there: PathBuf, here: PathBuf, options: &str) -> Self {
        use std::os::unix::fs::PermissionsExt as _;
        fs::create_dir_all(&there).unwrap();
        fs::create_dir_all(&here).unwrap();
        // It stands where sshfs expects ssh, and passes its arguments over.
        let (connect, pid_file) = (here.with_extension("connect"), here.with_extension("pid"));
        let server = sftp_server().unwrap();
        let script =
            format!("#!/bin/sh\necho $$ >{pid}.new && mv {pid}.new {pid}\nexec {server}\n", pid = pid_file.display());
        fs::write(&connect, script).unwrap();
        fs::set_permissions(&connect, fs::Permissions::from_mode(0o755)).unwrap();
        let options = format!("ssh_command={},{options}", connect.display());
        let client = client(&there, &here, &options);
        let mut this = Self { there, here, options, pid_file, client };
        this.wait_mounted();
        this
    }

    fn wait_mounted(&mut self) {
        let marker = self.there.join(".mounted");
        fs::write(&marker, "").unwrap();
        let up =
            wait_until(PATIENCE, || self.here.join(".mounted").exists() || self.client.try_wait().unwrap().is_some());
        let ended = self.client.try_wait().unwrap();
        assert!(up && ended.is_none(), "sshfs did not mount {}: {ended:?}", self.here.display());
        fs::remove_file(marker).unwrap();
    }

    fn server(&self) -> Pid {
        let pid = fs::read_to_string(&self.pid_file).unwrap();
        Pid::from_raw(pid.trim().parse().unwrap()).unwrap()
    }

    /// The server says nothing more: whoever asks it waits.
    pub fn stall(&self) {
        kill_process(self.server(), Signal::STOP).unwrap();
    }

    /// It answers again, those who waited too.
    pub fn resume(&self) {
        kill_process(self.server(), Signal::CONT).unwrap();
    }

    /// The server dies; nothing is mounted any more.
    pub fn lose_server(&mut self) {
        kill_process(self.server(), Signal::KILL).unwrap();
        self.client.wait().unwrap();
    }

    /// The mount breaks: it stays, and each call to it fails.
    pub fn break_mount(&mut self) {
        self.client.kill().unwrap();
        self.client.wait().unwrap();
    }

    /// A broken mount is taken away, although it is in use.
    pub fn unmount(&mut self) {
        rustix::mount::unmount(&self.here, UnmountFlags::DETACH).unwrap();
    }

    /// Mounts it anew.
    pub fn mount_again(&mut self) {
        self.client = client(&self.there, &self.here, &self.options);
        self.wait_mounted();
    }
}

fn client(there: &Path, here: &Path, options: &str) -> Child {
    let mut command = Command::new("sshfs");
    command.args(["-f", "-o", options]);
    command.arg(format!("elsewhere:{}", there.display())).arg(here);
    command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap()
}

/// What [`Smbd`] needs and this machine lacks.
pub fn samba_lacks() -> Option<String> {
    let lacks = |program: &str| Command::new(program).arg("--version").output().is_err();
    [("smbd", "samba"), ("smbclient", "smbclient")]
        .into_iter()
        .find(|(program, _)| lacks(program))
        .map(|(program, package)| format!("no {program} (Debian: {package})"))
}

/// A folder that `smbd` shares for others to drop into. To be used in a network and processes of its own.
pub struct Smbd {
    config: PathBuf,
    server: Child,
}

impl Smbd {
    /// Nobody else is on that loopback.
    const PORT: u16 = 4450;

    /// Shares `folder`; what the server needs for itself goes into `own`.
    pub fn share(folder: &Path, own: &Path) -> Self {
        fs::create_dir_all(own).unwrap();
        let dirs =
            ["private dir", "lock directory", "state directory", "cache directory", "pid directory", "ncalrpc dir"];
        let dirs = dirs.map(|key| format!("{key} = {}\n", own.display())).concat();
        let config = own.join("smb.conf");
        let text = format!(
            "[global]\nserver role = standalone server\ninterfaces = lo\nbind interfaces only = yes\nsmb ports = {}\n\
             disable netbios = yes\nload printers = no\ndisable spoolss = yes\nmap to guest = Bad User\n\
             guest account = root\nlog file = {}\n{dirs}\
             [drop]\npath = {}\nguest ok = yes\nread only = no\n",
            Self::PORT,
            own.join("log").display(),
            folder.display()
        );
        fs::write(&config, text).unwrap();
        let log = fs::File::create(own.join("said")).unwrap();
        let mut command = Command::new("smbd");
        command.args(["-F", "--no-process-group", "-s"]).arg(&config);
        let server = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let mut this = Self { config, server };
        let up =
            wait_until(PATIENCE, || this.client("ls").status.success() || this.server.try_wait().unwrap().is_some());
        let said = || {
            fs::read_to_string(own.join("said")).unwrap_or_default()
                + &fs::read_to_string(own.join("log")).unwrap_or_default()
        };
        assert!(up && this.server.try_wait().unwrap().is_none(), "smbd: {}", said());
        this
    }

    fn client(&self, commands: &str) -> std::process::Output {
        self.begins(commands).wait_with_output().unwrap()
    }

    /// Lets a client begin with something.
    pub fn begins(&self, commands: &str) -> Child {
        let mut command = Command::new("smbclient");
        command.args(["//127.0.0.1/drop", "-N", "-p", &Self::PORT.to_string(), "-c", commands, "-s"]).arg(&self.config);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// Lets a client do something: `put a.jpg b.jpg`.
    pub fn does(&self, commands: &str) {
        let done = self.client(commands);
        assert!(done.status.success(), "{commands}: {}", String::from_utf8_lossy(&done.stdout));
    }
}

impl Drop for Smbd {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
