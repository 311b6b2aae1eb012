//! `reimagined run`: the daemon, in the foreground; and `run --once`.

use std::cell::Cell;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};

use crate::config::Config;
use crate::domain::status::Status;
use crate::engine::site::Site;
use crate::engine::{
    Beat, Control, Deps, Ended, Engine, EngineError, Held, Host, KeyRing, Locked, Locks, Pulse, SILENCE, Tell,
    client_settings,
};
use crate::ledger::LedgerError;
use crate::ledger::sqlite::SqliteLedger;
use crate::ledger::thread::LedgerThread;
use crate::segmind::Client;
use crate::service::hooks::Hooks;
use crate::service::lock::{self, InboxLock, Lock, LockError, STATE_LOCK, WORKING_LOCK};
use crate::service::monitor::Monitor;
use crate::service::signals::{Signal, Signals};
use crate::service::{logging, notify, status_file};

use super::args::{Global, Run};
use super::exit::{Code, Failure};
use super::setup;
use super::term::Progress;

/// What happened just before the end is told for so long.
const LAST_HOOKS: Duration = Duration::from_secs(5);

/// How long workers may still hold the ledger when the engine has ended. One that hangs, with a server that is dead,
/// keeps it for longer; then it is closed as by a kill.
const LAST_WORKERS: Duration = Duration::from_secs(2);

/// What ending takes beside the grace: what is told last, and workers that let go.
const STOP_TAKES: Duration = Duration::from_secs(15);

/// Runs the daemon until it is told to stop, or with `--once` until nothing is left to do.
pub fn run(global: &Global, args: &Run) -> Result<(), Failure> {
    let progress = (args.once && std::io::IsTerminal::is_terminal(&std::io::stderr())).then(Progress::on_stderr);
    let sink = progress.as_ref().map(Progress::sink);
    logging::init(global.logging(sink)).map_err(|e| Failure::usage(e.to_string()))?;
    let config = setup::configuration(global)?;
    say_warnings(&config);
    let runtime = runtime()?;
    let ended = runtime.block_on(async {
        // Caught from the first moment on, so that no signal finds the default action half-way.
        let mut signals = signals()?;
        let keys = setup::keys(&config);
        daemon(config, keys, &mut signals, args.once, progress).await
    });
    runtime.shutdown_timeout(Duration::from_secs(2));
    let ended = ended?;
    if ended.crashed {
        return Err(Failure::unexpected(
            "a worker failed in a way nobody foresaw; start it again, and please report this",
        ));
    }
    if let Some(why) = &ended.stopped_for {
        return Err(Failure::new(Code::Paused, format!("stopped: {why}; the rest waits in the inbox")));
    }
    if args.once && (ended.failed > 0 || ended.broken_presets) {
        return Err(Failure::new(Code::SomeFailed, String::new()));
    }
    Ok(())
}

/// What is to be said of a good configuration, once when it is read.
fn say_warnings(config: &Config) {
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
}

/// The loop has this thread; two others carry what waits for the network, so that answers are read whatever holds the
/// loop up; what blocks has threads of its own, which go when idle.
pub fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(16)
        .thread_keep_alive(Duration::from_secs(5))
        .enable_all()
        .build()
        .map_err(|e| Failure::unexpected(format!("no threads to run on: {e}")))
}

/// The signals to this process, to be made once: those of a second time would not be told apart from the second
/// signal that ends it at once.
pub fn signals() -> Result<Signals, Failure> {
    Signals::new().map_err(|e| Failure::unexpected(format!("signals can't be caught: {e}")))
}

/// The daemon over one configuration. Takes the lock of the state directory, opens the ledger, runs the
/// engine, and tells systemd and the status file what it does.
pub async fn daemon(
    config: Config,
    keys: Arc<KeyRing>,
    signals: &mut Signals,
    once: bool,
    progress: Option<Progress>,
) -> Result<Ended, Failure> {
    let state_dir = setup::state_dir(&config)?;
    let opening = {
        let (config, state_dir, keys) = (config.clone(), state_dir.clone(), Arc::clone(&keys));
        tokio::task::spawn_blocking(move || open_state(&config, &state_dir, &keys))
    };
    // The configuration is that of before.
    let missed = Cell::new(false);
    // Folders on a server that is dead hold it up, but neither the watchdog nor whoever wants it to end.
    let opened = tokio::select! {
        opened = opening => opened.map_err(|e| Failure::unexpected(e.to_string()))?,
        () = told_to_end(signals, &missed) => {
            tracing::info!("stopped before it could begin");
            return Ok(Ended::default());
        }
        never = beat_meanwhile(once) => match never {},
    };
    let (_lock, mut ledger, good) = opened?;
    let (publish, published) = watch::channel(Status::default());
    let (monitor, pulse) = Monitor::start(config.metrics.listen.filter(|_| !once), published.clone());
    let (metrics, commits) = (monitor.metrics(), monitor.metrics());
    ledger.observe_commits(move |took| commits.committed(took));
    let ledger = LedgerThread::start(Box::new(ledger)).map_err(|e| Failure::unexpected(e.to_string()))?;
    let client = Client::new(client_settings(&config)).map_err(|e| Failure::usage(e.to_string()))?;
    let hooks = Hooks::start(config.hooks.clone(), setup::credentials());
    let listener = hooks.listener();
    let file = config.file.clone();
    let is_ready = Arc::new(AtomicBool::new(false));
    let now_ready = Arc::clone(&is_ready);
    let grace = Cell::new(config.service.grace);
    let beat = notify::watchdog_interval().map(|every| -> Beat { (every, Box::new(notify::watchdog)) });
    let deps = Deps {
        config,
        state_dir: state_dir.clone(),
        ledger: ledger.clone(),
        ledger_was_good: good,
        keys,
        client,
        once,
        host: Host {
            beat,
            pulse: Some(Pulse { asked: pulse.asked, answered: pulse.answered }),
            ready: Box::new(move || {
                now_ready.store(true, Ordering::SeqCst);
                drop(notify::ready());
            }),
            locks: Arc::new(FolderLocks),
            tell: Tell::new(move |news| {
                metrics.hear(news);
                listener.hear(news);
            }),
        },
    };
    let (control, controlled) = mpsc::channel(16);
    let watcher = tokio::spawn(tell(published, state_dir.clone(), progress));
    let stopped = Cell::new(false);
    let asking = async {
        // A file that nobody writes into, or a share that is silent, holds up no other signal.
        let reload = || reload(&control, &file, (!once).then_some(&monitor), &hooks, &is_ready, &grace);
        let (mut reloading, mut again) = (missed.take().then(|| Box::pin(reload())), false);
        loop {
            tokio::select! {
                signal = signals.next() => match signal {
                    Some(Signal::Terminate | Signal::Interrupt) => {
                        stopped.set(true);
                        drop(notify::stopping(grace.get() + STOP_TAKES));
                        let _ = control.send(Control::Stop).await;
                    }
                    Some(Signal::Rescan) => drop(control.send(Control::Rescan).await),
                    Some(Signal::Reload) if reloading.is_some() => again = true,
                    Some(Signal::Reload) => reloading = Some(Box::pin(reload())),
                    None => break std::future::pending::<Infallible>().await,
                },
                () = wait_for(&mut reloading) => {
                    reloading = std::mem::take(&mut again).then(|| Box::pin(reload()));
                }
            }
        }
    };
    let working = async {
        match Engine::start(deps, controlled, publish).await.map_err(|e| failed(&e))? {
            Some(engine) => Ok::<_, Failure>(Box::pin(engine.run()).await),
            None => Ok(Ended::default()),
        }
    };
    let ended = tokio::select! {
        ended = working => ended?,
        never = asking => match never {},
    };
    let cut = async {
        // Working off what is there once includes telling of it, unless somebody wants it to end.
        if once && !stopped.get() {
            told_to_end(signals, &missed).await;
        }
        tokio::time::sleep(LAST_HOOKS).await;
    };
    hooks.finish(once, cut).await;
    // Ends when the engine's side of the status is gone.
    let _ = watcher.await;
    tokio::task::spawn_blocking(move || ledger.join(LAST_WORKERS)).await.ok();
    tracing::info!(delivered = ended.delivered, failed = ended.failed, "stopped");
    Ok(ended)
}

/// Takes the state directory: its lock, and the ledger and whether it was there before; and reads the key. Blocks on the
/// disk.
fn open_state(config: &Config, state_dir: &Path, keys: &KeyRing) -> Result<(Lock, SqliteLedger, bool), Failure> {
    // Before anything is made: nothing of ours may come to lie in somebody's inbox.
    Site::keep_apart(config, state_dir).map_err(|e| Failure::usage(e.to_string()))?;
    Site::keep_state_local(state_dir).map_err(|e| Failure::usage(e.to_string()))?;
    // The engine takes it for good; who is refused for it makes nothing before.
    if let Err(e @ LockError::Held { .. }) = InboxLock::take(&config.folders.inbox).map(drop) {
        return Err(held(&e, "inbox", &config.folders.inbox));
    }
    if let Some(working) = config.folders.working.as_ref().filter(|working| lock::is_in_work(working)) {
        let text = format!("another daemon has the working folder {}: give each its own", working.display());
        return Err(Failure::new(Code::Held, text));
    }
    std::fs::create_dir_all(state_dir)
        .map_err(|e| Failure::usage(format!("the state directory {} cannot be made: {e}", state_dir.display())))?;
    let lock = Lock::take(&state_dir.join(STATE_LOCK)).map_err(|e| held(&e, "state directory", state_dir))?;
    let (ledger, good) = setup::ledger(state_dir)?;
    if let Err(e) = keys.read() {
        // The engine pauses for it, and goes on when it comes.
        tracing::warn!("{e}. {}", setup::how_to_give_a_key());
    }
    Ok((lock, ledger, good))
}

/// Feeds the watchdog while there is no engine that does; and where that takes long, systemd waits no more.
async fn beat_meanwhile(once: bool) -> Infallible {
    let every = notify::watchdog_interval().unwrap_or(SILENCE).min(SILENCE);
    let (begun, mut is_told) = (Instant::now(), once);
    loop {
        tokio::time::sleep(every).await;
        notify::watchdog();
        if begun.elapsed() >= SILENCE && !std::mem::replace(&mut is_told, true) {
            let text = "waiting for the folders to answer; a server or disk may hang";
            tracing::warn!("{text}");
            drop(notify::status(text));
            drop(notify::ready());
        }
    }
}

/// Waits for a signal to end. `missed`: one to read the configuration again came before.
async fn told_to_end(signals: &mut Signals, missed: &Cell<bool>) {
    loop {
        match signals.next().await {
            Some(Signal::Terminate | Signal::Interrupt) | None => return,
            Some(Signal::Reload) => missed.set(true),
            Some(Signal::Rescan) => {}
        }
    }
}

async fn wait_for(running: &mut Option<Pin<Box<impl Future<Output = ()>>>>) {
    match running {
        Some(running) => running.await,
        None => std::future::pending().await,
    }
}

/// Reads the configuration again.
async fn reload(
    control: &mpsc::Sender<Control>,
    file: &Path,
    monitor: Option<&Monitor>,
    hooks: &Hooks,
    is_ready: &AtomicBool,
    grace: &Cell<Duration>,
) {
    // Before the start is through, systemd waits for its end, and for no other.
    let tells = is_ready.load(Ordering::SeqCst);
    if tells {
        drop(notify::reloading());
    }
    let path = file.to_path_buf();
    let read = tokio::task::spawn_blocking(move || {
        // A line for each mistake, and in the log one for all.
        let lines = |problems: String| problems.replace('\n', "; ");
        let config = Config::load(&path)
            .map_err(|problems| format!("is broken; the old one stays: {}", lines(problems.to_string())))?;
        let stays = |why: String| format!("cannot be used; the old one stays: {why}");
        let state_dir = setup::state_dir(&config).map_err(|e| stays(e.text))?;
        // For its folders it takes a restart, which would fail then.
        Site::keep_apart(&config, &state_dir).map_err(|e| stays(e.to_string()))?;
        Ok::<_, String>(config)
    });
    match read.await.map_err(|e| format!("could not be read; the old one stays: {e}")).and_then(|read| read) {
        Ok(config) => {
            if let Some(monitor) = monitor {
                monitor.listen(config.metrics.listen);
            }
            hooks.reload(config.hooks.clone()).await;
            say_warnings(&config);
            grace.set(config.service.grace);
            let _ = control.send(Control::Reload(Box::new(config))).await;
        }
        Err(why) => {
            tracing::error!("the configuration {why}");
            // What keeps the new one from being used may have come to hold for the old one, too.
            let _ = control.send(Control::Rescan).await;
        }
    }
    if tells {
        drop(notify::ready());
    }
}

/// Writes each change to the status file and to systemd, and drives the progress bar.
async fn tell(mut published: watch::Receiver<Status>, state_dir: PathBuf, progress: Option<Progress>) {
    let mut last_line = String::new();
    let mut complained = false;
    // What earlier runs made is not this one's progress.
    let mut before = None;
    loop {
        // What could not be written is tried again, although nothing new may have happened.
        let changed = tokio::select! {
            changed = published.changed() => changed.is_ok(),
            () = tokio::time::sleep(Duration::from_secs(2)), if complained => true,
        };
        if !changed {
            break;
        }
        let status = published.borrow_and_update().clone();
        let line = status_file::line(&status);
        if line != last_line {
            drop(notify::status(&line));
            last_line.clone_from(&line);
        }
        if let Some(progress) = &progress {
            let left: u64 = status.waiting.iter().filter(|(why, _)| config_waits(why)).map(|(_, n)| n).sum::<u64>()
                + status.in_work;
            let ended = status.last_24h.images + status.failed;
            let done = ended.saturating_sub(*before.get_or_insert(ended));
            progress.set(done, done + left, &line);
        }
        let dir = state_dir.clone();
        let written = tokio::task::spawn_blocking(move || {
            let damaged_ledgers = setup::damaged_ledgers(&dir);
            status_file::write(&dir, &Status { damaged_ledgers, ..status })
        })
        .await;
        match written {
            Ok(Ok(())) => complained = false,
            Ok(Err(e)) if !complained => {
                complained = true;
                tracing::warn!("the status can't be written: {e}");
            }
            _ => {}
        }
        // At most once a second: what changes meanwhile is in the next one. Not each second, for of what happens each
        // second it would always tell the same moment. The end is told at once.
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(1_070)) => {}
            () = ends(&published) => {}
        }
    }
    if let Some(progress) = &progress {
        progress.finish();
    }
}

async fn ends(published: &watch::Receiver<Status>) {
    let mut published = published.clone();
    while published.changed().await.is_ok() {}
}

/// Whether what waits for this goes on by itself.
fn config_waits(reason: &str) -> bool {
    matches!(reason, "settling" | "folder_settling" | "queued" | "planning" | "busy")
}

/// The kernel's locks on folders.
#[derive(Debug)]
struct FolderLocks;

impl Locks for FolderLocks {
    fn inbox(&self, inbox: &Path) -> Result<Held, Locked> {
        InboxLock::take(inbox).map(|lock| Box::new(lock) as Held).map_err(|e| not_locked(&e))
    }

    fn working(&self, working: &Path, inbox: &Path) -> Result<Held, Locked> {
        Lock::take_working(&working.join(WORKING_LOCK), &real(inbox))
            .map(|lock| Box::new(lock) as Held)
            .map_err(|e| not_locked(&e))
    }

    fn is_in_work(&self, folder: &Path) -> bool {
        lock::is_in_work(folder)
    }

    fn former_working(&self, working: &Path, inbox: &Path) -> Result<Option<Held>, Locked> {
        let lock = working.join(WORKING_LOCK);
        if !working.starts_with(inbox) && !lock::serves(&lock, &real(inbox)) {
            return Ok(None);
        }
        let lock = Lock::take_existing(&lock).map_err(|e| not_locked(&e))?;
        Ok(lock.map(|lock| Box::new(lock) as Held))
    }
}

/// The folder itself, however it is named.
fn real(folder: &Path) -> PathBuf {
    folder.canonicalize().unwrap_or_else(|_| folder.to_path_buf())
}

fn not_locked(error: &LockError) -> Locked {
    match error {
        LockError::Held { .. } => Locked::Held(format!("another daemon holds this inbox: {error}")),
        LockError::Taken { .. } => Locked::Busy(error.to_string()),
        LockError::Io { .. } => Locked::Failed(error.to_string()),
    }
}

fn held(error: &LockError, what: &str, path: &Path) -> Failure {
    match error {
        LockError::Held { .. } | LockError::Taken { .. } => {
            Failure::new(Code::Held, format!("another daemon holds this {what} {}: {error}", path.display()))
        }
        LockError::Io { .. } => Failure::usage(format!(
            "the {what} can't be locked: {error}; give this user the right to write there, or run it as the daemon's user"
        )),
    }
}

fn failed(error: &EngineError) -> Failure {
    match error {
        EngineError::Wrong(text) => Failure::usage(text.clone()),
        EngineError::Held(text) => Failure::new(Code::Held, text.clone()),
        EngineError::Ledger(LedgerError::Newer { .. }) => Failure::usage(error.to_string()),
        EngineError::Ledger(_) | EngineError::State(_) => Failure::unexpected(error.to_string()),
    }
}
