//! The rows of the table.

use std::path::PathBuf;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use reimagined::domain::ids::Fingerprint;
use reimagined::ledger::Ledger as _;
use reimagined::ledger::sqlite::SqliteLedger;

use super::api::Api;
use super::args::{Args, Row};
use super::measure::{count, cpu, median, memory, sleeps, wait};
use super::place::{Place, Places, photograph};
use super::rivals::{Job, Rival, Running, daemon, wait_for_daemon};

/// Between two drops, or two commits, whose time is taken one by one.
const QUIET: Duration = Duration::from_millis(150);

/// What all rows use.
struct Bench<'a> {
    args: &'a Args,
    api: Api,
    dir: PathBuf,
    places: Places,
    binary: PathBuf,
    picture: Vec<u8>,
}

/// Measures what was asked for and prints it.
pub fn run(args: &Args) {
    let dir = args.dir.clone().unwrap_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")));
    let binary = args.binary.clone().unwrap_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_reimagined")));
    // About 200 KB, as both what is dropped and what comes back.
    let picture = photograph(1024, 768, 14, 85);
    let bench = Bench { args, api: Api::start(&picture), places: Places::new(&dir, args.keep), dir, binary, picture };
    println!(
        "{} of {} KB, {} in flight, {} round(s); on {}, {} CPUs\n",
        args.pictures,
        bench.picture.len() / 1000,
        args.in_flight,
        args.rounds,
        bench.dir.display(),
        std::thread::available_parallelism().map_or(0, usize::from)
    );
    println!("| figure | who | measured | to the floor |\n|---|---|---|---|");
    let wanted = |row| args.rows.is_empty() || args.rows.contains(&row);
    for (row, measure) in [
        (Row::Size, (|b| b.size()) as fn(&Bench<'_>)),
        (Row::Reaction, |b| b.reaction()),
        (Row::Burst, |b| b.burst(false)),
        (Row::Upload, |b| b.burst(true)),
        (Row::Latency, |b| b.latency()),
        (Row::Waiting, |b| b.waiting()),
        (Row::Scaling, |b| b.scaling()),
        (Row::Idle, |b| b.idle()),
    ] {
        if wanted(row) {
            measure(&bench);
        }
    }
}

fn line(figure: &str, who: &str, measured: &str, ratio: Option<f64>) {
    let ratio = ratio.map(|r| format!("{r:.2}")).unwrap_or_default();
    println!("| {figure} | {who} | {measured} | {ratio} |");
}

impl<'a> Bench<'a> {
    fn job(&'a self, in_flight: usize, upload: bool) -> Job<'a> {
        Job {
            port: self.api.port,
            in_flight,
            upload,
            binary: &self.binary,
            python: &self.args.python,
            log: self.args.log.as_deref(),
        }
    }

    fn place(&self) -> Place {
        Place::new(&self.places)
    }

    /// Pictures per second and CPU per picture.
    fn burst(&self, upload: bool) {
        let (n, job) = (self.args.pictures, self.job(self.args.in_flight, upload));
        let mut all = vec![Rival::Floor, Rival::FloorKept, Rival::Reimagined];
        if !self.args.no_rivals {
            all.push(Rival::Python);
            if !upload {
                all.push(Rival::Curl);
            }
        }
        let what = if upload { "burst, upload" } else { "burst, public_url" };
        all.retain(|rival| match rival.absent(&job) {
            Some(why) => {
                line(what, rival.name(), &format!("absent: {why}"), None);
                false
            }
            None => true,
        });
        let mut found: Vec<(Vec<f64>, Vec<f64>)> = vec![Default::default(); all.len()];
        for _ in 0..self.args.rounds {
            for (rival, (rates, cpus)) in all.iter().zip(&mut found) {
                let place = self.place();
                place.stage(n, &self.picture, "stage");
                self.api.begin(Duration::ZERO);
                let running = rival.start(&place, &job);
                let (cpu_before, begun) = (cpu(running.pid()), Instant::now());
                place.drop_staged(0..n);
                self.all_filed(&place, n);
                rates.push(n as f64 / begun.elapsed().as_secs_f64());
                cpus.push((cpu(running.pid()) - cpu_before) / n as f64 * 1e6);
                end(*rival, running);
            }
        }
        let found: Vec<_> = found.into_iter().map(|(rates, cpus)| (median(rates), median(cpus))).collect();
        for (rival, (rate, cpu)) in all.iter().zip(&found) {
            line(what, rival.name(), &format!("{rate:.0} pictures/s"), Some(rate / found[0].0));
            line(&format!("{what}: CPU"), rival.name(), &format!("{cpu:.0} µs a picture"), Some(cpu / found[0].1));
        }
    }

    /// Waits until results and originals of so many lie where they belong.
    fn all_filed(&self, place: &Place, n: usize) {
        wait("all were answered", Duration::from_millis(2), || self.api.answered() >= n);
        let there = |folder: &str| count(&place.path(folder), ".jpg");
        wait("all are filed", Duration::from_millis(20), || there("archive") >= n && there("outbox") >= n);
    }

    /// Rename into the inbox to request on the wire.
    fn reaction(&self) {
        let job = self.job(self.args.in_flight, false);
        let mut found = Vec::new();
        for rival in [Rival::Floor, Rival::Reimagined] {
            let place = self.place();
            place.stage(self.args.samples, &self.picture, "stage");
            self.api.begin(Duration::ZERO);
            let running = rival.start(&place, &job);
            let moments = self.api.moments();
            let mut times = Vec::new();
            for n in 0..self.args.samples {
                std::thread::sleep(QUIET);
                let begun = Instant::now();
                place.drop_staged(n..n + 1);
                times.push(next(&moments).duration_since(begun).as_secs_f64() * 1e3);
                self.all_filed(&place, n + 1);
            }
            end(rival, running);
            found.push(median(times));
        }
        let (commit, hot) = (self.commit(QUIET), self.commit(Duration::ZERO));
        line("reaction", Rival::Floor.name(), &format!("{:.2} ms", found[0]), None);
        let text = format!("{commit:.2} ms (one right behind the other: {hot:.2} ms)");
        line("reaction", "one ledger commit", &text, None);
        let over = found[1] - found[0] - commit;
        line("reaction", Rival::Reimagined.name(), &format!("{:.2} ms (floor + commit + {over:.2})", found[1]), None);
    }

    /// One commit of the ledger, in milliseconds, each so long after the one before.
    fn commit(&self, after: Duration) -> f64 {
        let place = self.place();
        let mut ledger = SqliteLedger::open(&place.path("ledger.db")).unwrap();
        let times = (0..self.args.samples as u64).map(|n| {
            std::thread::sleep(after);
            let begun = Instant::now();
            ledger.uploaded(Fingerprint::of(&n.to_le_bytes()), "https://a", jiff::Timestamp::now()).unwrap();
            begun.elapsed().as_secs_f64() * 1e3
        });
        median(times.collect())
    }

    /// An API of 1 s latency, 64 in flight.
    fn latency(&self) {
        const IN_FLIGHT: usize = 64;
        let (n, job) = (self.args.drops, self.job(IN_FLIGHT, false));
        let ideal = n.div_ceil(IN_FLIGHT) as f64;
        let mut found: Vec<(Vec<f64>, Vec<f64>)> = vec![Default::default(); 2];
        let all = [Rival::Floor, Rival::Reimagined];
        for _ in 0..self.args.rounds {
            for (rival, (answered, filed)) in all.iter().zip(&mut found) {
                let place = self.place();
                place.stage(n, &self.picture, "stage");
                self.api.begin(Duration::from_secs(1));
                let running = rival.start(&place, &job);
                let begun = Instant::now();
                place.drop_staged(0..n);
                wait("all were answered", Duration::from_millis(1), || self.api.answered() >= n);
                answered.push(ideal / begun.elapsed().as_secs_f64());
                self.all_filed(&place, n);
                filed.push(ideal / begun.elapsed().as_secs_f64());
                end(*rival, running);
            }
        }
        for (rival, (answered, filed)) in all.iter().zip(found) {
            let (answered, filed) = (median(answered) * 100.0, median(filed) * 100.0);
            let text = format!(
                "{answered:.1} % of the ideal {ideal} s until the last answer, {filed:.1} % until all is filed"
            );
            line("1 s latency, 64 in flight", rival.name(), &text, None);
        }
    }

    /// Very many files waiting at the start, against a thousand.
    fn waiting(&self) {
        let job = self.job(self.args.in_flight, false);
        let picture = photograph(64, 48, 4, 70);
        let sizes = [self.args.waiting.min(1000), self.args.waiting];
        let first = 900.min(sizes[0]);
        let places: Vec<Place> = sizes.iter().map(|_| self.place()).collect();
        let mut found: Vec<[Vec<f64>; 4]> = vec![Default::default(); 2];
        for _ in 0..self.args.rounds {
            for ((size, place), [starts, rates, peaks, anons]) in sizes.iter().zip(&places).zip(&mut found) {
                // Those of an earlier round that were sent are replaced.
                for folder in ["outbox", "archive"] {
                    std::fs::remove_dir_all(place.path(folder)).unwrap();
                    std::fs::create_dir(place.path(folder)).unwrap();
                }
                place.stage(*size, &picture, "inbox");
                std::thread::sleep(Duration::from_secs(4));
                place.configure(job.port, job.in_flight, true);
                self.api.begin(Duration::ZERO);
                let moments = self.api.moments();
                let begun = Instant::now();
                let running = daemon(place, &job);
                let began = next(&moments);
                starts.push(began.duration_since(begun).as_secs_f64());
                let mut anon = 0;
                wait("so many were sent", Duration::from_millis(2), || {
                    anon = anon.max(memory(running.pid(), "RssAnon"));
                    self.api.begun() >= first
                });
                let last = moments.try_iter().take(first - 1).last().unwrap_or(began);
                rates.push(first as f64 / last.duration_since(began).as_secs_f64());
                peaks.push(memory(running.pid(), "VmHWM") as f64 / 1024.0);
                anons.push(anon as f64 / 1024.0);
                running.stop();
            }
        }
        let mut base = None;
        for (size, all) in sizes.iter().zip(found) {
            let [start, rate, peak, anon] = all.map(median);
            let who = format!("{size} waiting");
            line("first request after the start", &who, &format!("{start:.2} s"), None);
            line("memory", &who, &format!("{peak:.0} MB at the most, {anon:.0} MB of it anonymous"), None);
            line("rate", &who, &format!("{rate:.0} requests/s"), base.map(|base: f64| rate / base));
            base = base.or(Some(rate));
        }
    }

    /// Nothing to do, beside a large archive and many folders.
    fn idle(&self) {
        let (job, place) = (self.job(4, false), self.place());
        for n in 0..10_000 {
            std::fs::write(place.path("archive").join(format!("{n}.jpg")), "x").unwrap();
        }
        for n in 0..1000 {
            std::fs::create_dir(place.path("inbox").join(format!("folder-{n}"))).unwrap();
        }
        place.configure(job.port, job.in_flight, true);
        let running = daemon(&place, &job);
        wait_for_daemon(&place, running.pid());
        std::thread::sleep(Duration::from_secs(15));
        let look = || (cpu(running.pid()), sleeps(running.pid()));
        let before = look();
        std::thread::sleep(Duration::from_secs(self.args.idle));
        let after = look();
        let share = (after.0 - before.0) / self.args.idle as f64 * 100.0;
        let anon = memory(running.pid(), "RssAnon") as f64 / 1024.0;
        let text = format!(
            "{share:.2} % CPU, {} wake-ups in {} s, {anon:.1} MB anonymous",
            after.1 - before.1,
            self.args.idle
        );
        line("idle, 10,000 archived, 1,000 folders", Rival::Reimagined.name(), &text, None);
    }

    /// Pictures of 24 megapixels that need scaling.
    fn scaling(&self) {
        let (n, job) = (self.args.large, self.job(4, true));
        let picture = photograph(6000, 4000, 5, 85);
        let place = self.place();
        place.stage(n, &picture, "stage");
        let few = n.min(40);
        let bare = bare_loop(&picture, few);
        self.api.begin(Duration::ZERO);
        let running = Rival::Reimagined.start(&place, &job);
        let (cpu_before, begun) = (cpu(running.pid()), Instant::now());
        place.drop_staged(0..n);
        self.all_filed(&place, n);
        let took = begun.elapsed().as_secs_f64();
        let busy = (cpu(running.pid()) - cpu_before) / took;
        let (rate, peak) = (n as f64 / took, memory(running.pid(), "VmHWM") as f64 / 1024.0);
        running.stop();
        let what = format!("24 megapixels ({} MB), scaled", picture.len() / 1_000_000);
        line(&what, "bare decode, scale, encode on every CPU", &format!("{bare:.2} pictures/s"), Some(1.0));
        let text = format!("{rate:.2} pictures/s, {busy:.2} CPUs busy, {peak:.0} MB at the most");
        line(&what, Rival::Reimagined.name(), &text, Some(rate / bare));
    }

    fn size(&self) {
        let bytes = std::fs::metadata(&self.binary).unwrap().len();
        line("release binary", "reimagined", &format!("{:.1} MB", bytes as f64 / 1e6), None);
    }
}

/// What decoding, scaling and encoding take by themselves: pictures per second on all CPUs.
fn bare_loop(picture: &[u8], n: usize) -> f64 {
    use fast_image_resize::images::{Image, ImageRef};
    use fast_image_resize::{PixelType, Resizer};
    let left = std::sync::atomic::AtomicUsize::new(n);
    let one = || {
        let decoded = image::load_from_memory(picture).unwrap().into_rgb8();
        let whole = ImageRef::new(decoded.width(), decoded.height(), decoded.as_raw(), PixelType::U8x3).unwrap();
        let mut small = Image::new(2048, 1365, PixelType::U8x3);
        Resizer::new().resize(&whole, &mut small, None).unwrap();
        let mut out = Vec::new();
        let encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut out, 92);
        image::ImageEncoder::write_image(encoder, small.buffer(), 2048, 1365, image::ExtendedColorType::Rgb8).unwrap();
        assert!(!out.is_empty());
    };
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                use std::sync::atomic::Ordering::Relaxed;
                while left.fetch_update(Relaxed, Relaxed, |n| n.checked_sub(1)).is_ok() {
                    one();
                }
            });
        }
    });
    n as f64 / begun.elapsed().as_secs_f64()
}

fn next(moments: &Receiver<Instant>) -> Instant {
    moments.recv_timeout(Duration::from_secs(300)).expect("a request came")
}

/// The daemon is asked to end, others are just killed.
fn end(rival: Rival, running: Running) {
    if rival == Rival::Reimagined {
        running.stop();
    }
}
