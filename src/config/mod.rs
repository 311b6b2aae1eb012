//! TOML text to a validated configuration and presets; all problems at once, each with file, line and
//! nearest name.
//!
//! Also reads what has the same keys: a drop's sidecars, as text, TOML or JSON. It opens the configuration
//! file and preset files and nothing else; sidecars come as bytes, since whoever hashes them has read them.
//! It makes no folders and compares none: whether they overlap is found by looking at them, at start.

pub mod locate;
pub mod preset_file;
pub mod problem;
pub mod settings;
pub mod sidecar;
pub mod template;
pub mod units;

mod build;
mod document;
mod layer;
mod renamed;
mod toml_text;
mod values;

pub(crate) use document::read_at_most;
pub use document::{ReadError, read_limited};
pub use locate::{NotFound, find, state_dir};
pub use problem::{Problem, Problems};
pub use renamed::Told;
pub use settings::{
    Api, Backend, Config, Folders, Ignore, Limits, Output, Reference, ReferenceMode, Retry, Service, Unconfirmed, Watch,
};

/// Nothing that a person writes for this program is longer: sidecars, presets, the configuration. Bytes.
pub const LONGEST_TEXT_BYTES: u64 = 1024 * 1024;
