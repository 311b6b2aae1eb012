//! `reimagined completions SHELL`: completions for a shell, on stdout.

use std::io;

use clap::CommandFactory as _;
use clap_complete::Shell;

use super::args::Cli;
use super::term;

/// Writes the completions for `shell` to stdout.
pub fn print(shell: Shell) -> io::Result<()> {
    term::print(&text(shell))
}

fn text(shell: Shell) -> String {
    let mut command = Cli::command();
    let name = command.get_name().to_owned();
    // Into memory first: the generator panics when its writer fails, and a pipe may be closed.
    let mut bytes = Vec::new();
    clap_complete::generate(shell, &mut command, name, &mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    #[test]
    fn every_shell_completes_every_command_and_flag() {
        for shell in Shell::value_variants() {
            let text = text(*shell);
            for word in ["init", "run", "check", "status", "retry", "demo", "sandbox", "completions", "man"] {
                assert!(text.contains(word), "{shell}: {word}");
            }
            for flag in ["once", "offline", "upload-reply", "config"] {
                assert!(text.contains(flag), "{shell}: {flag}");
            }
        }
    }
}
