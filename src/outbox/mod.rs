//! The user's folders: durable publish, provenance, moving originals, error notes, room on the disk.
//!
//! Promises: nothing of a user is overwritten or deleted; a file is unlinked only when its bytes stand
//! synced elsewhere; below a root no symlink is followed; every step can be repeated after a crash. All
//! functions block: call them on blocking threads. Decides nothing about drops: which file goes where, and
//! what is committed before it, is the engine's.
//!
//! In the order in which a drop meets them: [`room`] (can what is bought be kept?), [`claim`] (inbox ↔
//! working), [`spool`], [`listing`] (which number is free), [`provenance`], [`publish`], [`note`],
//! [`filing`] (originals to archive or errors), [`sweep`] (what a crash left). Beneath: [`folder`],
//! [`durable`], [`error`].

pub mod claim;
pub mod durable;
pub mod error;
pub mod filing;
pub mod folder;
pub mod fskind;
pub mod listing;
pub mod note;
pub mod overlap;
pub mod provenance;
pub mod publish;
pub mod room;
pub mod spool;
pub mod sweep;
mod syncs;
pub mod unsynced;

pub use error::{Obstacle, OutboxError};
