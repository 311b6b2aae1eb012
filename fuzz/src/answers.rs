//! What the service says: whole answers, through the real client over a socket of this machine, and how long
//! a 429 asks to wait.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use jiff::Timestamp;
use reimagined::domain::verdict::{Billed, BodyKind, Endpoint, LONGEST_WAIT, MAX_WORDS, Reply, Verdict, judge};
use reimagined::reference::{Format, Whole, check};
use reimagined::segmind::{ApiKey, Body, Client, PictureKind, Settings, UploadOutcome, sniff};

const KEY: &str = "SG_0123456789abcdef_secret";

/// Far above what a seed holds; small enough that "too long" is met.
const MOST: u64 = 64 * 1024;

struct Service {
    client: Client,
    key: ApiKey,
    runtime: tokio::runtime::Runtime,
    answers: Sender<Vec<u8>>,
    room: tempfile::TempDir,
}

fn service() -> &'static Mutex<Service> {
    static SERVICE: OnceLock<Mutex<Service>> = OnceLock::new();
    SERVICE.get_or_init(|| {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let (answers, to_say) = channel();
        std::thread::spawn(move || serve(&listener, &to_say));
        let settings = Settings {
            base_url: url.parse().expect("a URL"),
            model: "/v1/bria-reimagine".into(),
            upload_url: format!("{url}/upload-asset").parse().expect("a URL"),
            timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(5),
        };
        Mutex::new(Service {
            client: Client::new(settings).expect("a client"),
            key: ApiKey::new(KEY, "a test").expect("a key"),
            runtime: tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime"),
            answers,
            room: tempfile::tempdir().expect("a folder"),
        })
    })
}

/// Reads each request to its end, says what is to be said, and closes.
fn serve(listener: &TcpListener, to_say: &Receiver<Vec<u8>>) {
    for stream in listener.incoming() {
        let (Ok(mut stream), Ok(answer)) = (stream, to_say.recv()) else { return };
        let _ = stream.set_nodelay(true);
        read_request(&mut stream);
        let _ = stream.write_all(&answer);
        let _ = stream.shutdown(Shutdown::Write);
        // Until the other side has gone: bytes that it did not read would make this a reset.
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
    }
}

fn read_request(stream: &mut TcpStream) {
    let (mut got, mut piece) = (Vec::new(), [0; 8192]);
    loop {
        let text = String::from_utf8_lossy(&got).to_ascii_lowercase();
        if let Some((head, _)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
            if got.len() >= head.len() + 4 + length {
                return;
            }
        }
        match stream.read(&mut piece) {
            Ok(n) if n > 0 => got.extend_from_slice(&piece[..n]),
            _ => return,
        }
    }
}

/// The final status and what stands behind the head, where that can be told without a parser of HTTP.
fn plain(answer: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n")?;
    let (head, body) = (&answer[..end + 4], &answer[end + 4..]);
    let digits = head.strip_prefix(b"HTTP/1.1 ")?.get(..4)?;
    let status: u16 = std::str::from_utf8(digits).ok()?.strip_suffix(' ')?.parse().ok()?;
    (status >= 200).then_some((status, head, body))
}

/// The length that the head announces, if it does so once and in one way.
fn announced(head: &[u8]) -> Option<usize> {
    let text = std::str::from_utf8(head).ok()?.to_ascii_lowercase();
    if text.contains("transfer-encoding") || text.matches("content-length").count() != 1 {
        return None;
    }
    text.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok())
}

/// An answer, byte for byte, to a paid call and to an upload.
pub fn reply(data: &[u8]) {
    let mut service = service().lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let Service { client, key, runtime, answers, room } = &mut *service;
    let into: PathBuf = room.path().join("picture.part");
    let request = serde_json::json!({ "prompt": "a look" });
    let body = Body::json(request.as_object().expect("an object"));
    answers.send(data.to_vec()).expect("it serves");
    let outcome = runtime.block_on(client.reimagine(key, body, &into, MOST));
    let verdict = &outcome.verdict;
    told(verdict);
    assert_eq!(outcome.picture.is_some(), *verdict == Verdict::Picture);
    match outcome.picture {
        Some(received) => {
            let bytes = std::fs::read(&into).expect("a picture was kept");
            assert_eq!((received.bytes, Some(received.kind)), (bytes.len() as u64, sniff(&bytes)));
            assert!(received.bytes <= MOST);
            // What it looks like is not what it is: the engine asks this, and keeps nothing else.
            if let Whole::Whole { format, .. } = check(&bytes).expect("memory") {
                let same = [
                    (Format::Jpeg, PictureKind::Jpeg),
                    (Format::Png, PictureKind::Png),
                    (Format::WebP, PictureKind::Webp),
                ];
                assert!(same.contains(&(format, received.kind)), "{format:?} {:?}", received.kind);
            }
            std::fs::remove_file(&into).expect("ours");
        }
        // What came of one that broke off is left for whoever can tell whether it is all.
        None if outcome.remains.is_some() => {
            assert!(matches!(verdict, Verdict::Unconfirmed { .. }), "{verdict:?}");
            std::fs::remove_file(&into).expect("what remains is there");
        }
        None => assert!(!into.exists(), "something was left: {verdict:?}"),
    }
    // After a connection nothing is surely unsent.
    assert!(
        !matches!(verdict, Verdict::Pause { why: reimagined::domain::verdict::PauseWhy::Network, .. }),
        "{verdict:?}"
    );
    match plain(data) {
        Some((200, head, rest)) => {
            assert_ne!(verdict.billed(), Billed::No, "a 200 is billed: {verdict:?}");
            if announced(head).is_some_and(|length| length > rest.len()) {
                assert_eq!(verdict.billed(), Billed::Unknown, "it was cut: {verdict:?}");
            }
        }
        Some((status, ..)) => {
            assert!(!matches!(verdict, Verdict::Picture | Verdict::Link { .. }), "{status}: {verdict:?}");
            assert_ne!(verdict.billed(), Billed::Yes, "{status}: {verdict:?}");
        }
        None if !data.windows(5).any(|w| w.eq_ignore_ascii_case(b"HTTP/")) => {
            assert_eq!(verdict.billed(), Billed::Unknown, "that was no answer: {verdict:?}");
        }
        None => {}
    }

    let picture = room.path().join("reference");
    std::fs::write(&picture, "a picture").expect("written");
    answers.send(data.to_vec()).expect("it serves");
    match runtime.block_on(client.upload(key, Body::upload(picture, "image/png"))) {
        UploadOutcome::Done(url) => {
            let text = url.expose();
            assert!(text.get(..4).is_some_and(|scheme| scheme.eq_ignore_ascii_case("http")) && text.len() <= 8192);
            assert!(!text.contains(char::is_whitespace));
        }
        UploadOutcome::Failed(verdict) => {
            told(&verdict);
            assert_eq!(verdict.billed(), Billed::No);
            assert!(!matches!(verdict, Verdict::Picture | Verdict::Link { .. } | Verdict::Unconfirmed { .. }));
        }
    }
}

/// Words for people are one bounded line without the key.
fn told(verdict: &Verdict) {
    let message = reimagined::domain::answer::message(verdict);
    assert!(!message.contains(KEY), "{message}");
    assert!(!message.contains(|c: char| c.is_control()), "{message:?}");
    assert!(message.chars().count() <= MAX_WORDS + 200, "{}", message.chars().count());
}

/// `Retry-After` in the first line, `x-rate-limit-reset-at-utc` in the second.
pub fn retry_after(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (after, reset) = text.split_once('\n').map_or((&*text, None), |(after, reset)| (after, Some(reset)));
    let now: Timestamp = "2026-11-23T04:00:00Z".parse().expect("a moment");
    let wait = |after: Option<&str>, reset: Option<&str>| {
        let reply = Reply {
            status: 429,
            retry_after: after.map(str::to_owned),
            rate_reset: reset.map(str::to_owned),
            message: None,
            gave_up: false,
            body: BodyKind::Refusal,
            after: Duration::ZERO,
        };
        match judge(Endpoint::Model, &reply, now) {
            Verdict::Wait { for_, long, .. } => (for_, long),
            other => panic!("a 429 is {other:?}"),
        }
    };
    let (for_, long) = wait(Some(after), reset);
    assert!(for_.is_none_or(|wait| wait > Duration::ZERO && wait <= LONGEST_WAIT), "{for_:?}");
    assert!(!long || for_ == Some(LONGEST_WAIT));
    let (first, second) = (wait(Some(after), None), wait(None, reset));
    assert_eq!((for_, long), if first.0.is_some() { first } else { second }, "Retry-After counts first");
    // Plain seconds are what they are.
    if let Ok(seconds) = after.trim().parse::<u32>()
        && after.trim().bytes().all(|b| b.is_ascii_digit())
        && seconds > 0
    {
        let asked = Duration::from_secs(u64::from(seconds));
        assert_eq!(first, (Some(asked.min(LONGEST_WAIT)), asked > LONGEST_WAIT));
    }
}
