//! Runs a program under `ptrace`, sees each system call with an effect on the site's files or on a socket, and
//! kills the whole program at the one that is asked for: before it is carried out, or right after.
//!
//! The product is not changed for it: no fault points are compiled in. Only one thread is held at a time, as
//! in life.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::support::PATIENCE;
use std::collections::HashMap;

/// When the program is killed: at which step (from 1), and on which side of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At {
    /// The number of the step.
    pub step: usize,
    /// The step is not carried out any more.
    pub before: bool,
}

/// How a traced run ended.
#[derive(Debug)]
pub struct Run {
    /// How many steps were begun.
    pub steps: usize,
    /// The step at which it was killed, in words.
    pub killed: Option<String>,
    /// All of them in words, in order.
    pub log: Vec<String>,
}

/// What a step does to names and files, for whoever keeps a model of the disk.
#[derive(Clone, Debug)]
pub enum Effect {
    /// A file or directory may come to be there.
    Create(PathBuf),
    /// A name goes.
    Remove(PathBuf),
    /// A name moves.
    Rename(PathBuf, PathBuf),
    /// A second name for a file.
    Link(PathBuf, PathBuf),
    /// A file's bytes, or a directory's names, are made durable.
    Sync(PathBuf),
    /// Bytes, modes, times, sockets.
    Other,
}

/// Sees each step before it begins and after it succeeded.
pub trait Watcher {
    /// It is about to be carried out.
    fn before(&mut self, _effect: &Effect) {}
    /// It was carried out, and succeeded.
    fn after(&mut self, _effect: &Effect) {}
}

/// Sees nothing.
impl Watcher for () {}

/// A step, at its entry.
struct Step {
    words: String,
    effect: Effect,
}

/// `command`, held before its first instruction until it is traced, then run to its end or to its death at `at`.
/// `roots`: the folders in which files count.
pub fn run(command: &Command, log: &Path, roots: &[PathBuf], at: Option<At>, watcher: &mut dyn Watcher) -> Run {
    let main = held(command, log);
    let stopped = waitpid(main, Some(WaitPidFlag::WUNTRACED)).unwrap();
    assert!(matches!(stopped, WaitStatus::Stopped(_, Signal::SIGSTOP)), "{stopped:?}");
    let options = Options::PTRACE_O_TRACESYSGOOD
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEEXEC
        | Options::PTRACE_O_EXITKILL;
    ptrace::seize(main, options).unwrap();
    kill(main, Signal::SIGCONT).unwrap();
    let mut trace =
        Trace { main, roots, at, watcher, begun: false, open: HashMap::new(), steps: 0, killed: None, log: Vec::new() };
    // A program that hangs is ended, so that whoever counts can say what it left.
    let (done, ended) = std::sync::mpsc::channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            if ended.recv_timeout(PATIENCE * 3) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                let _ = kill(main, Signal::SIGKILL);
            }
        });
        trace.follow();
        drop(done);
    });
    Run { steps: trace.steps, killed: trace.killed, log: trace.log }
}

/// A shell that stops itself and then becomes `command`, with nothing in its environment but the command's own.
#[expect(clippy::zombie_processes, reason = "it is waited for by its number")]
fn held(command: &Command, log: &Path) -> Pid {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", "kill -STOP $$; exec \"$0\" \"$@\""]).arg(command.get_program()).args(command.get_args());
    shell.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    if let Some(dir) = command.get_current_dir() {
        shell.current_dir(dir);
    }
    let child = shell.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(log).unwrap()).spawn().unwrap();
    Pid::from_raw(i32::try_from(child.id()).unwrap())
}

struct Trace<'a> {
    main: Pid,
    roots: &'a [PathBuf],
    at: Option<At>,
    watcher: &'a mut dyn Watcher,
    /// The program itself runs, no longer the shell.
    begun: bool,
    /// Threads inside a system call, with the step that it is, if it is one.
    open: HashMap<Pid, Option<Step>>,
    steps: usize,
    killed: Option<String>,
    log: Vec<String>,
}

impl Trace<'_> {
    /// Lets it run until it ends.
    fn follow(&mut self) {
        loop {
            // Of this thread's children alone: other tests have theirs.
            let flags = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
            let (pid, signal) = match waitpid(None, Some(flags)) {
                Ok(WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..)) if pid == self.main => return,
                Ok(WaitStatus::PtraceSyscall(pid)) => {
                    self.at_syscall(pid);
                    (pid, None)
                }
                Ok(WaitStatus::PtraceEvent(pid, _, event)) => {
                    if event == libc::PTRACE_EVENT_EXEC {
                        self.begun = true;
                        self.open.clear();
                    }
                    (pid, None)
                }
                Ok(WaitStatus::Stopped(pid, signal)) => (pid, Some(signal)),
                Ok(_) | Err(Errno::EINTR | Errno::EINVAL) => continue,
                Err(error) => panic!("waitpid: {error}"),
            };
            // It may be dead already.
            match ptrace::syscall(pid, signal) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(error) => panic!("ptrace: {error}"),
            }
        }
    }

    fn at_syscall(&mut self, pid: Pid) {
        if !self.begun || self.killed.is_some() {
            return;
        }
        let Ok(info) = ptrace::syscall_info(pid) else { return };
        if info.op != libc::PTRACE_SYSCALL_INFO_ENTRY {
            if let Some(Some(step)) = self.open.remove(&pid) {
                self.leave(pid, &step);
            }
            return;
        }
        let Ok(regs) = ptrace::getregs(pid) else { return };
        let args = [regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9];
        let step = Look { pid, roots: self.roots }.step(regs.orig_rax.cast_signed(), args);
        if let Some(step) = &step {
            self.steps += 1;
            self.log.push(step.words.clone());
            self.watcher.before(&step.effect);
            self.die_at(true, &step.words);
        }
        self.open.insert(pid, step);
    }

    fn leave(&mut self, pid: Pid, step: &Step) {
        let Ok(regs) = ptrace::getregs(pid) else { return };
        if regs.rax.cast_signed() >= 0 {
            self.watcher.after(&step.effect);
        }
        // Of several threads' steps the one that began last is not always the one that ends.
        if self.log.last() == Some(&step.words) {
            self.die_at(false, &step.words);
        }
    }

    fn die_at(&mut self, before: bool, words: &str) {
        let now = At { step: self.steps, before };
        if self.at == Some(now) {
            kill(self.main, Signal::SIGKILL).unwrap();
            self.killed = Some(format!("{} step {}: {words}", if before { "before" } else { "after" }, self.steps));
        }
    }
}

/// What a thread in a system call is about to do.
struct Look<'a> {
    pid: Pid,
    roots: &'a [PathBuf],
}

impl Look<'_> {
    /// The step that this system call is; `None` if it changes nothing that counts.
    fn step(&self, number: i64, args: [u64; 6]) -> Option<Step> {
        let cwd = libc::AT_FDCWD as u64;
        let made = |words: &str, path: PathBuf| (format!("{words} {}", path.display()), Effect::Create(path));
        let gone = |words: &str, path: PathBuf| (format!("{words} {}", path.display()), Effect::Remove(path));
        let (words, effect) = match number {
            libc::SYS_openat if args[2] & libc::O_CREAT as u64 != 0 => made("create", self.path(args[0], args[1])?),
            libc::SYS_open if args[1] & libc::O_CREAT as u64 != 0 => made("create", self.path(cwd, args[0])?),
            libc::SYS_mkdirat => made("mkdir", self.path(args[0], args[1])?),
            libc::SYS_mkdir => made("mkdir", self.path(cwd, args[0])?),
            libc::SYS_unlinkat => gone("unlink", self.path(args[0], args[1])?),
            libc::SYS_unlink => gone("unlink", self.path(cwd, args[0])?),
            libc::SYS_rmdir => gone("rmdir", self.path(cwd, args[0])?),
            libc::SYS_rename => self.rename((cwd, args[0]), (cwd, args[1]))?,
            libc::SYS_renameat => self.rename((args[0], args[1]), (args[2], args[3]))?,
            libc::SYS_renameat2 => {
                assert_eq!(args[4] & u64::from(libc::RENAME_EXCHANGE), 0, "the model of the disk knows no exchange");
                self.rename((args[0], args[1]), (args[2], args[3]))?
            }
            libc::SYS_link | libc::SYS_linkat => {
                let at = if number == libc::SYS_link {
                    [cwd, args[0], cwd, args[1]]
                } else {
                    [args[0], args[1], args[2], args[3]]
                };
                let (old, new) = (self.path(at[0], at[1])?, self.path(at[2], at[3])?);
                (format!("link {} {}", old.display(), new.display()), Effect::Link(old, new))
            }
            libc::SYS_fsync | libc::SYS_fdatasync => {
                let path = self.file(args[0])?;
                (format!("sync {}", path.display()), Effect::Sync(path))
            }
            libc::SYS_symlink
            | libc::SYS_symlinkat
            | libc::SYS_open_by_handle_at
            | libc::SYS_sync
            | libc::SYS_syncfs => {
                panic!("the model of the disk does not know system call {number}")
            }
            _ => (format!("{} {}", self.other(number, args)?.0, self.other(number, args)?.1.display()), Effect::Other),
        };
        Some(Step { words, effect })
    }

    fn rename(&self, from: (u64, u64), to: (u64, u64)) -> Option<(String, Effect)> {
        let (from, to) = (self.path(from.0, from.1)?, self.path(to.0, to.1)?);
        Some((format!("rename {} {}", from.display(), to.display()), Effect::Rename(from, to)))
    }

    /// Bytes, modes and times of files, and what goes to sockets.
    fn other(&self, number: i64, args: [u64; 6]) -> Option<(&'static str, PathBuf)> {
        let (words, fd) = match number {
            libc::SYS_write | libc::SYS_pwrite64 | libc::SYS_writev | libc::SYS_pwritev | libc::SYS_pwritev2 => {
                ("write", args[0])
            }
            libc::SYS_sendto | libc::SYS_sendmsg => ("send", args[0]),
            libc::SYS_connect => ("connect", args[0]),
            libc::SYS_ftruncate => ("truncate", args[0]),
            libc::SYS_fallocate => ("allocate", args[0]),
            libc::SYS_fchmod => ("chmod", args[0]),
            libc::SYS_fchown => ("chown", args[0]),
            libc::SYS_fsetxattr => ("setxattr", args[0]),
            libc::SYS_utimensat => ("utimens", args[0]),
            libc::SYS_copy_file_range => ("copy", args[2]),
            libc::SYS_sendfile => ("copy", args[0]),
            _ => return None,
        };
        let path = if ["send", "connect", "write"].contains(&words) {
            self.socket(fd).or_else(|| self.file(fd))
        } else {
            self.file(fd)
        };
        Some((words, path?))
    }

    fn link(&self, what: &str) -> Option<PathBuf> {
        fs::read_link(format!("/proc/{}/{what}", self.pid)).ok()
    }

    fn socket(&self, fd: u64) -> Option<PathBuf> {
        let path = self.link(&format!("fd/{fd}"))?;
        path.as_os_str().as_bytes().starts_with(b"socket:").then(|| PathBuf::from("socket"))
    }

    /// The file of a descriptor, if it counts.
    fn file(&self, fd: u64) -> Option<PathBuf> {
        let path = self.link(&format!("fd/{}", fd.cast_signed() as i32))?;
        self.counts(path)
    }

    /// The path of a name that stands at `address`, seen from the directory `dir`, if it counts.
    fn path(&self, dir: u64, address: u64) -> Option<PathBuf> {
        let mut text = Vec::new();
        let memory = File::open(format!("/proc/{}/mem", self.pid)).ok()?;
        let mut chunk = [0; 64];
        while !text.contains(&0) && text.len() < 4096 {
            let n = memory.read_at(&mut chunk, address + text.len() as u64).ok()?;
            text.extend(&chunk[..n]);
        }
        let end = text.iter().position(|b| *b == 0)?;
        let name = Path::new(OsStr::from_bytes(&text[..end]));
        let dir = dir as i32;
        let base = if name.is_absolute() {
            PathBuf::new()
        } else if dir == libc::AT_FDCWD {
            self.link("cwd")?
        } else {
            self.link(&format!("fd/{dir}"))?
        };
        self.counts(base.join(name))
    }

    /// What lies elsewhere does not count, and neither does the ledger's index, which is shared memory.
    fn counts(&self, path: PathBuf) -> Option<PathBuf> {
        let inside = self.roots.iter().any(|root| path.starts_with(root));
        (inside && path.extension() != Some(OsStr::new("db-shm"))).then_some(path)
    }
}
