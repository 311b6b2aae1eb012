//! Which files of a folder belong to one drop.
