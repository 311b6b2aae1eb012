//! The tables of a JPEG: whether what each scan decodes by was said before it, as decoders want it.

use super::{Stop, be16, need};
use crate::reference::source::Scan;

/// What is known while a JPEG is walked.
#[derive(Default)]
pub(super) struct Tables {
    /// Of each component of the frame: its name, its blocks in a unit of several components, and the table that its
    /// samples are multiplied by.
    components: Vec<[u8; 3]>,
    /// One bit for each table that was said.
    quantisation: u8,
    direct: u8,
    alternating: u8,
    /// One bit for each component that a scan had.
    seen: u8,
    frames: u32,
    progressive: bool,
    odd: bool,
}

/// Tables of a kind that there may be.
const TABLES: u8 = 4;

impl Tables {
    /// A frame header: `SOF0` to `SOF2` with 8 bits a sample, of one or three components, or decoders may not know it.
    pub(super) fn frame(&mut self, marker: u8, data: &[u8]) {
        self.frames += 1;
        self.progressive = marker == 0xc2;
        let [8, _, _, _, _, count @ (1 | 3), components @ ..] = data else { return self.odd = true };
        if !matches!(marker, 0xc0..=0xc2) || components.len() != usize::from(*count) * 3 {
            return self.odd = true;
        }
        let components = components.as_chunks::<3>().0;
        let most = |shift: u8| components.iter().map(|c| c[1] >> shift & 15).max().unwrap_or(0);
        let fits = |factor: u8, most: u8| matches!(factor, 1 | 2 | 4) && matches!(most, 1 | 2 | 4);
        self.odd |= !components.iter().all(|c| fits(c[1] >> 4, most(4)) && fits(c[1] & 15, most(0)) && c[2] < TABLES);
        self.components = components.iter().map(|c| [c[0], (c[1] >> 4).saturating_mul(c[1] & 15), c[2]]).collect();
    }

    /// Something that decoders may take in other ways, or not at all.
    pub(super) fn other(&mut self) {
        self.odd = true;
    }

    /// A segment of quantisation tables, `at .. to` without its head.
    pub(super) fn quantisation(&mut self, scan: &mut Scan<'_>, mut at: u64, to: u64) -> Result<(), Stop> {
        while at < to {
            let [head] = need(scan.array::<1>(at)?)?;
            let (wide, id) = (head >> 4, head & 15);
            at += 1 + 64 * (1 + u64::from(wide));
            if wide > 1 || id >= TABLES || at > to {
                self.odd = true;
                return Ok(());
            }
            self.quantisation |= 1 << id;
        }
        Ok(())
    }

    /// A segment of Huffman tables, `at .. to` without its head.
    pub(super) fn huffman(&mut self, scan: &mut Scan<'_>, mut at: u64, to: u64) -> Result<(), Stop> {
        while at < to {
            if at + 17 > to {
                self.odd = true;
                return Ok(());
            }
            let [head, counts @ ..] = need(scan.array::<17>(at)?)?;
            let (class, id) = (head >> 4, head & 15);
            let symbols: u64 = counts.iter().map(|n| u64::from(*n)).sum();
            // Of 65,536 codes of 16 bits, each shorter one takes as many as begin like it.
            let taken: u64 = counts.iter().zip(1_u32..).map(|(n, bits)| u64::from(*n) << (16 - bits)).sum();
            // One of all ones there may not be.
            if class > 1 || id >= TABLES || symbols > 256 || taken >= 1 << 16 || at + 17 + symbols > to {
                self.odd = true;
                return Ok(());
            }
            let said = need(scan.bytes(at + 17, symbols as usize)?)?;
            // How many bits the difference has.
            self.odd |= class == 0 && said.iter().any(|bits| *bits > 11);
            at += 17 + symbols;
            *if class == 0 { &mut self.direct } else { &mut self.alternating } |= 1 << id;
        }
        Ok(())
    }

    /// The head of a scan at `at`, behind its marker.
    pub(super) fn scan(&mut self, scan: &mut Scan<'_>, at: u64) -> Result<(), Stop> {
        let [l1, l0, count] = need(scan.array::<3>(at)?)?;
        let parts = scan.bytes(at + 3, usize::from(count) * 2 + 3)?.map(<[u8]>::to_vec);
        let Some((parts, [first, last, bits])) = parts.as_deref().and_then(|p| p.split_last_chunk::<3>()) else {
            return Err(Stop::Cut);
        };
        self.odd |= be16(&[l1, l0]) != 6 + u32::from(count) * 2 || !(1..=4).contains(&count);
        let (high, low) = (bits >> 4, bits & 15);
        let (direct, alternating) = if self.progressive {
            self.odd |= low > 13 || high != 0 && high != low + 1;
            self.odd |= if *first == 0 { *last != 0 } else { first > last || *last > 63 || count > 1 };
            // A later pass over the first coefficients has plain bits.
            (*first == 0 && high == 0, *first > 0)
        } else {
            self.odd |= (*first, *last, *bits) != (0, 63, 0);
            (true, true)
        };
        let (mut here, mut blocks) = (0_u8, 0_u32);
        for [name, tables] in parts.as_chunks::<2>().0 {
            let Some(place) = self.components.iter().position(|c| c[0] == *name) else {
                self.odd = true;
                return Ok(());
            };
            let has = |said: u8, id: u8| id < TABLES && said >> id & 1 == 1;
            self.odd |= !has(self.quantisation, self.components[place][2])
                || direct && !has(self.direct, tables >> 4)
                || alternating && !has(self.alternating, tables & 15)
                || here >> place & 1 == 1;
            here |= 1 << place;
            blocks += u32::from(self.components[place][1]);
        }
        self.odd |= count > 1 && blocks > 10;
        self.seen |= here;
        Ok(())
    }

    /// Whether every decoder knows what each scan means, and each component had one.
    pub(super) fn are_all_there(&self) -> bool {
        !self.odd && self.frames == 1 && self.seen == (1 << self.components.len()) - 1
    }
}
