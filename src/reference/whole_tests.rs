#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::samples::{KINDS, chunk, fixture, kind, phone_jpeg, segment, talking_png};
use super::{Format, Source, Whole, check, sniff};

fn whole(bytes: &[u8]) -> Whole {
    check(&bytes.to_vec()).unwrap()
}

fn format_of(name: &str) -> Format {
    match name.rsplit('.').next() {
        Some("jpg") => Format::Jpeg,
        Some("png") => Format::Png,
        Some("webp") => Format::WebP,
        Some("gif") => Format::Gif,
        Some("bmp") => Format::Bmp,
        _ => Format::Tiff,
    }
}

#[test]
fn every_kind_is_whole_with_and_without_bytes_behind_it() {
    for name in KINDS {
        let mut bytes = kind(name);
        let found = whole(&bytes);
        let Whole::Whole { format, end } = found else { panic!("{name}: {found:?}") };
        assert_eq!(format, format_of(name), "{name}");
        // TIFF and BMP may end in padding that nothing points to.
        let len = bytes.len() as u64;
        assert!(end <= len && len - end <= 16, "{name}: {end} of {len}");
        bytes.extend_from_slice(b"\xff\xd8\xff\xd9\0\0IEND and a video");
        assert_eq!(whole(&bytes), Whole::Whole { format, end }, "{name}");
    }
}

#[test]
fn no_beginning_of_a_picture_is_whole() {
    for name in KINDS {
        let bytes = kind(name);
        let Whole::Whole { end, format } = whole(&bytes) else { panic!("{name}") };
        for cut in 1..end as usize {
            assert_eq!(whole(&bytes[..cut]), Whole::Cut { format }, "{name} at {cut} of {end}");
        }
    }
    assert_eq!(whole(b""), Whole::Empty);
}

#[test]
fn a_picture_whose_room_is_reserved_but_not_written_is_not_whole() {
    // Lengths alone are all that WebP, BMP and uncompressed TIFF have; their writers put them in last, or not.
    for name in ["baseline.jpg", "progressive.jpg", "rgb.png", "palette.png", "moving.gif"] {
        let bytes = kind(name);
        for cut in 16..bytes.len() {
            let mut file = bytes.clone();
            file[cut..].fill(0);
            // What was a zero anyway is written already.
            if file != bytes {
                assert_eq!(whole(&file), Whole::Cut { format: format_of(name) }, "{name} at {cut}");
            }
        }
        assert_eq!(whole(&vec![0; 4096]), Whole::Empty);
    }
}

#[test]
fn a_photograph_cut_in_the_middle_is_noticed() {
    let bytes = fixture("rocket.jpg");
    assert!(matches!(whole(&bytes), Whole::Whole { .. }));
    assert_eq!(whole(&bytes[..bytes.len() / 2]), Whole::Cut { format: Format::Jpeg });
    assert_eq!(whole(&bytes[..bytes.len() - 1]), Whole::Cut { format: Format::Jpeg });
}

#[test]
fn thumbnails_do_not_end_a_jpeg_and_what_a_phone_appends_is_behind_it() {
    let jpeg = kind("baseline.jpg");
    let phone = phone_jpeg(&jpeg, 1);
    let behind = b"\0\0\0\x18ftypmp42SECRET video".len() + jpeg.len();
    assert_eq!(whole(&phone), Whole::Whole { format: Format::Jpeg, end: (phone.len() - behind) as u64 });
    assert_eq!(whole(&phone[..phone.len() - behind - 1]), Whole::Cut { format: Format::Jpeg });
}

#[test]
fn fill_bytes_and_stray_bytes_between_segments_are_passed_over() {
    let jpeg = kind("baseline.jpg");
    let odd = [&jpeg[..2], b"\xff\xff\xff", &segment(0xfe, b"x")[1..], b"\0\0stray", &jpeg[2..]].concat();
    assert_eq!(whole(&odd), Whole::Whole { format: Format::Jpeg, end: odd.len() as u64 });
}

#[test]
fn what_contradicts_itself_is_broken() {
    let png = kind("rgb.png");
    let jpeg = kind("baseline.jpg");
    let gif = kind("moving.gif");
    let mut bad_length = png.clone();
    bad_length[33] = 0xff;
    let mut big_tiff = kind("raw.tif");
    big_tiff[2] = 43;
    let mut circle = b"II*\0\x08\0\0\0\x02\0".to_vec();
    for tag in [273_u16, 279] {
        circle.extend_from_slice(&tag.to_le_bytes());
        circle.extend_from_slice(&[4, 0, 1, 0, 0, 0, 1, 0, 0, 0]);
    }
    circle.extend_from_slice(&8_u32.to_le_bytes());
    let cases: [(&str, Vec<u8>); 8] = [
        ("no data in a PNG", [&png[..33], &chunk(*b"IEND", b"")].concat()),
        ("a PNG chunk longer than PNG allows", bad_length),
        ("a JPEG that ends at once", b"\xff\xd8\xff\xd9".to_vec()),
        ("a JPEG segment of length 1", b"\xff\xd8\xff\xe0\0\x01\0\0".to_vec()),
        ("a JPEG that begins again", [&jpeg[..jpeg.len() - 2], &jpeg].concat()),
        ("a GIF without a picture", [&gif[..6], &[1, 0, 1, 0, 0, 0, 0, 0x3b]].concat()),
        ("a BigTIFF", big_tiff),
        ("a TIFF whose pages run in a circle", circle),
    ];
    for (what, bytes) in cases {
        let found = whole(&bytes);
        assert!(matches!(found, Whole::Broken { .. }), "{what}: {found:?}");
    }
}

#[test]
fn what_is_no_picture_is_named() {
    let cases: [(&[u8], &str); 6] = [
        (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC"),
        (b"\0\0\0\x18ftypavif\0\0\0\0", "AVIF"),
        (b"%PDF-1.7\n%\xe2\xe3", "PDF"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"BM stands for nothing here", "not those of a picture"),
        (b"a cosy cafe in autumn", "not those of a picture"),
    ];
    for (bytes, named) in cases {
        let Whole::Unknown { why } = whole(bytes) else { panic!("{named}: {:?}", whole(bytes)) };
        assert!(why.contains(named), "{why}");
        assert_eq!(sniff(bytes), None);
    }
}

#[test]
fn the_bytes_say_the_format() {
    for name in KINDS {
        assert_eq!(sniff(&kind(name)[..16]), Some(format_of(name)), "{name}");
    }
}

#[test]
fn files_made_of_tiny_parts_come_to_an_end() {
    let many = 3_000_000;
    let comments = [b"\xff\xd8".as_slice(), &b"\xff\xfe\0\x02".repeat(many)].concat();
    let blocks = [b"GIF89a\x01\0\x01\0\0\0\0".as_slice(), &b"\x21\xfe\x01x\0".repeat(many)].concat();
    let png = kind("rgb.png");
    let chunks = [&png[..33], &chunk(*b"prVt", b"").repeat(many)].concat();
    for bytes in [comments, blocks, chunks] {
        assert!(matches!(whole(&bytes), Whole::Broken { .. }));
    }
}

/// Counts what is read.
struct Counting(Vec<u8>, std::cell::Cell<u64>);

impl Source for Counting {
    fn read_at(&self, buf: &mut [u8], at: u64) -> std::io::Result<usize> {
        let n = Source::read_at(&self.0, buf, at)?;
        self.1.set(self.1.get() + n as u64);
        Ok(n)
    }

    fn size(&self) -> std::io::Result<u64> {
        Ok(self.0.len() as u64)
    }
}

#[test]
fn large_chunks_are_jumped_over() {
    let png = kind("rgb.png");
    let huge = [&png[..33], &[0, 0x80, 0, 0][..], b"prVt", &vec![7; (8 << 20) + 4], &png[33..]].concat();
    let source = Counting(huge, std::cell::Cell::new(0));
    assert!(matches!(check(&source).unwrap(), Whole::Whole { .. }));
    assert!(source.1.get() < 1 << 20, "{} bytes read", source.1.get());
}

#[test]
fn coded_data_is_walked_alike_in_memory_and_through_a_buffer() {
    let jpeg = kind("baseline.jpg");
    let scan = jpeg.windows(2).position(|w| w == [0xff, 0xda]).unwrap();
    let head = &jpeg[..scan + 2 + usize::from(jpeg[scan + 3])];
    // Stuffed bytes, restarts and fill bytes, each at every place of a buffer's end, which the length goes around.
    let pattern = [0xff, 0, 1, 2, 0xff, 0xd3, 7, 0xff, 0xff, 0xd4, 9, 0xff, 0xff, 0xff, 0, 0xff, 1];
    for behind in 0..pattern.len() {
        let coded: Vec<u8> = pattern.iter().copied().cycle().take(20 * (64 << 10) + behind).collect();
        let open = [head, &coded].concat();
        let whole = [head, &coded, &[0, 0xff, 0xd9], &jpeg].concat();
        let end = (head.len() + coded.len() + 3) as u64;
        for (bytes, want) in
            [(whole, Whole::Whole { format: Format::Jpeg, end }), (open, Whole::Cut { format: Format::Jpeg })]
        {
            assert_eq!(check(&bytes).unwrap(), want, "{behind}, in memory");
            assert_eq!(check(&Counting(bytes, std::cell::Cell::new(0))).unwrap(), want, "{behind}, through a buffer");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn whatever_the_bytes_the_check_ends_within_the_file(
        which in 0..KINDS.len(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        keep in any::<prop::sample::Index>(),
    ) {
        let mut bytes = talking_or_plain(KINDS[which]);
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.truncate(keep.index(bytes.len() * 2).max(1));
        if let Whole::Whole { end, .. } = whole(&bytes) {
            prop_assert!(end <= bytes.len() as u64);
        }
    }
}

fn talking_or_plain(name: &str) -> Vec<u8> {
    let bytes = kind(name);
    match name {
        "baseline.jpg" => phone_jpeg(&bytes, 6),
        "rgb.png" => talking_png(&bytes, 6),
        _ => bytes,
    }
}
