//! The life of a shot and of a drop.
