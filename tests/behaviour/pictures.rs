//! What of a picture leaves the machine, and how: the real binary over scripted answers.

#![allow(clippy::unwrap_used, reason = "tests say so by failing")]

use crate::support;

use image::{GenericImageView as _, ImageFormat};
use support::pictures::{self, exif, fixture};
use support::{Answer, Site, api};

/// One picture under that name, `run --once`, and what was uploaded.
fn uploaded(name: &str, bytes: &[u8]) -> (String, Vec<u8>) {
    let site = Site::new();
    site.put(format!("inbox/{name}"), bytes);
    assert_eq!(site.once(), 0, "{name}\n{}", site.describe());
    let uploads = site.api.uploads();
    assert_eq!(uploads.len(), 1, "{name}");
    uploads[0].clone()
}

fn holds(bytes: &[u8], text: &[u8]) -> bool {
    bytes.windows(text.len()).any(|w| w == text)
}

#[test]
fn a_picture_travels_upright_and_without_its_metadata() {
    let gps = b"GPS 52.5 13.4 serial 4711";
    for (orientation, wide) in [(1, true), (3, true), (6, false), (8, false)] {
        let segments = [
            exif(orientation, "Jane Doe of Somewhere"),
            (0xE1, [b"http://ns.adobe.com/xap/1.0/\0".as_slice(), gps].concat()),
            (0xED, b"Photoshop 3.0\0 caption by somebody".to_vec()),
            (0xFE, b"a comment that nobody should see".to_vec()),
            // Reserved, or of another kind of picture.
            (0x02, b"reserved Jane Doe".to_vec()),
            (0xBF, gps.to_vec()),
            (0xC8, gps.to_vec()),
        ];
        let mut bytes = pictures::jpeg_with(orientation.into(), &segments);
        bytes.extend(b"a video that a phone appended");
        let (kind, sent) = uploaded("phone.jpg", &bytes);
        assert_eq!(kind, "image/jpeg");
        let picture = image::load_from_memory_with_format(&sent, ImageFormat::Jpeg).unwrap();
        assert_eq!(picture.width() > picture.height(), wide, "orientation {orientation}");
        for secret in
            [b"Jane Doe".as_slice(), gps, b"caption by", b"a comment", b"a video", b"Exif", b"Photoshop", b"ns.adobe"]
        {
            assert!(!holds(&sent, secret), "{} travelled", String::from_utf8_lossy(secret));
        }
    }
}

#[test]
fn turning_a_picture_turns_its_pixels() {
    // The upper left corner is dark, the rest is light; 6 says: turn by 90 degrees clockwise to look at it.
    let corner = image::RgbImage::from_fn(64, 32, |x, y| if x < 16 && y < 16 { [0; 3] } else { [255; 3] }.into());
    let mut plain = std::io::Cursor::new(Vec::new());
    image::DynamicImage::ImageRgb8(corner).write_to(&mut plain, ImageFormat::Jpeg).unwrap();
    let plain = plain.into_inner();
    let (marker, payload) = exif(6, "x");
    let length = u16::try_from(payload.len() + 2).unwrap().to_be_bytes();
    let bytes = [&plain[..2], &[0xFF, marker], &length, &payload, &plain[2..]].concat();
    let (_, sent) = uploaded("corner.jpg", &bytes);
    let picture = image::load_from_memory(&sent).unwrap();
    assert_eq!(picture.dimensions(), (32, 64));
    assert!(picture.get_pixel(28, 4)[0] < 80, "the corner is at the upper right now");
    assert!(picture.get_pixel(4, 4)[0] > 180 && picture.get_pixel(4, 60)[0] > 180);
}

#[test]
fn every_kind_that_is_taken_arrives_as_one_that_the_service_takes() {
    for (name, kinds) in [
        ("kinds/rgb.tif", &["image/png", "image/jpeg", "image/webp"][..]),
        ("kinds/pages.tif", &["image/png", "image/jpeg", "image/webp"]),
        ("kinds/cmyk.tif", &["image/png", "image/jpeg", "image/webp"]),
        ("kinds/rgb.bmp", &["image/png", "image/jpeg", "image/webp"]),
        ("kinds/palette.bmp", &["image/png", "image/jpeg", "image/webp"]),
        ("kinds/moving.gif", &["image/png", "image/jpeg", "image/webp"]),
        ("kinds/progressive.jpg", &["image/jpeg"]),
        ("kinds/cmyk.jpg", &["image/jpeg"]),
        ("kinds/grey16.png", &["image/png"]),
        ("kinds/alpha.png", &["image/png"]),
        ("kinds/lossy.webp", &["image/webp"]),
        ("kinds/moving.webp", &["image/webp", "image/png", "image/jpeg"]),
    ] {
        let site = Site::new();
        let file = name.rsplit('/').next().unwrap();
        let original = fixture(name);
        site.put(format!("inbox/{file}"), &original);
        assert_eq!(site.once(), 0, "{name}\n{}", site.describe());
        let (kind, sent) = site.api.uploads()[0].clone();
        assert!(kinds.contains(&kind.as_str()), "{name} went as {kind}");
        let format = ImageFormat::from_mime_type(&kind).unwrap();
        let picture = image::load_from_memory_with_format(&sent, format).unwrap();
        let before = image::load_from_memory(&original).unwrap();
        assert_eq!(picture.dimensions(), before.dimensions(), "{name}");
        assert_eq!(site.files("archive").into_values().next().unwrap(), original, "the original is kept as it is");
    }
}

#[test]
fn a_large_picture_is_scaled_down_before_it_is_sent() {
    let site = Site::new();
    site.set("reference.max_edge", 100);
    site.put("inbox/wide.png", pictures::encoded(1, 300, 60, ImageFormat::Png));
    site.put("inbox/tall.jpg", pictures::encoded(2, 30, 200, ImageFormat::Jpeg));
    site.put("inbox/small.jpg", pictures::encoded(3, 100, 80, ImageFormat::Jpeg));
    assert_eq!(site.once(), 0);
    let mut sizes: Vec<_> =
        site.api.uploads().iter().map(|(_, bytes)| image::load_from_memory(bytes).unwrap().dimensions()).collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [(15, 100), (100, 20), (100, 80)]);
}

#[test]
fn a_photograph_goes_through_as_it_is() {
    let site = Site::new();
    for name in ["chelsea.png", "coffee.png", "rocket.jpg"] {
        site.put(format!("inbox/{name}"), fixture(name));
    }
    assert_eq!(site.once(), 0, "{}", site.describe());
    assert_eq!(site.results(), ["chelsea.png", "coffee.png", "rocket.png"]);
}

#[test]
fn a_served_picture_is_named_by_its_url_and_not_uploaded() {
    let site = Site::new();
    site.serve_pictures();
    site.put_picture("inbox/o d/a b#?%é.jpg");
    assert_eq!(site.once(), 0, "{}", site.describe());
    assert!(site.api.uploads().is_empty());
    assert_eq!(
        site.api.calls()[0].reference().unwrap(),
        "https://cdn.example.com/in%20box/o%20d/a%20b%23%3F%25%C3%A9.jpg"
    );
    site.put("inbox/scan.tif", fixture("kinds/rgb.tif"));
    assert_eq!(site.once(), 3);
    assert!(site.has("errors/scan.error.txt"));
    site.unset("reference.strip_metadata");
    assert_eq!(site.once(), 2, "nothing can be stripped, so it must be said");
    assert!(site.logs().contains("strip_metadata"));
}

/// What becomes of one must not be in the way of the next, where only one may be in flight.
#[test]
fn served_pictures_that_come_one_by_one_each_end_as_they_should() {
    let site = Site::new();
    site.serve_pictures().set("api.max_in_flight", 1).unset("preset.prompt");
    site.put("inbox/a/preset.toml", "prompt = \"a look\"\n");
    let daemon = site.run();
    for round in 0..3 {
        // No prompt; one that the service could not read; no picture; and good ones.
        site.put_picture(format!("inbox/waits-{round}.jpg"));
        site.wait("it waits for a prompt", || site.waiting("prompt") == round + 1);
        site.put(format!("inbox/a/scan-{round}.tif"), fixture("kinds/rgb.tif"));
        site.wait("it is refused", || site.has(format!("errors/a/scan-{round}.error.txt")));
        site.put(format!("inbox/a/text-{round}.jpg"), "no picture");
        site.wait("it is refused", || site.has(format!("errors/a/text-{round}.error.txt")));
        for n in 0..2 {
            site.put_picture(format!("inbox/a/good-{round}-{n}.jpg"));
            site.wait("it is done", || site.has(format!("archive/a/good-{round}-{n}.jpg")));
        }
    }
    assert_eq!(site.api.calls().len(), 6);
    site.put("inbox/preset.toml", "prompt = \"a look\"\n");
    site.wait("those without a prompt are done", || (0..3).all(|n| site.has(format!("archive/waits-{n}.jpg"))));
    assert_eq!(daemon.stop(), 0);
    assert_eq!(site.api.calls().len(), 9);
}

#[test]
fn an_inline_picture_is_the_field_itself() {
    let site = Site::new();
    site.set("reference.mode", "inline");
    site.put("inbox/a.jpg", pictures::jpeg_with(9, &[exif(1, "Jane Doe")]));
    site.put("inbox/a.toml", "seeds = [1, 2]\n");
    assert_eq!(site.once(), 0, "{}", site.describe());
    assert!(site.api.uploads().is_empty());
    let calls = site.api.calls();
    assert_eq!(calls.len(), 2);
    for call in &calls {
        let reference = call.reference().unwrap();
        let data = reference.strip_prefix("data:image/jpeg;base64,").unwrap();
        let sent = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, data).unwrap();
        assert_eq!(image::load_from_memory(&sent).unwrap().dimensions(), (48, 32));
        assert!(!holds(&sent, b"Jane Doe"));
    }
    let provenance = site.provenance("outbox/a-1.reimagined.json");
    assert!(provenance["request"]["structure_image_url"].as_str().unwrap().starts_with("blake3:"), "{provenance:#}");
}

#[test]
fn metadata_stays_where_that_is_asked_for() {
    let site = Site::new();
    site.set("reference.strip_metadata", false);
    let bytes = pictures::jpeg_with(4, &[exif(1, "Jane Doe")]);
    site.put("inbox/a.jpg", &bytes);
    assert_eq!(site.once(), 0);
    assert_eq!(site.api.uploads()[0].1, bytes);
}

#[test]
fn the_results_name_follows_the_template() {
    let site = Site::new();
    site.set("output.name", "{folder}-{stem}-v{variant}-{seed}").set("output.provenance", false);
    site.put_picture("inbox/cafe/a.jpg");
    site.put("inbox/cafe/a.toml", "seeds = [3, 4]\n");
    assert_eq!(site.once(), 0, "{}", site.describe());
    assert_eq!(site.names("outbox"), ["cafe/cafe-a-v1-3.png", "cafe/cafe-a-v2-4.png"]);
}

#[test]
fn a_larger_result_than_can_be_kept_is_given_up() {
    let site = Site::new();
    site.set("api.timeout", "60s");
    site.api.on_model(|_| Answer::new(200, "image/png", vec![0x89; 1 << 22]).endless());
    site.put_picture("inbox/a.jpg");
    assert_eq!(site.once(), 3);
    assert!(site.note("errors/a.error.txt").contains("billed: unknown"));
    assert_eq!(site.api.to(api::MODEL).len(), 1);
}

#[test]
fn a_picture_that_a_sidecar_holds_is_told_by_its_hash() {
    use base64::Engine as _;
    let site = Site::new();
    let picture = pictures::encoded(1, 40, 30, ImageFormat::Jpeg);
    let uri = format!("data:image/jpeg;base64,{}", base64::engine::general_purpose::STANDARD.encode(&picture));
    site.put("inbox/a.json", serde_json::json!({ "prompt": "p", "structure_image_url": uri }).to_string());
    assert_eq!(site.once(), 0, "{}", site.describe());
    assert_eq!(site.api.calls()[0].json()["structure_image_url"], uri);
    let print = reimagined::domain::ids::Fingerprint::of(&picture);
    assert_eq!(
        site.provenance("outbox/a.reimagined.json")["request"]["structure_image_url"],
        format!("blake3:{print}")
    );
}
