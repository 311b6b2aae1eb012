//! `reimagined man`: the man page, all commands on one page, on stdout.
//!
//! `clap_mangen` makes one page per command; here its sections are set one below the other.

use std::io;

use clap::{Command, CommandFactory as _};
use clap_mangen::Man;

use super::args::Cli;
use super::term;

/// Writes the man page to stdout, as roff.
pub fn print() -> io::Result<()> {
    term::print(&page()?)
}

fn page() -> io::Result<String> {
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    let man = Man::new(command.clone()).manual("User Commands");
    let mut page = render(|w| man.render_title(w))?;
    page += &render(|w| man.render_name_section(w))?;
    page += &render(|w| man.render_synopsis_section(w))?;
    page += &render(|w| man.render_description_section(w))?;
    page += ".SH COMMANDS\n";
    for sub in command.get_subcommands() {
        page += &section(sub)?;
    }
    page += &render(|w| man.render_options_section(w))?;
    page += ".SH NOTES\n";
    page += &as_it_stands(&body(&render(|w| man.render_extra_section(w))?));
    page += &render(|w| man.render_version_section(w))?;
    Ok(page)
}

/// One command: its synopsis, what it does, its own options, its examples.
fn section(sub: &Command) -> io::Result<String> {
    // What every command has stands once, under OPTIONS.
    let own = sub.clone().mut_args(|arg| {
        let shared = arg.is_global_set() || arg.get_id() == "help";
        arg.hide(shared)
    });
    let man = Man::new(own);
    let mut text = format!(".SS {}\n", sub.get_name());
    text += &body(&render(|w| man.render_synopsis_section(w))?);
    text += ".PP\n";
    text += &body(&render(|w| man.render_description_section(w))?);
    text += &body(&render(|w| man.render_options_section(w))?);
    text += ".PP\n";
    text += &as_it_stands(&body(&render(|w| man.render_extra_section(w))?));
    Ok(text)
}

fn render(section: impl FnOnce(&mut dyn io::Write) -> io::Result<()>) -> io::Result<String> {
    let mut bytes = Vec::new();
    section(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// What stands below a section's heading.
fn body(section: &str) -> String {
    let mut lines = section.lines().skip_while(|line| !line.starts_with(".SH"));
    lines.next();
    lines.flat_map(|line| [line, "\n"]).collect()
}

/// Examples and tables keep their lines.
fn as_it_stands(text: &str) -> String {
    if text.trim().is_empty() { String::new() } else { format!(".nf\n{text}.fi\n") }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_page_has_every_command_with_its_flags_and_its_purpose() {
        let page = page().unwrap();
        assert!(page.contains(".TH reimagined 1"), "{page}");
        for sub in Cli::command().get_subcommands() {
            assert!(page.contains(&format!(".SS {}\n", sub.get_name())), "{}", sub.get_name());
            for arg in sub.get_arguments().filter_map(clap::Arg::get_long) {
                assert!(page.contains(&arg.replace('-', "\\-")), "{arg}");
            }
        }
        for text in ["another daemon holds", "REIMAGINED_CONFIG", "no key and no money", ".SH OPTIONS"] {
            assert!(page.contains(text), "{text}");
        }
    }

    #[test]
    fn no_heading_of_a_single_commands_page_is_left_inside() {
        let page = page().unwrap();
        for heading in ["SYNOPSIS", "OPTIONS", "DESCRIPTION"] {
            assert_eq!(page.matches(&format!(".SH {heading}")).count(), 1, "{heading}");
        }
        assert!(!page.contains(".SH EXTRA"));
    }
}
