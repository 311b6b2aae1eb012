//! When something was mounted or unmounted: the kernel tells it by the file that lists this process's mounts. No
//! watch tells it: one on a directory that was unmounted lazily, or mounted over, just stays silent.

use std::fs::File;
use std::io;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Waits for changes of this process's mounts.
#[derive(Debug)]
pub struct Mounts(AsyncFd<File>);

impl Mounts {
    /// From now on. Fails where `/proc` is closed, or no file can be opened; the scans find it out then.
    pub fn watch() -> io::Result<Self> {
        let file = File::open("/proc/self/mountinfo")?;
        #[allow(
            deprecated,
            reason = "what replaces it is unsafe for the sake of types other than `File`, whose descriptor never changes"
        )]
        Ok(Self(AsyncFd::with_interest(file, Interest::PRIORITY)?))
    }

    /// Waits for the next change. Cancel-safe.
    pub async fn changed(&self) {
        match self.0.ready(Interest::PRIORITY).await {
            Ok(mut ready) => ready.clear_ready(),
            Err(_) => std::future::pending().await,
        }
    }
}
