#![allow(clippy::unwrap_used)]

use super::formats::tiff::survey;
use super::samples::{kind, segment};
use super::source::Scan;
use super::{Format, Whole, check};

/// Tag, type, count, value or place.
type Entry = (u16, u16, u32, u32);

/// Where `data` of [`file`] stands.
const DATA: u32 = 4096;

/// A page whose `parts` strips are all the same bytes, `len` at [`DATA`].
fn page(width: u32, height: u32, rows: u32, parts: u32, len: usize) -> Vec<Entry> {
    // Behind the strip: its place and its length, once for each.
    let lists = DATA + len as u32;
    let places = if parts == 1 { DATA } else { lists };
    let lengths = if parts == 1 { len as u32 } else { lists + parts * 4 };
    vec![
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, 1, 8),
        (259, 3, 1, 7),
        (262, 3, 1, 6),
        (273, 4, parts, places),
        (277, 3, 1, 3),
        (278, 4, 1, rows),
        (279, 4, parts, lengths),
    ]
}

/// A TIFF of these pages.
fn file(pages: &[Vec<Entry>], strip: &[u8], parts: u32) -> Vec<u8> {
    let mut out = b"II*\0\x08\0\0\0".to_vec();
    for (n, page) in pages.iter().enumerate() {
        out.extend((page.len() as u16).to_le_bytes());
        for (tag, kind, count, value) in page {
            out.extend(tag.to_le_bytes());
            out.extend(kind.to_le_bytes());
            out.extend(count.to_le_bytes());
            out.extend(value.to_le_bytes());
        }
        let next = if n + 1 < pages.len() { out.len() as u32 + 4 } else { 0 };
        out.extend(next.to_le_bytes());
    }
    assert!(out.len() <= DATA as usize);
    out.resize(DATA as usize, 0);
    out.extend(strip);
    for value in [DATA, strip.len() as u32] {
        out.extend(value.to_le_bytes().repeat(parts as usize));
    }
    out
}

/// A TIFF of one page, whose strips are all the same.
fn strips(width: u32, height: u32, rows: u32, parts: u32, strip: &[u8]) -> Vec<u8> {
    file(&[page(width, height, rows, parts, strip.len())], strip, parts)
}

/// A JPEG that claims this size.
fn sized(width: u16, height: u16) -> Vec<u8> {
    let mut bytes = kind("baseline.jpg");
    let at = bytes.windows(2).position(|w| w == [0xff, 0xc0]).unwrap();
    bytes[at + 5..at + 7].copy_from_slice(&height.to_be_bytes());
    bytes[at + 7..at + 9].copy_from_slice(&width.to_be_bytes());
    bytes
}

fn is_whole(bytes: &Vec<u8>) -> bool {
    matches!(check(bytes).unwrap(), Whole::Whole { format: Format::Tiff, .. })
}

/// Why it is broken.
#[track_caller]
fn broken(bytes: &Vec<u8>) -> String {
    match check(bytes).unwrap() {
        Whole::Broken { why, .. } => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_large_scan_in_strips_takes_no_more_than_its_strips() {
    // A3 at 600 dpi.
    let bytes = strips(7016, 9921, 16, 621, &sized(7016, 16));
    assert!(is_whole(&bytes));
    let survey = survey(&mut Scan::new(&bytes).unwrap()).unwrap();
    assert!(survey.output + survey.beside < 1 << 29, "{} + {}", survey.output, survey.beside);
    // One strip of all is counted as what it is.
    let bytes = strips(7016, 9921, 9921, 1, &sized(7016, 9921));
    let survey = super::formats::tiff::survey(&mut Scan::new(&bytes).unwrap()).unwrap();
    assert!(survey.beside > 12 * 7016 * 9921, "{}", survey.beside);
}

#[test]
fn a_strip_is_no_larger_than_its_rows() {
    assert!(is_whole(&strips(9000, 9000, 16, 563, &sized(9000, 16))));
    assert!(broken(&strips(9000, 9000, 16, 563, &sized(9000, 9000))).contains("larger than its place"));
    assert!(broken(&strips(9000, 9000, 9000, 1, &sized(9020, 16))).contains("larger than its place"));
    // All rows in one strip, said as writers do.
    assert!(is_whole(&strips(900, 700, u32::MAX, 1, &sized(900, 700))));
    let mut tiles = page(9000, 9000, 9000, 1, sized(256, 256).len());
    for entry in &mut tiles {
        entry.0 = match entry.0 {
            273 => 324,
            279 => 325,
            other => other,
        };
    }
    tiles.extend([(322, 4, 1, 256), (323, 4, 1, 256)]);
    assert!(is_whole(&file(&[tiles.clone()], &sized(256, 256), 1)));
    assert!(broken(&file(&[tiles], &sized(256, 300), 1)).contains("larger than its place"));
}

#[test]
fn many_strips_or_passes_over_the_same_bytes_are_too_much_work() {
    // Each fits, and they are more than the page has room for.
    assert!(broken(&strips(9000, 9000, 16, 30_000, &sized(9000, 16))).contains("too much work"));
    let jpeg = sized(2000, 2000);
    let at = jpeg.windows(2).rposition(|w| w == [0xff, 0xda]).unwrap();
    let again = |n: usize| [&jpeg[..at], &jpeg[at..jpeg.len() - 2].repeat(n), &jpeg[jpeg.len() - 2..]].concat();
    assert!(is_whole(&strips(2000, 2000, 2000, 1, &again(700))));
    assert!(broken(&strips(2000, 2000, 2000, 1, &again(900))).contains("too much work"));
    // Little to decode, but much to read.
    let long = [&jpeg[..2], &segment(0xfe, &vec![0; 60_000]), &sized(16, 16)[2..]].concat();
    assert!(broken(&strips(16, 16, 16, 2000, &long)).contains("far longer"));
}

#[test]
fn shared_tables_hold_nothing_but_tables() {
    let with = |tables: &[u8], kind: u16| {
        let strip = sized(48, 32);
        let mut entries = page(48, 32, 32, 1, strip.len());
        let count = tables.len() as u32 / if kind == 3 { 2 } else { 1 };
        entries.push((347, kind, count, DATA + strip.len() as u32));
        file(&[entries], &[strip.as_slice(), tables].concat(), 1)
    };
    let (soi, eoi) = ([0xff, 0xd8].as_slice(), [0xff, 0xd9].as_slice());
    let good = segment(0xdb, &[0; 65]);
    assert!(is_whole(&with(&[soi, &good, eoi].concat(), 7)));
    let frame = segment(0xc0, &[8, 0x23, 0x28, 0x23, 0x28, 1, 1, 0x11, 0]);
    let data = segment(0xda, &[1, 1, 0, 0, 63, 0]);
    let cases = [
        ("a size", [soi, &good, &frame, eoi].concat()),
        ("data", [soi, &good, &frame, &data, eoi].concat()),
        ("data alone", [soi, &data, eoi].concat()),
        ("what runs into the strip", [soi, &good[..20], eoi].concat()),
        ("half a marker", [soi, &good, &[0xff], eoi].concat()),
        ("what the decoder reads too far", [soi, &segment(0xe0, b"JFIF"), eoi].concat()),
    ];
    for (what, tables) in cases {
        assert!(broken(&with(&tables, 7)).contains("tables"), "{what}");
    }
    assert!(broken(&with(&[soi, &good, eoi].concat(), 3)).contains("tables"));
    // A type of BigTIFF, which the decoder reads here too.
    let mut packing = page(48, 32, 32, 1, 8);
    packing[3] = (259, 16, 1, DATA);
    assert!(broken(&file(&[packing], &[7, 0, 0, 0, 0, 0, 0, 0], 1)).contains("packed"));
}

#[test]
fn a_strip_that_is_not_written_yet_is_cut_and_later_pages_do_not_count() {
    let cut = Whole::Cut { format: Format::Tiff };
    assert_eq!(check(&strips(48, 32, 32, 1, &[0; 1000])).unwrap(), cut);
    assert_eq!(check(&strips(48, 32, 32, 1, &[])).unwrap(), cut);
    assert!(broken(&strips(48, 32, 32, 1, &[1; 1000])).contains("does not say its size"));
    let strip = sized(48, 32);
    let first = page(48, 32, 32, 1, strip.len());
    assert!(is_whole(&file(&[first.clone(), page(4, 4, 4, 1, strip.len())], &strip, 1)));
    assert!(broken(&file(&[page(4, 4, 4, 1, strip.len()), first], &strip, 1)).contains("larger than its place"));
}
