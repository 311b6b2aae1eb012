//! The program: everything is in the library, behind [`reimagined::cli::main`].

use std::process::ExitCode;

fn main() -> ExitCode {
    reimagined::cli::main()
}
