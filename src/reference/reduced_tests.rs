#![allow(clippy::unwrap_used)]

use std::io::Cursor;

use super::formats::jpeg;
use super::pixels::{decode, scaled};
use super::reduced::Reduced;
use super::samples::{exif, fixture, kind, phone_jpeg, pixels, prepared, segment};
use super::source::Scan;
use super::{Change, Format, Rules, Why};

const SCALED: Rules = Rules { max_edge: 150, max_bytes: 12_000_000, strip_metadata: true };

#[test]
fn a_jpeg_is_made_smaller_in_the_decoder_as_far_as_its_long_edge_allows() {
    let survey = |bytes: &Vec<u8>| jpeg::survey(&mut Scan::new(bytes).unwrap()).unwrap();
    let rocket = survey(&fixture("rocket.jpg"));
    assert_eq!((rocket.width, rocket.height), (640, 427));
    for (edge, expected) in [
        (640, None),
        (321, None),
        (320, Some((320, 214))),
        (161, Some((320, 214))),
        (160, Some((160, 107))),
        (80, Some((80, 54))),
        (1, Some((80, 54))),
    ] {
        let found = Reduced::of(Format::Jpeg, &rocket, edge).map(|r| (r.width, r.height));
        assert_eq!(found, expected, "{edge}");
        if let Some(reduced) = Reduced::of(Format::Jpeg, &rocket, edge) {
            let decoded = reduced.decode(&fixture("rocket.jpg"), &rocket).unwrap();
            assert_eq!(decoded.pixels.data.len() as u64, reduced.output(&rocket));
        }
    }
    assert_eq!(Reduced::of(Format::Jpeg, &survey(&kind("cmyk.jpg")), 1), None, "the other decoder converts it");
}

/// A JPEG of one colour, with that before its tables instead of JFIF, and its components called so.
fn of_one_colour(rgb: [u8; 3], before: &[u8], names: [u8; 3]) -> Vec<u8> {
    let image = image::RgbImage::from_pixel(320, 320, image::Rgb(rgb));
    let mut bytes = Vec::new();
    image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, 95).encode_image(&image).unwrap();
    let jfif = 2..4 + usize::from(bytes[5]);
    assert_eq!(bytes[3], 0xe0);
    bytes.splice(jfif, before.iter().copied());
    for (marker, first, step) in [(0xc0, 10, 3), (0xda, 5, 2)] {
        let at = bytes.windows(2).position(|w| w == [0xff, marker]).unwrap();
        for (n, name) in names.into_iter().enumerate() {
            bytes[at + first + n * step] = name;
        }
    }
    bytes
}

#[test]
fn colours_come_out_the_same_whatever_says_what_they_are() {
    let adobe = |transform: u8| segment(0xee, &[b"Adobe\0\x64\0\0\0\0".as_slice(), &[transform]].concat());
    let jfif = segment(0xe0, b"JFIF\0\x01\x02\0\0\x01\0\x01\0\0");
    for before in [vec![], adobe(0), adobe(1), adobe(2), jfif.clone(), [jfif.clone(), adobe(0)].concat()] {
        for names in [[1, 2, 3], [0, 1, 2], *b"RGB"] {
            let bytes = of_one_colour([200, 40, 90], &before, names);
            let whole = image::load_from_memory(&bytes).unwrap().to_rgb8().get_pixel(100, 100).0;
            let (done, out) = prepared(&bytes, &SCALED).unwrap();
            assert_eq!((done.width, done.height), (150, 150));
            let small = pixels(&out).get_pixel(50, 50).0;
            let near = whole.iter().zip(small).all(|(a, b)| a.abs_diff(b) < 6);
            assert!(near, "{whole:?} became {small:?}: {before:?} {names:?}");
        }
    }
}

#[test]
fn what_the_decoder_made_smaller_looks_like_what_was_scaled_afterwards() {
    for bytes in
        [fixture("rocket.jpg"), kind("baseline.jpg"), kind("progressive.jpg"), kind("restarts.jpg"), kind("grey.jpg")]
    {
        let survey = jpeg::survey(&mut Scan::new(&bytes).unwrap()).unwrap();
        let edge = survey.width.max(survey.height) / 3;
        let (width, height) = scaled(survey.width, survey.height, edge);
        let reduced = Reduced::of(Format::Jpeg, &survey, edge).unwrap();
        let small = reduced.decode(&bytes, &survey).unwrap().pixels.scale_to(width, height).unwrap();
        let whole = decode(&bytes, Format::Jpeg, &survey).unwrap().pixels.scale_to(width, height).unwrap();
        assert_eq!((small.width, small.height, small.channels), (whole.width, whole.height, whole.channels));
        let sum: u64 = small.data.iter().zip(&whole.data).map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
        let mean = sum as f64 / small.data.len() as f64;
        assert!(mean < 2.5, "{mean} of 255 in {} × {}", survey.width, survey.height);
    }
}

#[test]
fn a_picture_that_was_made_smaller_in_the_decoder_has_the_size_that_the_rules_say_and_stands_upright() {
    let (done, out) = prepared(&phone_jpeg(&fixture("rocket.jpg"), 6), &SCALED).unwrap();
    assert_eq!((done.width, done.height), (100, 150));
    assert_eq!(pixels(&out).dimensions(), (100, 150));
    assert_eq!(done.change, Change::Reencoded(Why::Turned));
    assert!(!out.windows(4).any(|w| w == b"Exif") && !exif(6).is_empty());
}

#[test]
fn a_jpeg_that_only_the_other_decoder_takes_is_taken() {
    // Decoders differ in what they forgive: some flipped bit in the coded data stops one of them alone.
    let jpeg = fixture("rocket.jpg");
    let flipped = (20_000..jpeg.len() - 1000).step_by(997).map(|at| {
        let mut bytes = jpeg.clone();
        bytes[at] ^= 0x10;
        bytes
    });
    let refused = |bytes: &Vec<u8>| jpeg_decoder::Decoder::new(Cursor::new(bytes)).decode().is_err();
    let odd = flipped.filter(refused).find(|bytes| image::load_from_memory(bytes).is_ok());
    let odd = odd.expect("a picture of another kind is needed for this");
    let (done, _) = prepared(&odd, &SCALED).unwrap();
    assert_eq!((done.width, done.height), (150, 100));
}
