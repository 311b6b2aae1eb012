//! The structures of the formats, as far as wholeness, stripping and limits need them.
//!
//! Each module walks its format by the format's own lengths, and surveys a whole picture: how large it is,
//! which way is up, what a stripped copy is made of, what decoding will cost. None decodes pixels.

use std::io;

use image::metadata::Orientation;

use super::pieces::Pieces;
use super::prepare::Why;
use super::source::Scan;

pub(super) mod bmp;
pub(super) mod gif;
pub(super) mod jpeg;
pub(super) mod png;
mod tables;
pub(super) mod tiff;
pub(super) mod webp;

/// Why a walk did not come to the picture's end.
#[derive(Debug)]
pub(super) enum Stop {
    /// The bytes run out.
    Cut,
    /// It contradicts itself.
    Broken(&'static str),
    /// It can't be read.
    Io(io::Error),
}

impl From<io::Error> for Stop {
    fn from(e: io::Error) -> Self {
        Self::Io(e)
    }
}

/// Parts (segments, chunks, blocks) that a picture may have. Real ones have some thousands; more is a file
/// made to keep us busy.
const MAX_PARTS: u32 = 1_000_000;

/// How much of an EXIF block is read for the orientation, which stands in its first directory.
const MAX_EXIF: u64 = 1 << 20;

/// What is known of a whole picture before anything is decoded.
pub(super) struct Survey {
    /// Pixels across, as stored (before turning).
    pub(super) width: u32,
    /// Pixels down, as stored.
    pub(super) height: u32,
    /// How to turn it upright.
    pub(super) orientation: Orientation,
    /// What the decoder reads: the picture without its metadata.
    pub(super) pieces: Pieces,
    /// Why its pixels must be encoded anew in any case.
    pub(super) convert: Option<Why>,
    /// Bytes of the decoder's output.
    pub(super) output: u64,
    /// Bytes that decoding takes beside its output.
    pub(super) beside: u64,
    /// Encode as PNG (true), as JPEG (false), or by its colours (`None`).
    pub(super) as_png: Option<bool>,
    /// Its pixels are no RGB or grey, so that its colour profile does not fit what they become.
    pub(super) foreign_colours: bool,
    /// A JPEG whose colours every decoder takes for the same, so that it may be made smaller by another one.
    pub(super) reducible: bool,
    /// It need not be decoded to see that it can be: there is nothing that decoders may not know, and damage shows in
    /// markers, or in sums ([`png::sums_hold`]).
    pub(super) vouched: bool,
}

/// Counts parts and ends a walk that has too many.
#[derive(Default)]
struct Parts(u32);

impl Parts {
    fn one_more(&mut self) -> Result<(), Stop> {
        self.0 += 1;
        if self.0 > MAX_PARTS { Err(Stop::Broken("it is cut into far too many parts")) } else { Ok(()) }
    }
}

fn need<T>(found: Option<T>) -> Result<T, Stop> {
    found.ok_or(Stop::Cut)
}

fn le16(b: &[u8]) -> u32 {
    u32::from(b[0]) | u32::from(b[1]) << 8
}

fn le24(b: &[u8]) -> u32 {
    le16(b) | u32::from(b[2]) << 16
}

fn le32(b: &[u8]) -> u32 {
    le24(b) | u32::from(b[3]) << 24
}

fn be16(b: &[u8]) -> u32 {
    u32::from(b[0]) << 8 | u32::from(b[1])
}

fn be32(b: &[u8]) -> u32 {
    be16(b) << 16 | be16(&b[2..])
}

/// Pixels of a rectangle.
pub(super) fn area(width: u32, height: u32) -> u64 {
    u64::from(width) * u64::from(height)
}

/// The orientation in an EXIF block at `from .. to`, if it says one.
fn exif_orientation(scan: &mut Scan<'_>, from: u64, to: u64) -> io::Result<Option<Orientation>> {
    let len = to.saturating_sub(from).min(MAX_EXIF) as usize;
    let Some(block) = scan.copy(from, len)? else { return Ok(None) };
    let tiff = block.strip_prefix(b"Exif\0\0").unwrap_or(&block);
    Ok(Orientation::from_exif_chunk(tiff))
}
