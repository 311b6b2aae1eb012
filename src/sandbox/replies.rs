//! Answers: good ones in every shape the service is known to use, and broken ones.
//!
//! Promises that a broken answer is broken on the wire too: a cut body really ends before its
//! `Content-Length`, a closed connection has sent no byte.

use std::convert::Infallible;
use std::io;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::stream;
use image::RgbImage;
use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::fault::{Fault, How};
use super::options::Format;
use super::paint::PaintError;
use super::wire::Cord;

/// What would be answered if nothing went wrong.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: Vec<(&'static str, HeaderValue)>,
    pub(super) mime: &'static str,
    pub(super) body: Bytes,
}

impl Answer {
    /// JSON.
    pub(super) fn json(status: StatusCode, value: &Value) -> Self {
        Self { status, headers: Vec::new(), mime: "application/json", body: Bytes::from(value.to_string()) }
    }

    /// The service's way to say no.
    pub(super) fn error(status: StatusCode, text: &str) -> Self {
        Self::json(status, &json!({ "error": text }))
    }

    /// A picture.
    pub(super) fn picture(mime: &'static str, body: Bytes) -> Self {
        Self { status: StatusCode::OK, headers: Vec::new(), mime, body }
    }

    /// With one more header; a value that cannot be one is left out.
    pub(super) fn with(mut self, name: &'static str, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.push((name, value));
        }
        self
    }

    /// As it is.
    pub(super) fn send(self) -> Response {
        self.wrap(Body::from)
    }

    fn wrap(self, body: impl FnOnce(Bytes) -> Body) -> Response {
        let mut response = body(self.body).into_response();
        *response.status_mut() = self.status;
        for (name, value) in self.headers {
            response.headers_mut().insert(name, value);
        }
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(self.mime));
        response
    }

    /// As the fault will have it. Its delay is over by now.
    pub(super) fn send_with(mut self, fault: &Fault, cord: &Cord, stopping: &CancellationToken) -> Response {
        if let Some(status) = fault.status.and_then(|status| StatusCode::from_u16(status).ok()) {
            self.status = status;
            if status.is_redirection() {
                self = self.with("location", "/moved");
            }
        }
        if let Some(after) = &fault.retry_after {
            self = self.with("retry-after", after);
        }
        match fault.how {
            How::Answer | How::As(_) | How::Error => self.send(),
            How::Close => {
                cord.0.cancel();
                // Nobody reads this: the cord is cut before it could be written.
                self.send()
            }
            How::Empty => {
                self.body = Bytes::new();
                self.send()
            }
            How::Html => {
                self.mime = "text/html; charset=utf-8";
                self.body = Bytes::from(html(self.status, fault.message.as_deref()));
                self.send()
            }
            How::Half => {
                self.body.truncate(self.body.len() / 2);
                self.send()
            }
            How::Cut => {
                let whole = self.body.len().to_string();
                self.with("content-length", &whole).wrap(|body| cut(&body))
            }
            How::Endless => {
                let stopping = stopping.clone();
                self.wrap(|start| endless(start, stopping))
            }
        }
    }
}

/// The first half of a body, and then the end of the connection.
fn cut(body: &Bytes) -> Body {
    let half = body.slice(..body.len() / 2);
    Body::from_stream(stream::unfold(Some(half), |half| async move {
        match half {
            Some(half) if !half.is_empty() => Some((Ok(half), Some(Bytes::new()))),
            Some(_) => {
                // One turn for the server to write out what it has, or it would take the headers along.
                tokio::task::yield_now().await;
                Some((Err(io::Error::new(io::ErrorKind::ConnectionAborted, "cut, as asked for")), None))
            }
            None => None,
        }
    }))
}

/// A body that goes on until the client or the sandbox ends: about 12 MB a second.
fn endless(start: Bytes, stopping: CancellationToken) -> Body {
    let rest = Bytes::from(vec![0x5a; 64 * 1024]);
    Body::from_stream(stream::unfold(start, move |next| {
        let (rest, stopping) = (rest.clone(), stopping.clone());
        async move {
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(5)) => Some((Ok::<_, Infallible>(next), rest)),
                () = stopping.cancelled() => None,
            }
        }
    }))
}

/// A page as gateways show it.
pub(super) fn html(status: StatusCode, text: Option<&str>) -> String {
    let title = text.map_or_else(|| status.to_string(), str::to_owned);
    let title = title.replace('&', "&amp;").replace('<', "&lt;");
    format!("<!doctype html>\n<html><head><title>{title}</title></head><body><h1>{title}</h1></body></html>\n")
}

/// What the service says with each status.
pub(super) fn text_for(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        401 => "Unauthorized: API key is missing or wrong",
        402 | 406 => "insufficient credits",
        403 => "Forbidden",
        404 => "Not Found",
        408 => "Request Timeout",
        413 => "the body is too large",
        415 => "the body must be application/json",
        429 => "Rate Limited: too many requests",
        460 => "the prompt was refused by content moderation",
        500 => "Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "this failed because the sandbox was asked to fail it",
    }
}

/// A picture as a file: MIME type, extension, bytes.
pub(super) fn encode(picture: &RgbImage, format: Format) -> Result<(&'static str, &'static str, Bytes), PaintError> {
    let mut bytes = Vec::new();
    match format {
        Format::Png => {
            picture.write_with_encoder(PngEncoder::new_with_quality(
                &mut bytes,
                CompressionType::Fast,
                FilterType::Adaptive,
            ))?;
            Ok(("image/png", "png", Bytes::from(bytes)))
        }
        Format::Jpeg => {
            picture.write_with_encoder(JpegEncoder::new_with_quality(&mut bytes, 90))?;
            Ok(("image/jpeg", "jpg", Bytes::from(bytes)))
        }
    }
}
