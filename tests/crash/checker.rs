//! Counts what is there, knowing nothing of the product: what was dropped, what the API was asked and
//! answered, and what stands in the folders.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::support::{Answer, Call, Site, api, pictures};

/// What was dropped together.
pub struct Dropped {
    /// Its prompt, which no other drop has.
    pub prompt: String,
    /// Its files' bytes.
    pub files: Vec<Vec<u8>>,
    /// How many pictures it asks for.
    pub shots: usize,
    /// Its files end in one folder.
    pub together: bool,
}

/// A model call that was received whole.
#[derive(Clone)]
struct Sent {
    prompt: String,
    seed: Option<i64>,
    /// The picture in it, where it is not uploaded before.
    inline: Option<String>,
    /// The picture that was answered or promised, if it is, or may be, billed.
    billed: Option<Vec<u8>>,
}

/// What the API was asked.
#[derive(Clone, Default)]
pub struct Book(Arc<Mutex<Vec<Sent>>>);

impl Book {
    /// Answers with a picture, as its body.
    pub fn picture(&self, call: &Call) -> Answer {
        self.enter(call, true);
        call.good()
    }

    /// Answers with a picture's URL below `base`.
    pub fn url(&self, call: &Call, base: &str) -> Answer {
        self.enter(call, true);
        let url = format!("{base}/results/{}.png", call.n);
        Answer::json(200, &serde_json::json!({ "image": url })).header("x-request-id", &format!("r-{}", call.n))
    }

    /// Answers with an error that proves that nothing was billed.
    pub fn free(&self, call: &Call, status: u16) -> Answer {
        self.enter(call, false);
        Answer::error(status, "no")
    }

    fn enter(&self, call: &Call, billed: bool) {
        let billed = billed.then(|| api::result(call.n as u32));
        let inline = call.request.reference().filter(|r| r.starts_with("data:"));
        self.0.lock().unwrap().push(Sent { prompt: call.prompt.clone(), seed: call.seed, inline, billed });
    }

    fn sent(&self) -> Vec<Sent> {
        self.0.lock().unwrap().clone()
    }
}

/// Serves the pictures that [`Book::url`] promises.
pub fn serve_results(site: &Site) {
    site.api.on_other(|request, _| {
        let n = request.path.strip_prefix("/results/")?.strip_suffix(".png")?.parse().ok()?;
        Some(Answer::new(200, "image/png", api::result(n)))
    });
}

/// What stood in the folders when the program was killed.
#[derive(Default)]
pub struct Seen {
    outbox: BTreeSet<Vec<u8>>,
    received: BTreeSet<Vec<u8>>,
}

impl Seen {
    /// Now.
    pub fn now(site: &Site) -> Self {
        let whole = |path: &Path| path.extension().is_none_or(|e| e != "part");
        let spool = site.files("state/spool").into_iter().filter(|(path, _)| whole(path));
        Self {
            outbox: results(site).into_iter().map(|(_, bytes)| bytes).collect(),
            received: spool.map(|(_, b)| b).collect(),
        }
    }

    /// Both together.
    pub fn add(&mut self, other: Self) {
        self.outbox.extend(other.outbox);
        self.received.extend(other.received);
    }

    /// Only what is in the spool counts.
    pub fn forget_the_outbox(&mut self) {
        self.outbox.clear();
    }
}

/// Pictures in the outbox.
fn results(site: &Site) -> Vec<(PathBuf, Vec<u8>)> {
    site.files("outbox").into_iter().filter(|(path, _)| !path.to_string_lossy().ends_with(".reimagined.json")).collect()
}

/// What was counted, and what was found wrong.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Drops.
    pub drops: usize,
    /// Shots that they asked for.
    pub shots: usize,
    /// Pictures in the outbox.
    pub delivered: usize,
    /// Billed, or perhaps billed, with no picture, and told to a person.
    pub held: usize,
    /// Files or pictures that are nowhere, in two places, or not as they were.
    pub lost: Vec<String>,
    /// Shots sent again after a request that was or may have been billed.
    pub paid_again: Vec<String>,
    /// Left behind: temporary files, pictures without provenance, drops without a note.
    pub litter: Vec<String>,
}

impl Tally {
    /// Everything that is wrong.
    pub fn faults(&self) -> Vec<String> {
        let named =
            |what: &'static str, list: &[String]| list.iter().map(move |s| format!("{what}: {s}")).collect::<Vec<_>>();
        [named("lost", &self.lost), named("paid again", &self.paid_again), named("left behind", &self.litter)].concat()
    }

    /// Both together.
    pub fn add(&mut self, other: Self) {
        self.drops += other.drops;
        self.shots += other.shots;
        self.delivered += other.delivered;
        self.held += other.held;
        self.lost.extend(other.lost);
        self.paid_again.extend(other.paid_again);
        self.litter.extend(other.litter);
    }
}

/// Counts while a program was just killed: every input is whole somewhere, and in two places only while it is
/// moved between filesystems; nothing was paid for twice.
pub fn in_between(site: &Site, drops: &[Dropped], book: &Book, sends: usize) -> Tally {
    let mut tally = Tally::default();
    money(&mut tally, book, sends);
    let there = counts(site);
    for (drop, bytes) in drops.iter().flat_map(|d| d.files.iter().map(move |f| (d, f))) {
        match there.get(bytes).map_or(0, Vec::len) {
            1 | 2 => {}
            n => tally.lost.push(format!("a file of {:?} is in {n} places", drop.prompt)),
        }
    }
    tally
}

/// Counts at the end, when nothing is left to do. `sends`: how often a shot may be sent that may have been billed.
/// `seen`: what stood there at the kills.
pub fn at_the_end(site: &Site, drops: &[Dropped], book: &Book, sends: usize, seen: &Seen) -> Tally {
    let mut tally = Tally { drops: drops.len(), shots: drops.iter().map(|d| d.shots).sum(), ..Tally::default() };
    money(&mut tally, book, sends);
    originals(&mut tally, site, drops);
    litter(&mut tally, site);

    let sent = book.sent();
    let owner: BTreeMap<&Vec<u8>, &Sent> = sent.iter().filter_map(|s| Some((s.billed.as_ref()?, s))).collect();
    let outbox = results(site);
    let mut by_prompt: BTreeMap<&str, usize> = BTreeMap::new();
    let mut once = BTreeSet::new();
    for (path, bytes) in &outbox {
        match owner.get(bytes) {
            Some(sent) => *by_prompt.entry(&sent.prompt).or_default() += 1,
            None => tally.lost.push(format!("{} in the outbox is no answer, or not whole", path.display())),
        }
        if !once.insert(bytes) {
            tally.lost.push(format!("{} stands in the outbox twice", path.display()));
        }
        let provenance = site.path("outbox").join(path.with_extension("reimagined.json"));
        let json = std::fs::read(provenance).ok().and_then(|b| serde_json::from_slice::<serde_json::Value>(&b).ok());
        if json.is_none_or(|json| json["request_id"].is_null() && json["request"].is_null()) {
            tally.litter.push(format!("{} has no provenance", path.display()));
        }
    }
    tally.delivered = outbox.len();
    for bytes in seen.outbox.union(&seen.received) {
        if !once.contains(bytes) {
            tally.lost.push("a picture that was received whole is not in the outbox".into());
        }
    }
    let archived: BTreeSet<_> = site.files("archive").into_values().collect();
    for drop in drops {
        let delivered = by_prompt.get(drop.prompt.as_str()).copied().unwrap_or(0);
        let paid = sent.iter().filter(|s| s.prompt == drop.prompt && s.billed.is_some()).count();
        tally.held += paid.saturating_sub(delivered);
        // Where it was sent once more, the provenance says it instead.
        if sends == 1 && paid > delivered && !is_told(site, drop) {
            tally.lost.push(format!(
                "{:?}: a shot that may have been billed has no picture, and no note says so",
                drop.prompt
            ));
        }
        if drop.files.iter().all(|f| archived.contains(f)) && delivered != drop.shots {
            tally.lost.push(format!("{:?} is archived with {delivered} of {} pictures", drop.prompt, drop.shots));
        }
    }
    tally
}

/// Whether a note beside one of its files says that a shot was, or may have been, billed.
fn is_told(site: &Site, drop: &Dropped) -> bool {
    let failed = site.files("errors");
    let stem = |path: &Path| path.to_string_lossy().split('.').next().unwrap_or_default().to_owned();
    let mine = failed.iter().filter(|(_, bytes)| drop.files.contains(bytes)).map(|(path, _)| stem(path));
    mine.into_iter().any(|stem| {
        let note = failed.get(Path::new(&format!("{stem}.error.txt")));
        let text = String::from_utf8_lossy(note.map_or(&[][..], Vec::as_slice)).into_owned();
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        text.contains("billed: unknown") || text.contains("billed: yes")
    })
}

fn money(tally: &mut Tally, book: &Book, sends: usize) {
    let mut billed: BTreeMap<_, usize> = BTreeMap::new();
    for sent in book.sent() {
        let shot = (sent.prompt, sent.seed, sent.inline);
        let so_far = billed.entry(shot.clone()).or_default();
        if *so_far >= sends {
            tally
                .paid_again
                .push(format!("{:?} {:?} was sent once more after {so_far} that may have been billed", shot.0, shot.1));
        }
        *so_far += usize::from(sent.billed.is_some());
    }
}

/// Where each file's bytes stand.
fn counts(site: &Site) -> BTreeMap<Vec<u8>, Vec<PathBuf>> {
    let mut there: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for folder in ["inbox", "working", "archive", "errors"] {
        for (path, bytes) in site.files(folder) {
            there.entry(bytes).or_default().push(Path::new(folder).join(path));
        }
    }
    there
}

fn originals(tally: &mut Tally, site: &Site, drops: &[Dropped]) {
    let there = counts(site);
    for drop in drops {
        let mut homes = BTreeSet::new();
        for file in &drop.files {
            let places = there.get(file).map_or(&[][..], Vec::as_slice);
            if places.len() != 1 {
                tally.lost.push(format!("a file of {:?} is in {places:?}", drop.prompt));
            }
            homes.extend(places.iter().filter_map(|p| p.parent().map(Path::to_path_buf)));
        }
        if drop.together && homes.len() > 1 {
            tally.litter.push(format!("{:?} was torn apart: {homes:?}", drop.prompt));
        }
    }
    for folder in ["inbox", "working"] {
        tally.litter.extend(site.names(folder).iter().map(|n| format!("{folder}/{n} is still there")));
    }
    let known: BTreeSet<_> = drops.iter().flat_map(|d| &d.files).collect();
    let failed = site.files("errors");
    for (path, bytes) in &failed {
        let name = path.to_string_lossy();
        let stem = name.split('.').next().unwrap_or_default();
        if known.contains(bytes) {
            if !failed.contains_key(Path::new(&format!("{stem}.error.txt"))) {
                tally.litter.push(format!("errors/{name} has no note"));
            }
        } else if !name.ends_with(".error.txt")
            || !failed.iter().any(|(p, b)| known.contains(b) && p.to_string_lossy().split('.').next() == Some(stem))
        {
            tally.litter.push(format!("errors/{name} belongs to nothing"));
        }
    }
}

/// Files of the program's own that should be gone.
fn litter(tally: &mut Tally, site: &Site) {
    for folder in ["inbox", "working", "outbox", "archive", "errors"] {
        for entry in walkdir::WalkDir::new(site.path(folder)).follow_root_links(true).into_iter().filter_map(Result::ok)
        {
            let name = entry.file_name().to_string_lossy();
            if entry.depth() > 0 && name.starts_with('.') && !(folder == "working" && name == ".lock") {
                tally.litter.push(format!("{}", entry.path().display()));
            }
        }
    }
    tally.litter.extend(site.names("state/spool").iter().map(|n| format!("state/spool/{n}")));
    let known = ["ledger.db", "ledger.db-wal", "ledger.db-shm", "ledger.db-count", "status.json", "daemon.lock"];
    for entry in std::fs::read_dir(site.path("state")).unwrap().map(Result::unwrap) {
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.path().is_file() && !known.contains(&name.as_str()) {
            tally.litter.push(format!("state/{name}"));
        }
    }
}

/// A small picture that no other is.
pub fn a_picture(n: u32) -> Vec<u8> {
    pictures::jpeg(50_000 + n)
}
