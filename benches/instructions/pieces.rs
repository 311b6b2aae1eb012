//! The hot pieces, and how much each may take.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::path::Path;
use std::time::Duration;

use image::codecs::jpeg::JpegEncoder;
use jiff::Timestamp;
use serde_json::json;

use reimagined::domain::arrivals::{self, Arrivals, Entry, PresetState};
use reimagined::domain::ids::{DropId, Facts, Fingerprint, Mono, RelPath, ShotNo};
use reimagined::domain::kinds::{NameKind, PictureExt};
use reimagined::domain::life::{Fate, OutputName, Shot, ShotEvent, Spooled};
use reimagined::domain::names::{SetNames, provenance_name, result_name};
use reimagined::domain::verdict::Billed;
use reimagined::ledger::sqlite::SqliteLedger;
use reimagined::ledger::{Ending, Filing, Ledger as _, Limits, Member, Moment, NewDrop, Role};
use reimagined::outbox::listing::{Listings, Wanted};
use reimagined::outbox::provenance::{Input, Provenance, SCHEMA, Times, is_of};
use reimagined::reference::{
    Budget, Original, Rules, Whole, check_and_strip, check_at_once, prepare as prepare_picture,
};
use reimagined::segmind::Body;

use crate::callgrind::counted;

/// Something that is done for each drop, or each time the daemon wakes.
#[derive(Clone, Copy)]
pub(crate) struct Piece {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    /// The most instructions that it may take.
    pub(crate) bound: u64,
    /// Does it, working in a directory that [`prepare`] filled.
    pub(crate) run: fn(&Path),
}

/// A bound is what was counted (rustc 1.95, x86-64 with AVX2) and an eighth more, to three digits: room for another
/// compiler and for small changes, none for hashing the same bytes twice or for looking at all that waits. Raise one
/// only with a reason in the commit; lower one when its piece got better, so that it stays so.
pub(crate) const PIECES: &[Piece] = &[
    Piece {
        name: "arrivals-scan",
        what: "1,000 pictures found by a scan, judged and handed out",
        bound: 59_400_000,
        run: arrivals_scan,
    },
    Piece {
        name: "arrivals-idle",
        what: "100 turns with 10,000 pictures waiting and nothing due",
        bound: 123_000,
        run: arrivals_idle,
    },
    Piece { name: "set-number", what: "a number for a set where 100 are taken", bound: 4_880_000, run: set_number },
    Piece { name: "check-jpeg", what: "whole? and BLAKE3, a JPEG of 2 megapixels", bound: 2_390_000, run: check_jpeg },
    Piece {
        name: "strip-jpeg",
        what: "the same, stripped and as the body of an upload",
        bound: 9_510_000,
        run: strip_jpeg,
    },
    Piece { name: "check-png", what: "whole? and BLAKE3, a PNG of 456 KiB", bound: 1_400_000, run: check_png },
    Piece { name: "reduce-jpeg", what: "a JPEG of 2 megapixels to 600 pixels", bound: 1_720_000_000, run: reduce_jpeg },
    Piece { name: "body", what: "a request with a picture of 456 KiB in base64", bound: 6_530_000, run: body },
    Piece { name: "ledger", what: "the lives of 10 drops, from begin to close", bound: 17_800_000, run: ledger },
    Piece {
        name: "provenance",
        what: "100 provenance files written and recognised",
        bound: 48_700_000,
        run: provenance,
    },
];

const JPEG: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/rocket.jpg");
const PNG: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/coffee.png");
const LARGE: &str = "large.jpg";

/// Makes what takes too long below valgrind.
pub(crate) fn prepare(dir: &Path) {
    let photograph = image::open(JPEG).unwrap();
    let large = photograph.resize_exact(1_800, 1_200, image::imageops::FilterType::Triangle);
    let mut file = File::create(dir.join(LARGE)).unwrap();
    JpegEncoder::new_with_quality(&mut file, 97).encode_image(&large).unwrap();
}

const START: Mono = Mono(Duration::from_secs(100_000));

/// An inbox whose first scan found so many pictures, unchanged for `age`.
fn scanned(pictures: &[OsString], age: Duration) -> Arrivals {
    let secs = Duration::from_secs;
    let mut arrivals = Arrivals::new(arrivals::Rules {
        settle: secs(2),
        folder_settle: secs(3),
        sidecar_wait: secs(1),
        lone_wait: secs(30),
        give_up: secs(600),
        tell_after: Some(secs(600)),
    });
    let root = RelPath::root();
    arrivals.begin_scan(&root, START);
    for (ino, name) in (1..).zip(pictures) {
        let facts = Facts { dev: 1, ino, size: 1_000_000, mtime_ns: 0, ctime_ns: 0 };
        let entry = Entry { kind: NameKind::Picture(PictureExt::Jpg), facts, age };
        arrivals.observe_scanned(&root, name, &entry, START);
    }
    arrivals.end_scan(&root, START);
    for query in arrivals.presets_to_read(START) {
        arrivals.preset_state(&query, PresetState::default(), START);
    }
    arrivals
}

fn pictures(count: usize) -> Vec<OsString> {
    (0..count).map(|n| format!("IMG_{n:05}.jpg").into()).collect()
}

fn arrivals_scan(_: &Path) {
    let pictures = pictures(1_000);
    let (_, ready) = counted(|| {
        let mut arrivals = scanned(&pictures, Duration::from_secs(3_600));
        let ready = arrivals.ready(START, 1_000);
        (arrivals, ready)
    });
    assert_eq!(ready.len(), 1_000);
}

fn arrivals_idle(_: &Path) {
    let mut arrivals = scanned(&pictures(10_000), Duration::ZERO);
    let ready = counted(|| {
        let turns = (1..=100).map(|ms| START + Duration::from_millis(ms));
        turns.map(|now| (arrivals.ready(now, 16).len(), arrivals.next_wake())).fold(0, |sum, (ready, _)| sum + ready)
    });
    assert_eq!((ready, arrivals.waiting().count()), (0, 10_000));
}

fn set_number(dir: &Path) {
    let (outbox, archive, rel) = (dir.join("outbox"), dir.join("archive"), RelPath::root());
    let stem = OsStr::new("terrace");
    let set = SetNames::new(stem, ["terrace.txt", "terrace.jpg"]);
    let results = |n| vec![result_name(stem, n, "png", true), provenance_name(stem, n)];
    let originals = |n| set.members(n);
    for (folder, names) in [(&outbox, &results as &dyn Fn(u32) -> Vec<OsString>), (&archive, &originals)] {
        fs::create_dir(folder).unwrap();
        for name in (1..=100).flat_map(names) {
            File::create(folder.join(name)).unwrap();
        }
    }
    let wanted =
        [Wanted { root: &outbox, rel: &rel, names: &results }, Wanted { root: &archive, rel: &rel, names: &originals }];
    let number = counted(|| Listings::new().choose_number(&wanted, |_| false)).unwrap();
    assert_eq!(number, 101);
}

fn check_jpeg(dir: &Path) {
    check(&dir.join(LARGE));
}

fn check_png(_: &Path) {
    check(PNG.as_ref());
}

fn check(path: &Path) {
    let file = File::open(path).unwrap();
    let (found, print) = counted(|| check_at_once(&file)).unwrap();
    assert!(matches!(found, Whole::Whole { .. }) && print.is_some());
}

fn strip_jpeg(dir: &Path) {
    let file = File::open(dir.join(LARGE)).unwrap();
    let rules = Rules { max_edge: 4096, max_bytes: 10_000_000, strip_metadata: true };
    counted(|| {
        let (_, _, stripped) = check_and_strip(&file, &rules).unwrap();
        let stripped = stripped.expect("it is small, and nothing has to be decoded");
        Body::upload_of(&stripped.bytes, stripped.media_type)
    });
}

fn reduce_jpeg(dir: &Path) {
    let path = dir.join(LARGE);
    let file = File::open(&path).unwrap();
    let Whole::Whole { format, end } = reimagined::reference::check(&file).unwrap() else { panic!("it is whole") };
    let original = Original { file: &file, path: &path, format, end };
    let rules = Rules { max_edge: 600, max_bytes: 10_000_000, strip_metadata: true };
    let budget = Budget::default();
    let prepared = counted(|| prepare_picture(&original, &rules, dir, &budget)).unwrap();
    assert_eq!((prepared.width, prepared.height), (600, 400));
}

fn request() -> serde_json::Map<String, serde_json::Value> {
    let request = json!({"prompt": "a terrace in autumn", "structure_image_url": "", "seed": 7, "steps_num": 30});
    request.as_object().unwrap().clone()
}

fn body(_: &Path) {
    let request = request();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let sent = counted(|| {
        runtime.block_on(async {
            let body = Body::inline(&request, "structure_image_url", PNG.into(), "image/png");
            let (body, length) = body.open().await.unwrap();
            let bytes = axum::body::to_bytes(axum::body::Body::new(body), usize::MAX).await.unwrap();
            assert_eq!(bytes.len() as u64, length);
            bytes
        })
    });
    assert!(sent.ends_with(b"\"}"));
}

fn ledger(dir: &Path) {
    let mut ledger = SqliteLedger::open(&dir.join("ledger.db")).unwrap();
    counted(|| (0..10).for_each(|n| life(&mut ledger, n)));
    assert_eq!(ledger.open_drops().unwrap(), []);
}

/// A drop of a picture and its sidecar is sent, answered, published and filed.
fn life(ledger: &mut SqliteLedger, n: u8) {
    let wall = Timestamp::from_second(1_800_000_000 + i64::from(n)).unwrap();
    let now = Moment { wall, boot: "boot".into(), since_boot: Duration::from_secs(1_000 + u64::from(n)) };
    let member = |name: String, role| Member {
        print: Some(Fingerprint::of(name.as_bytes())),
        name: name.into(),
        role,
        size: 1_000,
        moves: true,
    };
    let mut shot = Shot::new(ShotNo(0), Some(7));
    let drop = NewDrop {
        id: DropId([n; 16]),
        folder: RelPath::root(),
        stem: format!("terrace{n}").into(),
        members: vec![
            member(format!("terrace{n}.txt"), Role::Sidecar),
            member(format!("terrace{n}.jpg"), Role::Picture),
        ],
        working: "/working".into(),
        recognition: Some(Fingerprint::of(&[n])),
        plan: serde_json::Value::Object(request()).to_string(),
        shots: vec![shot.clone()],
        failure: None,
        continues: None,
    };
    ledger.begin(&drop, Some(shot.no), Limits { per_hour: 100, per_day: 500 }, &now).unwrap();
    shot = shot.apply(ShotEvent::Send { at: wall }).unwrap();
    let picture =
        Spooled { blake3: Fingerprint::of(&[n]).to_string(), bytes: 1_000, extension: "png".into(), at: wall };
    let name = OutputName { picture: "terrace.png".into(), provenance: Some("terrace.reimagined.json".into()) };
    ledger.number(drop.id, 1).unwrap();
    for event in [ShotEvent::Receive { picture }, ShotEvent::Name { name }, ShotEvent::Deliver] {
        shot = shot.apply(event).unwrap();
        ledger.step(drop.id, &shot, Billed::Yes).unwrap();
    }
    let names = drop.members.iter().map(|member| member.name.clone()).collect();
    ledger.file_under(drop.id, &Filing { fate: Fate::Archive, names, note: None }).unwrap();
    ledger.close(drop.id, Ending::Archived, None, wall).unwrap();
}

fn provenance(_: &Path) {
    let (id, print, at) = (DropId([7; 16]), Fingerprint::of(b"terrace"), Some(Timestamp::UNIX_EPOCH));
    let provenance = Provenance {
        schema: SCHEMA,
        result: "terrace.png".into(),
        result_blake3: print.to_string(),
        drop: id.to_string(),
        shot: 1,
        inputs: ["terrace.txt", "terrace.jpg"].map(|name| Input::new(OsStr::new(name), print)).into(),
        request: request(),
        origins: request().keys().map(|key| (key.clone(), "autumn/preset.toml:3".into())).collect(),
        request_id: Some("0123456789abcdef".into()),
        seed: Some(7),
        cost: Some(0.04),
        times: Times { sent: at, received: at, published: at },
        attempts: 1,
        unconfirmed_attempts: false,
        version: env!("CARGO_PKG_VERSION").into(),
    };
    let known = counted(|| (0..100).filter(|_| is_of(&provenance.to_bytes(), id, ShotNo(0))).count());
    assert_eq!(known, 100);
}
