//! Counting what stands between two marks.
//!
//! A mark is a call of a function of libc that nothing else here calls. Callgrind knows it by name whatever became of
//! our own names (inlined, stripped), and writes down there what all threads executed since the mark before.

use std::fs;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What [`mark`] comes down to.
const MARK: &str = "--dump-before=getppid";

/// Does what is to be counted.
pub(crate) fn counted<T>(work: impl FnOnce() -> T) -> T {
    mark();
    let done = black_box(work());
    mark();
    done
}

fn mark() {
    black_box(std::os::unix::process::parent_id());
}

/// Why nothing can be counted on this machine.
pub(crate) fn lack() -> Option<String> {
    match Command::new("valgrind").arg("--version").output() {
        Ok(said) if said.status.success() => None,
        Ok(said) => Some(format!("valgrind: {}", String::from_utf8_lossy(&said.stderr))),
        Err(e) => Some(format!("valgrind: {e}")),
    }
}

/// How many instructions the piece takes, in a process of its own that works in `dir`.
pub(crate) fn count(piece: &str, dir: &Path) -> u64 {
    let out = dir.join(format!("{piece}.callgrind"));
    let done = Command::new("valgrind")
        .args(["--tool=callgrind", MARK])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(std::env::current_exe().unwrap())
        .args([piece.as_ref(), dir.as_os_str()])
        // How much a lookup in the environment takes depends on what is in it.
        .env_clear()
        .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
        .output()
        .unwrap();
    assert!(done.status.success(), "{piece} failed below valgrind:\n{}", String::from_utf8_lossy(&done.stderr));
    let dump = dump(piece, dir);
    let text = fs::read_to_string(&dump).unwrap_or_else(|e| panic!("{piece} left no count: {}: {e}", dump.display()));
    let total = text.lines().find_map(|line| line.strip_prefix("totals: ")?.trim().parse().ok());
    total.unwrap_or_else(|| panic!("{} says no total", dump.display()))
}

/// Where it stands what the piece executed: the first dump is of what came before, the second of what was counted.
pub(crate) fn dump(piece: &str, dir: &Path) -> PathBuf {
    dir.join(format!("{piece}.callgrind.2"))
}
