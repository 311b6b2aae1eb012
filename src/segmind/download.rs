//! Fetches a result from the URL that the service gave: without the key, by the rules of [`super::guard`],
//! each redirect judged anew.

use std::path::Path;

use reqwest::header::{CONTENT_TYPE, LOCATION};

use super::deadline::Deadline;
use super::guard::permitted;
use super::http::{Incoming, Use, chain, lost, refusal};
use super::reply::{Content, Held, Received, keep};
use super::sniff::{SNIFF, sniff};
use super::{Client, header, redact};
use crate::domain::verdict::{Lost, tidy};

const MAX_REDIRECTS: usize = 5;

/// How a download ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DownloadOutcome {
    /// The picture is in its file, not synced.
    Done(Received),
    /// It came, and its file could not be written.
    Held(Held),
    /// The rules refuse this URL, or it is none: final.
    Refused {
        /// Why, for people.
        why: String,
    },
    /// It is not there (403, 404 or 410); whether to try again is the caller's matter.
    Gone {
        /// The HTTP status.
        status: u16,
    },
    /// Not this time.
    Failed {
        /// Why, for people.
        message: String,
    },
}

impl Client {
    /// Fetches the picture at `url` into `into` (created with mode 0600, not synced), `max_bytes` at most.
    /// Where none is kept, nothing is left there.
    pub async fn download(&self, url: &str, into: &Path, max_bytes: u64) -> DownloadOutcome {
        let whole = tokio::time::timeout(self.timeout, self.follow(url, into, max_bytes));
        if let Ok(outcome) = whole.await {
            return outcome;
        }
        let _ = tokio::fs::remove_file(into).await;
        DownloadOutcome::Failed { message: "the download was not whole within its time".into() }
    }

    async fn follow(&self, url: &str, into: &Path, max_bytes: u64) -> DownloadOutcome {
        let failed = |message: String| DownloadOutcome::Failed { message: redact(&message, None, &[]) };
        let mut url = match permitted(url, self.loopback) {
            Ok(url) => url,
            Err(refused) => return DownloadOutcome::Refused { why: refused.to_string() },
        };
        for _ in 0..=MAX_REDIRECTS {
            let sent = self.connections.pick(&url, Use::Download).get(url.clone()).timeout(self.timeout).send().await;
            let response = match sent {
                Ok(response) => response,
                Err(error) => {
                    return match (refusal(&error), lost(error)) {
                        (Some(why), _) => DownloadOutcome::Refused { why },
                        (None, Lost::NotSent(lost)) => failed(lost.message),
                        (None, Lost::MaybeSent(lost)) => failed(lost.message),
                    };
                }
            };
            let status = response.status().as_u16();
            match status {
                200 => return self.picture(response, into, max_bytes).await,
                301 | 302 | 303 | 307 | 308 => {
                    let Some(to) = header(&response, LOCATION.as_str()) else {
                        return failed(format!("HTTP {status} without a place to go on"));
                    };
                    let next = match url.join(to.trim()) {
                        Ok(next) => next,
                        Err(e) => {
                            return DownloadOutcome::Refused {
                                why: format!("it leads to what is no URL ({})", chain(&e)),
                            };
                        }
                    };
                    url = match permitted(next.as_str(), self.loopback) {
                        Ok(next) => next,
                        Err(refused) => {
                            return DownloadOutcome::Refused {
                                why: format!("it leads elsewhere, and there {refused}"),
                            };
                        }
                    };
                }
                403 | 404 | 410 => return DownloadOutcome::Gone { status },
                _ => return failed(format!("HTTP {status} where the picture should be")),
            }
        }
        failed(format!("more than {MAX_REDIRECTS} redirects"))
    }

    async fn picture(&self, response: reqwest::Response, into: &Path, max_bytes: u64) -> DownloadOutcome {
        let content_type = tidy(header(&response, CONTENT_TYPE.as_str()).unwrap_or("no content type"), 100);
        let mut body = Incoming::new(response, Deadline::within(self.timeout));
        let head = match body.head(SNIFF).await {
            Ok(head) => head,
            Err(message) => return DownloadOutcome::Failed { message },
        };
        let Some(kind) = sniff(&head) else {
            return DownloadOutcome::Failed { message: format!("no picture lies there ({content_type})") };
        };
        match keep(body, head, kind, into, max_bytes, false).await {
            Content::Picture(received) => DownloadOutcome::Done(received),
            Content::Unusable { what, .. } => DownloadOutcome::Failed { message: what },
            Content::Held(picture) => DownloadOutcome::Held(picture),
            // It is fetched again, for free.
            Content::Broken { what, .. } => {
                let _ = tokio::fs::remove_file(into).await;
                DownloadOutcome::Failed { message: what }
            }
            Content::Link(_) | Content::Refusal | Content::Small(..) => {
                DownloadOutcome::Failed { message: "no picture lies there".into() }
            }
        }
    }
}
