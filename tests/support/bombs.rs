//! Pictures that were made to burst, each a few megabytes at most.

use image::ImageFormat;

use super::pictures;

/// Name, bytes, and whether it is all the same a picture that goes through.
pub fn all() -> Vec<(&'static str, Vec<u8>, bool)> {
    vec![
        ("grey-100-megapixels.png", png(20_000, 5_000, 8, 0, &[]), true),
        ("deep-rgba.png", png(16_000, 16_000, 16, 6, &[]), false),
        ("too-wide.png", png(65_535, 100, 8, 0, &[]), false),
        ("too-many.png", png(60_000, 60_000, 1, 0, &[]), false),
        ("more-than-it-says.png", png_of(40, 30, 8, 0, &[], 1 << 30), true),
        ("profile.png", png(40, 30, 8, 0, &[(b"iCCP", [b"x\0\0".to_vec(), zlib_zeros(2 << 30)].concat())]), true),
        ("text.png", png(40, 30, 8, 0, &[(b"zTXt", [b"x\0\0".to_vec(), zlib_zeros(2 << 30)].concat())]), true),
        (
            "huge-gif.gif",
            patched(ImageFormat::Gif, &[(6, &60_000u16.to_le_bytes()), (8, &60_000u16.to_le_bytes())]),
            false,
        ),
        ("frames.gif", frames(200_000), true),
        (
            "huge-bmp.bmp",
            patched(ImageFormat::Bmp, &[(18, &60_000u32.to_le_bytes()), (22, &60_000u32.to_le_bytes())]),
            false,
        ),
        ("huge-webp.webp", webp(16_384, 16_384), false),
        ("circle.tif", circle(), false),
        ("huge-tif.tif", tiff(60_000, 60_000, 1, &[0; 64]), false),
        ("packed.tif", tiff(8_000, 6_000, 8, &zlib_zeros(8_000 * 6_000)), true),
        ("jpeg-inside.tif", tiff(16, 16, 7, &sized_jpeg(&pictures::jpeg(1), 16_000, 16_000)), false),
        ("jpeg-fits.tif", tiff(48, 32, 7, &pictures::jpeg(1)), true),
        ("huge-jpg.jpg", sized_jpeg(&pictures::jpeg(1), 65_000, 65_000), false),
        ("scans.jpg", scans(20_000, 48, 32), true),
    ]
}

/// A large progressive picture of many scans: seconds of work from a few kilobytes. `too_slow`: just more than is
/// taken; as many as are taken would keep a test busy for half a minute.
pub fn slow_jpeg(too_slow: bool) -> Vec<u8> {
    scans(if too_slow { 191 } else { 7 }, 4000, 4000)
}

/// Bits in the order of deflate.
#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    pending: u32,
    held: u32,
}

impl Bits {
    /// A Huffman code, its first bit first.
    fn code(&mut self, code: u32, bits: u32) {
        for bit in (0..bits).rev() {
            self.pending |= (code >> bit & 1) << self.held;
            self.held += 1;
            if self.held == 8 {
                self.bytes.push(self.pending as u8);
                (self.pending, self.held) = (0, 0);
            }
        }
    }

    /// "258 more of the same", eight times.
    fn eight(&mut self) {
        for _ in 0..8 {
            self.code(0xC5, 8);
            self.code(0, 5);
        }
    }
}

/// `n` zeros as a zlib stream, a thousandth and less of their length.
pub fn zlib_zeros(n: u64) -> Vec<u8> {
    let mut bits = Bits { bytes: vec![0x78, 0x9c], ..Bits::default() };
    // The last block, with the fixed code; one zero.
    bits.code(0b110, 3);
    bits.code(0x30, 8);
    let (matches, rest) = ((n - 1) / 258, (n - 1) % 258);
    let mut left = matches;
    if left >= 16 {
        bits.eight();
        let from = bits.bytes.len();
        bits.eight();
        // From here on it repeats by whole bytes.
        let steady = bits.bytes[from..].to_vec();
        left -= 16;
        bits.bytes.extend(steady.repeat((left / 8) as usize));
        left %= 8;
    }
    for _ in 0..left {
        bits.code(0xC5, 8);
        bits.code(0, 5);
    }
    for _ in 0..rest {
        bits.code(0x30, 8);
    }
    bits.code(0, 7);
    bits.code(0, 7);
    let mut out = bits.bytes;
    let adler = ((n % 65_521) as u32) << 16 | 1;
    out.extend(adler.to_be_bytes());
    out
}

fn crc32(bytes: &[&[u8]]) -> u32 {
    let mut table = [0u32; 256];
    for (n, entry) in (0u32..).zip(&mut table) {
        *entry = (0..8).fold(n, |c, _| if c & 1 == 1 { (c >> 1) ^ 0xEDB8_8320 } else { c >> 1 });
    }
    let step = |sum: u32, byte: &u8| table[((sum ^ u32::from(*byte)) & 255) as usize] ^ (sum >> 8);
    !bytes.iter().copied().flatten().fold(u32::MAX, step)
}

/// A PNG of zeros; `more` stands before its pixels.
fn png(width: u32, height: u32, depth: u8, colour: u8, more: &[(&[u8; 4], Vec<u8>)]) -> Vec<u8> {
    let samples = if colour == 6 { 4 } else { 1 };
    let row = (u64::from(width) * u64::from(depth) * samples).div_ceil(8) + 1;
    png_of(width, height, depth, colour, more, row * u64::from(height))
}

/// [`png`], with so many bytes of pixels.
fn png_of(width: u32, height: u32, depth: u8, colour: u8, more: &[(&[u8; 4], Vec<u8>)], zeros: u64) -> Vec<u8> {
    let mut out = b"\x89PNG\r\n\x1a\n".to_vec();
    let mut chunk = |kind: &[u8; 4], data: &[u8]| {
        out.extend((data.len() as u32).to_be_bytes());
        out.extend(kind);
        out.extend(data);
        out.extend(crc32(&[kind, data]).to_be_bytes());
    };
    let head = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[depth, colour, 0, 0, 0]].concat();
    chunk(b"IHDR", &head);
    for (kind, data) in more {
        chunk(kind, data);
    }
    chunk(b"IDAT", &zlib_zeros(zeros));
    chunk(b"IEND", b"");
    out
}

/// A small picture with other bytes at these places.
fn patched(format: ImageFormat, edits: &[(usize, &[u8])]) -> Vec<u8> {
    let mut bytes = pictures::encoded(1, 40, 30, format);
    for (at, new) in edits {
        bytes[*at..at + new.len()].copy_from_slice(new);
    }
    bytes
}

/// A lossless WebP that claims to be that large.
fn webp(width: u32, height: u32) -> Vec<u8> {
    let claims = (width - 1) | (height - 1) << 14;
    patched(ImageFormat::WebP, &[(21, &claims.to_le_bytes())])
}

/// A GIF of so many frames of one pixel.
fn frames(count: usize) -> Vec<u8> {
    let mut out = b"GIF89a\x04\0\x04\0\x80\0\0\0\0\0\xff\xff\xff".to_vec();
    out.extend(b"\x2c\0\0\0\0\x01\0\x01\0\0\x02\x02\x44\x01\0".repeat(count));
    out.push(0x3b);
    out
}

/// A TIFF of one strip; with JPEG inside it has three channels.
fn tiff(width: u32, height: u32, compression: u32, data: &[u8]) -> Vec<u8> {
    let channels: u32 = if compression == 7 { 3 } else { 1 };
    let entries: [(u16, u16, u32, u32); 9] = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, channels, if channels == 3 { 8 + 2 + 9 * 12 + 4 } else { 8 }),
        (259, 3, 1, compression),
        (262, 3, 1, if channels == 3 { 2 } else { 1 }),
        (273, 4, 1, 200),
        (277, 3, 1, channels),
        (278, 4, 1, height),
        (279, 4, 1, data.len() as u32),
    ];
    let mut out = b"II*\0\x08\0\0\0\x09\0".to_vec();
    for (tag, kind, count, value) in entries {
        out.extend(tag.to_le_bytes());
        out.extend(kind.to_le_bytes());
        out.extend(count.to_le_bytes());
        out.extend(value.to_le_bytes());
    }
    out.extend(0u32.to_le_bytes());
    out.extend([8, 0].repeat(3));
    out.resize(200, 0);
    out.extend(data);
    out
}

/// A TIFF whose second page is its first.
fn circle() -> Vec<u8> {
    let mut bytes = tiff(4, 4, 1, &[0; 16]);
    let next = 8 + 2 + 9 * 12;
    bytes[next..next + 4].copy_from_slice(&8u32.to_le_bytes());
    bytes
}

/// A JPEG that claims another size.
fn sized_jpeg(jpeg: &[u8], width: u16, height: u16) -> Vec<u8> {
    let mut bytes = jpeg.to_vec();
    let at = bytes.windows(2).position(|w| matches!(w, [0xff, 0xc0 | 0xc2])).unwrap();
    bytes[at + 5..at + 7].copy_from_slice(&height.to_be_bytes());
    bytes[at + 7..at + 9].copy_from_slice(&width.to_be_bytes());
    bytes
}

/// A progressive JPEG whose last scan stands there so many times.
fn scans(count: usize, width: u16, height: u16) -> Vec<u8> {
    let bytes = sized_jpeg(&pictures::fixture("kinds/progressive.jpg"), width, height);
    let last = bytes.windows(2).rposition(|w| w == [0xff, 0xda]).unwrap();
    let end = bytes.len() - 2;
    [&bytes[..end], &bytes[last..end].repeat(count), &bytes[end..]].concat()
}
