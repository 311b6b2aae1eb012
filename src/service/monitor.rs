//! What monitoring may ask on loopback: `/metrics`, `/healthz` and `/readyz`.
//!
//! It costs nothing while nobody asks: no timer, and without `[metrics] listen` no socket. Whoever asks can do the
//! daemon no harm: so many connections, each for so long and for one answer. A web page that has its name resolved
//! to 127.0.0.1 learns nothing. A port that is taken is said once and tried again; pictures matter more.

mod doors;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State as Shared};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use super::metrics::{self, Metrics};
use crate::domain::params::is_loopback;
use crate::domain::status::{State, Status};
use doors::Doors;

/// How long a loop may take to say that it turns.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long until a port that is taken is tried again.
const AGAIN: Duration = Duration::from_secs(60);

/// The loop's side of the question whether it turns: after each turn `answered` is to be what was `asked` by then.
#[derive(Debug)]
pub struct Pulse {
    /// Numbers that only grow, from 1.
    pub asked: watch::Receiver<u64>,
    /// 0 before the first turn.
    pub answered: watch::Sender<u64>,
}

/// Metrics, health and readiness of one daemon. Its socket is closed when this goes.
#[derive(Debug)]
pub struct Monitor {
    metrics: Arc<Metrics>,
    listen: watch::Sender<Option<SocketAddr>>,
    serving: AbortHandle,
}

impl Monitor {
    /// Serves at `listen`, if anywhere. Needs an event loop around it.
    pub fn start(listen: Option<SocketAddr>, status: watch::Receiver<Status>) -> (Self, Pulse) {
        let metrics = Arc::new(Metrics::new(status.clone()));
        let (listen, wanted) = watch::channel(listen);
        let (ask, asked) = watch::channel(1);
        let (answered, answers) = watch::channel(0);
        let page = Page { metrics: Arc::clone(&metrics), status, ask: Arc::new(ask), answers, patience: PATIENCE };
        let serving = tokio::spawn(serve(page, wanted)).abort_handle();
        (Self { metrics, listen, serving }, Pulse { asked, answered })
    }

    /// What counts.
    pub fn metrics(&self) -> Arc<Metrics> {
        Arc::clone(&self.metrics)
    }

    /// Serves there from now on. A port that was taken is tried again at once.
    pub fn listen(&self, at: Option<SocketAddr>) {
        self.listen.send_replace(at);
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

#[derive(Clone)]
struct Page {
    metrics: Arc<Metrics>,
    status: watch::Receiver<Status>,
    ask: Arc<watch::Sender<u64>>,
    answers: watch::Receiver<u64>,
    patience: Duration,
}

/// Serves where it is wanted, until nobody can want it any more.
async fn serve(page: Page, mut wanted: watch::Receiver<Option<SocketAddr>>) {
    let mut told = None;
    loop {
        let at = *wanted.borrow_and_update();
        let binding = async {
            match at {
                Some(at) => (at, bind(at, &mut told).await),
                None => std::future::pending().await,
            }
        };
        let (at, listener) = tokio::select! {
            bound = binding => bound,
            changed = wanted.changed() => if changed.is_ok() { continue } else { return },
        };
        let shown = listener.local_addr().unwrap_or(at);
        tracing::info!(address = %shown, "metrics are served at http://{shown}/metrics");
        let elsewhere = async { wanted.wait_for(|now| *now != Some(at)).await.is_ok() };
        tokio::select! {
            // Does not end by itself.
            _ = axum::serve(Doors::new(listener), router(page.clone())) => return,
            elsewhere = elsewhere => if !elsewhere { return },
        }
    }
}

/// A listener at `at`, as soon as there can be one. What is in the way is `told` once.
async fn bind(at: SocketAddr, told: &mut Option<String>) -> TcpListener {
    loop {
        match TcpListener::bind(at).await {
            Ok(listener) => {
                *told = None;
                return listener;
            }
            Err(e) => {
                let why = format!("{at}: {e}");
                if told.as_ref() != Some(&why) {
                    tracing::warn!(
                        "metrics can't be served at {why}; it is tried again every minute: free the port, or set another [metrics] listen and reload"
                    );
                    *told = Some(why);
                }
                sleep(AGAIN).await;
            }
        }
    }
}

fn router(page: Page) -> Router {
    Router::new()
        .route("/metrics", get(all))
        .route("/healthz", get(health))
        .route("/readyz", get(readiness))
        .fallback(|| async { plain(StatusCode::NOT_FOUND, "there are /metrics, /healthz and /readyz") })
        .layer(middleware::from_fn(doorman))
        .with_state(page)
}

/// Lets in only who means this machine, and closes the door behind each answer.
async fn doorman(request: Request, next: Next) -> Response {
    let mut response = if is_near(request.headers()) {
        next.run(request).await
    } else {
        plain(StatusCode::MISDIRECTED_REQUEST, "this answers for loopback names only, such as localhost")
    };
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Whether the request names this machine, or nobody.
fn is_near(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST) else { return true };
    let url = host.to_str().ok().and_then(|host| url::Url::parse(&format!("http://{host}/")).ok());
    url.is_some_and(|url| is_loopback(&url))
}

async fn all(Shared(page): Shared<Page>) -> Response {
    match page.metrics.text() {
        Ok(text) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(e) => plain(StatusCode::INTERNAL_SERVER_ERROR, &format!("the metrics can't be written: {e}")),
    }
}

/// Whether the loop turns: it is asked, and says so itself.
async fn health(Shared(page): Shared<Page>) -> Response {
    if *page.answers.borrow() == 0 {
        // Before its first turn it puts in order what a crash left, or waits for an inbox.
        return plain(StatusCode::OK, "starting");
    }
    let mut number = 0;
    page.ask.send_modify(|asked| {
        *asked += 1;
        number = *asked;
    });
    let mut answers = page.answers.clone();
    let turned = timeout(page.patience, answers.wait_for(|answered| *answered >= number)).await;
    match turned {
        Ok(Ok(_)) => plain(StatusCode::OK, "ok"),
        Ok(Err(_)) => plain(StatusCode::SERVICE_UNAVAILABLE, "stopped"),
        Err(_) => {
            let text = format!("stuck: the loop did not answer within {} s", page.patience.as_secs_f32());
            plain(StatusCode::SERVICE_UNAVAILABLE, &text)
        }
    }
}

/// Whether drops are taken and sent.
async fn readiness(Shared(page): Shared<Page>) -> Response {
    let status = page.status.borrow().clone();
    match (status.state, status.paused) {
        (State::Running, _) => plain(StatusCode::OK, "ready"),
        // The reason may name paths, which the status keeps for those who may read it.
        (State::Paused, Some(paused)) => {
            plain(StatusCode::SERVICE_UNAVAILABLE, &format!("paused ({})", paused.kind.label()))
        }
        (State::Paused, None) => plain(StatusCode::SERVICE_UNAVAILABLE, "paused"),
        (State::Stopped, _) => plain(StatusCode::SERVICE_UNAVAILABLE, "starting"),
    }
}

fn plain(status: StatusCode, text: &str) -> Response {
    (status, [(header::CONTENT_TYPE, "text/plain; charset=utf-8")], format!("{text}\n")).into_response()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn page() -> (Page, Pulse, watch::Sender<Status>) {
        let (publish, status) = watch::channel(Status::default());
        let (ask, asked) = watch::channel(1);
        let (answered, answers) = watch::channel(0);
        let metrics = Arc::new(Metrics::new(status.clone()));
        let patience = Duration::from_millis(50);
        (Page { metrics, status, ask: Arc::new(ask), answers, patience }, Pulse { asked, answered }, publish)
    }

    #[tokio::test]
    async fn a_loop_that_turned_and_does_not_any_more_is_unwell() {
        let (page, mut pulse, _publish) = page();
        assert_eq!(health(Shared(page.clone())).await.status(), StatusCode::OK, "it starts");
        pulse.answered.send_replace(1);
        assert_eq!(health(Shared(page.clone())).await.status(), StatusCode::SERVICE_UNAVAILABLE, "it is stuck");
        let turning = tokio::spawn(async move {
            while pulse.asked.changed().await.is_ok() {
                let asked = *pulse.asked.borrow_and_update();
                pulse.answered.send_replace(asked);
            }
        });
        assert_eq!(health(Shared(Page { patience: PATIENCE, ..page.clone() })).await.status(), StatusCode::OK);
        turning.abort();
        assert!(turning.await.unwrap_err().is_cancelled());
        assert_eq!(health(Shared(page)).await.status(), StatusCode::SERVICE_UNAVAILABLE, "it is gone");
    }

    #[tokio::test]
    async fn it_is_ready_when_it_runs_and_says_why_it_is_not() {
        let (page, _pulse, publish) = page();
        assert_eq!(readiness(Shared(page.clone())).await.status(), StatusCode::SERVICE_UNAVAILABLE, "it starts");
        publish.send_replace(Status { state: State::Running, ..Status::default() });
        assert_eq!(readiness(Shared(page.clone())).await.status(), StatusCode::OK);
        publish.send_replace(Status { state: State::Paused, ..Status::default() });
        assert_eq!(readiness(Shared(page)).await.status(), StatusCode::SERVICE_UNAVAILABLE);
    }

    #[test]
    fn who_names_another_machine_is_no_neighbour() {
        let named =
            |host: &'static str| is_near(&HeaderMap::from_iter([(header::HOST, HeaderValue::from_static(host))]));
        assert!(is_near(&HeaderMap::new()));
        assert!(["127.0.0.1:9947", "localhost:1", "[::1]:9947", "LOCALHOST", "me.localhost"].into_iter().all(named));
        assert!(!["evil.example", "127.0.0.1.evil.example", "10.0.0.1:9947", "", "a b"].into_iter().any(named));
    }
}
