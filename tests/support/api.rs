//! A stand-in for the API over plain sockets: it records every request, and answers by a script that can
//! also cut, delay, lie about lengths, or say nothing at all.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use base64::Engine as _;
use serde_json::{Value, json};

use super::{ASSET_MARK, KEY, pictures};

/// Something that a test opens when it is time.
#[derive(Clone, Default)]
pub struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    /// Lets everything through from now on.
    pub fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }

    fn wait(&self) {
        let limit = super::PATIENCE * 2;
        let _ = self.0.1.wait_timeout_while(self.0.0.lock().unwrap(), limit, |open| !*open).unwrap();
    }
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Request {
    /// `POST` …
    pub method: String,
    /// Path and query.
    pub path: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// When it was wholly there.
    pub at: Instant,
}

impl Request {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// The body as JSON; null if it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// The prompt of a model call.
    pub fn prompt(&self) -> String {
        self.json()["prompt"].as_str().unwrap_or_default().to_owned()
    }

    /// The seed of a model call.
    pub fn seed(&self) -> Option<i64> {
        self.json()["seed"].as_i64()
    }

    /// The reference of a model call.
    pub fn reference(&self) -> Option<String> {
        self.json()["structure_image_url"].as_str().map(str::to_owned)
    }
}

/// A model call to be answered.
pub struct Call {
    /// The request.
    pub request: Request,
    /// Its prompt.
    pub prompt: String,
    /// Its seed.
    pub seed: Option<i64>,
    /// Which model call this is, from 1.
    pub n: usize,
    /// Which one with this prompt, from 1.
    pub nth: usize,
}

impl Call {
    /// What the default script answers.
    pub fn good(&self) -> Answer {
        Answer::picture(&result(self.n as u32)).header("x-request-id", &format!("r-{}", self.n))
    }
}

/// The result of the `n`-th model call, unless a script says something else.
pub fn result(n: u32) -> Vec<u8> {
    pictures::png(10_000 + n)
}

#[derive(Clone)]
enum How {
    Whole,
    /// Headers and so many bytes of the body, then the connection is closed.
    Cut(usize),
    /// Headers and so many bytes of the body, then silence until the gate opens, then the rest.
    Stall(usize, Gate),
    /// Closed without a byte.
    Hangup,
    /// These bytes instead of an answer, and what becomes of the connection then.
    Raw(Vec<u8>, End),
    /// These bytes one by one, so long apart.
    Drip(Vec<u8>, Duration),
    /// No length, and bytes until the other side has enough.
    Endless,
}

/// What becomes of a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// Closed properly.
    Closed,
    /// Reset.
    Reset,
    /// Open until the other side has enough.
    Held,
}

/// An answer.
#[derive(Clone)]
pub struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    how: How,
    before: Option<Gate>,
    delay: Duration,
}

impl Answer {
    /// An answer with a body of that type.
    pub fn new(status: u16, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        let headers = vec![("content-type".to_owned(), content_type.to_owned())];
        Self { status, headers, body: body.into(), how: How::Whole, before: None, delay: Duration::ZERO }
    }

    /// A good picture with a price.
    pub fn picture(bytes: &[u8]) -> Self {
        Self::new(200, "image/png", bytes).header("x-cost", "0.04").header("x-remaining-credits", "7.5")
    }

    /// A JSON answer.
    pub fn json(status: u16, body: &Value) -> Self {
        Self::new(status, "application/json", body.to_string())
    }

    /// The service's usual error.
    pub fn error(status: u16, text: &str) -> Self {
        Self::json(status, &json!({ "error": text }))
    }

    /// Those bytes, then the end.
    pub fn raw(bytes: impl Into<Vec<u8>>) -> Self {
        Self { how: How::Raw(bytes.into(), End::Closed), ..Self::new(200, "", "") }
    }

    /// Those bytes, then a reset of the connection.
    pub fn raw_then_reset(bytes: impl Into<Vec<u8>>) -> Self {
        Self { how: How::Raw(bytes.into(), End::Reset), ..Self::new(200, "", "") }
    }

    /// Those bytes, then nothing more for as long as the other side waits.
    pub fn raw_then_held(bytes: impl Into<Vec<u8>>) -> Self {
        Self { how: How::Raw(bytes.into(), End::Held), ..Self::new(200, "", "") }
    }

    /// Those bytes one by one, so long apart.
    pub fn drip(bytes: impl Into<Vec<u8>>, apart: Duration) -> Self {
        Self { how: How::Drip(bytes.into(), apart), ..Self::new(200, "", "") }
    }

    /// The connection is closed without an answer.
    pub fn hangup() -> Self {
        Self { how: How::Hangup, ..Self::new(200, "", "") }
    }

    /// A body that never ends.
    pub fn endless(self) -> Self {
        Self { how: How::Endless, ..self }
    }

    /// The connection is closed after so many bytes of the body.
    pub fn cut(self, after: usize) -> Self {
        Self { how: How::Cut(after), ..self }
    }

    /// Silence after so many bytes of the body, until the gate opens.
    pub fn stall(self, after: usize, gate: &Gate) -> Self {
        Self { how: How::Stall(after, gate.clone()), ..self }
    }

    /// Nothing at all until the gate opens.
    pub fn after(self, gate: &Gate) -> Self {
        Self { before: Some(gate.clone()), ..self }
    }

    /// Nothing at all for that long.
    pub fn later(self, delay: Duration) -> Self {
        Self { delay, ..self }
    }

    /// One more header.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.retain(|(n, _)| n != name);
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    fn head(&self) -> Vec<u8> {
        let mut head = format!("HTTP/1.1 {} Whatever\r\n", self.status);
        for (name, value) in self.headers.iter().filter(|(n, v)| n != "content-type" || !v.is_empty()) {
            let _ = write!(head, "{name}: {value}\r\n");
        }
        if !matches!(self.how, How::Endless) && !self.headers.iter().any(|(n, _)| n == "content-length") {
            let _ = write!(head, "content-length: {}\r\n", self.body.len());
        }
        (head + "\r\n").into_bytes()
    }

    /// Whether the connection can be used again.
    fn write(&self, to: &mut TcpStream) -> std::io::Result<bool> {
        if let Some(gate) = &self.before {
            gate.wait();
        }
        if !self.delay.is_zero() {
            std::thread::sleep(self.delay);
        }
        match &self.how {
            How::Whole => {
                to.write_all(&[self.head(), self.body.clone()].concat())?;
                return Ok(!self.headers.iter().any(|(n, _)| n == "content-length"));
            }
            How::Cut(n) => to.write_all(&[&self.head(), &self.body[..*n]].concat())?,
            How::Stall(n, gate) => {
                to.write_all(&[&self.head(), &self.body[..*n]].concat())?;
                gate.wait();
                to.write_all(&self.body[*n..])?;
            }
            How::Hangup => {}
            How::Raw(bytes, end) => {
                to.write_all(bytes)?;
                if *end == End::Held {
                    to.set_read_timeout(Some(super::PATIENCE * 2))?;
                    std::io::copy(to, &mut std::io::sink())?;
                }
            }
            How::Drip(bytes, apart) => {
                for byte in bytes {
                    to.write_all(std::slice::from_ref(byte))?;
                    std::thread::sleep(*apart);
                }
            }
            How::Endless => {
                to.write_all(&self.head())?;
                loop {
                    to.write_all(&self.body)?;
                }
            }
        }
        Ok(false)
    }
}

type ModelScript = Box<dyn Fn(&Call) -> Answer + Send + Sync>;
type Script = Box<dyn Fn(&Request, usize) -> Option<Answer> + Send + Sync>;

struct Shared {
    address: SocketAddr,
    requests: Mutex<Vec<Request>>,
    uploads: Mutex<Vec<(String, Vec<u8>)>>,
    counts: Mutex<HashMap<String, usize>>,
    model: Mutex<Arc<ModelScript>>,
    other: Mutex<Arc<Script>>,
    up: Mutex<bool>,
    kept: Mutex<Vec<TcpStream>>,
}

/// The API. Good pictures for everybody, unless a script says something else.
pub struct Api {
    shared: Arc<Shared>,
}

impl Default for Api {
    fn default() -> Self {
        Self::start()
    }
}

impl Api {
    /// Listens on loopback.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let shared = Arc::new(Shared {
            address: listener.local_addr().unwrap(),
            requests: Mutex::default(),
            uploads: Mutex::default(),
            counts: Mutex::default(),
            model: Mutex::new(Arc::new(Box::new(Call::good))),
            other: Mutex::new(Arc::new(Box::new(|_, _| None))),
            up: Mutex::new(true),
            kept: Mutex::default(),
        });
        serve(&shared, listener);
        Self { shared }
    }

    /// `http://127.0.0.1:…`
    pub fn url(&self) -> String {
        format!("http://{}", self.shared.address)
    }

    /// How model calls are answered from now on.
    pub fn on_model(&self, script: impl Fn(&Call) -> Answer + Send + Sync + 'static) {
        *self.shared.model.lock().unwrap() = Arc::new(Box::new(script));
    }

    /// How everything else is answered from now on: by path, and by how often this path was asked for (from
    /// 1). `None`: as usual.
    pub fn on_other(&self, script: impl Fn(&Request, usize) -> Option<Answer> + Send + Sync + 'static) {
        *self.shared.other.lock().unwrap() = Arc::new(Box::new(script));
    }

    /// Nobody listens any more: connections are refused, and those that are open are cut.
    pub fn go_down(&self) {
        *self.shared.up.lock().unwrap() = false;
        // Wakes the listener, which closes its socket.
        let _ = TcpStream::connect(self.shared.address);
        assert!(super::wait_until(super::PATIENCE, || TcpStream::connect(self.shared.address).is_err()));
        for stream in self.shared.kept.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Listens again, on the same port.
    pub fn come_back(&self) {
        *self.shared.up.lock().unwrap() = true;
        serve(&self.shared, TcpListener::bind(self.shared.address).unwrap());
    }

    /// Everything that was asked.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.requests.lock().unwrap().clone()
    }

    /// Requests whose path begins so.
    pub fn to(&self, path: &str) -> Vec<Request> {
        self.requests().into_iter().filter(|r| r.path.starts_with(path)).collect()
    }

    /// The model calls.
    pub fn calls(&self) -> Vec<Request> {
        self.to(MODEL)
    }

    /// The model calls with that prompt.
    pub fn calls_with(&self, prompt: &str) -> usize {
        self.calls().iter().filter(|r| r.prompt() == prompt).count()
    }

    /// What was uploaded: media type and bytes.
    pub fn uploads(&self) -> Vec<(String, Vec<u8>)> {
        self.shared.uploads.lock().unwrap().clone()
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        *self.shared.up.lock().unwrap() = false;
        let _ = TcpStream::connect(self.shared.address);
    }
}

/// The model's path.
pub const MODEL: &str = "/v1/bria-reimagine";
/// The path of uploads.
pub const UPLOAD: &str = "/upload-asset";
/// The path of the credits request.
pub const CREDITS: &str = "/v1/get-user-credits";

fn serve(shared: &Arc<Shared>, listener: TcpListener) {
    let shared = shared.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            if !*shared.up.lock().unwrap() {
                return;
            }
            let Ok(stream) = stream else { continue };
            let shared = shared.clone();
            std::thread::spawn(move || {
                let _ = talk(&shared, stream);
            });
        }
    });
}

fn talk(shared: &Shared, mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    shared.kept.lock().unwrap().push(stream.try_clone()?);
    let mut reader = BufReader::new(stream.try_clone()?);
    while let Some(request) = read_request(&mut reader)? {
        let answer = shared.answer(&request);
        if !answer.write(&mut stream)? {
            if matches!(answer.how, How::Raw(_, End::Reset)) {
                return reset(shared, &stream);
            }
            break;
        }
    }
    stream.shutdown(Shutdown::Both)
}

/// Makes closing the connection a reset. No handle of it may be left open.
fn reset(shared: &Shared, stream: &TcpStream) -> std::io::Result<()> {
    rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO))?;
    let at = stream.peer_addr()?;
    shared.kept.lock().unwrap().retain(|kept| kept.peer_addr().is_ok_and(|other| other != at));
    Ok(())
}

fn read_request(from: &mut impl BufRead) -> std::io::Result<Option<Request>> {
    let mut line = String::new();
    if from.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace();
    let (method, path) = (words.next().unwrap_or_default().to_owned(), words.next().unwrap_or_default().to_owned());
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        if from.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.push((name.to_lowercase(), value.trim().to_owned()));
    }
    let header = |name: &str| headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
    let mut body = Vec::new();
    if header("transfer-encoding").is_some_and(|v| v.contains("chunked")) {
        loop {
            let mut size = String::new();
            from.read_line(&mut size)?;
            let size = usize::from_str_radix(size.trim(), 16).map_err(std::io::Error::other)?;
            let mut chunk = vec![0; size + 2];
            from.read_exact(&mut chunk)?;
            if size == 0 {
                break;
            }
            body.extend(&chunk[..size]);
        }
    } else if let Some(length) = header("content-length") {
        body.resize(length.parse().map_err(std::io::Error::other)?, 0);
        from.read_exact(&mut body)?;
    }
    Ok(Some(Request { method, path, headers, body, at: Instant::now() }))
}

impl Shared {
    fn answer(&self, request: &Request) -> Answer {
        let count = |what: String| {
            let mut counts = self.counts.lock().unwrap();
            let count = counts.entry(what).or_default();
            *count += 1;
            *count
        };
        let n = count(request.path.clone());
        let nth = count(format!("{} {}", request.path, request.prompt()));
        self.requests.lock().unwrap().push(request.clone());
        let script = self.other.lock().unwrap().clone();
        if let Some(answer) = script(request, n) {
            return answer;
        }
        if request.path == MODEL && request.method == "POST" {
            let (prompt, seed) = (request.prompt(), request.seed());
            let script = self.model.lock().unwrap().clone();
            return script(&Call { request: request.clone(), prompt, seed, n, nth });
        }
        if request.header("x-api-key") != Some(KEY) && !request.path.starts_with("/assets/") {
            return Answer::error(401, "Invalid API key");
        }
        match request.path.as_str() {
            UPLOAD => self.upload(request, n),
            CREDITS => Answer::json(200, &json!({ "credits": 7.5, "free-credits": 0.018 })),
            _ => Answer::error(404, "Not found"),
        }
    }

    fn upload(&self, request: &Request, n: usize) -> Answer {
        let json = request.json();
        let Some((kind, data)) = json["data_urls"][0].as_str().and_then(|url| url.split_once(";base64,")) else {
            return Answer::error(400, "data_urls is missing");
        };
        let bytes = base64::engine::general_purpose::STANDARD.decode(data).unwrap_or_default();
        self.uploads.lock().unwrap().push((kind.trim_start_matches("data:").to_owned(), bytes));
        let url = format!("http://{}/assets/{ASSET_MARK}/{n}.jpg", self.address);
        Answer::json(200, &json!({ "file_urls": [url], "message": "uploaded" }))
    }
}
