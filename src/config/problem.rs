//! What is wrong with a file that a person wrote: where, which key, what to write instead.

use std::fmt;

use crate::domain::ids::show_text;

/// Characters of a key, or of what is said of it: files are written by anybody, and this goes into notes.
const LONGEST_WORDS: usize = 400;

/// Problems of one file that are told.
const MOST_SHOWN: usize = 200;

/// One thing that is wrong in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file for people, as it was named to the reader.
    pub file: String,
    /// The line, from 1; `None` where it is about the file as a whole.
    pub line: Option<u32>,
    /// The column in characters, from 1.
    pub column: Option<u32>,
    /// The key for people, `[watch] settle` or `steps_num`, where it is about one.
    pub key: Option<String>,
    /// What is wrong, and what to do where that is not plain.
    pub message: String,
    /// The right name that is nearest to the wrong one.
    pub nearest: Option<String>,
}

impl Problem {
    /// Something that is wrong with the file as a whole.
    pub fn of_file(file: impl Into<String>, message: impl Into<String>) -> Self {
        Self { file: file.into(), line: None, column: None, key: None, message: message.into(), nearest: None }
    }
}

impl fmt::Display for Problem {
    /// One line: `config.toml:12: [watch] setle: unknown key; did you mean "settle"?`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&show_text(&self.file))?;
        let short = |text: &str| {
            let all = show_text(text);
            let end = all.char_indices().nth(LONGEST_WORDS).map(|(at, _)| at);
            end.map_or(all.clone(), |end| format!("{}…", &all[..end]))
        };
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        f.write_str(": ")?;
        if let Some(key) = &self.key {
            write!(f, "{}: ", short(key))?;
        }
        f.write_str(&short(&self.message))?;
        if let Some(nearest) = &self.nearest {
            write!(f, "; did you mean \"{}\"?", show_text(nearest))?;
        }
        Ok(())
    }
}

/// Everything that is wrong in a file, in the order of its lines; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// `Err` with the problems in the order of their lines, or `Ok` if there are none.
    pub(crate) fn none_of(problems: Vec<Problem>) -> Result<(), Self> {
        if problems.is_empty() { Ok(()) } else { Err(Self::all(problems)) }
    }

    fn all(mut problems: Vec<Problem>) -> Self {
        problems.sort_by_key(|problem| (problem.line, problem.column));
        Self(problems)
    }

    /// The problems.
    pub fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.0.iter()
    }
}

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Self {
        Self(vec![problem])
    }
}

impl<'a> IntoIterator for &'a Problems {
    type Item = &'a Problem;
    type IntoIter = std::slice::Iter<'a, Problem>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for Problems {
    /// One line for each problem.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.0.iter().take(MOST_SHOWN).enumerate() {
            write!(f, "{}{problem}", if i == 0 { "" } else { "\n" })?;
        }
        match self.0.len().saturating_sub(MOST_SHOWN) {
            0 => Ok(()),
            more => write!(f, "\nand {more} more problems"),
        }
    }
}

impl std::error::Error for Problems {}

/// The one of `names` that somebody who wrote `wrong` most likely meant.
pub(crate) fn nearest<'a>(wrong: &str, names: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let wrong = wrong.to_lowercase().replace('-', "_");
    let names: Vec<&str> = names.into_iter().collect();
    let close = names
        .iter()
        .map(|name| (strsim::osa_distance(&wrong, name), *name))
        .filter(|(distance, name)| *distance <= (wrong.chars().count().max(name.len()) / 3).max(1))
        .min_by_key(|(distance, _)| *distance);
    if let Some((_, name)) = close {
        return Some(name.to_owned());
    }
    // "influence" is far from "structure_ref_influence" by letters, and plainly means it.
    let mut holding = names.iter().filter(|name| wrong.len() >= 4 && name.contains(&wrong));
    match (holding.next(), holding.next()) {
        (Some(name), None) => Some((*name).to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_name_finds_the_right_one_and_nonsense_finds_none() {
        let names = ["settle", "folder_settle", "steps_num", "structure_ref_influence", "seed", "seeds"];
        for (wrong, right) in [
            ("setle", Some("settle")),
            ("Settle", Some("settle")),
            ("folder-settle", Some("folder_settle")),
            ("steps", Some("steps_num")),
            ("influence", Some("structure_ref_influence")),
            ("sed", Some("seed")),
            ("bananas", None),
            ("", None),
        ] {
            assert_eq!(nearest(wrong, names).as_deref(), right, "{wrong}");
        }
    }

    #[test]
    fn a_problem_is_one_line_whatever_it_holds() {
        let problem = Problem {
            file: "config.toml".into(),
            line: Some(12),
            column: Some(1),
            key: Some("[watch] setle".into()),
            message: "unknown key".into(),
            nearest: Some("settle".into()),
        };
        assert_eq!(problem.to_string(), "config.toml:12: [watch] setle: unknown key; did you mean \"settle\"?");
        let nasty = Problem { key: Some("a\n\u{1b}[31m".into()), ..problem };
        assert!(!nasty.to_string().contains(['\n', '\u{1b}']), "{nasty}");
    }
}
