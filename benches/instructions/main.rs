//! How many instructions do the hot pieces take? Runs each of them under valgrind's callgrind, prints a table, and
//! fails where a piece takes more than its bound. Counts, unlike times, are the same on a busy machine.
//!
//! ```text
//! cargo test --bench instructions                      # all, as .ci/run does
//! cargo test --bench instructions -- check-jpeg        # one
//! cargo bench --bench instructions                     # what they take as released; there are no bounds for that
//! ```
//!
//! The bounds are of the profile of the tests, so that nothing is built for this but a small program: the optimised
//! library alone would take minutes. Our own code is not optimised there, the codecs, BLAKE3 and `SQLite` are. So a
//! count says nothing about time, but twice the work is twice the count. How long things take, `end_to_end` measures.
//!
//! Two runs of one binary differ by less than one percent (the seeds of hash maps), most pieces by far less. What else
//! moves the counts without a change of ours: the compiler, versions of dependencies and of libc, and a processor
//! without AVX2 (BLAKE3, `memchr` and libc choose by what it can do; valgrind shows them nothing newer than AVX2).

#![allow(clippy::unwrap_used, reason = "a benchmark says so by failing")]

mod callgrind;
mod pieces;

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use self::pieces::{PIECES, Piece};

/// What leaves this out: the same variable, and the same way, as with the tests.
const WITHOUT: &str = "REIMAGINED_TESTS_WITHOUT";

/// What to do about a piece that takes too many.
const ADVICE: &str = "If that was not meant, look for what is done twice. If it was, or a new compiler or dependency \
takes them, raise the bound in benches/instructions/pieces.rs, and say why in the commit.";

/// Whether this is built in the profile that the bounds are of.
const BOUND: bool = cfg!(debug_assertions);

/// A count below this part of its bound is so good that the bound guards nothing any more.
const WORTH_LESS: f64 = 0.7;

fn main() -> ExitCode {
    // Cargo says `--bench` to whatever it runs as one.
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => guard(PIECES),
        [name] => guard(&[find(name)]),
        // As this program runs itself below valgrind.
        [name, dir] => {
            (find(name).run)(dir.as_ref());
            ExitCode::SUCCESS
        }
        _ => panic!("one piece, or none for all of them"),
    }
}

fn find(name: &str) -> Piece {
    *PIECES.iter().find(|piece| piece.name == name).unwrap_or_else(|| panic!("there is no piece {name}"))
}

fn guard(pieces: &[Piece]) -> ExitCode {
    if std::env::var(WITHOUT).is_ok_and(|list| list.split(',').any(|word| word.trim() == "valgrind")) {
        eprintln!("!!! LEFT OUT, since {WITHOUT} names valgrind: the instructions of the hot pieces");
        return ExitCode::SUCCESS;
    }
    if let Some(lack) = lack() {
        eprintln!(
            "!!! NOT CHECKED: the instructions of the hot pieces: {lack}\nTo leave them out, set {WITHOUT}=valgrind"
        );
        return ExitCode::FAILURE;
    }
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("instructions");
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).unwrap();
    pieces::prepare(&dir);
    println!("{:<14} {:>14} {:>14}  {:<9} what", "piece", "instructions", "bound", "verdict");
    let mut over = Vec::new();
    for piece in pieces {
        let count = callgrind::count(piece.name, &dir);
        let share = count as f64 / piece.bound as f64;
        let (too_many, far_below) = (BOUND && share > 1.0, BOUND && share < WORTH_LESS);
        let verdict = match (too_many, far_below) {
            (true, _) => "TOO MANY",
            (_, true) => "far below",
            _ if BOUND => "ok",
            _ => "-",
        };
        let (count, bound) = (grouped(count), if BOUND { grouped(piece.bound) } else { "-".into() });
        println!("{:<14} {count:>14} {bound:>14}  {verdict:<9} {}", piece.name, piece.what);
        if far_below {
            println!("{:14} It got so much better that its bound guards nothing: lower it.", "");
        }
        if too_many {
            over.push(format!(
                "{} takes {count} instructions, {share:.2} times its bound of {bound}.\n\
                 Where they go (callers come first): callgrind_annotate --threshold=100 {}",
                piece.name,
                callgrind::dump(piece.name, &dir).display()
            ));
        }
    }
    if over.is_empty() {
        return ExitCode::SUCCESS;
    }
    eprintln!("\n{}\n\n{ADVICE}", over.join("\n"));
    ExitCode::FAILURE
}

/// What stands in the way of counting what the bounds are of.
fn lack() -> Option<String> {
    if BOUND && !cfg!(target_arch = "x86_64") {
        return Some("the bounds are those of x86-64".into());
    }
    callgrind::lack()
}

/// A number as people read it: `1,234,567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> = digits.as_bytes().rchunks(3).rev().map(|group| str::from_utf8(group).unwrap()).collect();
    groups.join(",")
}
