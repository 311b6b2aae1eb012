//! How a command ends: the documented exit codes, and errors for a person.

use std::process::ExitCode;

use super::term;

/// The documented exit codes but 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// Unexpected.
    Unexpected = 1,
    /// Usage or configuration.
    Usage = 2,
    /// Some drops failed.
    SomeFailed = 3,
    /// Paused or limited.
    Paused = 4,
    /// Another daemon holds this inbox or state directory.
    Held = 5,
}

/// A command that did not end well: what is said of it, and its exit code.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub code: Code,
    /// What happened, where, and what to do; empty where everything was said already.
    pub text: String,
}

impl Failure {
    /// With this code.
    pub fn new(code: Code, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }

    /// What nobody foresaw.
    pub fn unexpected(text: impl Into<String>) -> Self {
        Self::new(Code::Unexpected, text)
    }

    /// What a person has to change.
    pub fn usage(text: impl Into<String>) -> Self {
        Self::new(Code::Usage, text)
    }

    /// Tells the person, and gives the code to end with.
    pub fn tell(&self) -> ExitCode {
        if !self.text.is_empty() {
            term::complain(&format!("{}\n", self.text.trim_end()));
        }
        ExitCode::from(self.code as u8)
    }
}

impl From<std::io::Error> for Failure {
    fn from(e: std::io::Error) -> Self {
        // Whatever else fails has an error of its own, with its place.
        Self::unexpected(format!("the output can't be written: {e}"))
    }
}
