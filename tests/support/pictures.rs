//! Small pictures, each of its own, and pieces of picture files that no encoder writes.

use std::io::Cursor;

use image::{DynamicImage, ImageFormat, Rgb, RgbImage};

/// A picture of `width` × `height` that differs for each `seed`.
pub fn pixels(seed: u32, width: u32, height: u32) -> RgbImage {
    let k = seed.wrapping_mul(2_654_435_761);
    RgbImage::from_fn(width, height, |x, y| {
        Rgb([(k >> 24) as u8 ^ (x * 3) as u8, (k >> 16) as u8 ^ (y * 5) as u8, (k >> 8) as u8])
    })
}

/// It, encoded.
pub fn encoded(seed: u32, width: u32, height: u32, format: ImageFormat) -> Vec<u8> {
    let mut out = Cursor::new(Vec::new());
    DynamicImage::ImageRgb8(pixels(seed, width, height)).write_to(&mut out, format).unwrap();
    out.into_inner()
}

/// A JPEG.
pub fn jpeg(seed: u32) -> Vec<u8> {
    encoded(seed, 48, 32, ImageFormat::Jpeg)
}

/// A PNG.
pub fn png(seed: u32) -> Vec<u8> {
    encoded(seed, 24, 16, ImageFormat::Png)
}

/// A JPEG that `segments` (marker and payload) stand in, right behind its start.
pub fn jpeg_with(seed: u32, segments: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let plain = jpeg(seed);
    let mut out = plain[..2].to_vec();
    for (marker, payload) in segments {
        out.extend([0xFF, *marker]);
        out.extend(u16::try_from(payload.len() + 2).unwrap().to_be_bytes());
        out.extend(payload);
    }
    out.extend(&plain[2..]);
    out
}

/// An EXIF segment with an orientation and the name of its owner.
pub fn exif(orientation: u16, artist: &str) -> (u8, Vec<u8>) {
    let mut tiff = b"II*\0\x08\0\0\0".to_vec();
    let text = [artist.as_bytes(), b"\0"].concat();
    tiff.extend(2u16.to_le_bytes());
    for (tag, kind, count, value) in
        [(0x0112u16, 3u16, 1u32, u32::from(orientation)), (0x013B, 2, text.len() as u32, 8 + 2 + 24 + 4)]
    {
        tiff.extend(tag.to_le_bytes());
        tiff.extend(kind.to_le_bytes());
        tiff.extend(count.to_le_bytes());
        tiff.extend(value.to_le_bytes());
    }
    tiff.extend(0u32.to_le_bytes());
    tiff.extend(text);
    (0xE1, [b"Exif\0\0".to_vec(), tiff].concat())
}

/// One of the photographs and kinds of `tests/fixtures`.
pub fn fixture(name: &str) -> Vec<u8> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}
