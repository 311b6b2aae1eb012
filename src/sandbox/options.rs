//! How the sandbox behaves.

use std::str::FromStr;
use std::time::Duration;

use super::fault::Fault;

/// Every knob of the sandbox. [`Options::default`] is the service on a good day.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// The only key that is accepted; `None`: any that is not empty.
    pub key: Option<String>,
    /// Paid credits at the start, in dollars.
    pub credits: f64,
    /// Free credits at the start, in dollars; they are used up first.
    pub free_credits: f64,
    /// What a picture costs, in dollars.
    pub price: f64,
    /// Answers the credits request with 404 "No credits found for the user".
    pub no_credits_found: bool,
    /// The shape of a good answer of the model.
    pub reply: Reply,
    /// The format of pictures.
    pub format: Format,
    /// The shape of the answer to an upload.
    pub upload_reply: UploadReply,
    /// Waits this long in each model call.
    pub latency: Duration,
    /// Model calls within any 60 s before 429; 0 means no limit.
    pub requests_per_minute: u32,
    /// For the first model calls, one each, in this order. [`Fault::default`] lets one pass.
    pub faults: Vec<Fault>,
    /// For every n-th model call after those (1 is each).
    pub every: Option<(u32, Fault)>,
    /// For the first uploads, one each. What is about pictures has no meaning there.
    pub upload_faults: Vec<Fault>,
    /// For the first credits requests, one each.
    pub credits_faults: Vec<Fault>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            key: None,
            credits: 100.0,
            free_credits: 0.0,
            price: 0.04,
            no_credits_found: false,
            reply: Reply::default(),
            format: Format::default(),
            upload_reply: UploadReply::default(),
            latency: Duration::ZERO,
            requests_per_minute: 0,
            faults: Vec::new(),
            every: None,
            upload_faults: Vec::new(),
            credits_faults: Vec::new(),
        }
    }
}

/// How a picture is handed over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reply {
    /// Its bytes.
    #[default]
    Image,
    /// `{"image_url": "http://…"}`; the picture is among the assets.
    Url,
    /// `{"image": "iVBOR…"}`.
    Base64,
    /// `{"image": "data:image/png;base64,…"}`.
    DataUri,
    /// `{"result": [{"urls": ["http://…"]}]}`.
    Nested,
}

/// Reads `image`, `url`, `base64`, `data`, `nested`.
impl FromStr for Reply {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "image" => Ok(Self::Image),
            "url" => Ok(Self::Url),
            "base64" => Ok(Self::Base64),
            "data" => Ok(Self::DataUri),
            "nested" => Ok(Self::Nested),
            _ => Err(format!("\"{text}\" is none of image, url, base64, data, nested")),
        }
    }
}

/// The format of pictures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// PNG.
    #[default]
    Png,
    /// JPEG of quality 90.
    Jpeg,
}

/// Reads `png`, `jpeg`, `jpg`.
impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "png" => Ok(Self::Png),
            "jpeg" | "jpg" => Ok(Self::Jpeg),
            _ => Err(format!("\"{text}\" is none of png, jpeg")),
        }
    }
}

/// The shape of the answer to an upload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UploadReply {
    /// `{"file_urls": […], "message": "…"}`, as the official SDK reads it.
    #[default]
    FileUrls,
    /// `{"urls": […]}`, as the docs have it.
    Urls,
}

/// Reads `file_urls`, `urls`.
impl FromStr for UploadReply {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "file_urls" => Ok(Self::FileUrls),
            "urls" => Ok(Self::Urls),
            _ => Err(format!("\"{text}\" is none of file_urls, urls")),
        }
    }
}
