//! From `structure_image_url` to a picture.
//!
//! Fetches from the sandbox's own assets, from `data:` URIs and from servers on loopback (which is what
//! `public_url` is tried with); never from anywhere else, and never follows a redirect. Promises bounds on
//! time, bytes and decoded pixels.

use std::io::Cursor;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use image::{ImageFormat, ImageReader, Limits, RgbImage};
use percent_encoding::percent_decode_str;
use thiserror::Error;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use url::{Host, Url};

/// The most bytes of a reference: what Bria takes.
pub(super) const MAX_REFERENCE_BYTES: usize = 12 * 1024 * 1024;
const TIMEOUT: Duration = Duration::from_secs(10);
const MAX_HEAD_BYTES: usize = 16 * 1024;
const MAX_EDGE: u32 = 12_000;
const MAX_DECODED_BYTES: u64 = 192 * 1024 * 1024;

/// Why there is no picture; the text is for the client.
#[derive(Debug, Error, PartialEq)]
pub(super) enum Unfetched {
    #[error("it is no valid data: URI with base64")]
    Data,
    #[error("the sandbox fetches from loopback only, not from {0}")]
    Elsewhere(String),
    #[error("there is no such asset")]
    Gone,
    #[error("{0} does not answer: {1}")]
    Silent(String, String),
    #[error("it answered {0}")]
    Answered(String),
    #[error("it has more than 12 MiB")]
    Large,
    #[error("it is not a JPEG, PNG or WebP picture")]
    Foreign,
    #[error("the picture cannot be decoded: {0}")]
    Broken(String),
}

/// Where a reference lies.
#[derive(Debug, PartialEq)]
pub(super) enum Source {
    /// In the URI itself.
    Inline(Bytes),
    /// Among the sandbox's own assets, by name.
    Asset(String),
    /// On a server on loopback.
    Loopback { address: SocketAddr, host: String, path: String },
}

/// Understands a URL. `own` is where the sandbox listens.
pub(super) fn locate(text: &str, own: SocketAddr) -> Result<Source, Unfetched> {
    if let Some(data) = data_uri(text) {
        return data.map(Source::Inline);
    }
    let elsewhere = |host: &str| Unfetched::Elsewhere(host.to_owned());
    let url = Url::parse(text).map_err(|_| elsewhere("there"))?;
    let host = url.host_str().unwrap_or("there").to_owned();
    let ip = match url.host() {
        Some(Host::Ipv4(ip)) => IpAddr::V4(ip),
        Some(Host::Ipv6(ip)) => IpAddr::V6(ip),
        Some(Host::Domain("localhost")) => own.ip(),
        _ => return Err(elsewhere(&host)),
    };
    if url.scheme() != "http" || !ip.is_loopback() {
        return Err(elsewhere(&host));
    }
    let port = url.port_or_known_default().unwrap_or(80);
    if port == own.port() {
        return url.path().strip_prefix("/assets/").map(|name| Source::Asset(name.to_owned())).ok_or(Unfetched::Gone);
    }
    let path = url.query().map_or_else(|| url.path().to_owned(), |query| format!("{}?{query}", url.path()));
    Ok(Source::Loopback { address: SocketAddr::new(ip, port), host: format!("{host}:{port}"), path })
}

/// The bytes of a `data:` URI; `None` if it is another kind of URI.
pub(super) fn data_uri(text: &str) -> Option<Result<Bytes, Unfetched>> {
    let scheme = text.get(..5)?;
    if !scheme.eq_ignore_ascii_case("data:") {
        return None;
    }
    let decoded = text[5..].split_once(',').and_then(|(kind, data)| {
        kind.to_ascii_lowercase().ends_with(";base64").then_some(())?;
        let data: Vec<u8> = percent_decode_str(data).collect();
        base64::engine::general_purpose::STANDARD.decode(data).ok()
    });
    Some(decoded.map(Bytes::from).ok_or(Unfetched::Data))
}

/// A plain GET. HTTP/1.0, so that the answer comes in one piece and ends with the connection.
pub(super) async fn get(address: SocketAddr, host: &str, path: &str) -> Result<Bytes, Unfetched> {
    let silent = |why: String| Unfetched::Silent(host.to_owned(), why);
    let ask = format!("GET {path} HTTP/1.0\r\nHost: {host}\r\nAccept: image/*\r\nConnection: close\r\n\r\n");
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(ask.as_bytes()).await?;
        let mut answer = Vec::new();
        let most = (MAX_REFERENCE_BYTES + MAX_HEAD_BYTES) as u64;
        stream.take(most).read_to_end(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = tokio::time::timeout(TIMEOUT, exchange)
        .await
        .map_err(|_| silent(format!("nothing within {} s", TIMEOUT.as_secs())))?
        .map_err(|e| silent(e.to_string()))?;
    body_of(&answer)
}

/// The body of a whole answer.
fn body_of(answer: &[u8]) -> Result<Bytes, Unfetched> {
    let strange = |what: &str| Unfetched::Answered(what.to_owned());
    let end = answer.windows(4).take(MAX_HEAD_BYTES).position(|four| four == b"\r\n\r\n");
    let end = end.ok_or_else(|| strange("no HTTP"))?;
    let head = String::from_utf8_lossy(&answer[..end]);
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap_or_default();
    if status.split(' ').nth(1) != Some("200") {
        return Err(strange(&status.chars().take(80).collect::<String>()));
    }
    let mut length = None;
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        if name.eq_ignore_ascii_case("transfer-encoding") {
            return Err(strange("in chunks to an HTTP/1.0 request"));
        }
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse::<usize>().ok();
        }
    }
    let body = &answer[end + 4..];
    if body.len() > MAX_REFERENCE_BYTES || length.is_some_and(|length| length > MAX_REFERENCE_BYTES) {
        return Err(Unfetched::Large);
    }
    match length {
        Some(length) if length > body.len() => Err(strange("with less than it promised")),
        Some(length) => Ok(Bytes::copy_from_slice(&body[..length])),
        None => Ok(Bytes::copy_from_slice(body)),
    }
}

/// The MIME type and extension of a picture that the service takes; `None` for anything else.
pub(super) fn kind(bytes: &[u8]) -> Option<(&'static str, &'static str)> {
    match image::guess_format(bytes).ok()? {
        ImageFormat::Jpeg => Some(("image/jpeg", "jpg")),
        ImageFormat::Png => Some(("image/png", "png")),
        ImageFormat::WebP => Some(("image/webp", "webp")),
        _ => None,
    }
}

/// Whether these bytes begin a picture that the service takes: kind and size can be read.
pub(super) fn is_picture(bytes: &[u8]) -> bool {
    kind(bytes).is_some()
        && ImageReader::new(Cursor::new(bytes))
            .with_guessed_format()
            .is_ok_and(|reader| reader.into_dimensions().is_ok_and(|(width, height)| width > 0 && height > 0))
}

/// Decodes a reference. EXIF orientation is not applied, as the service does not apply it.
pub(super) fn decode(bytes: &[u8]) -> Result<RgbImage, Unfetched> {
    if bytes.len() > MAX_REFERENCE_BYTES {
        return Err(Unfetched::Large);
    }
    if kind(bytes).is_none() {
        return Err(Unfetched::Foreign);
    }
    let broken = |e: image::ImageError| Unfetched::Broken(e.to_string());
    let mut reader =
        ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|e| Unfetched::Broken(e.to_string()))?;
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_EDGE);
    limits.max_image_height = Some(MAX_EDGE);
    limits.max_alloc = Some(MAX_DECODED_BYTES);
    reader.limits(limits);
    let picture = reader.decode().map_err(broken)?;
    if !picture.color().has_alpha() {
        return Ok(picture.into_rgb8());
    }
    let mut flat = RgbImage::new(picture.width(), picture.height());
    for (to, from) in flat.pixels_mut().zip(picture.into_rgba8().pixels()) {
        // On white: what is transparent in a cut-out is paper.
        let [red, green, blue, alpha] = from.0.map(u16::from);
        to.0 = [red, green, blue].map(|channel| ((channel * alpha + 255 * (255 - alpha)) / 255) as u8);
    }
    Ok(flat)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const OWN: &str = "127.0.0.1:8000";

    fn located(text: &str) -> Result<Source, Unfetched> {
        locate(text, OWN.parse().unwrap())
    }

    #[test]
    fn only_what_is_near_is_located() {
        assert_eq!(located("http://127.0.0.1:8000/assets/a.png"), Ok(Source::Asset("a.png".into())));
        assert_eq!(located("http://localhost:8000/assets/a.png"), Ok(Source::Asset("a.png".into())));
        assert_eq!(located("http://127.0.0.1:8000/elsewhere"), Err(Unfetched::Gone));
        assert_eq!(located("data:image/png;base64,YQ=="), Ok(Source::Inline(Bytes::from_static(b"a"))));
        assert_eq!(located("DATA:image/png;BASE64,YQ%3D%3D"), Ok(Source::Inline(Bytes::from_static(b"a"))));
        let other = Source::Loopback {
            address: "127.0.0.1:9000".parse().unwrap(),
            host: "127.0.0.1:9000".into(),
            path: "/a%20b.png?c=d".into(),
        };
        assert_eq!(located("http://127.0.0.1:9000/a%20b.png?c=d"), Ok(other));
        for far in
            ["https://127.0.0.1:8000/assets/a", "http://10.0.0.1/a", "https://example.com/a.png", "file:///etc/passwd"]
        {
            assert!(matches!(located(far), Err(Unfetched::Elsewhere(_))), "{far}");
        }
        for bad in ["data:image/png,abc", "data:image/png;base64,%%%", "data:", "data:image/png;base64"] {
            assert_eq!(located(bad), Err(Unfetched::Data), "{bad}");
        }
    }

    #[test]
    fn an_answer_must_be_whole_and_good() {
        assert_eq!(body_of(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nabc"), Ok(Bytes::from_static(b"ab")));
        assert_eq!(body_of(b"HTTP/1.1 200 OK\r\n\r\nabc"), Ok(Bytes::from_static(b"abc")));
        for bad in [
            "",
            "nonsense",
            "HTTP/1.0 404 Not Found\r\n\r\nabc",
            "HTTP/1.0 302 Found\r\nLocation: /b\r\n\r\n",
            "HTTP/1.0 200 OK\r\nContent-Length: 9\r\n\r\nabc",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ] {
            assert!(matches!(body_of(bad.as_bytes()), Err(Unfetched::Answered(_))), "{bad:?}");
        }
        assert_eq!(body_of(b"HTTP/1.0 200 OK\r\nContent-Length: 99999999\r\n\r\nabc"), Err(Unfetched::Large));
    }

    #[test]
    fn what_is_no_picture_is_told_from_what_is() {
        assert_eq!(decode(b"GIF89a"), Err(Unfetched::Foreign));
        assert_eq!(decode(b""), Err(Unfetched::Foreign));
        assert!(matches!(decode(b"\x89PNG\r\n\x1a\n"), Err(Unfetched::Broken(_))));
        assert!(!is_picture(b"\x89PNG\r\n\x1a\n"));
        let mut png = Vec::new();
        image::RgbaImage::new(2, 3).write_to(&mut Cursor::new(&mut png), ImageFormat::Png).unwrap();
        assert!(is_picture(&png));
        assert_eq!(decode(&png).unwrap().pixels().next().unwrap().0, [255; 3]);
    }
}
