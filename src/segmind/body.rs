//! Request bodies: JSON, perhaps with a picture in it as a data URI, with the exact length said beforehand. The picture
//! is read from its file while it is sent, with a few kilobytes held in memory; one that is small may be in memory anyway.

use std::io;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::stream;
use serde_json::{Map, Value};
use tokio::io::AsyncReadExt as _;

use super::AssetUrl;
use super::find::Sent;
use crate::domain::ids::Fingerprint;
use crate::domain::params::Key;

/// A multiple of three, so that the pieces' base64 joins without padding.
const PIECE: usize = 48 * 1024;

/// What is sent with a model call.
#[derive(Clone, Debug)]
pub struct Body {
    before: Vec<u8>,
    file: Option<PathBuf>,
    after: Vec<u8>,
    hidden: Vec<AssetUrl>,
    sent: Sent,
}

impl Body {
    /// The request as it stands.
    pub fn json(request: &Map<String, Value>) -> Self {
        let before = Value::Object(request.clone()).to_string().into_bytes();
        let url = request.get(Key::StructureImageUrl.name()).and_then(Value::as_str).map(str::to_owned);
        let sent = Sent { url, picture: None };
        Self { before, file: None, after: Vec::new(), hidden: Vec::new(), sent }
    }

    /// The request with `key` (`structure_image_url`) holding the picture in `file` as a data URI of
    /// `media_type`, whatever `request` holds there.
    pub fn inline(request: &Map<String, Value>, key: &str, file: PathBuf, media_type: &str) -> Self {
        let mut rest = request.clone();
        // Order does not matter to the service, so the large value goes last.
        rest.shift_remove(key);
        let mut before = Value::Object(rest).to_string();
        before.pop();
        if before.len() > 1 {
            before.push(',');
        }
        before.push_str(&Value::from(key).to_string());
        before.push_str(":\"");
        before.push_str(&data_uri(media_type));
        Self {
            before: before.into_bytes(),
            file: Some(file),
            after: b"\"}".to_vec(),
            hidden: Vec::new(),
            sent: Sent::default(),
        }
    }

    /// The body of an upload of the picture in `file`.
    pub fn upload(file: PathBuf, media_type: &str) -> Self {
        let before = format!("{{\"data_urls\":[\"{}", data_uri(media_type)).into_bytes();
        Self { before, file: Some(file), after: b"\"]}".to_vec(), hidden: Vec::new(), sent: Sent::default() }
    }

    /// The same of a small picture that is in memory.
    pub fn upload_of(picture: &[u8], media_type: &str) -> Self {
        let head = format!("{{\"data_urls\":[\"{}", data_uri(media_type));
        let (begin, tail) = (head.len(), b"\"]}");
        // What it takes, with its padding.
        let end = begin + picture.len().div_ceil(3) * 4;
        let mut before = vec![0; end + tail.len()];
        before[..begin].copy_from_slice(head.as_bytes());
        let coded = STANDARD.encode_slice(picture, &mut before[begin..end]);
        debug_assert_eq!(coded, Ok(end - begin));
        before[end..].copy_from_slice(tail);
        Self { before, file: None, after: Vec::new(), hidden: Vec::new(), sent: Sent::default() }
    }

    /// Blacks `asset` out of everything that the service says about this request.
    #[must_use]
    pub fn hiding(mut self, asset: AssetUrl) -> Self {
        self.hidden.push(asset);
        self
    }

    /// What the picture is that it refers to, or carries: an answer that gives it back is no result.
    #[must_use]
    pub fn referring_to(mut self, picture: Option<Fingerprint>) -> Self {
        self.sent.picture = picture;
        self
    }

    /// The reference that travels with it.
    pub(super) fn sent(&self) -> Sent {
        self.sent.clone()
    }

    pub(super) fn hidden(&self) -> Vec<AssetUrl> {
        self.hidden.clone()
    }

    /// Opens the picture, if there is one: the body to send and its exact length in bytes. Errors name the
    /// file.
    pub async fn open(self) -> io::Result<(reqwest::Body, u64)> {
        let Some(path) = self.file else {
            let length = self.before.len() as u64;
            return Ok((self.before.into(), length));
        };
        let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.display()));
        let file = tokio::fs::File::open(&path).await.map_err(named)?;
        let facts = file.metadata().await.map_err(named)?;
        if !facts.is_file() || facts.len() == 0 {
            return Err(named(io::Error::new(io::ErrorKind::InvalidData, "is no picture")));
        }
        let (before, after) = (Bytes::from(self.before), Bytes::from(self.after));
        let length = (before.len() + after.len()) as u64 + facts.len().div_ceil(3) * 4;
        let start = Step::Before { before, after, file, left: facts.len() };
        Ok((reqwest::Body::wrap_stream(stream::try_unfold(start, Step::next)), length))
    }
}

/// How far a streamed body is.
enum Step {
    Before { before: Bytes, after: Bytes, file: tokio::fs::File, left: u64 },
    Picture { after: Bytes, file: tokio::fs::File, left: u64 },
    End,
}

impl Step {
    async fn next(self) -> io::Result<Option<(Bytes, Self)>> {
        match self {
            Self::Before { before, after, file, left } => Ok(Some((before, Self::Picture { after, file, left }))),
            Self::Picture { after, left: 0, .. } => Ok(Some((after, Self::End))),
            Self::Picture { after, mut file, left } => {
                let mut piece = vec![0; PIECE.min(usize::try_from(left).unwrap_or(PIECE))];
                // A file that became shorter ends the request here: it never becomes whole, so never valid.
                file.read_exact(&mut piece).await?;
                let left = left - piece.len() as u64;
                Ok(Some((STANDARD.encode(&piece).into(), Self::Picture { after, file, left })))
            }
            Self::End => Ok(None),
        }
    }
}

fn data_uri(media_type: &str) -> String {
    // Media types are ours; what could end the JSON string has no business in one.
    let clean: String =
        media_type.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '/' | '+' | '-' | '.')).collect();
    format!("data:{clean};base64,")
}
