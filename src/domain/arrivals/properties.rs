//! What holds for every sequence of events.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::tests::{Box_, rel};
use super::*;

const NAMES: [&str; 9] = ["a.jpg", "A.png", "a.txt", "A.txt", "a.jpg.txt", "a.toml", "b.jpg", "b.txt", "c.pdf"];

#[derive(Clone, Debug)]
enum Step {
    See(usize, u64, How),
    Gone(usize),
    Scan,
    Wait(u64),
    Ask,
}

fn step() -> impl Strategy<Value = Step> {
    let how = prop_oneof![
        Just(How::Closed),
        Just(How::Changed),
        Just(How::Created),
        Just(How::RenamedIn),
        Just(How::Touched)
    ];
    prop_oneof![
        4 => (0..NAMES.len(), 0u64..3, how).prop_map(|(n, size, how)| Step::See(n, size, how)),
        1 => (0..NAMES.len()).prop_map(Step::Gone),
        1 => Just(Step::Scan),
        3 => (1u64..4000).prop_map(Step::Wait),
        2 => Just(Step::Ask),
    ]
}

proptest! {
    #[test]
    fn nothing_goes_that_is_gone_changing_or_handed_out_and_nothing_is_forgotten(
        steps in proptest::collection::vec(step(), 1..60), nested in any::<bool>()
    ) {
        let mut inbox = Box_::new(PresetState::default());
        let folder = if nested { "look" } else { "" };
        if nested {
            inbox.scan("", &[("look/", 0, 0)]);
            inbox.scan("look", &[]);
        }
        // name → (size, last change, how)
        let mut there: BTreeMap<&str, (u64, u64, How)> = BTreeMap::new();
        let mut handed: BTreeSet<String> = BTreeSet::new();
        for step in steps {
            match step {
                Step::See(n, size, how) => {
                    inbox.see(folder, NAMES[n], size, how);
                    // What changed nothing takes neither a rename nor a close back.
                    let how = match there.get(NAMES[n]) {
                        Some((before, at, How::RenamedIn))
                            if (*before, *at) == (size, inbox.ms) && matches!(how, How::Closed | How::Created) =>
                        {
                            How::RenamedIn
                        }
                        Some((before, at, How::Closed)) if (*before, *at) == (size, inbox.ms) && how == How::Created => {
                            How::Closed
                        }
                        _ => how,
                    };
                    there.insert(NAMES[n], (size, inbox.ms, how));
                }
                Step::Gone(n) => {
                    inbox.gone(folder, NAMES[n]);
                    there.remove(NAMES[n]);
                    handed.remove(NAMES[n]);
                }
                Step::Scan => {
                    let found: Vec<(&str, u64, u64)> =
                        there.iter().map(|(n, (size, at, _))| (*n, *size, inbox.ms - at)).collect();
                    inbox.scan(folder, &found);
                    inbox.ms += 1;
                }
                Step::Wait(ms) => inbox.ms += ms,
                Step::Ask => {
                    for candidate in inbox.out() {
                        prop_assert!(handed.insert(candidate.lead().to_str().unwrap().to_owned()), "twice");
                        for member in candidate.moving() {
                            let name = member.name.to_str().unwrap();
                            let Some((size, at, how)) = there.get(name) else {
                                return Err(TestCaseError::fail(format!("{name} is gone")));
                            };
                            prop_assert_eq!(member.facts.size, *size);
                            let sealed = matches!(how, How::Closed | How::RenamedIn | How::Touched);
                            prop_assert!(sealed || inbox.ms - at >= 2000, "{} changed just now", name);
                            prop_assert!(!name.ends_with("txt") || *how == How::RenamedIn || *how == How::Touched
                                || inbox.ms - at >= 2000, "{} is not finished", name);
                        }
                    }
                }
            }
            // Every file is part of a drop that waits or is handed out, or waits by itself.
            prop_assert_eq!(inbox.arrivals.len(), there.len());
            let shown: BTreeSet<String> =
                inbox.arrivals.waiting().map(|w| w.place.name.to_str().unwrap().to_owned()).collect();
            for name in there.keys().filter(|n| n.ends_with("jpg") || n.ends_with("png") || n.ends_with("pdf")) {
                prop_assert!(shown.contains(*name), "{} is nowhere", name);
            }
        }
        // In the end all goes: nothing waits for ever but what a handed-out drop holds.
        for _ in 0..40 {
            for candidate in inbox.out() {
                inbox.arrivals.claimed(&candidate, inbox.now(), Some(0));
                inbox.arrivals.filed(&candidate.folder, &candidate.stem, inbox.now());
                handed.remove(candidate.lead().to_str().unwrap());
            }
            for name in std::mem::take(&mut handed) {
                inbox.gone(folder, &name);
            }
            inbox.ms += 60_000;
        }
        prop_assert!(inbox.arrivals.is_empty(), "{:?}", inbox.arrivals.waiting().collect::<Vec<_>>());
    }

    #[test]
    fn the_order_of_observations_does_not_matter(
        names in proptest::sample::subsequence(NAMES.to_vec(), 1..=9).prop_shuffle()
    ) {
        let told = |names: &[&str]| {
            let mut inbox = Box_::new(PresetState::default());
            for name in names {
                inbox.see("", name, 9, How::Created);
            }
            inbox.ms += 31_000;
            let mut out: Vec<_> = inbox.out().into_iter().map(|c| (c.stem, c.image, c.sidecars, c.kind)).collect();
            out.sort_by(|a, b| a.0.cmp(&b.0));
            out
        };
        let mut sorted = names.clone();
        sorted.sort_unstable();
        prop_assert_eq!(told(&names), told(&sorted));
    }

    #[test]
    fn a_file_that_keeps_changing_never_goes(gaps in proptest::collection::vec(1u64..2000, 1..30)) {
        let mut inbox = Box_::new(PresetState::default());
        for (size, gap) in gaps.into_iter().enumerate() {
            inbox.see("", "a.jpg", size as u64 + 1, How::Changed);
            inbox.ms += gap;
            prop_assert_eq!(inbox.out(), vec![]);
        }
    }
}

#[test]
fn a_burst_costs_each_file_the_same() {
    // Quadratic work on 20,000 files would take minutes in a test build, not seconds.
    let begin = std::time::Instant::now();
    let mut inbox = Box_::new(PresetState::default());
    let folder = rel("");
    for n in 0..20_000 {
        inbox.see("", &format!("{n}.jpg"), 9, How::Closed);
    }
    inbox.ms += 1000;
    let mut sent = 0;
    inbox.presets();
    loop {
        let now = inbox.now();
        let out = inbox.arrivals.ready(now, 4);
        if out.is_empty() {
            break;
        }
        for candidate in out {
            inbox.arrivals.claimed(&candidate, now, Some(0));
            inbox.arrivals.filed(&folder, &candidate.stem, now);
            sent += 1;
        }
    }
    assert_eq!(sent, 20_000);
    assert!(begin.elapsed() < std::time::Duration::from_secs(30), "{:?}", begin.elapsed());
}
