//! Who takes part, and how each is started.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};

use super::measure::wait;
use super::place::Place;

/// One who does the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rival {
    /// The bare job.
    Floor,
    /// The bare job with kept connections.
    FloorKept,
    /// The daemon.
    Reimagined,
    /// inotifywait, xargs and curl.
    Curl,
    /// Python: watchdog and requests.
    Python,
}

/// What all have in common.
#[derive(Clone, Copy)]
pub struct Job<'a> {
    pub port: u16,
    pub in_flight: usize,
    pub upload: bool,
    pub binary: &'a Path,
    pub python: &'a Path,
    pub log: Option<&'a Path>,
}

/// A running one, killed when dropped.
pub struct Running {
    child: Child,
}

impl Rival {
    pub fn name(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::FloorKept => "floor, connections kept",
            Self::Reimagined => "reimagined",
            Self::Curl => "inotifywait | xargs -P curl",
            Self::Python => "Python watchdog + requests",
        }
    }

    /// Why it cannot take part here; `None` if it can.
    pub fn absent(self, job: &Job<'_>) -> Option<String> {
        let runs = |program: &Path, args: &[&str]| {
            let done = Command::new(program).args(args).stdout(Stdio::null()).stderr(Stdio::null()).status();
            done.is_ok_and(|s| s.code().is_some_and(|code| code < 2))
        };
        match self {
            Self::Curl => {
                let there = runs("inotifywait".as_ref(), &["--help"]) && runs("curl".as_ref(), &["--version"]);
                (!there).then(|| "inotify-tools or curl is not installed".into())
            }
            Self::Python => {
                let there = Command::new(job.python)
                    .args(["-c", "import watchdog, requests"])
                    .stderr(Stdio::null())
                    .status()
                    .is_ok_and(|s| s.success());
                (!there).then(|| "Python has no watchdog or requests".into())
            }
            _ => None,
        }
    }

    /// Starts it, and waits until it watches.
    pub fn start(self, place: &Place, job: &Job<'_>) -> Running {
        match self {
            Self::Floor | Self::FloorKept => {
                let mut command = Command::new(std::env::current_exe().unwrap());
                command.arg("floor").arg("--root").arg(place.path(""));
                command.args(["--port", &job.port.to_string(), "--in-flight", &job.in_flight.to_string()]);
                if job.upload {
                    command.arg("--upload");
                }
                if self == Self::FloorKept {
                    command.arg("--keep");
                }
                spoken(command, "ready", false)
            }
            Self::Reimagined => {
                place.configure(job.port, job.in_flight, !job.upload);
                let running = daemon(place, job);
                wait_for_daemon(place, running.pid());
                running
            }
            Self::Curl => {
                let mut command = Command::new("bash");
                command.args(["-c", CURL, "bench"]).arg(place.path(""));
                command.args([job.port.to_string(), job.in_flight.to_string()]);
                spoken(command, "Watches established", true)
            }
            Self::Python => {
                let mut command = Command::new(job.python);
                command.args(["-c", PYTHON]).arg(place.path(""));
                command.args([job.port.to_string(), job.in_flight.to_string(), u8::from(job.upload).to_string()]);
                spoken(command, "ready", false)
            }
        }
    }
}

/// The daemon, started and not waited for.
pub fn daemon(place: &Place, job: &Job<'_>) -> Running {
    let log = job.log.map_or_else(|| place.path("daemon.log"), Path::to_path_buf);
    let mut command = Command::new(job.binary);
    command
        .env_clear()
        .env("HOME", place.path(""))
        .env("SEGMIND_API_KEY", "k")
        .env("TZ", "UTC")
        .envs(std::env::vars_os().filter(|(name, _)| name == "REIMAGINED_LOG" || name == "LD_PRELOAD"))
        .current_dir(place.path(""))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(log).unwrap())
        .arg("--config")
        .arg(place.path("config.toml"))
        .arg("run")
        .process_group(0);
    Running { child: command.spawn().unwrap() }
}

/// Waits until the daemon says in its status that it watches.
pub fn wait_for_daemon(place: &Place, pid: u32) {
    let status = place.path("state/status.json");
    let wanted = format!("\"pid\":{pid}");
    wait("the daemon is up", Duration::from_millis(20), || {
        std::fs::read_to_string(&status).is_ok_and(|text| text.replace(' ', "").contains(&wanted))
    });
}

impl Running {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGTERM, and waits for its end.
    pub fn stop(mut self) {
        if let Some(pid) = Pid::from_raw(self.pid().cast_signed()) {
            let _ = rustix::process::kill_process(pid, Signal::TERM);
        }
        let _ = self.child.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(pid) = Pid::from_raw(self.pid().cast_signed())
            && test_kill_process_group(pid).is_ok()
        {
            let _ = kill_process_group(pid, Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

/// Starts what says on a line that it is ready.
fn spoken(mut command: Command, word: &str, on_stderr: bool) -> Running {
    command.stdin(Stdio::null()).process_group(0);
    if on_stderr {
        command.stdout(Stdio::null()).stderr(Stdio::piped());
    } else {
        command.stdout(Stdio::piped());
    }
    let mut child = command.spawn().unwrap();
    let out: Box<dyn std::io::Read + Send> = match (child.stdout.take(), child.stderr.take()) {
        (_, Some(err)) => Box::new(err),
        (Some(out), None) => Box::new(out),
        (None, None) => unreachable!("one of them is piped"),
    };
    let mut lines = BufReader::new(out);
    let mut line = String::new();
    while !line.contains(word) {
        line.clear();
        assert!(lines.read_line(&mut line).unwrap() > 0, "{command:?} ended");
    }
    // Whatever else it says is read, so that it never waits for us.
    std::thread::spawn(move || std::io::copy(&mut lines.by_ref(), &mut std::io::sink()));
    Running { child }
}

const CURL: &str = r#"
cd "$1"
export URL="http://127.0.0.1:$2/v1/bria-reimagine"
inotifywait -m -e moved_to --format %f inbox | xargs -P "$3" -I{} sh -c '
    curl -sf -o "outbox/.{}" -H "x-api-key: k" -H "content-type: application/json" \
        -d "{\"prompt\":\"a look\",\"structure_image_url\":\"http://127.0.0.1:1/{}\"}" "$URL" &&
    sync "outbox/.{}" && mv "outbox/.{}" "outbox/{}" && sync outbox && mv "inbox/{}" "archive/{}"'
"#;

const PYTHON: &str = r#"
import base64, os, sys, threading
from concurrent.futures import ThreadPoolExecutor
import requests
from watchdog.observers import Observer
from watchdog.events import FileSystemEventHandler
root, port, workers, upload = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4] == "1"
base = f"http://127.0.0.1:{port}"
pool, local = ThreadPoolExecutor(workers), threading.local()
outbox = os.open(f"{root}/outbox", os.O_RDONLY)
def work(name):
    if not hasattr(local, "session"):
        local.session = requests.Session()
    url = f"http://127.0.0.1:1/{name}"
    if upload:
        with open(f"{root}/inbox/{name}", "rb") as f:
            data = "data:image/jpeg;base64," + base64.b64encode(f.read()).decode()
        url = local.session.post(base + "/upload-asset", json={"data_urls": [data]}).json()["file_urls"][0]
    body = {"prompt": "a look", "structure_image_url": url}
    answer = local.session.post(base + "/v1/bria-reimagine", json=body, headers={"x-api-key": "k"})
    answer.raise_for_status()
    with open(f"{root}/outbox/.{name}", "wb") as f:
        f.write(answer.content)
        f.flush()
        os.fsync(f.fileno())
    os.rename(f"{root}/outbox/.{name}", f"{root}/outbox/{name}")
    os.fsync(outbox)
    os.rename(f"{root}/inbox/{name}", f"{root}/archive/{name}")
class Handler(FileSystemEventHandler):
    def take(self, path):
        pool.submit(work, os.path.basename(path))
    def on_moved(self, event):
        self.take(event.dest_path)
    def on_created(self, event):
        self.take(event.src_path)
observer = Observer()
observer.schedule(Handler(), f"{root}/inbox")
observer.start()
print("ready", flush=True)
observer.join()
"#;
