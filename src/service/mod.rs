//! What ties the daemon to the machine it runs on: systemd, signals, the single-instance lock, logging, the
//! status file, metrics and health, and the programs and the webhook that are told what happened.
//!
//! Nothing here decides what becomes of a drop or what an answer means. Each module can be used alone, and none keeps
//! state for another.

pub mod hooks;
pub mod lock;
pub mod logging;
pub mod metrics;
pub mod monitor;
pub mod notify;
pub mod signals;
pub mod status_file;
