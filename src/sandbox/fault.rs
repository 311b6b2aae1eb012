//! Faults on request: what goes wrong with a call, and the words that ask for it.
//!
//! Promises that words that are no fault's stay in the prompt, and that a mistyped one is told, not
//! ignored. Pure.

use std::str::FromStr;
use std::time::Duration;

use super::options::Reply;

/// What goes wrong with one call; [`Fault::default`] is a call with which nothing does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fault {
    /// Waits this long before anything else happens.
    pub delay: Duration,
    /// Answers with this status instead of 200.
    pub status: Option<u16>,
    /// The value of the header `Retry-After`, as it is.
    pub retry_after: Option<String>,
    /// The text of the error instead of the usual one.
    pub message: Option<String>,
    /// What becomes of the answer.
    pub how: How,
}

/// What becomes of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum How {
    /// It is given as the service gives it.
    #[default]
    Answer,
    /// It is given as this kind of reply.
    As(Reply),
    /// JSON with an error and no picture.
    Error,
    /// The connection ends in the middle of the body; the headers promise all of it.
    Cut,
    /// The connection ends before any answer.
    Close,
    /// The body never ends.
    Endless,
    /// A page in HTML.
    Html,
    /// No body at all.
    Empty,
    /// Half a JPEG, and headers that promise no more.
    Half,
}

/// What a prompt says, and how often its fault counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wish {
    /// The prompt without the sandbox's words.
    pub(crate) prompt: String,
    /// What they ask for; `None` if there were none.
    pub(crate) fault: Option<Fault>,
    /// The fault counts for the first this many calls with this very prompt; `None`: for all.
    pub(crate) times: Option<u32>,
}

impl Wish {
    /// Takes the words `sandbox:…` out of a prompt. The error names the word that cannot be understood.
    pub(crate) fn read(prompt: &str) -> Result<Self, String> {
        let mut wish = Self::default();
        let mut kept = Vec::new();
        let mut fault = Fault::default();
        let mut asked = false;
        for token in prompt.split_whitespace() {
            let Some(word) = token.strip_prefix("sandbox:") else {
                kept.push(token);
                continue;
            };
            // A word at the end of a clause: "sandbox:cut, please".
            let word = word.trim_end_matches([',', '.', ';', '!']);
            match word.split_once('=') {
                None if word == "once" => wish.times = Some(1),
                Some(("times", value)) => {
                    wish.times = Some(value.parse().map_err(|_| format!("sandbox:{word} wants a number"))?);
                }
                _ => {
                    fault.add(word)?;
                    asked = true;
                }
            }
        }
        wish.prompt = kept.join(" ");
        wish.fault = asked.then_some(fault);
        Ok(wish)
    }
}

impl Fault {
    /// One that answers with a status.
    pub fn status(status: u16) -> Self {
        Self { status: Some(status), ..Self::default() }
    }

    /// One that does something to the answer.
    pub fn how(how: How) -> Self {
        Self { how, ..Self::default() }
    }

    /// Whether the call counts as billed: the service bills 200 alone, and a call whose connection is
    /// closed was worked off all the same.
    pub(crate) fn is_billed(&self) -> bool {
        self.status.is_none_or(|status| status == 200)
    }

    fn add(&mut self, word: &str) -> Result<(), String> {
        let wants = |what: &str| format!("sandbox:{word} wants {what}");
        match word.split_once('=').unwrap_or((word, "")) {
            ("status", value) => {
                let status = value.parse().ok().filter(|status| (200..=599).contains(status));
                self.status = Some(status.ok_or_else(|| wants("a status from 200 to 599"))?);
            }
            ("retry-after", value) if !value.is_empty() && value.chars().all(|c| c.is_ascii_graphic()) => {
                // A date has blanks; in a prompt they are written as underscores.
                self.retry_after = Some(value.replace('_', " "));
            }
            ("retry-after", _) => return Err(wants("seconds, or a date with _ for blanks")),
            ("delay", value) => self.delay = duration(value).ok_or_else(|| wants("a time such as 500ms or 2s"))?,
            ("say", value) if !value.is_empty() => self.message = Some(value.replace('_', " ")),
            ("say", _) => return Err(wants("a text with _ for blanks")),
            ("json", "error") => self.how = How::Error,
            ("json", value) => {
                let reply = Reply::from_str(value).ok().filter(|reply| *reply != Reply::Image);
                self.how = How::As(reply.ok_or_else(|| wants("url, base64, data, nested or error"))?);
            }
            ("image", "") => self.how = How::As(Reply::Image),
            ("cut", "") => self.how = How::Cut,
            ("close", "") => self.how = How::Close,
            ("endless", "") => self.how = How::Endless,
            ("html", "") => self.how = How::Html,
            ("empty", "") => self.how = How::Empty,
            ("half", "") => self.how = How::Half,
            _ => {
                return Err(format!(
                    "the sandbox does not know sandbox:{word}; `reimagined sandbox --help` lists its words"
                ));
            }
        }
        Ok(())
    }
}

/// Reads the same words without `sandbox:`, separated by commas: `status=503,retry-after=2`; `ok` is a
/// call with which nothing goes wrong.
impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut fault = Self::default();
        for word in text.split(',').map(str::trim).filter(|word| !word.is_empty() && *word != "ok") {
            let word = word.strip_prefix("sandbox:").unwrap_or(word);
            // A number alone is a status.
            match word.parse::<u16>() {
                Ok(status) => fault.add(&format!("status={status}"))?,
                Err(_) => fault.add(word)?,
            }
        }
        Ok(fault)
    }
}

/// `250ms`, `2s`, `1.5s` or `1m`; at most an hour.
fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = if let Some(number) = text.strip_suffix("ms") {
        (number, 0.001)
    } else if let Some(number) = text.strip_suffix('s') {
        (number, 1.0)
    } else {
        (text.strip_suffix('m')?, 60.0)
    };
    let seconds = number.parse::<f64>().ok()? * unit;
    (0.0..=3600.0).contains(&seconds).then(|| Duration::from_secs_f64(seconds))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn words_are_taken_out_of_the_prompt_and_understood() {
        let table = [
            ("a cat", None, None),
            ("a cat sandbox:status=503", Some(Fault::status(503)), None),
            (
                "sandbox:status=429 a sandbox:retry-after=2 cat",
                Some(Fault { retry_after: Some("2".into()), ..Fault::status(429) }),
                None,
            ),
            ("a cat sandbox:delay=1.5s", Some(Fault { delay: Duration::from_millis(1500), ..Fault::default() }), None),
            ("a cat sandbox:cut, sandbox:once", Some(Fault::how(How::Cut)), Some(1)),
            ("a cat sandbox:close sandbox:times=3", Some(Fault::how(How::Close)), Some(3)),
            ("a cat sandbox:json=nested", Some(Fault::how(How::As(Reply::Nested))), None),
            (
                "a cat sandbox:json=error sandbox:say=no_such_cat",
                Some(Fault { message: Some("no such cat".into()), ..Fault::how(How::Error) }),
                None,
            ),
        ];
        for (prompt, fault, times) in table {
            let wish = Wish::read(prompt).unwrap();
            assert_eq!(wish, Wish { prompt: "a cat".into(), fault, times }, "{prompt}");
        }
    }

    #[test]
    fn a_mistyped_word_is_told() {
        for word in [
            "status=99",
            "status=abc",
            "delay=2",
            "delay=2h",
            "json=xml",
            "json=image",
            "kut",
            "times=x",
            "cut=1",
            "retry-after=",
        ] {
            let told = Wish::read(&format!("a cat sandbox:{word}")).unwrap_err();
            assert!(told.contains(&format!("sandbox:{word}")), "{told}");
        }
    }

    #[test]
    fn a_sandbox_without_a_colon_is_part_of_the_prompt() {
        assert_eq!(Wish::read("a sandbox on a beach").unwrap().prompt, "a sandbox on a beach");
    }

    #[test]
    fn faults_are_read_from_the_command_line() {
        assert_eq!("ok".parse(), Ok(Fault::default()));
        let expected = Fault { retry_after: Some("2".into()), ..Fault::status(503) };
        assert_eq!("status=503,retry-after=2".parse(), Ok(expected));
        assert!("status".parse::<Fault>().is_err());
        assert_eq!("503".parse(), Ok(Fault::status(503)));
        assert!("77".parse::<Fault>().is_err());
    }
}
