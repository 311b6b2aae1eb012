//! What several commands need: the configuration, the state directory, the ledger and the key.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;

use crate::config::{self, Config};
use crate::domain::ids::show_text;
use crate::engine::KeyRing;
use crate::ledger::sqlite::SqliteLedger;
use crate::ledger::{Ledger as _, LedgerError};
use crate::segmind::{CREDENTIAL, KeySource, VARIABLE};

use crate::service::status_file;

use super::args::Global;
use super::exit::Failure;

/// What this program is.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The ledger's name in the state directory.
pub const LEDGER: &str = "ledger.db";

/// The environment, as the configuration asks for it.
pub fn env(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// The configuration that this command uses.
pub fn configuration(global: &Global) -> Result<Config, Failure> {
    let path = config::find(global.config.as_deref(), &env).map_err(|e| Failure::usage(e.to_string()))?;
    Config::load(&path).map_err(|problems| Failure::usage(problems.to_string()))
}

/// The state directory that this command uses.
pub fn state_dir(config: &Config) -> Result<PathBuf, Failure> {
    config::state_dir(config, &env)
        .ok_or_else(|| Failure::usage("there is no place for the daemon's state: set [service] state_dir, or $HOME"))
}

/// Systemd's folder of credentials.
pub fn credentials() -> Option<PathBuf> {
    env("CREDENTIALS_DIRECTORY").map(PathBuf::from)
}

/// Where the key comes from.
pub fn keys(config: &Config) -> Arc<KeyRing> {
    Arc::new(KeyRing::new(KeySource {
        credentials_directory: credentials(),
        variable: env(VARIABLE).and_then(|v| v.into_string().ok()).map(Into::into),
        key_file: config.api.key_file.clone(),
    }))
}

/// What to do without a key, for a person.
pub fn how_to_give_a_key() -> String {
    format!("Give it by the systemd credential {CREDENTIAL}, by ${VARIABLE}, or by [api] key_file (mode 0600).")
}

/// The ledgers that were set aside as damaged, by name, oldest first.
pub fn damaged_ledgers(state_dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(state_dir).into_iter().flatten().filter_map(Result::ok);
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let parts = ["-wal", "-shm", "-journal", "-count"];
    let mut names: Vec<String> = names
        .filter(|name| name.strip_prefix(LEDGER).is_some_and(|rest| rest.starts_with(".damaged-")))
        // A log alone counts as the ledger that it belonged to.
        .map(|name| parts.iter().find_map(|part| name.strip_suffix(part)).unwrap_or(&name).to_owned())
        .collect();
    names.sort();
    names.dedup();
    names
}

/// The ledger of a newer version: what happened, which version that was, and what to do.
pub fn newer(error: &LedgerError, state_dir: &Path) -> Failure {
    // The status beside it is of the program that ran there last.
    let last = status_file::read(state_dir).ok().flatten().map(|status| status.version);
    let which = match last.filter(|version| !version.is_empty() && version != VERSION) {
        Some(version) => format!("reimagined {} ran there last, this is {VERSION}. ", show_text(&version)),
        None => format!("This is reimagined {VERSION}. "),
    };
    Failure::usage(format!(
        "{error}. {which}A ledger goes no way back: install that version again, or set another [service] state_dir \
         (what lies in working then goes to errors). Nothing was changed."
    ))
}

/// Opens the ledger in `state_dir`. A damaged one is set aside, said loudly, and a new one begun; a newer one
/// is refused and left alone.
pub fn ledger(state_dir: &Path) -> Result<(SqliteLedger, bool), Failure> {
    let path = state_dir.join(LEDGER);
    let mut ledger = match SqliteLedger::open(&path) {
        Ok(ledger) => ledger,
        Err(e @ LedgerError::Newer { .. }) => return Err(newer(&e, state_dir)),
        Err(LedgerError::Damaged { why, .. }) => {
            let kept =
                SqliteLedger::set_aside(&path, Timestamp::now()).map_err(|e| Failure::unexpected(e.to_string()))?;
            let kept = kept.map_or_else(String::new, |kept| format!(", kept as {}", kept.display()));
            tracing::error!(ledger = %path.display(), "the ledger is damaged ({why}){kept}; a new one is begun, and what was in work goes to errors as unconfirmed");
            SqliteLedger::open(&path).map_err(|e| Failure::unexpected(e.to_string()))?
        }
        // Also where another program has it locked: that passes, and the service is to be started again then.
        Err(e) => return Err(Failure::unexpected(e.to_string())),
    };
    let fresh = ledger.is_fresh().map_err(|e| Failure::unexpected(e.to_string()))?;
    Ok((ledger, !fresh))
}
