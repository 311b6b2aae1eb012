//! PNG: chunks, walked to IEND.

use image::metadata::Orientation;

use super::{Parts, Stop, Survey, be32, exif_orientation, need};
use crate::reference::pieces::Pieces;
use crate::reference::prepare::Why;
use crate::reference::source::Scan;

/// Chunks that decoding needs, and those that say what the colours mean.
const KEPT: [&[u8; 4]; 10] = [b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"sBIT"];
/// A newer one of them.
const CICP: &[u8; 4] = b"cICP";

/// One chunk: from its length to behind its checksum.
pub(in crate::reference) struct Chunk {
    kind: [u8; 4],
    from: u64,
    to: u64,
}

/// Walks to IEND and says where the picture ends. `visit` sees each chunk.
pub(in crate::reference) fn walk(
    scan: &mut Scan<'_>,
    mut visit: impl FnMut(&mut Scan<'_>, &Chunk) -> Result<(), Stop>,
) -> Result<u64, Stop> {
    let mut parts = Parts::default();
    let mut data = false;
    let mut from = 8;
    loop {
        parts.one_more()?;
        let head = need(scan.array::<8>(from)?)?;
        // Room that was reserved and is not written yet: names have no zeros.
        if head[7] == 0 {
            return Err(Stop::Cut);
        }
        let (length, kind) = (be32(&head), [head[4], head[5], head[6], head[7]]);
        if length > i32::MAX as u32 || !kind.iter().all(u8::is_ascii_alphabetic) {
            return Err(Stop::Broken("a chunk's length or name is impossible"));
        }
        if from == 8 && (&kind != b"IHDR" || length != 13) {
            return Err(Stop::Broken("it does not begin with its size"));
        }
        let to = from + 12 + u64::from(length);
        if to > scan.size() {
            return Err(Stop::Cut);
        }
        data |= &kind == b"IDAT";
        if &kind == b"IEND" && need(scan.array::<1>(to - 1)?)? == [0] {
            return Err(Stop::Cut);
        }
        visit(scan, &Chunk { kind, from, to })?;
        if &kind == b"IEND" {
            return if data { Ok(to) } else { Err(Stop::Broken("it holds no picture data")) };
        }
        from = to;
    }
}

/// Whether what is kept of a whole PNG is as it was written: each chunk has a sum of its own. All of it is read.
pub(in crate::reference) fn sums_hold(scan: &mut Scan<'_>) -> Result<bool, Stop> {
    let mut hold = true;
    walk(scan, |scan, chunk| {
        if !hold || !is_kept(chunk.kind) {
            return Ok(());
        }
        let (mut sum, mut at, end) = (crc32fast::Hasher::new(), chunk.from + 4, chunk.to - 4);
        while at < end {
            let rest = scan.rest(at)?;
            let piece = &rest[..rest.len().min(usize::try_from(end - at).unwrap_or(usize::MAX))];
            if piece.is_empty() {
                return Err(Stop::Cut);
            }
            sum.update(piece);
            at += piece.len() as u64;
        }
        hold = be32(&need(scan.array::<4>(end)?)?) == sum.finalize();
        Ok(())
    })?;
    Ok(hold)
}

fn is_kept(kind: [u8; 4]) -> bool {
    KEPT.contains(&&kind) || &kind == CICP
}

/// Whether a chunk is as long as its kind is, in a picture of these colours: what stands behind that is nothing of the
/// picture's.
fn has_its_length(chunk: &Chunk, colour: u8) -> bool {
    let length = chunk.to - chunk.from - 12;
    match (&chunk.kind, colour) {
        (b"gAMA" | b"cICP", _) | (b"sBIT", 6) => length == 4,
        (b"cHRM", _) => length == 32,
        (b"sRGB", _) | (b"sBIT", 0) => length == 1,
        (b"sBIT", 4) | (b"tRNS", 0) => length == 2,
        (b"sBIT", 2 | 3) => length == 3,
        (b"tRNS", 2) => length == 6,
        (b"tRNS", 3) => length <= 256,
        (b"IEND" | b"sBIT" | b"tRNS", _) => length == 0,
        _ => true,
    }
}

/// What a whole PNG is, and its copy with nothing but what decoding needs and what its colours mean.
pub(in crate::reference) fn survey(scan: &mut Scan<'_>) -> Result<Survey, Stop> {
    let mut pieces = Pieces::default();
    pieces.keep(0, 8);
    let mut header = [0; 13];
    let mut orientation = None;
    let (mut transparent, mut palette, mut odd) = (false, false, false);
    let (mut data, mut was_data) = (false, false);
    walk(scan, |scan, chunk| {
        if chunk.from == 8 {
            header = need(scan.array::<13>(16)?)?;
        }
        if &chunk.kind == b"eXIf" && orientation.is_none() {
            orientation = exif_orientation(scan, chunk.from + 8, chunk.to - 4)?;
        }
        transparent |= &chunk.kind == b"tRNS";
        if &chunk.kind == b"PLTE" {
            // One, before the pixels, in threes.
            let length = chunk.to - chunk.from - 12;
            odd |= palette || data || length == 0 || length > 768 || !length.is_multiple_of(3);
            palette = true;
        }
        // The pixels stand together.
        odd |= &chunk.kind == b"IDAT" && data && !was_data;
        was_data = &chunk.kind == b"IDAT";
        data |= &chunk.kind == b"IDAT";
        if &chunk.kind == b"IEND" && !has_its_length(chunk, header[9]) {
            pieces.add(vec![0, 0, 0, 0, b'I', b'E', b'N', b'D', 0xae, 0x42, 0x60, 0x82]);
        } else if is_kept(chunk.kind) && has_its_length(chunk, header[9]) {
            pieces.keep(chunk.from, chunk.to);
        }
        Ok(())
    })?;
    let (width, height, depth, colour) = (be32(&header), be32(&header[4..]), header[8], header[9]);
    let channels = match colour {
        0 => 1 + u64::from(transparent),
        2 | 3 => 3 + u64::from(transparent),
        4 => 2,
        _ => 4,
    };
    let deep = depth == 16;
    Ok(Survey {
        width,
        height,
        orientation: orientation.unwrap_or(Orientation::NoTransforms),
        output: super::area(width, height).saturating_mul(channels * if deep { 2 } else { 1 }),
        // The window, some rows, a profile.
        beside: u64::from(width) * 32 + (1 << 20),
        pieces,
        convert: deep.then_some(Why::Depth),
        as_png: Some(true),
        foreign_colours: false,
        reducible: false,
        vouched: !odd
            && matches!(header[10..], [0, 0, 0 | 1])
            && match (colour, depth) {
                (3, 1 | 2 | 4 | 8) => palette,
                (0, 1 | 2 | 4 | 8) | (2 | 4 | 6, 8) => true,
                // 16 bits a channel are encoded anew.
                _ => false,
            },
    })
}
