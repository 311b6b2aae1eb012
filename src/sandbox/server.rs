//! The endpoints, and what each of them checks in which order.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Path, Request as HttpRequest, State as Shared};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{Html, IntoResponse as _, Response};
use axum::routing::{get, post};
use base64::Engine as _;
use bytes::Bytes;
use futures_util::StreamExt as _;
use image::RgbImage;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::fault::{Fault, How, Wish};
use super::fetch::{self, Source, Unfetched};
use super::options::{Format, Options, Reply, UploadReply};
use super::paint::{self, Order};
use super::params::Request;
use super::replies::{self, Answer};
use super::state::{Asset, Endpoint, State};
use super::wire::Cord;

/// The most bytes of a body.
pub(super) const MAX_BODY_BYTES: usize = 25 * 1024 * 1024;
/// How much of a body that is too large is read and thrown away, so that the client gets to its answer.
const MAX_DRAINED_BYTES: usize = 4 * MAX_BODY_BYTES;
/// The most pictures in one upload.
const MAX_PICTURES: usize = 16;

/// What every handler shares.
pub(super) struct Room {
    pub(super) options: Options,
    pub(super) address: SocketAddr,
    pub(super) state: Mutex<State>,
    /// Cancelled when the sandbox stops: delays and endless bodies end.
    pub(super) stopping: CancellationToken,
    /// How many pictures are decoded and painted at once: what bounds the memory.
    pub(super) easels: Semaphore,
}

impl Room {
    /// The memory. It stays usable after a panic elsewhere: counts are all it holds.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn url_of(&self, asset: &str) -> String {
        format!("http://{}/assets/{asset}", self.address)
    }

    /// 401 unless the request has a key that this sandbox accepts.
    fn check_key(&self, headers: &HeaderMap) -> Result<(), Answer> {
        let key = headers.get("x-api-key").map(HeaderValue::as_bytes).unwrap_or_default();
        let good = match &self.options.key {
            Some(right) => key == right.as_bytes(),
            None => !key.trim_ascii().is_empty(),
        };
        if good { Ok(()) } else { Err(refusal(401)) }
    }

    /// Waits, unless the sandbox stops first.
    async fn wait(&self, delay: Duration) {
        if !delay.is_zero() {
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                () = self.stopping.cancelled() => {}
            }
        }
    }
}

type Rooms = Shared<Arc<Room>>;

/// All endpoints.
pub(super) fn router(room: Arc<Room>) -> Router {
    Router::new()
        .route("/v1/bria-reimagine", post(model))
        .route("/upload-asset", post(upload))
        .route("/v1/get-user-credits", get(credits))
        .route("/assets/{name}", get(asset))
        .fallback(elsewhere)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn(doorman))
        .with_state(room)
}

/// Lets in only who means this host, and numbers the answers. A page on the web that has its name resolved to
/// 127.0.0.1 would else read what lies here.
async fn doorman(request: HttpRequest, next: Next) -> Response {
    let host = request.headers().get(header::HOST).map(|host| String::from_utf8_lossy(host.as_bytes()).into_owned());
    let mut response = if host.is_none_or(|host| is_near(&host)) {
        next.run(request).await
    } else {
        Answer::error(StatusCode::MISDIRECTED_REQUEST, "the sandbox answers for loopback names only").send()
    };
    let id = format!("sandbox-{:016x}", getrandom::u64().unwrap_or_default());
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert("x-request-id", id);
    }
    response
}

fn is_near(host: &str) -> bool {
    let Ok(url) = url::Url::parse(&format!("http://{host}/")) else { return false };
    match url.host() {
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        None => false,
    }
}

fn refusal(status: u16) -> Answer {
    Answer::error(StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST), replies::text_for(status))
}

fn bad_request(text: &str) -> Answer {
    Answer::error(StatusCode::BAD_REQUEST, text)
}

/// Reads a JSON body within the limit.
async fn body_of(headers: &HeaderMap, body: Body) -> Result<Bytes, Answer> {
    let mut pieces = body.into_data_stream();
    let mut whole = Vec::new();
    let mut seen = 0;
    while let Some(piece) = pieces.next().await {
        // The client went away: nobody will read this answer.
        let piece = piece.map_err(|_| bad_request("the body ended before its length"))?;
        seen += piece.len();
        if seen <= MAX_BODY_BYTES {
            whole.extend_from_slice(&piece);
        } else {
            whole = Vec::new();
        }
        if seen > MAX_DRAINED_BYTES {
            break;
        }
    }
    if seen > MAX_BODY_BYTES {
        return Err(refusal(413));
    }
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("application/json") {
        return Err(refusal(415));
    }
    Ok(Bytes::from(whole))
}

async fn model(Shared(room): Rooms, ConnectInfo(cord): ConnectInfo<Cord>, headers: HeaderMap, body: Body) -> Response {
    room.state().stats.model_calls += 1;
    match model_call(&room, &cord, &headers, body).await {
        Ok(response) => response,
        Err(refused) => refused.send(),
    }
}

/// Key, pace, body, credits and reference are checked in this order; then comes what the fault says, and
/// the price is taken before the work begins: who hangs up pays all the same.
async fn model_call(room: &Arc<Room>, cord: &Cord, headers: &HeaderMap, body: Body) -> Result<Response, Answer> {
    let started = Instant::now();
    room.check_key(headers)?;
    room.state().admit(started).map_err(|wait| {
        let seconds = wait.0.as_secs_f64().ceil().max(1.0);
        refusal(429).with("retry-after", &format!("{seconds:.0}"))
    })?;
    let body = body_of(headers, body).await?;
    if let Ok(value) = serde_json::from_slice::<Value>(&body) {
        room.state().remember_body(value);
    }
    let asked = room.state().next_fault(Endpoint::Model).filter(|fault| *fault != Fault::default());
    let checked = Request::read(&body).and_then(|request| Ok((Wish::read(&request.prompt)?, request)));
    let (wish, request) = match (checked, &asked) {
        (Ok(both), _) => both,
        // A gateway that is down does not read bodies.
        (Err(_), Some(fault)) if !fault.is_billed() => (Wish::default(), Request::default()),
        (Err(text), _) => return Err(bad_request(&text)),
    };
    let fault = asked.unwrap_or_else(|| {
        let counts = wish.times.is_none_or(|times| room.state().still_counts(&request.prompt, times));
        wish.fault.clone().filter(|_| counts).unwrap_or_default()
    });
    if !fault.is_billed() {
        room.wait(room.options.latency + fault.delay).await;
        let status = fault.status.unwrap_or(500);
        let answer = Answer::error(
            StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            fault.message.as_deref().unwrap_or(replies::text_for(status)),
        );
        return Ok(answer.send_with(&fault, cord, &room.stopping));
    }

    if !room.state().can_pay() {
        return Err(refusal(406));
    }
    let reference = match &request.structure_image_url {
        Some(url) => Some(
            reference(room, url)
                .await
                .map_err(|why| bad_request(&format!("could not fetch structure_image_url: {why}")))?,
        ),
        None => None,
    };
    if !room.state().charge() {
        return Err(refusal(406));
    }
    room.wait(room.options.latency + fault.delay).await;
    let seed = request.seed.unwrap_or_else(|| i64::from(getrandom::u32().unwrap_or_default() >> 1));
    let answer = match fault.how {
        How::Error => {
            Answer::error(StatusCode::OK, fault.message.as_deref().unwrap_or("the sandbox was asked to refuse this"))
        }
        How::Close | How::Html | How::Empty => Answer::picture("image/png", Bytes::new()),
        _ => picture(room, &request, wish.prompt, seed, reference, &fault).await?,
    };
    let left = room.state().left();
    let answer = answer
        .with("x-cost", &room.options.price.to_string())
        .with("x-remaining-credits", format!("{left:.5}").trim_end_matches('0').trim_end_matches('.'))
        .with("x-generation-time", &format!("{:.3}", started.elapsed().as_secs_f64()))
        .with("x-seed-value", &seed.to_string());
    Ok(answer.send_with(&fault, cord, &room.stopping))
}

/// Fetches and decodes a reference.
async fn reference(room: &Arc<Room>, url: &str) -> Result<RgbImage, Unfetched> {
    let bytes = match fetch::locate(url, room.address)? {
        Source::Inline(bytes) => bytes,
        Source::Asset(name) => room.state().asset(&name).ok_or(Unfetched::Gone)?.bytes,
        Source::Loopback { address, host, path } => fetch::get(address, &host, &path).await?,
    };
    let _easel = room.easels.acquire().await;
    // A decoder that panics on a hostile picture is that picture's failure.
    tokio::task::spawn_blocking(move || fetch::decode(&bytes))
        .await
        .unwrap_or_else(|_| Err(Unfetched::Broken("the decoder gave up".into())))
}

/// Paints, and packs the picture as the options or the fault will have it.
async fn picture(
    room: &Arc<Room>,
    request: &Request,
    prompt: String,
    seed: i64,
    reference: Option<RgbImage>,
    fault: &Fault,
) -> Result<Answer, Answer> {
    let order = Order {
        prompt,
        influence: request.influence,
        steps: request.steps,
        fast: request.fast,
        enhance: request.enhance,
        seed,
    };
    let (format, reply) = match fault.how {
        How::Half => (Format::Jpeg, Reply::Image),
        How::Cut | How::Endless => (room.options.format, Reply::Image),
        How::As(reply) => (room.options.format, reply),
        _ => (room.options.format, room.options.reply),
    };
    let painted = {
        let _easel = room.easels.acquire().await;
        tokio::task::spawn_blocking(move || {
            paint::paint(reference.as_ref(), &order).and_then(|picture| replies::encode(&picture, format))
        })
        .await
    };
    let failed = |why: String| {
        Answer::error(StatusCode::INTERNAL_SERVER_ERROR, &format!("the sandbox cannot paint this: {why}"))
    };
    let (mime, extension, bytes) = painted.map_err(|e| failed(e.to_string()))?.map_err(|e| failed(e.to_string()))?;
    let text = || base64::engine::general_purpose::STANDARD.encode(&bytes);
    let address = || room.url_of(&room.state().keep_asset(extension, Asset { mime, bytes: bytes.clone() }));
    let value = match reply {
        Reply::Image => return Ok(Answer::picture(mime, bytes)),
        Reply::Url => json!({ "image_url": address() }),
        Reply::Base64 => json!({ "image": text() }),
        Reply::DataUri => json!({ "image": format!("data:{mime};base64,{}", text()) }),
        Reply::Nested => json!({ "result": [{ "urls": [address()], "seed": seed }] }),
    };
    Ok(Answer::json(StatusCode::OK, &value))
}

async fn upload(Shared(room): Rooms, ConnectInfo(cord): ConnectInfo<Cord>, headers: HeaderMap, body: Body) -> Response {
    room.state().stats.uploads += 1;
    let read = match room.check_key(&headers) {
        Ok(()) => body_of(&headers, body).await,
        Err(refused) => Err(refused),
    };
    let body = match read {
        Ok(body) => body,
        Err(refused) => return refused.send(),
    };
    let fault = room.state().next_fault(Endpoint::Upload).unwrap_or_default();
    failing(&room, &cord, fault, || keep_uploads(&room, &body).unwrap_or_else(|text| bad_request(&text))).await
}

/// Keeps all pictures of an upload, or none.
fn keep_uploads(room: &Room, body: &[u8]) -> Result<Answer, String> {
    let value: Value = serde_json::from_slice(body).map_err(|e| format!("the body is not JSON: {e}"))?;
    let list = value.get("data_urls").ok_or("\"data_urls\" is required")?;
    let list = list.as_array().filter(|list| (1..=MAX_PICTURES).contains(&list.len()));
    let list = list.ok_or_else(|| format!("\"data_urls\" must be a list of 1 to {MAX_PICTURES} data: URIs"))?;
    let mut pictures = Vec::with_capacity(list.len());
    for (i, one) in list.iter().enumerate() {
        let bytes = one.as_str().and_then(fetch::data_uri).and_then(Result::ok);
        let bytes = bytes.ok_or_else(|| format!("\"data_urls\"[{i}] is no data: URI with base64"))?;
        match fetch::kind(&bytes) {
            Some((mime, extension)) if fetch::is_picture(&bytes) => pictures.push((extension, Asset { mime, bytes })),
            _ => return Err(format!("\"data_urls\"[{i}] is not a JPEG, PNG or WebP picture")),
        }
    }
    let urls: Vec<String> = pictures
        .into_iter()
        .map(|(extension, asset)| room.state().keep_upload(extension, asset))
        .map(|name| room.url_of(&name))
        .collect();
    Ok(Answer::json(
        StatusCode::OK,
        &match room.options.upload_reply {
            UploadReply::FileUrls => json!({ "file_urls": urls, "message": "File(s) uploaded successfully" }),
            UploadReply::Urls => json!({ "urls": urls }),
        },
    ))
}

async fn credits(Shared(room): Rooms, ConnectInfo(cord): ConnectInfo<Cord>, headers: HeaderMap) -> Response {
    room.state().stats.credits_calls += 1;
    if let Err(refused) = room.check_key(&headers) {
        return refused.send();
    }
    let fault = room.state().next_fault(Endpoint::Credits).unwrap_or_default();
    failing(&room, &cord, fault, || {
        if room.options.no_credits_found {
            return Answer::error(StatusCode::NOT_FOUND, "No credits found for the user");
        }
        let state = room.state();
        Answer::json(
            StatusCode::OK,
            &json!({ "credits": state.stats.credits, "free-credits": state.stats.free_credits }),
        )
    })
    .await
}

/// An answer that costs nothing, under a fault. `good` is asked only if the fault lets it be.
async fn failing(room: &Room, cord: &Cord, fault: Fault, good: impl FnOnce() -> Answer) -> Response {
    room.wait(fault.delay).await;
    let text = |status: u16| fault.message.as_deref().unwrap_or(replies::text_for(status)).to_owned();
    let answer = match fault.status {
        Some(status) if status != 200 => {
            Answer::error(StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), &text(status))
        }
        _ if fault.how == How::Error => Answer::error(StatusCode::OK, &text(200)),
        _ => good(),
    };
    answer.send_with(&fault, cord, &room.stopping)
}

async fn asset(Shared(room): Rooms, Path(name): Path<String>) -> Response {
    let found = {
        let mut state = room.state();
        state.stats.asset_reads += 1;
        state.asset(&name)
    };
    match found {
        Some(asset) => Answer::picture(asset.mime, asset.bytes).send(),
        None => refusal(404).send(),
    }
}

async fn elsewhere(Shared(room): Rooms) -> Response {
    room.state().stats.other += 1;
    (StatusCode::NOT_FOUND, Html(replies::html(StatusCode::NOT_FOUND, None))).into_response()
}

async fn wrong_method(Shared(room): Rooms) -> Response {
    room.state().stats.other += 1;
    (StatusCode::METHOD_NOT_ALLOWED, Html(replies::html(StatusCode::METHOD_NOT_ALLOWED, None))).into_response()
}
