//! Reads a reply: a picture into its file, JSON for what is in it, anything else for its words. What it is
//! is decided by its bytes; its `Content-Type` only helps to say what was received.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;

use super::find::{Found, Sent, asset_urls, candidate, decode, find, says, words};
use super::http::{Ended, Incoming};
use super::lenient;
use super::sniff::{PictureKind, SNIFF, sniff};
use crate::domain::verdict::{speaks_of_timeout, tidy};

/// The longest JSON that is looked into: base64 of a picture may be in it.
const MAX_JSON: u64 = 64 << 20;

/// The longest error page that is read.
const MAX_ERROR: usize = 64 * 1024;

/// A picture that was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Its length.
    pub bytes: u64,
    /// What its first bytes say that it is.
    pub kind: PictureKind,
}

/// What a body was.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Content {
    Picture(Received),
    /// A picture that came in one piece, and is not written yet.
    Small(Received, Vec<u8>),
    Link(String),
    Refusal,
    Unusable {
        what: String,
        lost: bool,
    },
    /// A picture whose answer broke off; what came of it is kept.
    Broken {
        what: String,
        received: Received,
    },
    /// A picture came whole, and the disk would not take it.
    Held(Held),
}

/// A picture that came whole while the disk would not take it: it is in memory, and nowhere else.
#[derive(Clone, PartialEq, Eq)]
pub struct Held {
    /// All of it.
    pub bytes: Vec<u8>,
    /// What the disk said.
    pub why: String,
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Held({} bytes: {})", self.bytes.len(), self.why)
    }
}

/// A body that was read.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) content: Content,
    /// What it says, not redacted and not bounded.
    pub(super) words: Option<String>,
    /// The request's id, where only the JSON names it.
    pub(super) request_id: Option<String>,
}

impl From<Content> for Answer {
    fn from(content: Content) -> Self {
        Self { content, words: None, request_id: None }
    }
}

fn unusable(what: impl Into<String>, lost: bool) -> Content {
    Content::Unusable { what: what.into(), lost }
}

/// Reads the answer of a successful model call. A picture goes to `into`, `max_bytes` at most; where none
/// came, nothing is left there. `leave`: one that comes in one piece is not written. `sent`: the reference.
pub(super) async fn read_result(
    mut body: Incoming,
    content_type: &str,
    into: &Path,
    max_bytes: u64,
    leave: bool,
    sent: Sent,
) -> Answer {
    let head = match body.head(SNIFF).await {
        Ok(head) => head,
        Err(how) => return unusable(how, true).into(),
    };
    if head.is_empty() {
        return unusable("the answer was empty", false).into();
    }
    if let Some(kind) = sniff(&head) {
        return keep(body, head, kind, into, max_bytes, leave).await.into();
    }
    // Whitespace may stand before JSON and text; nothing longer than its base64 can hold a picture.
    let max = usize::try_from(MAX_JSON.min(max_bytes.saturating_mul(2).saturating_add(1 << 20))).unwrap_or(usize::MAX);
    let (bytes, ended) = body.rest(head, max).await;
    let broke_off = match ended {
        Some(Ended::Lost(how)) => Some(how),
        Some(Ended::TooLong) => {
            return unusable(format!("the answer ({content_type}) did not end within {max} bytes"), false).into();
        }
        None => None,
    };
    let (content_type, into) = (content_type.to_owned(), into.to_path_buf());
    // Megabytes of JSON and base64 are work for a thread of their own.
    let work = tokio::task::spawn_blocking(move || match broke_off {
        Some(how) => picture_of_broken(&bytes, how, &into, max_bytes, &sent),
        None => interpret(&bytes, &content_type, &into, max_bytes, &sent),
    });
    work.await.unwrap_or_else(|_| unusable("the answer could not be read", false).into())
}

/// What an answer says that is no success.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Words {
    /// Its words, not redacted and not bounded.
    pub(super) said: Option<String>,
    /// Whether anything in it speaks of a timeout, whatever place it has there.
    pub(super) gave_up: bool,
    /// URLs where an upload has its assets.
    pub(super) assets: Vec<String>,
}

/// Reads the words of an answer that is no success. A body that breaks off says what it said until then.
pub(super) async fn read_words(mut body: Incoming) -> Words {
    let (bytes, _) = body.rest(Vec::new(), MAX_ERROR).await;
    words_of(&bytes)
}

fn words_of(bytes: &[u8]) -> Words {
    let said = error_words(bytes);
    let (gave_up, assets) = match lenient::parse(bytes) {
        Some(json) => (says(&json, &speaks_of_timeout), asset_urls(&json)),
        None => (false, Vec::new()),
    };
    let gave_up = gave_up || said.as_deref().is_some_and(speaks_of_timeout);
    Words { said, gave_up, assets }
}

/// Reads JSON of at most a megabyte. The other half is what was said, or what went wrong.
pub(super) async fn read_json(mut body: Incoming) -> Result<Value, (Option<String>, Content)> {
    let (bytes, ended) = body.rest(Vec::new(), 1 << 20).await;
    match ended {
        Some(Ended::Lost(how)) => Err((None, unusable(how, true))),
        Some(Ended::TooLong) => Err((None, unusable("the answer was too long", false))),
        None if !is_modest(&bytes) => Err((None, unusable(far_too_many(&bytes), false))),
        None => lenient::parse(&bytes).ok_or_else(|| {
            (error_words(&bytes), unusable(format!("the answer was no JSON: {}", start(&bytes)), false))
        }),
    }
}

/// Streams a picture into its file; into memory from where on the disk does not take it, since it may have been
/// paid for. `leave`: one that comes in one piece is not written.
pub(super) async fn keep(
    mut body: Incoming,
    head: Vec<u8>,
    kind: PictureKind,
    into: &Path,
    max_bytes: u64,
    leave: bool,
) -> Content {
    let too_long = || unusable(format!("the picture did not end within {max_bytes} bytes"), false);
    if body.length().is_some_and(|length| length > max_bytes) || head.len() as u64 > max_bytes {
        return too_long();
    }
    let mut target = Target::new(into);
    let mut bytes = head.len() as u64;
    let mut pieces = head;
    if let Some(length) = body.length() {
        pieces.reserve(usize::try_from(length).unwrap_or(WRITE).min(WRITE));
    }
    let done = loop {
        // What comes at one time is written at one time; what is waited for holds nothing back, so that all that
        // came is on the disk if we are killed.
        let next = match tokio::time::timeout(GATHER, body.next()).await {
            Ok(next) => next,
            Err(_) if pieces.is_empty() => body.next().await,
            Err(_) => Ok(Some(Bytes::new())),
        };
        let waits = matches!(&next, Ok(Some(none)) if none.is_empty());
        match next {
            Ok(Some(next)) if bytes + next.len() as u64 > max_bytes => break Err(too_long()),
            Ok(Some(next)) => {
                bytes += next.len() as u64;
                pieces.extend_from_slice(&next);
                if pieces.len() < WRITE && !waits {
                    continue;
                }
            }
            Ok(None) if leave && target.written == 0 => return Content::Small(Received { bytes, kind }, pieces),
            Ok(None) => break target.take(pieces).await,
            // All of the picture may have come, and only the end of the answer be missing.
            Err(what) => match target.take(pieces).await {
                Ok(()) if target.is_on_disk() => {
                    return Content::Broken { what, received: Received { bytes, kind } };
                }
                Ok(()) => break Err(unusable(what, true)),
                Err(lost) => break Err(lost),
            },
        }
        if let Err(lost) = target.take(std::mem::take(&mut pieces)).await {
            break Err(lost);
        }
    };
    let content = match (done, target.place) {
        (Ok(()), Place::Memory(picture)) => Content::Held(picture),
        (Ok(()), _) => return Content::Picture(Received { bytes, kind }),
        (Err(content), _) => content,
    };
    // What is left here is of no use to anybody; that it cannot be removed hurts nobody either.
    let _ = tokio::fs::remove_file(into).await;
    content
}

/// So many bytes are written at once. Most pictures are smaller than this, and cost one trip to a thread that may
/// block.
const WRITE: usize = 256 * 1024;

/// Pieces that come within so long of one another are written together.
const GATHER: Duration = Duration::from_millis(100);

/// Where a picture goes while it comes.
struct Target {
    into: PathBuf,
    place: Place,
    /// Bytes that are on the disk.
    written: u64,
}

enum Place {
    /// Its file is created with the first bytes.
    Nowhere,
    Disk(std::fs::File),
    Memory(Held),
}

impl Target {
    fn new(into: &Path) -> Self {
        Self { into: into.to_path_buf(), place: Place::Nowhere, written: 0 }
    }

    fn is_on_disk(&self) -> bool {
        matches!(self.place, Place::Disk(_))
    }

    /// Takes what came next.
    async fn take(&mut self, pieces: Vec<u8>) -> Result<(), Content> {
        if let Place::Memory(held) = &mut self.place {
            held.bytes.extend_from_slice(&pieces);
            return Ok(());
        }
        let place = std::mem::replace(&mut self.place, Place::Nowhere);
        let (into, written, more) = (self.into.clone(), self.written, pieces.len() as u64);
        let work = tokio::task::spawn_blocking(move || to_disk(place, &into, written, pieces));
        self.place = work.await.unwrap_or_else(|_| Err(unusable("a picture came, and could not be written", true)))?;
        self.written += more;
        Ok(())
    }
}

/// Writes a picture that was left, into its file; blocks. One that the disk does not take is held in memory.
pub fn write_small(into: &Path, picture: Vec<u8>) -> Result<(std::fs::File, Vec<u8>), Held> {
    use std::io::Write as _;
    let written = create(into).and_then(|mut file| file.write_all(&picture).map(|()| file));
    match written {
        Ok(file) => Ok((file, picture)),
        Err(e) => Err(Held { why: refused(into, &e), bytes: picture }),
    }
}

fn create(into: &Path) -> io::Result<std::fs::File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    std::fs::OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(into)
}

/// Writes on behind the first `written` bytes; from where on that fails, all of it is held in memory.
fn to_disk(place: Place, into: &Path, written: u64, pieces: Vec<u8>) -> Result<Place, Content> {
    use std::io::{Read as _, Seek as _, Write as _};

    let mut file = match place {
        Place::Disk(file) => file,
        Place::Memory(mut held) => {
            held.bytes.extend_from_slice(&pieces);
            return Ok(Place::Memory(held));
        }
        Place::Nowhere => match create(into) {
            Ok(file) => file,
            Err(e) => return Ok(Place::Memory(Held { bytes: pieces, why: refused(into, &e) })),
        },
    };
    let Err(e) = file.write_all(&pieces) else { return Ok(Place::Disk(file)) };
    let why = refused(into, &e);
    let mut all = Vec::new();
    let back = file.rewind().and_then(|()| file.take(written).read_to_end(&mut all));
    if back.is_ok() && all.len() as u64 == written {
        all.extend_from_slice(&pieces);
        return Ok(Place::Memory(Held { bytes: all, why }));
    }
    // A disk that gives nothing back either: it came, and is gone.
    Err(unusable(format!("a picture came, but {why}, nor read back"), true))
}

/// An answer that broke off. JSON that has its own end came whole, and only the connection's end is missing; a
/// bare URL or bare base64 may have been cut anywhere, so it is none.
fn picture_of_broken(bytes: &[u8], how: String, into: &Path, max_bytes: u64, sent: &Sent) -> Answer {
    let bytes = without_mark(bytes);
    let json = is_modest(bytes).then(|| lenient::parse(bytes)).flatten();
    let content = json.as_ref().and_then(|json| find(json, sent)).map(|found| taken(found, into, max_bytes));
    match (json, content) {
        (Some(json), Some(content @ (Content::Picture(_) | Content::Link(_) | Content::Held(_)))) => {
            Answer { content, words: words(&json), request_id: request_id(&json) }
        }
        _ => unusable(how, true).into(),
    }
}

/// Without a byte order mark.
fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)
}

fn request_id(json: &Value) -> Option<String> {
    ["request_id", "requestId"].iter().find_map(|key| json.get(*key)?.as_str().map(str::to_owned))
}

fn interpret(bytes: &[u8], content_type: &str, into: &Path, max_bytes: u64, sent: &Sent) -> Answer {
    let bytes = without_mark(bytes);
    if !is_modest(bytes) {
        return unusable(far_too_many(bytes), false).into();
    }
    let Some(json) = lenient::parse(bytes) else {
        // A bare URL or bare base64, as some services answer.
        let text = std::str::from_utf8(bytes).ok().filter(|text| !sent.is(text));
        let found = text.and_then(candidate);
        let content = match found {
            Some(found) => taken(found, into, max_bytes),
            None => unusable(described(bytes, content_type), false),
        };
        let words = error_words(&bytes[..bytes.len().min(MAX_ERROR)]);
        return Answer { words, content, request_id: None };
    };
    let content = match find(&json, sent) {
        Some(found) => taken(found, into, max_bytes),
        None => unusable(format!("the answer was JSON without a picture: {}", start(bytes)), false),
    };
    Answer { content, words: words(&json), request_id: request_id(&json) }
}

/// Values in JSON that is read. A parsed one takes some hundred bytes, however short it is written.
const MAX_VALUES: usize = 100_000;

fn far_too_many(bytes: &[u8]) -> String {
    format!("the answer was JSON of far too many parts ({} bytes)", bytes.len())
}

/// Whether text, if it is JSON, has few enough values to be parsed. What stands in strings does not count.
fn is_modest(bytes: &[u8]) -> bool {
    if !matches!(bytes.trim_ascii_start().first(), Some(b'{' | b'[')) {
        return true;
    }
    let (mut values, mut quoted, mut escaped) = (0, false, false);
    for byte in bytes {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b',' | b'[' | b'{' if !quoted => values += 1,
            _ => {}
        }
    }
    values <= MAX_VALUES
}

fn taken(found: Found<'_>, into: &Path, max_bytes: u64) -> Content {
    match found {
        Found::Url(url) | Found::Odd(url) => Content::Link(url.to_owned()),
        Found::Refusal => Content::Refusal,
        Found::Encoded(text) => write_encoded(text, into, max_bytes),
    }
}

fn write_encoded(text: &str, into: &Path, max_bytes: u64) -> Content {
    let (mut all, mut kind, mut too_long) = (Vec::new(), None, false);
    let decoded = decode(text, &mut |piece| {
        kind = kind.or_else(|| sniff(piece));
        too_long = (all.len() + piece.len()) as u64 > max_bytes;
        if too_long {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        all.extend_from_slice(piece);
        Ok(())
    });
    let kind = match (decoded, kind) {
        (Ok(()), Some(kind)) => kind,
        _ if too_long => return unusable(format!("the picture did not end within {max_bytes} bytes"), false),
        _ => return unusable("the answer was a picture in broken base64", false),
    };
    match write_small(into, all) {
        Ok((_, all)) => Content::Picture(Received { bytes: all.len() as u64, kind }),
        Err(held) => {
            let _ = std::fs::remove_file(into);
            Content::Held(held)
        }
    }
}

fn refused(into: &Path, e: &io::Error) -> String {
    format!("{} cannot be written: {e}", into.display())
}

fn described(bytes: &[u8], content_type: &str) -> String {
    let what = if looks_like_html(bytes) {
        "HTML"
    } else if matches!(bytes.trim_ascii_start().first(), Some(b'{' | b'[')) {
        "broken JSON"
    } else {
        "not a picture"
    };
    let said_type = if content_type.is_empty() { "no content type" } else { content_type };
    format!("the answer was {what} ({said_type}, {} bytes): {}", bytes.len(), start(bytes))
}

/// What an answer begins with, for people.
fn start(bytes: &[u8]) -> String {
    let head = &bytes[..bytes.len().min(800)];
    let text = String::from_utf8_lossy(head);
    if head.is_empty() {
        return "nothing".into();
    }
    if text.chars().filter(|c| *c == '\u{fffd}').count() > 4 {
        return "bytes that are no text".into();
    }
    // Cut to what people read once it is clean: of a secret that is cut before, a half would stay.
    tidy(&if looks_like_html(head) { without_tags(&text) } else { text.into_owned() }, head.len())
}

fn looks_like_html(bytes: &[u8]) -> bool {
    bytes.trim_ascii_start().first() == Some(&b'<')
}

/// What an error's body says: the words of JSON, the text of HTML, or plain text.
pub(super) fn error_words(bytes: &[u8]) -> Option<String> {
    if let Some(json) = lenient::parse(bytes) {
        return match json {
            Value::String(text) => Some(text),
            Value::Null => None,
            other => Some(words(&other).unwrap_or_else(|| other.to_string())),
        };
    }
    let text = String::from_utf8_lossy(bytes);
    if text.chars().filter(|c| *c == '\u{fffd}').count() > 4 {
        return None;
    }
    let text = if looks_like_html(bytes) { without_tags(&text) } else { text.into_owned() };
    Some(text).filter(|text| !text.trim().is_empty())
}

/// The readable text of a page.
fn without_tags(html: &str) -> String {
    let lower = html.to_ascii_lowercase();
    let mut out = String::new();
    let mut at = 0;
    while let Some(open) = lower[at..].find('<').map(|found| at + found) {
        out.push_str(&html[at..open]);
        out.push(' ');
        let tag = &lower[open + 1..];
        let skip_to = match () {
            () if tag.starts_with("script") => "</script>",
            () if tag.starts_with("style") => "</style>",
            () if tag.starts_with("!--") => "-->",
            () => ">",
        };
        match lower[open..].find(skip_to) {
            Some(close) => at = open + close + skip_to.len(),
            None => return out,
        }
    }
    out.push_str(&html[at..]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_heard_wherever_it_stands() {
        for body in [
            r#"{"error":"Generation failed","details":"Polling timed out after 100 s"}"#,
            r#"{"error":{"code":"TIMEOUT","message":"generation failed"}}"#,
            r#"{"message":"Upstream failed","type":"gateway_timeout"}"#,
            r#"{"error":"JOB_TIMED_OUT"}"#,
            r#"[{"x":{"y":["time-out"]}}]"#,
            r#"{"request":{"status":"timed out"}}"#,
            r#"{"error":"cut, and it said polling"#,
            "<html><body>504 Gateway Time-out</body></html>",
            "upstream request timeout",
            "Timeout",
            "gateway-timeout\n",
            r#"{"error": timeout}"#,
        ] {
            assert!(words_of(body.as_bytes()).gave_up, "{body}");
        }
        for body in [
            "",
            r#"{"error":"busy","timeout":30}"#,
            r#"{"error":"busy","input":{"prompt":"people at a polling station"}}"#,
            "<html><script>setTimeout(f, 1)</script>503 Service Unavailable</html>",
            r#"{"error":"sometimes"}"#,
        ] {
            assert!(!words_of(body.as_bytes()).gave_up, "{body}");
        }
    }

    #[test]
    fn an_error_pages_text_is_what_a_person_would_read() {
        let html = b"<!DOCTYPE html><html><head><title>502 Bad Gateway</title><style>b{}</style></head><!-- > x --><b>nginx</b><script>1<2</script></html>";
        let words = error_words(html).map(|text| tidy(&text, 100));
        assert_eq!(words.as_deref(), Some("502 Bad Gateway nginx"));
        assert_eq!(error_words(b""), None);
        assert_eq!(error_words(b" \n"), None);
        assert_eq!(error_words(b"\"plain\"").as_deref(), Some("plain"));
        assert_eq!(error_words(br#"{"code":5}"#).as_deref(), Some(r#"{"code":5}"#));
        assert_eq!(error_words(&[0xff; 40]), None);
    }
}
