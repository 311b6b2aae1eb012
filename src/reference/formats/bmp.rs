//! BMP: a header that says where the pixels are; its own file size is often wrong and not believed.

use image::metadata::Orientation;

use super::{Stop, Survey, le16, le32, need};
use crate::reference::pieces::Pieces;
use crate::reference::prepare::Why;
use crate::reference::source::Scan;

/// What a BMP says of itself.
pub(in crate::reference) struct Header {
    width: u32,
    height: u32,
    /// Where the pixels end.
    pub(in crate::reference) end: u64,
}

/// Whether a BMP may have an inner header of this size.
pub(in crate::reference) fn known_header(size: u32) -> bool {
    matches!(size, 12 | 16 | 40 | 52 | 56 | 64 | 108 | 124)
}

/// Reads the header; `Cut` if the pixels that it promises are not all there.
pub(in crate::reference) fn read(scan: &mut Scan<'_>) -> Result<Header, Stop> {
    let head = need(scan.array::<26>(0)?)?;
    let (file_size, offset, inner) = (le32(&head[2..]), le32(&head[10..]), le32(&head[14..]));
    let (width, height, bits, packing, stored) = if inner == 12 {
        (le16(&head[18..]), le16(&head[20..]), le16(&head[24..]), 0, 0)
    } else {
        let head = need(scan.array::<38>(0)?)?;
        // Rows from top to bottom are marked by a negative height.
        let height = le32(&head[22..]).cast_signed().unsigned_abs();
        (le32(&head[18..]), height, le16(&head[28..]), le32(&head[30..]), le32(&head[34..]))
    };
    if width == 0 || width > i32::MAX as u32 || height == 0 || !matches!(bits, 1 | 2 | 4 | 8 | 16 | 24 | 32) {
        return Err(Stop::Broken("its header says impossible things"));
    }
    if u64::from(offset) < 14 + u64::from(inner) {
        return Err(Stop::Broken("its pixels lie inside its header"));
    }
    let length = match packing {
        // Run-length coded: only the file itself knows.
        1 | 2 if stored > 0 => u64::from(stored),
        1 | 2 => u64::from(file_size.saturating_sub(offset).max(1)),
        0 | 3 | 6 => (u64::from(width) * u64::from(bits)).div_ceil(32) * 4 * u64::from(height),
        _ => return Err(Stop::Broken("its pixels are packed in a way that is not supported")),
    };
    let end = u64::from(offset) + length;
    if end > scan.size() {
        return Err(Stop::Cut);
    }
    Ok(Header { width, height, end })
}

/// What a whole BMP is.
pub(in crate::reference) fn survey(scan: &mut Scan<'_>) -> Result<Survey, Stop> {
    let header = read(scan)?;
    Ok(Survey {
        width: header.width,
        height: header.height,
        orientation: Orientation::NoTransforms,
        pieces: Pieces::all(header.end),
        convert: Some(Why::Format),
        output: super::area(header.width, header.height).saturating_mul(4),
        beside: u64::from(header.width) * 16,
        as_png: None,
        foreign_colours: false,
        reducible: false,
        vouched: false,
    })
}
