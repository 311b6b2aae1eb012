//! The command line: one file per command, what is printed, and exit codes.

pub mod args;
pub mod check;
pub mod completions;
pub mod demo;
pub mod exit;
pub mod history;
pub mod init;
pub mod man;
pub mod retry;
pub mod run;
pub mod sandbox;
pub mod setup;
pub mod status;
pub mod term;

use std::process::ExitCode;

use clap::Parser as _;

use args::{Cli, Command};
use exit::Failure;

/// Runs the program with the arguments of this process and says how it ended.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        Command::Init(init) => init::run(&cli.global, &init),
        Command::Run(run) => run::run(&cli.global, &run),
        Command::Check(check) => check::run(&cli.global, &check),
        Command::Status(status) => status::run(&cli.global, &status),
        Command::History(history) => history::run(&cli.global, &history),
        Command::Retry(retry) => retry::run(&cli.global, &retry),
        Command::Sandbox(sandbox) => sandbox::run(&cli.global, &sandbox),
        Command::Demo(demo) => demo::run(&cli.global, &demo),
        Command::Completions(completions) => completions::print(completions.shell).map_err(Failure::from),
        Command::Man(_) => man::print().map_err(Failure::from),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.tell(),
    }
}
