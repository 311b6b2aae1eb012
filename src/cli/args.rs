//! The command line's shape: every command, flag and help text, and nothing of what they do.
//!
//! A usage error ends with exit code 2, as clap does it; the codes of the commands stand at the end of the help.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

use crate::service::logging;

/// How to begin, what is read from where, and the exit codes: at the end of the help and of the man page.
const AFTER_HELP: &str = "\
First steps:
  reimagined demo                try it, with no key and no money
  reimagined init                write a configuration and the folders
  reimagined check               see whether everything is in place
  reimagined run                 start the daemon, then drop pictures into the inbox

Configuration: --config FILE, else $REIMAGINED_CONFIG, else config.toml in the user's configuration
directory (~/.config/reimagined), else in the system's (/etc/reimagined).

Environment:
  REIMAGINED_CONFIG    the configuration file
  REIMAGINED_LOG       what is logged: error, warn, info, debug, trace, or a filter such as
                       reimagined::engine=debug,warn
  SEGMIND_API_KEY      the API key; the systemd credential segmind-api-key goes before it,
                       `key_file` in the configuration after it
  HTTPS_PROXY          the proxy to go through
  NO_COLOR             no colours

Exit codes:
  0  good
  1  unexpected
  2  usage or configuration
  3  some drops failed, or a preset is broken
  4  paused or limited
  5  another daemon holds this inbox, one around it, or the state directory";

/// A watch folder for Bria Reimagine: drop pictures in, get them back reimagined.
///
/// Drop a picture, or a prompt, into the inbox: Bria Reimagine (on Segmind) makes a new picture of it, which
/// appears in the outbox. The original moves to the archive; what cannot be done moves to errors, with a note
/// that says why. A folder is a look: its preset.toml says how everything dropped into it is reimagined.
#[derive(Debug, Parser)]
#[command(name = "reimagined", version, propagate_version = false, max_term_width = 100, after_help = AFTER_HELP)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub struct Cli {
    /// Flags of every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Their own heading, so that they do not stand between a command's own flags.
const COMMON: &str = "Common options";

/// Flags of every command.
#[derive(Clone, Debug, Default, Args)]
pub struct Global {
    /// The configuration file, if one was named.
    #[arg(help = "The configuration file [else: $REIMAGINED_CONFIG, the user's, the system's]")]
    #[arg(long, value_name = "FILE", global = true, help_heading = COMMON)]
    pub config: Option<PathBuf>,
    /// How often `-v` was given.
    #[arg(help = "Log more; twice: everything. $REIMAGINED_LOG goes before it")]
    #[arg(short, long, global = true, help_heading = COMMON, action = ArgAction::Count, conflicts_with = "quiet")]
    pub verbose: u8,
    /// Log warnings and errors only; twice: errors
    #[arg(short, long, global = true, help_heading = COMMON, action = ArgAction::Count)]
    pub quiet: u8,
    /// How the log looks.
    #[arg(help = "How the log looks: by where it goes (the journal's fields under systemd), for people, for programs")]
    #[arg(long, value_name = "FORMAT", global = true, help_heading = COMMON, value_enum, default_value = "auto")]
    pub log_format: LogFormat,
}

/// [`logging::Format`], as an argument.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// The journal's own fields under systemd, else human.
    #[default]
    Auto,
    /// Lines for people.
    Human,
    /// One JSON object a line.
    Json,
}

impl Global {
    /// How the log is to be, on stderr or where `sink` puts it.
    pub fn logging(&self, sink: Option<logging::Sink>) -> logging::Options {
        let format = match self.log_format {
            LogFormat::Auto => logging::Format::Auto,
            LogFormat::Human => logging::Format::Human,
            LogFormat::Json => logging::Format::Json,
        };
        logging::Options { verbosity: self.verbosity(), format, sink }
    }

    /// For [`logging::Options`]: `-v` counted up, `-q` down.
    fn verbosity(&self) -> i8 {
        let signed = |count: u8| i8::try_from(count).unwrap_or(i8::MAX);
        signed(self.verbose) - signed(self.quiet)
    }
}

/// The commands. Their long texts stand here, because clap lets a variant's text beat that of its struct.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Writes a commented configuration, the folders and a sample preset
    #[command(
        long_about = "Writes a commented configuration, the folders and a sample preset, and says what to do next.\n\n\
        Without DIR the configuration goes into the user's configuration directory and the folders into ~/reimagine. \
        With DIR all of it goes there: DIR/config.toml, DIR/inbox and so on. Nothing is overwritten.\n\n\
        With --service it installs the systemd service as well: it shows each file, folder and command, asks, and does \
        it; starting it is left to you. --remove takes it away again."
    )]
    Init(Init),
    /// Runs the daemon in the foreground, logging to stderr
    #[command(long_about = "Runs the daemon in the foreground, logging to stderr.\n\n\
        SIGTERM or Ctrl-C: takes nothing new, lets what is in flight finish, then exits; a second one exits at once. \
        SIGHUP: reads the configuration again. SIGUSR1: looks through the inbox now.")]
    Run(Run),
    /// Validates configuration, presets, folders and key; with a path, shows the exact request. Spends nothing
    #[command(long_about = "Validates configuration, every preset, folders and key (by one free credits request). \
        With a path, shows the exact request that this drop would send, and which file each value came from. \
        Spends nothing and moves nothing.")]
    Check(Check),
    /// Shows what waits (and for what), works and failed, images and money
    #[command(
        long_about = "Shows what waits (and for what, and in which folders), what is in work and what failed; whether it \
        is paused, why and until when; images and money of the last hour, 24 hours and 30 days; credits left; what is \
        ignored. Reads the daemon's status file only, so any member of its group may ask.\n\n\
        With --watch it goes on until Ctrl-C: on a terminal it is drawn anew every second, elsewhere each change is \
        printed as a block of its own, with --json as one line."
    )]
    Status(Status),
    /// Lists what was made, when and for how much
    #[command(
        long_about = "Lists what was made, when and for how much: one line for each shot, oldest first, and a total. \
        Also what failed or is unconfirmed. Reads the daemon's ledger and changes nothing in it, so it may run beside \
        the daemon; it needs the daemon's rights. What is older than [service] keep_history is forgotten."
    )]
    History(History),
    /// Moves failed drops from errors back into the inbox
    #[command(
        long_about = "Moves failed drops from errors back into the inbox, under a free name, and takes away the note that \
        was written beside them unless somebody edited it. Works while the daemon runs. \
        A drop keeps its seeds, and only the shots that were not delivered are sent."
    )]
    Retry(Retry),
    /// Shows the whole thing with no key and no money, on sample pictures
    #[command(
        long_about = "Shows the whole thing with no key and no money: starts the sandbox on loopback, drops sample pictures \
        into a new inbox, lets the daemon work them off and shows what came out."
    )]
    Demo(Demo),
    /// Runs a stand-in for the API on loopback, with faults on request
    #[command(
        long_about = "Runs a stand-in for the API on loopback, for trying presets and for tests: the same checks and the \
        same errors, and faults on request. It really transforms the reference, by prompt and seed, and every picture \
        says that it is the sandbox's. It prints what to put under [api] in the configuration."
    )]
    Sandbox(Sandbox),
    /// Prints shell completions
    #[command(long_about = "Prints completions for a shell.")]
    Completions(Completions),
    /// Prints the man page
    #[command(long_about = "Prints the man page, all commands on one page.")]
    Man(Man),
}

/// `reimagined init [DIR]`, `reimagined init --service`
#[derive(Clone, Debug, Default, Args)]
#[command(after_help = "Examples:\n  reimagined init\n  reimagined init /srv/reimagine\n  \
        reimagined init --service --dry-run       what it would do, for you alone\n  \
        sudo reimagined init --service            for this machine, with a user of its own\n  \
        reimagined init --service --remove        take it away again; pictures stay")]
pub struct Init {
    /// The folder for configuration and drops
    #[arg(value_name = "DIR", conflicts_with = "service")]
    pub dir: Option<PathBuf>,
    /// Install it as a systemd service, for you (user) or for this machine (system) [else: system for root, user for others]
    #[arg(long, value_name = "WHOSE", num_args = 0..=1, require_equals = true, hide_possible_values = true)]
    pub service: Option<Option<Whose>>,
    /// Show what would be done, and do nothing
    #[arg(long, requires = "service", conflicts_with = "dir")]
    pub dry_run: bool,
    /// Ask nothing
    #[arg(long, short, requires = "service", conflicts_with = "dir")]
    pub yes: bool,
    /// Where to take the API key from, - for standard input [else: it is asked for on a terminal]
    #[arg(long, value_name = "FILE", requires = "service", conflicts_with_all = ["remove", "dir"])]
    pub key_from: Option<PathBuf>,
    /// Take the service away again: what was written and not edited; never pictures, never the ledger
    #[arg(long, requires = "service", conflicts_with = "dir")]
    pub remove: bool,
    /// Install below another root, for a system that is not running
    #[arg(long, value_name = "DIR", requires = "service", conflicts_with = "dir")]
    pub root: Option<PathBuf>,
}

/// For whom a service is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Whose {
    /// One person.
    User,
    /// Everybody on this machine.
    System,
}

/// `reimagined run [--once]`
#[derive(Clone, Debug, Default, Args)]
#[command(after_help = "Examples:\n  reimagined run\n  reimagined run --once && echo all done\n\n\
        Exit codes of --once: 0 all done; 3 some drops failed or a preset is broken; 4 it stopped for a limit,\n\
        a pause or a wait; 5 a daemon is running.")]
pub struct Run {
    /// Work off what is there and what completes meanwhile, then exit
    #[arg(long)]
    pub once: bool,
}

/// `reimagined check [PATH] [--offline]`
#[derive(Clone, Debug, Default, Args)]
#[command(after_help = "Examples:\n  reimagined check\n  reimagined check --offline\n  \
        reimagined check ~/reimagine/inbox/autumn-cafe/terrace.jpg\n\n\
        Exit codes: 0 good; 2 something is wrong with the configuration, a preset, a folder or the key, or the\n\
        drop would go to errors; 4 the service can't be reached or there are no credits.")]
pub struct Check {
    /// A drop, by its picture or a sidecar, or a folder of the inbox
    #[arg(value_name = "PATH")]
    pub path: Option<PathBuf>,
    /// Ask nobody: no credits request, and a missing key is a warning only
    #[arg(long)]
    pub offline: bool,
}

/// `reimagined status [--watch] [--json]`
#[derive(Clone, Debug, Default, Args)]
#[command(
    after_help = "Examples:\n  reimagined status\n  reimagined status --watch\n  reimagined status --json | jq .waiting"
)]
pub struct Status {
    /// Print the daemon's status as JSON: a stable interface
    #[arg(long)]
    pub json: bool,
    /// Show it again whenever it changes, until Ctrl-C
    #[arg(short, long)]
    pub watch: bool,
}

/// `reimagined history [--since WHEN] [--folder PATH] [--limit N] [--json|--csv]`
#[derive(Clone, Debug, Default, Args)]
#[command(after_help = "Examples:\n  reimagined history --since 7d\n  \
        reimagined history --folder autumn-cafe --limit 20\n  \
        reimagined history --since 2026-11-01 --csv > november.csv\n  \
        reimagined history --json | jq -s 'map(.cost) | add'\n\n\
        Exit codes: 0 good, also if nothing was made yet; 1 the ledger can't be read; 2 it is a newer\n\
        version's, or this user may not read it.")]
pub struct History {
    /// Only what ended since then: a time ago such as 12h or 7d, or a day such as 2026-11-01
    #[arg(long, value_name = "WHEN")]
    pub since: Option<super::history::Since>,
    /// Only drops of this folder of the inbox and of those below it
    #[arg(long, value_name = "PATH")]
    pub folder: Option<PathBuf>,
    /// Only the newest N drops
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: Option<u32>,
    /// Print one JSON object per line: a stable interface
    #[arg(long, conflicts_with = "csv")]
    pub json: bool,
    /// Print CSV with a header, for spreadsheets
    #[arg(long)]
    pub csv: bool,
}

/// `reimagined retry [PATH…] [--all] [--again]`
#[derive(Clone, Debug, Default, Args)]
#[command(override_usage = "reimagined retry [OPTIONS] <PATH>...\n       reimagined retry [OPTIONS] --all")]
#[command(after_help = "Examples:\n  reimagined retry ~/reimagine/errors/autumn-cafe/terrace.jpg\n  \
        reimagined retry ~/reimagine/errors/autumn-cafe\n  reimagined retry --all\n\n\
        A shot that may have been billed, says the note, is sent and paid for again.\n\n\
        Exit codes: 0 good, also if there is nothing to retry; 1 some could not be moved; 2 a path is no drop.")]
pub struct Retry {
    /// Drops below errors, by their picture, sidecar or note, or whole folders
    #[arg(value_name = "PATH", required_unless_present = "all", conflicts_with = "all")]
    pub paths: Vec<PathBuf>,
    /// Everything in errors
    #[arg(long)]
    pub all: bool,
    /// Make all shots anew, delivered ones too: each is paid for again
    #[arg(long)]
    pub again: bool,
}

/// `reimagined demo [--dir DIR] [--keep] [--open]`
#[derive(Clone, Debug, Default, Args)]
#[command(
    after_help = "Examples:\n  reimagined demo\n  reimagined demo --keep --open\n  reimagined demo --dir /tmp/demo"
)]
pub struct Demo {
    /// Where to put the folders [else: a temporary folder]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Stay up, so that you can drop pictures of your own; Ctrl-C ends it
    #[arg(long)]
    pub keep: bool,
    /// Open the outbox in the file manager
    #[arg(long)]
    pub open: bool,
}

/// `reimagined sandbox [--listen ADDR]` and its faults.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Examples:\n  reimagined sandbox\n  reimagined sandbox --listen 127.0.0.1:8787 --latency 2s --credits 1\n  \
        reimagined sandbox --requests-per-minute 5 --reply url\n  reimagined sandbox --fault 503 --fault cut\n\n\
        Words of a fault, several with commas between; in a prompt, with sandbox: before each:\n  \
        503, or status=503 in a prompt    any status from 200 to 599\n  \
        retry-after=2  delay=2s  say=words_with_this_for_blanks\n  \
        json=error  json=url  json=base64  json=data  json=nested  image\n  \
        cut  half  close  endless  html  empty  ok (--fault alone: none)"
)]
pub struct Sandbox {
    /// Where to listen; a loopback address, port 0 for any free port
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8787", value_parser = loopback)]
    pub listen: SocketAddr,
    /// The only API key that is accepted [else: any]
    #[arg(long, value_name = "KEY")]
    pub key: Option<String>,
    /// The account's credits in US dollars; each image takes some [else: they never end]
    #[arg(long, value_name = "DOLLARS", value_parser = amount)]
    pub credits: Option<f64>,
    /// Requests allowed per minute, more are answered with 429 [else: no limit]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    pub requests_per_minute: Option<u32>,
    /// How long each image takes, such as 250ms, 2s or 1m
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration)]
    pub latency: Duration,
    /// In which form a result is answered: image, or JSON that holds it as url, base64, data or nested
    #[arg(long, value_name = "FORM")]
    pub reply: Option<String>,
    /// In which form an upload is answered
    #[arg(long, value_name = "FORM", help = "In which form an upload is answered: file_urls or urls")]
    pub upload_reply: Option<String>,
    /// A fault for the next image request, by the words below; given again, for the one after it, and so on
    #[arg(long = "fault", value_name = "WORD")]
    pub faults: Vec<String>,
}

/// `reimagined completions SHELL`
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Examples:\n  reimagined completions bash > ~/.local/share/bash-completion/completions/reimagined\n  \
        reimagined completions zsh > ~/.zfunc/_reimagined\n  \
        reimagined completions fish > ~/.config/fish/completions/reimagined.fish"
)]
pub struct Completions {
    /// The shell
    #[arg(value_name = "SHELL")]
    pub shell: clap_complete::Shell,
}

/// `reimagined man`
#[derive(Clone, Copy, Debug, Default, Args)]
#[command(
    after_help = "Examples:\n  reimagined man | man -l -\n  reimagined man > ~/.local/share/man/man1/reimagined.1"
)]
pub struct Man {}

/// An address on loopback: `127.0.0.1:8787`, `[::1]:0`, `localhost:8787`.
fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address = match text.strip_prefix("localhost:") {
        Some(port) => port.parse().map(|port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)).ok(),
        None => text.parse::<SocketAddr>().ok(),
    };
    match address {
        Some(address) if address.ip().is_loopback() => Ok(address),
        Some(_) => Err("the sandbox listens on loopback only, such as 127.0.0.1:8787".to_owned()),
        None => Err("an address and a port, such as 127.0.0.1:8787".to_owned()),
    }
}

/// `250ms`, `2s`, `5m`, `1h`.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "a number and a unit, such as 250ms, 2s, 5m or 1h".to_owned();
    let split = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let number: u64 = text[..split].parse().map_err(|_| wrong())?;
    let unit_ms = match &text[split..] {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(wrong()),
    };
    number.checked_mul(unit_ms).map(Duration::from_millis).ok_or_else(wrong)
}

fn amount(text: &str) -> Result<f64, String> {
    match text.strip_prefix('$').unwrap_or(text).parse::<f64>() {
        Ok(amount) if amount.is_finite() && amount >= 0.0 => Ok(amount),
        _ => Err("an amount of dollars, such as 1.50".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use clap::CommandFactory as _;
    use clap::error::ErrorKind;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(std::iter::once("reimagined").chain(line.split_whitespace()))
    }

    #[test]
    fn the_definitions_hold_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_parses_with_every_flag() {
        for line in [
            "init",
            "init dir",
            "init --service",
            "init --service=user --dry-run --yes --key-from k",
            "init --service=system --remove --root r -y",
            "run",
            "run --once",
            "check",
            "check a/b.jpg --offline",
            "status",
            "status --json",
            "status --watch --json",
            "history",
            "history --since 7d --folder a/b --limit 3 --json",
            "history --since 2026-11-01 --csv",
            "retry a b --again",
            "retry --all --again",
            "demo",
            "demo --dir d --keep --open",
            "sandbox",
            "sandbox --listen 127.0.0.1:0 --key k --credits 1.5 --requests-per-minute 5 --latency 2s --reply url \
             --upload-reply urls --fault 503 --fault cut",
            "completions bash",
            "man",
        ] {
            parse(line).unwrap_or_else(|e| panic!("{line}: {e}"));
            parse(&format!("--config c.toml -v {line}")).unwrap_or_else(|e| panic!("{line}: {e}"));
            let after = parse(&format!("{line} --config c.toml -qq")).unwrap_or_else(|e| panic!("{line}: {e}"));
            assert_eq!(after.global.config, Some("c.toml".into()), "{line}");
            assert_eq!(after.global.verbosity(), -2, "{line}");
        }
    }

    #[test]
    fn usage_errors_end_with_two() {
        for line in [
            "",
            "nonsense",
            "run --twice",
            "init dir --service",
            "init --service user",
            "init --service=both",
            "init --remove",
            "init --dry-run",
            "init --service --remove --key-from k",
            "retry",
            "retry a --all",
            "status extra",
            "history --json --csv",
            "history --limit 0",
            "history --since yesterday",
            "history --since 2026-13-01",
            "completions",
            "completions klingon",
            "run -v -q",
            "sandbox --listen 0.0.0.0:80",
            "sandbox --listen here",
            "sandbox --latency 2",
            "sandbox --latency -2s",
            "sandbox --credits -1",
            "sandbox --credits NaN",
            "sandbox --requests-per-minute 0",
        ] {
            assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn the_help_of_each_command_says_its_purpose_and_shows_an_example() {
        for (command, purpose) in [
            ("init", "commented configuration"),
            ("run", "daemon"),
            ("check", "exact request"),
            ("status", "what waits"),
            ("history", "for how much"),
            ("retry", "back into the inbox"),
            ("demo", "no key and no money"),
            ("sandbox", "stand-in for the API"),
            ("completions", "completions for a shell"),
            ("man", "man page"),
        ] {
            for flag in ["-h", "--help"] {
                let help = parse(&format!("{command} {flag}")).unwrap_err();
                assert_eq!((help.kind(), help.exit_code()), (ErrorKind::DisplayHelp, 0));
                let text = help.to_string();
                let one_line = text.split_whitespace().collect::<Vec<_>>().join(" ");
                assert!(one_line.contains(purpose) || flag == "-h", "{text}");
                assert!(text.contains(&format!("  reimagined {command}")), "{text}");
                assert!(!text.contains('`'), "{command} {flag}: marks of Rust's documentation\n{text}");
            }
        }
        let all = parse("--help").unwrap_err().to_string();
        for word in ["init", "sandbox", "REIMAGINED_CONFIG", "SEGMIND_API_KEY", "5  another daemon"] {
            assert!(all.contains(word), "{word}");
        }
    }

    #[test]
    fn values_are_read_as_they_are_meant() {
        assert_eq!(loopback("localhost:8787"), Ok(SocketAddr::from(([127, 0, 0, 1], 8787))));
        assert!(loopback("[::1]:0").unwrap().ip().is_loopback());
        for (text, ms) in [("250ms", 250), ("2s", 2000), ("5m", 300_000), ("1h", 3_600_000)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)));
        }
        assert!(duration("99999999999999999999h").is_err());
        assert!(duration("9999999999999999h").is_err());
        assert_eq!(amount("$1.50"), Ok(1.5));
    }

    #[test]
    fn verbosity_counts_up_and_down() {
        for (line, expected) in [("run", 0), ("run -v", 1), ("-vv run", 2), ("run -q", -1)] {
            assert_eq!(parse(line).unwrap().global.verbosity(), expected, "{line}");
        }
    }
}
