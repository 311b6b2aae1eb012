//! Every input of the fuzz corpora through the bodies of the fuzz targets, without a fuzzer.

#![allow(clippy::unwrap_used, reason = "tests say so by failing")]

use std::path::Path;

#[path = "../fuzz/src/lib.rs"]
#[allow(unreachable_pub, clippy::pedantic, reason = "it is a library of its own for the fuzzer")]
mod fuzzed;

/// Runs a target over its corpus, which must not be empty.
fn run(name: &str) {
    let (_, target) = fuzzed::TARGETS.iter().find(|(target, _)| *target == name).unwrap();
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let mut inputs: Vec<_> = std::fs::read_dir(&corpus).unwrap().map(|entry| entry.unwrap().path()).collect();
    inputs.sort();
    assert!(!inputs.is_empty(), "{} is empty", corpus.display());
    for input in inputs {
        // Shown where the target panics.
        println!("{}", input.display());
        target(&std::fs::read(&input).unwrap());
    }
}

#[test]
fn sidecars_are_read_or_refused_with_a_place_and_come_back_as_they_were() {
    run("sidecar");
}

#[test]
fn presets_are_read_or_refused_with_a_place_and_come_back_as_they_were() {
    run("preset");
}

#[test]
fn a_picture_is_whole_or_not_however_it_is_read() {
    run("whole");
}

#[test]
fn what_is_prepared_is_whole_within_the_rules_and_without_metadata() {
    run("prepare");
}

#[test]
fn an_answer_is_never_better_than_what_came() {
    run("reply");
}

#[test]
fn a_wait_is_bounded_and_plain_seconds_are_what_they_are() {
    run("retry_after");
}

#[test]
fn each_target_has_a_binary_and_a_test_here() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let here = include_str!("corpus.rs");
    for (name, _) in fuzzed::TARGETS {
        assert!(root.join("fuzz/fuzz_targets").join(format!("{name}.rs")).is_file(), "{name}");
        assert!(here.contains(&format!("run(\"{name}\")")), "{name}");
    }
}
