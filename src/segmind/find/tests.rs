#![allow(clippy::unwrap_used)]
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::json;

use super::*;

fn find<'a>(json: &'a Value, sent: Option<&str>) -> Option<Found<'a>> {
    super::find(json, &Sent { url: sent.map(str::to_owned), picture: None })
}

fn png() -> Vec<u8> {
    let mut bytes = b"\x89PNG\r\n\x1a\n".to_vec();
    bytes.extend((0..200_000u32).map(|n| (n % 251) as u8));
    bytes
}

#[test]
fn a_result_is_found_under_every_shape_that_was_told() {
    let u = "https://cdn.example/x";
    let shapes = [
        json!({"image": u}),
        json!({"output": u}),
        json!({"image_url": u}),
        json!({"url": u}),
        json!({"images": [{"url": u}]}),
        json!({"images": [u]}),
        json!({"result": [{"urls": [u], "seed": 5}]}),
        json!({"data": [{"url": u}]}),
        json!({"output": [u]}),
        json!({"data": {"image": {"url": u}}}),
        json!(u),
        json!([u]),
        json!({"status": "ok", "message": "done", "image": u}),
        json!({"artifact": {"href": u}}),
        json!({"structure_image_url": "https://in.example/a.png", "image": u}),
        json!({"input": {"image": "https://in.example/a.png"}, "made": u}),
        json!({"error": null, "image": u}),
        json!({"image": "", "url": u}),
        json!({"image": null, "output": {"x": u}}),
    ];
    for shape in shapes {
        assert_eq!(find(&shape, None), Some(Found::Url(u)), "{shape}");
    }
}

#[test]
fn base64_is_found_and_decoded_in_every_form() {
    let png = png();
    let plain = STANDARD.encode(&png);
    let lines: Vec<_> = plain.as_bytes().chunks(76).map(|line| std::str::from_utf8(line).unwrap()).collect();
    let lines = lines.join("\r\n");
    let forms = [
        plain.clone(),
        format!("data:image/png;base64,{plain}"),
        format!("DATA:;BASE64,{plain}"),
        lines,
        URL_SAFE_NO_PAD.encode(&png),
        plain.trim_end_matches('=').to_owned(),
    ];
    for form in forms {
        for shape in [json!({"data": [{"b64_json": form}]}), json!({"image": form}), json!({"strange": [form]})] {
            let Some(Found::Encoded(text)) = find(&shape, None) else { panic!("{}", &shape.to_string()[..60]) };
            let mut out = Vec::new();
            decode(text, &mut |bytes| {
                out.extend_from_slice(bytes);
                Ok(())
            })
            .unwrap();
            assert!(out == png);
        }
    }
    for broken in ["AAAA=AAAA", "A", "????", "data:image/png,AAAA"] {
        assert!(decode(broken, &mut |_| Ok(())).is_err(), "{broken}");
    }
}

#[test]
fn a_picture_that_was_sent_is_no_result_in_any_form() {
    let (sent, other) = (png(), [&png()[..], b"x"].concat());
    let reference = Sent { url: None, picture: Some(Fingerprint::of(&sent)) };
    for form in [STANDARD.encode(&sent), format!("data:image/png;base64,{}", URL_SAFE_NO_PAD.encode(&sent))] {
        let refused = json!({"error": "refused by moderation", "image": form});
        assert_eq!(super::find(&refused, &reference), Some(Found::Refusal));
        assert_eq!(super::find(&json!({"image": form}), &reference), None);
        let made = STANDARD.encode(&other);
        let both = json!({"image": form, "output": made});
        assert_eq!(super::find(&both, &reference), Some(Found::Encoded(&made)));
    }
}

#[test]
fn an_uploads_refusal_names_no_asset() {
    let u = "https://assets.example/a.jpg";
    for json in [
        json!({"file_urls": [u]}),
        json!({"message": "ok", "urls": [u]}),
        json!({"x": {"y": u}}),
        json!({"error": "", "url": u}),
        json!({"error": "late", "url": u}),
        json!({"message": "Upload successful", "data": {"file_urls": [u]}}),
        json!({"message": "ok", "image_url": u}),
    ] {
        assert_eq!(asset_url(&json, false), Some(u), "{json}");
    }
    for json in [
        json!({"error": "quota exceeded", "docs": "https://docs.example/errors"}),
        json!({"error": {"code": "TOO_LARGE", "more_info": "https://docs.example/limits"}, "file_urls": []}),
        json!({"detail": "bad token", "login": "https://cloud.example/login"}),
        json!({"error": "no", "url": "https://docs.example/errors"}),
        json!({"message": "see below", "help": "https://docs.example/help"}),
    ] {
        assert_eq!(asset_url(&json, false), None, "{json}");
    }
}

#[test]
fn a_refusal_is_told_from_a_result_and_from_nothing() {
    let refusals = [
        json!({"error": "no"}),
        json!({"detail": [{"loc": ["body"], "msg": "no"}]}),
        json!({"message": "no"}),
        json!({"error": {"code": 5}}),
        json!({"error": "no", "image": null}),
        json!({"error": "no", "images": []}),
        json!({"error": "no", "docs": "https://docs.example/errors"}),
        json!({"error": "no", "url": "/docs"}),
        json!({"message": "no", "url": "/docs/moderation"}),
        json!({"message": "no", "image": "N/A"}),
        json!({"error": "no", "request": {"image": "https://in.example/a.png"}}),
    ];
    for json in refusals {
        assert_eq!(find(&json, None), Some(Found::Refusal), "{json}");
    }
    for json in [
        json!({}),
        json!([]),
        json!(null),
        json!(5),
        json!({"error": ""}),
        json!({"status": "ok"}),
        json!({"image": ""}),
    ] {
        assert_eq!(find(&json, None), None, "{json}");
    }
    for json in [
        json!({"image_url": "/x.png"}),
        json!({"images": [{"url": "/x.png"}]}),
        json!({"message": "ok", "url": " /x.png "}),
    ] {
        assert_eq!(find(&json, None), Some(Found::Odd("/x.png")), "{json}");
    }
}

#[test]
fn the_reference_that_was_sent_is_no_result_wherever_it_comes_back() {
    let sent = "https://assets.example/u/a%20b.jpg";
    for text in [sent, " https://ASSETS.example/u/a%20b.jpg#x ", "https://assets.example:443/u/a b.jpg"] {
        for key in ["image_url", "url", "reference", "image"] {
            let refused = json!({"error": "could not download the reference", key: text});
            assert_eq!(find(&refused, Some(sent)), Some(Found::Refusal), "{refused}");
            let alone = json!({key: text});
            assert_eq!(find(&alone, Some(sent)), None, "{alone}");
            let beside = json!({key: text, "result": "https://out.example/r.png"});
            assert_eq!(find(&beside, Some(sent)), Some(Found::Url("https://out.example/r.png")), "{beside}");
        }
    }
    let other = json!({"image_url": "https://assets.example/u/other.jpg"});
    assert!(matches!(find(&other, Some(sent)), Some(Found::Url(_))));
}

#[test]
fn all_that_an_upload_names_is_an_asset() {
    let json = json!({"data": [{"file_urls": ["https://a.example/1", "no"]}], "url": {"x": "http://b.example/2"},
                      "docs": "https://docs.example/"});
    assert_eq!(asset_urls(&json), ["https://a.example/1", "http://b.example/2"]);
}

#[test]
fn the_words_of_an_error_are_gathered() {
    let said = |json| words(&json);
    assert_eq!(said(json!({"error": "no", "message": "no"})).as_deref(), Some("no"));
    assert_eq!(said(json!({"error": "no", "detail": "polling"})).as_deref(), Some("no; polling"));
    let detail = json!({"detail": [{"loc": ["body", "prompt", 0], "msg": "field required", "type": "x"}]});
    assert_eq!(said(detail).as_deref(), Some("body.prompt.0: field required"));
    assert_eq!(said(json!({"error": {"message": "deep"}})).as_deref(), Some("deep"));
    assert_eq!(said(json!({"status": 1})), None);
}

#[test]
fn an_asset_url_is_https_unless_all_is_on_loopback() {
    let u = "https://assets.example/a";
    for json in [
        json!({"file_urls": [u], "message": "ok"}),
        json!({"urls": [u]}),
        json!({"data": {"file_urls": [u]}}),
        json!({"file_urls": u}),
    ] {
        assert_eq!(asset_url(&json, false), Some(u), "{json}");
    }
    let http = json!({"file_urls": ["http://127.0.0.1/a"]});
    assert_eq!(asset_url(&http, false), None);
    assert_eq!(asset_url(&http, true), Some("http://127.0.0.1/a"));
    assert_eq!(asset_url(&json!({"file_urls": []}), true), None);
}

#[test]
fn an_address_beside_an_error_is_no_result_unless_it_names_a_picture() {
    let docs = "https://docs.example/errors/moderation";
    for refused in [
        json!({"error": "refused by moderation", "url": docs}),
        json!({"error": {"code": 7}, "data": {"url": docs}}),
        json!({"detail": "refused", "urls": [docs]}),
        json!({"output": {"error": "nsfw", "docs": docs}}),
        json!({"output": {"error": "nsfw", "url": docs}}),
    ] {
        assert_eq!(find(&refused, None), Some(Found::Refusal), "{refused}");
        assert!(words(&refused).is_some(), "{refused}");
    }
    assert_eq!(words(&json!({"error": "no", "url": docs})).unwrap(), format!("no; see {docs}"));
    let (made, bare) = ("https://cdn.example/made.PNG?sig=1", "https://cdn.example/x");
    for json in [
        json!({"error": "one of two was refused", "url": made}),
        json!({"error": "one of two was refused", "image_url": bare}),
        json!({"error": "one of two was refused", "images": [{"url": bare}]}),
        json!({"error": 0, "url": bare}),
        json!({"detail": "completed", "result": [{"urls": [bare]}]}),
        json!({"image": {"url": bare, "detail": "high"}}),
        json!({"images": [{"error": "refused"}, {"url": bare}]}),
        json!({"message": "done", "url": bare}),
    ] {
        assert!(matches!(find(&json, None), Some(Found::Url(_))), "{json}");
    }
    let upload = json!({"data": {"file_urls": [made], "detail": "stored"}});
    assert_eq!(asset_url(&upload, false), Some(made));
}
