//! Where the parts of a service belong: for one person below their home, for the machine below `/`, or below
//! another root.

use std::path::{Path, PathBuf};

use crate::config::locate;
use crate::domain::ids::show;

use super::super::args::{Init, Whose};
use super::super::exit::Failure;
use super::super::setup;

/// A part's own place and, where a package may bring it, the package's.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) path: PathBuf,
    vendors: Vec<PathBuf>,
}

impl Part {
    /// The package's file, if there is one.
    pub(super) fn packaged(&self) -> Option<&Path> {
        self.vendors.iter().find(|path| path.exists()).map(PathBuf::as_path)
    }
}

/// Where everything of one service belongs.
#[derive(Debug)]
pub(super) struct Places {
    pub(super) whose: Whose,
    /// Another root than `/`: nothing there runs now.
    pub(super) root: Option<PathBuf>,
    pub(super) home: PathBuf,
    pub(super) unit: Part,
    /// The user and the folders of the system service.
    pub(super) sysusers: Option<Part>,
    pub(super) tmpfiles: Option<Part>,
    pub(super) config: PathBuf,
    pub(super) key: PathBuf,
}

/// What lies beside a key that was written here.
pub(super) const KEY_MARK: &str = ".api-key.by-init";

/// A service's state directory.
const SYSTEM_STATE: &str = "/var/lib/reimagined";

impl Places {
    /// By the arguments, the environment, and who runs this.
    pub(super) fn of(args: &Init, whose: Option<Whose>) -> Result<Self, Failure> {
        let is_root = rustix::process::geteuid().is_root();
        let whose = whose.unwrap_or(if is_root || args.root.is_some() { Whose::System } else { Whose::User });
        match whose {
            Whose::System if !is_root && args.root.is_none() && !args.dry_run => Err(Failure::usage(
                "a service of the machine is root's to install: say it as root (or with sudo), or install one for you \
                 alone with --service=user. --dry-run shows what it would do",
            )),
            Whose::System => Self::system(args.root.as_deref()),
            Whose::User if args.root.is_some() => Err(Failure::usage(
                "--root goes with --service=system only: a user's service lies in that user's home directory",
            )),
            Whose::User => Self::user(),
        }
    }

    fn system(root: Option<&Path>) -> Result<Self, Failure> {
        let root = match root {
            None => None,
            Some(dir) if dir.is_dir() => {
                let real = dir.canonicalize().map_err(|e| Failure::usage(format!("{}: {e}", show(dir.as_os_str()))))?;
                Some(real).filter(|real| real != Path::new("/"))
            }
            Some(dir) => {
                return Err(Failure::usage(format!("--root {}: there is no such folder", show(dir.as_os_str()))));
            }
        };
        let at = |path: &str| below(root.as_deref(), Path::new(path));
        let part = |kind: &str, name: &str| Part {
            path: at(&format!("/etc/{kind}/{name}")),
            vendors: ["/usr/local/lib", "/usr/lib", "/lib"]
                .iter()
                .map(|lib| at(&format!("{lib}/{kind}/{name}")))
                .collect(),
        };
        Ok(Self {
            whose: Whose::System,
            unit: part("systemd/system", "reimagined.service"),
            sysusers: Some(part("sysusers.d", "reimagined.conf")),
            tmpfiles: Some(part("tmpfiles.d", "reimagined.conf")),
            config: at("/etc/reimagined/config.toml"),
            key: at("/etc/reimagined/api-key"),
            home: PathBuf::from("/root"),
            root,
        })
    }

    fn user() -> Result<Self, Failure> {
        let none = || Failure::usage("there is no home directory to install into: set $HOME");
        let home = locate::home(&setup::env).ok_or_else(none)?;
        let config = locate::user_config(&setup::env).ok_or_else(none)?;
        let (Some(own), Some(all)) = (config.parent(), config.parent().and_then(Path::parent)) else {
            return Err(none());
        };
        let vendors = ["/usr/local/lib", "/usr/lib"].map(|lib| Path::new(lib).join("systemd/user/reimagined.service"));
        let unit = Part { path: all.join("systemd/user/reimagined.service"), vendors: vendors.to_vec() };
        let key = own.join("api-key");
        Ok(Self { whose: Whose::User, root: None, home, unit, sysusers: None, tmpfiles: None, config, key })
    }

    /// Beside the key: by this, [`super::remove`] knows it again as one that was written here.
    pub(super) fn key_mark(&self) -> PathBuf {
        self.key.with_file_name(KEY_MARK)
    }

    /// A path of the machine, where it lies from here.
    pub(super) fn at(&self, path: &Path) -> PathBuf {
        below(self.root.as_deref(), path)
    }

    /// Where the service keeps its ledger and its spool if nothing else was said.
    pub(super) fn state(&self) -> PathBuf {
        match self.whose {
            Whose::System => self.at(Path::new(SYSTEM_STATE)),
            Whose::User => locate::state_home(&setup::env).unwrap_or_else(|| self.home.join(".local/state/reimagined")),
        }
    }

    /// Where a user's folders lie if nothing else was said.
    pub(super) fn base(&self) -> PathBuf {
        self.home.join("reimagine")
    }

    /// `systemctl`'s arguments before its command.
    pub(super) fn manager(&self) -> &'static [&'static str] {
        match self.whose {
            Whose::System => &[],
            Whose::User => &["--user"],
        }
    }

    /// `--service=…`, as a person says it.
    pub(super) fn said(&self) -> String {
        let root = self.root.as_ref().map(|root| format!(" --root {}", super::quoted(root))).unwrap_or_default();
        match self.whose {
            Whose::System => format!("reimagined init --service=system{root}"),
            Whose::User => "reimagined init --service=user".to_owned(),
        }
    }
}

fn below(root: Option<&Path>, path: &Path) -> PathBuf {
    match root {
        Some(root) => root.join(path.strip_prefix("/").unwrap_or(path)),
        None => path.to_path_buf(),
    }
}
