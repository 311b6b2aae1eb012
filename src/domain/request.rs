//! What is sent for a shot.
