//! What has to be decoded before it may be sent, and what need not be.

#![allow(clippy::unwrap_used)]

use std::io::Write as _;
use std::path::Path;

use super::samples::{KINDS, RULES, fixture, kind, phone_jpeg, prepared, talking_png};
use super::{Budget, Change, Format, Original, PrepareError, Rules, Stripped, Whole, Why, check, prepare, strip};

/// A PNG with a byte changed in its pixels, and perhaps the sum of the chunk put right again.
fn damaged_png(summed: bool) -> Vec<u8> {
    let mut png = kind("rgb.png");
    let data = png.windows(4).position(|w| w == b"IDAT").unwrap();
    png[data + 100] ^= 0x55;
    if summed {
        let length = u32::from_be_bytes(png[data - 4..data].try_into().unwrap()) as usize;
        let sum = crc32fast::hash(&png[data..data + 4 + length]);
        png[data + 4 + length..][..4].copy_from_slice(&sum.to_be_bytes());
    }
    png
}

#[test]
fn damaged_pixels_are_found_before_anything_is_paid() {
    let mut webp = kind("lossless.webp");
    let data = webp.windows(4).position(|w| w == b"VP8L").unwrap();
    webp[data + 20..data + 60].fill(0xff);
    for (what, bytes) in [("PNG", damaged_png(false)), ("WebP", webp)] {
        assert!(matches!(check(&bytes).unwrap(), Whole::Whole { .. }), "{what} is whole as far as its structure goes");
        let broken = prepared(&bytes, &RULES);
        assert!(matches!(broken, Err(PrepareError::Broken { .. })), "{what}: {broken:?}");
        assert!(stripped(&bytes, &RULES).is_none(), "{what}");
    }
}

#[test]
fn a_picture_whose_structure_vouches_for_its_pixels_is_not_decoded() {
    let damaged = damaged_png(true);
    assert!(image::load_from_memory(&damaged).is_err());
    let (done, out) = prepared(&damaged, &RULES).unwrap();
    assert_eq!((done.change, out.as_slice()), (Change::Stripped, &*stripped(&damaged, &RULES).unwrap().bytes));
    // Where it has to be decoded anyway, the damage is found.
    let smaller = prepared(&damaged, &Rules { max_edge: 16, ..RULES });
    assert!(matches!(smaller, Err(PrepareError::Broken { .. })), "{smaller:?}");

    // No decoder finds fault with the coded data of a JPEG, so it is seen by its taking no memory to decode.
    let budget = Budget::new(1);
    let taken = budget.take(1);
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&kind("progressive.jpg")).unwrap();
            let Whole::Whole { format, end } = check(&file).unwrap() else { panic!() };
            let original = Original { file: &file, path: Path::new("picture"), format, end };
            let into = tempfile::tempdir().unwrap();
            tell.send(prepare(&original, &RULES, into.path(), &budget).unwrap().change).unwrap();
        });
        let change = told.recv_timeout(std::time::Duration::from_secs(60));
        drop(taken);
        assert_eq!(change, Ok(Change::Stripped));
    });
}

#[test]
fn what_decoders_may_not_know_is_decoded() {
    let jpeg = kind("baseline.jpg");
    let at = |marker: u8| jpeg.windows(2).position(|w| w == [0xff, marker]).unwrap();
    let changed = |at: usize, to: u8| {
        let mut bytes = jpeg.clone();
        bytes[at] = to;
        bytes
    };
    let without = |marker: u8| {
        let mut bytes = jpeg.clone();
        while let Some(at) = bytes.windows(2).position(|w| w == [0xff, marker]) {
            let length = usize::from(u16::from_be_bytes([bytes[at + 2], bytes[at + 3]]));
            bytes.drain(at..at + 2 + length);
        }
        bytes
    };
    // The last alone: the scan names it, and others are there.
    let without_last = |marker: u8| {
        let at = jpeg.windows(2).rposition(|w| w == [0xff, marker]).unwrap();
        let length = usize::from(u16::from_be_bytes([jpeg[at + 2], jpeg[at + 3]]));
        [&jpeg[..at], &jpeg[at + 2 + length..]].concat()
    };
    let frame = &jpeg[at(0xc0)..][..2 + usize::from(jpeg[at(0xc0) + 3])];
    let two_frames = [&jpeg[..at(0xc0)], frame, &jpeg[at(0xc0)..]].concat();
    let png = kind("rgb.png");
    let header = |at: usize, to: u8| {
        let mut bytes = png.clone();
        bytes[at] = to;
        let sum = crc32fast::hash(&bytes[12..29]);
        bytes[29..33].copy_from_slice(&sum.to_be_bytes());
        bytes
    };
    for (what, bytes) in [
        ("coded by arithmetic", changed(at(0xc0) + 1, 0xc9)),
        ("lossless", changed(at(0xc0) + 1, 0xc3)),
        ("of 12 bits", changed(at(0xc0) + 4, 12)),
        ("of impossible factors", changed(at(0xc0) + 11, 0x05)),
        ("without what to multiply by", without(0xdb)),
        ("without codes", without(0xc4)),
        ("without the last of its codes", without_last(0xc4)),
        ("without the last of what to multiply by", without_last(0xdb)),
        ("of more codes than there are", changed(at(0xc4) + 5, 3)),
        ("of codes that do not fit", changed(at(0xc4) + 20, 200)),
        ("of a component that the scan does not know", changed(at(0xda) + 5, 9)),
        ("of a colour type that there is not", header(25, 5)),
        ("of a depth that there is not", header(24, 3)),
        ("of colours from a palette that is not there", header(25, 3)),
        ("packed in a way that there is not", header(26, 1)),
        ("woven in a way that there is not", header(28, 2)),
    ] {
        assert!(matches!(check(&bytes).unwrap(), Whole::Whole { .. }), "{what}");
        assert!(prepared(&bytes, &RULES).is_err(), "{what}");
        assert!(stripped(&bytes, &RULES).is_none(), "{what}");
    }
    // Some decoders take these.
    let scan = at(0xda) + 2 + usize::from(jpeg[at(0xda) + 3]);
    let put = |at: usize, what: &[u8]| [&jpeg[..at], what, &jpeg[at..]].concat();
    for (what, bytes) in [
        ("of two frames", two_frames),
        ("of odd factors", changed(at(0xc0) + 11, 0x31)),
        ("of more blocks than go into a unit", changed(at(0xc0) + 11, 0x44)),
        ("of one component twice", changed(at(0xda) + 7, jpeg[at(0xda) + 5])),
        ("of another pass than there is one", changed(scan - 2, 62)),
        ("with something within its pixels", put(scan + 100, &[0xff, 0x10, 0, 4, 0, 0])),
        ("with an application's words within its pixels", put(scan + 100, &[0xff, 0xe5, 0, 4, 0, 0])),
        ("with bytes that belong to nothing", put(at(0xc0), &[1, 2, 3])),
        ("with a restart's length of three bytes", put(at(0xc0), &[0xff, 0xdd, 0, 5, 0, 8, 0])),
    ] {
        assert!(matches!(check(&bytes).unwrap(), Whole::Whole { .. }), "{what}");
        assert!(stripped(&bytes, &RULES).is_none(), "{what}");
    }
}

/// What is made in memory of a whole picture.
fn stripped(bytes: &[u8], rules: &Rules) -> Option<Stripped> {
    let Whole::Whole { format, end } = check(&bytes).unwrap() else { panic!("it is not whole") };
    strip(bytes, format, end, rules)
}

#[test]
fn a_picture_in_memory_becomes_what_it_becomes_on_the_disk() {
    let phone = phone_jpeg(&kind("baseline.jpg"), 1);
    let turned = phone_jpeg(&kind("baseline.jpg"), 6);
    let talking = talking_png(&kind("rgb.png"), 1);
    let keep = Rules { strip_metadata: false, ..RULES };
    let small = Rules { max_edge: 16, ..RULES };
    let short = Rules { max_bytes: 100, ..RULES };
    let photographs = ["rocket.jpg", "chelsea.png", "coffee.png"].map(fixture);
    let pictures = [phone, turned, talking].into_iter().chain(photographs).chain(KINDS.map(kind));
    let (mut in_memory, mut not) = (0, 0);
    for bytes in pictures {
        for rules in [&RULES, &keep, &small, &short] {
            let there = prepared(&bytes, rules);
            if let Some(here) = stripped(&bytes, rules) {
                let (done, out) = there.unwrap();
                assert!(out == here.bytes && done.change != Change::Reencoded(Why::Scaled));
                assert_eq!((done.fingerprint, done.media_type), (here.fingerprint, here.media_type));
                in_memory += 1;
            } else {
                let plain = matches!(&there, Ok((p, _)) if matches!(p.change, Change::Stripped | Change::AsItIs));
                let known = matches!(&there, Ok((p, _)) if matches!(p.format, Format::Jpeg | Format::Png));
                assert!(!(plain && known), "{there:?}");
                not += 1;
            }
        }
    }
    assert!(in_memory >= 8 && not >= 8, "{in_memory} {not}");
}
