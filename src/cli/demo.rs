//! `reimagined demo`: the whole thing with no key and no money, in a folder of its own.
//!
//! The sandbox is started on loopback, three photographs and a prompt are dropped, the real daemon works them
//! off through the same code as `reimagined run --once`, and what came out is told. With `--keep` the daemon
//! stays up after that.
//!
//! Promises that nothing outside of the demo's folder is read or written: no configuration, no key and no state
//! of the user's. The sandbox takes no key but the demo's own.

mod open;
mod place;
mod report;

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;

use crate::config::Config;
use crate::engine::{Ended, KeyRing};
use crate::sandbox::{Options, Sandbox};
use crate::segmind::KeySource;
use crate::service::logging;
use crate::service::signals::Signals;

use super::args::{self, Global};
use super::exit::{Code, Failure};
use super::{run, term};
use place::{KEY, Place};
use report::Report;

/// Runs the demo, and with `--keep` the daemon after it until it is told to stop.
pub fn run(global: &Global, args: &args::Demo) -> Result<(), Failure> {
    if global.config.is_some() {
        return Err(Failure::usage("the demo writes a configuration of its own: leave --config away"));
    }
    logging::init(global.logging(None)).map_err(|e| Failure::usage(e.to_string()))?;
    let place = Place::make(args.dir.as_deref())?;
    let runtime = run::runtime()?;
    let done = runtime.block_on(demo(&place, args));
    runtime.shutdown_timeout(Duration::from_secs(2));
    done
}

async fn demo(place: &Place, args: &args::Demo) -> Result<(), Failure> {
    let mut signals = run::signals()?;
    let sandbox = sandbox().await?;
    place.fill(&sandbox.url())?;
    let report = Report::begin(place);
    term::print(&report.hello())?;

    let ended = daemon(place, &mut signals, true).await?;
    let made = report.made();
    term::print(&report.results(&made, args.keep))?;
    judge(place, &ended, made.len())?;
    if args.open
        && let Err(why) = open::show(&place.outbox())
    {
        term::complain(&format!("the folder was not opened: {why}\n"));
    }
    if args.keep {
        daemon(place, &mut signals, false).await?;
    }
    sandbox.stop().await;
    Ok(())
}

/// Its pictures cost nothing, so that no figure anywhere looks like money.
async fn sandbox() -> Result<Sandbox, Failure> {
    let fail = |e: std::io::Error| Failure::unexpected(format!("the sandbox can't listen on 127.0.0.1: {e}"));
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.map_err(fail)?;
    let options = Options { key: Some(KEY.to_owned()), price: 0.0, ..Options::default() };
    Sandbox::start(listener, options).map_err(fail)
}

async fn daemon(place: &Place, signals: &mut Signals, once: bool) -> Result<Ended, Failure> {
    let config = Config::load(&place.config()).map_err(|problems| Failure::usage(problems.to_string()))?;
    // The demo's own key and no other, whatever the environment holds.
    let keys = KeySource { key_file: config.api.key_file.clone(), ..KeySource::default() };
    // The whole engine and its status: not on the stack of whoever waits for it.
    Box::pin(run::daemon(config, Arc::new(KeyRing::new(keys)), signals, once, None)).await
}

/// Whether the demo showed what it is there to show.
fn judge(place: &Place, ended: &Ended, made: usize) -> Result<(), Failure> {
    if let Some(why) = ended.stopped_for.as_ref().filter(|_| !ended.cut_short) {
        return Err(Failure::new(Code::Paused, format!("the demo stopped: {why}")));
    }
    if ended.failed > 0 || ended.broken_presets {
        let errors = place.errors();
        let text = format!("something failed; the notes in {} and the log say why", report::shown(&errors));
        return Err(Failure::new(Code::SomeFailed, text));
    }
    if made < place::DROPS {
        let dir = report::quoted(place.dir());
        let text = format!("the demo was stopped: `reimagined demo --dir {dir}` goes on");
        return Err(Failure::unexpected(text));
    }
    Ok(())
}
