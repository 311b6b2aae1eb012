//! JPEG: markers, walked to the primary image's EOI.
//!
//! Thumbnails lie inside segments and are jumped over with them; what a phone appends (more pictures, a
//! video) lies behind EOI.

use image::metadata::Orientation;

use super::tables::Tables;
use super::{Parts, Stop, Survey, be16, exif_orientation, need};
use crate::reference::pieces::Pieces;
use crate::reference::prepare::{MAX_PIXELS, Why};
use crate::reference::source::Scan;

/// Every byte of a JPEG must be looked at; one that is longer could not be decoded in the memory there is for it.
pub(super) const MAX_LENGTH: u64 = 1 << 30;

/// Pixels, times the passes (scans) in which they are coded. Each pass goes over all of the picture, however few
/// bytes it takes: some kilobytes could keep a decoder busy for minutes. Ten passes are usual.
pub(super) const MAX_WORK: u64 = 3_200_000_000;

const SOI: u8 = 0xd8;
const EOI: u8 = 0xd9;
const DHT: u8 = 0xc4;
const DAC: u8 = 0xcc;
const DNL: u8 = 0xdc;
const DQT: u8 = 0xdb;
const DRI: u8 = 0xdd;
const SOS: u8 = 0xda;
const APP0: u8 = 0xe0;
const APP1: u8 = 0xe1;
const APP2: u8 = 0xe2;
const APP14: u8 = 0xee;

/// One part of a JPEG: `from .. to` with its marker, for SOS also the coded data behind the segment.
pub(in crate::reference) struct Segment {
    marker: u8,
    /// Where the marker stands.
    from: u64,
    /// Behind the segment, or behind the coded data of a scan.
    to: u64,
}

/// Walks to EOI and says where the picture ends. `visit` sees each segment.
pub(in crate::reference) fn walk(
    scan: &mut Scan<'_>,
    mut visit: impl FnMut(&mut Scan<'_>, &Segment) -> Result<(), Stop>,
) -> Result<u64, Stop> {
    let mut parts = Parts::default();
    let (mut frame, mut coded) = (false, false);
    let mut at = 2;
    loop {
        parts.one_more()?;
        let (from, marker) = next_marker(scan, at)?;
        match marker {
            EOI if coded => {
                visit(scan, &Segment { marker, from, to: from + 2 })?;
                return Ok(from + 2);
            }
            EOI => return Err(Stop::Broken("it ends before any picture data")),
            SOI => return Err(Stop::Broken("another picture begins before this one ends")),
            // Stand alone, without a length.
            0x01 | 0xd0..=0xd7 => at = from + 2,
            _ => {
                let length = be16(&need(scan.array::<2>(from + 2)?)?);
                // Room that was reserved and is not written yet.
                if length == 0 {
                    return Err(Stop::Cut);
                }
                if length < 2 {
                    return Err(Stop::Broken("a segment's length is impossible"));
                }
                let mut to = from + 2 + u64::from(length);
                if to > scan.size() {
                    return Err(Stop::Cut);
                }
                frame |= is_frame(marker);
                if marker == SOS {
                    if !frame {
                        return Err(Stop::Broken("its data begins before its size is said"));
                    }
                    coded = true;
                    to = end_of_coded_data(scan, to)?;
                }
                visit(scan, &Segment { marker, from, to })?;
                at = to;
            }
        }
    }
}

fn is_frame(marker: u8) -> bool {
    matches!(marker, 0xc0..=0xcf) && !matches!(marker, 0xc4 | 0xc8 | 0xcc)
}

/// The next marker at or behind `at`: bytes that belong to nothing are passed over as decoders do, and so
/// are fill bytes.
fn next_marker(scan: &mut Scan<'_>, mut at: u64) -> Result<(u64, u8), Stop> {
    loop {
        if at > MAX_LENGTH {
            return Err(Stop::Broken("it is far too long"));
        }
        let rest = scan.rest(at)?;
        if rest.is_empty() {
            return Err(Stop::Cut);
        }
        let Some(skip) = memchr::memchr(0xff, rest) else {
            at += rest.len() as u64;
            continue;
        };
        at += skip as u64;
        match need(scan.array::<2>(at)?)?[1] {
            0xff => at += 1,
            0x00 => at += 2,
            marker => return Ok((at, marker)),
        }
    }
}

/// Where the coded data that begins at `at` ends: at a marker that is neither a restart nor a stuffed byte.
fn end_of_coded_data(scan: &mut Scan<'_>, mut at: u64) -> Result<u64, Stop> {
    let goes_on = |next: u8| matches!(next, 0x00 | 0x01 | 0xd0..=0xd7);
    while at <= MAX_LENGTH {
        // Nearly all of a picture is passed over here, as much as the buffer holds in one go.
        let rest = scan.rest(at)?;
        if rest.is_empty() {
            return Err(Stop::Cut);
        }
        let mut marks = memchr::memchr_iter(0xff, rest);
        let Some(mark) = marks.find(|mark| rest.get(mark + 1).is_none_or(|next| !goes_on(*next))) else {
            at += rest.len() as u64;
            continue;
        };
        at += mark as u64;
        // The pair may lie in two buffers.
        if goes_on(need(scan.array::<2>(at)?)?[1]) {
            at += 2;
            continue;
        }
        match next_marker(scan, at)? {
            // Behind fill bytes.
            (from, 0x01 | 0xd0..=0xd7) => at = from + 2,
            (from, _) => return Ok(from),
        }
    }
    Err(Stop::Broken("it is far too long"))
}

/// Segments before the size of a JPEG inside another file: tables, comments and applications'. A hostile one is made
/// of thousands.
const MAX_HEAD: usize = 64;

/// The marker at `at` in the head of a JPEG inside another file, and where its segment ends; `None` where the decoder
/// might see something else than this does, and so believe another size.
fn head(scan: &mut Scan<'_>, at: u64, end: u64) -> Result<Option<(u8, u64)>, Stop> {
    if at + 4 > end {
        return Ok(None);
    }
    let found = match need(scan.array::<4>(at)?)? {
        [0xff, 0xff, ..] => Some((0xff, at + 1)),
        // Of an APP0 of this length the decoder reads a byte too many.
        [0xff, APP0, 0, 6] => None,
        // Frames of other kinds are jumped over.
        [0xff, marker @ (0xc0..=0xc2 | 0xc4 | 0xdb | 0xdd | APP0..=0xef | 0xfe), l1, l0] => {
            let length = be16(&[l1, l0]);
            (length >= 2).then(|| (marker, at + 2 + u64::from(length)))
        }
        _ => None,
    };
    Ok(found.filter(|(_, to)| *to <= end))
}

/// The pixels that a JPEG inside another file, at `at .. end`, says that it has; `None` if its data begins before
/// that is said. Only its head is read.
pub(in crate::reference) fn claims(scan: &mut Scan<'_>, at: u64, end: u64) -> Result<Option<(u32, u32)>, Stop> {
    let mut at = at + 2;
    for _ in 0..MAX_HEAD {
        match head(scan, at, end)? {
            Some((0xc0..=0xc2, to)) if to >= at + 9 => {
                let [_, h1, h0, w1, w0] = need(scan.array::<5>(at + 4)?)?;
                return Ok(Some((be16(&[w1, w0]), be16(&[h1, h0]))));
            }
            Some((0xc0..=0xc2, _)) | None => return Ok(None),
            Some((_, to)) => at = to,
        }
    }
    Ok(None)
}

/// Whether `at .. end` is a JPEG of tables alone, which decoders put before others: no size and no data, and the
/// last segment ends where it says.
pub(in crate::reference) fn only_tables(scan: &mut Scan<'_>, at: u64, end: u64) -> Result<bool, Stop> {
    let (mut at, end) = (at + 2, end.saturating_sub(2));
    for _ in 0..MAX_HEAD {
        if at == end {
            return Ok(true);
        }
        match head(scan, at, end)? {
            Some((0xc0..=0xc2, _)) | None => return Ok(false),
            Some((_, to)) => at = to,
        }
    }
    Ok(false)
}

/// The scans of a JPEG inside another file: all of `at .. end` is read.
pub(in crate::reference) fn passes(scan: &mut Scan<'_>, mut at: u64, end: u64) -> Result<u64, Stop> {
    let mut passes = 0;
    while at + 2 <= end {
        let rest = scan.rest(at)?;
        let rest = &rest[..(rest.len() as u64).min(end - at) as usize];
        if rest.is_empty() {
            return Err(Stop::Cut);
        }
        let Some(skip) = memchr::memchr(0xff, rest) else {
            at += rest.len() as u64;
            continue;
        };
        at += skip as u64;
        if at + 2 > end {
            break;
        }
        let next = need(scan.array::<2>(at)?)?[1];
        passes += u64::from(next == SOS);
        at += if next == 0xff { 1 } else { 2 };
    }
    Ok(passes)
}

/// What a whole JPEG is, and its copy with nothing but what decoding needs and the colour profile.
pub(in crate::reference) fn survey(scan: &mut Scan<'_>) -> Result<Survey, Stop> {
    let mut pieces = Pieces::default();
    pieces.keep(0, 2);
    let mut frame: Option<Frame> = None;
    let mut orientation = None;
    let (mut jfif, mut adobe, mut scans) = (false, false, 0_u64);
    let mut tables = Tables::default();
    let mut odd_colours = false;
    let mut behind = 2;
    walk(scan, |scan, part| {
        let data = part.from + 4;
        if part.from != behind {
            // Bytes that belong to nothing: something may be missing here, or was overwritten.
            tables.other();
        }
        behind = part.to;
        match part.marker {
            APP0 if !jfif && starts(scan, part, b"JFIF\0")? && part.to - data >= 12 => {
                jfif = true;
                // The thumbnail's two sides become 0.
                let kept = need(scan.array::<12>(data)?)?;
                let mut new = vec![0xff, APP0, 0, 16];
                new.extend_from_slice(&kept);
                new.extend_from_slice(&[0, 0]);
                pieces.add(new);
            }
            APP1 if orientation.is_none() && starts(scan, part, b"Exif\0\0")? => {
                orientation = exif_orientation(scan, data, part.to)?;
            }
            APP2 if starts(scan, part, b"ICC_PROFILE\0")? => pieces.keep(part.from, part.to),
            APP14 if !adobe && starts(scan, part, b"Adobe")? && part.to - data >= 12 => {
                adobe = true;
                let mut new = vec![0xff, APP14, 0, 14];
                let kept = need(scan.array::<12>(data)?)?;
                // The last byte says what the colours are; decoders differ in what it counts beside other signs.
                odd_colours = kept[11] != 1;
                new.extend_from_slice(&kept);
                pieces.add(new);
            }
            // Other applications' segments and comments. Where they would stand within the pixels, it is likelier that these
            // are damaged, and what is reserved nobody writes.
            marker @ APP0..=0xfe => {
                if scans > 0 || matches!(marker, 0xf0..=0xfd) {
                    tables.other();
                }
            }
            // What is reserved, or belongs to no picture of this kind, may hold anything.
            marker if !(is_frame(marker) || matches!(marker, EOI | DRI | DQT | DHT | SOS | DAC | DNL)) => {
                tables.other();
            }
            marker => {
                if is_frame(marker) && frame.is_none() {
                    frame = Some(Frame::read(scan, part)?);
                }
                match marker {
                    EOI => {}
                    DRI if part.to == data + 2 => {}
                    DQT => tables.quantisation(scan, data, part.to)?,
                    DHT => tables.huffman(scan, data, part.to)?,
                    SOS => tables.scan(scan, part.from + 2)?,
                    marker if is_frame(marker) => {
                        let len = (part.to - data).min(6 + 4 * 3) as usize;
                        tables.frame(marker, need(scan.bytes(data, len)?)?);
                    }
                    _ => tables.other(),
                }
                scans += u64::from(marker == SOS);
                pieces.keep(part.from, part.to);
            }
        }
        Ok(())
    })?;
    let frame = frame.ok_or(Stop::Broken("it does not say its size"))?;
    let pixels = super::area(frame.width, frame.height);
    // One for each component is what a baseline picture may have; what is too large anyway is told so.
    if scans > 4 && pixels <= MAX_PIXELS && pixels.saturating_mul(scans) > MAX_WORK {
        return Err(Stop::Broken("it is coded in far too many passes for its size"));
    }
    let four = frame.components == 4;
    // Progressive pictures keep all coefficients, 16 bits each, until the last scan.
    let coefficients = if frame.progressive { pixels * 2 * u64::from(frame.samples_per_4) / 4 } else { 0 };
    Ok(Survey {
        width: frame.width,
        height: frame.height,
        orientation: orientation.unwrap_or(Orientation::NoTransforms),
        output: pixels * if frame.components == 1 { 1 } else { 3 },
        beside: pieces.len() + coefficients + u64::from(frame.width) * 256,
        pieces,
        convert: four.then_some(Why::Colours),
        as_png: Some(false),
        foreign_colours: four,
        reducible: frame.components == 1 || frame.usual_names && !odd_colours,
        vouched: tables.are_all_there(),
    })
}

fn starts(scan: &mut Scan<'_>, part: &Segment, with: &[u8]) -> Result<bool, Stop> {
    let data = part.from + 4;
    Ok(part.to >= data + with.len() as u64 && scan.bytes(data, with.len())? == Some(with))
}

struct Frame {
    width: u32,
    height: u32,
    components: u8,
    progressive: bool,
    /// Its three components are called 1, 2 and 3, as luma and chroma are.
    usual_names: bool,
    /// Samples of all components for four pixels, rounded up.
    samples_per_4: u32,
}

impl Frame {
    fn read(scan: &mut Scan<'_>, part: &Segment) -> Result<Self, Stop> {
        const SHORT: Stop = Stop::Broken("what it says about its size is too short");
        let len = (part.to - part.from - 4).min(6 + 3 * 4) as usize;
        let data = need(scan.bytes(part.from + 4, len)?)?;
        let [_, h1, h0, w1, w0, components, tables @ ..] = data else { return Err(SHORT) };
        if !matches!(components, 1..=4) || tables.len() < usize::from(*components) * 3 {
            return Err(SHORT);
        }
        let factors = || tables.chunks_exact(3).map(|c| (u32::from(c[1] >> 4), u32::from(c[1] & 15)));
        let most = factors().map(|(h, _)| h).max().unwrap_or(1) * factors().map(|(_, v)| v).max().unwrap_or(1);
        let samples: u32 = factors().map(|(h, v)| (4 * h * v).div_ceil(most.max(1))).sum();
        Ok(Self {
            width: be16(&[*w1, *w0]),
            height: be16(&[*h1, *h0]),
            components: *components,
            progressive: !matches!(part.marker, 0xc0 | 0xc1),
            usual_names: *components == 3 && tables.chunks_exact(3).map(|c| c[0]).eq([1, 2, 3]),
            samples_per_4: samples,
        })
    }
}
