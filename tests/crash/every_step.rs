//! A kill before and after every step; a power cut after every one; a second kill in the recovery from the first.

use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::checker::{Seen, Tally, at_the_end};
use super::disk::{Disk, Loss};
use super::scenes::{Play, SCENES, Scene};
use super::tracer::{self, At, Run};
use super::{Dice, long};

/// What happens at a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blow {
    /// SIGKILL before it.
    Before,
    /// SIGKILL after it.
    After,
    /// SIGKILL after it, and again at some step of the next run.
    Twice(u64),
    /// The power goes after it.
    Power(Loss),
}

/// What came of one blow.
struct Outcome {
    /// The step in words, if it was reached.
    killed: Option<String>,
    tally: Tally,
    /// For whoever has to find out what went wrong.
    story: String,
}

impl Play {
    fn traced(&self, args: &[&str], at: Option<At>, disk: &mut dyn tracer::Watcher) -> Run {
        let mut command = self.site.command();
        command.args(args);
        tracer::run(&command, &self.site.next_log(), &self.roots(), at, disk)
    }
}

/// Plays a scene with a blow at that step.
fn strike(scene: &Scene, step: usize, blow: Blow) -> Outcome {
    let play = Play::new();
    (scene.prepare)(&play);
    let at = Some(At { step, before: blow == Blow::Before });
    let mut story = String::new();
    let run = if let Blow::Power(loss) = blow {
        let mut disk = Disk::new(&play.roots());
        let run = play.traced(scene.command, at, &mut disk);
        if run.killed.is_some() {
            disk.cut(loss);
            let _ = writeln!(story, "the disk after the cut: {}", play.site.describe());
        }
        run
    } else {
        play.traced(scene.command, at, &mut ())
    };
    // What a power cut takes back was not promised yet; what it leaves in the spool was.
    let mut seen = Seen::now(&play.site);
    if matches!(blow, Blow::Power(_)) {
        seen.forget_the_outbox();
    }
    if let Blow::Twice(seed) = blow
        && run.killed.is_some()
    {
        let again = At { step: 1 + Dice(seed).roll(60) as usize, before: seed % 2 == 0 };
        let second = play.traced(scene.command, Some(again), &mut ());
        seen.add(Seen::now(&play.site));
        let _ = writeln!(story, "then: {:?}", second.killed);
    }
    // A person whose `retry` was cut short gives it again.
    if scene.command[0] != "run" {
        let output = play.site.call(scene.command);
        assert!(output.status.success(), "{output:?}");
    }
    let ended = play.to_the_end();
    let mut tally = at_the_end(&play.site, &play.drops.borrow(), &play.book, scene.sends, &seen);
    tally.litter.extend(ended.err());
    let _ = writeln!(story, "{}\nsteps:\n  {}", play.site.describe(), run.log.join("\n  "));
    Outcome { killed: run.killed, tally, story }
}

/// How many steps a scene has when nobody disturbs it.
fn steps(scene: &Scene) -> usize {
    let play = Play::new();
    (scene.prepare)(&play);
    let run = play.traced(scene.command, None, &mut ());
    assert!(run.steps > 20, "{:?}: {:?}\n{}", scene.name, run, play.site.describe());
    run.steps
}

/// A row of the table.
#[derive(Default)]
struct Row {
    steps: usize,
    planned: usize,
    kills: usize,
    cuts: usize,
    tally: Tally,
    stories: Vec<String>,
}

/// Every scene struck with these blows, each at every so-manieth step. Much of it is waiting, so more at a time than
/// there are cores.
fn campaign(blows: &[(Blow, usize)]) {
    let rows: Vec<Mutex<Row>> = SCENES.iter().map(|_| Mutex::default()).collect();
    let mut work = Vec::new();
    let wanted = std::env::var("CRASH_SCENE").unwrap_or_default();
    for (n, scene) in SCENES.iter().enumerate().filter(|(_, scene)| scene.name.contains(&wanted)) {
        let steps = steps(scene);
        rows[n].lock().unwrap().steps = steps;
        for (k, (blow, stride)) in blows.iter().enumerate() {
            // The sample begins elsewhere for each scene and blow.
            let first = 1 + (n * 5 + k * 3) % stride;
            let before = work.len();
            work.extend((first..=steps + 2).step_by(*stride).map(|step| (n, step, *blow)));
            rows[n].lock().unwrap().planned += work.len() - before;
        }
    }
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some((n, step, blow)) = work.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let scene = &SCENES[*n];
                    let outcome = catch_unwind(AssertUnwindSafe(|| strike(scene, *step, *blow)));
                    rows[*n].lock().unwrap().enter(scene, *step, *blow, outcome);
                }
            });
        }
    });
    let rows: Vec<Row> = rows.into_iter().map(|row| row.into_inner().unwrap()).collect();
    eprintln!("{}", table(&rows));
    for (scene, row) in SCENES.iter().zip(&rows) {
        // Threads take turns as they like, so a run may end before the last steps of another.
        assert!((row.kills + row.cuts) * 10 >= row.planned * 8, "{}: most blows hit nothing", scene.name);
    }
    let (blows, held) = rows.iter().fold((0, 0), |(b, h), row| (b + row.kills + row.cuts, h + row.tally.held));
    assert!(held * 5 <= blows, "{held} of {blows}: far more is given up than can have been on the wire");
    let stories: Vec<_> = rows.into_iter().flat_map(|row| row.stories).collect();
    assert!(stories.is_empty(), "{} went wrong; the first:\n{}", stories.len(), stories[0]);
}

impl Row {
    fn enter(&mut self, scene: &Scene, step: usize, blow: Blow, outcome: std::thread::Result<Outcome>) {
        let Ok(outcome) = outcome else {
            self.stories.push(format!("{}, {blow:?} at step {step}: it panicked", scene.name));
            return;
        };
        let power = matches!(blow, Blow::Power(_));
        self.kills += usize::from(outcome.killed.is_some() && !power);
        self.cuts += usize::from(outcome.killed.is_some() && power);
        let faults = outcome.tally.faults();
        if !faults.is_empty() {
            eprintln!("{}, {blow:?} {:?}: {}", scene.name, outcome.killed, faults.join("; "));
            self.stories.push(format!(
                "{}, {blow:?} {:?}:\n{}\n{}",
                scene.name,
                outcome.killed,
                faults.join("\n"),
                outcome.story
            ));
        }
        self.tally.add(outcome.tally);
    }
}

fn table(rows: &[Row]) -> String {
    let mut out = format!(
        "{:<30} {:>5} {:>6} {:>6} {:>6} {:>6} {:>5} {:>5} {:>6} {:>6}\n",
        "scene", "steps", "kills", "power", "drops", "shots", "made", "held", "lost", "again"
    );
    let mut line = |name: &str, row: &Row| {
        let t = &row.tally;
        let _ = writeln!(
            out,
            "{name:<30} {:>5} {:>6} {:>6} {:>6} {:>6} {:>5} {:>5} {:>6} {:>6}",
            row.steps,
            row.kills,
            row.cuts,
            t.drops,
            t.shots,
            t.delivered,
            t.held,
            t.lost.len(),
            t.paid_again.len()
        );
    };
    let mut all = Row::default();
    for (scene, row) in SCENES.iter().zip(rows) {
        line(scene.name, row);
        all.steps += row.steps;
        all.kills += row.kills;
        all.cuts += row.cuts;
        all.tally.add(row.tally.clone());
    }
    line("all", &all);
    out
}

#[test]
fn a_kill_at_any_step_loses_nothing_and_pays_for_nothing_twice() {
    let (each, twice) = if long() { (1, 5) } else { (40, 40) };
    campaign(&[(Blow::Before, each), (Blow::After, each), (Blow::Twice(1), twice), (Blow::Twice(2), twice)]);
}

#[test]
fn a_power_cut_at_any_step_loses_nothing_that_was_promised() {
    let each = if long() { 1 } else { 40 };
    let losses = [Loss::Everything, Loss::Bytes, Loss::BytesAndHalfTheNames];
    campaign(&losses.map(|loss| (Blow::Power(loss), each)));
}
