//! The command line: one file per command, what is printed, and exit codes.

pub mod args;
pub mod completions;
pub mod man;
pub mod status;
pub mod term;

use std::process::ExitCode;

/// Runs the program with the arguments of this process and says how it ended.
pub fn main() -> ExitCode {
    ExitCode::SUCCESS
}
