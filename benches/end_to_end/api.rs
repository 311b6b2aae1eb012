//! The stand-in for the API: many threads that accept, read a request, wait, and write bytes that were made
//! beforehand. The same for every contestant, and far from being the bottleneck.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// More than any contestant has connections.
const THREADS: usize = 200;

const PAID: &str = "/v1/bria-reimagine";
/// Where references are uploaded.
pub const UPLOAD: &str = "/upload-asset";

/// A running stand-in.
pub struct Api {
    /// Where it listens.
    pub port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    latency_ms: AtomicU64,
    begun: AtomicUsize,
    answered: AtomicUsize,
    /// The moments at which paid requests came in.
    moments: Mutex<Option<mpsc::Sender<Instant>>>,
    picture: Vec<u8>,
    port: u16,
}

impl Api {
    /// Listens; every model call is answered with `picture`.
    pub fn start(picture: &[u8]) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut answer = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: image/jpeg\r\nx-request-id: r-1\r\nx-cost: 0.04\r\nx-remaining-credits: 1000\r\ncontent-length: {}\r\n\r\n",
            picture.len()
        )
        .into_bytes();
        answer.extend_from_slice(picture);
        let shared = Arc::new(Shared {
            latency_ms: AtomicU64::new(0),
            begun: AtomicUsize::new(0),
            answered: AtomicUsize::new(0),
            moments: Mutex::new(None),
            picture: answer,
            port,
        });
        for _ in 0..THREADS {
            let (listener, shared) = (listener.try_clone().unwrap(), Arc::clone(&shared));
            let serve = move || {
                while let Ok((stream, _)) = listener.accept() {
                    // A connection that was dropped is no news.
                    let _ = shared.serve(stream);
                }
            };
            thread::Builder::new().stack_size(128 * 1024).spawn(serve).unwrap();
        }
        Self { port, shared }
    }

    /// Answers take this long from now on, and nothing was counted.
    pub fn begin(&self, latency: Duration) {
        self.shared.latency_ms.store(latency.as_millis() as u64, Ordering::Relaxed);
        self.shared.begun.store(0, Ordering::Relaxed);
        self.shared.answered.store(0, Ordering::Relaxed);
    }

    /// Paid requests that came.
    pub fn begun(&self) -> usize {
        self.shared.begun.load(Ordering::Relaxed)
    }

    /// Paid requests that were answered.
    pub fn answered(&self) -> usize {
        self.shared.answered.load(Ordering::Relaxed)
    }

    /// Tells when paid requests come in, from now on.
    pub fn moments(&self) -> mpsc::Receiver<Instant> {
        let (tell, told) = mpsc::channel();
        *self.shared.moments.lock().unwrap() = Some(tell);
        told
    }
}

impl Shared {
    fn serve(&self, mut stream: TcpStream) -> std::io::Result<()> {
        stream.set_nodelay(true)?;
        let mut held = Vec::with_capacity(64 * 1024);
        let mut buf = vec![0; 64 * 1024];
        loop {
            let head = loop {
                if let Some(end) = held.windows(4).position(|w| w == b"\r\n\r\n") {
                    break end + 4;
                }
                match stream.read(&mut buf)? {
                    0 => return Ok(()),
                    n => held.extend_from_slice(&buf[..n]),
                }
            };
            let (paid, length) = {
                let text = String::from_utf8_lossy(&held[..head]);
                let length = text.lines().find_map(|line| {
                    let (name, value) = line.split_once(':')?;
                    name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
                });
                (text.contains(PAID), length.unwrap_or(0))
            };
            if paid {
                self.begun.fetch_add(1, Ordering::Relaxed);
                if let Some(tell) = &*self.moments.lock().unwrap() {
                    let _ = tell.send(Instant::now());
                }
            }
            let mut left = (head + length).saturating_sub(held.len());
            while left > 0 {
                match stream.read(&mut buf)? {
                    0 => return Ok(()),
                    n => left = left.saturating_sub(n),
                }
            }
            held.clear();
            if paid {
                let latency = self.latency_ms.load(Ordering::Relaxed);
                if latency > 0 {
                    thread::sleep(Duration::from_millis(latency));
                }
                stream.write_all(&self.picture)?;
                self.answered.fetch_add(1, Ordering::Relaxed);
            } else {
                let body = format!("{{\"file_urls\":[\"http://127.0.0.1:{}/asset/1.jpg\"]}}", self.port);
                let len = body.len();
                let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length:";
                stream.write_all(format!("{head} {len}\r\n\r\n{body}").as_bytes())?;
            }
        }
    }
}
