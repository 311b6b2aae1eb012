#![allow(clippy::unwrap_used)]

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use image::metadata::Orientation;
use proptest::prelude::*;

use super::samples::{
    KINDS, RULES, chunk, contains, exif, fixture, kind, phone_jpeg, pixels, prepared, segment, talking_png,
    talking_webp,
};
use super::{Budget, Change, Format, Original, PrepareError, Rules, Whole, Why, cache_key, check, prepare};
use crate::domain::ids::Fingerprint;

/// The mean difference of two pictures of one size, in steps of 255.
fn difference(a: &image::RgbaImage, b: &image::RgbaImage) -> f64 {
    assert_eq!(a.dimensions(), b.dimensions());
    let sum: u64 = a.as_raw().iter().zip(b.as_raw()).map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
    sum as f64 / a.as_raw().len() as f64
}

#[test]
fn metadata_is_cut_out_and_no_pixel_changes() {
    for (bytes, clean) in [
        (phone_jpeg(&kind("baseline.jpg"), 1), kind("baseline.jpg")),
        (phone_jpeg(&kind("progressive.jpg"), 1), kind("progressive.jpg")),
        (talking_png(&kind("rgb.png"), 1), kind("rgb.png")),
        (talking_png(&kind("palette.png"), 1), kind("palette.png")),
        (talking_webp(&kind("lossy.webp"), 1), kind("lossy.webp")),
        (talking_webp(&kind("alpha.webp"), 1), kind("alpha.webp")),
    ] {
        assert!(contains(&bytes, b"SECRET"));
        let (done, out) = prepared(&bytes, &RULES).unwrap();
        assert_eq!(done.change, Change::Stripped);
        for secret in [&b"SECRET"[..], b"Exif", b"eXIf", b"EXIF", b"XMP ", b"MPF", b"ftyp"] {
            assert!(!contains(&out, secret), "{} in {}", String::from_utf8_lossy(secret), done.format);
        }
        assert!(matches!(check(&out).unwrap(), Whole::Whole { end, .. } if end == out.len() as u64));
        assert_eq!(pixels(&out), pixels(&clean));
        // A thumbnail is a JPEG of its own.
        assert!(out.windows(3).skip(1).all(|w| w != [0xff, 0xd8, 0xff]));
    }
}

#[test]
fn a_jfif_thumbnail_does_not_travel() {
    let jpeg = kind("baseline.jpg");
    let jfif = segment(0xe0, &[b"JFIF\0\x01\x02\0\0\x01\0\x01\x02\x01".as_slice(), b"SECRET"].concat());
    assert_eq!(&jpeg[2..4], &[0xff, 0xe0]);
    let bytes = [&jpeg[..2], &jfif, &segment(0xe0, b"JFXX\0\x10SECRET"), &jpeg[20..]].concat();
    let (_, out) = prepared(&bytes, &RULES).unwrap();
    assert!(!contains(&out, b"SECRET") && contains(&out, b"JFIF"));
    assert_eq!(pixels(&out), pixels(&jpeg));
}

#[test]
fn every_orientation_is_turned_upright() {
    type WithExif = fn(&[u8], u16) -> Vec<u8>;
    let sources: [(&str, WithExif); 3] =
        [("baseline.jpg", phone_jpeg), ("rgb.png", talking_png), ("lossy.webp", talking_webp)];
    for (name, with_exif) in sources {
        for number in 2..=8_u8 {
            let bytes = with_exif(&kind(name), u16::from(number));
            let mut upright = image::load_from_memory(&kind(name)).unwrap();
            upright.apply_orientation(Orientation::from_exif(number).unwrap());
            let (done, out) = prepared(&bytes, &RULES).unwrap();
            assert_eq!(done.change, Change::Reencoded(Why::Turned), "{name} {number}");
            assert!(!contains(&out, b"SECRET"));
            assert_eq!((done.width, done.height), (upright.width(), upright.height()));
            let off = difference(&pixels(&out), &upright.to_rgba8());
            assert!(off < 8.0, "{name} {number}: {off}");
        }
    }
}

#[test]
fn what_stands_behind_the_end_of_a_pngs_chunk_does_not_travel() {
    let png = kind("rgb.png");
    let end = png.len() - 12;
    for (name, length) in
        [(b"gAMA", 4), (b"cHRM", 32), (b"sRGB", 1), (b"cICP", 4), (b"sBIT", 3), (b"tRNS", 6), (b"IEND", 0)]
    {
        let long = chunk(*name, &[&vec![0; length][..], b"SECRET"].concat());
        let bytes =
            if name == b"IEND" { [&png[..end], &long].concat() } else { [&png[..33], &long, &png[33..]].concat() };
        assert!(contains(&bytes, b"SECRET"));
        let (_, out) = prepared(&bytes, &RULES).unwrap();
        assert!(!contains(&out, b"SECRET"), "{}", String::from_utf8_lossy(name));
        assert_eq!(pixels(&out), pixels(&png));
    }
}

/// `raw.tif` with this entry instead of that of `tag`.
fn tiff_with(entry: [u8; 12], tag: u16) -> Vec<u8> {
    let mut bytes = kind("raw.tif");
    let directory = u32::from_le_bytes(bytes[4..8].try_into().unwrap()) as usize;
    let entries = u16::from_le_bytes(bytes[directory..directory + 2].try_into().unwrap()) as usize;
    let mut list: Vec<[u8; 12]> =
        (0..entries).map(|n| bytes[directory + 2 + n * 12..][..12].try_into().unwrap()).collect();
    let spare = list.iter().position(|e| u16::from_le_bytes([e[0], e[1]]) == tag).unwrap();
    list[spare] = entry;
    list.sort_by_key(|e| u16::from_le_bytes([e[0], e[1]]));
    for (n, entry) in list.iter().enumerate() {
        bytes[directory + 2 + n * 12..][..12].copy_from_slice(entry);
    }
    bytes
}

#[test]
fn a_tiff_is_turned_by_its_own_tag() {
    // One that nobody needs becomes the orientation.
    let turned = tiff_with([0x12, 1, 3, 0, 1, 0, 0, 0, 6, 0, 0, 0], 284);
    let (done, _) = prepared(&turned, &RULES).unwrap();
    assert_eq!((done.width, done.height), (32, 48));
}

#[test]
fn a_tiff_keeps_a_profile_that_is_larger_than_its_pixels() {
    let mut profile = vec![7; 9000];
    profile[16..20].copy_from_slice(b"RGB ");
    let mut entry = [0x73, 0x87, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    entry[4..8].copy_from_slice(&(profile.len() as u32).to_le_bytes());
    entry[8..].copy_from_slice(&(kind("raw.tif").len() as u32).to_le_bytes());
    let bytes = [tiff_with(entry, 34675), profile.clone()].concat();
    assert_eq!(profile_of(&prepared(&bytes, &RULES).unwrap().1), Some(profile));
}

fn profile_of(bytes: &[u8]) -> Option<Vec<u8>> {
    let reader = image::ImageReader::new(std::io::Cursor::new(bytes)).with_guessed_format().unwrap();
    image::ImageDecoder::icc_profile(&mut reader.into_decoder().unwrap()).unwrap()
}

#[test]
fn the_colour_profile_stays_whole_through_both_ways() {
    for (bytes, turned) in [
        (kind("baseline.jpg"), phone_jpeg(&kind("baseline.jpg"), 6)),
        (kind("lossy.webp"), talking_webp(&kind("lossy.webp"), 6)),
    ] {
        let original = profile_of(&bytes);
        assert!(original.is_some());
        assert_eq!(profile_of(&prepared(&bytes, &RULES).unwrap().1), original);
        assert_eq!(profile_of(&prepared(&turned, &RULES).unwrap().1), original);
    }
}

#[test]
fn every_kind_becomes_something_the_service_takes_and_looks_the_same() {
    let photo = image::load_from_memory(&kind("rgb.bmp")).unwrap().to_rgba8();
    let cases = [
        ("baseline.jpg", Format::Jpeg, Change::Stripped),
        ("restarts.jpg", Format::Jpeg, Change::Stripped),
        ("rgb.png", Format::Png, Change::Stripped),
        ("lossy.webp", Format::WebP, Change::Stripped),
        ("lossless.webp", Format::WebP, Change::Stripped),
        ("moving.webp", Format::Png, Change::Reencoded(Why::Animation)),
        ("moving.gif", Format::Png, Change::Reencoded(Why::Format)),
        ("rgb.bmp", Format::Jpeg, Change::Reencoded(Why::Format)),
        ("palette.bmp", Format::Png, Change::Reencoded(Why::Format)),
        ("rgb.tif", Format::Jpeg, Change::Reencoded(Why::Format)),
        ("raw.tif", Format::Jpeg, Change::Reencoded(Why::Format)),
        ("pages.tif", Format::Jpeg, Change::Reencoded(Why::Format)),
    ];
    for (name, format, change) in cases {
        let (done, out) = prepared(&kind(name), &RULES).unwrap();
        assert_eq!((done.format, done.change), (format, change), "{name}");
        assert_eq!(image::guess_format(&out).unwrap().to_mime_type(), done.media_type, "{name}");
        let off = difference(&pixels(&out), &photo);
        assert!(off < 16.0, "{name}: {off}");
    }
}

#[test]
fn cmyk_becomes_rgb_of_the_same_colours_without_the_cmyk_profile() {
    let mut cmyk_profile = vec![0; 200];
    cmyk_profile[16..20].copy_from_slice(b"CMYK");
    let jpeg = kind("cmyk.jpg");
    let icc = segment(0xe2, &[b"ICC_PROFILE\0\x01\x01".as_slice(), &cmyk_profile].concat());
    let jpeg = [&jpeg[..2], &icc, &jpeg[2..]].concat();
    for (name, bytes) in [("cmyk.jpg", jpeg), ("cmyk.tif", kind("cmyk.tif"))] {
        let (done, out) = prepared(&bytes, &RULES).unwrap();
        assert!(matches!(done.change, Change::Reencoded(Why::Colours | Why::Format)), "{name}");
        assert!(!contains(&out, b"ICC_PROFILE") && !contains(&out, b"iCCP"), "{name}");
        let picture = pixels(&out);
        for (x, wanted) in [(6, [255, 0, 0, 255]), (40, [255; 4])] {
            let got = picture.get_pixel(x, 16).0;
            let near = got.iter().zip(wanted).all(|(a, b)| a.abs_diff(b) < 24);
            assert!(near, "{name} at {x}: {got:?}");
        }
    }
}

#[test]
fn sixteen_bits_become_eight() {
    let (done, out) = prepared(&kind("grey16.png"), &RULES).unwrap();
    assert_eq!((done.format, done.change), (Format::Png, Change::Reencoded(Why::Depth)));
    let image = image::load_from_memory(&out).unwrap();
    assert_eq!(image.color(), image::ColorType::L8);
    let deep = image::load_from_memory(&kind("grey16.png")).unwrap();
    assert_eq!(image.to_luma8(), deep.to_luma8());
}

#[test]
fn the_long_edge_is_scaled_down_and_never_up() {
    for (name, edge, size) in [
        ("rocket.jpg", 320, (320, 214)),
        ("coffee.png", 300, (300, 200)),
        ("coffee.png", 600, (600, 400)),
        ("chelsea.png", 2048, (451, 300)),
    ] {
        let (done, out) = prepared(&fixture(name), &Rules { max_edge: edge, ..RULES }).unwrap();
        assert_eq!((done.width, done.height), size, "{name}");
        assert_eq!(pixels(&out).dimensions(), size);
        assert_eq!(done.change == Change::Reencoded(Why::Scaled), edge < 600, "{name}");
    }
    let thin = image::RgbImage::from_pixel(3000, 1, image::Rgb([1, 2, 3]));
    let (done, _) = prepared(&encoded(&thin.into(), image::ImageFormat::Png), &RULES).unwrap();
    assert_eq!((done.width, done.height), (2048, 1));
}

fn encoded(image: &image::DynamicImage, format: image::ImageFormat) -> Vec<u8> {
    let mut out = std::io::Cursor::new(Vec::new());
    image.write_to(&mut out, format).unwrap();
    out.into_inner()
}

#[test]
fn colours_of_transparent_pixels_do_not_bleed_when_scaled() {
    let stripes = image::RgbaImage::from_fn(64, 64, |x, _| {
        if x / 2 % 2 == 0 { image::Rgba([0, 255, 0, 255]) } else { image::Rgba([255, 0, 0, 0]) }
    });
    let bytes = encoded(&stripes.into(), image::ImageFormat::Png);
    let (_, out) = prepared(&bytes, &Rules { max_edge: 16, ..RULES }).unwrap();
    for pixel in pixels(&out).pixels().filter(|p| p[3] > 8) {
        assert!(pixel[0] < 16 && pixel[1] > 239, "{pixel:?}");
    }
}

#[test]
fn what_has_too_many_bytes_gets_lower_quality_then_smaller_and_says_when_nothing_helps() {
    for (name, bytes) in [("rocket.jpg", 60_000), ("coffee.png", 100_000), ("rocket.jpg", 9_000)] {
        let rules = Rules { max_bytes: bytes, ..RULES };
        let (done, out) = prepared(&fixture(name), &rules).unwrap();
        assert!(done.bytes <= bytes, "{name}: {}", done.bytes);
        assert_eq!((done.change, done.format), (Change::Reencoded(Why::Bytes), Format::Jpeg));
        assert_eq!(pixels(&out).dimensions(), (done.width, done.height));
    }
    let refused = prepared(&fixture("rocket.jpg"), &Rules { max_bytes: 300, ..RULES });
    assert!(matches!(refused, Err(PrepareError::DoesNotFit { bytes: 301.., max_bytes: 300 })), "{refused:?}");
}

#[test]
fn transparency_is_given_up_last() {
    let noise = image::RgbaImage::from_fn(200, 200, |x, y| {
        let n = x.wrapping_mul(2_654_435_761).wrapping_add(y.wrapping_mul(40_503)).wrapping_mul(x ^ 0x4d);
        image::Rgba([(n >> 8) as u8, (n >> 16) as u8, (n >> 24) as u8, if x < 100 { 0 } else { 255 }])
    });
    let bytes = encoded(&noise.into(), image::ImageFormat::Png);
    let max = |max_bytes| prepared(&bytes, &Rules { max_bytes, ..RULES }).unwrap();
    let (kept, _) = max(bytes.len() as u64 / 2);
    assert_eq!(kept.format, Format::Png);
    assert!(kept.width < 200);
    let (flat, out) = max(6_000);
    assert_eq!(flat.format, Format::Jpeg);
    assert!(pixels(&out).get_pixel(4, 4).0.iter().all(|c| *c > 230));
}

#[test]
fn metadata_that_may_stay_stays_unless_pixels_change() {
    let rules = Rules { strip_metadata: false, ..RULES };
    let bytes = phone_jpeg(&kind("baseline.jpg"), 1);
    let (done, out) = prepared(&bytes, &rules).unwrap();
    assert_eq!(done.change, Change::AsItIs);
    assert!(bytes.starts_with(&out) && contains(&out, b"SECRET GPS"));
    assert!(!contains(&out, b"SECRET video"));
    let (turned, out) = prepared(&phone_jpeg(&kind("baseline.jpg"), 3), &rules).unwrap();
    assert_eq!(turned.change, Change::Reencoded(Why::Turned));
    assert!(!contains(&out, b"SECRET"));
}

#[test]
fn an_animated_png_becomes_its_still_picture() {
    let png = kind("rgb.png");
    let mut control = Vec::new();
    for n in [0_u32, 48, 32, 0, 0] {
        control.extend_from_slice(&n.to_be_bytes());
    }
    control.extend_from_slice(&[0, 1, 0, 10, 0, 0]);
    let moving = [
        &png[..33],
        &chunk(*b"acTL", &[0, 0, 0, 1, 0, 0, 0, 0]),
        &chunk(*b"fcTL", &control),
        &png[33..png.len() - 12],
        &chunk(*b"fdAT", b"SECRET frame"),
        &png[png.len() - 12..],
    ]
    .concat();
    let (done, out) = prepared(&moving, &RULES).unwrap();
    assert_eq!(done.change, Change::Stripped);
    assert_eq!(out, png);
}

#[test]
fn the_same_picture_and_rules_give_the_same_bytes_in_a_file_closed_to_others() {
    for name in KINDS {
        let rules = Rules { max_edge: 24, ..RULES };
        let (one, two) = (prepared(&kind(name), &rules).unwrap(), prepared(&kind(name), &rules).unwrap());
        assert_eq!(one.0.fingerprint, two.0.fingerprint, "{name}");
        assert_eq!(one.0.file.as_file().metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[test]
fn the_cache_key_depends_on_the_picture_and_every_rule() {
    let print = Fingerprint::of(b"a");
    let keys = [
        cache_key(print, &RULES),
        cache_key(Fingerprint::of(b"b"), &RULES),
        cache_key(print, &Rules { max_edge: 1024, ..RULES }),
        cache_key(print, &Rules { max_bytes: 1, ..RULES }),
        cache_key(print, &Rules { strip_metadata: false, ..RULES }),
    ];
    let different: std::collections::HashSet<_> = keys.into_iter().collect();
    assert_eq!(different.len(), keys.len());
    assert_eq!(cache_key(print, &RULES), keys[0]);
}

/// Small files that claim to be huge.
fn bombs() -> Vec<(&'static str, Vec<u8>)> {
    let png_of = |side: u32| {
        let mut header = Vec::new();
        header.extend_from_slice(&side.to_be_bytes());
        header.extend_from_slice(&side.to_be_bytes());
        header.extend_from_slice(&[8, 6, 0, 0, 0]);
        let data = kind("rgb.png")[41..80].to_vec();
        [b"\x89PNG\r\n\x1a\n".as_slice(), &chunk(*b"IHDR", &header), &chunk(*b"IDAT", &data), &chunk(*b"IEND", b"")]
            .concat()
    };
    let mut gif = kind("moving.gif");
    gif[6..10].fill(0xff);
    let mut frame = kind("moving.gif");
    let at = frame.windows(10).position(|w| w[0] == 0x2c && w[5..9] == [48, 0, 32, 0]).unwrap();
    frame[at + 5..at + 9].fill(0xff);
    let mut webp = kind("lossy.webp");
    webp[24..30].fill(0xff);
    let mut jpeg = kind("progressive.jpg");
    let sof = jpeg.windows(2).position(|w| w == [0xff, 0xc2]).unwrap();
    jpeg[sof + 5..sof + 9].copy_from_slice(&[0xff, 0, 0xff, 0]);
    let mut tiff = kind("rgb.tif");
    let directory = u32::from_le_bytes(tiff[4..8].try_into().unwrap()) as usize;
    for n in 0..2 {
        let at = directory + 2 + n * 12;
        tiff[at + 2..at + 12].copy_from_slice(&[4, 0, 1, 0, 0, 0, 0x60, 0xea, 0, 0]);
    }
    vec![
        ("png of 60000", png_of(60_000)),
        ("png of 2^30", png_of(1 << 30)),
        ("gif canvas", gif),
        ("gif frame", frame),
        ("webp", webp),
        ("jpeg", jpeg),
        ("tiff", tiff),
    ]
}

#[test]
fn a_small_file_that_claims_to_be_huge_is_refused_before_it_is_decoded() {
    for (what, bytes) in bombs() {
        let refused = prepared(&bytes, &RULES);
        assert!(matches!(refused, Err(PrepareError::TooLarge { .. })), "{what}: {refused:?}");
    }
}

#[test]
fn a_place_that_cannot_be_written_is_not_the_pictures_fault() {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&kind("rgb.png")).unwrap();
    let Whole::Whole { format, end } = check(&file).unwrap() else { panic!() };
    let original = Original { file: &file, path: Path::new("picture"), format, end };
    let failed = prepare(&original, &RULES, Path::new("/nowhere/at/all"), &Budget::default());
    assert!(matches!(failed, Err(PrepareError::Io { path, .. }) if path == Path::new("/nowhere/at/all")));
}

#[test]
fn the_orientation_is_found_with_and_without_the_prefix() {
    let webp = kind("lossy.webp");
    let mut block = b"Exif\0\0".to_vec();
    block.extend(exif(6));
    let mut body = webp[8..].to_vec();
    body[12] |= 8;
    body.extend_from_slice(b"EXIF");
    body.extend_from_slice(&u32::try_from(block.len()).unwrap().to_le_bytes());
    body.extend_from_slice(&block);
    if block.len() % 2 == 1 {
        body.push(0);
    }
    let bytes = [&b"RIFF"[..], &u32::try_from(body.len()).unwrap().to_le_bytes(), &body].concat();
    assert_eq!(prepared(&bytes, &RULES).unwrap().0.change, Change::Reencoded(Why::Turned));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(120))]

    #[test]
    fn a_mutilated_picture_is_prepared_or_refused_but_nothing_falls_over(
        which in 0..KINDS.len(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        edge in 1_u32..64,
    ) {
        let mut bytes = kind(KINDS[which]);
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(Whole::Whole { .. }) = check(&bytes) {
            let rules = Rules { max_edge: edge, ..RULES };
            if let Ok((done, out)) = prepared(&bytes, &rules) {
                prop_assert!(done.width <= edge && done.height <= edge);
                let whole = matches!(check(&out).unwrap(), Whole::Whole { .. });
                prop_assert!(whole);
            }
        }
    }
}
