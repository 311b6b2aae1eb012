//! What became of drops, as `history` tells it: read from beside the daemon, and never written.

use std::ffi::OsString;

use jiff::Timestamp;

use super::Ending;
use crate::domain::ids::{DropId, RelPath};
use crate::domain::life::Shot;

/// Which drops are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Those that ended then or later.
    pub since: Option<Timestamp>,
    /// Those of this folder and of the folders below it; the inbox itself means all.
    pub folder: RelPath,
    /// The newest so many.
    pub newest: Option<u32>,
}

/// A drop that ended, or of which some shots did.
#[derive(Clone, Debug, PartialEq)]
pub struct Past {
    /// Its identity.
    pub id: DropId,
    /// Its folder below the inbox.
    pub folder: RelPath,
    /// The name of its picture, or of its first sidecar.
    pub name: OsString,
    /// When it ended; of one in work, when the last of its shots did.
    pub at: Timestamp,
    /// How it ended; `None` while it is in work.
    pub ending: Option<Ending>,
    /// Why it failed, as far as it did.
    pub reason: Option<String>,
    /// How many shots it has, or had left when it came back.
    pub of: u32,
    /// Its shots; of one in work those that have ended.
    pub shots: Vec<Shot>,
}
