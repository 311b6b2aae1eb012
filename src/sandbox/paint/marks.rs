//! What is drawn over the finished picture: leaves, snow and the like, the margin of a watercolour, and
//! the plate that says whose picture this is.

use font8x8::legacy::BASIC_LEGACY;

use super::canvas::Size;
use super::look::{Drift, Look, Rgb};
use super::noise::Dice;

/// The word on the plate.
const WORD: &str = "sandbox";
/// Pixels around the word, in units of the plate's scale.
const PAD: u32 = 4;
const PAPER: Rgb = [0xfa, 0xf6, 0xea];
const INK: Rgb = [0x16, 0x16, 0x1c];

/// A finished picture that can be drawn on.
pub(super) struct Sheet<'a> {
    pub(super) rgb: &'a mut [u8],
    pub(super) size: Size,
}

impl Sheet<'_> {
    /// Lays `colour` over one pixel, 0 (not at all) to 1.
    fn lay(&mut self, x: i32, y: i32, colour: Rgb, cover: f32) {
        if x < 0 || y < 0 || x >= self.size.width as i32 || y >= self.size.height as i32 || cover <= 0.0 {
            return;
        }
        let at = (y as usize * self.size.width as usize + x as usize) * 3;
        let part = (cover.min(1.0) * 256.0) as i32;
        for (channel, goal) in self.rgb[at..at + 3].iter_mut().zip(colour) {
            let now = i32::from(*channel);
            *channel = (now + (i32::from(goal) - now) * part / 256) as u8;
        }
    }

    /// Draws a shape: `inside` tells for a point relative to the middle, turned by `angle`, how many
    /// pixels deep within the shape it lies.
    fn shape(&mut self, x: f32, y: f32, reach: f32, angle: f32, cover: f32, inside: impl Fn(f32, f32) -> (f32, Rgb)) {
        let (sin, cos) = angle.sin_cos();
        for py in (y - reach) as i32..=(y + reach) as i32 {
            for px in (x - reach) as i32..=(x + reach) as i32 {
                let (dx, dy) = (px as f32 - x, py as f32 - y);
                let (depth, colour) = inside(dx * cos + dy * sin, dy * cos - dx * sin);
                self.lay(px, py, colour, (depth + 0.5).clamp(0.0, 1.0) * cover);
            }
        }
    }
}

/// Lets leaves, snow or stars drift through the picture, more of them towards its border.
pub(super) fn drift(sheet: &mut Sheet<'_>, look: &Look, dice: &mut Dice) {
    let (width, height) = (sheet.size.width as f32, sheet.size.height as f32);
    let unit = (width * height).sqrt() / 1024.0;
    let count = match look.drift {
        Drift::Nothing => 0,
        Drift::Leaves => 34,
        Drift::Petals => 46,
        Drift::Bubbles => 30,
        Drift::Sparks => 90,
        Drift::Stars => 120,
        Drift::Snow => 210,
        Drift::Rain => 170,
    };
    for _ in 0..count {
        // Of two places the one further out: the subject, mostly in the middle, stays clear.
        let mut place = || (dice.unit(), dice.unit());
        let (a, b) = (place(), place());
        let out = |(x, y): (f32, f32)| (x - 0.5).powi(2) + (y - 0.5).powi(2);
        let (x, y) = if out(a) > out(b) { a } else { b };
        let (x, y, angle, big) = (x * width, y * height, dice.between(0.0, std::f32::consts::TAU), dice.unit());
        match look.drift {
            Drift::Nothing => {}
            Drift::Leaves => {
                let long = unit * (11.0 + 19.0 * big * big);
                let body = look.warm[1 + (dice.next() % 3) as usize];
                let vein = body.map(|channel| (u16::from(channel) * 6 / 10) as u8);
                sheet.shape(x, y, long + 1.0, angle, 0.95, |dx, dy| leaf(dx, dy, long, body, vein));
            }
            Drift::Petals => {
                let long = unit * (6.0 + 12.0 * big * big);
                let (body, heart) = (look.warm[3 + (dice.next() % 2) as usize], look.warm[2]);
                sheet.shape(x, y, long + 1.0, angle, 0.9, |dx, dy| leaf(dx, dy * 0.8, long, body, heart));
            }
            Drift::Snow => {
                let radius = unit * (1.2 + 5.5 * big.powi(4));
                let soft = 1.0 + radius * 0.5;
                sheet.shape(x, y, radius + soft, 0.0, 0.9, |dx, dy| {
                    ((radius - (dx * dx + dy * dy).sqrt()) / soft, [255, 255, 255])
                });
            }
            Drift::Stars => {
                let long = unit * (2.0 + 11.0 * big.powi(6));
                let colour = if dice.unit() < 0.25 { look.warm[4] } else { look.cool[4] };
                sheet.shape(x, y * 0.62, long + 1.0, 0.0, 0.95, |dx, dy| {
                    let (dx, dy) = (dx.abs() / long, dy.abs() / long);
                    ((0.75 - dx.sqrt() - dy.sqrt()) * 2.2, colour)
                });
            }
            Drift::Sparks => {
                let long = unit * (1.5 + 6.0 * big * big);
                let colour = look.warm[3 + (dice.next() & 1) as usize];
                sheet.shape(x, y, long * 1.6, 1.2 + angle * 0.08, 0.95, |dx, dy| {
                    (1.6 - dy.abs() * 1.4 - (dx.abs() - long).max(0.0), colour)
                });
            }
            Drift::Rain => {
                let long = unit * (8.0 + 26.0 * big);
                sheet.shape(x, y, long + 1.0, 1.75, 0.34 + 0.2 * big, |dx, dy| {
                    (1.1 - dy.abs() - (dx.abs() - long).max(0.0), look.cool[4])
                });
            }
            Drift::Bubbles => {
                let radius = unit * (4.0 + 20.0 * big * big);
                sheet.shape(x, y, radius + 2.0, 0.0, 0.7, |dx, dy| {
                    let ring = 1.3 - (radius - (dx * dx + dy * dy).sqrt()).abs();
                    let (gx, gy) = (dx + radius * 0.35, dy + radius * 0.35);
                    (ring.max(radius * 0.2 - (gx * gx + gy * gy).sqrt()), look.cool[4])
                });
            }
        }
    }
}

/// A pointed leaf of length `2 · long` with a rib.
fn leaf(dx: f32, dy: f32, long: f32, body: Rgb, rib: Rgb) -> (f32, Rgb) {
    let along = (dx / long).clamp(-1.0, 1.0);
    let half = long * 0.46 * (1.0 - along * along) * (1.0 - along * 0.25);
    let depth = (half - dy.abs()).min(long - dx.abs());
    (depth, if dy.abs() < long * 0.045 + 0.4 { rib } else { body })
}

/// Where the plate lies: left, top, width and height in pixels.
pub(super) fn plate_area(size: Size) -> (u32, u32, u32, u32) {
    let letters = WORD.len() as u32 * 8;
    let scale = (size.width.min(size.height * 2) * 15 / 100 / letters).max(1);
    // The last column of the last letter is empty.
    let (width, height) = ((letters - 1 + 2 * PAD) * scale, (7 + 2 * PAD) * scale);
    let gap = (scale * 5).min(size.width.saturating_sub(width)).min(size.height.saturating_sub(height));
    (size.width.saturating_sub(width + gap), size.height.saturating_sub(height + gap), width, height)
}

/// Writes the word "sandbox" into the lower right corner, dark on light with a dark rim, so that it can be
/// read on any picture.
pub(super) fn plate(sheet: &mut Sheet<'_>) {
    let (left, top, width, height) = plate_area(sheet.size);
    let scale = (height / (7 + 2 * PAD)).max(1);
    let rim = scale.div_ceil(2);
    for y in 0..height {
        for x in 0..width {
            let (to_side, to_end) = (x.min(width - 1 - x), y.min(height - 1 - y));
            // One step off each corner.
            if to_side + to_end < scale {
                continue;
            }
            let border = to_side.min(to_end) < rim;
            let colour = if border || written(x / scale, y / scale) { INK } else { PAPER };
            sheet.lay((left + x) as i32, (top + y) as i32, colour, 1.0);
        }
    }
}

/// Whether the cell of the plate (in units of its scale) belongs to a letter.
fn written(x: u32, y: u32) -> bool {
    let (Some(x), Some(y)) = (x.checked_sub(PAD), y.checked_sub(PAD)) else { return false };
    let letter = WORD.as_bytes().get(x as usize / 8).and_then(|byte| BASIC_LEGACY.get(usize::from(*byte)));
    letter.and_then(|rows| rows.get(y as usize)).is_some_and(|row| row >> (x % 8) & 1 == 1)
}

/// Whether the plate stands in a finished picture: its letters and its paper, pixel by pixel.
#[cfg(test)]
pub(super) fn has_plate(rgb: &[u8], size: Size) -> bool {
    let (left, top, width, height) = plate_area(size);
    let scale = height / (7 + 2 * PAD);
    let pixel = |x: u32, y: u32| {
        let at = ((top + y) as usize * size.width as usize + (left + x) as usize) * 3;
        [rgb[at], rgb[at + 1], rgb[at + 2]]
    };
    let mut letters = 0;
    let right = (2 * scale..height - 2 * scale).all(|y| {
        (2 * scale..width - 2 * scale).all(|x| {
            let ink = written(x / scale, y / scale);
            letters += u32::from(ink);
            pixel(x, y) == if ink { INK } else { PAPER }
        })
    });
    right && letters > 100
}
