//! Uploads and the credits request.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::*;
use crate::domain::verdict::{Billed, PauseWhy};

async fn upload(server: &Server, picture: &[u8]) -> UploadOutcome {
    let (_dir, path) = file_of(picture);
    server.client().upload(&key(), Body::upload(path, "image/jpeg")).await
}

#[tokio::test]
async fn an_upload_sends_the_picture_and_gives_its_url_to_nobody_but_who_asks() {
    let url = "http://127.0.0.1/assets/me@example.org/a.jpg";
    for body in [json!({"file_urls": [url], "message": "ok"}), json!({"urls": [url]})] {
        let picture = jpeg(100_001);
        let (_dir, path) = file_of(&picture);
        for what in [Body::upload(path.clone(), "image/jpeg"), Body::upload_of(&picture, "image/jpeg")] {
            let server = Server::saying(answer(200, "", body.to_string().as_bytes()));
            let outcome = server.client().upload(&key(), what).await;
            assert!(!format!("{outcome:?}").contains("example.org"));
            let UploadOutcome::Done(asset) = outcome else { panic!("{outcome:?}") };
            assert_eq!(asset.expose(), url);
            assert!(!format!("{asset} {asset:?}").contains("example.org"));
            let [got] = &server.requests()[..] else { panic!() };
            assert!(got.head.starts_with("POST /upload-asset ") && got.head.contains("x-api-key: sg_"), "{}", got.head);
            let sent: serde_json::Value = serde_json::from_slice(&got.body).unwrap();
            assert!(sent == json!({"data_urls": [format!("data:image/jpeg;base64,{}", STANDARD.encode(&picture))]}));
        }
    }
}

#[tokio::test]
async fn an_upload_that_fails_is_judged_and_never_unconfirmed() {
    let rows: [(Vec<u8>, &str); 12] = [
        (answer(200, "", b"{}"), "retry"),
        (answer(200, "", b"<html>"), "retry"),
        (answer(200, "", b""), "retry"),
        (answer(200, "", br#"{"error":"too big"}"#), "fault"),
        (answer(413, "", b""), "fault"),
        (answer(401, "", b""), "Key"),
        (answer(403, "", b""), "ask"),
        (answer(302, "location: /x\r\n", b""), "Endpoint"),
        (answer(429, "", b""), "wait"),
        (answer(504, "", b""), "retry, trouble"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{".to_vec(), "retry, trouble"),
        (vec![], "retry, trouble"),
    ];
    for (bytes, want) in rows {
        let server = Server::saying(bytes.clone());
        let UploadOutcome::Failed(verdict) = upload(&server, &jpeg(100)).await else { panic!() };
        let kind = match &verdict {
            Verdict::Fault { billed: Billed::No, maybe_stale_reference: false, .. } => "fault".into(),
            Verdict::Pause { why, .. } => format!("{why:?}"),
            Verdict::Ask { .. } => "ask".into(),
            Verdict::Wait { .. } => "wait".into(),
            Verdict::Retry { trouble: true, .. } => "retry, trouble".into(),
            Verdict::Retry { .. } => "retry".into(),
            other => panic!("{other:?}"),
        };
        assert_eq!(kind, want, "{}", String::from_utf8_lossy(&bytes));
    }
}

#[tokio::test]
async fn nobody_to_upload_to_pauses() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let base = format!("http://{closed}");
    let client = Client::new(settings(&base, &base, Duration::from_secs(5))).unwrap();
    let (_dir, path) = file_of(&jpeg(10));
    let outcome = client.upload(&key(), Body::upload(path, "image/jpeg")).await;
    assert!(matches!(outcome, UploadOutcome::Failed(Verdict::Pause { why: PauseWhy::Network, .. })), "{outcome:?}");
}

#[tokio::test]
async fn credits_are_asked_with_the_key_and_judged() {
    let server = Server::saying(answer(200, "", br#"{"credits": 0.0, "free-credits": 0.018}"#));
    assert_eq!(server.client().credits(&key(), None).await, Credits::Low { total: 0.018 });
    let [got] = &server.requests()[..] else { panic!() };
    assert!(
        got.head.starts_with("GET /v1/get-user-credits HTTP/1.1\r\n") && got.head.contains("x-api-key: sg_"),
        "{}",
        got.head
    );

    let ask = |bytes: Vec<u8>, cost| async move { Server::saying(bytes).client().credits(&key(), cost).await };
    assert_eq!(ask(answer(200, "", br#"{"credits": 0.018}"#), Some(0.01)).await, Credits::Good { total: 0.018 });
    assert_eq!(ask(answer(404, "", b"No credits found for the user"), None).await, Credits::NoneFound);
    let Credits::Refused { message } = ask(answer(401, "", b"bad SG_0123456789abcdef"), None).await else { panic!() };
    assert!(!message.contains("SG_0"), "{message}");
    assert!(matches!(ask(answer(302, "location: /x\r\n", b""), None).await, Credits::Other { .. }));
    assert!(matches!(
        ask(b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{".to_vec(), None).await,
        Credits::NoAnswer { .. }
    ));
    assert!(matches!(ask(vec![], None).await, Credits::NoAnswer { .. }));

    let silent = Server::new(vec![Then::Hang(vec![])]);
    let answer = silent.client_within(Duration::from_millis(200)).credits(&key(), None).await;
    assert!(matches!(answer, Credits::NoAnswer { .. }));
}

#[tokio::test]
async fn an_answer_that_comes_before_the_upload_is_whole_counts() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(&answer(413, "connection: close\r\n", br#"{"error":"too large"}"#));
        // As a gateway does: says no, and takes no more.
        while stream.read(&mut [0; 16384]).is_ok_and(|got| got > 0) {}
    });
    let base = format!("http://{at}");
    let client = Client::new(settings(&base, &base, Duration::from_secs(5))).unwrap();
    let (_dir, path) = file_of(&jpeg(8_000_000));
    let outcome = client.upload(&key(), Body::upload(path, "image/jpeg")).await;
    assert!(
        matches!(&outcome, UploadOutcome::Failed(Verdict::Fault { message, .. }) if message.contains("too large")),
        "{outcome:?}"
    );
}
