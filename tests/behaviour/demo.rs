//! `reimagined demo` through the real binary: what it makes, and what it leaves alone.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, ErrorKind};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant, SystemTime};

use rustix::process::{Pid, Signal, kill_process};

const RESULTS: [(&str, &str); 4] = [
    ("neon-night/coffee", "neon-night/coffee.jpg"),
    ("pop-art/chelsea", "pop-art/chelsea.jpg"),
    ("postcards/lake", "postcards/lake.txt"),
    ("travel-poster/rocket", "travel-poster/rocket.jpg"),
];

/// Longer than a slow machine takes; nothing waits for it on a good day.
const PATIENCE: Duration = Duration::from_secs(60);

/// A home and a folder for temporary ones, both of this test alone.
struct House {
    root: tempfile::TempDir,
}

impl House {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("home")).unwrap();
        fs::create_dir(root.path().join("tmp")).unwrap();
        Self { root }
    }

    fn home(&self) -> PathBuf {
        self.root.path().join("home")
    }

    fn tmp(&self) -> PathBuf {
        self.root.path().join("tmp")
    }

    fn demo(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_reimagined"));
        command.arg("demo").args(args).env_clear().env("HOME", self.home()).env("TMPDIR", self.tmp());
        command.current_dir(self.root.path()).stdin(Stdio::null());
        command
    }

    /// The only folder among the temporary ones.
    fn made(&self) -> PathBuf {
        let mut found = fs::read_dir(self.tmp()).unwrap().map(|entry| entry.unwrap().path());
        let made = found.next().unwrap();
        assert_eq!(found.next(), None);
        made
    }
}

fn text(output: &Output) -> String {
    format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn json(path: &Path) -> serde_json::Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// Every file below `dir`, with its bytes and the time of its last change.
fn snapshot(dir: &Path) -> BTreeMap<PathBuf, (Vec<u8>, SystemTime)> {
    let files = walkdir::WalkDir::new(dir).into_iter().map(Result::unwrap);
    let files = files.map(|entry| {
        let changed = entry.metadata().unwrap().modified().unwrap();
        let bytes = if entry.file_type().is_file() { fs::read(entry.path()).unwrap() } else { Vec::new() };
        (entry.path().to_owned(), (bytes, changed))
    });
    files.collect()
}

/// Everything that a demo promises to have made in `dir`.
fn assert_made(dir: &Path) {
    for (result, original) in RESULTS {
        let picture = fs::read(dir.join("outbox").join(format!("{result}.png"))).unwrap();
        let decoded = image::load_from_memory(&picture).unwrap();
        assert!(decoded.width() > 500 && decoded.height() > 500, "{result}");
        let kept = fs::read(dir.join("archive").join(original)).unwrap();
        assert_ne!(picture, kept);
        if let Ok(photograph) = image::load_from_memory(&kept) {
            let same_size = photograph.resize_exact(64, 64, image::imageops::FilterType::Triangle).to_rgb8();
            let made = decoded.resize_exact(64, 64, image::imageops::FilterType::Triangle).to_rgb8();
            let apart = same_size.iter().zip(made.iter()).filter(|(a, b)| a.abs_diff(**b) > 32).count();
            assert!(apart > 64 * 64 * 3 / 10, "{result} looks like what it was made from");
        }
        let provenance = json(&dir.join("outbox").join(format!("{result}.reimagined.json")));
        assert_eq!(provenance["cost"], 0.0, "{result}");
        let seed = &provenance["request"]["seed"];
        assert!(seed.is_i64() && *seed == provenance["seed"], "{result}: {seed}");
        assert_eq!(provenance["result_blake3"], blake3::hash(&picture).to_string());
        assert_eq!(provenance["inputs"][0]["blake3"], blake3::hash(&kept).to_string());
        assert!(!dir.join("inbox").join(original).try_exists().unwrap(), "{original} is still in the inbox");
    }
    assert_eq!(fs::read_dir(dir.join("errors")).unwrap().count(), 0);
}

#[test]
fn it_makes_four_pictures_says_where_they_are_and_touches_nothing_else() {
    let house = House::new();
    let done = house.demo(&[]).output().unwrap();
    assert_eq!(done.status.code(), Some(0), "{}", text(&done));
    let dir = house.made();
    assert!(dir.file_name().unwrap().to_str().unwrap().starts_with("reimagined-demo-"));
    assert_made(&dir);

    let told = String::from_utf8(done.stdout.clone()).unwrap();
    for (result, _) in RESULTS {
        assert!(told.contains(dir.join("outbox").join(format!("{result}.png")).to_str().unwrap()), "{told}");
    }
    for words in ["$0.00", "sandbox", "archive", ".reimagined.json", "coffee.jpg", "lake.txt"] {
        assert!(told.contains(words), "{words} is missing: {told}");
    }
    assert!(!told.contains('\u{1b}'), "no colours without a terminal: {told:?}");
    let log = String::from_utf8(done.stderr).unwrap();
    assert!(log.contains("delivered drop=neon-night/coffee.jpg"), "the daemon's own log is shown: {log}");

    assert_eq!(fs::read_dir(house.home()).unwrap().count(), 0);
    assert_eq!(fs::metadata(dir.join("api-key")).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_users_configuration_key_and_proxy_are_left_alone() {
    let house = House::new();
    let config = house.home().join(".config/reimagined/config.toml");
    let real = house.home().join("reimagine");
    fs::create_dir_all(config.parent().unwrap()).unwrap();
    fs::write(&config, "[preset]\nprompt = \"mine\"\n").unwrap();
    for folder in ["inbox", "outbox", "archive", "errors"] {
        fs::create_dir_all(real.join(folder)).unwrap();
    }
    fs::write(real.join("inbox/mine.jpg"), include_bytes!("../fixtures/rocket.jpg")).unwrap();
    let before = snapshot(&house.home());

    let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
    proxy.set_nonblocking(true).unwrap();
    let address = format!("http://{}", proxy.local_addr().unwrap());
    let dir = house.root.path().join("a demo's");
    let mut command = house.demo(&["--dir", dir.to_str().unwrap()]);
    for name in ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"] {
        command.env(name, &address);
    }
    let nowhere = house.root.path().join("nowhere");
    command.env("SSL_CERT_FILE", &nowhere).env("SSL_CERT_DIR", &nowhere);
    command.env("REIMAGINED_CONFIG", &config).env("SEGMIND_API_KEY", "a-real-key-of-mine");
    command.env("STATE_DIRECTORY", house.home().join("state"));
    let done = command.output().unwrap();

    assert_eq!(done.status.code(), Some(0), "{}", text(&done));
    assert_made(&dir);
    assert!(snapshot(&house.home()) == before, "the user's files were touched");
    assert_eq!(fs::read_dir(house.tmp()).unwrap().count(), 0, "it ran in --dir and nowhere else");
    assert_eq!(proxy.accept().unwrap_err().kind(), ErrorKind::WouldBlock, "the proxy was asked");
    let key = b"a-real-key-of-mine";
    for (path, (bytes, _)) in snapshot(&dir) {
        assert!(!bytes.windows(key.len()).any(|window| window == key), "{} holds the key", path.display());
    }
}

#[test]
fn a_second_run_in_its_folder_adds_to_it_and_a_folder_of_somebody_elses_is_refused() {
    let house = House::new();
    let dir = house.root.path().join("demo");
    let args = ["--dir", dir.to_str().unwrap()];
    for _ in 0..2 {
        let done = house.demo(&args).output().unwrap();
        assert_eq!(done.status.code(), Some(0), "{}", text(&done));
        assert!(text(&done).contains("4 pictures"), "{}", text(&done));
    }
    assert_made(&dir);
    assert!(dir.join("outbox/pop-art/chelsea (2).png").is_file());

    let mine = house.root.path().join("mine");
    fs::create_dir(&mine).unwrap();
    fs::write(mine.join("diary.txt"), "dear diary").unwrap();
    let refused = house.demo(&["--dir", mine.to_str().unwrap()]).output().unwrap();
    assert_eq!(refused.status.code(), Some(2), "{}", text(&refused));
    assert_eq!(fs::read_dir(&mine).unwrap().count(), 1);
    let refused = house.demo(&["--config", "config.toml"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(2), "{}", text(&refused));
}

/// Ends its child when a test fails.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn with_keep_it_takes_pictures_of_ones_own_until_it_is_told_to_stop() {
    let house = House::new();
    let dir = house.root.path().join("demo");
    let mut command = house.demo(&["--keep", "--open", "--dir", dir.to_str().unwrap()]);
    // No PATH, so that there is no viewer: that is a line and no failure.
    let mut running = Running(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
    let mut told = BufReader::new(running.0.stdout.take().unwrap()).lines();
    let mut log = BufReader::new(running.0.stderr.take().unwrap());
    let log = std::thread::spawn(move || {
        let mut text = String::new();
        std::io::Read::read_to_string(&mut log, &mut text).map(|_| text)
    });
    assert!(told.any(|line| line.unwrap().contains("The daemon stays up")));
    assert_made(&dir);

    let refused = house.demo(&["--dir", dir.to_str().unwrap()]);
    wait_until("a second demo is refused while the first has its folder", || {
        // Between its two runs the daemon holds no lock; the status file says when the second has begun.
        json(&dir.join("state/status.json"))["state"] == "running"
    });
    assert_eq!({ refused }.output().unwrap().status.code(), Some(5));

    fs::write(dir.join("inbox/.mine"), include_bytes!("../fixtures/chelsea.png")).unwrap();
    fs::rename(dir.join("inbox/.mine"), dir.join("inbox/mine.png")).unwrap();
    let result = dir.join("outbox/mine.png");
    wait_until("a picture of one's own is made", || result.is_file());
    assert!(image::open(&result).is_ok());

    kill_process(Pid::from_child(&running.0), Signal::TERM).unwrap();
    let mut ended = None;
    wait_until("it ends when it is told to", || {
        ended = running.0.try_wait().unwrap();
        ended.is_some()
    });
    let log = log.join().unwrap().unwrap();
    assert_eq!(ended.unwrap().code(), Some(0), "{log}");
    assert!(log.contains("the folder was not opened: xdg-open"), "{log}");
    assert!(dir.join("archive/mine.png").is_file(), "{log}");
}
