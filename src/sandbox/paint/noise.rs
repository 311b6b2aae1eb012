//! Chance for pictures: reproducible from a seed, the same on every machine.
//!
//! Promises that the same seed gives the same numbers in every version of this module that keeps its
//! tests. Not for secrets.

use super::canvas::{self, PaintError, Size};

/// A stream of numbers that follow from a seed (splitmix64).
#[derive(Clone, Debug)]
pub(super) struct Dice(u64);

impl Dice {
    /// A stream of its own for each pair of seed and purpose, so that one more throw for one thing does
    /// not shift all others.
    pub(super) fn new(seed: i64, purpose: u64) -> Self {
        let mut dice = Self((seed as u64) ^ purpose.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        dice.next();
        dice
    }

    /// 64 evenly spread bits.
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 up to, not including, 1.
    pub(super) fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / 16_777_216.0
    }

    /// From `low` up to `high`.
    pub(super) fn between(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.unit()
    }
}

/// A number for a text: FNV-1a, because `std`'s hasher may change between versions of Rust.
pub(super) fn of_text(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// A soft random surface, 0–255: `cells` bumps along the longer edge.
pub(super) fn field(size: Size, cells: u32, dice: &mut Dice) -> Result<Vec<u8>, PaintError> {
    let long = size.width.max(size.height).max(1);
    let grid =
        Size { width: (size.width * cells).div_ceil(long).max(2), height: (size.height * cells).div_ceil(long).max(2) };
    let bumps: Vec<u8> = (0..grid.area()).map(|_| (dice.next() >> 56) as u8).collect();
    canvas::resize(&bumps, 1, grid, size)
}

/// A line of hills: `n` heights between 0 and 1 with bumps of several widths, `cells` of the widest.
pub(super) fn ridge(n: usize, cells: f32, dice: &mut Dice) -> Vec<f32> {
    let mut heights = vec![0.0_f32; n];
    let (mut cells, mut weight, mut total) = (cells.max(1.0), 1.0_f32, 0.0);
    for _ in 0..4 {
        let knots: Vec<f32> = (0..cells as usize + 3).map(|_| dice.unit()).collect();
        for (i, height) in heights.iter_mut().enumerate() {
            let at = i as f32 / n.max(1) as f32 * cells;
            let (knot, part) = (at as usize, at.fract());
            let soft = part * part * (3.0 - 2.0 * part);
            *height += weight * (knots[knot] * (1.0 - soft) + knots[knot + 1] * soft);
        }
        total += weight;
        cells *= 2.3;
        weight *= 0.45;
    }
    for height in &mut heights {
        *height /= total;
    }
    heights
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_throws_the_same_numbers_and_another_does_not() {
        let throw = |seed, purpose| {
            let mut dice = Dice::new(seed, purpose);
            [dice.next(), dice.next(), dice.next()]
        };
        assert_eq!(throw(42, 1), throw(42, 1));
        assert_ne!(throw(42, 1), throw(43, 1));
        assert_ne!(throw(42, 1), throw(42, 2));
        assert_ne!(throw(-1, 1), throw(1, 1));
    }

    #[test]
    fn a_hash_of_a_text_is_the_published_fnv() {
        assert_eq!(of_text("a"), 0xaf63_dc4c_8601_ec8c);
    }

    #[test]
    fn hills_stay_between_nothing_and_one() {
        for n in [1, 2, 600] {
            let heights = ridge(n, 3.0, &mut Dice::new(7, 0));
            assert_eq!(heights.len(), n);
            assert!(heights.iter().all(|height| (0.0..=1.0).contains(height)), "{heights:?}");
        }
    }
}
