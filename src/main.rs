//! The program: everything is in the library, behind [`reimagined::cli::main`].

use std::process::ExitCode;

/// Gives memory back: the system's own keeps tens of megabytes for each thread that decoded a picture.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    reimagined::cli::main()
}
