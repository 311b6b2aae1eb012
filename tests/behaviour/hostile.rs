//! People who can write into the folders must not get to read what the daemon can read, nor write where it
//! can write, nor stop it: races, links, names and files that were made to do harm.

#![allow(clippy::unwrap_used, reason = "tests say so by failing")]

use crate::support;

use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use support::api::UPLOAD;
use support::{Answer, Gate, Site, bombs, pictures};

/// What stands in every secret.
const SECRET: &str = "TOP-SECRET-0815";

/// A thread that exchanges what stands under two names, as fast as it can, until it goes; in the end both
/// stand as they did.
struct Swapper {
    stop: Arc<AtomicBool>,
    swaps: Arc<AtomicU64>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Swapper {
    /// Of each pair, as far as both are there.
    fn start(pairs: Vec<(PathBuf, PathBuf)>) -> Self {
        let (stop, swaps) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, count) = (stop.clone(), swaps.clone());
        let thread = std::thread::spawn(move || {
            let swap = |a: &Path, b: &Path| renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE).is_ok();
            while !stopped.load(Ordering::SeqCst) {
                for (a, b) in &pairs {
                    if swap(a, b) {
                        count.fetch_add(1, Ordering::SeqCst);
                        std::thread::yield_now();
                        // Back, wherever it lies by now; what was taken meanwhile is for the test to know.
                        while !swap(a, b) && fs::symlink_metadata(a).is_ok() && fs::symlink_metadata(b).is_ok() {}
                    }
                }
            }
        });
        Self { stop, swaps, thread: Some(thread) }
    }

    fn count(&self) -> u64 {
        self.swaps.load(Ordering::SeqCst)
    }

    fn stop(mut self) -> u64 {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.take().unwrap().join().unwrap();
        self.count()
    }
}

/// A folder outside all of the daemon's, with secrets of every kind, and what it looked like.
struct Outside {
    root: PathBuf,
    before: Vec<(PathBuf, u64, Vec<u8>)>,
}

impl Outside {
    fn new(site: &Site) -> Self {
        site.put("outside/a.jpg", secret_picture());
        site.put("outside/a.txt", SECRET);
        site.put("outside/preset.toml", format!("prompt = \"{SECRET}\"\n"));
        site.put("outside/deep/a.jpg", secret_picture());
        let root = site.path("outside");
        Self { before: Self::look(&root), root }
    }

    fn look(root: &Path) -> Vec<(PathBuf, u64, Vec<u8>)> {
        let mut all: Vec<_> = walkdir::WalkDir::new(root)
            .into_iter()
            .map(Result::unwrap)
            .filter(|e| e.file_type().is_file())
            .map(|e| (e.path().to_path_buf(), e.metadata().unwrap().ino(), fs::read(e.path()).unwrap()))
            .collect();
        all.sort();
        all
    }

    /// Nothing was taken, changed or added there, and nothing of it was sent or told of. This may be asked while folders
    /// of the service's own are being swapped.
    #[track_caller]
    fn is_unread(&self, site: &Site) {
        assert!(Self::look(&self.root) == self.before, "something was done outside\n{}", site.describe());
        for request in site.api.requests() {
            assert!(!holds(&request.body, SECRET), "a secret was sent: {}", request.path);
        }
        for (kind, bytes) in site.api.uploads() {
            let picture = image::load_from_memory(&bytes).unwrap();
            assert_ne!((picture.width(), picture.height()), (70, 50), "a secret picture was uploaded as {kind}");
        }
        assert!(!site.logs().contains(SECRET), "a secret stands in the log");
    }

    /// As [`Outside::is_unread`], and nothing of it stands in what the service wrote. It may be at work, so what has
    /// moved on since its folder was read is looked at another time; but these folders must be folders.
    #[track_caller]
    fn is_untouched(&self, site: &Site) {
        self.is_unread(site);
        for folder in ["outbox", "archive", "errors", "state"] {
            for entry in walkdir::WalkDir::new(site.path(folder)) {
                let Some(entry) = unless_gone(entry) else { continue };
                let Some(metadata) = unless_gone(entry.metadata()) else { continue };
                if metadata.is_file() && metadata.len() < 1 << 28 {
                    let Some(bytes) = unless_gone(fs::read(entry.path())) else { continue };
                    assert!(!holds(&bytes, SECRET), "a secret stands in {}", entry.path().display());
                }
            }
        }
    }
}

/// What was got, or nothing if it is not there any more.
#[track_caller]
fn unless_gone<T>(got: Result<T, impl Into<std::io::Error>>) -> Option<T> {
    match got.map_err(Into::into) {
        Ok(got) => Some(got),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
        Err(e) => panic!("{e}"),
    }
}

fn secret_picture() -> Vec<u8> {
    let bytes = pictures::encoded(99, 70, 50, image::ImageFormat::Jpeg);
    [&bytes[..], SECRET.as_bytes()].concat()
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|w| w == text.as_bytes())
}

/// Whether anything stands there that could write to a terminal, add a line or turn a text round.
fn unfit(text: &str) -> Option<char> {
    text.chars().find(|c| {
        let turns =
            matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        (c.is_control() && *c != '\n') || turns
    })
}

#[test]
fn a_picture_that_is_swapped_for_a_link_is_never_followed() {
    let site = Site::new();
    let outside = Outside::new(&site);
    let daemon = site.run();
    let mut swaps = 0;
    for round in 0..40 {
        let (name, text) = (format!("inbox/{round}.jpg"), format!("inbox/{round}.txt"));
        // The links have hidden names, so they are nothing by themselves.
        symlink(outside.root.join("a.jpg"), site.path(format!("inbox/.p{round}"))).unwrap();
        symlink(outside.root.join("a.txt"), site.path(format!("inbox/.t{round}"))).unwrap();
        let swapper = Swapper::start(vec![
            (site.path(&name), site.path(format!("inbox/.p{round}"))),
            (site.path(&text), site.path(format!("inbox/.t{round}"))),
        ]);
        site.put(&text, format!("prompt {round}"));
        site.put_picture(&name);
        // Until the daemon has taken it, at the latest.
        site.wait("it was swapped often", || swapper.count() > 400 || !site.has(&name));
        swaps += swapper.stop();
        outside.is_untouched(&site);
    }
    // Left alone, whatever is still there goes its way: those that stand where they were put.
    site.wait("all that are pictures are done", || {
        walkdir::WalkDir::new(site.path("inbox")).into_iter().filter_map(Result::ok).all(|e| !e.file_type().is_file())
    });
    assert_eq!(daemon.stop(), 0);
    outside.is_untouched(&site);
    assert!(swaps > 400, "{swaps}");
}

#[test]
fn a_folder_that_is_swapped_for_a_link_is_never_followed() {
    let site = Site::new();
    let outside = Outside::new(&site);
    let daemon = site.run();
    fs::create_dir_all(site.path("inbox/d/deep")).unwrap();
    symlink(&outside.root, site.path("inbox/.link")).unwrap();
    symlink(outside.root.join("deep"), site.path("inbox/d/.link")).unwrap();
    let swapper = Swapper::start(vec![
        (site.path("inbox/d"), site.path("inbox/.link")),
        (site.path("inbox/d/deep"), site.path("inbox/d/.link")),
    ]);
    let mut drops = Vec::new();
    for round in 0..10 {
        // By way of another folder: a path of ours must not be led astray either.
        for folder in ["d", "d/deep"] {
            let draft = site.put(format!("drafts/{round}.jpg"), site.a_picture());
            let to = site.path(format!("inbox/{folder}/{round}.jpg"));
            let real = |path: &Path| {
                let mut at = path.parent();
                std::iter::from_fn(|| {
                    let now = at?;
                    at = now.parent();
                    Some(now.to_path_buf())
                })
                .take_while(|p| *p != site.path("inbox"))
                .all(|p| fs::symlink_metadata(p).is_ok_and(|m| m.is_dir()))
            };
            site.wait("a moment without a link", || {
                real(&to) && rename_beneath(&site.path("inbox"), folder, &draft, &format!("{round}.jpg"))
            });
            drops.push(format!("{folder}/{round}.jpg"));
        }
        let seen = swapper.count();
        site.wait("it was swapped", || swapper.count() > seen + 200);
        outside.is_untouched(&site);
    }
    assert!(swapper.stop() > 2000);
    site.wait("all are done", || drops.iter().all(|name| site.has(format!("archive/{name}"))));
    assert_eq!(site.api.calls().len(), drops.len(), "each was sent once");
    assert_eq!(daemon.stop(), 0);
    outside.is_untouched(&site);
}

/// Renames `from` into a folder that is reached without following a link; whether it did.
fn rename_beneath(root: &Path, folder: &str, from: &Path, name: &str) -> bool {
    use rustix::fs::{Mode, OFlags, openat};
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
    let mut dir = rustix::fs::open(root, flags, Mode::empty()).unwrap();
    for part in folder.split('/') {
        let Ok(next) = openat(&dir, part, flags, Mode::empty()) else { return false };
        dir = next;
    }
    rustix::fs::renameat(CWD, from, dir, name).is_ok()
}

#[test]
fn folders_of_the_other_trees_that_are_swapped_for_links_are_never_written_through() {
    let site = Site::new();
    site.set("reference.mode", "inline");
    let outside = Outside::new(&site);
    let (mut pairs, roots) = (Vec::new(), ["working", "outbox", "archive", "errors"]);
    for root in roots {
        if root != "working" {
            fs::create_dir(site.path(format!("{root}/d"))).unwrap();
        }
        symlink(&outside.root, site.path(format!("{root}/.link"))).unwrap();
        pairs.push((site.path(format!("{root}/d")), site.path(format!("{root}/.link"))));
    }
    site.api.on_model(|call| if call.n.is_multiple_of(3) { Answer::error(422, "not that") } else { call.good() });
    let daemon = site.run();
    let swapper = Swapper::start(pairs);
    let mut drops = Vec::new();
    for n in 0..24 {
        site.put_picture(format!("inbox/d/{n}.jpg"));
        drops.push(format!("d/{n}.jpg"));
    }
    site.wait("it was swapped often", || swapper.count() > 3000);
    outside.is_unread(&site);
    swapper.stop();
    let done = |name: &str| site.has(format!("archive/{name}")) || site.has(format!("errors/{name}"));
    site.wait("all are done", || drops.iter().all(|name| done(name)));
    assert_eq!(daemon.stop(), 0);
    outside.is_untouched(&site);
    assert_eq!(site.api.calls().len(), drops.len(), "each was sent once");
    let delivered = drops.iter().filter(|name| site.has(format!("archive/{name}"))).count();
    assert_eq!(site.results().len(), delivered);
    for root in roots {
        fs::remove_file(site.path(format!("{root}/.link"))).unwrap();
    }
}

#[test]
fn a_working_folder_that_somebody_put_into_the_inbox_is_not_the_daemons() {
    type Plant = fn(&Site, &Outside);
    let plants: [(&str, Plant); 4] = [
        ("a link to a folder", |site, outside| symlink(&outside.root, site.path("inbox/.working")).unwrap()),
        ("a link to nowhere", |site, _| symlink("/nowhere/at/all", site.path("inbox/.working")).unwrap()),
        ("a file", |site, _| fs::write(site.path("inbox/.working"), "x").unwrap()),
        ("a pipe", |site, _| {
            rustix::fs::mkfifoat(CWD, site.path("inbox/.working"), rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
        }),
    ];
    for (what, plant) in plants {
        let site = Site::new();
        let outside = Outside::new(&site);
        plant(&site, &outside);
        site.put_picture("inbox/mine.jpg");
        assert_eq!(site.once(), 0, "{what}\n{}", site.describe());
        assert_eq!(site.names("archive"), ["mine.jpg"], "{what}");
        outside.is_untouched(&site);
        // Nor when it is asked for by name.
        site.set("folders.working", "inbox/.working");
        let more = site.put_picture("inbox/more.jpg");
        assert_ne!(site.once(), 0, "{what}");
        assert!(site.logs().contains(".working"), "{what}: {}", site.logs());
        assert_eq!(fs::read(site.path("inbox/more.jpg")).unwrap(), more, "{what}");
        outside.is_untouched(&site);
    }
}

#[test]
fn a_link_to_a_working_folder_that_is_in_use_stops_nothing_and_writes_nothing() {
    // Its own, and one with somebody's file in it that has the name of a lock.
    for (what, target) in [("its own", "working"), ("another", "elsewhere")] {
        let site = Site::new();
        fs::create_dir_all(site.path("elsewhere")).unwrap();
        fs::write(site.path("elsewhere/.lock"), "somebody's").unwrap();
        symlink(site.path(target), site.path("inbox/.working")).unwrap();
        site.put_picture("inbox/mine.jpg");
        for _ in 0..2 {
            assert_eq!(site.once(), 0, "{what}\n{}", site.describe());
        }
        assert_eq!(site.names("archive"), ["mine.jpg"], "{what}");
        assert_eq!(site.text("elsewhere/.lock"), "somebody's");
    }
}

#[test]
fn an_inbox_that_somebody_has_locked_is_waited_for_and_an_outer_folder_is_theirs_to_lock() {
    use std::io::{BufRead as _, BufReader};
    let site = Site::new();
    let lock = |path: &Path| {
        let mut command = Command::new("flock");
        command.arg(path).args(["sh", "-c", "echo held; cat"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut String::new()).unwrap();
        child
    };
    let mut others = lock(&site.path(""));
    site.put_picture("inbox/a.jpg");
    assert_eq!(site.once(), 0, "{}", site.describe());
    let mut theirs = lock(&site.path("inbox"));
    assert_eq!(site.once(), 5, "{}", site.describe());
    let daemon = site.run();
    site.wait_paused(&["locked by another program"]);
    drop(theirs.stdin.take());
    theirs.wait().unwrap();
    site.put_picture("inbox/b.jpg");
    site.wait_archived("b.jpg");
    assert_eq!(daemon.stop(), 0);
    drop(others.stdin.take());
    others.wait().unwrap();
}

#[test]
fn a_link_in_place_of_the_lock_is_not_written_to() {
    let site = Site::new();
    let outside = Outside::new(&site);
    symlink(outside.root.join("a.txt"), site.path("working/.lock")).unwrap();
    site.put_picture("inbox/a.jpg");
    assert_ne!(site.once(), 0);
    outside.is_untouched(&site);
    assert!(site.api.requests().is_empty() && site.has("inbox/a.jpg"));
}

#[test]
fn a_hard_link_to_what_others_may_not_read_is_not_read_in_a_shared_inbox() {
    let site = Site::new();
    let outside = Outside::new(&site);
    let mode = |rel: &str, mode: u32| fs::set_permissions(site.path(rel), fs::Permissions::from_mode(mode)).unwrap();
    for file in ["outside/a.jpg", "outside/a.txt", "outside/preset.toml"] {
        mode(file, 0o600);
    }
    mode("inbox", 0o777);
    fs::create_dir(site.path("inbox/d")).unwrap();
    mode("inbox/d", 0o777);
    let link = |from: &str, to: &str| fs::hard_link(site.path(from), site.path(to)).unwrap();
    link("outside/a.jpg", "inbox/a.jpg");
    link("outside/a.txt", "inbox/b.txt");
    site.put_picture("inbox/b.jpg");
    link("outside/preset.toml", "inbox/d/preset.toml");
    site.put_picture("inbox/d/c.jpg");
    // One's own, linked as usual: others may read it.
    let own = site.a_picture();
    site.put("elsewhere/own.jpg", &own);
    link("elsewhere/own.jpg", "inbox/own.jpg");
    let daemon = site.run();
    site.wait_archived("own.jpg");
    site.a_later_drop_is_done();
    site.wait("it says why", || {
        let status = site.status().to_string();
        ["a.jpg", "b.jpg", "preset.toml"].iter().all(|name| status.contains(name)) && status.contains("another name")
    });
    for name in ["a.jpg", "b.txt", "b.jpg", "d/preset.toml", "d/c.jpg"] {
        assert!(site.has(format!("inbox/{name}")), "{name} waits");
    }
    assert_eq!(site.api.calls().len(), 2);
    outside.is_untouched(&site);
    // Whoever may read it may have it sent.
    mode("outside/a.jpg", 0o644);
    site.wait_archived("a.jpg");
    assert_eq!(daemon.stop(), 0);
    // In an inbox of one's own nobody else can have put it there.
    mode("inbox", 0o755);
    mode("inbox/d", 0o755);
    assert_eq!(site.once(), 0, "{}", site.describe());
    assert_eq!(site.api.calls_with(SECRET), 2, "its owner's own prompt and preset");
}

#[test]
fn a_picture_that_is_changed_by_another_name_after_the_check_is_not_sent_as_it_was() {
    let site = Site::new();
    let (uploading, calling) = (Gate::default(), Gate::default());
    let (first, second) =
        (pictures::encoded(1, 40, 30, image::ImageFormat::Bmp), pictures::encoded(2, 40, 30, image::ImageFormat::Bmp));
    let third = pictures::encoded(3, 40, 30, image::ImageFormat::Bmp);
    assert!(first.len() == second.len() && second.len() == third.len());
    let held = uploading.clone();
    site.api.on_other(move |request, n| {
        let good =
            Answer::json(200, &serde_json::json!({ "file_urls": [format!("http://127.0.0.1:9/assets/{n}.png")] }));
        (request.path == UPLOAD).then(|| if n == 1 { good.after(&held) } else { good })
    });
    let held = calling.clone();
    site.api.on_model(move |call| call.good().after(&held));
    let original = site.put("elsewhere/a.bmp", &first);
    let times = fs::metadata(&original).unwrap();
    fs::hard_link(&original, site.path("inbox/a.bmp")).unwrap();
    // The same length, and the time of before: only the time of the change itself tells.
    let rewrite = |bytes: &[u8]| {
        let mut file = fs::OpenOptions::new().write(true).open(&original).unwrap();
        file.write_all(bytes).unwrap();
        file.set_modified(times.modified().unwrap()).unwrap();
    };
    let daemon = site.run();
    site.wait("it is uploaded", || site.api.to(UPLOAD).len() == 1);
    rewrite(&second);
    uploading.open();
    site.wait("it is sent", || site.api.calls().len() == 1);
    assert_eq!(site.api.calls()[0].reference().unwrap(), "http://127.0.0.1:9/assets/2.png", "as it is now");
    rewrite(&third);
    calling.open();
    site.wait_archived("a.bmp");
    site.wait("it says so", || site.logs().contains("was written to while it was in work"));
    assert_eq!(site.api.calls().len(), 1);
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn names_and_prompts_write_to_no_terminal_log_note_or_status() {
    let site = Site::new();
    let evil = "\u{1b}[2J\u{1b}]0;owned\u{7}\u{9b}31m\u{7f}\u{202e}\u{2066}\u{200f}\u{2028}\r\n\u{8}";
    let long = "n".repeat(251) + ".jpg";
    let names: Vec<Vec<u8>> = [
        format!("{evil}.jpg"),
        format!("x{evil}y.jpg"),
        format!("{evil}.pdf"),
        "{stem}{seed}{variant}{folder}{date}.jpg".into(),
        "{..}.jpg".into(),
        "-rf --no-preserve-root.jpg".into(),
        "--config=x.jpg".into(),
        "%2e%2e%2fup.jpg".into(),
        "..\\..\\up.jpg".into(),
        "a .. b.jpg".into(),
        "working.jpg".into(),
        "archive".into(),
        "Same.jpg".into(),
        "sAME.JPG".into(),
        "caf\u{e9}.jpg".into(),
        "cafe\u{301}.jpg".into(),
        " .jpg".into(),
        "$(reboot)`reboot`;&|.jpg".into(),
        "%n%s%x.jpg".into(),
        "\u{feff}.jpg".into(),
        long,
    ]
    .into_iter()
    .map(String::into_bytes)
    .chain([b"\x9b31m\xff\xfe\x80.jpg".to_vec()])
    .collect();
    let folder = format!("inbox/{evil}/working/a.. /outbox");
    for name in &names {
        site.put_picture(Path::new(&folder).join(OsStr::from_bytes(name)));
    }
    site.put(Path::new(&folder).join("p.txt"), format!("prompt {evil}"));
    site.put(Path::new(&folder).join("t.toml"), format!("prompt = 5\n\"{}\" = 1\n", "\\u001b[2J\\u202e"));
    site.put(Path::new(&folder).join("bad/preset.toml"), "\"\\u001b[2J\\u009b\" = 1\n");
    site.put_picture(Path::new(&folder).join("bad/x.jpg"));
    let answer = evil.to_owned();
    site.api.on_model(move |call| {
        if call.n.is_multiple_of(2) {
            Answer::error(422, &format!("no {answer} no"))
        } else {
            call.good().header("x-request-id", "r\t1")
        }
    });
    let mut seen = vec![
        ("check", site.call(&["check", "--offline"])),
        ("check inbox", site.call(&["check", "--offline", "inbox"])),
    ];
    assert_eq!(site.once(), 3, "{}", site.describe());
    seen.push(("status", site.call(&["status"])));
    seen.push(("status --json", site.call(&["status", "--json"])));
    seen.push(("retry", site.call(&["retry", "--all"])));
    for (what, output) in seen {
        for text in [output.stdout, output.stderr] {
            let text = String::from_utf8(text).expect(what);
            assert!(unfit(&text).is_none(), "{what} has {:?} in: {text:?}", unfit(&text));
        }
    }
    assert!(unfit(&site.logs()).is_none(), "the log has {:?}", unfit(&site.logs()));
    let status = site.text("state/status.json");
    assert!(unfit(&status).is_none(), "status.json has {:?}", unfit(&status));
    assert_eq!(site.once(), 3);
    let mut notes = 0;
    for (path, bytes) in site.files("errors") {
        if path.to_string_lossy().ends_with(".error.txt") {
            let text = String::from_utf8(bytes).unwrap();
            assert!(unfit(&text).is_none(), "{path:?} has {:?} in: {text:?}", unfit(&text));
            notes += 1;
        }
    }
    assert!(notes > 3, "{notes}");
    // Everything lies below its own folder: a name is a name.
    for root in ["outbox", "archive", "errors"] {
        for path in site.files(root).keys() {
            assert!(path.starts_with(Path::new(evil).join("working/a.. /outbox")), "{root}: {path:?}");
        }
    }
    assert!(site.results().len() >= 8);
}

#[test]
fn what_is_no_preset_by_its_nature_stops_nothing_but_its_own_folder() {
    let site = Site::new();
    let outside = Outside::new(&site);
    fs::create_dir_all(site.path("inbox/folder/preset.toml")).unwrap();
    for folder in ["fifo", "link", "huge", "good"] {
        fs::create_dir(site.path(format!("inbox/{folder}"))).unwrap();
    }
    rustix::fs::mkfifoat(CWD, site.path("inbox/fifo/preset.toml"), rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
    symlink(outside.root.join("preset.toml"), site.path("inbox/link/preset.toml")).unwrap();
    sparse(&site.path("inbox/huge/preset.toml"), b"prompt = \"x\"\n");
    for folder in ["folder", "fifo", "link", "huge", "good"] {
        site.put_picture(format!("inbox/{folder}/a.jpg"));
    }
    let daemon = site.run();
    site.wait_archived("good/a.jpg");
    site.wait("the huge one is told", || site.status()["broken_presets"].to_string().contains("huge/preset.toml"));
    site.a_later_drop_is_done();
    assert!(site.has("inbox/huge/a.jpg"), "it waits");
    outside.is_untouched(&site);
    let most = daemon.most_memory() >> 20;
    assert!(most < 300, "{most} MiB");
    assert_eq!(daemon.stop(), 0);
    fs::remove_file(site.path("inbox/huge/preset.toml")).unwrap();
}

/// A file of 8 GiB that begins so and takes no room.
fn sparse(path: &Path, head: &[u8]) {
    let mut file = fs::File::create(path).unwrap();
    file.write_all(head).unwrap();
    file.set_len(8 << 30).unwrap();
}

#[test]
fn files_of_gigabytes_go_to_errors_and_hold_up_nothing() {
    let site = Site::new();
    site.set("watch.give_up", "1s");
    let jpeg = pictures::jpeg(5);
    let names = ["head.jpg", "zeros.jpg", "whole.jpg", "chunk.png", "big.tif", "long.txt", "long.json", "video.mp4"];
    sparse(&site.path("inbox/head.jpg"), &jpeg[..jpeg.len() - 2]);
    sparse(&site.path("inbox/zeros.jpg"), b"");
    // Behind its end it may have what it likes; that is never sent.
    sparse(&site.path("inbox/whole.jpg"), &jpeg);
    fs::File::options().write(true).open(site.path("inbox/whole.jpg")).unwrap().set_len(1 << 30).unwrap();
    sparse(&site.path("inbox/chunk.png"), &pictures::png(5)[..60]);
    sparse(&site.path("inbox/big.tif"), b"II*\0\x08\0\0\0");
    sparse(&site.path("inbox/long.txt"), b"a prompt");
    sparse(&site.path("inbox/long.json"), b"{\"prompt\": \"x\"}");
    sparse(&site.path("inbox/video.mp4"), b"");
    let daemon = site.run();
    for n in 0..3 {
        site.put_picture(format!("inbox/good/{n}.jpg"));
    }
    site.wait("the others go on", || (0..3).all(|n| site.has(format!("archive/good/{n}.jpg"))));
    let ended = |name: &str| site.has(format!("errors/{name}")) || site.has(format!("archive/{name}"));
    site.wait("each ends", || names.iter().all(|name| ended(name)));
    let most = daemon.most_memory() >> 20;
    assert!(most < 400, "{most} MiB");
    assert!(site.has("archive/whole.jpg"));
    assert_eq!(site.api.calls().len(), 4);
    assert!(site.api.requests().iter().all(|r| r.body.len() < 1 << 20));
    assert_eq!(daemon.stop(), 0);
    for name in names {
        let _ = fs::remove_file(site.path(format!("errors/{name}")));
        let _ = fs::remove_file(site.path(format!("archive/{name}")));
    }
}

#[test]
fn a_file_that_grows_for_ever_is_never_sent_and_starves_nobody() {
    let site = Site::new();
    site.set("watch.settle", "400ms");
    let stop = Arc::new(AtomicBool::new(false));
    let jpeg = site.a_picture();
    let writers: Vec<_> = [("grow.jpg", &jpeg[..jpeg.len() - 2]), ("grow.txt", b"more and "), ("whole.jpg", &jpeg)]
        .map(|(name, head)| {
            let (stop, mut file) = (stop.clone(), fs::File::create(site.path(format!("inbox/{name}"))).unwrap());
            file.write_all(head).unwrap();
            std::thread::spawn(move || {
                while !stop.load(Ordering::SeqCst) {
                    file.write_all(&[b'x'; 5000]).unwrap();
                    std::thread::sleep(Duration::from_millis(20));
                }
            })
        })
        .into();
    let daemon = site.run();
    for n in 0..8 {
        site.put_picture(format!("inbox/{n}.jpg"));
        site.wait_archived(&format!("{n}.jpg"));
    }
    let calls = site.api.calls().len();
    assert!(site.has("inbox/grow.jpg") && site.has("inbox/grow.txt"));
    assert!(site.api.uploads().iter().all(|(_, bytes)| !holds(bytes, "xxxxx")), "what is appended is never sent");
    stop.store(true, Ordering::SeqCst);
    for writer in writers {
        writer.join().unwrap();
    }
    assert!(calls <= 9, "{calls}");
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn pictures_that_were_made_to_burst_are_refused_or_come_through_within_bounds() {
    let site = Site::new();
    site.set("api.timeout", "60s");
    let cases = bombs::all();
    for (name, bytes, _) in &cases {
        site.put(format!("inbox/{name}"), bytes);
    }
    let daemon = site.run();
    for (name, _, good) in &cases {
        let tree = if *good { "archive" } else { "errors" };
        site.wait(name, || site.has(format!("archive/{name}")) || site.has(format!("errors/{name}")));
        assert!(site.has(format!("{tree}/{name}")), "{name}\n{}", site.describe());
    }
    site.a_later_drop_is_done();
    let most = daemon.most_memory() >> 20;
    eprintln!("at most {most} MiB");
    // The largest of these that is decoded takes a few hundred, and each runs alone.
    assert!(most < 700, "{most} MiB");
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn a_slow_picture_does_not_hold_up_the_loop() {
    let site = Site::new();
    site.put("inbox/slow.jpg", bombs::slow_jpeg(false));
    site.put("inbox/too-slow.jpg", bombs::slow_jpeg(true));
    let daemon = site.run();
    let ended = |name: &str| site.has(format!("errors/{name}")) || site.has(format!("archive/{name}"));
    // What needs no decoding goes meanwhile, and the loop answers.
    site.put("inbox/prompt.txt", "no picture");
    site.wait_archived("prompt.txt");
    assert!(!ended("slow.jpg"), "it was not slow, or the other waited for it");
    let before = Instant::now();
    site.wait("they end", || ended("slow.jpg") && ended("too-slow.jpg"));
    eprintln!("slow for {:?}", before.elapsed());
    assert!(site.has("archive/slow.jpg"), "{}", site.describe());
    assert!(site.has("errors/too-slow.jpg"), "{}", site.describe());
    site.a_later_drop_is_done();
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn tens_of_thousands_of_files_do_not_keep_a_picture_waiting() {
    let site = Site::new();
    for folder in 0..20 {
        let dir = site.path(format!("inbox/many-{folder}"));
        fs::create_dir(&dir).unwrap();
        for n in 0..500 {
            fs::write(dir.join(format!("{n}.part")), "").unwrap();
            // Empty: not written yet, for all anybody knows.
            fs::write(dir.join(format!("{n}.txt")), "").unwrap();
        }
    }
    let deep = "/deeper".repeat(100);
    site.put_picture(format!("inbox/deep{deep}/a.jpg"));
    site.put(format!("inbox/deep{deep}/a.txt"), "from the depth");
    site.put("inbox/deep/preset.toml", "steps_num = 20\n");
    site.set("watch.give_up", "1h").set("watch.rescan", "1h");
    let daemon = site.run();
    site.wait_archived(&format!("deep{deep}/a.jpg"));
    assert_eq!(site.api.calls()[0].json()["steps_num"], 20);
    assert_eq!(site.api.calls_with("from the depth"), 1);
    site.a_later_drop_is_done();
    let most = daemon.most_memory() >> 20;
    eprintln!("at most {most} MiB");
    assert!(most < 200, "{most} MiB");
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn deep_sidecars_fail_their_own_drops() {
    let site = Site::new();
    let wide = format!("{{\"prompt\": [{}0]}}", "0,".repeat(400_000));
    for (name, text) in [
        ("array.json", "[".repeat(500_000)),
        ("object.json", "{\"a\":".repeat(150_000)),
        ("array.toml", format!("prompt = {}", "[".repeat(500_000))),
        ("table.toml", format!("{} = 1", vec!["a"; 300_000].join("."))),
        ("header.toml", format!("[{}]", vec!["a"; 300_000].join("."))),
        ("wide.json", wide),
        ("seeds.toml", format!("prompt = \"x\"\nseeds = [{}0]", "1,".repeat(400_000))),
        ("keys.toml", (0..60_000).map(|n| format!("k{n} = 1")).collect::<Vec<_>>().join("\n")),
    ] {
        site.put(format!("inbox/{name}"), text);
    }
    site.put_picture("inbox/good.jpg");
    assert_eq!(site.once(), 3, "{}", site.logs());
    assert_eq!(site.names("archive"), ["good.jpg"]);
    for (path, bytes) in site.files("errors") {
        let is_note = path.to_string_lossy().ends_with(".error.txt");
        assert!(!is_note || bytes.len() < 64 << 10, "{}: a note of {} bytes", path.display(), bytes.len());
    }
    assert!(site.text("state/status.json").len() < 256 << 10);
    assert!(site.logs().len() < 512 << 10, "a log of {} bytes", site.logs().len());
}
