//! `[hooks]`: which program is run, or what is posted where, when something happened.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use super::Reader;
use crate::config::layer::{Raw, what};
use crate::config::problem::nearest;
use crate::config::values::{duration, number, path, text};
use crate::domain::hooks::{Command, On, Settings, Webhook};

pub(super) const KEYS: [&str; 11] = [
    "on_done",
    "on_failed",
    "on_paused",
    "on_waiting",
    "timeout",
    "max_running",
    "waiting_after",
    "paused_after",
    "webhook_url",
    "webhook_secret_file",
    "webhook_events",
];

const SECTION: &str = "hooks";

impl Reader<'_> {
    pub(super) fn hooks(&mut self, hooks: &mut Settings) {
        const ONE: Duration = Duration::from_millis(1);

        for on in On::ALL {
            if let Some(command) = self.command(on) {
                hooks.programs.insert(on, command);
            }
        }
        self.value(SECTION, "timeout", &mut hooks.timeout, |v| duration(v, ONE));
        self.value(SECTION, "max_running", &mut hooks.max_running, |v| number(v, 1, 64));
        self.value(SECTION, "waiting_after", &mut hooks.waiting_after, |v| duration(v, ONE));
        self.value(SECTION, "paused_after", &mut hooks.paused_after, |v| duration(v, Duration::ZERO));
        self.webhook(hooks);
    }

    /// The command of an occasion: a list, or a text that is a program alone.
    fn command(&mut self, on: On) -> Option<Command> {
        let key = on.key();
        let found = self.values.get(&(SECTION, key))?;
        let words = match &found.value {
            Raw::Text(program) if program.split_whitespace().nth(1).is_some() => {
                let list: Vec<String> = program.split_whitespace().map(|word| format!("{word:?}")).collect();
                let message = format!(
                    "no shell reads this, so a text is the program alone: write a list, such as [{}]",
                    list.join(", ")
                );
                self.complain(SECTION, key, &message);
                return None;
            }
            Raw::Text(program) => vec![(found.at, program.clone())],
            Raw::List(_) => {
                let before = self.problems.len();
                let words = self.texts(SECTION, key)?;
                if self.problems.len() > before {
                    return None;
                }
                words
            }
            other => {
                let message = format!("must be a list of a program and its arguments, not {}", what(other));
                self.complain(SECTION, key, &message);
                return None;
            }
        };
        let Some(((at, program), args)) = words.split_first() else {
            self.complain(SECTION, key, "is an empty list: write a program and its arguments");
            return None;
        };
        let shown = format!("[{SECTION}] {key}");
        if let Some((at, _)) = words.iter().find(|(_, word)| word.contains('\0')) {
            self.wrong(*at, &shown, "holds a NUL character, which no argument can");
            return None;
        }
        let program = if program.contains('/') || program.starts_with('~') || program.trim().is_empty() {
            path(&Raw::Text(program.clone()), self.base, self.home)
        } else {
            // A name alone is looked for in PATH when it is run.
            Ok(PathBuf::from(program))
        };
        let program = match program {
            Ok(program) => program,
            Err(message) => {
                self.wrong(*at, &shown, &message);
                return None;
            }
        };
        let texts: Vec<String> = args.iter().map(|(_, text)| text.clone()).collect();
        match Command::new(program, &texts, on) {
            Ok(command) => Some(command),
            Err(wrong) => {
                let at = args.get(wrong.arg).map_or(0, |(at, _)| *at);
                let near = wrong.name.and_then(|name| nearest(&name, Command::names(on)));
                self.unknown(at, &shown, wrong.message, near.map(|name| format!("{{{name}}}")));
                None
            }
        }
    }

    fn webhook(&mut self, hooks: &mut Settings) {
        let mut url = None;
        self.value(SECTION, "webhook_url", &mut url, |v| web_address(text(v)?).map(Some));
        let mut secret_file = None;
        self.optional_path(SECTION, "webhook_secret_file", &mut secret_file);
        let mut events = BTreeSet::from(On::ALL);
        if let Some(words) = self.texts(SECTION, "webhook_events") {
            events.clear();
            for (at, word) in words {
                if let Some(on) = On::ALL.into_iter().find(|on| on.word() == word) {
                    events.insert(on);
                } else {
                    let near = nearest(&word, On::ALL.map(On::word));
                    let message = format!("{word:?} is no event: there are done, failed, paused and waiting");
                    self.unknown(at, "[hooks] webhook_events", message, near);
                }
            }
        }
        match url {
            Some(url) => hooks.webhook = Some(Webhook { url, secret_file, events }),
            // One that is there and wrong has been complained of.
            None if self.has(SECTION, "webhook_url") => {}
            None => {
                for key in ["webhook_secret_file", "webhook_events"] {
                    if self.has(SECTION, key) {
                        self.complain(SECTION, key, "means nothing without webhook_url");
                    }
                }
            }
        }
    }
}

/// An address to post to: it may be a service in the own network, so http is right, too.
fn web_address(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|e| format!("is no address: {e}"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err("must begin with https:// or http://".into());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must not hold a user name or a password".into());
    }
    if url.fragment().is_some() {
        return Err("must not hold a #, which is never sent".into());
    }
    Ok(url)
}
