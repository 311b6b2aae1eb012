//! Questions on a terminal: yes or no, and the key, which is not shown while it is typed.

use std::io::{self, BufRead as _, IsTerminal as _, Read as _};
use std::os::fd::AsFd as _;
use std::path::Path;

use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};

use crate::domain::ids::show;
use crate::segmind::ApiKey;

use super::super::exit::Failure;
use super::super::term;

/// No key is longer, in bytes.
const LONGEST_KEY: u64 = 64 * 1024;

/// Whether there is somebody to ask.
pub(super) fn somebody() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal()
}

/// Asks; anything but a yes is a no.
pub(super) fn yes(question: &str) -> io::Result<bool> {
    term::print(&format!("{question} [y/N] "))?;
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    Ok(matches!(line.trim().to_lowercase().as_str(), "y" | "yes"))
}

/// Asks for the key; `None` if there is none yet.
pub(super) fn key() -> Result<Option<ApiKey>, Failure> {
    loop {
        let typed = unseen("Your Segmind API key (it is not shown; Enter to leave it for later): ")?;
        term::print("\n")?;
        match typed {
            Typed::Line(line) if line.trim_ascii().is_empty() => return Ok(None),
            Typed::Line(line) => match text(line, "what was typed") {
                Ok(key) => return Ok(Some(key)),
                Err(failure) => term::print(&format!("{}\n", failure.text))?,
            },
            Typed::Away => return Err(Failure::usage("stopped; nothing was done")),
        }
    }
}

enum Typed {
    Line(Vec<u8>),
    /// Ctrl-C.
    Away,
}

/// The terminal as it was, put back in the end.
struct Quiet(Termios);

impl Quiet {
    fn begin() -> io::Result<Self> {
        let stdin = io::stdin();
        let before = tcgetattr(stdin.as_fd())?;
        let mut quiet = before.clone();
        // Byte by byte and without signals, so that Ctrl-C leaves no terminal behind that shows nothing.
        quiet.local_modes.remove(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG);
        quiet.special_codes[SpecialCodeIndex::VMIN] = 1;
        quiet.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(stdin.as_fd(), OptionalActions::Now, &quiet)?;
        Ok(Self(before))
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin().as_fd(), OptionalActions::Now, &self.0);
    }
}

fn unseen(question: &str) -> io::Result<Typed> {
    let _quiet = Quiet::begin()?;
    term::print(question)?;
    let mut line = Vec::new();
    let mut stdin = io::stdin().lock();
    let mut byte = [0];
    loop {
        if stdin.read(&mut byte)? == 0 {
            return Ok(Typed::Line(line));
        }
        match byte[0] {
            b'\r' | b'\n' | 0x04 => return Ok(Typed::Line(line)),
            0x03 | 0x1c => return Ok(Typed::Away),
            0x08 | 0x7f => drop(line.pop()),
            0x15 => line.clear(),
            _ if line.len() as u64 > LONGEST_KEY => {}
            other => line.push(other),
        }
    }
}

/// The key in `file`; `-` is standard input.
pub(super) fn key_from(file: &Path) -> Result<ApiKey, Failure> {
    let shown = if file == Path::new("-") { "standard input".to_owned() } else { show(file.as_os_str()) };
    let mut bytes = Vec::new();
    let read = if file == Path::new("-") {
        io::stdin().lock().take(LONGEST_KEY).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(file).and_then(|file| file.take(LONGEST_KEY).read_to_end(&mut bytes))
    };
    read.map_err(|e| Failure::usage(format!("--key-from {shown}: {e}")))?;
    text(bytes, &shown)
}

fn text(bytes: Vec<u8>, from: &str) -> Result<ApiKey, Failure> {
    // The bytes are not told, whatever they are.
    let text = String::from_utf8(bytes).map_err(|_| Failure::usage(format!("the API key in {from} is not text")))?;
    ApiKey::new(&text, from).map_err(|e| Failure::usage(e.to_string()))
}
