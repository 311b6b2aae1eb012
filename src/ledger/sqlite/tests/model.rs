//! Any course of events, against a model in memory.

use proptest::prelude::*;

use super::*;
use crate::domain::life::ShotState;
use crate::ledger::Sum;

const LIMITS: Limits = Limits { per_hour: 3, per_day: 5 };
const WINDOWS: [(u32, i64, &str); 2] = [(3, 3_600, "images_per_hour"), (5, 86_400, "images_per_day")];

#[derive(Clone, Debug)]
enum Event {
    /// A drop of one of a few files, with so many shots; whether it is sent, and continues what is known.
    Begin {
        files: u8,
        shots: u32,
        send: bool,
        continues: bool,
    },
    Send(prop::sample::Index),
    Step(prop::sample::Index, u8),
    Close(prop::sample::Index, Ending),
    Pass(i64),
    SetClock(i64),
    Reboot,
    Reopen,
}

fn events() -> impl Strategy<Value = Event> {
    let any_index = any::<prop::sample::Index>;
    let ending =
        prop::sample::select(vec![Ending::Archived, Ending::Failed, Ending::Failed, Ending::Returned, Ending::Lost]);
    prop_oneof![
        3 => (0..3_u8, 1..3_u32, any::<bool>(), any::<bool>())
            .prop_map(|(files, shots, send, continues)| Event::Begin { files, shots, send, continues }),
        4 => any_index().prop_map(Event::Send),
        4 => (any_index(), 0..4_u8).prop_map(|(i, n)| Event::Step(i, n)),
        2 => (any_index(), ending).prop_map(|(i, e)| Event::Close(i, e)),
        3 => prop::sample::select(vec![1, 599, 1_800, 3_600, 40_000, 86_400]).prop_map(Event::Pass),
        1 => (-100_000..100_000_i64).prop_map(Event::SetClock),
        1 => Just(Event::Reboot),
        1 => Just(Event::Reopen),
    ]
}

struct Send {
    of: (DropId, ShotNo),
    wall: i64,
    boot: u32,
    since: i64,
    /// Whether its answer was read, or it was lost.
    judged: bool,
    cost: Option<f64>,
}

struct Closed {
    id: DropId,
    files: u8,
    at: i64,
    ending: Ending,
    used: bool,
    back: bool,
}

/// What a ledger is to say, in the plainest words.
#[derive(Default)]
struct Model {
    wall: i64,
    boot: u32,
    since: i64,
    sends: Vec<Send>,
    open: Vec<(u8, OpenDrop)>,
    closed: Vec<Closed>,
    next: u8,
}

impl Model {
    fn now(&self) -> Moment {
        by(self.wall, &format!("boot-{}", self.boot), self.since)
    }

    fn age(&self, send: &Send) -> i64 {
        (if send.boot == self.boot { self.since - send.since } else { self.wall - send.wall }).max(0)
    }

    fn sum(&self, window: i64) -> Sum {
        let sends: Vec<_> = self.sends.iter().filter(|s| self.age(s) < window).collect();
        Sum {
            images: sends.len() as u64,
            cost: sends.iter().filter_map(|s| s.cost).sum(),
            unpriced: sends.iter().filter(|s| s.judged && s.cost.is_none()).count() as u64,
        }
    }

    fn fits(&mut self) -> Sent {
        let (wall, boot, since) = (self.wall, self.boot, self.since);
        for send in self.sends.iter_mut().filter(|s| s.boot != boot && s.wall > wall) {
            (send.wall, send.boot, send.since) = (wall, boot, since);
        }
        let mut wait = None;
        for (limit, window, which) in WINDOWS {
            let mut left: Vec<_> = self.sends.iter().map(|s| window - self.age(s)).filter(|left| *left > 0).collect();
            left.sort_unstable();
            // One by one they become too old, until one more fits.
            if left.len() >= limit as usize {
                wait = wait.max(Some((left[left.len() - limit as usize], which)));
            }
        }
        wait.map_or(Sent::Committed, |(seconds, which)| Sent::Limited {
            wait: Duration::from_secs(seconds.unsigned_abs()),
            which,
        })
    }

    fn record(&mut self, of: (DropId, ShotNo)) {
        self.sends.push(Send { of, wall: self.wall, boot: self.boot, since: self.since, judged: false, cost: None });
    }

    /// The one that is known again, by its place in `closed`.
    fn known(&self, files: u8) -> Option<usize> {
        let known = |c: &&(usize, &Closed)| {
            c.1.files == files && !c.1.used && matches!(c.1.ending, Ending::Failed | Ending::Returned)
        };
        let all: Vec<_> = self.closed.iter().enumerate().collect();
        // Of two that were closed at once the one begun later.
        all.iter().filter(known).max_by_key(|(_, c)| (c.at, c.id)).map(|(at, _)| *at)
    }

    fn came_back(&mut self, files: u8) {
        let counts = |c: &&mut Closed| c.files == files && !c.used && !c.back && c.ending == Ending::Failed;
        if let Some(newest) = self.closed.iter_mut().filter(counts).max_by_key(|c| (c.at, c.id)) {
            newest.back = true;
        }
    }

    fn failures(&self) -> u64 {
        self.closed.iter().filter(|c| c.ending == Ending::Failed && !c.used && !c.back).count() as u64
    }
}

/// One event, to the ledger and to the model.
fn run(ledger: &mut SqliteLedger, model: &mut Model, event: &Event) {
    let now = model.now();
    // Every open drop's shots, as (drop, shot).
    let shots: Vec<(usize, usize)> =
        (0..model.open.len()).flat_map(|d| (0..model.open[d].1.drop.shots.len()).map(move |s| (d, s))).collect();
    match *event {
        Event::Begin { files, shots, send, continues } => {
            let known = model.known(files);
            assert_eq!(
                ledger.recognise(print(&format!("known {files}"))).unwrap().map(|k| (k.id, k.ending)),
                known.map(|at| (model.closed[at].id, model.closed[at].ending))
            );
            let continued = known.filter(|_| continues);
            let mut drop = NewDrop { id: id(model.next), ..a_drop(files, shots) };
            drop.continues = continued.map(|at| model.closed[at].id);
            let first = send.then_some(ShotNo(shots - 1));
            let expected = if send { model.fits() } else { Sent::Committed };
            assert_eq!(ledger.begin(&drop, first, LIMITS, &now).unwrap(), expected);
            if expected != Sent::Committed {
                return;
            }
            match continued {
                Some(at) => model.closed[at].used = true,
                None => model.came_back(files),
            }
            if let Some(no) = first {
                let shot = drop.shots.last_mut().unwrap();
                *shot = shot.apply(ShotEvent::Send { at: now.wall }).unwrap();
                model.record((drop.id, no));
            }
            model.next += 1;
            model.open.push((files, OpenDrop { drop, claimed: now.wall, number: None, filing: None }));
        }
        Event::Send(ref index) if !shots.is_empty() => {
            let (d, s) = *index.get(&shots);
            let drop = &model.open[d].1.drop;
            let (id, Ok(shot)) = (drop.id, drop.shots[s].apply(ShotEvent::Send { at: now.wall })) else { return };
            let expected = model.fits();
            assert_eq!(ledger.send(id, &shot, LIMITS, &now).unwrap(), expected);
            if expected == Sent::Committed {
                model.record((id, shot.no));
                model.open[d].1.drop.shots[s] = shot;
            }
        }
        Event::Step(ref index, kind) if !shots.is_empty() => {
            let (d, s) = *index.get(&shots);
            let open = &mut model.open[d].1.drop;
            let id = open.id;
            let was_sending = matches!(open.shots[s].state, ShotState::Sending { .. });
            let fail = |billed| ShotEvent::Fail { reason: "r".into(), billed };
            let (event, billed) = match kind {
                0 => (ShotEvent::GiveBack { not_before: None, counts: true }, Billed::No),
                1 => (ShotEvent::Link { url: "u".into(), at: now.wall }, Billed::Yes),
                2 => (ShotEvent::Lose { reason: "r".into(), again: true }, Billed::Unknown),
                _ => (fail(Billed::No), Billed::No),
            };
            let Ok(mut shot) = open.shots[s].apply(event) else { return };
            shot.receipt.cost = (kind == 1).then_some(0.25);
            ledger.step(id, &shot, billed).unwrap();
            open.shots[s] = shot.clone();
            let last = model.sends.iter().rposition(|send| send.of == (id, shot.no));
            if let Some(last) = last.filter(|_| was_sending) {
                if billed == Billed::No {
                    model.sends.remove(last);
                } else {
                    (model.sends[last].judged, model.sends[last].cost) = (true, shot.receipt.cost);
                }
            }
        }
        Event::Close(ref index, ending) if !model.open.is_empty() => {
            let (files, open) = model.open.remove(index.index(model.open.len()));
            ledger.close(open.drop.id, ending, None, now.wall).unwrap();
            let closed = Closed { id: open.drop.id, files, at: model.wall, ending, used: false, back: false };
            model.closed.push(closed);
        }
        Event::Pass(seconds) => {
            model.wall += seconds;
            model.since += seconds;
        }
        Event::SetClock(by) => model.wall += by,
        Event::Reboot => {
            model.boot += 1;
            model.since = 0;
        }
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_ledger_says_what_the_model_says(
        course in proptest::collection::vec((events(), proptest::bool::ANY), 1..60)
    ) {
        let room = Room::new();
        let mut ledger = room.open();
        let mut model = Model::default();
        for (event, apart) in course {
            if apart {
                // What comes from here on shares a commit.
                ledger.flush().unwrap();
                ledger.hold();
            }
            if matches!(event, Event::Reopen) {
                ledger.flush().unwrap();
                drop(ledger);
                ledger = room.open();
            }
            run(&mut ledger, &mut model, &event);
            let usage = ledger.usage(&model.now()).unwrap();
            let sums = [3_600, 86_400, 30 * 86_400].map(|window| model.sum(window));
            prop_assert_eq!([usage.hour, usage.day, usage.month], sums);
            prop_assert_eq!(ledger.failures(2).unwrap().0, model.failures());
            let open: Vec<_> = model.open.iter().map(|(_, open)| open.clone()).collect();
            prop_assert_eq!(ledger.open_drops().unwrap(), open);
        }
    }
}
