//! Lives of drops, each for a run of the program that a kill can strike.

use std::cell::RefCell;
use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

use super::checker::{Book, Dropped, a_picture, serve_results};
use super::support::{Site, pictures};

/// A life to be struck.
pub struct Scene {
    /// In words.
    pub name: &'static str,
    /// Makes everything ready for the run that is struck.
    pub prepare: fn(&Play),
    /// The command that is struck.
    pub command: &'static [&'static str],
    /// How often a shot may be sent that may have been billed.
    pub sends: usize,
}

/// A scene on its stage.
pub struct Play {
    /// The folders, the API.
    pub site: Site,
    /// What the API was asked.
    pub book: Book,
    /// What was dropped.
    pub drops: RefCell<Vec<Dropped>>,
    elsewhere: RefCell<Option<TempDir>>,
}

/// All of them.
pub const SCENES: &[Scene] = &[
    Scene { name: "first start, a picture", prepare: first_start, command: ONCE, sends: 1 },
    Scene { name: "a served picture", prepare: served, command: ONCE, sends: 1 },
    Scene { name: "two shots, answers by URL", prepare: two_shots_by_url, command: ONCE, sends: 1 },
    Scene { name: "results, archive elsewhere", prepare: elsewhere, command: ONCE, sends: 1 },
    Scene { name: "a refused drop", prepare: refused, command: ONCE, sends: 1 },
    Scene { name: "errors on another filesystem", prepare: refused_elsewhere, command: ONCE, sends: 1 },
    Scene { name: "a pause: back into the inbox", prepare: paused, command: ONCE, sends: 1 },
    Scene { name: "busy at first, then good", prepare: busy_at_first, command: ONCE, sends: 1 },
    Scene { name: "a prompt alone", prepare: prompt_alone, command: ONCE, sends: 1 },
    Scene { name: "unconfirmed = \"retry\"", prepare: unconfirmed_again, command: ONCE, sends: 2 },
    Scene { name: "two pictures, one sidecar", prepare: shared_sidecar, command: ONCE, sends: 1 },
    Scene { name: "names that are taken", prepare: taken_names, command: ONCE, sends: 1 },
    Scene { name: "a file that is no picture", prepare: foreign, command: ONCE, sends: 1 },
    Scene { name: "`retry` of half a drop", prepare: half_failed, command: &["retry", "--all"], sends: 1 },
    Scene { name: "half a drop comes back", prepare: half_comes_back, command: ONCE, sends: 1 },
];

const ONCE: &[&str] = &["run", "--once"];

impl Play {
    /// An empty stage with short waits; good pictures for everybody.
    pub fn new() -> Self {
        let play =
            Self { site: Site::new(), book: Book::default(), drops: RefCell::default(), elsewhere: RefCell::default() };
        for (key, value) in [
            ("watch.settle", "20ms"),
            ("watch.folder_settle", "20ms"),
            ("watch.sidecar_wait", "20ms"),
            ("watch.lone_wait", "50ms"),
            ("retry.first_delay", "5ms"),
            ("retry.max_delay", "20ms"),
        ] {
            play.site.set(key, value);
        }
        fs::create_dir(play.site.path("state")).unwrap();
        let book = play.book.clone();
        play.site.api.on_model(move |call| book.picture(call));
        play
    }

    /// The folders in which the program's files stand.
    pub fn roots(&self) -> Vec<PathBuf> {
        let folders = ["inbox", "working", "outbox", "archive", "errors", "state"];
        folders.iter().map(|f| self.site.path(f).canonicalize().unwrap()).collect()
    }

    /// Puts files into the inbox that belong together. The prompt stands in the first of them that is text.
    pub fn put(&self, prompt: &str, shots: usize, files: &[(&str, Vec<u8>)]) {
        for (name, bytes) in files {
            let path = self.site.path("inbox").join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        let files = files.iter().map(|(_, bytes)| bytes.clone()).collect();
        self.drops.borrow_mut().push(Dropped { prompt: prompt.into(), files, shots, together: true });
    }

    /// Lays folders on another filesystem.
    pub fn move_elsewhere(&self, folders: &[&str]) {
        let dir = tempfile::Builder::new().prefix("reimagined-").tempdir_in("/dev/shm").unwrap();
        for folder in folders {
            let there = dir.path().join(folder);
            fs::create_dir(&there).unwrap();
            self.site.set(&format!("folders.{folder}"), there.to_str().unwrap());
            // For the eyes of whoever counts.
            fs::remove_dir(self.site.path(folder)).unwrap();
            std::os::unix::fs::symlink(&there, self.site.path(folder)).unwrap();
        }
        *self.elsewhere.borrow_mut() = Some(dir);
    }

    /// Runs the program until nothing is left to do; what it says if it never comes to that.
    pub fn to_the_end(&self) -> Result<(), String> {
        for _ in 0..6 {
            let code = self.site.once();
            if (code == 0 || code == 3) && self.site.is_empty() {
                return Ok(());
            }
        }
        Err("it does not come to an end".to_owned())
    }
}

/// With a ledger that stands already: how it is made is struck in the first scene.
fn picture_and_prompt(play: &Play) {
    assert_eq!(play.site.once(), 0, "{}", play.site.describe());
    play.put("a look", 1, &[("a.txt", b"a look".to_vec()), ("a.jpg", a_picture(1))]);
}

fn picture_and_seeds(play: &Play) {
    assert_eq!(play.site.once(), 0, "{}", play.site.describe());
    play.put("a look", 2, &[("b.toml", b"prompt = \"a look\"\nseeds = [1, 2]\n".to_vec()), ("b.jpg", a_picture(2))]);
}

fn first_start(play: &Play) {
    play.put("a look", 1, &[("a.txt", b"a look".to_vec()), ("a.jpg", a_picture(1))]);
}

fn served(play: &Play) {
    play.site.serve_pictures();
    picture_and_prompt(play);
}

fn two_shots_by_url(play: &Play) {
    let (book, base) = (play.book.clone(), play.site.api.url());
    play.site.api.on_model(move |call| book.url(call, &base));
    serve_results(&play.site);
    picture_and_seeds(play);
}

fn elsewhere(play: &Play) {
    play.move_elsewhere(&["outbox", "archive"]);
    picture_and_prompt(play);
}

fn refuse(play: &Play) {
    let book = play.book.clone();
    play.site.api.on_model(move |call| book.free(call, 409));
    picture_and_prompt(play);
}

fn refused(play: &Play) {
    refuse(play);
}

fn refused_elsewhere(play: &Play) {
    play.move_elsewhere(&["errors"]);
    refuse(play);
}

fn paused(play: &Play) {
    let book = play.book.clone();
    play.site.api.on_model(move |call| if call.n == 1 { book.free(call, 401) } else { book.picture(call) });
    picture_and_prompt(play);
}

fn busy_at_first(play: &Play) {
    let book = play.book.clone();
    play.site.api.on_model(move |call| if call.n <= 2 { book.free(call, 503) } else { book.picture(call) });
    picture_and_prompt(play);
}

fn prompt_alone(play: &Play) {
    assert_eq!(play.site.once(), 0, "{}", play.site.describe());
    play.put("a look", 1, &[("c.txt", b"a look".to_vec())]);
}

fn shared_sidecar(play: &Play) {
    assert_eq!(play.site.once(), 0, "{}", play.site.describe());
    // Two drops, whose requests differ by the picture in them alone.
    play.site.set("reference.mode", "inline");
    play.put("a look", 2, &[("d.txt", b"a look".to_vec()), ("d.jpg", a_picture(3)), ("d.png", pictures::png(60_000))]);
    // They are two drops all the same, and each ends for itself.
    play.drops.borrow_mut().iter_mut().for_each(|drop| drop.together = false);
}

/// Outbox and archive hold files of these names already.
fn taken_names(play: &Play) {
    picture_and_prompt(play);
    for name in ["archive/a.jpg", "outbox/A.reimagined.json"] {
        fs::write(play.site.path(name), "somebody else's").unwrap();
    }
}

fn foreign(play: &Play) {
    assert_eq!(play.site.once(), 0, "{}", play.site.describe());
    play.move_elsewhere(&["errors"]);
    play.put("never sent", 0, &[("e.pdf", b"%PDF-1.7 and so on".to_vec())]);
}

fn unconfirmed_again(play: &Play) {
    play.site.set("retry.unconfirmed", "retry");
    picture_and_prompt(play);
}

/// One shot of two stands in the outbox, the other one was refused; the drop lies in errors.
fn half_failed(play: &Play) {
    let book = play.book.clone();
    play.site.api.on_model(
        move |call| {
            if call.seed == Some(2) && call.n <= 2 { book.free(call, 409) } else { book.picture(call) }
        },
    );
    picture_and_seeds(play);
    assert_eq!(play.site.once(), 3, "{}", play.site.describe());
}

fn half_comes_back(play: &Play) {
    half_failed(play);
    let output = play.site.call(&["retry", "--all"]);
    assert!(output.status.success(), "{output:?}");
}
