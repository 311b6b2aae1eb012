//! `reimagined check [PATH] [--offline]`: is everything in place, and what would this drop send?
//!
//! Reads configuration, presets, folders and key, and says all that is wrong at once. With a path, the exact
//! request of that drop comes first. Makes no folder, moves no file, opens no ledger, and asks the service one
//! question that costs nothing (none with `--offline`); it may run beside the daemon.

mod folders;
mod hooks;
mod inbox;
mod request;

use std::fmt::Write as _;

use crate::config::Config;
use crate::domain::ids::{show, show_text};
use crate::domain::verdict::Credits;
use crate::engine::client_settings;
use crate::segmind::Client;

use super::args::{Check, Global};
use super::exit::{Code, Failure};
use super::term::{self, Palette, count, dollars};
use super::{run, setup};

/// How many names are listed of what may be thousands.
const LISTED: usize = 20;

/// Of what is ignored all is listed, but for what nobody reads to its end.
const IGNORED_LISTED: usize = 1000;

/// What was found, in the order in which it is shown.
#[derive(Debug, Default)]
struct Report {
    /// What a person wants to see confirmed: a label and words.
    facts: Vec<(&'static str, String)>,
    /// What will do, but wants to be known.
    warnings: Vec<String>,
    /// What has to be changed before it works: exit code 2.
    problems: Vec<String>,
    /// What stops it though nothing is wrong here (no network, no credits): exit code 4.
    pauses: Vec<String>,
}

impl Report {
    fn fact(&mut self, label: &'static str, text: impl Into<String>) {
        self.facts.push((label, text.into()));
    }

    fn warn(&mut self, text: impl Into<String>) {
        let text = text.into();
        if !self.warnings.contains(&text) {
            self.warnings.push(text);
        }
    }

    fn problem(&mut self, text: impl Into<String>) {
        let text = text.into();
        if !self.problems.contains(&text) {
            self.problems.push(text);
        }
    }

    /// The facts, for standard output.
    fn page(&self, palette: &Palette) -> String {
        let bold = palette.bold;
        let mut out = String::new();
        for (label, text) in &self.facts {
            let label = format!("{label}:");
            let _ = writeln!(out, "{bold}{label:<15}{bold:#} {text}");
        }
        out
    }

    /// Everything else, for standard error, and how the command ends.
    fn end(self) -> Result<(), Failure> {
        let palette = Palette::new(term::colour(term::Stream::Err));
        let mut text = String::new();
        let mut list = |word: &str, style: anstyle::Style, all: &[String]| {
            for one in all {
                // A problem with many lines (a file with many mistakes) keeps them, indented.
                let one = one.lines().map(show_text).collect::<Vec<_>>().join("\n  ");
                let _ = writeln!(text, "{style}{word}{style:#}: {one}");
            }
        };
        list("warning", palette.warn, &self.warnings);
        list("wrong", palette.bad, &self.problems);
        list("stopped", palette.warn, &self.pauses);
        let text = text.trim_end();
        if !self.problems.is_empty() {
            return Err(Failure::usage(format!("{text}\n")));
        }
        if !self.pauses.is_empty() {
            return Err(Failure::new(Code::Paused, format!("{text}\n")));
        }
        if !text.is_empty() {
            term::complain(&format!("{text}\n"));
        }
        Ok(())
    }
}

/// Checks everything; with a path, shows the request of that drop.
pub fn run(global: &Global, args: &Check) -> Result<(), Failure> {
    let config = setup::configuration(global)?;
    let state_dir = setup::state_dir(&config)?;
    let target = args.path.as_deref().map(|path| inbox::target(&config, path)).transpose()?;
    let palette = Palette::new(term::colour(term::Stream::Out));

    let mut report = Report::default();
    report.fact("Configuration", show(config.file.as_os_str()));
    for warning in &config.warnings {
        report.warn(warning.to_string());
    }
    let there = folders::look(&config, &state_dir, &mut report);
    hooks::look(&config, &mut report);
    let mut found = there.then(|| inbox::survey(&config));
    if let Some(found) = &found {
        found.tell(&mut report);
    }
    if let (Some(target), Some(found)) = (&target, &mut found) {
        let mut page = String::new();
        request::write(&config, found, target, &mut page, &mut report);
        term::print(&page)?;
    }
    ask(&config, args.offline, &mut report)?;
    if target.is_none() {
        term::print(&report.page(&palette))?;
        if let Some(found) = &found {
            term::print(&found.ignored_page())?;
        }
        if report.problems.is_empty() && report.pauses.is_empty() {
            let Palette { good, .. } = palette;
            let end = if report.warnings.is_empty() { "Everything is in place." } else { "Nothing is wrong." };
            term::print(&format!("{good}{end}{good:#}\n"))?;
        }
    }
    report.end()
}

/// The key, and what the account says to it.
fn ask(config: &Config, offline: bool, report: &mut Report) -> Result<(), Failure> {
    let keys = setup::keys(config);
    if let Err(e) = keys.read() {
        // One that is not there yet, or that another user will read, is no mistake while nothing is asked.
        if offline && !e.is_a_mistake() {
            report.fact("Key", "none");
            report.warn(e.to_string());
        } else {
            report.problem(e.to_string());
        }
        return Ok(());
    }
    let client = match Client::new(client_settings(config)) {
        Ok(client) => client,
        Err(e) => {
            report.problem(e.to_string());
            return Ok(());
        }
    };
    let Some(key) = keys.key() else { return Ok(()) };
    if offline {
        report.fact("Key", "there is one; not asked whether it is good (--offline)");
        return Ok(());
    }
    let service = config.api.base_url.as_str();
    match run::runtime()?.block_on(client.credits(&key, None)) {
        Credits::Good { total } => {
            report.fact("Key", format!("accepted by {service}"));
            report.fact("Credits left", dollars(total));
        }
        Credits::Low { total } => {
            report.fact("Key", format!("accepted by {service}"));
            report.fact("Credits left", dollars(total));
            report.pauses.push(format!(
                "{} of credits are left, too little for another picture: add credits to the account",
                dollars(total)
            ));
        }
        Credits::NoneFound => {
            report.fact("Key", format!("{service} knows no credits of this account; the first picture will tell"));
        }
        Credits::Refused { message } => report.problem(format!(
            "the service does not accept the API key ({message}): put a good one in its place. {}",
            setup::how_to_give_a_key()
        )),
        Credits::Other { message } => {
            report.pauses.push(format!("{service} gave no answer that can be used: {message}; try again later"));
        }
        Credits::NoAnswer { message } => report.pauses.push(format!(
            "{service} can't be reached: {message}; look at the network, HTTPS_PROXY and [api] base_url, or check without it (--offline)"
        )),
    }
    Ok(())
}

/// `3 folders`, for what has a regular plural.
fn counted(number: usize, what: &str) -> String {
    count(number as u64, what)
}
