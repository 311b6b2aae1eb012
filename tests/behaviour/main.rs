//! What people see of the product, tried through the real binary or the public interface.
//!
//! One program: it is built once, and its tests, most of which wait for a daemon or a clock, wait side by side.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests say so by failing")]

mod answers;
mod arriving;
mod chaos;
mod commands;
mod config;
mod demo;
mod faults;
mod folders;
mod history;
mod hooks;
mod hostile;
mod init_service;
mod ledger;
mod life;
mod logs;
mod metrics;
mod model;
mod pauses;
mod pictures;
mod records;
mod schemas;
mod shares;
mod storage;
#[path = "../support/mod.rs"]
mod support;
mod systemd;
mod watching;
mod wire;
