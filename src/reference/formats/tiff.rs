//! TIFF: directories that point anywhere in the file; it is whole when everything they point to is there.

use std::collections::HashSet;

use image::metadata::Orientation;

use super::{Stop, Survey, need};
use crate::reference::pieces::Pieces;
use crate::reference::prepare::{MAX_PIXELS, Why};
use crate::reference::source::Scan;

/// Directories (pages) that a file may have.
const MAX_PAGES: usize = 4096;
/// Entries of all directories, and strips or tiles of all pages.
const MAX_VALUES: u64 = 4_000_000;

const WIDTH: u32 = 256;
const HEIGHT: u32 = 257;
const BITS: u32 = 258;
const PACKING: u32 = 259;
const COLOURS: u32 = 262;
const ORIENTATION: u32 = 274;
const SAMPLES: u32 = 277;
const ROWS: u32 = 278;
const STRIPS: [u32; 2] = [273, 279];
const TILES: [u32; 2] = [324, 325];
const TILE_WIDTH: u32 = 322;
const TILE_HEIGHT: u32 = 323;
/// Tables that the JPEGs of all strips or tiles share.
const TABLES: u32 = 347;
/// A colour profile.
const PROFILE: u32 = 34_675;
/// A longer one does not travel. Those of scanners and printers have some hundred kilobytes, of large tables two megabytes.
const LONGEST_PROFILE: u64 = 4 << 20;
/// The decoder takes so much for each byte of it.
const PROFILE_COSTS: u64 = 32;
/// Each strip or tile is a JPEG.
const JPEG: u64 = 7;
/// What one of those counts for among the values: it is looked into.
const JPEG_COSTS: u64 = 64;
/// Separated inks: CMYK.
const SEPARATED: u64 = 5;

/// What a TIFF says of its pages.
pub(in crate::reference) struct Pages {
    first: Page,
    /// The farthest place that anything points to.
    pub(in crate::reference) end: u64,
}

#[derive(Default)]
struct Page {
    width: u64,
    height: u64,
    bits: u64,
    samples: u64,
    packing: u64,
    colours: u64,
    orientation: u64,
    tile: (u64, u64),
    rows: u64,
    largest: u64,
    /// Bytes that decoding the largest JPEG inside takes.
    inside: u64,
    /// The length of the colour profile.
    profile: u64,
}

/// What is known of the JPEGs that are the strips or tiles of a page.
struct Inside {
    /// The sides that one may have, with what pads it to whole blocks.
    most: (u64, u64),
    /// The length of the tables that the decoder puts before each.
    tables: u64,
    /// Whether the page is so large that it is refused for that.
    too_large: bool,
    /// Pixels of all so far, times their passes.
    work: u64,
    /// Bytes of all so far.
    bytes: u64,
    /// Bytes that decoding the largest takes.
    memory: u64,
}

impl Inside {
    fn new(page: &Page, in_tiles: bool, tables: u64) -> Self {
        const BLOCK: u64 = 16;
        // A page that doesn't say how many rows a strip has is one strip.
        let rows = if page.rows == 0 { page.height } else { page.rows.min(page.height) };
        let (width, height) = if in_tiles { page.tile } else { (page.width, rows) };
        Self {
            most: (width.saturating_add(BLOCK), height.saturating_add(BLOCK)),
            tables,
            too_large: page.width.saturating_mul(page.height) > MAX_PIXELS,
            work: 0,
            bytes: 0,
            memory: 0,
        }
    }
}

/// A list of numbers, in its place.
#[derive(Clone, Copy, PartialEq)]
struct List {
    at: u64,
    count: u64,
    width: u64,
}

struct Walker<'a, 'b> {
    scan: &'a mut Scan<'b>,
    big_endian: bool,
    values: u64,
    end: u64,
}

/// Walks all pages.
pub(in crate::reference) fn walk(scan: &mut Scan<'_>) -> Result<Pages, Stop> {
    let head = need(scan.array::<4>(0)?)?;
    if head.contains(&43) {
        return Err(Stop::Broken("it is a BigTIFF, which is not supported: save it as TIFF, JPEG or PNG"));
    }
    let mut walker = Walker { scan, big_endian: head[0] == b'M', values: 0, end: 8 };
    let mut seen = HashSet::new();
    let mut first = None;
    let mut at = walker.number(4, 4)?;
    // Writers put the place of the first directory in at the end.
    if at == 0 {
        return Err(Stop::Cut);
    }
    while at != 0 {
        if !seen.insert(at) || seen.len() > MAX_PAGES {
            return Err(Stop::Broken("its pages run in a circle"));
        }
        // Of the pages behind the first nothing is decoded.
        let (page, next) = walker.page(at, first.is_none())?;
        first.get_or_insert(page);
        at = next;
    }
    let first = first.ok_or(Stop::Cut)?;
    Ok(Pages { first, end: walker.end })
}

impl Walker<'_, '_> {
    /// The number in `bytes`, in the file's byte order.
    fn value(&self, bytes: &[u8]) -> u64 {
        let push = |n: u64, b: &u8| n << 8 | u64::from(*b);
        if self.big_endian { bytes.iter().fold(0, push) } else { bytes.iter().rev().fold(0, push) }
    }

    /// A number anywhere in the file; read alone, since places jump and a buffer would be filled for each.
    fn number(&mut self, at: u64, width: u64) -> Result<u64, Stop> {
        let bytes = need(self.scan.copy(at, width as usize)?)?;
        Ok(self.value(&bytes))
    }

    fn reach(&mut self, to: u64) -> Result<(), Stop> {
        if to > self.scan.size() {
            return Err(Stop::Cut);
        }
        self.end = self.end.max(to);
        Ok(())
    }

    fn spend(&mut self, values: u64) -> Result<(), Stop> {
        self.values = self.values.saturating_add(values);
        if self.values > MAX_VALUES { Err(Stop::Broken("it is cut into far too many parts")) } else { Ok(()) }
    }

    /// One directory, and the place of the next. `decoded`: what its strips or tiles are matters.
    fn page(&mut self, at: u64, decoded: bool) -> Result<(Page, u64), Stop> {
        let entries = self.number(at, 2)?;
        if entries == 0 {
            // Room that is not written yet reads as zeros; a page without entries is none.
            return Err(Stop::Cut);
        }
        self.spend(entries)?;
        let next_at = at + 2 + entries * 12;
        self.reach(next_at + 4)?;
        let mut page = Page { samples: 1, bits: 1, orientation: 1, ..Page::default() };
        let mut strips: [Option<List>; 2] = [None; 2];
        let mut tiles: [Option<List>; 2] = [None; 2];
        let mut tables: Option<List> = None;
        let directory = need(self.scan.copy(at + 2, entries as usize * 12)?)?;
        for (entry, at) in directory.chunks_exact(12).zip((at + 2..).step_by(12)) {
            let tag = self.value(&entry[..2]) as u32;
            let Some(list) = self.list(entry, at)? else {
                // The decoder may know how to read them.
                if matches!(tag, PACKING | TABLES) {
                    return Err(Stop::Broken("how it is packed is said in a way that is not known"));
                }
                continue;
            };
            let place = match tag {
                WIDTH => &mut page.width,
                HEIGHT => &mut page.height,
                BITS => &mut page.bits,
                PACKING => &mut page.packing,
                COLOURS => &mut page.colours,
                ORIENTATION => &mut page.orientation,
                SAMPLES => &mut page.samples,
                TILE_WIDTH => &mut page.tile.0,
                TILE_HEIGHT => &mut page.tile.1,
                ROWS => &mut page.rows,
                TABLES => {
                    tables = Some(list);
                    continue;
                }
                PROFILE => {
                    page.profile = list.count;
                    continue;
                }
                _ => {
                    for n in 0..2 {
                        if tag == STRIPS[n] {
                            strips[n] = Some(list);
                        } else if tag == TILES[n] {
                            tiles[n] = Some(list);
                        }
                    }
                    continue;
                }
            };
            if list.count > 0 && list.width <= 4 {
                *place = self.number(list.at, list.width)?;
            } else if tag == PACKING {
                return Err(Stop::Broken("how it is packed is said in a way that is not known"));
            }
        }
        match (strips, tiles) {
            ([Some(places), Some(lengths)], _) | (_, [Some(places), Some(lengths)]) => {
                let mut inside = None;
                if decoded && page.packing == JPEG {
                    let tables = tables.map_or(Ok(0), |list| self.tables(list))?;
                    inside = Some(Inside::new(&page, strips.contains(&None), tables));
                }
                page.largest = self.data(places, lengths, inside.as_mut())?;
                page.inside = inside.map_or(0, |inside| inside.memory);
            }
            _ => return Err(Stop::Broken("a page does not say where its pixels are")),
        }
        let next = self.number(next_at, 4)?;
        Ok((page, next))
    }

    /// Where the values of an entry, which stands at `at`, are; `None` for types that are not known.
    fn list(&mut self, entry: &[u8], at: u64) -> Result<Option<List>, Stop> {
        let count = self.value(&entry[4..8]);
        let width = match self.value(&entry[2..4]) {
            1 | 2 | 6 | 7 => 1,
            3 | 8 => 2,
            4 | 9 | 11 | 13 => 4,
            5 | 10 | 12 => 8,
            _ => return Ok(None),
        };
        let at = if count * width <= 4 { at + 8 } else { self.value(&entry[8..12]) };
        self.reach(at + count * width)?;
        Ok(Some(List { at, count, width }))
    }

    /// The length of the tables that a page's JPEGs share. The decoder puts them before each, so a size or data in
    /// them would hide what the JPEG itself says.
    fn tables(&mut self, list: List) -> Result<u64, Stop> {
        if list.width != 1 || list.count < 4 || !super::jpeg::only_tables(self.scan, list.at, list.at + list.count)? {
            return Err(Stop::Broken("the tables of its parts hold something else"));
        }
        Ok(list.count)
    }

    /// Whether the JPEG at `from .. to` is no larger than its place, and all up to it are not too much work: its
    /// decoder believes nothing else. All may point to the same bytes, so that a small file makes much work.
    fn fits(&mut self, from: u64, to: u64, inside: &mut Inside) -> Result<(), Stop> {
        /// What all of them may have beside the file's length some times over: a few parts are one.
        const SHARED: u64 = 64 << 20;
        const BLOCKS: u64 = 32;
        // Room that is not written yet reads as zeros, and so do lengths.
        if to - from < 2 || need(self.scan.array::<2>(from)?)? == [0, 0] {
            return Err(Stop::Cut);
        }
        let Some((width, height)) = super::jpeg::claims(self.scan, from, to)? else {
            return Err(Stop::Broken("a part of it does not say its size"));
        };
        let (width, height) = (u64::from(width), u64::from(height));
        if width > inside.most.0 || height > inside.most.1 {
            return Err(Stop::Broken("a part of it is larger than its place"));
        }
        // Its output and, coded in passes, all its coefficients; four channels at the most.
        let memory = width.next_multiple_of(BLOCKS) * height.next_multiple_of(BLOCKS) * 12;
        inside.memory = inside.memory.max(memory);
        inside.bytes = inside.bytes.saturating_add(to - from).saturating_add(inside.tables);
        if inside.bytes > super::jpeg::MAX_LENGTH.min(self.scan.size().saturating_mul(4).saturating_add(SHARED)) {
            return Err(Stop::Broken("its parts are far longer than itself"));
        }
        let passes = super::jpeg::passes(self.scan, from, to)?.max(1);
        inside.work = inside.work.saturating_add((width * height).saturating_mul(passes));
        // What is too large anyway is told so.
        if inside.work > super::jpeg::MAX_WORK && !inside.too_large {
            return Err(Stop::Broken("its parts are far too much work for its size"));
        }
        Ok(())
    }

    /// Follows strips or tiles; gives the length of the largest. `inside`: each is a JPEG.
    fn data(&mut self, places: List, lengths: List, mut inside: Option<&mut Inside>) -> Result<u64, Stop> {
        const AT_ONCE: u64 = 4096;
        if places.count == 0 || places.count != lengths.count || places.width > 4 || lengths.width > 4 {
            return Err(Stop::Broken("what a page says about its pixels does not fit together"));
        }
        self.spend(places.count.saturating_mul(if inside.is_some() { JPEG_COSTS } else { 1 }))?;
        let mut largest = 0;
        for first in (0..places.count).step_by(AT_ONCE as usize) {
            let n = AT_ONCE.min(places.count - first);
            let mut part = |list: List| self.scan.copy(list.at + first * list.width, (n * list.width) as usize);
            let (place_bytes, length_bytes) = (need(part(places)?)?, need(part(lengths)?)?);
            let each = |list: List| list.width as usize;
            for (place, length) in place_bytes.chunks_exact(each(places)).zip(length_bytes.chunks_exact(each(lengths)))
            {
                let (place, length) = (self.value(place), self.value(length));
                self.reach(place + length)?;
                if let Some(inside) = &mut inside {
                    self.fits(place, place + length, inside)?;
                }
                largest = largest.max(length);
            }
        }
        Ok(largest)
    }
}

/// What a whole TIFF is. Its first page counts.
pub(in crate::reference) fn survey(scan: &mut Scan<'_>) -> Result<Survey, Stop> {
    let Pages { first: page, end } = walk(scan)?;
    let (Ok(width), Ok(height)) = (u32::try_from(page.width), u32::try_from(page.height)) else {
        return Err(Stop::Broken("its size is impossible"));
    };
    let sample = page.bits.clamp(8, 64).div_ceil(8);
    let output = super::area(width, height).saturating_mul(page.samples.clamp(1, 8)).saturating_mul(sample);
    let tile = page.tile.0.saturating_mul(page.tile.1).saturating_mul(page.samples.clamp(1, 8) * sample);
    Ok(Survey {
        width,
        height,
        orientation: u8::try_from(page.orientation)
            .ok()
            .and_then(Orientation::from_exif)
            .unwrap_or(Orientation::NoTransforms),
        pieces: Pieces::all(end),
        convert: Some(Why::Format),
        output,
        // The decoder has a copy of its own, and a strip or tile, packed and unpacked.
        beside: output
            .saturating_add(page.largest)
            .saturating_add(tile)
            .saturating_add(page.inside)
            .saturating_add(page.profile.min(LONGEST_PROFILE) * PROFILE_COSTS),
        as_png: None,
        foreign_colours: page.colours == SEPARATED || page.profile > LONGEST_PROFILE,
        reducible: false,
        vouched: false,
    })
}
