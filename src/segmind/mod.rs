//! The API: model call, upload, credits, replies, the key.
//!
//! [`Client`] sends one request for each call of its methods, never a second one by itself, and says what
//! came of it as a verdict of [`crate::domain::verdict`]. It promises that the key goes only to the hosts of
//! `base_url` and `upload_url`, that redirects of keyed requests are not followed, that results are fetched
//! from public https addresses only, that no more than a few pieces of a picture are in memory (except base64 inside
//! JSON, and what the disk does not take; 64 MiB at most), and that no text it hands out holds the key.
//!
//! It does not wait, count, retry or record, nor does it look whether a picture is whole: its caller does.

use std::fmt;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue};
use reqwest::{Method, Response};
use url::Url;

mod body;
mod deadline;
mod download;
mod find;
mod guard;
mod http;
mod key;
mod lenient;
mod redact;
mod reply;
mod sniff;

pub use body::Body;
pub use download::DownloadOutcome;
pub use http::ClientError;
pub use key::{ApiKey, CREDENTIAL, KeyError, KeySource, VARIABLE};
pub use redact::{redact, without_key};
pub use reply::{Held, Received, write_small};
pub use sniff::{PictureKind, sniff};

use self::deadline::Deadline;
use self::http::{Connections, Incoming, ProxySetting, Use, lost, too_late};
use self::reply::{Content, Words, read_json, read_result, read_words};
use crate::domain::params::is_loopback;
use crate::domain::verdict::{
    BodyKind, Credits, Endpoint, Lost, MAX_WORDS, NotSent, NotSentKind, Receipt, Reply, Verdict, judge, judge_credits,
    judge_lost, speaks_of_timeout, tidy,
};

/// The longest URL that is taken for one.
const MAX_URL: usize = 8192;

const CREDITS_TIMEOUT: Duration = Duration::from_secs(15);

/// What a client is built from: `[api]` of the configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the API is; http for loopback only.
    pub base_url: Url,
    /// The model's path below `base_url`.
    pub model: String,
    /// Where references are uploaded to; http for loopback only.
    pub upload_url: Url,
    /// Of one whole exchange.
    pub timeout: Duration,
    /// Of reaching the other side, TLS included.
    pub connect_timeout: Duration,
}

/// The public URL of an uploaded reference. It may carry the account's e-mail address, so that neither
/// `Debug` nor `Display` shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct AssetUrl(String);

impl AssetUrl {
    /// A URL out of the cache.
    pub fn new(url: impl Into<String>) -> Self {
        Self(url.into())
    }

    /// The URL itself, for the request and the cache only.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for AssetUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AssetUrl(…)")
    }
}

impl fmt::Display for AssetUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[asset URL]")
    }
}

/// What came of a model call.
#[derive(Clone, Debug, PartialEq)]
pub struct CallOutcome {
    /// What it means.
    pub verdict: Verdict,
    /// The picture in its file; only with [`Verdict::Picture`].
    pub picture: Option<Received>,
    /// The picture itself, where its file could not be written; only with [`Verdict::Picture`].
    pub held: Option<Held>,
    /// The picture, where it came in one piece and is in memory only: whoever called has to write it at once
    /// ([`write_small`]). Only by [`Client::reimagine_leaving`].
    pub left: Option<Vec<u8>>,
    /// What came of a picture whose answer broke off, in its file. It may be all of it: whoever can tell whole
    /// pictures has to look, and takes the file away if it is not.
    pub remains: Option<Received>,
    /// What the headers said of the bill; empty without an answer.
    pub receipt: Receipt,
    /// How long the whole exchange took.
    pub elapsed: Duration,
}

/// What came of an upload.
#[derive(Clone, Debug, PartialEq)]
pub enum UploadOutcome {
    /// It lies there.
    Done(AssetUrl),
    /// It does not; never billed, never unconfirmed.
    Failed(Verdict),
}

/// The way to the API. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    connections: Connections,
    model_url: Url,
    credits_url: Url,
    upload_url: Url,
    /// Whether the API is on this machine.
    loopback: bool,
    timeout: Duration,
}

impl Client {
    /// Errors: a setting that cannot work, an unusable `HTTPS_PROXY`, no certificate authorities.
    pub fn new(settings: Settings) -> Result<Self, ClientError> {
        Self::with_proxy(settings, &ProxySetting::from_environment())
    }

    fn with_proxy(settings: Settings, proxy: &ProxySetting) -> Result<Self, ClientError> {
        let Settings { base_url, model, upload_url, timeout, connect_timeout } = settings;
        check("base_url", &base_url)?;
        check("upload_url", &upload_url)?;
        let below = |path: &str| {
            let text = format!("{}/{}", base_url.as_str().trim_end_matches('/'), path.trim_start_matches('/'));
            let setting = |why: String| ClientError::Setting { name: "model", value: path.to_owned(), why };
            let url = Url::parse(&text).map_err(|e| setting(e.to_string()))?;
            let same = url.origin() == base_url.origin();
            if same { Ok(url) } else { Err(setting("it does not lie below base_url".into())) }
        };
        let loopback = is_loopback(&base_url);
        let needs_web = base_url.scheme() == "https" || upload_url.scheme() == "https" && !is_loopback(&upload_url);
        // Connecting must fail before the exchange does: only the one is surely "not sent".
        let connect = connect_timeout.min(timeout.mul_f32(0.9));
        Ok(Self {
            connections: Connections::new(connect, proxy, loopback, needs_web)?,
            model_url: below(&model)?,
            credits_url: below("/v1/get-user-credits")?,
            upload_url,
            loopback,
            timeout,
        })
    }

    /// One paid request. A picture in the answer is streamed into `into` (created with mode 0600, not
    /// synced), `max_bytes` at most; where neither [`CallOutcome::picture`] nor [`CallOutcome::remains`] says that
    /// something is there, nothing is left. One that the disk does not take is held in memory.
    pub async fn reimagine(&self, key: &ApiKey, body: Body, into: &Path, max_bytes: u64) -> CallOutcome {
        self.ask(key, body, into, max_bytes, false).await
    }

    /// [`Self::reimagine`], but a picture that comes in one piece is left to the caller, who has more to do with its
    /// bytes where it is written.
    pub async fn reimagine_leaving(&self, key: &ApiKey, body: Body, into: &Path, max_bytes: u64) -> CallOutcome {
        self.ask(key, body, into, max_bytes, true).await
    }

    async fn ask(&self, key: &ApiKey, body: Body, into: &Path, max_bytes: u64, leave: bool) -> CallOutcome {
        let started = Instant::now();
        let (hidden, sent) = (body.hidden(), body.sent());
        let mut rest = Rest::default();
        let (verdict, kept, receipt) = self.call(key, body, into, max_bytes, leave, (&hidden, sent), &mut rest).await;
        let (picture, held) = match kept {
            Some(Ok(received)) => (Some(received), None),
            Some(Err(held)) => (None, Some(held)),
            None => (None, None),
        };
        let elapsed = started.elapsed();
        let Rest { remains, left } = rest;
        CallOutcome { verdict, picture, held, left, remains, receipt, elapsed }
    }

    #[expect(clippy::too_many_arguments, reason = "one call, taken apart")]
    async fn call(
        &self,
        key: &ApiKey,
        body: Body,
        into: &Path,
        max_bytes: u64,
        leave: bool,
        (hidden, sent): (&[AssetUrl], find::Sent),
        rest: &mut Rest,
    ) -> (Verdict, Option<Result<Received, Held>>, Receipt) {
        let started = Instant::now();
        let clean = |text: &str| safe(text, key, hidden);
        let mut deadline = Deadline::within(self.timeout);
        let response = match self.post(&self.model_url, Use::Paid, key, body, &mut deadline).await {
            Ok(response) => response,
            Err(failed) => return (failed.verdict(Endpoint::Model, &clean), None, Receipt::default()),
        };
        let after = started.elapsed();
        let mut receipt = Receipt::read(|name| header(&response, name));
        // It goes into note, log and provenance.
        let name_of = |id: &str| tidy(&clean(id), 200);
        receipt.request_id = receipt.request_id.as_deref().map(name_of);
        let mut reply = begun(&response, after);
        if reply.status == 200 {
            let content_type = tidy(header(&response, CONTENT_TYPE.as_str()).unwrap_or_default(), 100);
            let answer =
                read_result(Incoming::new(response, deadline), &content_type, into, max_bytes, leave, sent).await;
            said(&mut reply, answer.words.as_deref(), &clean);
            receipt.request_id = receipt.request_id.or_else(|| answer.request_id.as_deref().map(name_of));
            reply.body = match answer.content {
                Content::Picture(received) => return (Verdict::Picture, Some(Ok(received)), receipt),
                Content::Small(received, picture) => {
                    rest.left = Some(picture);
                    return (Verdict::Picture, Some(Ok(received)), receipt);
                }
                Content::Held(held) => return (Verdict::Picture, Some(Err(held)), receipt),
                Content::Link(url) => BodyKind::Link(url),
                Content::Refusal => BodyKind::Refusal,
                Content::Unusable { what, lost } => BodyKind::Unusable { what: brief(&clean(&what)), lost },
                Content::Broken { what, received } => {
                    rest.remains = Some(received);
                    BodyKind::Unusable { what: brief(&clean(&what)), lost: true }
                }
            };
        } else {
            let Words { said: words, gave_up, .. } = read_words(Incoming::new(response, deadline)).await;
            said(&mut reply, words.as_deref(), &clean);
            reply.gave_up |= gave_up;
        }
        (judge(Endpoint::Model, &reply, Timestamp::now()), None, receipt)
    }

    /// Uploads a picture ([`Body::upload`], [`Body::upload_of`]). Free; its URL is public.
    pub async fn upload(&self, key: &ApiKey, body: Body) -> UploadOutcome {
        let started = Instant::now();
        let clean = |text: &str| safe(text, key, &[]);
        let mut deadline = Deadline::within(self.timeout);
        let response = match self.post(&self.upload_url, Use::Free, key, body, &mut deadline).await {
            Ok(response) => response,
            Err(failed) => return UploadOutcome::Failed(failed.verdict(Endpoint::Upload, &clean)),
        };
        let mut reply = begun(&response, started.elapsed());
        let incoming = Incoming::new(response, deadline);
        if matches!(reply.status, 200..=299) {
            match read_json(incoming).await {
                Ok(json) => {
                    let assets: Vec<_> = find::asset_urls(&json).into_iter().map(AssetUrl::new).collect();
                    let clean = |text: &str| safe(text, key, &assets);
                    // Nothing is billed here, so any success that names a URL is one.
                    if let Some(url) = find::asset_url(&json, is_loopback(&self.upload_url)) {
                        return UploadOutcome::Done(AssetUrl::new(url));
                    }
                    let words = find::words(&json);
                    let what = format!("the upload was answered without a URL: {}", clean(&json.to_string()));
                    reply.body = match words {
                        Some(_) => BodyKind::Refusal,
                        None => BodyKind::Unusable { what, lost: false },
                    };
                    said(&mut reply, words.as_deref(), &clean);
                }
                Err((words, Content::Unusable { what, lost })) => {
                    reply.body = BodyKind::Unusable { what: brief(&clean(&what)), lost };
                    said(&mut reply, words.as_deref(), &clean);
                }
                Err((words, _)) => said(&mut reply, words.as_deref(), &clean),
            }
        } else {
            let Words { said: words, assets, .. } = read_words(incoming).await;
            let assets: Vec<_> = assets.into_iter().map(AssetUrl::new).collect();
            said(&mut reply, words.as_deref(), &|text: &str| safe(text, key, &assets));
        }
        UploadOutcome::Failed(judge(Endpoint::Upload, &reply, Timestamp::now()))
    }

    /// Asks for the account's credits; free. `last_cost` is the last seen `x-cost`, in dollars.
    pub async fn credits(&self, key: &ApiKey, last_cost: Option<f64>) -> Credits {
        let timeout = CREDITS_TIMEOUT.min(self.timeout);
        let clean = |text: &str| safe(text, key, &[]);
        let http = self.connections.pick(&self.credits_url, Use::Free);
        let request = http.request(Method::GET, self.credits_url.clone()).timeout(timeout).headers(keyed(key));
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) => {
                let message = match lost(error) {
                    Lost::NotSent(lost) => lost.message,
                    Lost::MaybeSent(lost) => lost.message,
                };
                return Credits::NoAnswer { message: clean(&message) };
            }
        };
        let status = response.status().as_u16();
        let (body, ended) = Incoming::new(response, Deadline::within(timeout)).rest(Vec::new(), 64 * 1024).await;
        if let (200, Some(http::Ended::Lost(how))) = (status, ended) {
            return Credits::NoAnswer { message: clean(&how) };
        }
        match judge_credits(status, &body, last_cost) {
            Credits::Refused { message } => Credits::Refused { message: brief(&clean(&message)) },
            Credits::Other { message } => Credits::Other { message: brief(&clean(&message)) },
            told => told,
        }
    }

    async fn post(
        &self,
        url: &Url,
        purpose: Use,
        key: &ApiKey,
        body: Body,
        deadline: &mut Deadline,
    ) -> Result<Response, Failed> {
        let (body, length) = body.open().await.map_err(Failed::Unreadable)?;
        let request = self
            .connections
            .pick(url, purpose)
            .request(Method::POST, url.clone())
            .headers(keyed(key))
            .header(CONTENT_TYPE, "application/json")
            .header(CONTENT_LENGTH, length)
            .body(body);
        let answer = deadline.hold(request.send()).await;
        answer.ok_or_else(|| Failed::Lost(too_late()))?.map_err(|error| Failed::Lost(lost(error)))
    }
}

/// What came besides.
#[derive(Default)]
struct Rest {
    remains: Option<Received>,
    left: Option<Vec<u8>>,
}

/// A request that got no answer.
enum Failed {
    /// The picture to send cannot be read: nothing was sent.
    Unreadable(io::Error),
    Lost(Lost),
}

impl Failed {
    fn verdict(self, endpoint: Endpoint, clean: &dyn Fn(&str) -> String) -> Verdict {
        match self {
            Self::Unreadable(error) => {
                Verdict::Retry { message: format!("the prepared picture cannot be read: {error}"), trouble: false }
            }
            Self::Lost(Lost::NotSent(NotSent { kind, message })) => {
                let hint = match kind {
                    NotSentKind::Dns => " (is the network up, and `base_url` right?)",
                    NotSentKind::Tls => " (the certificate could not be verified)",
                    _ => "",
                };
                let message = format!("{}{hint}", clean(&message));
                judge_lost(endpoint, &Lost::NotSent(NotSent { kind, message }))
            }
            Self::Lost(Lost::MaybeSent(mut maybe)) => {
                maybe.message = clean(&maybe.message);
                judge_lost(endpoint, &Lost::MaybeSent(maybe))
            }
        }
    }
}

fn check(name: &'static str, url: &Url) -> Result<(), ClientError> {
    let why = match url.scheme() {
        "https" if url.host_str().is_some() => return Ok(()),
        "http" if is_loopback(url) => return Ok(()),
        "http" => "http is accepted for this machine only, since the key is sent there: write https",
        _ => "it must be an https URL",
    };
    // A password has no place in an error.
    let mut shown = url.clone();
    let _ = shown.set_password(None);
    Err(ClientError::Setting { name, value: shown.to_string(), why: why.into() })
}

fn keyed(key: &ApiKey) -> reqwest::header::HeaderMap {
    let name = HeaderName::from_static("x-api-key");
    key.header().map(|value: HeaderValue| (name, value)).into_iter().collect()
}

/// A header as text; what is no text counts as missing.
fn header<'a>(response: &'a Response, name: &str) -> Option<&'a str> {
    response.headers().get(name)?.to_str().ok()
}

fn begun(response: &Response, after: Duration) -> Reply {
    Reply {
        status: response.status().as_u16(),
        retry_after: header(response, "retry-after").map(str::to_owned),
        rate_reset: header(response, "x-rate-limit-reset-at-utc").map(str::to_owned),
        message: None,
        gave_up: false,
        body: BodyKind::Unusable { what: "the answer was not looked at".into(), lost: false },
        after,
    }
}

/// What an answer was, and how it began.
fn brief(what: &str) -> String {
    tidy(what, 300)
}

fn said(reply: &mut Reply, words: Option<&str>, clean: &dyn Fn(&str) -> String) {
    reply.gave_up = words.is_some_and(speaks_of_timeout);
    reply.message = words.map(clean).filter(|text| !text.is_empty());
}

/// As much of a text from the wire as is looked through for a note.
const MAX_TEXT: usize = 256 * 1024;

/// Text from the wire, fit for a note: first blacked out, then cut, so that no half of a secret stays.
fn safe(text: &str, key: &ApiKey, hidden: &[AssetUrl]) -> String {
    let assets: Vec<&str> = hidden.iter().map(AssetUrl::expose).collect();
    tidy(&redact(beginning(text), Some(key), &assets), MAX_WORDS)
}

/// Megabytes are no message. Cut before a whole word, for the same reason.
fn beginning(text: &str) -> &str {
    if text.len() <= MAX_TEXT {
        return text;
    }
    let end = (0..=MAX_TEXT).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    text[..end].trim_end_matches(|c: char| !c.is_whitespace())
}

#[cfg(test)]
mod tests;
