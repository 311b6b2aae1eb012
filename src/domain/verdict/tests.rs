#![allow(clippy::unwrap_used)]
use super::*;

fn reply(status: u16) -> Reply {
    Reply {
        status,
        retry_after: None,
        rate_reset: None,
        message: Some("words".into()),
        gave_up: false,
        body: BodyKind::Unusable { what: "nothing".into(), lost: false },
        after: Duration::from_secs(1),
    }
}

fn now() -> Timestamp {
    Timestamp::UNIX_EPOCH
}

/// One letter for each kind of verdict, so that the table below reads like the one in the API's description.
fn letter(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Picture => "picture",
        Verdict::Link { .. } => "link",
        Verdict::Fault { billed: Billed::No, maybe_stale_reference: true, .. } => "fault, perhaps stale",
        Verdict::Fault { billed: Billed::No, .. } => "fault",
        Verdict::Fault { .. } => "fault, billed unknown",
        Verdict::Pause { why: PauseWhy::Key, .. } => "pause: key",
        Verdict::Pause { why: PauseWhy::Credits, .. } => "pause: credits",
        Verdict::Pause { why: PauseWhy::Endpoint, .. } => "pause: endpoint",
        Verdict::Pause { why: PauseWhy::Network, .. } => "pause: network",
        Verdict::Pause { .. } => "pause: other",
        Verdict::Ask { .. } => "ask",
        Verdict::Wait { .. } => "wait",
        Verdict::Retry { .. } => "retry",
        Verdict::Unconfirmed { .. } => "unconfirmed",
    }
}

/// The table of the API's description, row by row, for the model call.
fn row(status: u16) -> &'static str {
    match status {
        400 | 413 | 415 | 422 | 460 => "fault, perhaps stale",
        401 => "pause: key",
        402 => "pause: credits",
        403 | 406 => "ask",
        404 | 405 | 410 | 300..=399 => "pause: endpoint",
        429 => "wait",
        500 | 502 | 503 => "retry",
        408 | 501 | 504..=599 => "unconfirmed",
        400..=499 => "fault",
        _ => "unconfirmed",
    }
}

#[test]
fn every_status_has_the_meaning_that_the_table_gives_it() {
    for status in 0..1000 {
        let verdict = judge(Endpoint::Model, &reply(status), now());
        assert_eq!(letter(&verdict), row(status), "{status}");
        let trouble = status == 408 || (500..600).contains(&status);
        assert_eq!(verdict.is_trouble(), trouble, "{status}");
    }
}

#[test]
fn an_upload_is_never_unconfirmed_and_never_billed() {
    for status in 0..1000 {
        let verdict = judge(Endpoint::Upload, &reply(status), now());
        let want = match row(status) {
            "unconfirmed" => "retry",
            "fault, perhaps stale" => "fault",
            same => same,
        };
        assert_eq!(letter(&verdict), want, "{status}");
        assert_eq!(verdict.billed(), Billed::No, "{status}");
    }
}

#[test]
fn a_good_status_is_judged_by_what_came_with_it() {
    let with = |body| letter(&judge(Endpoint::Model, &Reply { body, ..reply(200) }, now()));
    assert_eq!(with(BodyKind::Picture), "picture");
    assert_eq!(with(BodyKind::Link("https://x".into())), "link");
    assert_eq!(with(BodyKind::Refusal), "fault, billed unknown");
    assert_eq!(with(BodyKind::Unusable { what: "HTML".into(), lost: false }), "unconfirmed");
    // Any other 2xx is unconfirmed, even with a picture in it.
    for status in [201, 202, 204, 206, 299] {
        let verdict = judge(Endpoint::Model, &Reply { body: BodyKind::Picture, ..reply(status) }, now());
        assert_eq!(letter(&verdict), "unconfirmed", "{status}");
    }
}

#[test]
fn a_body_that_was_cut_counts_for_the_breaker_and_html_does_not() {
    for lost in [true, false] {
        let body = BodyKind::Unusable { what: String::new(), lost };
        assert_eq!(judge(Endpoint::Model, &Reply { body, ..reply(200) }, now()).is_trouble(), lost);
    }
}

#[test]
fn server_trouble_is_repeated_only_when_it_came_soon_and_no_gateway_gave_up() {
    for status in [500, 502, 503] {
        let at = |ms, text: &str| {
            let reply = Reply { after: Duration::from_millis(ms), message: Some(text.into()), ..reply(status) };
            letter(&judge(Endpoint::Model, &reply, now()))
        };
        assert_eq!(at(30_000, "x"), "retry");
        assert_eq!(at(30_001, "x"), "unconfirmed");
        for text in ["Request Timeout", "the job TIMED OUT", "Polling failed", "gateway time-out"] {
            assert_eq!(at(1, text), "unconfirmed", "{text}");
        }
        let behind = Reply { gave_up: true, ..reply(status) };
        assert_eq!(letter(&judge(Endpoint::Model, &behind, now())), "unconfirmed");
    }
    // The words count in a 5xx only: a prompt about a timeout is still just refused.
    let refused = Reply { message: Some("timeout".into()), ..reply(400) };
    assert_eq!(letter(&judge(Endpoint::Model, &refused, now())), "fault, perhaps stale");
}

#[test]
fn a_429_says_how_long() {
    let long = Reply { retry_after: Some("7200".into()), ..reply(429) };
    let Verdict::Wait { for_, long, .. } = judge(Endpoint::Model, &long, now()) else { panic!() };
    assert_eq!((for_, long), (Some(LONGEST_WAIT), true));
}

#[test]
fn not_sent_pauses_and_maybe_sent_is_unconfirmed() {
    let not_sent = Lost::NotSent(NotSent { kind: NotSentKind::Dns, message: "x".into() });
    let maybe = Lost::MaybeSent(MaybeSent { message: "x".into() });
    for endpoint in [Endpoint::Model, Endpoint::Upload] {
        assert_eq!(letter(&judge_lost(endpoint, &not_sent)), "pause: network");
    }
    let model = judge_lost(Endpoint::Model, &maybe);
    assert_eq!((letter(&model), model.is_trouble()), ("unconfirmed", true));
    let upload = judge_lost(Endpoint::Upload, &maybe);
    assert_eq!((letter(&upload), upload.is_trouble()), ("retry", true));
}

#[test]
fn the_services_own_words_are_in_the_message() {
    let Verdict::Fault { message, .. } = judge(Endpoint::Model, &reply(422), now()) else { panic!() };
    assert_eq!(message, "HTTP 422: words");
    let silent = Reply { message: None, ..reply(422) };
    let Verdict::Fault { message, .. } = judge(Endpoint::Model, &silent, now()) else { panic!() };
    assert_eq!(message, "HTTP 422 without an explanation");
}
