//! When something of the inbox's own name comes or goes in the folder around it.
//!
//! A watch on the inbox tells that it was moved, but not that it was removed: the kernel tells that when nobody has the
//! directory open any more, and whoever has locked it does.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Waits for the inbox's own name to come or go.
#[derive(Debug)]
pub struct Around {
    inotify: AsyncFd<File>,
    /// Its name by the path that a person wrote, and where a link in it leads.
    names: Vec<OsString>,
}

impl Around {
    /// From now on. To be called within the runtime; blocks for a moment. Fails where the folder around the inbox may not
    /// be read, or no watch is left; the scans find it out then.
    pub fn watch(root: &Path) -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let mut names: Vec<OsString> = Vec::new();
        let comes_or_goes = WatchFlags::CREATE | WatchFlags::DELETE | WatchFlags::MOVED_FROM | WatchFlags::MOVED_TO;
        let itself = WatchFlags::DELETE_SELF | WatchFlags::MOVE_SELF | WatchFlags::ONLYDIR;
        for path in [std::path::absolute(root)?, root.canonicalize()?] {
            let (Some(around), Some(name)) = (path.parent(), path.file_name()) else { continue };
            inotify::add_watch(&inotify, around, comes_or_goes | itself)?;
            if !names.iter().any(|known| known == name) {
                names.push(name.to_owned());
            }
        }
        #[allow(
            deprecated,
            reason = "what replaces it is unsafe for the sake of types other than `File`, whose descriptor never changes"
        )]
        let inotify = AsyncFd::with_interest(File::from(inotify), Interest::READABLE)?;
        Ok(Self { inotify, names })
    }

    /// Waits until the inbox may be gone, or another one. Cancel-safe.
    pub async fn changed(&self) {
        loop {
            let Ok(mut ready) = self.inotify.readable().await else { return std::future::pending().await };
            match self.read() {
                Ok(false) => ready.clear_ready(),
                Ok(true) => return,
                Err(_) => return std::future::pending().await,
            }
        }
    }

    /// Takes what has come; whether any of it concerns the inbox.
    fn read(&self) -> io::Result<bool> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = Reader::new(self.inotify.get_ref(), &mut buffer);
        let mut concerns = false;
        loop {
            match reader.next() {
                Ok(event) => {
                    let itself = ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF | ReadFlags::QUEUE_OVERFLOW;
                    let name = event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()));
                    concerns |= event.events().intersects(itself)
                        || name.is_some_and(|name| self.names.iter().any(|ours| ours == name));
                }
                Err(Errno::WOULDBLOCK) => return Ok(concerns),
                Err(Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
}
