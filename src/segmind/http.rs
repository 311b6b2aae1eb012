//! The transport: which connection a request takes, what a failure before the answer means, and how a body
//! is read within its time.
//!
//! A paid request always has a connection of its own. On one from a pool it could meet a server that is just
//! closing it, and would be lost for a reason that looks exactly like one that was billed.

use std::error::Error as StdError;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{ACCEPT_ENCODING, HeaderMap, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{NoProxy, Proxy};
use thiserror::Error;
use url::Url;

use super::deadline::Deadline;
use super::guard::{Guard, Refused};
use crate::domain::verdict::{Lost, MAX_WORDS, MaybeSent, NotSent, NotSentKind, tidy};

/// A body that stops coming for this long is lost, even while the whole exchange has time left.
const IDLE: Duration = Duration::from_secs(60);

/// Shorter than any usual server keeps an unused connection.
const KEEP: Duration = Duration::from_secs(4);

/// Why there is no client.
#[derive(Debug, Error)]
pub enum ClientError {
    /// A setting that cannot work.
    #[error("{name} = \"{value}\": {why}")]
    Setting {
        /// The key in `[api]`.
        name: &'static str,
        /// What it holds.
        value: String,
        /// What is wrong.
        why: String,
    },
    /// The environment names a proxy that cannot be used.
    #[error("{name} names a proxy that cannot be used: {why}")]
    Proxy {
        /// The variable.
        name: &'static str,
        /// What is wrong.
        why: String,
    },
    /// TLS could not be set up.
    #[error("TLS cannot be set up (are the certificate authorities installed? package ca-certificates): {why}")]
    Tls {
        /// What was said.
        why: String,
    },
}

/// The proxy for https requests.
#[derive(Clone, Default)]
pub(super) struct ProxySetting {
    pub(super) https: Option<(&'static str, String)>,
    pub(super) except: Option<String>,
}

impl ProxySetting {
    /// What the environment says. Plain http goes to loopback only, and that never through a proxy.
    pub(super) fn from_environment() -> Self {
        let read = |name: &'static str| std::env::var(name).ok().filter(|v| !v.trim().is_empty()).map(|v| (name, v));
        let first = |names: &[&'static str]| names.iter().find_map(|name| read(name));
        let except = first(&["no_proxy", "NO_PROXY"]).map(|(_, list)| list);
        Self { https: first(&["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]), except }
    }

    fn url(&self) -> Result<Option<Url>, ClientError> {
        let Some((name, text)) = &self.https else { return Ok(None) };
        let text = text.trim();
        let text = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        // The text may hold a password, so it is not shown.
        match Url::parse(&text) {
            Ok(url) if matches!(url.scheme(), "http" | "https") && url.host_str().is_some() => Ok(Some(url)),
            Ok(_) => Err(ClientError::Proxy { name, why: "only http and https proxies are known".into() }),
            Err(e) => Err(ClientError::Proxy { name, why: e.to_string() }),
        }
    }
}

/// The connections.
#[derive(Clone, Debug)]
pub(super) struct Connections {
    /// https: paid requests, each on a connection of its own.
    web_paid: reqwest::Client,
    /// https: what is free and keyed.
    web: reqwest::Client,
    /// https: downloads, guarded.
    web_guarded: reqwest::Client,
    /// http on this machine.
    local_paid: reqwest::Client,
    /// http on this machine.
    local: reqwest::Client,
}

/// What a request is, for the choice of its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    Paid,
    Free,
    Download,
}

impl Connections {
    /// `loopback`: addresses of this machine are allowed; `needs_web`: https is needed for the API itself, so
    /// that what stands in its way is an error now.
    pub(super) fn new(
        connect: Duration,
        proxy: &ProxySetting,
        loopback: bool,
        needs_web: bool,
    ) -> Result<Self, ClientError> {
        // Already installed by somebody else is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let base = || {
            reqwest::Client::builder()
                .user_agent(concat!("reimagined/", env!("CARGO_PKG_VERSION")))
                // Who says nothing of it may be answered in any (RFC 9110, 12.5.3).
                .default_headers(HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static("identity"))]))
                .retry(reqwest::retry::never())
                .redirect(Policy::none())
                .referer(false)
                .connect_timeout(connect)
                .pool_idle_timeout(KEEP)
                .tcp_nodelay(true)
                .http1_only()
                .no_proxy()
        };
        // http needs no authorities, and a machine without any can still run the demo.
        let without_trust =
            || base().tls_certs_only([]).dns_resolver(Guard { loopback: true, public: false, exempt: vec![] });
        let build = |builder: reqwest::ClientBuilder| builder.build().map_err(|e| ClientError::Tls { why: chain(&e) });
        let local = build(without_trust())?;
        let local_paid = build(without_trust().pool_max_idle_per_host(0))?;

        let proxy_url = if needs_web { proxy.url()? } else { proxy.url().unwrap_or_default() };
        let exempt = proxy_url.iter().filter_map(|url| url.host_str().map(str::to_owned)).collect();
        let web = || -> Result<reqwest::ClientBuilder, ClientError> {
            let (Some(url), Some((name, _))) = (&proxy_url, &proxy.https) else { return Ok(base()) };
            let never = format!("localhost,.localhost,127.0.0.0/8,::1,{}", proxy.except.as_deref().unwrap_or_default());
            let through = Proxy::https(url.clone())
                .map_err(|e| ClientError::Proxy { name, why: chain(&e.without_url()) })?
                .no_proxy(NoProxy::from_string(&never));
            Ok(base().proxy(through))
        };
        let web_guard = Guard { loopback, public: true, exempt };
        let build_web = |with: &dyn Fn(reqwest::ClientBuilder) -> reqwest::ClientBuilder| match build(with(web()?)) {
            // Then each https request fails by itself, since nobody can be trusted.
            Err(_) if !needs_web => build(with(web()?).tls_certs_only([])),
            other => other,
        };
        Ok(Self {
            web_paid: build_web(&|builder| builder.pool_max_idle_per_host(0))?,
            web_guarded: build_web(&|builder| builder.dns_resolver(web_guard.clone()))?,
            web: build_web(&|builder| builder)?,
            local_paid,
            local,
        })
    }

    pub(super) fn pick(&self, url: &Url, purpose: Use) -> &reqwest::Client {
        match (url.scheme(), purpose) {
            ("http", Use::Paid) => &self.local_paid,
            ("http", _) => &self.local,
            (_, Use::Paid) => &self.web_paid,
            (_, Use::Free) => &self.web,
            (_, Use::Download) => &self.web_guarded,
        }
    }
}

/// Whether a request surely did not leave. Only a failure to connect says so; a proxy that refuses the way
/// counts as one.
pub(super) fn lost(error: reqwest::Error) -> Lost {
    let error = error.without_url();
    let message = chain(&error);
    if !error.is_connect() {
        return if error.is_timeout() { too_late() } else { after_sending(&message) };
    }
    let kind = if error.is_dns() {
        NotSentKind::Dns
    } else if error.is_timeout() {
        NotSentKind::Timeout
    } else {
        connect_kind(&error)
    };
    Lost::NotSent(NotSent { kind, message: format!("no connection: {message}") })
}

/// No answer came in time.
pub(super) fn too_late() -> Lost {
    after_sending("no answer within the time for it")
}

fn after_sending(message: &str) -> Lost {
    Lost::MaybeSent(MaybeSent { message: format!("the request was sent, then the connection was lost: {message}") })
}

/// Whether our own rules refused an address.
pub(super) fn refusal(error: &reqwest::Error) -> Option<String> {
    causes(error).find_map(|cause| cause.downcast_ref::<Refused>().map(ToString::to_string))
}

fn connect_kind(error: &reqwest::Error) -> NotSentKind {
    for cause in causes(error) {
        if cause.is::<rustls::Error>() {
            return NotSentKind::Tls;
        }
        let Some(io) = cause.downcast_ref::<io::Error>() else { continue };
        if io.get_ref().is_some_and(<dyn StdError + Send + Sync>::is::<rustls::Error>) {
            return NotSentKind::Tls;
        }
        match io.kind() {
            io::ErrorKind::ConnectionRefused => return NotSentKind::Refused,
            io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable | io::ErrorKind::NetworkDown => {
                return NotSentKind::Unreachable;
            }
            io::ErrorKind::TimedOut => return NotSentKind::Timeout,
            _ => {}
        }
    }
    NotSentKind::Other
}

fn causes(error: &reqwest::Error) -> impl Iterator<Item = &(dyn StdError + 'static)> {
    let mut next = error.source();
    std::iter::from_fn(move || {
        let cause = next?;
        next = cause.source();
        Some(cause)
    })
}

/// An error with its causes, on one line.
pub(super) fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let more = next.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = next.source();
    }
    tidy(&text, MAX_WORDS / 4)
}

/// A body while it comes.
pub(super) struct Incoming {
    response: reqwest::Response,
    deadline: Deadline,
    /// Bytes that came already.
    pub(super) got: u64,
}

impl Incoming {
    pub(super) fn new(response: reqwest::Response, deadline: Deadline) -> Self {
        Self { response, deadline, got: 0 }
    }

    /// The length that was announced.
    pub(super) fn length(&self) -> Option<u64> {
        self.response.content_length()
    }

    /// The next piece; `None` at the proper end. The error says how it was lost.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, String> {
        let late = |got| Err(format!("the answer was not whole within its time ({got} bytes came)"));
        match self.deadline.hold_for(Some(IDLE), self.response.chunk()).await {
            Some(Ok(piece)) => {
                self.got += piece.as_ref().map_or(0, |piece| piece.len() as u64);
                Ok(piece)
            }
            // Some requests have a time of their own.
            Some(Err(error)) if error.is_timeout() => late(self.got),
            Some(Err(error)) => {
                Err(format!("the answer was cut off after {} bytes: {}", self.got, chain(&error.without_url())))
            }
            None if self.deadline.is_over() => late(self.got),
            None => Err(format!("the answer stopped coming after {} bytes", self.got)),
        }
    }

    /// The first `enough` bytes at least (fewer only at the end), for a look at what this is.
    pub(super) async fn head(&mut self, enough: usize) -> Result<Vec<u8>, String> {
        let mut head = Vec::new();
        while head.len() < enough {
            match self.next().await? {
                Some(piece) => head.extend_from_slice(&piece),
                None => break,
            }
        }
        Ok(head)
    }

    /// All of it behind `head`, while it is at most `max` bytes: the bytes, and how it ended otherwise.
    pub(super) async fn rest(&mut self, mut head: Vec<u8>, max: usize) -> (Vec<u8>, Option<Ended>) {
        loop {
            if head.len() > max {
                head.truncate(max);
                return (head, Some(Ended::TooLong));
            }
            match self.next().await {
                Ok(Some(piece)) => head.extend_from_slice(&piece),
                Ok(None) => return (head, None),
                Err(how) => return (head, Some(Ended::Lost(how))),
            }
        }
    }
}

/// How a body ended that did not end properly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    TooLong,
    Lost(String),
}
