//! Pictures for this room's tests: the fixtures, and what is put around them.

#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use super::{Budget, Original, PrepareError, Prepared, Rules, Whole, check, prepare};

/// One small picture of each kind that is taken.
pub(super) const KINDS: [&str; 20] = [
    "baseline.jpg",
    "progressive.jpg",
    "restarts.jpg",
    "grey.jpg",
    "cmyk.jpg",
    "rgb.png",
    "grey16.png",
    "palette.png",
    "alpha.png",
    "lossy.webp",
    "lossless.webp",
    "alpha.webp",
    "moving.webp",
    "moving.gif",
    "rgb.bmp",
    "palette.bmp",
    "rgb.tif",
    "raw.tif",
    "cmyk.tif",
    "pages.tif",
];

pub(super) const RULES: Rules = Rules { max_edge: 2048, max_bytes: 12_000_000, strip_metadata: true };

/// The bytes of `tests/fixtures/NAME`.
pub(super) fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)).unwrap()
}

/// The bytes of `tests/fixtures/kinds/NAME`.
pub(super) fn kind(name: &str) -> Vec<u8> {
    fixture(&format!("kinds/{name}"))
}

/// Prepares `bytes`, which must be whole.
pub(super) fn prepared(bytes: &[u8], rules: &Rules) -> Result<(Prepared, Vec<u8>), PrepareError> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    let into = tempfile::tempdir().unwrap();
    let Whole::Whole { format, end } = check(&file).unwrap() else { panic!("{:?}", check(&file)) };
    let original = Original { file: &file, path: Path::new("picture"), format, end };
    let done = prepare(&original, rules, into.path(), &Budget::default())?;
    let out = std::fs::read(done.file.path()).unwrap();
    assert_eq!(done.bytes, out.len() as u64);
    assert_eq!(done.fingerprint, crate::domain::ids::Fingerprint::of(&out));
    assert_eq!(super::fingerprint(&File::open(done.file.path()).unwrap()).unwrap(), done.fingerprint);
    Ok((done, out))
}

/// Decodes, and gives the picture as RGBA.
pub(super) fn pixels(bytes: &[u8]) -> image::RgbaImage {
    image::load_from_memory(bytes).unwrap().to_rgba8()
}

/// An EXIF block (without its prefix) that says `orientation`, a camera, a place and a thumbnail.
pub(super) fn exif(orientation: u16) -> Vec<u8> {
    let mut block = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01".to_vec();
    block.extend_from_slice(&orientation.to_be_bytes());
    block.extend_from_slice(&[0, 0, 0, 0, 0, 0]);
    block.extend_from_slice(b"SECRET GPS 48.1 N ");
    // The thumbnail has its own end marker.
    block.extend_from_slice(&kind("grey.jpg"));
    block
}

/// One JPEG segment.
pub(super) fn segment(marker: u8, data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(data.len() + 2).unwrap().to_be_bytes();
    [&[0xff, marker], &length[..], data].concat()
}

/// `jpeg` as a phone writes it: with EXIF, XMP, MPF, a comment, and a video behind it.
pub(super) fn phone_jpeg(jpeg: &[u8], orientation: u16) -> Vec<u8> {
    let xmp = [b"http://ns.adobe.com/xap/1.0/\0".as_slice(), b"<SECRET xmp/>"].concat();
    [
        &jpeg[..2],
        &segment(0xe1, &[b"Exif\0\0".as_slice(), &exif(orientation)].concat()),
        &segment(0xe1, &xmp),
        &segment(0xe2, b"MPF\0SECRET mpf"),
        &segment(0xfe, b"SECRET comment"),
        &jpeg[2..],
        b"\0\0\0\x18ftypmp42SECRET video",
        jpeg,
    ]
    .concat()
}

/// One PNG chunk.
pub(super) fn chunk(kind: [u8; 4], data: &[u8]) -> Vec<u8> {
    let mut crc = u32::MAX;
    for byte in kind.iter().chain(data) {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
        }
    }
    let length = u32::try_from(data.len()).unwrap().to_be_bytes();
    [&length[..], &kind, data, &(!crc).to_be_bytes()].concat()
}

/// `png` with text, time, EXIF and a private chunk before its data, and something behind its end.
pub(super) fn talking_png(png: &[u8], orientation: u16) -> Vec<u8> {
    [
        &png[..33],
        &chunk(*b"tEXt", b"Author\0SECRET"),
        &chunk(*b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0SECRET"),
        &chunk(*b"tIME", &[7, 230, 1, 1, 1, 1, 1]),
        &chunk(*b"prVt", b"SECRET"),
        &chunk(*b"gAMA", &45_455_u32.to_be_bytes()),
        &chunk(*b"eXIf", &exif(orientation)),
        &png[33..],
        b"SECRET behind",
    ]
    .concat()
}

/// `webp` (an extended one) with EXIF and XMP.
pub(super) fn talking_webp(webp: &[u8], orientation: u16) -> Vec<u8> {
    assert_eq!(&webp[12..16], b"VP8X");
    let chunk = |kind: &[u8], data: &[u8]| {
        let mut out = [kind, &u32::try_from(data.len()).unwrap().to_le_bytes(), data].concat();
        if data.len() % 2 == 1 {
            out.push(0);
        }
        out
    };
    let mut body = webp[8..].to_vec();
    body[12] |= 0x0c;
    body.extend(chunk(b"EXIF", &exif(orientation)));
    body.extend(chunk(b"XMP ", b"<SECRET xmp>"));
    [&b"RIFF"[..], &u32::try_from(body.len()).unwrap().to_le_bytes(), &body].concat()
}

/// Whether `text` occurs in `bytes`.
pub(super) fn contains(bytes: &[u8], text: &[u8]) -> bool {
    bytes.windows(text.len()).any(|w| w == text)
}
