//! Model calls.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::*;
use crate::domain::verdict::{Billed, PauseWhy};

fn unconfirmed(call: &Call) -> (&str, bool) {
    match &call.outcome.verdict {
        Verdict::Unconfirmed { message, trouble } => (message, *trouble),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_picture_is_kept_byte_for_byte_with_what_the_headers_say() {
    let picture = jpeg(300_000);
    let headers = "content-type: image/jpeg\r\nx-request-id: r-1\r\nx-cost: 0.04\r\nx-remaining-credits: 3.5\r\nx-seed-value: 7\r\nx-generation-time: 12.5\r\n";
    let server = Server::saying(answer(200, headers, &picture));
    let call = call(&server).await;
    assert_eq!(call.outcome.verdict, Verdict::Picture);
    assert!(call.kept.unwrap() == picture);
    assert_eq!(call.outcome.picture.unwrap().kind, PictureKind::Jpeg);
    let want = Receipt {
        request_id: Some("r-1".into()),
        cost: Some(0.04),
        remaining_credits: Some(3.5),
        generation_time: Some(12.5),
        seed: Some(7),
    };
    assert_eq!(call.outcome.receipt, want);

    let [got] = &server.requests()[..] else { panic!() };
    assert!(got.head.starts_with("POST /v1/bria-reimagine HTTP/1.1\r\n"), "{}", got.head);
    assert!(got.head.contains("\r\nx-api-key: sg_0123456789abcdef\r\n"), "{}", got.head);
    assert!(got.head.contains("\r\ncontent-type: application/json\r\n"), "{}", got.head);
    assert!(
        got.head.contains(concat!("\r\nuser-agent: reimagined/", env!("CARGO_PKG_VERSION"), "\r\n")),
        "{}",
        got.head
    );
    assert!(!got.head.contains("expect:"), "{}", got.head);
    assert_eq!(got.body, json!({"prompt": "autumn \"café\"", "seed": 7}).to_string().into_bytes());
}

#[tokio::test]
async fn the_kept_file_is_for_us_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let bodies = [jpeg(100), json!({"image": STANDARD.encode(jpeg(100))}).to_string().into_bytes()];
    for body in bodies {
        let server = Server::saying(answer(200, "", &body));
        let dir = tempfile::tempdir().unwrap();
        let into = dir.path().join("shot.part");
        server.client().reimagine(&key(), Body::json(&request()), &into, 1000).await;
        assert_eq!(std::fs::metadata(&into).unwrap().permissions().mode() & 0o777, 0o600);
        // A leftover of the same name is replaced, not added to.
        std::fs::write(&into, vec![0; 5000]).unwrap();
        let server = Server::saying(answer(200, "", &body));
        server.client().reimagine(&key(), Body::json(&request()), &into, 1000).await;
        assert!(std::fs::read(&into).unwrap() == jpeg(100));
    }
}

#[tokio::test]
async fn a_body_is_what_its_bytes_are_whatever_its_type_says() {
    let picture = jpeg(1000);
    for kind in [
        "",
        "content-type: application/octet-stream\r\n",
        "content-type: text/plain\r\n",
        "content-type: application/json\r\n",
    ] {
        let call = call(&Server::saying(answer(200, kind, &picture))).await;
        assert_eq!(call.outcome.verdict, Verdict::Picture, "{kind}");
    }
    let link = br#"  {"image": "https://cdn.example/x.png"}"#;
    for kind in ["content-type: image/png\r\n", "content-type: text/html\r\n", ""] {
        let call = call(&Server::saying(answer(200, kind, link))).await;
        assert_eq!(call.outcome.verdict, Verdict::Link { url: "https://cdn.example/x.png".into() }, "{kind}");
    }
    let page =
        call(&Server::saying(answer(200, "content-type: image/png\r\n", b"<html><title>Maintenance</title></html>")))
            .await;
    let (message, trouble) = unconfirmed(&page);
    assert!(message.contains("HTML") && message.contains("Maintenance") && !trouble, "{message}");
}

#[tokio::test]
async fn json_answers_have_their_meanings() {
    let png = [b"\x89PNG\r\n\x1a\n".to_vec(), vec![5; 90_000]].concat();
    for text in [STANDARD.encode(&png), format!("data:image/png;base64,{}", STANDARD.encode(&png))] {
        let body = json!({"image": text, "request_id": "j-1"}).to_string();
        let call = call(&Server::saying(answer(200, "", body.as_bytes()))).await;
        assert_eq!(call.outcome.verdict, Verdict::Picture);
        assert_eq!(call.outcome.picture.unwrap().kind, PictureKind::Png);
        assert_eq!(call.outcome.receipt.request_id.as_deref(), Some("j-1"));
        assert!(call.kept.unwrap() == png);
    }
    for text in [
        "https://cdn.example/a",
        "\"https://cdn.example/a\"",
        "https://cdn.example/a\n",
        "\u{feff}{\"url\":\"https://cdn.example/a\"}",
    ] {
        let call = call(&Server::saying(answer(200, "", text.as_bytes()))).await;
        assert_eq!(call.outcome.verdict, Verdict::Link { url: "https://cdn.example/a".into() }, "{text}");
    }
    let refused = call(&Server::saying(answer(200, "", br#"{"error":"NSFW\u0007 content"}"#))).await;
    let want = Verdict::Fault {
        message: "HTTP 200: NSFW content".into(),
        billed: Billed::Unknown,
        maybe_stale_reference: false,
    };
    assert_eq!(refused.outcome.verdict, want);
    let broken = format!(r#"{{"image":"/9j/4AAQ{}????"}}"#, "AAAA".repeat(40));
    let deep = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
    for body in ["{}", "null", "[1,2]", r#"{"image":"https://cdn"#, &broken, &deep] {
        let call = call(&Server::saying(answer(200, "", body.as_bytes()))).await;
        let (_, trouble) = unconfirmed(&call);
        assert!(!trouble, "{}", &body[..body.len().min(40)]);
    }
}

#[tokio::test]
async fn an_empty_short_or_foreign_body_is_unconfirmed() {
    for body in [&b""[..], b"\xff", b"\xff\xd8", b"GIF89a..........", b"hello", b"\n\n\n"] {
        let call = call(&Server::saying(answer(200, "", body))).await;
        assert!(!unconfirmed(&call).1, "{body:?}");
    }
}

#[tokio::test]
async fn whatever_is_cut_is_unconfirmed_and_counts_as_trouble() {
    let head = |length: &str| format!("HTTP/1.1 200 OK\r\n{length}\r\n").into_bytes();
    let cut = [
        // before, in and right behind the headers
        vec![],
        b"HTTP/1.1 2".to_vec(),
        b"HTTP/1.1 200 OK\r\ncontent-le".to_vec(),
        head("content-length: 900\r\n"),
        // a picture that is shorter than was said
        [head("content-length: 900\r\n"), jpeg(899)].concat(),
        [head("content-length: 90000\r\n"), jpeg(8)].concat(),
        // chunks that do not end
        [head("transfer-encoding: chunked\r\n"), b"4\r\n\xff\xd8\xff\xe0\r\n".to_vec()].concat(),
        [head("transfer-encoding: chunked\r\n"), b"190\r\n".to_vec(), jpeg(400), b"\r\n".to_vec()].concat(),
        [head("transfer-encoding: chunked\r\n"), b"190\r\n".to_vec(), jpeg(100)].concat(),
        [head("transfer-encoding: chunked\r\n"), b"zz\r\n".to_vec(), jpeg(100)].concat(),
        // JSON that breaks off
        [head("content-length: 900\r\n"), br#"{"image":"https://cdn.example/a"#.to_vec()].concat(),
        // no HTTP at all
        b"SSH-2.0-OpenSSH_9\r\n".to_vec(),
    ];
    for bytes in cut {
        let call = call(&Server::saying(bytes.clone())).await;
        let (message, trouble) = unconfirmed(&call);
        assert!(trouble, "{message} {:?}", String::from_utf8_lossy(&bytes[..bytes.len().min(80)]));
    }
}

#[tokio::test]
async fn a_whole_chunked_picture_and_one_that_ends_with_the_connection_are_kept() {
    let chunked = [
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3e8\r\n".to_vec(),
        jpeg(1000),
        b"\r\n0\r\n\r\n".to_vec(),
    ];
    let closing = [b"HTTP/1.0 200 OK\r\n\r\n".to_vec(), jpeg(1000)];
    for bytes in [chunked.concat(), closing.concat()] {
        let call = call(&Server::saying(bytes)).await;
        assert!(call.kept.unwrap() == jpeg(1000));
    }
}

#[tokio::test]
async fn a_picture_without_end_is_given_up() {
    let said = answer(200, "", &jpeg(2000));
    let call_small = |server: Server| async move { call_with(&server.client(), Body::json(&request()), 1999).await };
    assert!(!unconfirmed(&call_small(Server::saying(said.clone())).await).1);
    let exact = call_with(&Server::saying(said).client(), Body::json(&request()), 2000).await;
    assert_eq!(exact.outcome.verdict, Verdict::Picture);

    let start = [b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), jpeg(100)].concat();
    let endless = call_small(Server::new(vec![Then::Endless(start, vec![7; 1000])])).await;
    assert!(unconfirmed(&endless).0.contains("did not end"));
    let json = Then::Endless(b"HTTP/1.1 200 OK\r\n\r\n{\"image\":\"".to_vec(), vec![b'A'; 10_000]);
    assert!(unconfirmed(&call_small(Server::new(vec![json])).await).0.contains("did not end"));
    let base64 = json!({"image": STANDARD.encode(jpeg(2000))}).to_string();
    assert!(
        unconfirmed(&call_small(Server::saying(answer(200, "", base64.as_bytes()))).await).0.contains("did not end")
    );
}

#[tokio::test]
async fn silence_is_unconfirmed_wherever_it_begins() {
    let starts: [&[u8]; 3] = [
        b"",
        b"HTTP/1.1 200 OK\r\ncontent-length: 900\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 900\r\n\r\n\xff\xd8\xff\xe0aaaaaaaaaaaa",
    ];
    for start in starts {
        let server = Server::new(vec![Then::Hang(start.to_vec())]);
        let client = server.client_within(Duration::from_millis(300));
        let call = call_with(&client, Body::json(&request()), 1000).await;
        assert!(unconfirmed(&call).1);
    }
}

#[tokio::test]
async fn each_row_of_the_error_table_holds_on_the_wire() {
    let kind = |verdict: &Verdict| match verdict {
        Verdict::Fault { billed, maybe_stale_reference, .. } => format!("fault {billed} {maybe_stale_reference}"),
        Verdict::Pause { why, .. } => format!("{why:?}"),
        Verdict::Ask { .. } => "ask".into(),
        Verdict::Wait { for_, .. } => format!("wait {for_:?}"),
        Verdict::Retry { .. } => "retry".into(),
        Verdict::Unconfirmed { .. } => "unconfirmed".into(),
        other => panic!("{other:?}"),
    };
    let rows: [(u16, &str, &str, &str); 30] = [
        (400, "", r#"{"error":"bad"}"#, "fault no true"),
        (413, "", "", "fault no true"),
        (415, "", "", "fault no true"),
        (422, "", r#"{"detail":[{"loc":["body"],"msg":"x"}]}"#, "fault no true"),
        (460, "", "", "fault no true"),
        (401, "", "", "Key"),
        (402, "", "", "Credits"),
        (403, "", "", "ask"),
        (406, "", "", "ask"),
        (404, "", "<html>", "Endpoint"),
        (405, "", "<html>", "Endpoint"),
        (410, "", "", "Endpoint"),
        (301, "location: /elsewhere\r\n", "", "Endpoint"),
        (307, "location: /elsewhere\r\n", "", "Endpoint"),
        (304, "", "", "Endpoint"),
        (429, "retry-after: 3\r\n", "", "wait Some(3s)"),
        (429, "", "", "wait None"),
        (500, "", r#"{"error":"boom"}"#, "retry"),
        (502, "", "<html>Bad Gateway</html>", "retry"),
        (503, "", "", "retry"),
        (500, "", r#"{"error":"x","detail":"Polling failed"}"#, "unconfirmed"),
        (502, "", "<html><h1>upstream timed out</h1></html>", "unconfirmed"),
        (408, "", "", "unconfirmed"),
        (504, "", "", "unconfirmed"),
        (524, "", "", "unconfirmed"),
        (501, "", "", "unconfirmed"),
        (418, "", "", "fault no false"),
        (451, "", "", "fault no false"),
        (201, "content-type: image/jpeg\r\n", "\u{7f}", "unconfirmed"),
        (206, "", "{}", "unconfirmed"),
    ];
    for (status, headers, body, want) in rows {
        let server = Server::saying(answer(status, headers, body.as_bytes()));
        let call = call(&server).await;
        assert_eq!(kind(&call.outcome.verdict), want, "{status} {body}");
        assert_eq!(server.requests().len(), 1, "{status}");
    }
}

#[tokio::test]
async fn words_of_a_timeout_count_even_far_behind_what_is_kept() {
    let body = json!({"error": format!("{} polling", "long ".repeat(2000))}).to_string();
    let call = call(&Server::saying(answer(500, "", body.as_bytes()))).await;
    assert!(unconfirmed(&call).0.chars().count() <= MAX_WORDS + 20);
}

#[tokio::test]
async fn an_error_counts_by_its_status_even_if_its_body_is_cut_or_silent() {
    let cut = b"HTTP/1.1 401 X\r\ncontent-length: 900\r\n\r\n{\"error\"".to_vec();
    for then in [Then::Say(cut.clone()), Then::Hang(cut)] {
        let server = Server::new(vec![then]);
        let call = call_with(&server.client_within(Duration::from_millis(300)), Body::json(&request()), 1000).await;
        assert!(matches!(call.outcome.verdict, Verdict::Pause { why: PauseWhy::Key, .. }), "{:?}", call.outcome);
    }
}

#[tokio::test]
async fn the_key_never_follows_a_redirect() {
    let other = Server::saying(answer(200, "", &jpeg(100)));
    for status in [301, 302, 303, 307, 308] {
        let headers = format!("location: {}\r\n", other.url("/x"));
        let server = Server::saying(answer(status, &headers, b""));
        let call = call(&server).await;
        assert!(matches!(call.outcome.verdict, Verdict::Pause { why: PauseWhy::Endpoint, .. }));
    }
    assert!(other.requests().is_empty());
}

#[tokio::test]
async fn what_the_service_says_is_blacked_out_and_bounded() {
    let asset = "https://assets.example/me@example.org/a.jpg?sig=1";
    let words = format!("bad key SG_0123456789abcdef, cannot fetch {asset} {}", "SG_0123456789abcdef".repeat(300));
    let server = Server::saying(answer(422, "", json!({"error": words}).to_string().as_bytes()));
    let body = Body::json(&request()).hiding(AssetUrl::new(asset));
    let call = call_with(&server.client(), body, 1000).await;
    let Verdict::Fault { message, .. } = call.outcome.verdict else { panic!() };
    assert!(message.contains("bad key [API key], cannot fetch [asset URL]"), "{message}");
    assert!(!message.contains("SG_0") && !message.contains("example.org") && message.chars().count() <= MAX_WORDS + 20);
}

#[tokio::test]
async fn refused_and_unknown_hosts_are_surely_not_sent() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let base = format!("http://{closed}");
    let client = Client::new(settings(&base, &base, Duration::from_secs(5))).unwrap();
    let call = call_with(&client, Body::json(&request()), 1000).await;
    assert!(matches!(call.outcome.verdict, Verdict::Pause { why: PauseWhy::Network, .. }), "{:?}", call.outcome);
    assert!(!call.outcome.verdict.is_trouble());
    assert!(matches!(client.credits(&key(), None).await, Credits::NoAnswer { .. }));
}

#[tokio::test]
async fn a_tls_handshake_that_fails_is_surely_not_sent() {
    // Answers the TLS greeting with something else, after all of it was read.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    let base = format!("https://{at}");
    let client = Client::new(settings(&base, &base, Duration::from_secs(5))).unwrap();
    let call = call_with(&client, Body::json(&request()), 1000).await;
    assert!(matches!(call.outcome.verdict, Verdict::Pause { why: PauseWhy::Network, .. }), "{:?}", call.outcome);
}

#[tokio::test]
async fn a_handshake_that_never_ends_is_surely_not_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let base = format!("https://{}", listener.local_addr().unwrap());
    // The connection timeout is longer than the whole exchange may take: it must still fail as one.
    let client = Client::new(settings(&base, &base, Duration::from_secs(3))).unwrap();
    let call = call_with(&client, Body::json(&request()), 1000).await;
    assert!(matches!(call.outcome.verdict, Verdict::Pause { why: PauseWhy::Network, .. }), "{:?}", call.outcome);
}

#[tokio::test]
async fn a_proxy_that_refuses_the_way_is_surely_not_sent() {
    let proxy = Server::saying(answer(403, "", b"no"));
    let setting = http::ProxySetting { https: Some(("HTTPS_PROXY", proxy.at.to_string())), except: None };
    let client =
        Client::with_proxy(settings("https://api.example", "https://up.example", Duration::from_secs(5)), &setting)
            .unwrap();
    let call = call_with(&client, Body::json(&request()), 1000).await;
    assert!(matches!(call.outcome.verdict, Verdict::Pause { why: PauseWhy::Network, .. }), "{:?}", call.outcome);
    let [got] = &proxy.requests()[..] else { panic!() };
    assert!(got.head.starts_with("CONNECT api.example:443 ") && !got.head.contains("sg_0"), "{}", got.head);
}

#[tokio::test]
async fn this_machine_is_never_reached_through_a_proxy() {
    let proxy = Server::saying(answer(200, "", b""));
    let server = Server::saying(answer(200, "", &jpeg(100)));
    let setting = http::ProxySetting { https: Some(("HTTPS_PROXY", proxy.url(""))), except: None };
    let client =
        Client::with_proxy(settings(&server.url(""), &server.url(""), Duration::from_secs(5)), &setting).unwrap();
    assert_eq!(call_with(&client, Body::json(&request()), 1000).await.outcome.verdict, Verdict::Picture);
    let base = format!("https://localhost:{}", server.at.port());
    let client = Client::with_proxy(settings(&base, &base, Duration::from_secs(5)), &setting).unwrap();
    call_with(&client, Body::json(&request()), 1000).await;
    assert!(proxy.requests().is_empty());
}

#[tokio::test]
async fn a_picture_that_cannot_be_written_is_held() {
    let picture = jpeg(300_000);
    let encoded = json!({ "image": STANDARD.encode(&picture) }).to_string();
    for body in [picture.clone(), encoded.into_bytes()] {
        // No such folder; and a file that opens and takes nothing.
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/dev/full", dir.path().join("full")).unwrap();
        for into in [Path::new("/nowhere/at/all"), &dir.path().join("full")] {
            let server = Server::saying(answer(200, "", &body));
            let (client, key) = (server.client(), key());
            let outcome = client.reimagine(&key, Body::json(&request()), into, 1_000_000).await;
            assert_eq!(outcome.verdict, Verdict::Picture, "{outcome:?}");
            assert!(outcome.picture.is_none());
            let held = outcome.held.unwrap();
            assert!(held.bytes == picture && held.why.contains(into.to_str().unwrap()), "{held:?}");
        }
    }
}

#[tokio::test]
async fn an_inline_picture_is_streamed_with_its_exact_length() {
    for length in [1, 2, 3, 48 * 1024 - 1, 48 * 1024, 48 * 1024 + 1, 3_000_001] {
        let picture = jpeg(4).into_iter().cycle().take(length).collect::<Vec<u8>>();
        let (_dir, path) = file_of(&picture);
        let server = Server::saying(answer(200, "", &jpeg(100)));
        let mut map = request();
        map.insert("structure_image_url".into(), "replaced".into());
        let body = Body::inline(&map, "structure_image_url", path, "image/jpeg");
        assert_eq!(call_with(&server.client(), body, 1000).await.outcome.verdict, Verdict::Picture);
        let sent: serde_json::Value = serde_json::from_slice(&server.requests()[0].body).unwrap();
        let uri = format!("data:image/jpeg;base64,{}", STANDARD.encode(&picture));
        assert!(sent == json!({"prompt": "autumn \"café\"", "seed": 7, "structure_image_url": uri}), "{length}");
    }
}

#[tokio::test]
async fn a_prepared_picture_that_is_gone_is_not_sent() {
    let server = Server::saying(answer(200, "", &jpeg(100)));
    let body = Body::inline(&request(), "structure_image_url", PathBuf::from("/nowhere.jpg"), "image/jpeg");
    let call = call_with(&server.client(), body, 1000).await;
    assert!(
        matches!(&call.outcome.verdict, Verdict::Retry { message, trouble: false } if message.contains("/nowhere.jpg"))
    );
    assert!(server.requests().is_empty());
}

#[test]
fn settings_that_would_send_the_key_elsewhere_are_refused() {
    let up = "https://up.example/x";
    let timeout = Duration::from_secs(5);
    for (base, upload) in
        [("http://api.example", up), ("https://api.example", "http://up.example"), ("ftp://127.0.0.1", up)]
    {
        let Err(ClientError::Setting { .. }) = Client::new(settings(base, upload, timeout)) else {
            panic!("{base} {upload}")
        };
    }
    for model in ["@evil.example/x", "https://evil.example/x", "//evil.example/x", "../../x", ".evil.example"] {
        let settings = Settings { model: model.into(), ..settings("https://api.example", up, timeout) };
        let client = Client::new(settings).unwrap();
        assert_eq!(client.model_url.host_str(), Some("api.example"), "{model}");
    }
}
