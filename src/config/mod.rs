//! TOML text to a validated configuration and presets; all problems at once, each with file, line and nearest name.
