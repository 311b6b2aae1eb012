//! What it takes to install a service: each folder, each file, each command, as it can be shown and then done.
//!
//! Whatever is there already is looked at first. What was written before and is unedited may be replaced, a
//! configuration and a key of somebody's stay, and anything else in the way stops it all before it begins. So an
//! interrupted run is simply repeated.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::Mode;

use crate::config::Config;
use crate::config::template::preset_toml;
use crate::domain::ids::show;
use crate::segmind::ApiKey;

use super::super::args::{Init, Whose};
use super::super::exit::Failure;
use super::places::{Part, Places};
use super::programs::{Program, manager_runs};
use super::{FOLDERS, SAMPLE, ask, sync, texts};

/// One thing to do.
pub(super) enum Step {
    /// A folder that is not there.
    Folder { path: PathBuf, mode: u32 },
    /// A file that is not there, or that was written before and is to be renewed.
    File { path: PathBuf, mode: u32, text: String, what: &'static str, renewed: bool },
    /// A command, and what comes of it.
    Run { program: Program, makes: Vec<String> },
}

/// What is to become of the key.
#[derive(Debug)]
pub(super) enum Key {
    /// There is a file for it already, which stays.
    There,
    /// This one is written.
    Given(ApiKey),
    /// It is asked for.
    Asked,
    /// Nobody gives it now.
    Later,
    /// The configuration, which is somebody's own, names another file.
    Elsewhere,
}

/// What is to be done, and what is found done.
pub(super) struct Plan {
    pub(super) steps: Vec<Step>,
    /// What stays as it is, and why.
    pub(super) kept: Vec<String>,
    pub(super) key: Key,
    /// Whether the service will look for the key where it is written.
    pub(super) key_is_named: bool,
    /// Where pictures will be dropped.
    pub(super) inbox: PathBuf,
    /// What is in the way.
    conflicts: Vec<String>,
    /// Folders that will be there.
    folders: BTreeSet<PathBuf>,
    /// For new folders and files that are to be as open as others of this person.
    umask: u32,
    whose: Whose,
}

/// How a file stands that is to have certain bytes.
enum Standing {
    Missing,
    Same,
    /// Written by us, for another version or place, and not edited.
    Unedited,
    Theirs,
}

impl Plan {
    /// Looks at what is there.
    pub(super) fn new(places: &Places, args: &Init) -> Result<Self, Failure> {
        let mut plan = Self {
            steps: Vec::new(),
            kept: Vec::new(),
            key: Key::Later,
            key_is_named: true,
            inbox: PathBuf::from("/srv/reimagine/inbox"),
            conflicts: Vec::new(),
            folders: BTreeSet::new(),
            umask: umask(),
            whose: places.whose,
        };
        match places.whose {
            Whose::System => plan.system(places)?,
            Whose::User => plan.user(places)?,
        }
        plan.key(places, args)?;
        plan.commands(places)?;
        if plan.conflicts.is_empty() {
            return Ok(plan);
        }
        let mut text = String::from("nothing was done, since this is in the way:\n");
        for conflict in &plan.conflicts {
            let _ = writeln!(text, "  {conflict}");
        }
        text.push_str("Nothing of anybody's is ever overwritten: move it away, and say it again.");
        Err(Failure::usage(text))
    }

    fn system(&mut self, places: &Places) -> Result<(), Failure> {
        if let (Some(sysusers), Some(tmpfiles)) = (&places.sysusers, &places.tmpfiles) {
            self.part(sysusers, "the user and the group", || Ok(texts::sealed(texts::SYSUSERS)))?;
            self.part(tmpfiles, "the folders", || Ok(texts::sealed(texts::TMPFILES)))?;
        }
        self.configuration(&places.config, &texts::system_config())?;
        if let Ok(config) = Config::load(&places.config) {
            self.inbox = config.folders.inbox;
        }
        // Below another root nobody knows where the program will be; the unit does.
        let program = if places.root.is_none() { Some(program()?) } else { None };
        self.part(&places.unit, "the service", || texts::system_unit(program.as_deref()))
    }

    fn user(&mut self, places: &Places) -> Result<(), Failure> {
        let text = texts::user_config(&places.key, &places.home);
        let stands = standing(&places.config, &text)?;
        let config = match stands {
            Standing::Theirs => Config::load(&places.config),
            _ => Config::parse(&text, &places.config, Some(&places.home)),
        };
        let config = config.map_err(|problems| {
            Failure::usage(format!("the configuration that is there already is broken; mend it first:\n{problems}"))
        })?;
        let folders = config.folders;
        for path in [&folders.inbox, &folders.outbox, &folders.archive, &folders.errors] {
            self.folder(path, 0o777 & !self.umask);
        }
        self.inbox.clone_from(&folders.inbox);
        let sample = folders.inbox.join(SAMPLE);
        if matches!(stands, Standing::Missing)
            && fs::read_dir(&sample).map_or(true, |mut entries| entries.next().is_none())
        {
            self.folder(&sample, 0o777 & !self.umask);
            self.file(&sample.join("preset.toml"), preset_toml().to_owned(), "a sample look")?;
        }
        self.configuration(&places.config, &text)?;
        let home = places.home.clone();
        let program = program()?;
        self.part(&places.unit, "the service", || texts::user_unit(&program, &home))?;
        match config.api.key_file {
            Some(named) if named != places.key => {
                self.kept.push(format!("{}  your configuration takes the key from there", show(named.as_os_str())));
                self.key = Key::Elsewhere;
            }
            Some(_) => {}
            None => self.key_is_named = false,
        }
        Ok(())
    }

    /// A file that a package may bring instead.
    fn part(
        &mut self,
        part: &Part,
        what: &'static str,
        text: impl FnOnce() -> Result<String, String>,
    ) -> Result<(), Failure> {
        if let Some(packaged) = part.packaged()
            && fs::symlink_metadata(&part.path).is_err()
        {
            self.kept.push(format!("{}  {what}, from a package", show(packaged.as_os_str())));
            return Ok(());
        }
        self.file(&part.path, text().map_err(Failure::usage)?, what)
    }

    fn configuration(&mut self, path: &Path, text: &str) -> Result<(), Failure> {
        // A link to one is somebody's own way to keep it.
        if let Standing::Theirs = standing(path, text)? {
            self.kept.push(format!("{}  your configuration", show(path.as_os_str())));
            return Ok(());
        }
        self.file(path, text.to_owned(), "the configuration")
    }

    fn file(&mut self, path: &Path, text: String, what: &'static str) -> Result<(), Failure> {
        let shown = show(path.as_os_str());
        let renewed = match standing(path, &text)? {
            Standing::Same => {
                self.kept.push(format!("{shown}  {what}"));
                return Ok(());
            }
            Standing::Theirs => {
                self.conflicts.push(format!("{shown}  (not written by reimagined init --service, or edited since)"));
                return Ok(());
            }
            Standing::Missing => false,
            Standing::Unedited => true,
        };
        if let Some(folder) = path.parent() {
            self.folder(folder, if self.whose == Whose::System { 0o755 } else { 0o700 });
        }
        let mode = if self.whose == Whose::System { 0o644 } else { 0o666 & !self.umask };
        self.steps.push(Step::File { path: path.to_path_buf(), mode, text, what, renewed });
        Ok(())
    }

    /// A folder and those around it.
    fn folder(&mut self, path: &Path, mode: u32) {
        let missing: Vec<_> = path.ancestors().take_while(|at| !at.is_dir() && !self.folders.contains(*at)).collect();
        for at in missing.into_iter().rev() {
            if fs::symlink_metadata(at).is_ok() {
                self.conflicts.push(format!("{}  (no folder)", show(at.as_os_str())));
            }
            self.folders.insert(at.to_path_buf());
            self.steps.push(Step::Folder { path: at.to_path_buf(), mode });
        }
    }

    fn key(&mut self, places: &Places, args: &Init) -> Result<(), Failure> {
        let given = args.key_from.as_deref().map(ask::key_from).transpose()?;
        let shown = show(places.key.as_os_str());
        if matches!(self.key, Key::Elsewhere) {
            if given.is_some() {
                self.conflicts.push("--key-from  (your configuration takes the key from another file)".to_owned());
            }
            return Ok(());
        }
        if fs::symlink_metadata(&places.key).is_ok() {
            if given.is_some() {
                self.conflicts.push(format!("{shown}  (there is a key already: take it away first to give another)"));
            }
            self.kept.push(format!("{shown}  a key"));
            self.key = Key::There;
            return Ok(());
        }
        if let Some(folder) = places.key.parent() {
            self.folder(folder, if self.whose == Whose::System { 0o755 } else { 0o700 });
        }
        self.key = match given {
            Some(key) => Key::Given(key),
            None if !args.yes && ask::somebody() => Key::Asked,
            None => Key::Later,
        };
        Ok(())
    }

    fn commands(&mut self, places: &Places) -> Result<(), Failure> {
        if places.root.is_some() {
            return Ok(());
        }
        let file = |part: &Part| {
            let path = part.packaged().filter(|_| fs::symlink_metadata(&part.path).is_err()).unwrap_or(&part.path);
            path.display().to_string()
        };
        if let (Some(sysusers), Some(tmpfiles)) = (&places.sysusers, &places.tmpfiles) {
            let program = Program::find("systemd-sysusers", &[file(sysusers)])?;
            self.steps.push(Step::Run { program, makes: vec!["the user and the group reimagined".into()] });
            let program = Program::find("systemd-tmpfiles", &["--create".to_owned(), file(tmpfiles)])?;
            let folders = texts::system_folders();
            let makes = folders.iter().map(|made| format!("{} {}  {}", made.mode, made.owner, made.path.display()));
            self.steps.push(Step::Run { program, makes: makes.collect() });
        }
        let program = Program::find("systemctl", &[places.manager(), &["daemon-reload"]].concat())?;
        if manager_runs(places.whose) {
            self.steps.push(Step::Run { program, makes: Vec::new() });
        }
        Ok(())
    }

    /// Whether everything stands already, so that at most commands are left, which change nothing then.
    pub(super) fn changes_nothing(&self) -> bool {
        let commands = self.steps.iter().all(|step| matches!(step, Step::Run { .. }));
        commands && matches!(self.key, Key::There | Key::Later | Key::Elsewhere)
    }

    /// For a person.
    pub(super) fn shown(&self, places: &Places) -> String {
        let owner = if rustix::process::geteuid().is_root() { "root" } else { "you" };
        let mut text = String::new();
        for step in &self.steps {
            let _ = match step {
                Step::Folder { path, mode } => {
                    writeln!(text, "  make     {mode:04o} {owner}  {}/", show(path.as_os_str()))
                }
                Step::File { path, mode, what, renewed, .. } => {
                    let verb = if *renewed { "renew" } else { "write" };
                    writeln!(text, "  {verb:<8} {mode:04o} {owner}  {}  {what}", show(path.as_os_str()))
                }
                Step::Run { program, makes } => {
                    self.show_key(places, owner, &mut text);
                    let _ = writeln!(text, "  run      {}", program.shown());
                    makes.iter().try_for_each(|line| writeln!(text, "             {line}"))
                }
            };
        }
        self.show_key(places, owner, &mut text);
        if !self.kept.is_empty() {
            if !text.is_empty() {
                text.push('\n');
            }
            text.push_str("There already, and left as it is:\n");
            for kept in &self.kept {
                let _ = writeln!(text, "  {kept}");
            }
        }
        text
    }

    /// Once, before the commands.
    fn show_key(&self, places: &Places, owner: &str, text: &mut String) {
        let more = match self.key {
            Key::Given(_) => "",
            Key::Asked => ", if you type it when asked",
            Key::There | Key::Later | Key::Elsewhere => return,
        };
        let (key, mark) = (places.key.as_os_str(), places.key_mark());
        let line = format!(
            "  write    0600 {owner}  {}  the API key{more}\n  write    0600 {owner}  {}  its hash, for --remove\n",
            show(key),
            show(mark.as_os_str())
        );
        if !text.contains(&line) {
            text.push_str(&line);
        }
    }

    /// Does it, in order; the key before the commands.
    pub(super) fn carry_out(&self, places: &Places, key: Option<&ApiKey>) -> Result<(), Failure> {
        let files = self.steps.iter().filter(|step| !matches!(step, Step::Run { .. }));
        for step in files {
            match step {
                Step::Folder { path, mode } => make_folder(path, *mode).map_err(|e| failed(path, "made", &e))?,
                Step::File { path, mode, text, renewed, .. } => {
                    let still = || matches!(standing(path, text), Ok(Standing::Unedited));
                    put(path, *mode, renewed.then_some(&still as &dyn Fn() -> bool), &mut |to| {
                        to.write_all(text.as_bytes())
                    })
                    .map_err(|e| failed(path, "written", &e))?;
                }
                Step::Run { .. } => {}
            }
        }
        if let Some(key) = key {
            put(&places.key, 0o600, None, &mut |to| key.write_to(to))
                .map_err(|e| failed(&places.key, "written", &e))?;
            let mark = places.key_mark();
            let text = fs::read(&places.key).map(|bytes| texts::key_mark(&bytes));
            text.and_then(|text| put(&mark, 0o600, Some(&|| true), &mut |to| to.write_all(text.as_bytes())))
                .map_err(|e| failed(&mark, "written", &e))?;
        }
        for step in &self.steps {
            if let Step::Run { program, .. } = step {
                program.run().map_err(|failure| again(&failure.text))?;
            }
        }
        Ok(())
    }
}

fn failed(path: &Path, done: &str, error: &io::Error) -> Failure {
    again(&format!("{} cannot be {done}: {error}", show(path.as_os_str())))
}

fn again(text: &str) -> Failure {
    Failure::unexpected(format!(
        "{}\nWhat was done so far stays. Mend this and say the same again: it goes on from there (--remove takes it back).",
        text.trim_end()
    ))
}

/// This program's own file.
fn program() -> Result<PathBuf, Failure> {
    let gone = |e: &dyn std::fmt::Display| {
        Failure::usage(format!("where this program lies can't be told ({e}), so no unit can start it"))
    };
    let path = std::env::current_exe().map_err(|e| gone(&e))?;
    if path.is_file() { Ok(path) } else { Err(gone(&show(path.as_os_str()))) }
}

fn umask() -> u32 {
    // Nothing else runs yet that could make a file meanwhile.
    let umask = rustix::process::umask(Mode::empty());
    rustix::process::umask(umask);
    umask.bits()
}

fn standing(path: &Path, text: &str) -> Result<Standing, Failure> {
    match fs::symlink_metadata(path) {
        Ok(meta) if !meta.is_file() => return Ok(Standing::Theirs),
        Ok(_) => {}
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Standing::Missing);
        }
        Err(e) => return Err(Failure::usage(format!("{}: {e}", show(path.as_os_str())))),
    }
    let bytes = fs::read(path).map_err(|e| Failure::usage(format!("{}: {e}", show(path.as_os_str()))))?;
    Ok(match bytes {
        bytes if bytes == text.as_bytes() => Standing::Same,
        bytes if texts::is_unedited(&bytes) => Standing::Unedited,
        _ => Standing::Theirs,
    })
}

fn make_folder(path: &Path, mode: u32) -> io::Result<()> {
    match fs::DirBuilder::new().mode(mode).create(path) {
        // Whatever the umask is.
        Ok(()) => fs::set_permissions(path, Permissions::from_mode(mode))?,
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
        Err(e) => return Err(e),
    }
    // One that may be entered but not read can't be synced, which is no reason to stop.
    let _ = path.parent().map(sync);
    Ok(())
}

/// A whole file or none, with its mode from the first moment that it has its name, and nobody else's before. What is
/// there is replaced only if `replace`, asked last of all, says so.
fn put(
    path: &Path,
    mode: u32,
    replace: Option<&dyn Fn() -> bool>,
    write: &mut dyn FnMut(&mut dyn io::Write) -> io::Result<()>,
) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let private = Permissions::from_mode(0o600);
    let mut file = tempfile::Builder::new().prefix(".reimagined-").permissions(private).tempfile_in(folder)?;
    write(file.as_file_mut())?;
    file.as_file().set_permissions(Permissions::from_mode(mode))?;
    file.as_file().sync_all()?;
    let placed = match replace {
        None => file.persist_noclobber(path),
        Some(may) if may() => file.persist(path),
        Some(_) => return Err(io::Error::other("it was changed just now, and is somebody's own by that")),
    };
    placed.map_err(|e| e.error)?;
    sync(folder)
}

/// The names of the folders that `init` makes, below `base`.
pub(super) fn usual_folders(base: &Path) -> impl Iterator<Item = PathBuf> {
    FOLDERS.iter().map(|name| base.join(name))
}
