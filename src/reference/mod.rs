//! A local picture to bytes that may leave the machine: whole, upright, stripped, small enough.
