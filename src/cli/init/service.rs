//! `reimagined init --service`: shows what it will do, asks, and does it; `--remove` takes it back.

use std::fmt::Write as _;

use crate::domain::ids::show;

use super::super::args::{Global, Init, Whose};
use super::super::exit::Failure;
use super::super::term;
use super::places::Places;
use super::plan::{Key, Plan};
use super::programs::manager_runs;
use super::remove::Removal;
use super::{SAMPLE, ask, quoted};

/// Installs a service, or takes it away.
pub(super) fn run(global: &Global, args: &Init, whose: Option<Whose>) -> Result<(), Failure> {
    if global.config.is_some() {
        return Err(Failure::usage("a service has its configuration in its own place: leave --config away here"));
    }
    let places = Places::of(args, whose)?;
    if args.remove { remove(args, &places) } else { install(args, &places) }
}

fn install(args: &Init, places: &Places) -> Result<(), Failure> {
    let plan = Plan::new(places, args)?;
    let who = match places.whose {
        Whose::System => "for this machine",
        Whose::User => "for you alone",
    };
    let what = match (plan.changes_nothing(), args.dry_run) {
        (true, _) => "Everything stands already for reimagined as a service",
        (false, true) => "This would install reimagined as a service",
        (false, false) => "This will install reimagined as a service",
    };
    term::print(&format!("{what} {who}:\n\n{}\n", plan.shown(places)))?;
    if args.dry_run {
        return Ok(term::print("Nothing was done (--dry-run).\n")?);
    }
    // Commands that change nothing need no yes; they may be what an interrupted run did not come to.
    if !plan.changes_nothing() {
        agreed(args, "Do this?")?;
    }
    let asked = if matches!(plan.key, Key::Asked) { ask::key()? } else { None };
    let key = match &plan.key {
        Key::Given(key) => Some(key),
        _ => asked.as_ref(),
    };
    plan.carry_out(places, key)?;
    let has_key = key.is_some() || matches!(plan.key, Key::There);
    Ok(term::print(&next_steps(places, &plan, has_key))?)
}

fn remove(args: &Init, places: &Places) -> Result<(), Failure> {
    let removal = Removal::new(places)?;
    if removal.is_nothing() {
        return Ok(term::print(&format!("There is nothing to remove.\n{}", removal.stays()))?);
    }
    let verb = if args.dry_run { "would" } else { "will" };
    term::print(&format!("This {verb} take the service away:\n\n{}\n", removal.shown()))?;
    if args.dry_run {
        return Ok(term::print(&format!("{}Nothing was done (--dry-run).\n", spaced(&removal.stays())))?);
    }
    term::print(&spaced(&removal.stays()))?;
    agreed(args, "Do this?")?;
    let mut lines = vec!["The service is removed.".to_owned()];
    lines.extend(removal.carry_out(places)?);
    Ok(term::print(&format!("{}\n", lines.join("\n")))?)
}

/// A paragraph, if there is anything in it.
fn spaced(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("{text}\n") }
}

/// Only with a yes, from a person or from `--yes`.
fn agreed(args: &Init, question: &str) -> Result<(), Failure> {
    if args.yes {
        return Ok(());
    }
    if !ask::somebody() {
        return Err(Failure::usage(
            "nothing was done: there is no terminal to ask on. Say --yes to do this, --dry-run to see it only",
        ));
    }
    if ask::yes(question)? { Ok(()) } else { Err(Failure::usage("nothing was done")) }
}

fn next_steps(places: &Places, plan: &Plan, has_key: bool) -> String {
    let mut text = String::from("It is installed. What to do next:\n");
    let mut number = 0;
    let mut step = |what: &str, command: &str| {
        number += 1;
        let _ = writeln!(text, "  {number}. {what}\n       {command}");
    };
    let file = quoted(&places.key);
    let inbox = show(plan.inbox.as_os_str());
    if !has_key && !matches!(plan.key, Key::Elsewhere) {
        let missing = match places.whose {
            Whose::System => "Give it your Segmind API key, without which it does not start (paste it, Enter, Ctrl-D):",
            Whose::User => "Give it your Segmind API key, for which it waits (paste it, Enter, Ctrl-D):",
        };
        step(missing, &format!("install -m 600 /dev/stdin {file}"));
    }
    if !plan.key_is_named {
        let line = format!("key_file = {}", toml::Value::from(show(places.key.as_os_str())));
        step("Name that file in your configuration, below [api]:", &line);
    }
    if places.root.is_none() {
        step("See whether everything is in place:", "reimagined check");
    }
    match places.whose {
        Whose::System => {
            if let Some(root) = &places.root {
                step(
                    "Let it start at boot; the user and the folders are made then, too:",
                    &format!("systemctl --root={} enable reimagined", quoted(root)),
                );
            } else {
                step("Start it, now and at every boot:", "systemctl enable --now reimagined");
            }
            step("Let somebody drop and collect, from their next login on:", "usermod -aG reimagined SOMEBODY");
            step("Drop pictures with a prompt, or into a folder with a preset.toml:", &inbox);
        }
        Whose::User => {
            step("Start it, now and whenever you log in:", "systemctl --user enable --now reimagined");
            step("If it is to run while nobody is logged in, too:", "loginctl enable-linger");
            let sample = plan.inbox.join(SAMPLE).is_dir();
            let sample = if sample { " (its folder autumn-cafe has a sample look)" } else { "" };
            step(&format!("Drop pictures with a prompt, or into a folder with a preset.toml{sample}:"), &inbox);
        }
    }
    let user = if places.whose == Whose::User { " --user" } else { "" };
    let _ = writeln!(
        text,
        "What it does:      systemctl{user} status reimagined, reimagined status\nTake it away:      {} --remove",
        places.said()
    );
    if places.whose == Whose::User && super::super::setup::env("XDG_CONFIG_HOME").is_some() {
        text.push_str("Your own systemd must know $XDG_CONFIG_HOME, too: it looks for units below that.\n");
    }
    if places.root.is_none() && !manager_runs(places.whose) {
        text.push_str("No systemd that could be told of it runs here now; it finds the service when it starts.\n");
    }
    text
}
