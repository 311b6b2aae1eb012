//! A stand-in for the API on loopback.
mod paint;
