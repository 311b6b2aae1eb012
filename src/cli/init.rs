//! `reimagined init [DIR]`: a commented configuration, the folders and a sample preset; with `--service` the
//! whole service.
//!
//! Looks at every place first: where something stands already, nothing at all is written. The sample preset
//! stands in a folder of its own, so that nothing is sent from the inbox itself before somebody said how.

mod ask;
mod places;
mod plan;
mod programs;
mod remove;
mod service;
mod texts;

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::config::locate;
use crate::config::template::{config_toml, preset_toml};
use crate::domain::ids::show;

use super::args::{Global, Init};
use super::exit::Failure;
use super::{setup, term};

/// The look that the sample preset makes.
const SAMPLE: &str = "autumn-cafe";
/// What is made beside the inbox; working is found when the daemon starts.
const FOLDERS: [&str; 4] = ["inbox", "outbox", "archive", "errors"];

/// What is to stand in the end.
struct Layout {
    config: PathBuf,
    text: String,
    base: PathBuf,
    /// Whether the other commands find the configuration without being told.
    found_by_itself: bool,
}

impl Layout {
    fn sample_folder(&self) -> PathBuf {
        self.base.join("inbox").join(SAMPLE)
    }

    fn sample(&self) -> PathBuf {
        self.sample_folder().join("preset.toml")
    }
}

/// Writes them, or nothing at all.
pub fn run(global: &Global, args: &Init) -> Result<(), Failure> {
    if let Some(whose) = args.service {
        return service::run(global, args, whose);
    }
    let layout = layout(global, args)?;
    refuse_to_overwrite(&layout)?;
    let mut made = Made::default();
    if let Err(e) = write(&layout, &mut made) {
        made.undo();
        return Err(Failure::usage(format!(
            "{e}. Nothing was left behind; choose another place with: reimagined init DIR"
        )));
    }
    term::print(&next_steps(&layout))?;
    Ok(())
}

fn layout(global: &Global, args: &Init) -> Result<Layout, Failure> {
    let absolute =
        |path: &Path| std::path::absolute(path).map_err(|e| Failure::usage(format!("{}: {e}", show(path.as_os_str()))));
    if let Some(dir) = &args.dir {
        if global.config.is_some() {
            return Err(Failure::usage(
                "DIR and --config both say where the configuration goes: give one of them (with DIR it is DIR/config.toml)",
            ));
        }
        let base = absolute(dir)?;
        let text = config_toml(Some(&base));
        return Ok(Layout { config: base.join("config.toml"), text, base, found_by_itself: false });
    }
    let no_home = || {
        Failure::usage("there is no home directory to write into: set $HOME, or name a folder (reimagined init DIR)")
    };
    let users = locate::user_config(&setup::env);
    let config = match &global.config {
        Some(path) => absolute(path)?,
        None => users.clone().ok_or_else(no_home)?,
    };
    let base = locate::home(&setup::env).ok_or_else(no_home)?.join("reimagine");
    let found_by_itself = users.as_ref() == Some(&config)
        && setup::env("REIMAGINED_CONFIG").is_none_or(|named| Path::new(&named) == config);
    Ok(Layout { config, text: config_toml(None), base, found_by_itself })
}

/// Everything that stands in the way, all at once. Folders may be there already, but not the sample's: a
/// preset put into a folder of somebody's would change what is in it.
fn refuse_to_overwrite(layout: &Layout) -> Result<(), Failure> {
    let mut standing = Vec::new();
    for path in [&layout.config, &layout.sample_folder()] {
        if fs::symlink_metadata(path).is_ok() {
            standing.push(path.clone());
        }
    }
    for path in FOLDERS.iter().map(|name| layout.base.join(name)).chain([layout.base.clone()]) {
        // A link to a folder is one, too.
        if fs::symlink_metadata(&path).is_ok() && !path.is_dir() {
            standing.push(path);
        }
    }
    if standing.is_empty() {
        return Ok(());
    }
    let mut text = String::from("nothing was written, since this stands there already:\n");
    for path in standing {
        let _ = writeln!(text, "  {}", show(path.as_os_str()));
    }
    text.push_str("Nothing is ever overwritten: move it away first, or choose another place with: reimagined init DIR");
    Err(Failure::usage(text))
}

/// What was made so far, to be taken back.
#[derive(Default)]
struct Made {
    folders: Vec<PathBuf>,
    files: Vec<PathBuf>,
}

impl Made {
    /// Makes a folder and those around it; one that is there is fine.
    fn folder(&mut self, path: &Path) -> io::Result<()> {
        let named = |e: io::Error| io::Error::new(e.kind(), format!("{} cannot be made: {e}", show(path.as_os_str())));
        let missing: Vec<&Path> = path.ancestors().take_while(|at| !at.is_dir()).collect();
        for at in missing.into_iter().rev() {
            match fs::create_dir(at) {
                Ok(()) => self.folders.push(at.to_path_buf()),
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists && at.is_dir() => {}
                Err(e) => return Err(named(e)),
            }
            // One that may be entered but not read can't be synced, which is no reason to stop.
            let _ = at.parent().map(sync);
        }
        Ok(())
    }

    /// Writes a file that must not be there.
    fn file(&mut self, path: &Path, text: &str) -> io::Result<()> {
        let named =
            |e: io::Error| io::Error::new(e.kind(), format!("{} cannot be written: {e}", show(path.as_os_str())));
        let mut file = fs::OpenOptions::new().write(true).create_new(true).open(path).map_err(named)?;
        self.files.push(path.to_path_buf());
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(named)?;
        path.parent().map_or(Ok(()), sync).map_err(named)
    }

    fn undo(self) {
        for file in self.files {
            let _ = fs::remove_file(file);
        }
        // Only empty ones can be removed, so nothing of anybody's goes.
        for folder in self.folders.into_iter().rev() {
            let _ = fs::remove_dir(folder);
        }
    }
}

fn sync(folder: &Path) -> io::Result<()> {
    fs::File::open(folder)?.sync_all()
}

fn write(layout: &Layout, made: &mut Made) -> io::Result<()> {
    for name in FOLDERS {
        made.folder(&layout.base.join(name))?;
    }
    made.folder(&layout.sample_folder())?;
    made.file(&layout.sample(), preset_toml())?;
    if let Some(folder) = layout.config.parent() {
        made.folder(folder)?;
    }
    // The configuration comes last: where it stands, everything does.
    made.file(&layout.config, &layout.text)
}

fn next_steps(layout: &Layout) -> String {
    let shown = |path: &Path| show(path.as_os_str());
    let config = shown(&layout.config);
    let told = if layout.found_by_itself { String::new() } else { format!(" --config {}", quoted(&layout.config)) };
    let mut text = format!("Written:\n  {config}\n  {}\n", shown(&layout.sample()));
    let _ = writeln!(text, "Folders:\n  {}/{{{}}}", shown(&layout.base), FOLDERS.join(","));
    let _ = write!(
        text,
        "\nWhat to do next:\n\
         \x20 1. Give it your Segmind API key: put the key into a file of its own, chmod 600 that file, and name it as\n\
         \x20    key_file under [api] in {config}.\n\
         \x20    Or set $SEGMIND_API_KEY.\n\
         \x20 2. See whether everything is in place:  reimagined check{told}\n\
         \x20 3. Start the daemon:                    reimagined run{told}\n\
         \x20 4. Drop a picture into {}:\n\
         \x20    its preset.toml says how it is reimagined. The result appears in\n\
         \x20    {}.\n\n",
        shown(&layout.sample_folder()),
        shown(&layout.base.join("outbox").join(SAMPLE)),
    );
    text.push_str(
        "To run it as a service:  reimagined init --service   (as root: for this machine, else for you alone)\n",
    );
    if !layout.found_by_itself {
        let _ = writeln!(text, "Instead of --config you can set REIMAGINED_CONFIG={}.", quoted(&layout.config));
    }
    text.push_str("To see it work with no key and no money:  reimagined demo\n");
    text
}

/// For a shell to read again.
fn quoted(path: &Path) -> String {
    let text = show(path.as_os_str());
    let plain = |c: char| c.is_alphanumeric() || "/._-+:@,".contains(c);
    if text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
}
