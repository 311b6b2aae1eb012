//! The life of drops against a model that knows nothing of how they are kept: any sequence of claims, sends,
//! answers, publications, filings, returns and crashes, through the rules of the domain and a real ledger.
//!
//! The model is the world outside: what the service billed, what lies in which folder, what was promised.

#![allow(clippy::unwrap_used, reason = "tests say so by failing")]

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use proptest::prelude::*;
use reimagined::domain::answer::{Next, Policy, next};
use reimagined::domain::gate::Treatment;
use reimagined::domain::ids::{DropId, Fingerprint, RelPath, ShotNo};
use reimagined::domain::life::{Fate, OutputName, Shot, ShotEvent, ShotState, Spooled, fate, may_go_back, recover};
use reimagined::domain::verdict::{
    Billed, BodyKind, Credits, Endpoint, Lost, MaybeSent, NotSent, NotSentKind, Reply, Verdict, decide_ask, judge,
    judge_lost,
};
use reimagined::ledger::sqlite::SqliteLedger;
use reimagined::ledger::{Ending, Filing, Ledger as _, Limits, Member, Moment, NewDrop, Role, Sent};

const HOUR: i64 = 3600 * 1000;

/// What the service does with a request, and what of it arrives.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Service {
    Picture,
    Link,
    RefusalWithSuccess,
    PageWithSuccess,
    Refused,
    NoKey,
    ForbiddenWithCredits,
    ForbiddenWithout,
    TooMany,
    Trouble,
    LateTrouble,
    GatewayGaveUp,
    CutOff,
    NoConnection,
}

/// What is known of a bill by the service's own rule: only a success is billed, and what was cut off may be one.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Bill {
    Surely,
    Perhaps,
    Never,
}

impl Service {
    const ALL: [Self; 14] = [
        Self::Picture,
        Self::Link,
        Self::RefusalWithSuccess,
        Self::PageWithSuccess,
        Self::Refused,
        Self::NoKey,
        Self::ForbiddenWithCredits,
        Self::ForbiddenWithout,
        Self::TooMany,
        Self::Trouble,
        Self::LateTrouble,
        Self::GatewayGaveUp,
        Self::CutOff,
        Self::NoConnection,
    ];

    fn bill(self) -> Bill {
        match self {
            Self::Picture | Self::Link => Bill::Surely,
            Self::RefusalWithSuccess
            | Self::PageWithSuccess
            | Self::LateTrouble
            | Self::GatewayGaveUp
            | Self::CutOff => Bill::Perhaps,
            _ => Bill::Never,
        }
    }

    /// The rules' view of it.
    fn verdict(self, now: Timestamp) -> Verdict {
        let reply = |status, body, after| {
            let message = Some("words".to_owned());
            let reply = Reply { status, retry_after: None, rate_reset: None, message, gave_up: false, body, after };
            judge(Endpoint::Model, &reply, now)
        };
        let unusable = || BodyKind::Unusable { what: "a page".into(), lost: false };
        let soon = Duration::from_secs(1);
        match self {
            Self::Picture => reply(200, BodyKind::Picture, soon),
            Self::Link => reply(200, BodyKind::Link("https://cdn.example/x.png".into()), soon),
            Self::RefusalWithSuccess => reply(200, BodyKind::Refusal, soon),
            Self::PageWithSuccess => reply(200, unusable(), soon),
            Self::Refused => reply(422, unusable(), soon),
            Self::NoKey => reply(401, unusable(), soon),
            Self::ForbiddenWithCredits | Self::ForbiddenWithout => {
                let Verdict::Ask { message } = reply(403, unusable(), soon) else { panic!("a 403 is asked about") };
                let good = self == Self::ForbiddenWithCredits;
                decide_ask(&if good { Credits::Good { total: 5.0 } } else { Credits::Low { total: 0.0 } }, &message)
            }
            Self::TooMany => reply(429, unusable(), soon),
            Self::Trouble => reply(503, unusable(), soon),
            Self::LateTrouble => reply(503, unusable(), Duration::from_secs(31)),
            Self::GatewayGaveUp => reply(504, unusable(), soon),
            Self::CutOff => judge_lost(Endpoint::Model, &Lost::MaybeSent(MaybeSent { message: "cut".into() })),
            Self::NoConnection => {
                let not_sent = NotSent { kind: NotSentKind::Refused, message: "refused".into() };
                judge_lost(Endpoint::Model, &Lost::NotSent(not_sent))
            }
        }
    }
}

/// Where a drop's originals lie.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    Inbox,
    Working,
    Archive,
    Errors,
}

/// One request as it happened.
#[derive(Clone, Copy, Debug)]
struct Request {
    at: i64,
    /// `None` while nobody, or nobody any more, knows.
    bill: Option<Bill>,
}

#[derive(Clone, Debug, Default)]
struct ModelShot {
    requests: Vec<Request>,
    /// Its picture lies in the spool.
    spooled: bool,
    /// How often its picture was put into the outbox.
    in_outbox: u32,
}

#[derive(Clone, Debug)]
struct ModelDrop {
    id: DropId,
    place: Place,
    shots: Vec<ModelShot>,
    /// The rules' own view, as it stands in memory; kept over a return, as the ledger would find it again.
    own: Vec<Shot>,
}

#[derive(Clone, Debug)]
enum Step {
    Begin(usize),
    Send(usize, usize),
    Answer(usize, usize, usize, bool, bool),
    Fetch(usize, usize, bool),
    Publish(usize, usize, u8),
    File(usize, u8),
    GoBack(usize),
    Crash,
    Wait(i64),
}

fn step() -> impl Strategy<Value = Step> {
    let (drop, shot) = (0..3_usize, 0..2_usize);
    prop_oneof![
        3 => drop.clone().prop_map(Step::Begin),
        4 => (drop.clone(), shot.clone()).prop_map(|(d, s)| Step::Send(d, s)),
        6 => (drop.clone(), shot.clone(), 0..Service::ALL.len(), any::<bool>(), any::<bool>())
            .prop_map(|(d, s, kind, sent_back, cached)| Step::Answer(d, s, kind, sent_back, cached)),
        2 => (drop.clone(), shot.clone(), any::<bool>()).prop_map(|(d, s, ok)| Step::Fetch(d, s, ok)),
        4 => (drop.clone(), shot, 0..4_u8).prop_map(|(d, s, until)| Step::Publish(d, s, until)),
        3 => (drop.clone(), 0..4_u8).prop_map(|(d, until)| Step::File(d, until)),
        1 => drop.prop_map(Step::GoBack),
        2 => Just(Step::Crash),
        2 => prop_oneof![Just(1_000_i64), Just(20 * 60 * 1000), Just(HOUR)].prop_map(Step::Wait),
    ]
}

struct World {
    ledger: Option<SqliteLedger>,
    dir: tempfile::TempDir,
    policy: Policy,
    limits: Limits,
    now: i64,
    ids: u8,
    drops: Vec<ModelDrop>,
}

impl World {
    fn new(retry_unconfirmed: bool, per_hour: u32) -> Self {
        // Syncing memory is quick; where there is none of it, it is only slower.
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let mut world = Self {
            ledger: None,
            dir,
            policy: Policy {
                max_attempts: 3,
                first_delay: Duration::from_secs(2),
                max_delay: Duration::from_secs(60),
                retry_unconfirmed,
            },
            limits: Limits { per_hour, per_day: 0 },
            now: 0,
            ids: 0,
            drops: Vec::new(),
        };
        world.open();
        for shots in [1, 2, 2] {
            let own = (0..shots).map(|no| Shot::new(ShotNo(no), Some(i64::from(no)))).collect();
            let id = world.new_id();
            let shots = vec![ModelShot::default(); shots as usize];
            world.drops.push(ModelDrop { id, place: Place::Inbox, shots, own });
        }
        world
    }

    fn open(&mut self) {
        self.ledger = None;
        self.ledger = Some(SqliteLedger::open(&self.dir.path().join("ledger.db")).unwrap());
    }

    fn ledger(&mut self) -> &mut SqliteLedger {
        self.ledger.as_mut().unwrap()
    }

    fn new_id(&mut self) -> DropId {
        self.ids += 1;
        DropId([self.ids; 16])
    }

    fn wall(&self) -> Timestamp {
        Timestamp::from_millisecond(1_800_000_000_000 + self.now).unwrap()
    }

    fn moment(&self) -> Moment {
        let since_boot = Duration::from_millis(1_000_000 + self.now.unsigned_abs());
        Moment { wall: self.wall(), boot: "boot".into(), since_boot }
    }

    /// Requests of the last hour that cost, or may have cost, money.
    fn counted(&self) -> usize {
        let requests = self.drops.iter().flat_map(|d| &d.shots).flat_map(|s| &s.requests);
        requests.filter(|r| r.at > self.now - HOUR && r.bill != Some(Bill::Never)).count()
    }

    /// The service gets a request: may it?
    fn request(&mut self, d: usize, s: usize) {
        let retry = self.policy.retry_unconfirmed;
        let (at, counted) = (self.now, self.counted());
        assert!(counted < self.limits.per_hour as usize, "the limit of {} is exceeded", self.limits.per_hour);
        let drop = &mut self.drops[d];
        assert_eq!(drop.place, Place::Working, "it is sent and was not claimed");
        let before: Vec<_> = drop.shots[s].requests.iter().map(|r| r.bill).collect();
        assert!(!before.contains(&Some(Bill::Surely)), "paid for twice: {before:?}");
        let perhaps = before.iter().filter(|bill| **bill != Some(Bill::Never)).count();
        assert!(perhaps == 0 || retry && perhaps == 1, "perhaps paid for already: {before:?}");
        drop.shots[s].requests.push(Request { at, bill: None });
    }

    fn known(&self, d: usize, s: usize) -> Option<Shot> {
        let drop = &self.drops[d];
        (drop.place == Place::Working).then(|| drop.own.get(s).cloned()).flatten()
    }

    fn apply(&mut self, d: usize, s: usize, event: ShotEvent) {
        let after = self.drops[d].own[s].apply(event).unwrap();
        let (id, billed) = (self.drops[d].id, after.state.billed());
        self.ledger().step(id, &after, billed).unwrap();
        self.drops[d].own[s] = after;
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Begin(d) => self.begin(d),
            Step::Send(d, s) => self.send(d, s),
            Step::Answer(d, s, kind, sent_back, cached) => self.answer(d, s, Service::ALL[kind], sent_back, cached),
            Step::Fetch(d, s, good) => self.fetch(d, s, good),
            Step::Publish(d, s, until) => self.publish(d, s, until),
            Step::File(d, until) => self.file(d, until),
            Step::GoBack(d) => self.go_back(d),
            Step::Crash => self.crash(),
            Step::Wait(ms) => self.now += ms,
        }
    }

    /// Claims a drop and sends its first shot.
    fn begin(&mut self, d: usize) {
        if self.drops[d].place != Place::Inbox {
            return;
        }
        let (drop, moment, limits) = (self.drops[d].clone(), self.moment(), self.limits);
        let print = |what: &str| Some(Fingerprint::of(format!("{what} {d}").as_bytes()));
        let member = |name: &str, role| Member { name: name.into(), role, print: print(name), size: 1, moves: true };
        let new = NewDrop {
            id: drop.id,
            folder: RelPath::root(),
            stem: format!("{d}").into(),
            members: vec![member("a.txt", Role::Sidecar), member("a.jpg", Role::Picture)],
            working: Path::new("/r/working").into(),
            recognition: print("known"),
            plan: "{}".into(),
            shots: drop.own.clone(),
            failure: None,
            continues: None,
        };
        match self.ledger().begin(&new, Some(ShotNo(0)), limits, &moment).unwrap() {
            Sent::Committed => {
                let at = self.wall();
                self.drops[d].place = Place::Working;
                self.drops[d].own[0] = drop.own[0].apply(ShotEvent::Send { at }).unwrap();
                self.request(d, 0);
            }
            Sent::Limited { .. } => assert!(self.counted() >= limits.per_hour as usize, "there was room"),
        }
    }

    fn send(&mut self, d: usize, s: usize) {
        let Some(shot) = self.known(d, s) else { return };
        let ShotState::Due { not_before } = shot.state else { return };
        if not_before.is_some_and(|at| at > self.wall()) {
            return;
        }
        let sending = shot.apply(ShotEvent::Send { at: self.wall() }).unwrap();
        let (id, limits, moment) = (self.drops[d].id, self.limits, self.moment());
        match self.ledger().send(id, &sending, limits, &moment).unwrap() {
            Sent::Committed => {
                self.drops[d].own[s] = sending;
                self.request(d, s);
            }
            Sent::Limited { .. } => assert!(self.counted() >= limits.per_hour as usize, "there was room"),
        }
    }

    fn answer(&mut self, d: usize, s: usize, service: Service, sent_back: bool, cached: bool) {
        let Some(shot) = self.known(d, s).filter(|s| matches!(s.state, ShotState::Sending { .. })) else { return };
        let treatment = if sent_back { Treatment::SentBack } else { Treatment::Counts };
        let (verdict, now) = (service.verdict(self.wall()), self.wall());
        self.drops[d].shots[s].requests.last_mut().unwrap().bill = Some(service.bill());
        match next(&shot, &verdict, treatment, self.policy, cached, now, 0.5) {
            Next::Keep => {
                self.drops[d].shots[s].spooled = true;
                self.apply(d, s, ShotEvent::Receive { picture: picture() });
            }
            Next::Step(event) => self.apply(d, s, event),
            Next::UploadAgain => {
                self.drops[d].own[s].reuploaded = true;
                self.apply(d, s, ShotEvent::GiveBack { not_before: None, counts: false });
            }
            Next::Ask => panic!("it was asked already"),
        }
    }

    fn fetch(&mut self, d: usize, s: usize, good: bool) {
        if !self.known(d, s).is_some_and(|shot| matches!(shot.state, ShotState::Answered { .. })) {
            return;
        }
        if good {
            self.drops[d].shots[s].spooled = true;
            self.apply(d, s, ShotEvent::Receive { picture: picture() });
        } else {
            self.apply(d, s, ShotEvent::Fail { reason: "gone".into(), billed: Billed::Yes });
        }
    }

    /// Name, picture, word: as far as `until`.
    fn publish(&mut self, d: usize, s: usize, until: u8) {
        let Some(shot) = self.known(d, s) else { return };
        if matches!(shot.state, ShotState::Received { .. }) {
            let name = OutputName { picture: format!("{d}-{s}.png").into(), provenance: None };
            self.apply(d, s, ShotEvent::Name { name });
        }
        if !matches!(self.drops[d].own[s].state, ShotState::Publishing { .. }) || until == 0 {
            return;
        }
        // After a crash it may stand there already.
        let model = &mut self.drops[d].shots[s];
        if model.spooled {
            model.spooled = false;
            model.in_outbox += 1;
        }
        if until > 1 {
            self.apply(d, s, ShotEvent::Deliver);
        }
    }

    fn file(&mut self, d: usize, until: u8) {
        if self.drops[d].place == Place::Inbox {
            return;
        }
        let id = self.drops[d].id;
        let open = self.ledger().open_drops().unwrap().into_iter().find(|open| open.drop.id == id);
        let Some(open) = open else { return };
        let Some(fate) = fate(&open.drop.shots) else { return };
        let filing = Filing { fate, names: vec!["a.txt".into(), "a.jpg".into()], note: None };
        assert!(open.filing.as_ref().is_none_or(|before| *before == filing), "it is filed elsewhere now");
        self.ledger().file_under(id, &filing).unwrap();
        if until == 0 {
            return;
        }
        let delivered = self.drops[d].shots.iter().filter(|s| s.in_outbox == 1).count();
        let all = delivered == self.drops[d].shots.len();
        assert_eq!(fate == Fate::Archive, all, "an original goes where its results do not stand: {:?}", self.drops[d]);
        self.drops[d].place = if fate == Fate::Archive { Place::Archive } else { Place::Errors };
        if until > 1 {
            let (ending, now) = if all { (Ending::Archived, self.wall()) } else { (Ending::Failed, self.wall()) };
            self.ledger().close(id, ending, None, now).unwrap();
        }
    }

    fn go_back(&mut self, d: usize) {
        let drop = &self.drops[d];
        if drop.place != Place::Working || !may_go_back(&drop.own) {
            return;
        }
        let spent = drop.shots.iter().flat_map(|s| &s.requests).any(|r| r.bill != Some(Bill::Never));
        assert!(!spent, "what may have been billed goes back: {drop:?}");
        let (id, now) = (drop.id, self.wall());
        self.ledger().close(id, Ending::Returned, None, now).unwrap();
        self.drops[d].id = self.new_id();
        self.drops[d].place = Place::Inbox;
        for shot in &mut self.drops[d].own {
            shot.state = ShotState::Due { not_before: None };
        }
    }

    /// What was in memory is gone; what is on the disk is looked at.
    fn crash(&mut self) {
        self.open();
        for open in self.ledger().open_drops().unwrap() {
            let id = open.drop.id;
            let d = self.drops.iter().position(|drop| drop.id == id).expect("a row of no drop");
            for (s, shot) in open.drop.shots.iter().enumerate() {
                let spooled = self.drops[d].shots[s].spooled.then(picture);
                let after = recover(shot, spooled, self.policy.retry_unconfirmed).unwrap();
                if after != *shot {
                    self.ledger().step(id, &after, after.state.billed()).unwrap();
                }
                self.drops[d].own[s] = after;
            }
        }
    }

    /// What must hold between any two steps.
    fn holds(&mut self) {
        let now = self.moment();
        let images = self.ledger().usage(&now).unwrap().hour.images;
        assert_eq!(images as usize, self.counted(), "sends that are, and that are not, given back");
        for drop in &self.drops {
            for (shot, own) in drop.shots.iter().zip(&drop.own) {
                assert!(shot.in_outbox <= 1, "it came out twice");
                let bills: Vec<_> = shot.requests.iter().map(|r| r.bill).collect();
                assert!(bills.iter().filter(|b| **b == Some(Bill::Surely)).count() <= 1, "{bills:?}");
                assert!(own.attempts <= self.policy.max_attempts, "{own:?}");
                // What is said of the bill is never less than what it is.
                let most = bills.last().copied().flatten().unwrap_or(Bill::Perhaps);
                if own.state.has_ended() && !bills.is_empty() && most != Bill::Never {
                    assert_ne!(own.state.billed(), Billed::No, "{own:?} {bills:?}");
                }
            }
        }
    }

    /// Goes on with a service in a good mood and no crash: everything ends.
    fn ends(&mut self) {
        for _ in 0..40 {
            for d in 0..self.drops.len() {
                self.begin(d);
                for s in 0..self.drops[d].shots.len() {
                    self.send(d, s);
                    self.answer(d, s, Service::Picture, false, false);
                    self.fetch(d, s, true);
                    self.publish(d, s, 3);
                }
                self.file(d, 3);
            }
            self.holds();
            if self.drops.iter().all(|d| matches!(d.place, Place::Archive | Place::Errors)) {
                break;
            }
            self.now += HOUR / 2;
        }
        for drop in &self.drops {
            assert!(matches!(drop.place, Place::Archive | Place::Errors), "it never ends: {drop:?}");
            assert!(drop.shots.iter().all(|s| !s.spooled), "a picture stays in the spool: {drop:?}");
        }
        assert_eq!(self.ledger().open_drops().unwrap(), []);
    }
}

fn picture() -> Spooled {
    Spooled { blake3: "00".into(), bytes: 1, extension: "png".into(), at: Timestamp::UNIX_EPOCH }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_nothing_is_paid_for_twice_sent_unclaimed_or_filed_too_soon_and_it_ends(
        steps in proptest::collection::vec(step(), 1..90),
        retry_unconfirmed in any::<bool>(),
        per_hour in 1_u32..6,
    ) {
        let mut world = World::new(retry_unconfirmed, per_hour);
        for step in &steps {
            world.take(step);
            world.holds();
        }
        world.ends();
    }
}
