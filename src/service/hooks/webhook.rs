//! Posts events to an address, one after the other, again after trouble that passes, and signed.

use std::error::Error as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use reqwest::StatusCode;
use reqwest::redirect::Policy;
use ring::hmac;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use url::Url;

use super::{HooksError, VERSION, secret};
use crate::domain::hooks::{Event, Settings};
use crate::domain::pace::backoff;
use crate::domain::params::is_loopback;

/// How patient a delivery is.
#[derive(Clone, Copy, Debug)]
struct Patience {
    /// Tries in all.
    tries: u32,
    /// Before the second; doubled each time.
    first: Duration,
    most: Duration,
}

/// About a minute, and ten seconds more for each try that is not answered.
const PATIENCE: Patience = Patience { tries: 6, first: Duration::from_secs(3), most: Duration::from_secs(60) };

/// Of one try.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Where to post, and with what.
#[derive(Debug)]
pub(super) struct Post {
    client: reqwest::Client,
    url: Url,
    secret_file: Option<PathBuf>,
    credentials: Option<PathBuf>,
    patience: Patience,
}

impl Post {
    /// `None` where there is no webhook.
    pub(super) fn new(settings: &Settings, credentials: Option<&Path>) -> Result<Option<Arc<Self>>, HooksError> {
        let Some(webhook) = &settings.webhook else { return Ok(None) };
        // Already installed by somebody else is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut client = reqwest::Client::builder()
            .user_agent(concat!("reimagined/", env!("CARGO_PKG_VERSION")))
            .retry(reqwest::retry::never())
            .redirect(Policy::none())
            .referer(false)
            .connect_timeout(TIMEOUT / 2)
            .timeout(TIMEOUT)
            .pool_idle_timeout(Duration::from_secs(4))
            .http1_only();
        if webhook.url.scheme() == "http" {
            // Needs no authorities; and what is plain goes straight to where it was meant to go.
            client = client.no_proxy().tls_certs_only([]);
        } else if is_loopback(&webhook.url) {
            client = client.no_proxy();
        }
        let client = client.build().map_err(|e| HooksError::Client(chain(e)))?;
        Ok(Some(Arc::new(Self {
            client,
            url: webhook.url.clone(),
            secret_file: webhook.secret_file.clone(),
            credentials: credentials.map(Path::to_path_buf),
            patience: PATIENCE,
        })))
    }

    /// One try: whether it may be tried again, and why it went wrong.
    async fn once(&self, event: &Event, id: &str, body: &str) -> Result<(), (bool, String)> {
        let mut request = self
            .client
            .post(self.url.clone())
            .header("content-type", "application/json")
            .header("x-reimagined-event", event.word())
            .header("x-reimagined-delivery", id);
        if let Some(file) = &self.secret_file {
            // Read each time, so that it can be changed while this runs. Nothing is ever posted unsigned instead.
            let (file, credentials) = (file.clone(), self.credentials.clone());
            let read = tokio::task::spawn_blocking(move || secret::read(&file, credentials.as_deref())).await;
            let secret = read.map_err(|e| (true, e.to_string()))?.map_err(|why| (true, why))?;
            let now = Timestamp::now().as_second().to_string();
            request = request
                .header("x-reimagined-timestamp", &now)
                .header("x-reimagined-signature", signature(&secret, &now, body));
        }
        let answer = request.body(body.to_owned()).send().await.map_err(|e| (true, chain(e)))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(());
        }
        let passes = status.is_server_error()
            || matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS);
        let what =
            if status.is_redirection() { "it answered with a redirect, which is not followed:" } else { "it answered" };
        Err((passes, format!("{what} {status}")))
    }

    /// Posts one event, with the same id at each try; whether the other side can be told at all.
    async fn deliver(&self, event: &Event) -> bool {
        let (id, body) = (random_id(), event.json(VERSION));
        // The path of an address may be a secret of its own.
        let host = self.url.host_str().unwrap_or_default();
        let drop = event.place().map(tracing::field::display);
        let Patience { tries, first, most } = self.patience;
        for n in 1..=tries {
            match self.once(event, &id, &body).await {
                Ok(()) => {
                    tracing::debug!(host, event = event.word(), drop, delivery = id, tries = n, "posted");
                    return true;
                }
                Err((passes, why)) if !passes || n == tries => {
                    tracing::warn!(host, event = event.word(), drop, delivery = id, tries = n, reason = %why, "the webhook was not told");
                    return !passes;
                }
                Err((_, why)) => {
                    tracing::debug!(host, event = event.word(), drop, delivery = id, tries = n, reason = %why, "posted again later");
                    tokio::time::sleep(backoff(n, first, most, jitter())).await;
                }
            }
        }
        false
    }
}

/// Posts what comes, in its order, until nothing comes any more; how many events it did not try. From `finishing` on
/// one event that cannot be told is enough, and by `give_up` it ends at once.
pub(super) async fn run(
    mut events: mpsc::Receiver<Arc<Event>>,
    posts: watch::Receiver<Option<Arc<Post>>>,
    finishing: CancellationToken,
    give_up: CancellationToken,
) -> usize {
    while let Some(event) = events.recv().await {
        let post = posts.borrow().clone();
        // A reload may have taken it away.
        let Some(post) = post else { continue };
        let mut left = tokio::select! {
            told = post.deliver(&event) => if told || !finishing.is_cancelled() { continue } else { 0 },
            () = give_up.cancelled() => 1,
        };
        while events.recv().await.is_some() {
            left += 1;
        }
        return left;
    }
    0
}

/// `sha256=` and the HMAC-SHA256 of time, dot and body, in hexadecimal digits.
fn signature(secret: &SecretString, time: &str, body: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose_secret().as_bytes());
    let tag = hmac::sign(&key, format!("{time}.{body}").as_bytes());
    tag.as_ref().iter().fold("sha256=".to_owned(), |out, byte| out + &format!("{byte:02x}"))
}

/// An error with its causes and without the address.
fn chain(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let more = next.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = next.source();
    }
    text
}

fn random_id() -> String {
    // A machine without randomness has more to worry about than two events of one name.
    let (a, b) = (getrandom::u64().unwrap_or_default(), getrandom::u64().unwrap_or_default());
    format!("{a:016x}{b:016x}")
}

fn jitter() -> f64 {
    getrandom::u32().map_or(0.5, |n| f64::from(n) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeSet;
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use super::*;
    use crate::domain::arrivals::Reason;
    use crate::domain::ids::{Place, RelPath};

    #[test]
    fn the_signature_is_the_one_that_others_compute() {
        // python3 -c 'import hmac; print(hmac.new(b"s3cret", b"1700000000.{}", "sha256").hexdigest())'
        assert_eq!(
            signature(&SecretString::from("s3cret"), "1700000000", "{}"),
            "sha256=97926816e98fbb41ccb1673225ff29a2f35369099990e1b1561651e7bd097ebf"
        );
    }

    /// A server that answers each request with the next status, then ends: how many requests came.
    fn server(statuses: &'static [u16]) -> (Url, std::thread::JoinHandle<usize>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = Url::parse(&format!("http://{}/", listener.local_addr().unwrap())).unwrap();
        let serving = std::thread::spawn(move || {
            let mut came = 0;
            for status in statuses {
                let (mut stream, _) = listener.accept().unwrap();
                let mut head = [0; 4096];
                let _ = stream.read(&mut head).unwrap();
                came += 1;
                let _ = write!(stream, "HTTP/1.1 {status} x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            }
            came
        });
        (url, serving)
    }

    fn post_to(url: Url, tries: u32) -> Post {
        let webhook = crate::domain::hooks::Webhook { url, secret_file: None, events: BTreeSet::new() };
        let settings = Settings { webhook: Some(webhook), ..Settings::default() };
        let soon = Duration::from_millis(1);
        let post = Arc::into_inner(Post::new(&settings, None).unwrap().unwrap()).unwrap();
        Post { patience: Patience { tries, first: soon, most: soon }, ..post }
    }

    fn event() -> Event {
        let place = Place { folder: RelPath::root(), name: "a.jpg".into() };
        let (at, reason) = (Timestamp::UNIX_EPOCH, Reason::Prompt);
        Event::Waiting { at, place, reason, since: at, others: 0 }
    }

    async fn delivered(statuses: &'static [u16], tries: u32) -> usize {
        let (url, serving) = server(statuses);
        post_to(url, tries).deliver(&event()).await;
        serving.join().unwrap()
    }

    #[tokio::test]
    async fn at_the_end_one_event_that_cannot_be_told_is_enough() {
        let (url, serving) = server(&[]);
        serving.join().unwrap();
        let (events, waiting) = mpsc::channel(8);
        for _ in 0..3 {
            events.send(Arc::new(event())).await.unwrap();
        }
        drop(events);
        let (_post, posts) = watch::channel(Some(Arc::new(post_to(url, 2))));
        let finishing = CancellationToken::new();
        finishing.cancel();
        assert_eq!(run(waiting, posts, finishing, CancellationToken::new()).await, 2);
    }

    #[tokio::test]
    async fn trouble_that_passes_is_tried_again_and_not_for_ever() {
        assert_eq!(delivered(&[503, 429, 500, 204], 6).await, 4);
        assert_eq!(delivered(&[502, 502, 502], 3).await, 3);
    }

    #[tokio::test]
    async fn a_refusal_and_a_redirect_end_it() {
        for statuses in [&[400], &[404], &[302]] {
            assert_eq!(delivered(statuses, 6).await, 1);
        }
    }
}
