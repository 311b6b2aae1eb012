//! A landscape for prompts that come without a reference: sky, sun, ridges behind one another, and
//! sometimes water. Seed and prompt decide where everything stands.

use super::canvas::{PaintError, Size};
use super::noise::{Dice, field, ridge};

/// The planes of light and warmth (0–255) of a landscape.
pub(super) fn landscape(size: Size, dice: &mut Dice) -> Result<(Vec<u8>, Vec<u8>), PaintError> {
    let (width, height) = (size.width as usize, size.height as usize);
    let clouds = field(Size { width: size.width, height: size.height * 4 }, 7, dice)?;
    let horizon = dice.between(0.5, 0.64) * height as f32;
    let sun = (dice.between(0.2, 0.8) * width as f32, horizon * dice.between(0.4, 0.78));
    let disc = height as f32 * dice.between(0.075, 0.125);

    let mut light = vec![0_u8; size.area()];
    let mut warm = vec![0_u8; size.area()];
    for y in 0..height {
        let down = (y as f32 / horizon).min(1.0);
        for x in 0..width {
            let at = y * width + x;
            let (dx, dy) = (x as f32 - sun.0, y as f32 - sun.1);
            let far = (dx * dx + dy * dy).sqrt();
            let glow = (1.0 - far / (height as f32 * 0.62)).max(0.0);
            let cloud = (f32::from(clouds[(y * 4 % (height * 4)) * width + x]) - 128.0) / 128.0;
            let sky = 66.0 + 92.0 * down + 92.0 * glow * glow + cloud * 20.0 * (0.3 + down);
            light[at] = if far < disc { 250 } else { sky.clamp(0.0, 238.0) as u8 };
            warm[at] = (50.0 + 90.0 * down + 150.0 * glow + cloud * 24.0).clamp(0.0, 255.0) as u8;
        }
    }

    let layers = 4 + (dice.next() % 2) as usize;
    for layer in 0..layers {
        let near = layer as f32 / (layers - 1) as f32;
        let heights = ridge(width, 2.0 + 3.0 * (1.0 - near), dice);
        let foot = horizon + (height as f32 - horizon) * near * 0.78;
        let rise = height as f32 * (0.30 - 0.12 * near);
        let tone = 168.0 - 134.0 * near;
        let warmth = 196.0 - 120.0 * near + dice.between(-18.0, 18.0);
        let trees = (layer + 1 == layers).then(|| firs(width, height as f32 * 0.11, dice));
        for x in 0..width {
            let mut top = foot - (heights[x] - 0.25) * rise;
            if let Some(trees) = &trees {
                top -= trees[x];
            }
            let lit = if x + 2 < width { (heights[x + 2] - heights[x]) * rise * 9.0 } else { 0.0 };
            // Light falls from the side where the sun stands.
            let lit = if (x as f32) < sun.0 { -lit } else { lit };
            for y in top.max(0.0) as usize..height {
                let at = y * width + x;
                let deep = ((y as f32 - top) / (height as f32 * 0.3)).min(1.0);
                let haze = deep * 34.0 * (1.0 - near);
                let slope = lit.clamp(-14.0, 14.0) * (1.0 - deep * 4.0).max(0.0);
                light[at] = (tone + slope + haze).clamp(8.0, 240.0) as u8;
                warm[at] = (warmth - haze).clamp(0.0, 255.0) as u8;
            }
        }
    }
    Ok((light, warm))
}

/// How high fir trees stand over each column, in pixels.
fn firs(width: usize, tallest: f32, dice: &mut Dice) -> Vec<f32> {
    let mut over = vec![0.0_f32; width];
    for _ in 0..width / 9 {
        let (at, height) = (dice.unit() * width as f32, tallest * dice.between(0.35, 1.0));
        let half = height * dice.between(0.16, 0.24);
        let from = (at - half).max(0.0) as usize;
        for (x, over) in over.iter_mut().enumerate().skip(from).take((half * 2.0) as usize + 2) {
            let part = 1.0 - (x as f32 - at).abs() / half;
            if part > 0.0 {
                // Steps, as boughs make them.
                *over = over.max(height * (part * 0.8 + (part * 5.0).floor() / 5.0 * 0.2));
            }
        }
    }
    over
}
