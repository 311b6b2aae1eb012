//! Pixels to a file that is small enough.
//!
//! Promises: a bounded number of tries, each the same for the same pixels. Nothing is written but pixels and
//! the colour profile.

use std::fs::File;
use std::io::{self, BufWriter, Seek as _, Write};

use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{ExtendedColorType, ImageEncoder, ImageResult};

use super::pixels::{Decoded, Pixels};
use super::whole::Format;
use crate::domain::ids::Fingerprint;

/// Looks like the original to the eye; lower ones are tried only where the size demands it.
const QUALITY: u8 = 92;
const LOWER: [u8; 3] = [85, 75, 65];
/// Below this a reference is of no use.
const LEAST_EDGE: u32 = 64;
/// How often the edge is reduced to three quarters.
const STEPS: u32 = 12;

/// What was written.
pub(super) struct Written {
    pub(super) format: Format,
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) bytes: u64,
    pub(super) fingerprint: Fingerprint,
}

/// Why nothing fitting was written.
pub(super) enum Failed {
    /// The smallest try still has so many bytes.
    TooMany(u64),
    /// The file can't be written.
    Io(io::Error),
    /// A decoder or encoder refuses; for a person.
    Codec(String),
}

/// Writes through to a file until `limit` bytes, counts and hashes.
pub(super) struct Sink<'a> {
    file: BufWriter<&'a File>,
    hasher: blake3::Hasher,
    bytes: u64,
    limit: u64,
    error: Option<io::Error>,
}

impl<'a> Sink<'a> {
    /// Begins at the start of `file`, which is emptied.
    pub(super) fn new(mut file: &'a File, limit: u64) -> io::Result<Self> {
        file.set_len(0)?;
        file.rewind()?;
        Ok(Self { file: BufWriter::new(file), hasher: blake3::Hasher::new(), bytes: 0, limit, error: None })
    }

    /// The bytes that came, and their fingerprint.
    pub(super) fn finish(mut self) -> io::Result<(u64, Fingerprint)> {
        if let Some(e) = self.error.take() {
            return Err(e);
        }
        if self.bytes <= self.limit {
            self.file.flush()?;
        }
        Ok((self.bytes, Fingerprint(*self.hasher.finalize().as_bytes())))
    }
}

impl Write for Sink<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.bytes += buf.len() as u64;
        // Beyond the limit only the count matters: it is for the message.
        if self.bytes <= self.limit {
            self.hasher.update(buf);
            if let Err(e) = self.file.write_all(buf) {
                // Encoders wrap errors; a full disk must stay one of the disk.
                self.error = Some(io::Error::new(e.kind(), e.to_string()));
                return Err(e);
            }
        }
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Encodes `decoded` into `file` with at most `max_bytes`: first as it should be, then with lower quality,
/// then smaller. Transparency is given up last.
pub(super) fn fit(decoded: &Decoded, as_png: bool, file: &File, max_bytes: u64) -> Result<Written, Failed> {
    let Decoded { pixels, profile } = decoded;
    let mut least = u64::MAX;
    let mut attempt = |pixels: &Pixels, quality: Option<u8>| {
        let written = encode(pixels, profile.as_deref(), quality, file, max_bytes)?;
        least = least.min(written.bytes);
        Ok::<_, Failed>(Some(written).filter(|w| w.bytes <= max_bytes))
    };
    if as_png {
        if let Some(done) = attempt(pixels, None)? {
            return Ok(done);
        }
        if pixels.has_alpha() {
            for edge in smaller(pixels.long_edge()).take(3) {
                if let Some(done) = attempt(&shrunk(pixels, edge)?, None)? {
                    return Ok(done);
                }
            }
        }
    }
    let flat;
    let pixels = if pixels.has_alpha() {
        let mut copy = pixels.clone();
        copy.flatten();
        flat = copy;
        &flat
    } else {
        pixels
    };
    for quality in std::iter::once(QUALITY).chain(LOWER) {
        if let Some(done) = attempt(pixels, Some(quality))? {
            return Ok(done);
        }
    }
    for edge in smaller(pixels.long_edge()) {
        if let Some(done) = attempt(&shrunk(pixels, edge)?, Some(LOWER[1]))? {
            return Ok(done);
        }
    }
    Err(Failed::TooMany(least))
}

fn smaller(edge: u32) -> impl Iterator<Item = u32> {
    (1..=STEPS)
        .scan(edge, |edge, _| {
            *edge = *edge / 4 * 3;
            Some(*edge)
        })
        .take_while(|edge| *edge >= LEAST_EDGE)
}

fn shrunk(pixels: &Pixels, edge: u32) -> Result<Pixels, Failed> {
    pixels.clone().scale_down(edge).map_err(Failed::Codec)
}

/// One try: PNG, or JPEG of `quality`.
fn encode(
    pixels: &Pixels,
    profile: Option<&[u8]>,
    quality: Option<u8>,
    file: &File,
    max_bytes: u64,
) -> Result<Written, Failed> {
    let colour = match pixels.channels {
        1 => ExtendedColorType::L8,
        2 => ExtendedColorType::La8,
        3 => ExtendedColorType::Rgb8,
        _ => ExtendedColorType::Rgba8,
    };
    let mut sink = Sink::new(file, max_bytes).map_err(Failed::Io)?;
    let done = match quality {
        None => {
            let encoder = PngEncoder::new_with_quality(&mut sink, CompressionType::Default, FilterType::Adaptive);
            write(encoder, pixels, profile, colour)
        }
        Some(quality) => write(JpegEncoder::new_with_quality(&mut sink, quality), pixels, profile, colour),
    };
    let (bytes, fingerprint) = sink.finish().map_err(Failed::Io)?;
    done.map_err(|e| Failed::Codec(e.to_string()))?;
    let format = if quality.is_none() { Format::Png } else { Format::Jpeg };
    Ok(Written { format, width: pixels.width, height: pixels.height, bytes, fingerprint })
}

fn write(
    mut encoder: impl ImageEncoder,
    pixels: &Pixels,
    profile: Option<&[u8]>,
    colour: ExtendedColorType,
) -> ImageResult<()> {
    if let Some(profile) = profile {
        // Both encoders take one.
        encoder.set_icc_profile(profile.to_vec()).map_err(image::ImageError::Unsupported)?;
    }
    encoder.write_image(&pixels.data, pixels.width, pixels.height, colour)
}
