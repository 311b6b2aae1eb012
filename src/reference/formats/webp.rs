//! WebP: a RIFF file with its own length.

use image::metadata::Orientation;

use super::{Parts, Stop, Survey, exif_orientation, le16, le24, le32, need};
use crate::reference::pieces::Pieces;
use crate::reference::prepare::Why;
use crate::reference::source::Scan;

const ANIMATED: u8 = 0x02;
const ALPHA: u8 = 0x10;
const PROFILE: u8 = 0x20;

/// One chunk: `from` its name `to` behind its data, without padding.
pub(in crate::reference) struct Chunk {
    kind: [u8; 4],
    from: u64,
    to: u64,
}

/// Walks the chunks and says where the picture ends. `visit` sees each chunk.
pub(in crate::reference) fn walk(
    scan: &mut Scan<'_>,
    mut visit: impl FnMut(&mut Scan<'_>, &Chunk) -> Result<(), Stop>,
) -> Result<u64, Stop> {
    let length = le32(&need(scan.array::<4>(4)?)?);
    // Writers that stream put the length in at the end.
    if matches!(length, 0 | u32::MAX) {
        return Err(Stop::Cut);
    }
    let end = 8 + u64::from(length);
    if end > scan.size() {
        return Err(Stop::Cut);
    }
    let mut parts = Parts::default();
    let mut picture = false;
    let mut from = 12;
    while from + 8 <= end {
        parts.one_more()?;
        let head = need(scan.array::<8>(from)?)?;
        // Room that was reserved and is not written yet.
        if head == [0; 8] {
            break;
        }
        let kind = [head[0], head[1], head[2], head[3]];
        let to = from + 8 + u64::from(le32(&head[4..]));
        if to > end {
            return Err(Stop::Broken("a chunk is longer than the file says it is"));
        }
        picture |= matches!(&kind, b"VP8 " | b"VP8L" | b"ANMF");
        visit(scan, &Chunk { kind, from, to })?;
        from = to + (to & 1);
    }
    match (picture, from + 8 <= end) {
        (true, _) => Ok(end),
        (false, true) => Err(Stop::Cut),
        (false, false) => Err(Stop::Broken("it holds no picture data")),
    }
}

/// What a whole WebP is, and its copy with nothing but what decoding needs and the colour profile.
pub(in crate::reference) fn survey(scan: &mut Scan<'_>) -> Result<Survey, Stop> {
    let mut kept: Vec<(u64, u64)> = Vec::new();
    let mut seen: Vec<[u8; 4]> = Vec::new();
    let mut orientation = None;
    let mut header = None;
    let (mut simple, mut lossless) = (None, false);
    let end = walk(scan, |scan, chunk| {
        if seen.contains(&chunk.kind) {
            return Ok(());
        }
        let data = chunk.from + 8;
        match &chunk.kind {
            b"VP8X" => header = Some(need(scan.array::<10>(data)?)?),
            b"EXIF" => orientation = exif_orientation(scan, data, chunk.to)?,
            b"VP8 " | b"VP8L" if simple.is_none() => {
                simple = Some(need(scan.array::<10>(data)?)?);
                lossless = &chunk.kind == b"VP8L";
                kept.push((chunk.from, chunk.to));
            }
            b"ALPH" | b"ICCP" => kept.push((chunk.from, chunk.to)),
            _ => return Ok(()),
        }
        // Names that are kept are few, so this stays short.
        seen.push(chunk.kind);
        Ok(())
    })?;
    let orientation = orientation.unwrap_or(Orientation::NoTransforms);
    let animated = header.is_some_and(|h| h[0] & ANIMATED != 0);
    let has = |kind: &[u8; 4]| seen.contains(kind);
    let (width, height) = match (header, simple) {
        (Some(h), _) => (le24(&h[4..]) + 1, le24(&h[7..]) + 1),
        (None, Some(d)) if lossless => {
            let bits = le32(&d[1..]);
            ((bits & 0x3fff) + 1, (bits >> 14 & 0x3fff) + 1)
        }
        (None, Some(d)) => (le16(&d[6..]) & 0x3fff, le16(&d[8..]) & 0x3fff),
        (None, None) => return Err(Stop::Broken("it does not say its size")),
    };
    let pixels = super::area(width, height);
    let mut pieces;
    let alpha;
    if animated {
        pieces = Pieces::all(end);
        alpha = header.is_some_and(|h| h[0] & ALPHA != 0);
    } else {
        let flags = header.map(|mut h| {
            // An alpha flag without an alpha chunk is common, and no reason to refuse the picture.
            alpha_flag(&mut h[0], lossless, has(b"ALPH"));
            h[0] &= ALPHA | PROFILE;
            if !has(b"ICCP") {
                h[0] &= !PROFILE;
            }
            h
        });
        alpha = match (flags, simple) {
            (Some(h), _) => h[0] & ALPHA != 0,
            (None, Some(d)) => lossless && d[4] & 0x10 != 0,
            _ => false,
        };
        let mut body = 4;
        let extended = flags.map(|h| [&b"VP8X\x0a\0\0\0"[..], &h].concat());
        body += extended.as_ref().map_or(0, Vec::len) as u64;
        body += kept.iter().map(|(from, to)| (to - from).next_multiple_of(2)).sum::<u64>();
        let body = u32::try_from(body).map_err(|_| Stop::Broken("it is longer than its format allows"))?;
        pieces = Pieces::default();
        pieces.add([&b"RIFF"[..], &body.to_le_bytes(), b"WEBP", &extended.unwrap_or_default()].concat());
        for (from, to) in kept {
            pieces.keep(from, to);
            if to & 1 == 1 {
                pieces.add(vec![0]);
            }
        }
    }
    Ok(Survey {
        width,
        height,
        orientation,
        output: pixels * if alpha { 4 } else { 3 },
        // The planes or the other copy, the alpha plane, the coded data; twice for a frame on a canvas.
        beside: pixels * if animated { 8 } else { 4 } + if alpha && !lossless { pixels * 5 } else { 0 } + pieces.len(),
        pieces,
        convert: animated.then_some(Why::Animation),
        as_png: Some(lossless || alpha || animated),
        foreign_colours: false,
        reducible: false,
        vouched: false,
    })
}

fn alpha_flag(flags: &mut u8, lossless: bool, alpha_chunk: bool) {
    if !lossless {
        *flags = if alpha_chunk { *flags | ALPHA } else { *flags & !ALPHA };
    }
}
