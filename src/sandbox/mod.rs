//! A stand-in for the API on loopback: for `reimagined demo`, `reimagined sandbox` and tests.
//!
//! It checks what the service checks, answers in every shape the service is known to use, keeps an account
//! of credits, and paints: the picture is made from the reference, by prompt and seed, and says that it is
//! the sandbox's. Faults come on request, from [`Options`] or from words in the prompt; [`HELP`] lists the
//! words.
//!
//! What it promises:
//! - It listens on loopback only, reads pictures from loopback only, and keeps everything in bounded memory.
//! - Every model call is counted when its head arrives, and billed before the work begins, if it is billed at
//!   all: a client that hangs up has paid, as with the service.
//! - The same body with a seed gives the same bytes. The sandbox's words don't change the picture.
//!
//! What it does not do: TLS, moderation, other models. It knows nothing of the rest of the program.

mod fault;
mod fetch;
mod options;
mod paint;
mod params;
mod replies;
mod server;
mod state;
mod wire;

#[cfg(test)]
mod tests;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use fault::{Fault, How};
pub use options::{Format, Options, Reply, UploadReply};
pub use state::Stats;

/// How long calls in work may go on after the shutdown.
const GRACE: Duration = Duration::from_secs(2);
/// How many pictures are painted at once.
const EASELS: usize = 3;

/// The words in a prompt that make the sandbox fail, for `reimagined sandbox --help`.
pub const HELP: &str = "\
Words in the prompt make the sandbox fail. They are taken out before the picture is painted.

  sandbox:status=503      answers with this status, 200 to 599, and bills nothing unless it is 200
  sandbox:retry-after=2   sends Retry-After: seconds, or a date with _ for blanks
  sandbox:say=no_luck     the text of the error, with _ for blanks
  sandbox:delay=2s        waits before it answers (500ms, 2s, 1m)
  sandbox:cut             ends the connection in the middle of the picture
  sandbox:close           ends the connection before any answer; billed
  sandbox:endless         a picture that never ends
  sandbox:half            half a JPEG, with headers that promise no more
  sandbox:html            a page instead of a picture
  sandbox:empty           no body at all
  sandbox:json=url        JSON with the picture's URL; also base64, data, nested
  sandbox:json=error      JSON with an error and no picture, status 200
  sandbox:image           the picture itself, whatever the sandbox was started with
  sandbox:once            only the first call with this very prompt fails
  sandbox:times=3         only the first three do

They can be combined: \"a cat sandbox:status=429 sandbox:retry-after=2 sandbox:once\".";

/// Serves on `listener` until `shutdown` is ready, then lets calls in work end for up to 2 s and cuts the
/// rest. Must be called within a tokio runtime. Refuses a listener that is not on loopback
/// ([`io::ErrorKind::InvalidInput`]); otherwise errors are those of asking the listener for its address.
pub async fn serve(
    listener: TcpListener,
    options: Options,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let sandbox = Sandbox::start(listener, options)?;
    shutdown.await;
    sandbox.stop().await;
    Ok(())
}

/// A running sandbox. Dropping it ends it at once; [`Sandbox::stop`] lets calls in work end first.
pub struct Sandbox {
    room: Arc<server::Room>,
    gone: CancellationToken,
    task: Option<JoinHandle<io::Result<()>>>,
}

impl Sandbox {
    /// Begins to serve in the background. Must be called within a tokio runtime. Refuses a listener that is
    /// not on loopback ([`io::ErrorKind::InvalidInput`]).
    pub fn start(listener: TcpListener, options: Options) -> io::Result<Self> {
        let address = listener.local_addr()?;
        if !address.ip().is_loopback() {
            let text = format!("the sandbox listens on loopback only, not on {address}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let (stopping, gone) = (CancellationToken::new(), CancellationToken::new());
        let room = Arc::new(server::Room {
            state: Mutex::new(state::State::new(&options)),
            options,
            address,
            stopping: stopping.clone(),
            easels: Semaphore::new(EASELS),
        });
        let doors = wire::Doors { listener, gone: gone.clone() };
        let app = server::router(Arc::clone(&room)).into_make_service_with_connect_info::<wire::Cord>();
        let stop = stopping.cancelled_owned();
        let task = tokio::spawn(async move { axum::serve(doors, app).with_graceful_shutdown(stop).await });
        Ok(Self { room, gone, task: Some(task) })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.room.address
    }

    /// Its base URL, without a slash at the end: `http://127.0.0.1:8787`.
    pub fn url(&self) -> String {
        format!("http://{}", self.room.address)
    }

    /// What it has seen and done so far.
    pub fn stats(&self) -> Stats {
        self.room.state().stats()
    }

    /// Takes no more connections, lets calls in work end for up to 2 s, cuts the rest, and says what it has
    /// seen in all.
    pub async fn stop(mut self) -> Stats {
        self.room.stopping.cancel();
        if let Some(mut task) = self.task.take()
            && tokio::time::timeout(GRACE, &mut task).await.is_err()
        {
            self.gone.cancel();
            // With every connection cut, the server has nothing to wait for.
            let _ = task.await;
        }
        self.room.state().stats()
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.room.stopping.cancel();
        self.gone.cancel();
    }
}
