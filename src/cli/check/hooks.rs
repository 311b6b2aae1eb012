//! Who is told what happened, and whether that can work here.

use crate::config::Config;
use crate::domain::hooks::On;
use crate::domain::params::is_loopback;
use crate::service::hooks::problems;

use super::super::setup;
use super::Report;

/// Looks at programs and webhook; runs and posts nothing.
pub(super) fn look(config: &Config, report: &mut Report) {
    let hooks = &config.hooks;
    let mut told: Vec<String> = hooks.programs.keys().map(|on| on.key().to_owned()).collect();
    if let Some(webhook) = &hooks.webhook {
        let events: Vec<&str> = webhook.events.iter().copied().map(On::word).collect();
        // The path of an address may be a secret of its own.
        let host = webhook.url.host_str().unwrap_or_default();
        let signed = if webhook.secret_file.is_some() { "signed" } else { "not signed" };
        told.push(format!("a webhook at {host}, {signed} ({})", events.join(", ")));
        if webhook.url.scheme() == "http" && !is_loopback(&webhook.url) {
            report.warn(format!(
                "[hooks] webhook_url is plain http: whoever is on the way to {host} can read what is told; use https where it has it"
            ));
        }
    }
    if !told.is_empty() {
        report.fact("Hooks", told.join(", "));
    }
    let signed = hooks.webhook.as_ref().is_some_and(|webhook| webhook.secret_file.is_some());
    if signed && rustix::process::geteuid().is_root() {
        report.fact("Secret", "looked at as root: whether a service's own user can read it, only its log tells");
    }
    for problem in problems(hooks, setup::credentials().as_deref()) {
        report.problem(problem);
    }
}
