//! The client against raw sockets, which can cut, lie and dawdle as no polite server does.
#![allow(clippy::unwrap_used)]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::*;

mod calls;
mod downloads;
mod free;

/// What a server got.
#[derive(Clone, Debug)]
struct Got {
    /// The request line and headers, in lower case but for the first line.
    head: String,
    body: Vec<u8>,
}

/// A server that gives one scripted answer, byte for byte, to each request, then closes.
struct Server {
    at: SocketAddr,
    got: Arc<Mutex<Vec<Got>>>,
}

/// What a server does once it has read a request.
#[derive(Clone)]
enum Then {
    /// Writes this and closes.
    Say(Vec<u8>),
    /// Writes this and keeps silent until the client goes away.
    Hang(Vec<u8>),
    /// Writes this, then this again and again until the client goes away.
    Endless(Vec<u8>, Vec<u8>),
}

impl Server {
    fn new(script: Vec<Then>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let got = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&got);
        std::thread::spawn(move || {
            for then in script {
                let Ok((stream, _)) = listener.accept() else { return };
                let Some(request) = read_request(&stream) else { continue };
                seen.lock().unwrap().push(request);
                act(stream, then);
            }
        });
        Self { at, got }
    }

    fn saying(answer: impl Into<Vec<u8>>) -> Self {
        Self::new(vec![Then::Say(answer.into())])
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.at)
    }

    fn requests(&self) -> Vec<Got> {
        self.got.lock().unwrap().clone()
    }

    fn client(&self) -> Client {
        self.client_within(Duration::from_secs(20))
    }

    fn client_within(&self, timeout: Duration) -> Client {
        Client::new(settings(&self.url(""), &self.url("/upload-asset"), timeout)).unwrap()
    }
}

fn settings(base: &str, upload: &str, timeout: Duration) -> Settings {
    Settings {
        base_url: base.parse().unwrap(),
        model: "/v1/bria-reimagine".into(),
        upload_url: upload.parse().unwrap(),
        timeout,
        connect_timeout: Duration::from_secs(5),
    }
}

fn act(mut stream: TcpStream, then: Then) {
    // A client that has gone is no failure here.
    match then {
        Then::Say(bytes) => {
            let _ = stream.write_all(&bytes);
        }
        Then::Hang(bytes) => {
            let _ = stream.write_all(&bytes);
            let _ = stream.read(&mut [0; 1]);
        }
        Then::Endless(first, again) => {
            let _ = stream.write_all(&first);
            while stream.write_all(&again).is_ok() {}
        }
    }
}

fn read_request(mut stream: &TcpStream) -> Option<Got> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let (first, rest) = head.split_once("\r\n").unwrap();
    let head = format!("{first}\r\n{}", rest.to_lowercase());
    assert!(!head.contains("transfer-encoding"), "the length is always said: {head}");
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    Some(Got { head, body })
}

/// An answer with the right length.
fn answer(status: u16, headers: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("HTTP/1.1 {status} X\r\n{headers}content-length: {}\r\n\r\n", body.len()).into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

fn key() -> ApiKey {
    ApiKey::new("SG_0123456789abcdef", "test").unwrap()
}

/// Bytes that begin as a JPEG does.
fn jpeg(length: usize) -> Vec<u8> {
    let mut bytes = vec![0xff, 0xd8, 0xff, 0xe0];
    bytes.resize(length, 7);
    bytes
}

struct Call {
    outcome: CallOutcome,
    kept: Option<Vec<u8>>,
}

fn request() -> serde_json::Map<String, serde_json::Value> {
    serde_json::json!({"prompt": "autumn \"café\"", "seed": 7}).as_object().unwrap().clone()
}

async fn call_with(client: &Client, body: Body, max_bytes: u64) -> Call {
    let dir = tempfile::tempdir().unwrap();
    let into = dir.path().join("shot.part");
    let outcome = client.reimagine(&key(), body, &into, max_bytes).await;
    let shown = format!("{outcome:?}");
    assert!(!shown.contains("SG_0123456789abcdef"), "the key is in {shown}");
    let kept = std::fs::read(&into).ok();
    let left = outcome.picture.or(outcome.remains).map(|picture| picture.bytes);
    assert_eq!(left, kept.as_ref().map(|kept| kept.len() as u64), "nothing else is left: {shown}");
    assert_eq!(outcome.picture.is_some(), outcome.verdict == Verdict::Picture, "{shown}");
    Call { outcome, kept }
}

async fn call(server: &Server) -> Call {
    call_with(&server.client(), Body::json(&request()), 1 << 20).await
}

fn file_of(bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("prepared.jpg");
    std::fs::write(&path, bytes).unwrap();
    (dir, path)
}
