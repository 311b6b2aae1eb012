//! GIF: blocks, walked to the trailer.

use image::metadata::Orientation;

use super::{Parts, Stop, Survey, le16, need};
use crate::reference::pieces::Pieces;
use crate::reference::prepare::Why;
use crate::reference::source::Scan;

/// What a GIF says of itself.
pub(in crate::reference) struct Gif {
    width: u32,
    height: u32,
    /// Pixels of the first frame, which need not fit the canvas.
    frame: u64,
    /// Where the picture ends.
    pub(in crate::reference) end: u64,
}

/// Walks to the trailer.
pub(in crate::reference) fn walk(scan: &mut Scan<'_>) -> Result<Gif, Stop> {
    let head = need(scan.array::<13>(0)?)?;
    let (width, height) = (le16(&head[6..]), le16(&head[8..]));
    let mut parts = Parts::default();
    let mut frame = None;
    let mut at = 13 + table(head[10]);
    loop {
        parts.one_more()?;
        let kind = need(scan.array::<1>(at)?)?[0];
        at = match kind {
            // Some writers leave zeros between blocks; so does room that is not written yet.
            0 => at + 1,
            0x21 => blocks(scan, at + 2, &mut parts)?,
            0x2c => {
                let place = need(scan.array::<10>(at)?)?;
                frame.get_or_insert(super::area(le16(&place[5..]), le16(&place[7..])));
                blocks(scan, at + 11 + table(place[9]), &mut parts)?
            }
            0x3b => {
                let frame = frame.ok_or(Stop::Broken("it holds no picture"))?;
                return Ok(Gif { width, height, frame, end: at + 1 });
            }
            _ => return Err(Stop::Broken("a block of no known kind")),
        };
    }
}

/// The length of a colour table.
fn table(flags: u8) -> u64 {
    if flags & 0x80 == 0 { 0 } else { 3 << ((flags & 7) + 1) }
}

/// Behind the data blocks that begin at `at`.
fn blocks(scan: &mut Scan<'_>, mut at: u64, parts: &mut Parts) -> Result<u64, Stop> {
    loop {
        let length = need(scan.array::<1>(at)?)?[0];
        at += 1 + u64::from(length);
        match length {
            0 => return Ok(at),
            // Full blocks advance quickly; tiny ones are what a hostile file is made of.
            1..=15 => parts.one_more()?,
            _ => {}
        }
    }
}

/// What a whole GIF is. Its first frame counts.
pub(in crate::reference) fn survey(scan: &mut Scan<'_>) -> Result<Survey, Stop> {
    let gif = walk(scan)?;
    Ok(Survey {
        width: gif.width,
        height: gif.height,
        orientation: Orientation::NoTransforms,
        pieces: Pieces::all(gif.end),
        convert: Some(Why::Format),
        output: super::area(gif.width, gif.height) * 4,
        beside: gif.frame * 5,
        as_png: Some(true),
        foreign_colours: false,
        reducible: false,
        vouched: false,
    })
}
