//! The sandbox over real sockets, with a client that sees what is on the wire.
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::io::Cursor;

use base64::Engine as _;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::*;

/// An answer as it came: `body` is what arrived, whatever the headers promised.
struct Raw {
    status: u16,
    headers: HashMap<String, String>,
    body: Vec<u8>,
}

impl Raw {
    /// Reads what a connection gave; `None` if that was nothing.
    fn read(bytes: &[u8]) -> Option<Self> {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let mut lines = head.split("\r\n");
        let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
        let headers = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
            .collect();
        Some(Self { status, headers, body: bytes[end + 4..].to_vec() })
    }

    fn promised(&self) -> usize {
        self.headers["content-length"].parse().unwrap()
    }

    fn json(&self) -> Value {
        assert_eq!(self.headers["content-type"], "application/json");
        serde_json::from_slice(&self.body).unwrap()
    }

    fn error(&self) -> String {
        self.json()["error"].as_str().unwrap().to_owned()
    }

    fn picture(&self) -> image::DynamicImage {
        assert_eq!((self.status, self.body.len()), (200, self.promised()));
        image::load_from_memory(&self.body).unwrap()
    }
}

async fn start(options: Options) -> Sandbox {
    Sandbox::start(TcpListener::bind("127.0.0.1:0").await.unwrap(), options).unwrap()
}

/// Sends one request and reads until the connection ends; an error at the end (a cut) is no error here.
async fn raw(at: SocketAddr, head: &str, body: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(at).await.unwrap();
    stream.write_all(format!("{head}\r\nConnection: close\r\n\r\n").as_bytes()).await.unwrap();
    let _ = stream.write_all(body).await;
    let mut seen = Vec::new();
    let _ = stream.read_to_end(&mut seen).await;
    seen
}

async fn send(sandbox: &Sandbox, line: &str, headers: &str, body: &[u8]) -> Option<Raw> {
    let head = format!("{line} HTTP/1.1\r\nHost: {}\r\nContent-Length: {}{headers}", sandbox.addr(), body.len());
    Raw::read(&raw(sandbox.addr(), &head, body).await)
}

const KEYED: &str = "\r\nx-api-key: k\r\nContent-Type: application/json";
const MODEL: &str = "POST /v1/bria-reimagine";
const UPLOAD: &str = "POST /upload-asset";
const CREDITS: &str = "GET /v1/get-user-credits";

async fn post(sandbox: &Sandbox, line: &str, body: &Value) -> Raw {
    send(sandbox, line, KEYED, body.to_string().as_bytes()).await.unwrap()
}

async fn ask(sandbox: &Sandbox, prompt: &str) -> Option<Raw> {
    let body = json!({ "prompt": prompt, "seed": 42, "fast": true });
    send(sandbox, MODEL, KEYED, body.to_string().as_bytes()).await
}

fn png(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    let picture = image::RgbImage::from_fn(width, height, |x, y| image::Rgb([x as u8, y as u8, 90]));
    picture.write_to(&mut Cursor::new(&mut bytes), image::ImageFormat::Png).unwrap();
    bytes
}

fn data_uri(bytes: &[u8]) -> String {
    format!("data:image/png;base64,{}", base64::engine::general_purpose::STANDARD.encode(bytes))
}

#[tokio::test]
async fn no_endpoint_answers_without_the_right_key() {
    let sandbox = start(Options { key: Some("right".into()), ..Options::default() }).await;
    for line in [MODEL, UPLOAD, CREDITS] {
        for headers in ["", "\r\nx-api-key: ", "\r\nx-api-key: wrong"] {
            let headers = format!("{headers}\r\nContent-Type: application/json");
            let answer = send(&sandbox, line, &headers, b"{}").await.unwrap();
            assert_eq!(answer.status, 401, "{line} {headers}");
            assert!(answer.error().contains("API key"));
        }
    }
    let answer = send(&sandbox, CREDITS, "\r\nx-api-key: right", b"").await.unwrap();
    assert_eq!((answer.status, answer.json()), (200, json!({ "credits": 100.0, "free-credits": 0.0 })));
    assert_eq!(sandbox.stats().billed, 0);
}

#[tokio::test]
async fn bodies_are_checked_before_anything_is_billed() {
    let sandbox = start(Options::default()).await;
    let large = vec![b' '; server::MAX_BODY_BYTES + 1];
    let cases: [(&str, &str, &[u8], u16, &str); 9] = [
        (MODEL, KEYED, b"{\"prompt\":\"a\",\"steps_num\":51}", 400, "steps_num"),
        (MODEL, KEYED, b"{\"prompt\":\"a sandbox:kut\"}", 400, "sandbox:kut"),
        (MODEL, "\r\nx-api-key: k\r\nContent-Type: text/plain", b"{\"prompt\":\"a\"}", 415, "application/json"),
        (MODEL, KEYED, &large, 413, "too large"),
        (UPLOAD, KEYED, &large, 413, "too large"),
        (UPLOAD, KEYED, b"{}", 400, "\"data_urls\" is required"),
        (UPLOAD, KEYED, b"{\"data_urls\":[]}", 400, "a list of 1 to"),
        (UPLOAD, KEYED, b"{\"data_urls\":[\"http://a/b\"]}", 400, "no data: URI"),
        (UPLOAD, KEYED, b"{\"data_urls\":[\"data:image/png;base64,bm8=\"]}", 400, "not a JPEG, PNG or WebP"),
    ];
    for (line, headers, body, status, part) in cases {
        let answer = send(&sandbox, line, headers, body).await.unwrap();
        assert_eq!(answer.status, status, "{line} {part}");
        assert!(answer.error().contains(part), "{} lacks {part}", answer.error());
    }
    assert_eq!((sandbox.stats().billed, sandbox.stats().model_calls, sandbox.stats().uploads), (0, 4, 5));
}

#[tokio::test]
async fn an_uploaded_picture_comes_back_reimagined_and_is_paid() {
    let sandbox = start(Options { credits: 1.0, ..Options::default() }).await;
    let uploaded = post(&sandbox, UPLOAD, &json!({ "data_urls": [data_uri(&png(90, 60))] })).await.json();
    let url = uploaded["file_urls"][0].as_str().unwrap().to_owned();
    assert!(url.starts_with(&format!("{}/assets/", sandbox.url())) && url.contains(".png"), "{url}");
    assert!(uploaded["message"].is_string());
    let path = url.strip_prefix(&sandbox.url()).unwrap();
    assert_eq!(send(&sandbox, &format!("GET {path}"), "", b"").await.unwrap().body, png(90, 60));

    let body = json!({ "prompt": "autumn", "structure_image_url": url, "seed": 7 });
    let answer = post(&sandbox, MODEL, &body).await;
    let picture = answer.picture();
    assert_eq!((picture.width(), picture.height()), (1254, 836));
    assert_eq!(answer.headers["content-type"], "image/png");
    assert_eq!(answer.headers["x-seed-value"], "7");
    assert_eq!(answer.headers["x-cost"], "0.04");
    assert_eq!(answer.headers["x-remaining-credits"], "0.96");
    assert!(answer.headers["x-request-id"].starts_with("sandbox-"));
    assert!(answer.headers["x-generation-time"].parse::<f64>().unwrap() > 0.0);
    let stats = sandbox.stop().await;
    assert_eq!((stats.uploads, stats.asset_reads, stats.model_calls, stats.billed), (1, 1, 1, 1));
    assert_eq!((stats.bodies, stats.spent, stats.credits), (vec![body], 0.04, 0.96));
}

#[tokio::test]
async fn uploads_answer_in_the_form_of_the_docs_too() {
    let sandbox = start(Options { upload_reply: UploadReply::Urls, ..Options::default() }).await;
    let body = json!({ "data_urls": [data_uri(&png(9, 6)), data_uri(&png(6, 9))] });
    let answer = post(&sandbox, UPLOAD, &body).await.json();
    assert_eq!(answer["urls"].as_array().unwrap().len(), 2);
    assert!(answer.get("file_urls").is_none());
}

#[tokio::test]
async fn credits_run_out_with_406() {
    let sandbox = start(Options { credits: 0.04, free_credits: 0.05, ..Options::default() }).await;
    for (left, free) in [(0.04, 0.01), (0.01, 0.0)] {
        assert_eq!(ask(&sandbox, "a sandbox:empty").await.unwrap().status, 200);
        let answer = send(&sandbox, CREDITS, KEYED, b"").await.unwrap();
        assert_eq!(answer.json(), json!({ "credits": left, "free-credits": free }));
    }
    let refused = ask(&sandbox, "a").await.unwrap();
    assert_eq!((refused.status, refused.error().as_str()), (406, "insufficient credits"));
    assert_eq!(sandbox.stats().billed, 2);
}

#[tokio::test]
async fn the_account_can_be_unknown_and_other_paths_are_not_found() {
    let sandbox = start(Options { no_credits_found: true, ..Options::default() }).await;
    let answer = send(&sandbox, CREDITS, KEYED, b"").await.unwrap();
    assert_eq!((answer.status, answer.error().as_str()), (404, "No credits found for the user"));
    assert_eq!(send(&sandbox, "POST /v1/other", KEYED, b"{}").await.unwrap().status, 404);
    assert_eq!(send(&sandbox, "GET /assets/none.png", KEYED, b"").await.unwrap().status, 404);
    let wrong = send(&sandbox, "GET /v1/bria-reimagine", KEYED, b"").await.unwrap();
    assert_eq!((wrong.status, wrong.headers["content-type"].as_str()), (405, "text/html; charset=utf-8"));
}

#[tokio::test]
async fn more_than_the_pace_is_told_to_wait() {
    let sandbox = start(Options { requests_per_minute: 2, ..Options::default() }).await;
    for _ in 0..2 {
        assert_eq!(ask(&sandbox, "a sandbox:empty").await.unwrap().status, 200);
    }
    let answer = ask(&sandbox, "a").await.unwrap();
    assert_eq!(answer.status, 429);
    assert!((1..=60).contains(&answer.headers["retry-after"].parse::<u32>().unwrap()));
}

#[tokio::test]
async fn words_in_the_prompt_break_the_answer_in_their_own_way() {
    let sandbox = start(Options::default()).await;
    let status = ask(&sandbox, "a sandbox:status=503 sandbox:retry-after=2 sandbox:say=no_luck").await.unwrap();
    assert_eq!((status.status, status.error().as_str(), status.headers["retry-after"].as_str()), (503, "no luck", "2"));
    assert_eq!(ask(&sandbox, "a sandbox:status=302").await.unwrap().headers["location"], "/moved");
    assert_eq!(sandbox.stats().billed, 0, "only 200 is billed");

    assert!(ask(&sandbox, "a sandbox:close").await.is_none(), "not one byte of an answer");
    let cut = ask(&sandbox, "a sandbox:cut").await.unwrap();
    assert_eq!(cut.status, 200);
    assert!(!cut.body.is_empty() && cut.body.len() < cut.promised(), "{} of {}", cut.body.len(), cut.promised());
    let half = ask(&sandbox, "a sandbox:half").await.unwrap();
    assert_eq!((half.status, half.body.len()), (200, half.promised()));
    assert!(half.body.starts_with(b"\xff\xd8\xff") && !half.body.ends_with(b"\xff\xd9"));
    let page = ask(&sandbox, "a sandbox:html").await.unwrap();
    assert!(page.status == 200 && page.headers["content-type"].starts_with("text/html"));
    assert!(page.body.starts_with(b"<!doctype html>"));
    let empty = ask(&sandbox, "a sandbox:empty").await.unwrap();
    assert_eq!((empty.status, empty.body.len()), (200, 0));
    let refused = ask(&sandbox, "a sandbox:json=error").await.unwrap();
    assert_eq!(refused.status, 200);
    assert!(!refused.error().is_empty());
    assert_eq!(sandbox.stats().billed, 6, "each of these may have been billed, and was");
}

#[tokio::test]
async fn an_endless_body_goes_on_beyond_any_picture() {
    let sandbox = start(Options::default()).await;
    let mut stream = TcpStream::connect(sandbox.addr()).await.unwrap();
    let body = r#"{"prompt":"a sandbox:endless"}"#;
    let head = format!("{MODEL} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}{KEYED}\r\n\r\n", body.len());
    stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    let (mut seen, mut piece) = (0, vec![0; 65_536]);
    while seen < 8 * 1024 * 1024 {
        let n = stream.read(&mut piece).await.unwrap();
        assert!(n > 0, "it ended after {seen} bytes");
        seen += n;
    }
    let stats = tokio::time::timeout(Duration::from_secs(20), sandbox.stop()).await;
    assert_eq!(stats.unwrap().billed, 1, "the sandbox can stop although the body is endless");
}

#[tokio::test]
async fn a_delay_holds_the_answer_until_the_sandbox_stops() {
    let sandbox = start(Options { latency: Duration::from_secs(600), ..Options::default() }).await;
    let (at, body) = (sandbox.addr(), r#"{"prompt":"a sandbox:delay=20m sandbox:empty"}"#);
    let head = format!("{MODEL} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}{KEYED}", body.len());
    let client = tokio::spawn(async move { raw(at, &head, body.as_bytes()).await });
    while sandbox.stats().billed == 0 {
        tokio::task::yield_now().await;
    }
    assert!(!client.is_finished());
    tokio::time::timeout(Duration::from_secs(20), sandbox.stop()).await.unwrap();
    tokio::time::timeout(Duration::from_secs(20), client).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_fault_can_count_once_for_a_prompt() {
    let sandbox = start(Options::default()).await;
    let mut seen = Vec::new();
    for prompt in
        ["a sandbox:status=503 sandbox:once", "a sandbox:status=503 sandbox:once", "b sandbox:status=503 sandbox:once"]
    {
        seen.push(ask(&sandbox, prompt).await.unwrap().status);
    }
    assert_eq!(seen, [503, 200, 503]);
}

#[tokio::test]
async fn faults_of_the_options_come_before_those_of_the_prompt() {
    let options = Options {
        faults: vec![Fault::status(500), Fault::default(), Fault::how(How::Close)],
        upload_faults: vec![Fault::status(502)],
        credits_faults: vec![Fault::how(How::Close), Fault::status(403)],
        ..Options::default()
    };
    let sandbox = start(options).await;
    let mut seen = Vec::new();
    for _ in 0..4 {
        seen.push(ask(&sandbox, "a sandbox:status=418").await.map(|answer| answer.status));
    }
    assert_eq!(seen, [Some(500), Some(418), None, Some(418)]);
    let body = json!({ "data_urls": [data_uri(&png(9, 6))] });
    assert_eq!(post(&sandbox, UPLOAD, &body).await.status, 502);
    assert_eq!(post(&sandbox, UPLOAD, &body).await.status, 200);
    let mut seen = Vec::new();
    for _ in 0..3 {
        seen.push(send(&sandbox, CREDITS, KEYED, b"").await.map(|answer| answer.status));
    }
    assert_eq!(seen, [None, Some(403), Some(200)]);
}

#[tokio::test]
async fn every_shape_of_reply_holds_the_same_picture() {
    let sandbox = start(Options { format: Format::Jpeg, ..Options::default() }).await;
    let plain = ask(&sandbox, "a hill").await.unwrap();
    assert_eq!(plain.headers["content-type"], "image/jpeg");
    assert_eq!((plain.picture().width(), plain.picture().height()), (1024, 1024));
    let decode = |text: &str| base64::engine::general_purpose::STANDARD.decode(text).unwrap();
    for word in ["url", "nested", "base64", "data"] {
        let answer = ask(&sandbox, &format!("a hill sandbox:json={word}")).await.unwrap().json();
        let bytes = match word {
            "base64" => decode(answer["image"].as_str().unwrap()),
            "data" => decode(answer["image"].as_str().unwrap().strip_prefix("data:image/jpeg;base64,").unwrap()),
            _ => {
                let place = if word == "url" { &answer["image_url"] } else { &answer["result"][0]["urls"][0] };
                let path = place.as_str().unwrap().strip_prefix(&sandbox.url()).unwrap();
                send(&sandbox, &format!("GET {path}"), "", b"").await.unwrap().body
            }
        };
        assert!(bytes == plain.body, "{word}");
    }
}

#[tokio::test]
async fn a_reference_comes_from_a_neighbour_on_loopback_and_from_nowhere_else() {
    let sandbox = start(Options::default()).await;
    let neighbour = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = neighbour.local_addr().unwrap();
    let served = tokio::spawn(async move {
        let (mut stream, _) = neighbour.accept().await.unwrap();
        let mut request = vec![0; 4096];
        let n = stream.read(&mut request).await.unwrap();
        stream.write_all(b"HTTP/1.0 200 OK\r\nContent-Type: image/png\r\n\r\n").await.unwrap();
        stream.write_all(&png(60, 120)).await.unwrap();
        String::from_utf8(request[..n].to_vec()).unwrap()
    });
    let body = json!({ "prompt": "a", "structure_image_url": format!("http://{at}/my%20cat.png") });
    let picture = post(&sandbox, MODEL, &body).await.picture();
    assert!(picture.height() / picture.width() == 2 || picture.height().abs_diff(2 * picture.width()) < 3);
    assert!(served.await.unwrap().starts_with("GET /my%20cat.png HTTP/1.0\r\n"));

    for url in [
        "https://example.com/a.png".to_owned(),
        format!("{}/assets/gone.png", sandbox.url()),
        format!("http://{at}/closed-by-now.png"),
        "data:image/png;base64,bm8=".to_owned(),
    ] {
        let answer = post(&sandbox, MODEL, &json!({ "prompt": "a", "structure_image_url": url })).await;
        assert_eq!(answer.status, 400, "{url}");
        assert!(answer.error().starts_with("could not fetch structure_image_url: "), "{}", answer.error());
    }
    assert_eq!(sandbox.stats().billed, 1);
}

#[tokio::test]
async fn only_loopback_names_are_answered_and_only_loopback_is_listened_on() {
    let sandbox = start(Options::default()).await;
    for (host, status) in [("localhost:1", 200), ("[::1]", 200), ("evil.example", 421), ("127.0.0.1.evil.example", 421)]
    {
        let head = format!("{CREDITS} HTTP/1.1\r\nHost: {host}\r\nx-api-key: k");
        assert_eq!(Raw::read(&raw(sandbox.addr(), &head, b"").await).unwrap().status, status, "{host}");
    }
    let open = TcpListener::bind("0.0.0.0:0").await.unwrap();
    assert_eq!(serve(open, Options::default(), async {}).await.unwrap_err().kind(), io::ErrorKind::InvalidInput);
}

#[test]
fn the_help_names_every_word_that_is_understood() {
    let words = HELP.lines().filter_map(|line| line.trim().strip_prefix("sandbox:")).map(|line| line.split(' ').next());
    let mut count = 0;
    for word in words.map(Option::unwrap).filter(|word| *word != "once" && !word.starts_with("times")) {
        word.parse::<Fault>().unwrap();
        count += 1;
    }
    assert_eq!(count, 13);
}
