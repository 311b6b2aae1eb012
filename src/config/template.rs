//! The texts that `reimagined init` writes.

use std::path::Path;

/// `config.example.toml`: every key with its default, commented.
pub const EXAMPLE: &str = include_str!("../../config.example.toml");

/// A commented configuration. With `dir`, the folders and the state directory are those in it.
pub fn config_toml(dir: Option<&Path>) -> String {
    let Some(dir) = dir else { return EXAMPLE.to_owned() };
    let folder = |name: &str| match dir.join(name).to_str() {
        Some(path) if dir.is_absolute() => toml::Value::from(path).to_string(),
        // TOML can't hold a path that is no UTF-8; one that counts from the file says the same.
        _ => format!("\"{name}\""),
    };
    let mut out = String::with_capacity(EXAMPLE.len());
    for line in EXAMPLE.lines() {
        let key = line.trim_start_matches("# ").split(" = ").next().unwrap_or_default();
        match key {
            "inbox" | "outbox" | "archive" | "errors" => out.extend([key, " = ", &folder(key)]),
            "state_dir" => out.extend(["state_dir = ", &folder("state")]),
            _ => out.push_str(line),
        }
        out.push('\n');
    }
    out
}

/// A commented `preset.toml` for the folder of a look: it has a prompt, so that a picture dropped there goes.
pub fn preset_toml() -> &'static str {
    include_str!("sample_preset.toml")
}

#[cfg(test)]
#[path = "template_tests.rs"]
mod tests;
