//! From a photograph to brushed planes: the painterly filter, lines, and tones.
//!
//! Works on small planes (see [`Size::of_work`]), so that a picture takes a fraction of a second even
//! without optimisation. Promises to keep edges where they are; how far forms may wander is the caller's.

use super::canvas::{self, PaintError, Size};

/// A Kuwahara filter on RGB: each pixel takes the mean of the calmest of the four squares around it.
/// Leaves edges, flattens the rest into strokes of about `radius` pixels.
pub(super) fn brush(rgb: &[u8], size: Size, radius: usize) -> Vec<u8> {
    let (width, height) = (size.width as usize, size.height as usize);
    let sums = Sums::of(rgb, width, height);
    let mut out = Vec::with_capacity(rgb.len());
    for y in 0..height {
        let rows = [(y.saturating_sub(radius), y + 1), (y, (y + radius + 1).min(height))];
        for x in 0..width {
            let columns = [(x.saturating_sub(radius), x + 1), (x, (x + radius + 1).min(width))];
            let (mut calmest, mut mean) = (u64::MAX, [0; 3]);
            for (top, bottom) in rows {
                for (left, right) in columns {
                    let [light, squares, red, green, blue] = sums.within(left, top, right, bottom);
                    let n = ((right - left) * (bottom - top)) as u64;
                    let (light, squares) = (u64::from(light), u64::from(squares));
                    let unrest = (squares * n).saturating_sub(light * light) / (n * n);
                    if unrest < calmest {
                        calmest = unrest;
                        let n = n as u32;
                        mean = [(red / n) as u8, (green / n) as u8, (blue / n) as u8];
                    }
                }
            }
            out.extend_from_slice(&mean);
        }
    }
    out
}

/// Running sums, so that the sum of any rectangle takes four looks. They may wrap around: differences of
/// rectangles below 66,000 pixels are right all the same.
struct Sums {
    stride: usize,
    table: Vec<[u32; 5]>,
}

impl Sums {
    fn of(rgb: &[u8], width: usize, height: usize) -> Self {
        let stride = width + 1;
        let mut table = vec![[0_u32; 5]; stride * (height + 1)];
        for y in 0..height {
            let mut row = [0_u32; 5];
            for x in 0..width {
                let at = (y * width + x) * 3;
                let light = u32::from(luma(rgb[at], rgb[at + 1], rgb[at + 2]));
                let pixel = [light, light * light, u32::from(rgb[at]), u32::from(rgb[at + 1]), u32::from(rgb[at + 2])];
                let above = table[y * stride + x + 1];
                let cell = &mut table[(y + 1) * stride + x + 1];
                for channel in 0..5 {
                    row[channel] = row[channel].wrapping_add(pixel[channel]);
                    cell[channel] = above[channel].wrapping_add(row[channel]);
                }
            }
        }
        Self { stride, table }
    }

    fn within(&self, left: usize, top: usize, right: usize, bottom: usize) -> [u32; 5] {
        let a = &self.table[top * self.stride + left];
        let b = &self.table[top * self.stride + right];
        let c = &self.table[bottom * self.stride + left];
        let d = &self.table[bottom * self.stride + right];
        let sum = |i: usize| d[i].wrapping_sub(b[i]).wrapping_sub(c[i]).wrapping_add(a[i]);
        [sum(0), sum(1), sum(2), sum(3), sum(4)]
    }
}

/// How bright a colour looks, 0–255.
pub(super) fn luma(red: u8, green: u8, blue: u8) -> u8 {
    ((u32::from(red) * 77 + u32::from(green) * 150 + u32::from(blue) * 29) >> 8) as u8
}

/// Lets forms wander: each pixel comes from a place that `across` and `down` (128 is none) push away by
/// at most `reach` pixels.
pub(super) fn wander(rgb: &[u8], size: Size, across: &[u8], down: &[u8], reach: f32) -> Vec<u8> {
    let (width, height) = (size.width as i32, size.height as i32);
    let scale = (reach * 2.0) as i32;
    let mut out = Vec::with_capacity(rgb.len());
    for y in 0..height {
        for x in 0..width {
            let at = (y * width + x) as usize;
            let from_x = (x + (i32::from(across[at]) - 128) * scale / 256).clamp(0, width - 1);
            let from_y = (y + (i32::from(down[at]) - 128) * scale / 256).clamp(0, height - 1);
            let from = ((from_y * width + from_x) * 3) as usize;
            out.extend_from_slice(&rgb[from..from + 3]);
        }
    }
    out
}

/// The two planes that the palette is laid over: how light, and how warm (against the rest of the picture).
pub(super) fn tones(rgb: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let light: Vec<u8> = rgb.chunks_exact(3).map(|p| luma(p[0], p[1], p[2])).collect();
    // Red against blue, -255..=255, moved into 0..=255.
    let warm: Vec<u8> =
        rgb.chunks_exact(3).map(|p| i32::midpoint(i32::from(p[0]) - i32::from(p[2]), 255) as u8).collect();
    // A picture of one mood must not be torn apart: below 48 steps the difference is not stretched fully.
    (levels(&light, 90, 1.0), levels(&warm, 48, 0.0))
}

/// Stretches a plane to its full range, but as if it spanned at least `least` steps; with `middle` the
/// middle tone is led towards the middle too.
fn levels(plane: &[u8], least: u32, middle: f32) -> Vec<u8> {
    let mut histogram = [0_u32; 256];
    for value in plane {
        histogram[usize::from(*value)] += 1;
    }
    let rank = |part: f32| {
        let goal = (plane.len() as f32 * part) as u32;
        let mut seen = 0;
        (0..256_u32).find(|i| {
            seen += histogram[*i as usize];
            seen > goal
        })
    };
    let (low, mid, high) = (rank(0.01).unwrap_or(0), rank(0.5).unwrap_or(128), rank(0.99).unwrap_or(255));
    let span = (high - low).max(least) as f32;
    let start = (low + high) as f32 / 2.0 - span / 2.0;
    let within = |value: u32| ((value as f32 - start) / span).clamp(0.0, 1.0);
    let bend = if middle > 0.0 { (0.46_f32.ln() / within(mid).clamp(0.12, 0.9).ln()).clamp(0.6, 1.35) } else { 1.0 };
    let bend = 1.0 + (bend - 1.0) * middle;
    let table: Vec<u8> = (0..256).map(|value| (within(value).powf(bend) * 255.0) as u8).collect();
    plane.iter().map(|value| table[usize::from(*value)]).collect()
}

/// What is finer than the brush: how much lighter (above 128) or darker each pixel is than its surroundings.
pub(super) fn detail(rgb: &[u8], size: Size) -> Result<Vec<u8>, PaintError> {
    let light: Vec<u8> = rgb.chunks_exact(3).map(|p| luma(p[0], p[1], p[2])).collect();
    let around = canvas::blur(&light, size, 5)?;
    Ok(light.iter().zip(&around).map(|(a, b)| (128 + i32::from(*a) - i32::from(*b)).clamp(0, 255) as u8).collect())
}

/// Gives [`detail`] back to a plane. Small differences, which are noise, stay away.
pub(super) fn sharpen(plane: &mut [u8], detail: &[u8], strength: f32) {
    let table: Vec<i32> = (0..256_i32)
        .map(|value| {
            let step = value - 128;
            ((step.abs() - 3).max(0) as f32 * step.signum() as f32 * strength * 1.5).clamp(-90.0, 90.0) as i32
        })
        .collect();
    for (value, fine) in plane.iter_mut().zip(detail) {
        *value = (i32::from(*value) + table[usize::from(*fine)]).clamp(0, 255) as u8;
    }
}

/// Where lines are, 0–255: the slope of `plane` (Sobel), nothing below `low`, all at `high`.
pub(super) fn lines(plane: &[u8], size: Size, low: i32, high: i32) -> Vec<u8> {
    let (width, height) = (size.width as usize, size.height as usize);
    let mut out = vec![0; plane.len()];
    for y in 1..height.saturating_sub(1) {
        for x in 1..width.saturating_sub(1) {
            let at = y * width + x;
            let p = |offset: usize| i32::from(plane[offset]);
            let (up, down) = (at - width, at + width);
            let right = p(up + 1) + 2 * p(at + 1) + p(down + 1) - p(up - 1) - 2 * p(at - 1) - p(down - 1);
            let below = p(down - 1) + 2 * p(down) + p(down + 1) - p(up - 1) - 2 * p(up) - p(up + 1);
            // The larger and half of the smaller one: a root without the root.
            let (right, below) = (right.abs(), below.abs());
            let slope = right.max(below) + right.min(below) / 2;
            out[at] = ((slope - low) * 255 / (high - low).max(1)).clamp(0, 255) as u8;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: Size = Size { width: 40, height: 20 };

    /// Dark on the left, light on the right, with a little noise.
    fn halves() -> Vec<u8> {
        (0..SIZE.area()).flat_map(|i| [if i % 40 < 20 { 40 } else { 200 } + (i * 7 % 11) as u8; 3]).collect()
    }

    #[test]
    fn brushing_calms_planes_and_keeps_the_edge() {
        let out = brush(&halves(), SIZE, 3);
        let row: Vec<u8> = out[40 * 3 * 10..40 * 3 * 11].iter().step_by(3).copied().collect();
        assert!(row[..20].iter().all(|v| (40..52).contains(v)), "{row:?}");
        assert!(row[20..].iter().all(|v| (200..212).contains(v)), "{row:?}");
    }

    #[test]
    fn lines_stand_on_the_edge_alone() {
        let plane: Vec<u8> = halves().into_iter().step_by(3).collect();
        let lines = lines(&plane, SIZE, 200, 400);
        let row = &lines[40 * 10..40 * 11];
        assert_eq!((row[19], row[20]), (255, 255));
        assert!(row[..18].iter().chain(&row[22..]).all(|v| *v == 0), "{row:?}");
    }

    #[test]
    fn without_a_push_nothing_wanders() {
        let still = vec![128; SIZE.area()];
        assert_eq!(wander(&halves(), SIZE, &still, &still, 9.0), halves());
    }

    #[test]
    fn one_flat_colour_has_tones_in_the_middle() {
        let (light, warm) = tones(&[90; 300]);
        assert!(light.iter().chain(&warm).all(|v| (90..170).contains(v)), "{light:?}");
    }
}
