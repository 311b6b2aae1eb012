//! What several commands need: the configuration, the state directory, the ledger and the key.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;

use crate::config::{self, Config};
use crate::engine::KeyRing;
use crate::ledger::sqlite::SqliteLedger;
use crate::ledger::{Ledger as _, LedgerError};
use crate::segmind::{CREDENTIAL, KeySource, VARIABLE};

use super::args::Global;
use super::exit::Failure;

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

/// Where the key comes from.
pub fn keys(config: &Config) -> Arc<KeyRing> {
    Arc::new(KeyRing::new(KeySource {
        credentials_directory: env("CREDENTIALS_DIRECTORY").map(PathBuf::from),
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

/// Opens the ledger in `state_dir`. A damaged one is set aside, said loudly, and a new one begun; a newer one
/// is refused and left alone.
pub fn ledger(state_dir: &Path) -> Result<(SqliteLedger, bool), Failure> {
    let path = state_dir.join(LEDGER);
    let mut ledger = match SqliteLedger::open(&path) {
        Ok(ledger) => ledger,
        Err(e @ LedgerError::Newer { .. }) => return Err(Failure::usage(e.to_string())),
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
