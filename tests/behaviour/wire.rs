//! The API at its worst, byte by byte: what each broken answer comes to, and that it costs nothing twice.
//!
//! Most cases are shots of one drop, told apart by their seeds: so there are many to a run, each has its line in
//! the note, and they are never the "three different drops in a row" that pause everything.

#![allow(clippy::unwrap_used, reason = "tests say so by failing")]

use crate::support;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use reimagined::domain::life::{OutputName, ShotEvent};
use reimagined::ledger::Ledger as _;
use reimagined::ledger::sqlite::SqliteLedger;
use serde_json::json;
use support::api::{CREDITS, UPLOAD};
use support::{Answer, KEY, Site, pictures};

/// What a shot comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comes {
    /// The picture is in the outbox, byte for byte.
    Delivered,
    /// Nobody knows whether it was billed.
    Unconfirmed,
    /// Failed, and billed (or perhaps).
    Failed(&'static str),
}
use Comes::{Delivered, Failed, Unconfirmed};

/// The picture of every good answer.
fn picture() -> Vec<u8> {
    pictures::png(7)
}

/// A head with these lines, and a body.
fn http(head: &str, body: &[u8]) -> Vec<u8> {
    [head.replace('\n', "\r\n").as_bytes(), b"\r\n\r\n", body].concat()
}

/// A good answer with a length.
fn good() -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\ncontent-type: image/png\nx-cost: 0.04\ncontent-length: {}", picture().len());
    http(&head, &picture())
}

/// The picture in two chunks, without what ends them.
fn chunks() -> Vec<u8> {
    let body = picture();
    let (a, b) = body.split_at(body.len() / 2);
    let chunk = |piece: &[u8]| [format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat();
    [chunk(a), chunk(b)].concat()
}

/// A good answer in chunks.
fn chunked() -> Vec<u8> {
    let body = [chunks(), b"0\r\n\r\n".to_vec()].concat();
    http("HTTP/1.1 200 OK\ncontent-type: image/png\ntransfer-encoding: chunked", &body)
}

/// Each answer to a shot of its own: what they come to, each sent once, and none again by itself.
#[track_caller]
fn each_comes_to(site: &Site, cases: &[(String, Answer, Comes)]) {
    let mut answers: HashMap<i64, Answer> = HashMap::new();
    for (seed, (_, answer, _)) in (1..).zip(cases) {
        answers.insert(seed, answer.clone());
    }
    site.set("limits.max_variants", i64::try_from(cases.len()).unwrap());
    site.api.on_model(move |call| answers[&call.seed.unwrap()].clone());
    site.put("inbox/a.toml", format!("prompt = \"x\"\nseeds = {:?}\n", (1..=cases.len()).collect::<Vec<_>>()));
    let all_good = cases.iter().all(|(_, _, comes)| *comes == Delivered);
    assert_eq!(site.once(), if all_good { 0 } else { 3 }, "{}", site.describe());
    let note = if all_good { String::new() } else { site.note("errors/a.error.txt") };
    let results = site.files("outbox");
    let mut wrong = String::new();
    for (seed, (name, _, comes)) in (1..).zip(cases) {
        let sends = site.api.calls().iter().filter(|r| r.seed() == Some(seed)).count();
        // `3, seed 3: what became of it; billed: unknown`
        let line = note.split_once(&format!(", seed {seed}: ")).map_or("", |(_, rest)| rest);
        let line = line.split_inclusive("; billed: ").take(2).collect::<Vec<_>>().join("");
        let line = line.split_once("; billed: ").map_or(line.clone(), |(what, bill)| {
            format!("{what}; billed: {}", bill.split_whitespace().next().unwrap_or_default())
        });
        let file = if cases.len() > 1 { format!("a-{seed}.png") } else { "a.png".into() };
        let got = results.get(Path::new(&file));
        let right = match comes {
            Delivered => got == Some(&picture()) && (all_good || line.ends_with("billed: yes")),
            Unconfirmed => got.is_none() && line.starts_with("unconfirmed") && line.ends_with("billed: unknown"),
            Failed(bill) => got.is_none() && line.starts_with("failed") && line.ends_with(&format!("billed: {bill}")),
        };
        if !right || sends != 1 {
            let _ =
                writeln!(wrong, "{name}: wanted {comes:?}, sent {sends} times, delivered: {}, {line}", got.is_some());
        }
    }
    assert!(wrong.is_empty(), "{wrong}\n{}", site.logs());
    let sends = site.api.calls().len();
    assert_eq!(site.once(), 0);
    assert_eq!(site.api.calls().len(), sends, "never sent again by itself");
}

/// [`each_comes_to`], at a site with short patience.
#[track_caller]
fn each(cases: Vec<(impl Into<String>, Answer, Comes)>) {
    let site = Site::new();
    site.set("api.timeout", "3s").set("api.max_in_flight", 16);
    each_comes_to(&site, &cases.into_iter().map(|(n, a, c)| (n.into(), a, c)).collect::<Vec<_>>());
}

#[test]
fn an_answer_cut_at_any_byte_is_unconfirmed_unless_all_of_the_picture_came() {
    let (plain, chunked) = (good(), chunked());
    let find = |bytes: &[u8], what: &[u8]| bytes.windows(what.len()).position(|w| w == what).unwrap();
    let body = |bytes: &[u8]| find(bytes, b"\r\n\r\n") + 4;
    let mut cases = Vec::new();
    let mut cut = |name: &str, bytes: &[u8], at: usize, comes| {
        cases.push((format!("{name}, closed"), Answer::raw(&bytes[..at]), comes));
        if comes == Unconfirmed {
            cases.push((format!("{name}, reset"), Answer::raw_then_reset(&bytes[..at]), comes));
            cases.push((format!("{name}, held"), Answer::raw_then_held(&bytes[..at]), comes));
        }
    };
    for (name, at) in [
        ("nothing", 0),
        ("one byte", 1),
        ("in the version", 5),
        ("in the status", 11),
        ("behind the status line", find(&plain, b"\r\n") + 2),
        ("in a header's name", find(&plain, b"tent-type")),
        ("in a header's value", find(&plain, b"age/png")),
        ("in a line's end", find(&plain, b"x-cost") - 1),
        ("before the empty line's end", body(&plain) - 1),
        ("before the body", body(&plain)),
        ("one byte of the body", body(&plain) + 1),
        ("in the signature", body(&plain) + 7),
        ("in the middle", body(&plain) + picture().len() / 2),
        ("before the last byte", plain.len() - 1),
    ] {
        cut(name, &plain, at, Unconfirmed);
    }
    let second = body(&chunked) + chunks().len() / 2;
    for (name, at) in [
        ("in the first chunk's size", body(&chunked) + 1),
        ("behind the first chunk's size", find(&chunked[body(&chunked)..], b"\r\n") + body(&chunked) + 2),
        ("in the first chunk", body(&chunked) + 20),
        ("in the second chunk", second + 10),
        ("before the last chunk's last byte", chunked.len() - 5 - 3),
    ] {
        cut(name, &chunked, at, Unconfirmed);
    }
    for (name, at) in [
        ("behind the picture, in its chunk's end", chunked.len() - 6),
        ("before the last chunk", chunked.len() - 5),
        ("in the last chunk", chunked.len() - 2),
    ] {
        cut(name, &chunked, at, Delivered);
    }
    let until_closed = http("HTTP/1.1 200 OK\ncontent-type: image/png", &picture());
    cut("no length, all of it", &until_closed, until_closed.len(), Delivered);
    cut("no length, cut", &until_closed, until_closed.len() - 1, Unconfirmed);
    each(cases);
}

#[test]
fn an_answer_cut_behind_the_end_of_its_picture_is_delivered_with_what_came() {
    for pad in [1, 500] {
        let site = Site::new();
        let body = [picture(), vec![b'x'; pad]].concat();
        let head = format!("HTTP/1.1 200 OK\ncontent-type: image/png\ncontent-length: {}", body.len() + 7);
        let answer = http(&head, &body);
        site.api.on_model(move |_| Answer::raw(answer.clone()));
        site.put("inbox/a.txt", "x");
        assert_eq!(site.once(), 0, "{}", site.describe());
        assert_eq!(site.files("outbox").get(Path::new("a.png")), Some(&body));
        assert_eq!(site.api.calls().len(), 1);
    }
}

#[test]
fn json_that_came_whole_counts_although_its_connection_broke() {
    let encoded = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, picture());
    let cut = |body: &str| {
        let head = format!("HTTP/1.1 200 OK\ncontent-type: application/json\ncontent-length: {}", body.len() + 9);
        Answer::raw(http(&head, body.as_bytes()))
    };
    let chunk = |body: &str| {
        let head = "HTTP/1.1 200 OK\ncontent-type: application/json\ntransfer-encoding: chunked";
        Answer::raw_then_held(http(head, format!("{:x}\r\n{body}\r\n", body.len()).as_bytes()))
    };
    let site = Site::new();
    site.set("api.timeout", "3s").set("api.max_in_flight", 16);
    let url = site.api.url() + "/results/whole.png";
    site.api.on_other(|request, _| (request.path == "/results/whole.png").then(|| Answer::picture(&picture())));
    let object = json!({ "image": encoded }).to_string();
    let link = json!({ "image": url }).to_string();
    each_comes_to(
        &site,
        &[
            ("base64", cut(&object), Delivered),
            ("base64 in chunks", chunk(&object), Delivered),
            ("a URL", cut(&link), Delivered),
            ("a URL in chunks", chunk(&link), Delivered),
            ("without its last brace", cut(&object[..object.len() - 1]), Unconfirmed),
            ("a URL without its last brace", cut(&link[..link.len() - 1]), Unconfirmed),
            ("bare base64", cut(&encoded), Unconfirmed),
            ("a bare URL", cut(&url), Unconfirmed),
            ("JSON without a picture", cut("{}"), Unconfirmed),
            ("a refusal", cut(&json!({ "error": "no" }).to_string()), Unconfirmed),
        ]
        .map(|(name, answer, comes)| (name.to_owned(), answer, comes)),
    );
}

/// Its name is committed, as it is with the receipt where the outbox can be looked into.
fn name_it(site: &Site) {
    let mut ledger = SqliteLedger::open(&site.path("state/ledger.db")).unwrap();
    let open = ledger.open_drops().unwrap().remove(0);
    let name = OutputName { picture: "a.png".into(), provenance: None };
    let shot = open.drop.shots[0].apply(ShotEvent::Name { name }).unwrap();
    ledger.step(open.drop.id, &shot, shot.state.billed()).unwrap();
}

#[test]
fn a_received_picture_whose_name_a_power_cut_undid_is_delivered() {
    for is_named in [false, true] {
        what_a_power_cut_undid_is_delivered(is_named);
    }
}

fn what_a_power_cut_undid_is_delivered(is_named: bool) {
    let site = Site::new();
    site.put("inbox/sub/a.txt", "x");
    let gate = support::Gate::default();
    let opens = gate.clone();
    site.api.on_model(move |_| Answer::picture(&picture()).after(&opens));
    let daemon = site.run();
    site.wait("it is sent", || site.api.calls().len() == 1);
    let outbox = site.path("outbox");
    let aside = site.path("aside");
    std::fs::rename(&outbox, &aside).unwrap();
    gate.open();
    let image =
        || site.names("state/spool").into_iter().find(|n| Path::new(n).extension().is_some_and(|e| e == "image"));
    site.wait("it is received", || image().is_some());
    site.wait_paused(&["outbox"]);
    daemon.kill();
    let sealed = site.path("state/spool").join(image().unwrap());
    std::fs::rename(&sealed, sealed.with_extension("part")).unwrap();
    std::fs::rename(&aside, &outbox).unwrap();
    if is_named {
        name_it(&site);
    }
    assert_eq!(site.once(), 0, "{}", site.describe());
    assert_eq!(site.files("outbox").get(Path::new("sub/a.png")), Some(&picture()));
    assert_eq!(site.api.calls().len(), 1);
}

#[test]
fn lengths_that_are_wrong_are_seen() {
    let body = picture();
    let n = body.len();
    let with = |lines: &str| http(&format!("HTTP/1.1 200 OK\ncontent-type: image/png\n{lines}"), &body);
    let chunk = |text: &[u8]| {
        let head = "HTTP/1.1 200 OK\ncontent-type: image/png\ntransfer-encoding: chunked";
        http(head, &[chunks(), text.to_vec()].concat())
    };
    let with_length = |length: &str| with(&format!("content-length: {length}"));
    let start = http("HTTP/1.1 200 OK\ncontent-type: image/png\ntransfer-encoding: chunked", b"");
    let wild = |text: &[u8]| [start.clone(), text.to_vec()].concat();
    each(vec![
        ("zero", Answer::raw(with_length("0")), Unconfirmed),
        ("too short", Answer::raw(with_length(&(n - 10).to_string())), Unconfirmed),
        ("too short by a byte", Answer::raw(with_length(&(n - 1).to_string())), Unconfirmed),
        ("too long, closed", Answer::raw(with_length(&(n + 10).to_string())), Delivered),
        ("too long, held", Answer::raw_then_held(with_length(&(n + 10).to_string())), Delivered),
        ("none, held", Answer::raw_then_held(with("x-a: b")), Delivered),
        ("absurd", Answer::raw(with_length("99999999999")), Unconfirmed),
        ("beyond numbers", Answer::raw(with_length("99999999999999999999999")), Unconfirmed),
        ("negative", Answer::raw(with_length("-5")), Unconfirmed),
        ("no number", Answer::raw(with_length("many")), Unconfirmed),
        ("hexadecimal", Answer::raw(with_length("0x10")), Unconfirmed),
        ("the same twice", Answer::raw(with(&format!("content-length: {n}\ncontent-length: {n}"))), Delivered),
        ("two", Answer::raw(with(&format!("content-length: {n}\ncontent-length: {}", n - 9))), Unconfirmed),
        ("two in one", Answer::raw(with_length(&format!("{n}, {}", n - 9))), Unconfirmed),
        (
            "chunks and a length",
            Answer::raw(http(
                "HTTP/1.1 200 OK\ncontent-length: 5\ntransfer-encoding: chunked",
                &[chunks(), b"0\r\n\r\n".to_vec()].concat(),
            )),
            Delivered,
        ),
        ("a size that is none", Answer::raw(wild(b"zz\r\nabc")), Unconfirmed),
        ("an empty size", Answer::raw(wild(b"\r\nabc\r\n0\r\n\r\n")), Unconfirmed),
        ("a size beyond numbers", Answer::raw(wild(b"fffffffffffffffff\r\nabc")), Unconfirmed),
        ("a negative size", Answer::raw(wild(b"-3\r\nabc\r\n")), Unconfirmed),
        ("no chunk at all", Answer::raw(wild(b"0\r\n\r\n")), Unconfirmed),
        ("a long extension", Answer::raw(wild(&[b"5;", [b'x'; 40_000].as_slice()].concat())), Unconfirmed),
        ("endless trailers", Answer::raw(chunk(&[b"0\r\n".to_vec(), b"a: b\r\n".repeat(50_000)].concat())), Delivered),
        ("junk behind the end", Answer::raw([good(), b"HTTP/1.1 200 OK\r\n\r\njunk".repeat(9)].concat()), Delivered),
    ]);
}

#[test]
fn odd_heads_are_taken_or_end_unconfirmed_but_never_break_anything() {
    let body = picture();
    let n = body.len();
    let line = |line: &str| http(&format!("{line}\ncontent-length: {n}\ncontent-type: image/png"), &body);
    let header = |text: &[u8]| {
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {n}\r\n");
        [head.as_bytes(), text, b"\r\n\r\n", &body].concat()
    };
    let before = |head: &str| [http(head, b""), good()].concat();
    let mut cases = vec![
        ("HTTP/1.0", line("HTTP/1.0 200 OK"), Delivered),
        ("no reason", line("HTTP/1.1 200"), Delivered),
        ("a reason with odd bytes", line("HTTP/1.1 200 \u{9b}31m\u{202e}ok"), Delivered),
        ("100 before", before("HTTP/1.1 100 Continue"), Delivered),
        ("103 before", before("HTTP/1.1 103 Early Hints\nlink: </x>; rel=preload"), Delivered),
        ("many 102 before", [http("HTTP/1.1 102 Processing", b"").repeat(500), good()].concat(), Delivered),
        ("1xx alone", http("HTTP/1.1 100 Continue", b""), Unconfirmed),
        ("a switch of protocols", line("HTTP/1.1 101 Switching Protocols"), Unconfirmed),
        ("HTTP/0.9", body.clone(), Unconfirmed),
        ("HTTP/2", line("HTTP/2 200"), Unconfirmed),
        ("HTTP/9.9", line("HTTP/9.9 200 OK"), Unconfirmed),
        ("another protocol", line("ICY 200 OK"), Unconfirmed),
        ("a TLS alert", b"\x15\x03\x03\x00\x02\x02\x28".to_vec(), Unconfirmed),
        ("a header of many bytes", header(&[b"x: ".to_vec(), vec![b'y'; 5 << 20]].concat()), Unconfirmed),
        ("a status line of many bytes", line(&format!("HTTP/1.1 200 {}", "y".repeat(5 << 20))), Unconfirmed),
        ("many headers", header(&b"x-a: b\r\n".repeat(20_000)[..20_000 * 8 - 2]), Unconfirmed),
        ("a header without a colon", header(b"what is this"), Unconfirmed),
        ("a name with a blank", header(b"x y: z"), Unconfirmed),
        ("a zero in a value", header(b"x: a\0b"), Unconfirmed),
        ("no UTF-8 in values", header(b"x-request-id: \xff\xfe\r\nx-cost: \xff\r\ncontent-type: \x80"), Delivered),
        (
            "values that are no numbers",
            header(b"x-cost: NaN\r\nx-remaining-credits: 1e999\r\nx-seed-value: -"),
            Delivered,
        ),
        ("a negative price", header(b"x-cost: -5"), Delivered),
        ("a type that lies", header(b"content-type: text/html; charset=utf-7"), Delivered),
        ("HTML called a picture", http("HTTP/1.1 200 OK\ncontent-type: image/png", b"<html>hello</html>"), Unconfirmed),
        ("205", line("HTTP/1.1 205 Reset Content"), Unconfirmed),
        ("206", line("HTTP/1.1 206 Partial Content"), Unconfirmed),
        ("226", line("HTTP/1.1 226 IM Used"), Unconfirmed),
        ("600", line("HTTP/1.1 600 What"), Unconfirmed),
        ("999", line("HTTP/1.1 999 Request Denied"), Unconfirmed),
    ];
    for status in ["000", "099", "2000", "20", "abc", "-20", ""] {
        cases.push(("a status that is none", line(&format!("HTTP/1.1 {status} X")), Unconfirmed));
    }
    each(cases.into_iter().map(|(name, bytes, comes)| (name, Answer::raw(bytes), comes)).collect());
}

#[test]
fn an_answer_may_come_slowly_but_not_for_ever() {
    let (all, half) = (good(), good().len() / 2);
    let informed = http("HTTP/1.1 102 Processing", b"");
    let ms = Duration::from_millis;
    each(vec![
        ("slow head and body", Answer::drip(all.clone(), ms(1)), Delivered),
        ("too slow a head", Answer::drip(&all[..60], ms(200)), Unconfirmed),
        ("a body too slow", Answer::drip([&all[..all.len() - 40], &[b'x'; 40]].concat(), ms(100)), Unconfirmed),
        ("nothing at all", Answer::raw_then_held(b""), Unconfirmed),
        ("half of it", Answer::raw_then_held(&all[..half]), Unconfirmed),
        ("being processed for ever", Answer::new(102, "", informed).endless(), Unconfirmed),
        ("JSON that never ends", Answer::new(200, "application/json", vec![b'['; 1 << 16]).endless(), Unconfirmed),
        (
            "a picture that never ends",
            // A whole one would count, whatever goes on behind its end.
            Answer::new(200, "image/png", [&picture()[..picture().len() - 12], &[0; 1 << 16]].concat()).endless(),
            Unconfirmed,
        ),
    ]);
}

#[test]
fn what_is_no_answer_to_a_picture_is_never_taken_for_one() {
    let gzip = b"\x1f\x8b\x08\0\0\0\0\0\0\x03".to_vec();
    let json = |text: String| Answer::new(200, "application/json", text);
    let encoded = |how: &str, body: Vec<u8>| Answer::new(200, "image/png", body).header("content-encoding", how);
    let mut half_jpeg = pictures::jpeg(3);
    half_jpeg.truncate(half_jpeg.len() / 2);
    let png = picture();
    let mut grey_end = png.clone();
    let at = png.len() / 2;
    grey_end.truncate(at);
    grey_end.resize(png.len(), 0x80);
    each(vec![
        ("deep JSON", json("[".repeat(100_000)), Unconfirmed),
        ("deep JSON that closes", json("[".repeat(100_000) + &"]".repeat(100_000)), Unconfirmed),
        ("deep objects", json("{\"image\":".repeat(100_000)), Unconfirmed),
        (
            "deep objects with a picture",
            json("{\"a\":".repeat(9000) + "\"https://x.example/a.png\"" + &"}".repeat(9000)),
            Unconfirmed,
        ),
        ("gzip", encoded("gzip", [gzip.clone(), vec![0; 1000]].concat()), Unconfirmed),
        ("deflate", encoded("deflate", b"x\x9c\x03\0\0\0\0\x01".to_vec()), Unconfirmed),
        ("br", encoded("br", vec![0xff; 500]), Unconfirmed),
        ("a picture called gzip", encoded("gzip", png.clone()), Delivered),
        ("half a JPEG with a good length", Answer::new(200, "image/jpeg", half_jpeg), Unconfirmed),
        ("a PNG whose end is grey", Answer::picture(&grey_end), Unconfirmed),
        ("a GIF", Answer::picture(&pictures::encoded(4, 9, 9, image::ImageFormat::Gif)), Unconfirmed),
        ("a BMP", Answer::picture(&pictures::encoded(4, 9, 9, image::ImageFormat::Bmp)), Unconfirmed),
        ("zeros", Answer::picture(&[0; 5000]), Unconfirmed),
        ("SVG", Answer::new(200, "image/svg+xml", "<svg xmlns='http://www.w3.org/2000/svg'/>"), Unconfirmed),
        ("HTML", Answer::new(200, "text/html", "<script>".repeat(20_000)), Unconfirmed),
        ("base64 of no picture", json(json!({ "image": "QUJD".repeat(500) }).to_string()), Failed("yes")),
        ("an empty string", json(json!({ "image": "" }).to_string()), Unconfirmed),
        ("a number", json("5".into()), Unconfirmed),
        ("UTF-16", Answer::new(200, "application/json", b"\xff\xfe{\0}\0".to_vec()), Unconfirmed),
    ]);
}

#[test]
fn an_address_that_the_rules_refuse_is_not_gone_to() {
    let refused: Vec<String> = [
        "http://169.254.169.254/latest/meta-data/x.png",
        "https://169.254.169.254/x.png",
        "https://[fe80::1]/x.png",
        "https://[::ffff:10.0.0.1]/x.png",
        "https://[fd00:ec2::254]/x.png",
        "https://10.1.2.3/x.png",
        "https://user:password@192.168.1.1/x.png",
        "https://0x0a000001/x.png",
        "https://012.0.0.1/x.png",
        "https://10.1/x.png",
        "http://example.com/x.png",
        "http://127.0.0.1.example.com/x.png",
        "http://127.0.0.1@10.0.0.1/x.png",
        "https://%31%30.0.0.1/x.png",
        "https://１０.０.０.１/x.png",
        "file:///etc/passwd",
        "ftp://127.0.0.1/x.png",
        "gopher://127.0.0.1/x.png",
        "//127.0.0.1/x.png",
        "/etc/passwd",
        "javascript:alert(1)",
        "https://",
        "http://127.0.0.1:99999/x.png",
        "\u{1b}[2Jhttps://\u{202e}x",
    ]
    .map(str::to_owned)
    .into();
    let site = Site::new();
    let base = site.api.url();
    let mut cases: Vec<(String, Answer, Comes)> = refused
        .iter()
        .map(|url| (url.clone(), Answer::json(200, &json!({ "image_url": url })), Failed("yes")))
        .collect();
    // A redirect is judged like an address; where a header can't say it, it says nothing.
    let sayable = |url: &str| url.contains("://") && url.bytes().all(|b| b.is_ascii_graphic());
    for (n, url) in refused.iter().enumerate().filter(|(_, url)| sayable(url)) {
        let link = format!("{base}/results/moved-{n}");
        let name = format!("redirected to {url}");
        cases.push((name, Answer::json(200, &json!({ "image_url": link })), Failed("yes")));
    }
    let (list, served) = (refused.clone(), picture());
    site.api.on_other(move |request, _| {
        if let Some(n) = request.path.strip_prefix("/results/moved-") {
            return Some(Answer::new(302, "", "").header("location", &list[n.parse::<usize>().unwrap()]));
        }
        request.path.starts_with("/results/good").then(|| Answer::picture(&served))
    });
    // What only looks strange is fetched.
    for url in [
        format!("{base}/results/good%2e%2e%2f?a=b#c"),
        base.replace("127.0.0.1", "user:password@127.0.0.1") + "/results/good/user",
        base.replace("127.0.0.1", "%31%32%37.0.0.1") + "/results/good/percent",
        base.replace("127.0.0.1", "2130706433") + "/results/good/number",
        base.replace("127.0.0.1", "localhost") + "/results/good/name",
    ] {
        cases.push((url.clone(), Answer::json(200, &json!({ "image_url": url })), Delivered));
    }
    each_comes_to(&site, &cases);
    assert!(site.api.to("/results/").iter().all(|r| r.header("x-api-key").is_none()));
    let shown = site.text("errors/a.error.txt") + &site.logs();
    assert!(!shown.contains(['\u{1b}', '\u{202e}']), "{shown}");
}

/// Answers that break off or lie, none of which says anything of the account.
fn broken_answers() -> Vec<(&'static str, Answer)> {
    let page = "<html>down for maintenance</html>";
    let head = |line: &str| http(line, b"");
    vec![
        ("hung up", Answer::hangup()),
        ("reset", Answer::raw_then_reset(b"")),
        ("half a status line", Answer::raw(b"HTTP/1.1 2")),
        ("half a head", Answer::raw(b"HTTP/1.1 200 OK\r\ncontent-le")),
        ("no body", Answer::raw(head("HTTP/1.1 200 OK\ncontent-length: 50"))),
        (
            "half a body",
            Answer::raw_then_reset(http("HTTP/1.1 200 OK\ncontent-length: 50", b"{\"file_urls\": [\"http")),
        ),
        ("a chunk of no size", Answer::raw(http("HTTP/1.1 200 OK\ntransfer-encoding: chunked", b"zz\r\n"))),
        ("garbage", Answer::raw(vec![0xaa; 4000])),
        ("a header of many bytes", Answer::raw([b"HTTP/1.1 200 OK\r\nx: ".to_vec(), vec![b'y'; 2 << 20]].concat())),
        ("a page", Answer::new(200, "text/html", page)),
        ("nothing", Answer::new(200, "application/json", "")),
        ("deep JSON", Answer::new(200, "application/json", "[".repeat(100_000))),
        ("a wide answer", Answer::new(200, "application/json", format!("[{}0]", "0,".repeat(400_000)))),
        ("a long text", Answer::new(200, "text/plain", "data: ".repeat(150_000))),
        ("no content", Answer::new(204, "", "")),
        ("processing", Answer::raw(head("HTTP/1.1 102 Processing"))),
        ("a timeout", Answer::error(408, "slow")),
        ("trouble", Answer::error(500, "oops")),
        ("a gateway", Answer::new(502, "text/html", page)),
        ("unavailable", Answer::error(503, &"data: ".repeat(9000))),
        ("given up", Answer::new(504, "text/html", page)),
        ("a proxy", Answer::error(520, "unknown")),
        ("no status", Answer::raw(head("HTTP/1.1 000 X\ncontent-length: 0"))),
        ("too many, for a moment", Answer::error(429, "slow down").header("retry-after", "0")),
    ]
}

#[test]
fn a_broken_answer_to_an_upload_is_only_tried_again() {
    let site = Site::new();
    site.set("api.timeout", "3s").set("retry.max_attempts", 30);
    let broken = broken_answers();
    // Each picture's first upload meets one of them, and its second succeeds.
    let seen: Mutex<Vec<Vec<u8>>> = Mutex::default();
    let answers: Vec<Answer> = broken.iter().map(|(_, answer)| answer.clone()).collect();
    let count = answers.len();
    site.api.on_other(move |request, _| {
        let mut seen = seen.lock().unwrap();
        if request.path != UPLOAD || seen.contains(&request.body) {
            return None;
        }
        seen.push(request.body.clone());
        Some(answers[(seen.len() - 1).min(count - 1)].clone())
    });
    for n in 0..count {
        site.put_picture(format!("inbox/{n}.jpg"));
    }
    let daemon = site.run();
    site.wait("all are delivered", || site.names("archive").len() == count);
    assert_eq!(site.api.calls().len(), count, "each was bought once");
    assert_eq!(site.api.to(UPLOAD).len(), 2 * count, "each was uploaded once more, not more");
    assert!(site.names("errors").is_empty());
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn a_broken_answer_to_a_download_is_only_tried_again() {
    let site = Site::new();
    site.set("api.timeout", "3s");
    let mut broken = broken_answers();
    broken.extend([
        ("forbidden", Answer::error(403, "expired")),
        ("not there yet", Answer::error(404, "not yet")),
        ("unauthorized", Answer::error(401, "who are you")),
        ("no credits", Answer::error(402, "pay")),
        ("a redirect to nowhere", Answer::new(302, "", "")),
        ("not modified", Answer::new(304, "", "")),
        ("half a picture", Answer::picture(&picture()[..100])),
        ("a cut picture", Answer::picture(&picture()).cut(100)),
        ("a GIF", Answer::picture(&pictures::encoded(4, 9, 9, image::ImageFormat::Gif))),
    ]);
    let base = site.api.url();
    let count = i64::try_from(broken.len()).unwrap();
    site.set("limits.max_variants", count);
    site.api.on_model(move |call| {
        Answer::json(200, &json!({ "image_url": format!("{base}/results/{}", call.seed.unwrap()) }))
    });
    let (answers, served) = (broken.iter().map(|(_, a)| a.clone()).collect::<Vec<_>>(), picture());
    site.api.on_other(move |request, n| {
        let seed: usize = request.path.strip_prefix("/results/")?.parse().ok()?;
        Some(if n == 1 { answers[seed - 1].clone() } else { Answer::picture(&served) })
    });
    site.put("inbox/a.toml", format!("prompt = \"x\"\nseeds = {:?}\n", (1..=count).collect::<Vec<_>>()));
    let daemon = site.run();
    site.wait("all are delivered", || site.has("archive/a.toml"));
    for seed in 1..=count {
        assert_eq!(site.files("outbox")[Path::new(&format!("a-{seed}.png"))], picture());
        assert_eq!(
            site.api.to(&format!("/results/{seed}")).iter().filter(|r| r.path.ends_with(&format!("/{seed}"))).count(),
            2
        );
    }
    assert_eq!(i64::try_from(site.api.calls().len()), Ok(count), "each was bought once");
    assert!(site.api.to("/results/").iter().all(|r| r.header("x-api-key").is_none()), "without the key");
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn redirects_in_a_circle_are_left_and_tried_again_later() {
    let site = Site::new();
    let base = site.api.url();
    site.api.on_model({
        let base = base.clone();
        move |_| Answer::json(200, &json!({ "image_url": format!("{base}/results/a") }))
    });
    site.api.on_other(move |request, n| {
        let to = match request.path.as_str() {
            "/results/a" if n > 8 => return Some(Answer::picture(&picture())),
            "/results/a" => "/results/b",
            "/results/b" => "a",
            _ => return None,
        };
        Some(Answer::new(307, "", "").header("location", to))
    });
    site.put_picture("inbox/x.jpg");
    let _daemon = site.run();
    site.wait_archived("x.jpg");
    assert_eq!(site.api.calls().len(), 1);
    assert!(site.api.to("/results/").len() < 60, "a circle ends by itself");
}

#[test]
fn a_broken_answer_to_the_credits_request_ends_no_drop_and_no_pause() {
    let site = Site::new();
    site.set("retry.probe_interval", "50ms").set("api.timeout", "3s");
    let mut broken = broken_answers();
    broken.retain(|(name, _)| *name != "too many, for a moment");
    for status in [400, 401, 402, 403, 405, 406, 410, 413, 415, 422, 451, 460, 501, 599, 301, 302, 304, 307, 201, 206] {
        broken.push(("a status", Answer::error(status, "no").header("location", "http://127.0.0.1:1/")));
    }
    let count = broken.len();
    site.api.on_model(|call| if call.n == 1 { Answer::error(402, "pay") } else { call.good() });
    site.api.on_other(move |request, n| {
        (request.path == CREDITS).then(|| broken.get(n - 1).map(|(_, answer)| answer.clone())).flatten()
    });
    for n in 0..3 {
        site.put_picture(format!("inbox/{n}.jpg"));
    }
    let daemon = site.run();
    site.wait("all are delivered", || site.names("archive").len() == 3);
    assert!(site.api.to(CREDITS).len() > count, "it asked until it was answered: {}", site.api.to(CREDITS).len());
    assert!(site.api.calls().len() <= 3 + 3, "and sent nothing meanwhile");
    assert!(site.names("errors").is_empty());
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn every_status_of_an_upload_means_what_it_should() {
    for status in [400, 413, 415, 422, 460, 409, 418, 451, 499] {
        let site = Site::new();
        site.api.on_other(move |request, _| (request.path == UPLOAD).then(|| Answer::error(status, "not that one")));
        site.put_picture("inbox/a.jpg");
        assert_eq!(site.once(), 3, "{status}");
        let note = site.note("errors/a.error.txt");
        assert!(note.contains("not that one") && note.contains(&status.to_string()), "{note}");
        assert!(site.api.calls().is_empty() && site.api.to(UPLOAD).len() == 1, "{status}");
    }
    for status in [401, 402, 404, 405, 410, 300, 301, 302, 303, 304, 307, 308] {
        let site = Site::new();
        site.api.on_other(move |request, _| (request.path == UPLOAD).then(|| Answer::error(status, "away")));
        site.put_picture("inbox/a.jpg");
        assert_eq!(site.once(), 4, "{status}\n{}", site.describe());
        assert_eq!(site.names("inbox"), ["a.jpg"], "{status}: nothing moved");
        assert!(site.api.calls().is_empty(), "{status}");
    }
}

#[test]
fn hostile_answers_do_not_fill_the_memory() {
    let site = Site::new();
    site.set("api.timeout", "20s").set("api.max_in_flight", 2).set("limits.max_variants", 20);
    let big = |text: &str| text.repeat((60 << 20) / text.len());
    let json = |text: String| Answer::new(200, "application/json", text);
    // Ten gigabytes of zeros are ten megabytes of gzip; the beginning says enough.
    let bomb = [b"\x1f\x8b\x08\0\0\0\0\0\0\x03\xec\xc1".to_vec(), vec![0; 10 << 20]].concat();
    let answers = [
        json(format!("[{}0]", big("0,"))),
        json(format!("[{}0]", big("{},"))),
        json(format!("{{\"error\": [{}0]}}", big("[],"))),
        json(format!("{{\"error\": \"{}\"}}", big("data: "))),
        json(format!("{{\"image\": \"{}\"}}", big("iVBORw0KGgo="))),
        Answer::new(200, "text/plain", big("http://a ")),
        Answer::new(200, "text/html", big("<a>")),
        Answer::new(200, "image/png", picture()).endless(),
        Answer::new(422, "text/plain", big("https://x.example/?")),
        Answer::new(500, "application/json", vec![b'['; 1 << 16]).endless(),
        Answer::new(200, "application/octet-stream", vec![0; 1 << 16]).endless(),
        Answer::new(200, "image/png", bomb).header("content-encoding", "gzip"),
    ];
    let count = answers.len();
    site.api.on_model(move |call| {
        let seed = call.seed.unwrap();
        if seed == 0 { call.good() } else { answers[seed as usize - 1].clone() }
    });
    site.put("inbox/a.toml", format!("prompt = \"x\"\nseeds = {:?}\n", (0..=count).collect::<Vec<_>>()));
    let daemon = site.run();
    let note = site.wait_failed("a.toml");
    assert_eq!(site.results(), ["a-0.png"], "{note}");
    let most = daemon.most_memory() >> 20;
    eprintln!("at most {most} MiB");
    assert!(most < 420, "{most} MiB");
    assert!(site.text("errors/a.error.txt").len() < 64 << 10, "a note stays readable");
    assert_eq!(daemon.stop(), 0);
}

/// A listener that hands each connection to `talk` in a thread of its own, and keeps what it hears.
struct Raw {
    url: String,
    heard: Arc<Mutex<Vec<u8>>>,
}

impl Raw {
    fn start(talk: impl Fn(&mut TcpStream, &dyn Fn(&[u8])) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = listener.local_addr().unwrap().to_string();
        let heard: Arc<Mutex<Vec<u8>>> = Arc::default();
        let (talk, keep) = (Arc::new(talk), heard.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { continue };
                let (talk, keep) = (talk.clone(), keep.clone());
                std::thread::spawn(move || talk(&mut stream, &|bytes| keep.lock().unwrap().extend_from_slice(bytes)));
            }
        });
        Self { url, heard }
    }

    fn heard(&self) -> Vec<u8> {
        self.heard.lock().unwrap().clone()
    }
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|w| w == text.as_bytes())
}

fn listen(stream: &mut TcpStream, heard: &dyn Fn(&[u8])) {
    let mut buffer = [0; 4096];
    while let Ok(n @ 1..) = stream.read(&mut buffer) {
        heard(&buffer[..n]);
    }
}

#[test]
fn a_server_that_cannot_prove_who_it_is_gets_nothing() {
    let plain = |bytes: &'static [u8]| {
        Raw::start(move |stream, heard| {
            let mut hello = [0; 4096];
            let n = stream.read(&mut hello).unwrap_or(0);
            heard(&hello[..n]);
            let _ = stream.write_all(bytes);
            listen(stream, heard);
        })
    };
    let cases = [
        ("plain HTTP", plain(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"), "corrupt"),
        ("garbage", plain(&[0x99; 600]), "corrupt"),
        ("an alert", plain(b"\x15\x03\x03\x00\x02\x02\x28"), "alert"),
        ("closed at once", Raw::start(|_, _| {}), ""),
        ("silence", Raw::start(listen), "timed out"),
        ("a certificate of its own", self_signed(), "certificate"),
    ];
    for (what, server, words) in cases {
        let site = Site::new();
        site.set("api.base_url", format!("https://{}", server.url));
        site.set("api.connect_timeout", "1s").set("api.timeout", "5s");
        site.put("inbox/a.txt", "a secret prompt");
        let daemon = site.run();
        site.wait(what, || site.status()["state"] == "paused");
        let why = site.paused().unwrap();
        assert!(why.contains("no connection") && why.to_lowercase().contains(words), "{what}: {why}");
        site.wait("it is back", || site.names("inbox") == ["a.txt"]);
        site.wait("it tries again", || {
            site.logs().contains("paused") && !server.heard().is_empty() || words.is_empty()
        });
        assert_eq!(daemon.stop(), 0);
        assert!(!holds(&server.heard(), KEY) && !holds(&server.heard(), "secret"), "{what}");
        assert!(site.names("errors").is_empty() && site.names("outbox").is_empty(), "{what}");
    }
}

/// A TLS server whose certificate nobody vouches for.
fn self_signed() -> Raw {
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
    let certificate = CertificateDer::from(pictures::fixture("self-signed.crt.der"));
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pictures::fixture("self-signed.key.der")));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let config = Arc::new(config);
    Raw::start(move |stream, heard| {
        heard(b"somebody came");
        let mut tls = rustls::ServerConnection::new(config.clone()).unwrap();
        let mut both = rustls::Stream::new(&mut tls, stream);
        let mut buffer = [0; 4096];
        // What gets through is what was said after the handshake.
        while let Ok(n @ 1..) = both.read(&mut buffer) {
            heard(&buffer[..n]);
        }
    })
}

#[test]
fn a_connection_that_is_reset_before_or_while_it_is_read_is_unconfirmed() {
    let reset = |stream: &TcpStream| {
        rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO)).unwrap();
    };
    let cases = [
        (
            "before a byte was read",
            Raw::start(move |stream, _| {
                let _ = stream.peek(&mut [0]);
                reset(stream);
            }),
        ),
        (
            "after the first byte",
            Raw::start(move |stream, _| {
                let _ = stream.read(&mut [0]);
                reset(stream);
            }),
        ),
    ];
    for (what, server) in cases {
        let site = Site::new();
        site.set("api.base_url", format!("http://{}", server.url));
        site.put("inbox/a.txt", "x");
        assert_eq!(site.once(), 3, "{what}\n{}", site.describe());
        let note = site.note("errors/a.error.txt");
        assert!(note.contains("billed: unknown"), "{what}: {note}");
    }
}

#[test]
fn an_answer_that_comes_before_the_request_was_read_counts() {
    for (what, status, code) in [("a picture", 200, 0), ("a refusal", 413, 3)] {
        let server = Raw::start(move |stream, heard| {
            let mut first = [0; 1];
            let _ = stream.read(&mut first);
            let answer = if status == 200 {
                good()
            } else {
                http("HTTP/1.1 413 Too Large\ncontent-length: 9\nconnection: close", b"too large")
            };
            let _ = stream.write_all(&answer);
            listen(stream, heard);
        });
        let site = Site::new();
        site.set("api.base_url", format!("http://{}", server.url)).set("reference.mode", "inline");
        site.put("inbox/a.jpg", noise());
        assert_eq!(site.once(), code, "{what}\n{}", site.describe());
        if status == 413 {
            let note = site.note("errors/a.error.txt");
            assert!(note.contains("too large") && note.contains("billed: no"), "{note}");
        } else {
            assert_eq!(site.files("outbox")[Path::new("a.png")], picture());
        }
    }
}

/// A picture of a megabyte and more: more than any socket takes at once.
fn noise() -> Vec<u8> {
    let mut x = 1u32;
    let pixels = image::RgbImage::from_fn(1500, 1000, |_, _| {
        x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        image::Rgb([(x >> 24) as u8, (x >> 16) as u8, (x >> 8) as u8])
    });
    let mut out = std::io::Cursor::new(Vec::new());
    image::DynamicImage::ImageRgb8(pixels).write_to(&mut out, image::ImageFormat::Jpeg).unwrap();
    out.into_inner()
}
