//! Durable publishing, provenance, moving originals, error notes.
