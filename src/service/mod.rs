//! systemd, signals, the single-instance lock and logging.
