//! What each answer of the API comes to: the real binary over scripted answers.

#![allow(clippy::unwrap_used, reason = "tests say so by failing")]

use crate::support;

use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use serde_json::json;
use support::api::{CREDITS, MODEL, Request, UPLOAD};
use support::{Answer, Api, Gate, KEY, Site, pictures};

/// One picture, `run --once` with the answer of `script` to each model call: the site, and the exit code.
fn one(script: impl Fn(&support::Call) -> Answer + Send + Sync + 'static) -> (Site, i32) {
    let site = Site::new();
    site.api.on_model(script);
    site.put_picture("inbox/a.jpg");
    let code = site.once();
    (site, code)
}

fn base64(bytes: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// The drop is in errors, was sent once, and its note says of the bill what it should.
#[track_caller]
fn ended_in_errors(what: &str, site: &Site, code: i32, sends: usize, billed: &str) -> String {
    assert_eq!(code, 3, "{what}\n{}", site.describe());
    assert_eq!(site.names("errors"), ["a.error.txt", "a.jpg"], "{what}");
    assert!(site.names("outbox").is_empty(), "{what}");
    assert_eq!(site.api.calls().len(), sends, "{what}");
    let note = site.note("errors/a.error.txt");
    assert!(note.contains(&format!("billed: {billed}")), "{what}: {note}");
    let calls = site.api.calls().len();
    assert_eq!(site.once(), 0, "{what}");
    assert_eq!(site.api.calls().len(), calls, "{what}: never sent again by itself");
    note
}

#[test]
fn every_form_of_a_good_reply_is_delivered_byte_for_byte() {
    let png = pictures::png(50);
    let jpeg = pictures::jpeg(51);
    let webp = pictures::encoded(52, 20, 20, image::ImageFormat::WebP);
    let site = Site::new();
    let asset = site.api.url() + "/results/one";
    let forms: Vec<(&str, Answer, &str, Vec<u8>)> = vec![
        ("png", Answer::picture(&png), "png", png.clone()),
        ("jpeg-called-png", Answer::picture(&jpeg), "jpg", jpeg.clone()),
        ("webp", Answer::new(200, "image/webp", webp.clone()), "webp", webp.clone()),
        ("octets", Answer::new(200, "application/octet-stream", png.clone()), "png", png.clone()),
        ("untyped", Answer::new(200, "", png.clone()), "png", png.clone()),
        ("image", Answer::json(200, &json!({ "image": asset })), "png", png.clone()),
        ("output", Answer::json(200, &json!({ "output": asset })), "png", png.clone()),
        ("output-list", Answer::json(200, &json!({ "output": [asset] })), "png", png.clone()),
        ("image_url", Answer::json(200, &json!({ "image_url": asset })), "png", png.clone()),
        ("images", Answer::json(200, &json!({ "images": [{ "url": asset }] })), "png", png.clone()),
        ("result", Answer::json(200, &json!({ "result": [{ "urls": [asset], "seed": 5 }] })), "png", png.clone()),
        ("base64", Answer::json(200, &json!({ "image": base64(&jpeg) })), "jpg", jpeg.clone()),
        (
            "data",
            Answer::json(200, &json!({ "image": format!("data:image/png;base64,{}", base64(&png)) })),
            "png",
            png.clone(),
        ),
    ];
    let answers: Vec<(String, Answer)> = forms.iter().map(|(name, a, ..)| ((*name).to_owned(), a.clone())).collect();
    site.api.on_model(move |call| answers.iter().find(|(name, _)| *name == call.prompt).unwrap().1.clone());
    let served = png.clone();
    site.api.on_other(move |request, _| {
        (request.path == "/results/one").then(|| Answer::new(200, "image/png", served.clone()))
    });
    for (name, ..) in &forms {
        site.put(format!("inbox/{name}.txt"), name);
    }
    assert_eq!(site.once(), 0, "{}", site.describe());
    for (name, _, extension, bytes) in &forms {
        let found = site.files("outbox").remove(Path::new(&format!("{name}.{extension}")));
        assert!(found.as_ref() == Some(bytes), "{name}\n{:?}", site.names("outbox"));
    }
    for request in site.api.to("/results/") {
        assert_eq!(request.header("x-api-key"), None, "a download carries no key");
    }
    assert!(!site.text("outbox/image.reimagined.json").contains("/results/one"));
}

#[test]
fn the_headers_of_an_answer_are_kept_in_the_provenance_and_the_status() {
    let (site, code) = one(|call| {
        call.good().header("x-cost", "0.0425").header("x-seed-value", "77").header("x-remaining-credits", "3.25")
    });
    assert_eq!(code, 0);
    let provenance = site.provenance("outbox/a.reimagined.json");
    assert_eq!(provenance["cost"], 0.0425);
    assert_eq!(provenance["seed"], 77);
    assert_eq!(provenance["request_id"], "r-1");
    assert_eq!(provenance["attempts"], 1);
    assert_eq!(provenance["unconfirmed_attempts"], false);
    assert!(!provenance.to_string().contains("3.25"), "not the credits left");
    let status = site.status();
    assert_eq!(status["credits"], 3.25);
    assert_eq!(status["last_24h"], json!({ "images": 1, "cost": 0.0425, "unpriced": 0 }));
}

#[test]
fn a_200_that_is_no_picture_is_unconfirmed_and_never_sent_again_by_itself() {
    let png = pictures::png(60);
    let cut = png.len() - 20;
    for (what, answer) in [
        ("empty", Answer::new(200, "image/png", "")),
        ("html", Answer::new(200, "text/html", "<html><body>Welcome</body></html>")),
        ("not whole", Answer::picture(&png[..cut])),
        ("cut", Answer::picture(&png).cut(cut)),
        ("text called png", Answer::new(200, "image/png", "hello")),
        ("empty object", Answer::json(200, &json!({}))),
        ("a list", Answer::json(200, &json!([1, 2]))),
        ("half a json", Answer::new(200, "application/json", "{\"image\": \"http")),
        ("no content", Answer::new(204, "", "")),
        ("accepted", Answer::json(202, &json!({ "status": "queued" }))),
        ("created, with a picture", Answer::new(201, "image/png", png.clone())),
    ] {
        let (site, code) = one(move |_| answer.clone());
        ended_in_errors(what, &site, code, 1, "unknown");
    }
}

#[test]
fn a_connection_lost_after_the_request_is_unconfirmed() {
    for (what, answer) in [
        ("closed", Answer::hangup()),
        ("half a head", Answer::raw("HTTP/1.1 200 OK\r\ncontent-ty")),
        ("garbage", Answer::raw("\0\0what is this\r\n\r\n")),
    ] {
        let (site, code) = one(move |_| answer.clone());
        ended_in_errors(what, &site, code, 1, "unknown");
    }
}

#[test]
fn an_answer_that_does_not_come_in_time_is_unconfirmed() {
    let site = Site::new();
    site.set("api.timeout", "500ms");
    let gate = Gate::default();
    let held = gate.clone();
    site.api.on_model(move |call| call.good().after(&held));
    site.put_picture("inbox/a.jpg");
    let code = site.once();
    ended_in_errors("timeout", &site, code, 1, "unknown");
    gate.open();
}

#[test]
fn a_body_that_never_ends_is_given_up() {
    let site = Site::new();
    site.set("api.timeout", "2s");
    site.api.on_model(|_| Answer::new(200, "application/json", vec![b' '; 1 << 20]).endless());
    site.put_picture("inbox/a.jpg");
    let code = site.once();
    ended_in_errors("endless", &site, code, 1, "unknown");
}

#[test]
fn a_200_with_an_error_and_no_picture_is_the_drops_refusal_with_an_unknown_bill() {
    for key in ["error", "detail", "message"] {
        let (site, code) = one(move |_| Answer::json(200, &json!({ key: "the picture was not nice" })));
        let note = ended_in_errors(key, &site, code, 1, "unknown");
        assert!(note.contains("the picture was not nice"), "{note}");
    }
}

#[test]
fn a_refused_request_goes_to_errors_at_once_with_the_apis_own_words() {
    for status in [400, 413, 415, 422, 460, 409, 418, 451] {
        let (site, code) = one(move |_| Answer::error(status, "the seed must be pretty"));
        let note = ended_in_errors(&status.to_string(), &site, code, 1, "no");
        assert!(note.contains("the seed must be pretty"), "{note}");
    }
}

#[test]
fn server_trouble_is_tried_again_until_the_attempts_are_used_up() {
    for status in [500, 502, 503] {
        let (site, code) = one(move |_| Answer::error(status, "oops"));
        let note = ended_in_errors(&status.to_string(), &site, code, 4, "no");
        assert!(note.contains("oops"), "{note}");
    }
    let (site, code) = one(|call| if call.n < 3 { Answer::error(503, "oops") } else { call.good() });
    assert_eq!((code, site.api.calls().len()), (0, 3), "{}", site.describe());
    assert_eq!(site.provenance("outbox/a.reimagined.json")["attempts"], 3);
}

#[test]
fn a_gateway_that_gave_up_is_unconfirmed() {
    for (status, text) in [
        (408, "oops"),
        (504, "oops"),
        (520, "oops"),
        (524, "oops"),
        (501, "oops"),
        (599, "oops"),
        (500, "Request timed out"),
        (502, "polling the job failed"),
    ] {
        let (site, code) = one(move |_| Answer::error(status, text));
        ended_in_errors(&status.to_string(), &site, code, 1, "unknown");
    }
}

#[test]
fn a_timeout_is_heard_wherever_an_answer_speaks_of_it() {
    for body in [
        json!({"error": "Generation failed", "details": "Polling timed out after 100 s"}),
        json!({"error": {"code": "TIMEOUT", "message": "generation failed"}}),
        json!({"message": "Upstream failed", "type": "gateway_timeout"}),
        json!({"error": "JOB_TIMED_OUT"}),
    ] {
        let said = body.clone();
        let (site, code) = one(move |_| Answer::json(500, &said));
        ended_in_errors(&body.to_string(), &site, code, 1, "unknown");
    }
}

#[test]
fn the_reference_that_was_sent_is_never_taken_for_the_result() {
    for key in ["image_url", "url", "reference"] {
        let (site, code) = one(move |call| {
            let sent = call.request.reference().unwrap();
            Answer::json(200, &json!({ "error": "could not download the reference", key: sent }))
        });
        let note = ended_in_errors(key, &site, code, 1, "unknown");
        assert!(note.contains("could not download the reference"), "{note}");
    }
    let (site, code) = one(|call| Answer::json(200, &json!({ "image": call.request.reference().unwrap() })));
    ended_in_errors("alone", &site, code, 1, "unknown");
}

#[test]
fn words_beside_what_is_no_address_are_a_refusal() {
    for beside in [json!("N/A"), json!("/docs/moderation")] {
        let body = json!({ "message": "blocked by moderation", "url": beside });
        let (site, code) = one(move |_| Answer::json(200, &body));
        let note = ended_in_errors(&beside.to_string(), &site, code, 1, "unknown");
        assert!(note.contains("blocked by moderation"), "{note}");
    }
}

#[test]
fn a_html_error_page_is_an_answer_like_others() {
    let (site, code) = one(|_| Answer::new(422, "text/html", "<html><h1>Unprocessable</h1></html>"));
    ended_in_errors("html", &site, code, 1, "no");
}

/// A daemon that pauses for `status`: nothing moves, it goes on by itself when the API is well again.
#[track_caller]
fn pauses_and_goes_on(status: u16, words: &str) {
    let site = Site::new();
    let well = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let is_well = well.clone();
    site.api.on_model(move |call| {
        if is_well.load(std::sync::atomic::Ordering::SeqCst) {
            call.good()
        } else {
            Answer::error(status, "go away").header("location", "http://127.0.0.1:1/elsewhere")
        }
    });
    let is_well = well.clone();
    site.api.on_other(move |request, _| {
        let refused = matches!(status, 401 | 402) && !is_well.load(std::sync::atomic::Ordering::SeqCst);
        (request.path == CREDITS && refused).then(|| {
            if status == 401 {
                Answer::error(401, "go away")
            } else {
                Answer::json(200, &json!({ "credits": 0.0, "free-credits": 0.001 }))
            }
        })
    });
    for n in 0..5 {
        site.put_picture(format!("inbox/{n}.jpg"));
        site.put(format!("inbox/{n}.txt"), format!("prompt {n}"));
    }
    let daemon = site.run();
    site.wait("it is paused", || site.status()["state"] == "paused");
    site.wait("it says why", || site.paused().is_some_and(|why| why.contains(words)));
    site.wait("all is back in the inbox", || site.names("inbox").len() == 10 && site.names("working").is_empty());
    assert!(site.names("errors").is_empty() && site.names("outbox").is_empty());
    let credits = site.api.to(CREDITS).len();
    if matches!(status, 401 | 402) {
        site.wait("it probes for free", || site.api.to(CREDITS).len() > credits + 2);
        let calls = site.api.calls().len();
        assert!(calls <= 4, "only what was in flight was sent: {calls}");
    }
    well.store(true, std::sync::atomic::Ordering::SeqCst);
    site.wait("all is done", || site.results().len() == 5);
    site.wait("it says so", || site.status()["state"] == "running");
    site.wait("the originals are filed", || site.names("archive").len() == 10);
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn a_refused_key_pauses_everything() {
    pauses_and_goes_on(401, "key");
}

#[test]
fn no_credits_pause_everything() {
    pauses_and_goes_on(402, "credits");
}

#[test]
fn a_gone_or_moved_endpoint_pauses_everything() {
    for status in [404, 405, 410, 301, 307] {
        pauses_and_goes_on(status, "address");
    }
}

#[test]
fn the_credits_decide_whose_fault_a_403_or_406_is() {
    for status in [403, 406] {
        let (site, code) = one(move |_| Answer::error(status, "not permitted"));
        let note = ended_in_errors("good credits", &site, code, 1, "no");
        assert!(note.contains("not permitted"), "{note}");
        let odd: Vec<(&str, Answer)> = vec![
            ("low", Answer::json(200, &json!({ "credits": 0.0, "free-credits": 0.018 }))),
            ("refused", Answer::error(401, "bad key")),
            ("odd", Answer::new(200, "text/html", "<html>")),
            ("trouble", Answer::error(500, "oops")),
            ("none found", Answer::error(404, "No credits found for the user")),
        ];
        for (what, credits) in odd {
            let site = Site::new();
            site.api.on_model(move |_| Answer::error(status, "not permitted"));
            site.api.on_other(move |request, _| (request.path == CREDITS).then(|| credits.clone()));
            site.put_picture("inbox/a.jpg");
            assert_eq!(site.once(), 4, "{what} {status}\n{}", site.describe());
            assert_eq!(site.names("inbox"), ["a.jpg"], "{what}");
            assert!(site.names("errors").is_empty(), "{what}");
        }
    }
}

#[test]
fn a_redirect_of_a_keyed_request_is_not_followed() {
    let elsewhere = Api::start();
    let there = elsewhere.url() + MODEL;
    let (site, code) = one(move |_| Answer::new(307, "text/html", "").header("location", &there));
    assert_eq!(code, 4);
    assert!(elsewhere.requests().is_empty(), "the key went nowhere else");
    assert_eq!(site.names("inbox"), ["a.jpg"]);
}

#[test]
fn a_redirected_upload_and_credits_request_are_not_followed_either() {
    let elsewhere = Api::start();
    let there = elsewhere.url();
    let site = Site::new();
    site.api.on_other(move |request, _| {
        matches!(request.path.as_str(), UPLOAD | CREDITS)
            .then(|| Answer::new(308, "text/html", "").header("location", &format!("{there}{}", request.path)))
    });
    site.put_picture("inbox/a.jpg");
    assert_eq!(site.once(), 4);
    assert!(elsewhere.requests().is_empty());
    assert_eq!(site.names("inbox"), ["a.jpg"]);
}

#[test]
fn a_rate_limit_is_waited_out_and_costs_no_attempt() {
    let date = httpdate::fmt_http_date(std::time::SystemTime::now() + Duration::from_secs(3));
    let past = "Sun, 06 Nov 1994 08:49:37 GMT".to_owned();
    for (what, header, value, at_least) in [
        ("seconds", "retry-after", "1".to_owned(), 1000),
        ("date", "retry-after", date, 0),
        ("unreadable", "retry-after", "soon".to_owned(), 0),
        ("past", "retry-after", past, 0),
        ("none", "x-nothing", "1".to_owned(), 0),
    ] {
        let site = Site::new();
        site.set("retry.max_attempts", 1);
        site.api.on_model(move |call| {
            if call.n <= 2 { Answer::error(429, "slow down").header(header, &value) } else { call.good() }
        });
        site.put_picture("inbox/a.jpg");
        assert_eq!(site.once(), 0, "{what}\n{}", site.describe());
        let calls = site.api.calls();
        assert_eq!(calls.len(), 3, "{what}");
        assert!(calls[1].at - calls[0].at >= Duration::from_millis(at_least), "{what}");
        assert_eq!(site.results(), ["a.png"]);
    }
}

#[test]
fn a_rate_limit_is_waited_out_whatever_else_pauses() {
    let site = Site::new();
    site.set("api.max_in_flight", 2);
    site.api.on_model(|call| match (call.prompt.as_str(), call.nth) {
        ("a", 1) => Answer::error(401, "no such key").later(Duration::from_millis(100)),
        ("b", 1) => Answer::error(429, "slow down").header("retry-after", "4").later(Duration::from_millis(300)),
        _ => call.good(),
    });
    for prompt in ["a", "b"] {
        site.put(format!("inbox/{prompt}.txt"), prompt);
    }
    let daemon = site.run();
    site.wait("all are done", || site.results().len() == 2);
    let calls = site.api.calls();
    let after = calls[2].at - calls[1].at;
    assert!(after >= Duration::from_secs(4), "{after:?}: {}", site.describe());
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn a_drop_that_is_told_to_wait_again_and_again_does_not_starve_others() {
    let site = Site::new();
    site.set("api.max_in_flight", 1);
    site.api.on_model(|call| match (call.prompt.as_str(), call.n) {
        (_, 1) => Answer::error(404, "no such model"),
        ("c", _) => Answer::error(429, "slow down").header("retry-after", "1"),
        _ => call.good(),
    });
    for prompt in ["a", "b", "c"] {
        site.put(format!("inbox/{prompt}.txt"), prompt);
    }
    let daemon = site.run();
    site.wait("the others are done", || site.results().len() == 2);
    assert_eq!(daemon.stop(), 0);
    site.give_up();
}

#[test]
fn a_long_rate_limit_counts_as_an_hour_and_is_told() {
    let site = Site::new();
    site.api.on_model(|_| Answer::error(429, "slow down").header("retry-after", "86400"));
    site.put_picture("inbox/a.jpg");
    let _daemon = site.run();
    site.wait("it is paused", || site.status()["state"] == "paused");
    let paused = site.status()["paused"].clone();
    let time = |key: &str| paused[key].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    let wait = time("until").duration_since(time("since")).as_secs();
    assert!((3500..=3600).contains(&wait), "{paused}");
    assert_eq!(site.api.calls().len(), 1);
    assert!(site.names("errors").is_empty());
}

#[test]
fn no_connection_pauses_and_goes_on_by_itself() {
    let site = Site::new();
    site.api.go_down();
    for n in 0..4 {
        site.put_picture(format!("inbox/{n}.jpg"));
    }
    site.put("inbox/alone.txt", "no upload");
    let daemon = site.run();
    site.wait("it is paused", || site.status()["state"] == "paused");
    site.wait("it says why", || site.paused().is_some_and(|why| why.contains("no connection")));
    site.wait("nothing is in work", || site.names("working").is_empty());
    assert_eq!(site.names("inbox").len(), 5);
    site.api.come_back();
    site.wait("all is done", || site.results().len() == 5 && site.is_empty());
    assert_eq!(site.api.calls().len(), 5);
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn three_drops_in_a_row_that_meet_trouble_pause_everything() {
    let site = Site::new();
    site.set("api.max_in_flight", 1).set("retry.probe_interval", "10m").set("retry.max_attempts", 10);
    site.api.on_model(|_| Answer::error(503, "down"));
    for n in 0..6 {
        site.put_picture(format!("inbox/{n}.jpg"));
    }
    let _daemon = site.run();
    site.wait("it is paused", || site.status()["state"] == "paused");
    site.wait("all is back", || site.names("inbox").len() == 6);
    assert!(site.api.calls().len() <= 12, "{}", site.api.calls().len());
    assert!(site.names("errors").is_empty());
}

#[test]
fn an_outage_does_not_empty_the_queue_into_errors() {
    let site = Site::new();
    site.set("retry.probe_interval", "50ms").set("retry.max_attempts", 2);
    site.api.on_model(|call| if call.n <= 30 { Answer::error(503, "down") } else { call.good() });
    for n in 0..8 {
        site.put_picture(format!("inbox/{n}.jpg"));
    }
    let _daemon = site.run();
    site.wait("all is done", || site.is_empty());
    assert!(site.names("errors").len() <= 2 * 3, "{:?}", site.names("errors"));
    assert!(site.results().len() >= 5, "{:?}", site.results());
}

#[test]
fn a_refused_cached_upload_is_uploaded_again_once() {
    let site = Site::new();
    let bytes = site.a_picture();
    site.put("inbox/first.jpg", &bytes);
    assert_eq!(site.once(), 0);
    site.api.on_model(|call| {
        if call.request.reference().is_some_and(|url| url.ends_with("/1.jpg")) {
            Answer::error(422, "structure_image_url can't be fetched")
        } else {
            call.good()
        }
    });
    site.put("inbox/second.jpg", &bytes);
    assert_eq!(site.once(), 0, "{}", site.describe());
    assert_eq!((site.api.uploads().len(), site.api.calls().len()), (2, 3));
    site.api.on_model(|_| Answer::error(422, "never"));
    site.put("inbox/third.jpg", &bytes);
    assert_eq!(site.once(), 3);
    assert_eq!((site.api.uploads().len(), site.api.calls().len()), (3, 5), "once, not for ever");
    assert!(site.has("errors/third.error.txt"));
}

#[test]
fn shots_that_are_refused_with_a_cached_upload_share_the_next_one() {
    let site = Site::new();
    let bytes = site.a_picture();
    site.put("inbox/first.jpg", &bytes);
    assert_eq!(site.once(), 0);
    site.set("api.max_in_flight", 2);
    site.api.on_model(|call| {
        if !call.request.reference().is_some_and(|url| url.ends_with("/1.jpg")) {
            return call.good();
        }
        // The first comes back while the others are out, and is sent with the new one by then.
        let late = Duration::from_millis(if call.seed == Some(1) { 0 } else { 700 });
        Answer::error(400, "structure_image_url can't be fetched").later(late)
    });
    site.put("inbox/second.jpg", &bytes);
    site.put("inbox/second.toml", "seeds = [1, 2, 3, 4, 5]\n");
    assert_eq!(site.once(), 0, "{}", site.describe());
    assert_eq!(site.api.uploads().len(), 2, "one more for all of them");
    assert_eq!(site.results().len(), 6);
    // All of them together.
    let site = Site::new();
    site.put("inbox/first.jpg", &bytes);
    assert_eq!(site.once(), 0);
    site.api.on_model(|call| {
        if call.request.reference().is_some_and(|url| url.ends_with("/1.jpg")) {
            Answer::error(400, "structure_image_url can't be fetched").later(Duration::from_millis(300))
        } else {
            call.good()
        }
    });
    site.put("inbox/second.jpg", &bytes);
    site.put("inbox/second.toml", "variants = 4\n");
    assert_eq!(site.once(), 0, "{}", site.describe());
    assert_eq!((site.api.uploads().len(), site.api.calls().len()), (2, 1 + 4 + 4));
}

#[test]
fn a_refused_fresh_upload_is_not_uploaded_again() {
    let (site, code) = one(|_| Answer::error(422, "no"));
    assert_eq!((code, site.api.uploads().len(), site.api.calls().len()), (3, 1, 1));
}

#[test]
fn an_upload_that_fails_for_a_while_is_tried_again_and_one_that_is_refused_fails_the_drop() {
    let site = Site::new();
    site.api.on_other(|request, n| (request.path == UPLOAD && n <= 2).then(|| Answer::error(500, "oops")));
    site.put_picture("inbox/a.jpg");
    assert_eq!(site.once(), 0, "{}", site.describe());
    assert_eq!((site.api.to(UPLOAD).len(), site.api.calls().len()), (3, 1));
    let site = Site::new();
    site.api.on_other(|request, _| (request.path == UPLOAD).then(|| Answer::error(413, "too large for us")));
    site.put_picture("inbox/a.jpg");
    assert_eq!(site.once(), 3);
    assert!(site.note("errors/a.error.txt").contains("too large for us"));
    assert!(site.api.calls().is_empty());
}

#[test]
fn an_uploads_refusal_is_no_reference_whatever_it_links_to() {
    let site = Site::new();
    let refusal = json!({ "error": "upload quota exceeded", "docs": "https://docs.example/errors" });
    site.api.on_other(move |request, _| (request.path == UPLOAD).then(|| Answer::json(200, &refusal)));
    site.put_picture("inbox/a.jpg");
    assert_eq!(site.once(), 3, "{}", site.describe());
    assert!(site.note("errors/a.error.txt").contains("upload quota exceeded"));
    assert!(site.api.calls().is_empty(), "nothing is bought");
}

#[test]
fn a_picture_that_was_sent_is_never_the_result_that_comes_back() {
    // There is nothing in it that stays here.
    let picture = pictures::jpeg(5);
    for mode in ["inline", "upload"] {
        let site = Site::new();
        site.set("reference.mode", mode);
        let refusal = json!({ "error": "the picture was refused by moderation", "image": base64(&picture) });
        site.api.on_model(move |_| Answer::json(200, &refusal));
        site.put("inbox/a.jpg", &picture);
        assert_eq!(site.once(), 3, "{mode}\n{}", site.describe());
        assert!(site.note("errors/a.error.txt").contains("refused by moderation"), "{mode}");
        assert!(site.results().is_empty(), "{mode}: {:?}", site.results());
        let inline = format!("data:image/jpeg;base64,{}", base64(&picture));
        assert!(site.api.uploads().iter().all(|(_, sent)| *sent == picture));
        assert_eq!(site.api.calls()[0].reference() == Some(inline), mode == "inline");
    }
}

#[test]
fn json_that_is_nearly_json_still_brings_its_picture() {
    let picture = base64(&pictures::png(7));
    for odd in ["NaN", "-Infinity", "1e999", r#""half of a smiley \ud83d""#] {
        let body = format!(r#"{{"image": "{picture}", "odd": {odd}}}"#);
        let (site, code) = one(move |_| Answer::new(200, "application/json", body.clone()));
        assert_eq!((code, site.results().len()), (0, 1), "{odd}\n{}", site.describe());
    }
}

#[test]
fn an_answer_that_came_while_the_daemon_stood_still_counts() {
    let site = Site::new();
    site.set("api.timeout", "4s").set("retry.unconfirmed", "retry");
    let gate = Gate::default();
    let answered = gate.clone();
    site.api.on_model(move |call| call.good().after(&answered));
    let daemon = site.run();
    site.put_picture("inbox/a.jpg");
    site.wait("it is sent", || site.api.calls().len() == 1);
    let sent = std::time::Instant::now();
    daemon.signal(rustix::process::Signal::STOP);
    gate.open();
    // Well behind the time that it has for an answer.
    site.wait("its time is over", || sent.elapsed() > Duration::from_secs(6));
    daemon.signal(rustix::process::Signal::CONT);
    site.wait_archived("a.jpg");
    assert_eq!((site.results().len(), site.api.calls().len(), daemon.stop()), (1, 1, 0), "{}", site.describe());
}

#[test]
fn another_picture_of_a_name_neither_waits_for_the_one_before_nor_inherits_its_tries() {
    let site = Site::new();
    site.set("retry.max_attempts", 2).set("retry.first_delay", "1h").set("retry.max_delay", "1h");
    site.api.on_other(|request, n| (request.path == UPLOAD && n <= 2).then(|| Answer::error(500, "oops")));
    let _daemon = site.run();
    for tries in 1..=2 {
        let bytes = site.put_picture("inbox/a.jpg");
        site.wait("its upload is tried", || site.api.to(UPLOAD).len() == tries);
        std::fs::remove_file(site.path("inbox/a.jpg")).unwrap();
        site.forget(&bytes);
    }
    site.put_picture("inbox/a.jpg");
    site.wait_archived("a.jpg");
    assert_eq!((site.api.to(UPLOAD).len(), site.api.calls().len()), (3, 1));
}

#[test]
fn both_shapes_of_an_uploads_answer_are_taken() {
    let site = Site::new();
    let url = "https://cdn.example.com/someone%40example.com/x.jpg";
    site.api.on_other(move |request, _| (request.path == UPLOAD).then(|| Answer::json(200, &json!({ "urls": [url] }))));
    site.put_picture("inbox/a.jpg");
    assert_eq!(site.once(), 0, "{}", site.describe());
    assert_eq!(site.api.calls()[0].reference().as_deref(), Some(url));
}

#[test]
fn variants_are_one_upload_and_a_call_for_each_seed() {
    let site = Site::new();
    site.put_picture("inbox/a.jpg");
    site.put("inbox/a.toml", "variants = 3\nseed = 10\n");
    site.put_picture("inbox/b.jpg");
    site.put("inbox/b.toml", "seeds = [7, 42]\n");
    site.put_picture("inbox/c.jpg");
    site.put("inbox/c.toml", "variants = 2\n");
    assert_eq!(site.once(), 0, "{}", site.describe());
    assert_eq!((site.api.uploads().len(), site.api.calls().len()), (3, 7));
    let mut seeds: Vec<i64> = site.api.calls().iter().map(|r| r.seed().unwrap()).collect();
    seeds.sort_unstable();
    for seed in [10, 11, 12, 7, 42] {
        assert!(seeds.contains(&seed), "{seeds:?}");
    }
    seeds.dedup();
    assert_eq!(seeds.len(), 7, "drawn ones differ");
    for name in ["a-10.png", "a-11.png", "a-12.png", "b-7.png", "b-42.png"] {
        assert!(site.results().contains(&name.to_owned()), "{:?}", site.results());
    }
}

#[test]
fn a_drop_of_which_some_shots_failed_keeps_its_results_and_comes_back_for_the_others_alone() {
    let site = Site::new();
    site.api.on_model(|call| if call.seed == Some(8) { Answer::error(422, "not eight") } else { call.good() });
    let picture = site.put_picture("inbox/a.jpg");
    site.put("inbox/a.toml", "seeds = [7, 8, 9]\n");
    assert_eq!(site.once(), 3);
    assert_eq!(site.results(), ["a-7.png", "a-9.png"]);
    let note = site.note("errors/a.error.txt");
    for words in ["seed 7: delivered as a-7.png; billed: yes", "seed 8: failed", "not eight", "seed 9: delivered"] {
        assert!(note.contains(words), "{words} is not in: {note}");
    }
    site.api.on_model(support::Call::good);
    // Under another name, image and sidecar together.
    std::fs::rename(site.path("errors/a.toml"), site.path("inbox/b.toml")).unwrap();
    std::fs::rename(site.path("errors/a.jpg"), site.path("inbox/b.jpg")).unwrap();
    assert_eq!(site.once(), 0, "{}", site.describe());
    let seeds: Vec<_> = site.api.calls()[3..].iter().map(Request::seed).collect();
    assert_eq!(seeds, [Some(8)], "only what was not delivered");
    assert_eq!(site.results().len(), 3);
    assert_eq!(site.files("archive")[Path::new("b.jpg")], picture);
    assert!(site.names("errors").is_empty(), "our own note was taken away: {:?}", site.names("errors"));
}

#[test]
fn drawn_seeds_are_kept_when_a_drop_comes_back() {
    let site = Site::new();
    site.api.on_model(|_| Answer::error(422, "no"));
    site.put_picture("inbox/a.jpg");
    site.put("inbox/a.toml", "variants = 2\n");
    assert_eq!(site.once(), 3);
    let seeds = |calls: &[Request]| {
        let mut seeds: Vec<_> = calls.iter().map(|r| r.seed().unwrap()).collect();
        seeds.sort_unstable();
        seeds
    };
    let drawn = seeds(&site.api.calls());
    site.api.on_model(support::Call::good);
    std::fs::rename(site.path("errors/a.toml"), site.path("inbox/a.toml")).unwrap();
    std::fs::rename(site.path("errors/a.jpg"), site.path("inbox/a.jpg")).unwrap();
    assert_eq!(site.once(), 0, "{}", site.describe());
    assert_eq!(seeds(&site.api.calls()[2..]), drawn);
    assert!(site.names("errors").is_empty());
}

#[test]
fn a_drop_that_comes_back_with_another_request_is_new() {
    let site = Site::new();
    site.api.on_model(|call| if call.seed == Some(8) { Answer::error(422, "no") } else { call.good() });
    site.put_picture("inbox/a.jpg");
    site.put("inbox/a.toml", "seeds = [7, 8]\n");
    assert_eq!(site.once(), 3);
    site.api.on_model(support::Call::good);
    std::fs::rename(site.path("errors/a.jpg"), site.path("inbox/a.jpg")).unwrap();
    site.put("inbox/a.toml", "seeds = [7, 8]\nsteps_num = 5\n");
    assert_eq!(site.once(), 0);
    assert_eq!(site.api.calls().len(), 4);
    assert_eq!(site.results().len(), 3);
}

#[test]
fn an_edited_note_stays() {
    let site = Site::new();
    site.api.on_model(|_| Answer::error(422, "no"));
    site.put_picture("inbox/a.jpg");
    assert_eq!(site.once(), 3);
    let note = site.text("errors/a.error.txt") + "my own words";
    site.put("errors/a.error.txt", &note);
    site.api.on_model(support::Call::good);
    std::fs::rename(site.path("errors/a.jpg"), site.path("inbox/a.jpg")).unwrap();
    assert_eq!(site.once(), 0);
    assert_eq!(site.text("errors/a.error.txt"), note);
}

#[test]
fn a_result_at_a_url_that_the_rules_refuse_ends_at_once_and_is_told() {
    for url in ["http://10.0.0.1/x.png", "ftp://example.com/x.png", "file:///etc/passwd", "not a url"] {
        let (site, code) = one(move |_| Answer::json(200, &json!({ "image_url": url })));
        assert_eq!(code, 3, "{url}\n{}", site.describe());
        assert_eq!(site.api.calls().len(), 1, "{url}");
        let note = site.note("errors/a.error.txt");
        assert!(!note.contains("billed: no"), "{url}: {note}");
    }
}

#[test]
fn a_download_that_fails_is_tried_again_without_a_new_request() {
    let site = Site::new();
    let url = site.api.url() + "/results/x.png";
    site.api.on_model(move |_| Answer::json(200, &json!({ "image_url": url })));
    let png = pictures::png(70);
    let served = png.clone();
    site.api.on_other(move |request, n| {
        (request.path == "/results/x.png").then(|| match n {
            1 => Answer::error(503, "not yet"),
            2 => Answer::picture(&served).cut(10),
            3 => Answer::new(200, "text/html", "<html>soon</html>"),
            _ => Answer::picture(&served),
        })
    });
    site.put_picture("inbox/a.jpg");
    let _daemon = site.run();
    site.wait_archived("a.jpg");
    assert_eq!(site.files("outbox")[Path::new("a.png")], png);
    assert_eq!(site.api.calls().len(), 1);
}

#[test]
fn a_download_follows_redirects_without_the_key() {
    let site = Site::new();
    let base = site.api.url();
    let url = base.clone() + "/results/moved";
    site.api.on_model(move |_| Answer::json(200, &json!({ "image": url })));
    site.api.on_other(move |request, _| match request.path.as_str() {
        "/results/moved" => Some(Answer::new(302, "", "").header("location", &format!("{base}/results/there"))),
        "/results/there" => Some(Answer::picture(&pictures::png(71))),
        _ => None,
    });
    site.put_picture("inbox/a.jpg");
    assert_eq!(site.once(), 0, "{}", site.describe());
    assert!(site.api.to("/results/").iter().all(|r| r.header("x-api-key").is_none()));
}

#[test]
fn a_refusal_that_names_an_address_is_a_refusal() {
    for nested in [false, true] {
        let site = Site::new();
        let docs = site.api.url() + "/docs/moderation";
        site.api.on_model(move |_| {
            let refusal = json!({ "error": "the picture was not nice", "url": docs });
            Answer::json(200, &if nested { json!({ "output": refusal }) } else { refusal })
        });
        site.put_picture("inbox/a.jpg");
        let code = site.once();
        let note = ended_in_errors("an address", &site, code, 1, "unknown");
        assert!(note.contains("the picture was not nice"), "{note}");
        assert!(site.api.to("/docs").is_empty(), "{}", site.describe());
    }
}

#[test]
fn a_key_that_an_answer_repeats_is_not_cut_into_a_half_that_stays() {
    let half = &KEY[..KEY.len() * 2 / 3];
    // Wherever a note, a log or the reading of an answer cuts.
    for before in [125, 130, 135, 140, 180, 185, 190, 1985, 1990] {
        for answer in [
            Answer::json(200, &json!({ "x": "y".repeat(before), "headers": { "x-api-key": KEY } })),
            Answer::new(200, "text/html", format!("<p>{} {KEY}</p>", "y".repeat(before))),
            Answer::new(422, "text/plain", format!("{} {KEY}", "y".repeat(before))),
        ] {
            let (site, _) = one(move |_| answer.clone());
            let note = site.note("errors/a.error.txt");
            assert!(!note.contains(half) && !site.logs().contains(half), "{before}: {note}");
        }
    }
}

#[test]
fn an_api_that_repeats_the_key_or_an_assets_url_does_not_get_it_into_notes_or_logs() {
    let site = Site::new();
    site.api.on_model(|call| {
        let url = call.request.reference().unwrap_or_default();
        Answer::error(422, &format!("can't fetch {url} with key {KEY} sorry"))
    });
    site.put_picture("inbox/a.jpg");
    assert_eq!(site.once(), 3);
    let note = site.note("errors/a.error.txt");
    assert!(note.contains("can't fetch") && note.contains("sorry"), "{note}");
    // The rest is what every site looks at when it goes.
    for (status, secret) in [(422, "key"), (200, "key"), (422, "asset"), (200, "asset")] {
        let (site, _) = one(move |call| {
            let asset = call.request.reference().unwrap_or_default();
            let id = format!("r-{}", if secret == "key" { KEY } else { &asset });
            let answer = if status == 200 { call.good() } else { Answer::error(status, "no") };
            answer.header("x-request-id", &id)
        });
        let told = if status == 200 { "outbox/a.reimagined.json" } else { "errors/a.error.txt" };
        assert!(site.text(told).contains("r-["), "{}", site.text(told));
    }
}

#[test]
fn an_answer_that_was_read_is_known_after_a_kill_while_something_is_asked_about_it() {
    // The credits decide a 403; they do not answer.
    let (gate, held) = (Gate::default(), Gate::default());
    for path in [CREDITS, UPLOAD] {
        let site = Site::new();
        let bytes = site.put_picture("inbox/first.jpg");
        assert_eq!(site.once(), 0);
        let wait = held.clone();
        site.api.on_other(move |request, _| (request.path == path).then(|| Answer::error(503, "not now").after(&wait)));
        let status = if path == CREDITS { 403 } else { 400 };
        site.api.on_model(move |_| Answer::error(status, "no"));
        site.put("inbox/second.jpg", &bytes);
        let before = site.api.to(path).len();
        let daemon = site.run();
        site.wait("it is asked", || site.api.to(path).len() > before && site.api.calls().len() == 2);
        daemon.kill();
        site.api.on_other(|_, _| None);
        site.api.on_model(support::Call::good);
        assert_eq!(site.once(), 0, "{path}: {}", site.describe());
        assert_eq!((site.api.calls().len(), site.results().len()), (3, 2), "{path}");
    }
    gate.open();
    held.open();
}

#[test]
fn sends_are_counted_as_they_were_made() {
    let (site, code) = one(|call| match call.n {
        1 => Answer::error(429, "slow down").header("retry-after", "0"),
        2 => Answer::error(500, "oops"),
        _ => call.good(),
    });
    assert_eq!(code, 0, "{}", site.describe());
    assert_eq!(site.provenance("outbox/a.reimagined.json")["attempts"], 3);
    // What a limit keeps from being sent is no send.
    let site = Site::new();
    site.set("limits.images_per_hour", 3).set("api.max_in_flight", 4);
    site.put_picture("inbox/a.jpg");
    site.put("inbox/a.toml", "seeds = [1, 2, 3, 4]\n");
    assert_eq!(site.once(), 4, "{}", site.describe());
    site.set("limits.images_per_hour", 0);
    assert_eq!(site.once(), 0, "{}", site.describe());
    for seed in 1..=4 {
        assert_eq!(site.provenance(format!("outbox/a-{seed}.reimagined.json"))["attempts"], 1, "{seed}");
    }
    let site = Site::new();
    site.set("retry.unconfirmed", "retry").set("retry.max_attempts", 2);
    site.api.on_model(|call| Answer::error(if call.n == 1 { 504 } else { 500 }, "oops"));
    site.put_picture("inbox/a.jpg");
    assert_eq!((site.once(), site.api.calls().len()), (3, 2), "{}", site.describe());
    assert!(site.note("errors/a.error.txt").contains("billed: unknown"));
}

#[test]
fn a_kept_connection_that_the_server_closes_is_not_used_to_send_a_request_twice() {
    // The third model call finds its connection closed after it was read: nobody knows what became of it.
    let (site, code) = {
        let site = Site::new();
        site.set("api.max_in_flight", 1);
        site.api.on_model(|call| if call.prompt == "b" { Answer::hangup() } else { call.good() });
        for name in ["a", "b", "c"] {
            site.put(format!("inbox/{name}.txt"), name);
        }
        let code = site.once();
        (site, code)
    };
    assert_eq!(code, 3);
    assert_eq!(site.api.calls_with("b"), 1);
    assert_eq!(site.names("errors"), ["b.error.txt", "b.txt"]);
}

#[test]
fn unconfirmed_is_sent_once_more_where_that_is_asked_for() {
    let site = Site::new();
    site.set("retry.unconfirmed", "retry");
    site.api.on_model(|call| if call.n == 1 { Answer::hangup() } else { call.good() });
    site.put_picture("inbox/a.jpg");
    assert_eq!(site.once(), 0, "{}", site.describe());
    assert_eq!(site.api.calls().len(), 2);
    assert_eq!(site.provenance("outbox/a.reimagined.json")["unconfirmed_attempts"], true);
    site.api.on_model(|_| Answer::error(504, "gave up"));
    site.put_picture("inbox/b.jpg");
    assert_eq!(site.once(), 3);
    assert_eq!(site.api.calls().len(), 4, "once more, not more");
    assert!(site.note("errors/b.error.txt").contains("billed: unknown"));
}

#[test]
fn a_credits_answer_of_any_kind_is_survived() {
    for (what, credits) in [
        ("strings", Answer::json(200, &json!({ "credits": "7.5", "free-credits": null }))),
        ("a list", Answer::json(200, &json!([]))),
        ("huge", Answer::new(200, "application/json", vec![b'['; 300_000])),
        ("closed", Answer::hangup()),
    ] {
        let site = Site::new();
        site.api.on_model(|call| if call.n == 1 { Answer::error(401, "who are you") } else { call.good() });
        let answer = credits.clone();
        site.api.on_other(move |request, n| (request.path == CREDITS && n <= 2).then(|| answer.clone()));
        site.put_picture("inbox/a.jpg");
        let _daemon = site.run();
        site.wait(what, || site.has("archive/a.jpg"));
    }
}
