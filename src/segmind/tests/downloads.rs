//! Downloads of results.

use super::*;

struct Fetched {
    outcome: DownloadOutcome,
    kept: Option<Vec<u8>>,
}

async fn fetch(client: &Client, url: &str) -> Fetched {
    let dir = tempfile::tempdir().unwrap();
    let into = dir.path().join("shot.part");
    let outcome = client.download(url, &into, 10_000).await;
    let kept = std::fs::read(&into).ok();
    assert_eq!(kept.is_some(), matches!(outcome, DownloadOutcome::Done(_)), "{outcome:?}");
    Fetched { outcome, kept }
}

fn refused(fetched: &Fetched) -> bool {
    matches!(fetched.outcome, DownloadOutcome::Refused { .. })
}

fn failed(fetched: &Fetched) -> bool {
    matches!(fetched.outcome, DownloadOutcome::Failed { .. })
}

fn redirect(to: &str) -> Then {
    // Said, so that no next request meets it closing.
    Then::Say(answer(302, &format!("location: {to}\r\nconnection: close\r\n"), b""))
}

/// A client whose API is on the internet.
fn public_client() -> Client {
    Client::with_proxy(
        settings("https://api.example", "https://up.example", Duration::from_secs(5)),
        &http::ProxySetting::default(),
    )
    .unwrap()
}

#[tokio::test]
async fn a_result_is_fetched_without_the_key() {
    let server = Server::saying(answer(200, "content-type: text/plain\r\n", &jpeg(5000)));
    let fetched = fetch(&server.client(), &server.url("/x?sig=1")).await;
    assert_eq!(fetched.outcome, DownloadOutcome::Done(Received { bytes: 5000, kind: PictureKind::Jpeg }));
    assert!(fetched.kept.unwrap() == jpeg(5000));
    let [got] = &server.requests()[..] else { panic!() };
    assert!(
        got.head.starts_with("GET /x?sig=1 ") && !got.head.contains("x-api-key") && !got.head.contains("sg_"),
        "{}",
        got.head
    );
}

#[tokio::test]
async fn this_machine_is_no_place_for_results_of_a_service_elsewhere() {
    let server = Server::saying(answer(200, "", &jpeg(5000)));
    let client = public_client();
    let port = server.at.port();
    for host in [
        "127.0.0.1",
        "localhost",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "0.0.0.0",
        "2130706433",
        "169.254.169.254",
        "10.1.2.3",
    ] {
        for scheme in ["http", "https"] {
            assert!(refused(&fetch(&client, &format!("{scheme}://{host}:{port}/x")).await), "{scheme} {host}");
        }
    }
    for none in ["", "x.png", "/x.png", "ftp://cdn.example/x", "file:///etc/passwd", "http://cdn.example/x"] {
        assert!(refused(&fetch(&client, none).await), "{none}");
    }
    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn a_name_is_judged_by_the_addresses_that_are_connected_to() {
    // The rules for the URL know "localhost" by itself, so this asks below them.
    let url: Url = "https://localhost:9/x".parse().unwrap();
    let error = public_client().connections.pick(&url, http::Use::Download).get(url).send().await.unwrap_err();
    assert!(http::refusal(&error).is_some_and(|why| why.contains("localhost")), "{error:?}");
}

#[tokio::test]
async fn redirects_are_followed_and_each_is_judged() {
    let picture = Then::Say(answer(200, "", &jpeg(100)));
    let server = Server::new(vec![redirect("/b"), redirect("c"), picture.clone()]);
    let fetched = fetch(&server.client(), &server.url("/a")).await;
    assert!(fetched.kept.is_some());
    let paths: Vec<String> =
        server.requests().iter().map(|got| got.head.split(' ').nth(1).unwrap().to_owned()).collect();
    assert_eq!(paths, ["/a", "/b", "/c"]);

    for to in [
        "http://10.0.0.1/x",
        "https://169.254.169.254/",
        "http://cdn.example/x",
        "file:///etc/passwd",
        "https://[fd00::1]/",
    ] {
        let server = Server::new(vec![redirect(to)]);
        assert!(refused(&fetch(&server.client(), &server.url("/a")).await), "{to}");
    }
    let five = Server::new([vec![redirect("/a"); 5], vec![picture.clone()]].concat());
    assert!(fetch(&five.client(), &five.url("/a")).await.kept.is_some());
    let six = Server::new([vec![redirect("/a"); 6], vec![picture]].concat());
    assert!(failed(&fetch(&six.client(), &six.url("/a")).await));
    let nowhere = Server::saying(answer(302, "", b""));
    assert!(failed(&fetch(&nowhere.client(), &nowhere.url("/a")).await));
}

#[tokio::test]
async fn what_is_gone_wrong_cut_or_endless_is_told_apart() {
    for status in [403, 404, 410] {
        let server = Server::saying(answer(status, "", b""));
        assert_eq!(fetch(&server.client(), &server.url("/a")).await.outcome, DownloadOutcome::Gone { status });
    }
    let head = b"HTTP/1.1 200 OK\r\ncontent-length: 900\r\n\r\n".to_vec();
    let scripts = [
        Then::Say(answer(500, "", b"")),
        Then::Say(answer(401, "", b"")),
        Then::Say(answer(206, "", &jpeg(100))),
        Then::Say(answer(200, "", b"<html>not here</html>")),
        Then::Say(answer(200, "", b"")),
        Then::Say([head.clone(), jpeg(899)].concat()),
        Then::Say(vec![]),
        Then::Say(answer(200, "", &jpeg(10_001))),
        Then::Endless(b"HTTP/1.1 200 OK\r\n\r\n\xff\xd8\xff\xe0".to_vec(), vec![7; 1000]),
        Then::Hang(vec![]),
        Then::Hang([head, jpeg(100)].concat()),
    ];
    for (n, then) in scripts.into_iter().enumerate() {
        let server = Server::new(vec![then]);
        let fetched = fetch(&server.client_within(Duration::from_millis(400)), &server.url("/a")).await;
        assert!(failed(&fetched), "{n} {:?}", fetched.outcome);
    }
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let server = Server::new(vec![]);
    assert!(failed(&fetch(&server.client(), &format!("http://{closed}/")).await));
}

#[tokio::test]
async fn behind_a_proxy_addresses_in_the_url_are_still_judged() {
    let proxy = Server::saying(answer(502, "", b""));
    let setting =
        http::ProxySetting { https: Some(("HTTPS_PROXY", format!("localhost:{}", proxy.at.port()))), except: None };
    let client =
        Client::with_proxy(settings("https://api.example", "https://up.example", Duration::from_secs(5)), &setting)
            .unwrap();
    assert!(refused(&fetch(&client, "https://10.0.0.1/x").await));
    assert!(refused(&fetch(&client, "https://localhost/x").await));
    assert!(proxy.requests().is_empty());
    // The proxy's own name may mean this machine; the result's name is the proxy's matter.
    assert!(failed(&fetch(&client, "https://cdn.example/x").await));
    assert!(proxy.requests()[0].head.starts_with("CONNECT cdn.example:443 "));
}
