//! What an answer of the API means, and whose fault it is.

use serde::{Deserialize, Serialize};

/// Whether a request was billed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Billed {
    /// Surely not.
    No,
    /// Surely.
    Yes,
    /// Nobody knows.
    Unknown,
}

/// What the headers of an answer said, where present.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Receipt {
    /// `x-request-id`.
    pub request_id: Option<String>,
    /// `x-cost`, US dollars.
    pub cost: Option<f64>,
    /// `x-remaining-credits`.
    pub remaining_credits: Option<f64>,
    /// `x-generation-time`, seconds.
    pub generation_time: Option<f64>,
    /// `x-seed-value`.
    pub seed: Option<i64>,
}
