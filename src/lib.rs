//! `reimagined`: a watch-folder daemon that turns dropped pictures and prompts into new pictures with
//! Bria Reimagine on Segmind.
//!
//! The rooms stand in the order in which a dropped file passes through them; ARCHITECTURE.md draws the
//! arrows between them and a test holds them:
//! `main → cli → engine → {inbox, reference, segmind, outbox, ledger} → domain`.

pub mod cli;
pub mod config;
pub mod domain;
pub mod engine;
pub mod inbox;
pub mod ledger;
pub mod outbox;
pub mod reference;
pub mod sandbox;
pub mod segmind;
pub mod service;
