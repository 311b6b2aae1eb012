//! Pictures: the reference seen through the prompt, or a landscape where there is no reference.
//!
//! Promises: the same reference, parameters and seed give the same bytes; another seed gives another
//! picture; the reference's ratio at about one megapixel; forms stay where they were, the closer the
//! higher the influence; the word "sandbox" stands in each of them. Pure, and slow enough (a fraction of
//! a second) to belong on the blocking pool.

#![expect(clippy::cast_possible_wrap, reason = "edges are at most a few thousand pixels")]

mod canvas;
mod look;
mod marks;
mod noise;
mod scene;
mod strokes;

use image::RgbImage;

pub(crate) use canvas::PaintError;
use canvas::Size;
use look::{Look, Medium, Rgb};
use noise::Dice;

/// What a picture is made after. The API's parameters, as far as they show in the picture.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Order {
    /// Without the sandbox's own words.
    pub(crate) prompt: String,
    /// 0–1: how closely the reference is followed.
    pub(crate) influence: f32,
    /// 4–50: how many tones there are.
    pub(crate) steps: u32,
    /// One pass of the brush instead of two.
    pub(crate) fast: bool,
    /// Stronger contrasts.
    pub(crate) enhance: bool,
    /// Shades the palette, moves forms a little, places what drifts.
    pub(crate) seed: i64,
}

/// The planes that a picture is composed of, at one size, 0–255 each.
struct Planes {
    light: Vec<u8>,
    warm: Vec<u8>,
    lines: Vec<u8>,
}

/// Paints. Without a reference the picture is square.
pub(crate) fn paint(reference: Option<&RgbImage>, order: &Order) -> Result<RgbImage, PaintError> {
    let look = Look::of(&order.prompt);
    let text = noise::of_text(&order.prompt);
    let full = match reference {
        Some(picture) => Size { width: picture.width(), height: picture.height() },
        None => Size { width: 1, height: 1 },
    }
    .of_result();
    let work = full.of_work();
    let planes = if let Some(picture) = reference {
        from_reference(picture, work, look.medium, order)?
    } else {
        let (light, warm) = scene::landscape(work, &mut Dice::new(order.seed, text))?;
        let lines = strokes::lines(&light, work, 70, 240);
        Planes { light, warm, lines }
    };
    let planes = air(planes, work, look.medium, order)?;
    let mut rgb = compose(&planes, work, full, &look, order)?;
    let mut sheet = marks::Sheet { rgb: &mut rgb, size: full };
    marks::drift(&mut sheet, &look, &mut Dice::new(order.seed, text ^ 4));
    marks::plate(&mut sheet);
    RgbImage::from_raw(full.width, full.height, rgb).ok_or_else(|| PaintError::Scale {
        from: work.to_string(),
        to: full.to_string(),
        why: "the buffer does not fit the size".into(),
    })
}

fn from_reference(picture: &RgbImage, work: Size, medium: Medium, order: &Order) -> Result<Planes, PaintError> {
    let from = Size { width: picture.width(), height: picture.height() };
    let small = canvas::resize(picture.as_raw(), 3, from, work)?;
    let loose = 1.0 - order.influence.clamp(0.0, 1.0);
    // Long thin pictures have a long work size: strokes and wandering grow with it.
    let unit = work.width.max(work.height) as f32 / 640.0;
    let mut dice = Dice::new(order.seed, 1);
    let (across, down) = (noise::field(work, 22, &mut dice)?, noise::field(work, 22, &mut dice)?);
    let mut rgb = strokes::wander(&small, work, &across, &down, (1.6 + 13.0 * loose * loose) * unit);
    let broad = match medium {
        Medium::Oil => 2.0,
        Medium::Poster | Medium::Watercolour => 1.0,
        Medium::Glow | Medium::Gouache | Medium::Pencil => 0.0,
    };
    let radius = ((2.0 + broad + 6.0 * loose) * unit).round().max(1.0) as usize;
    let fine = strokes::detail(&rgb, work)?;
    for _ in 0..if order.fast { 1 } else { 2 } {
        rgb = strokes::brush(&rgb, work, radius);
    }
    let (mut light, warm) = strokes::tones(&rgb);
    // Whiskers and trusses are thinner than the brush: what it took away comes back, the closer the
    // reference is followed.
    strokes::sharpen(&mut light, &fine, (1.0 - loose * 1.4).max(0.0) * if medium == Medium::Oil { 0.5 } else { 1.0 });
    let (low, high) = (60 + (90.0 * loose) as i32, 230 + (200.0 * loose) as i32);
    let lines = strokes::lines(&light, work, low, high);
    Ok(Planes { light, warm, lines })
}

/// What lies between the eye and the forms: patches of warmth, uneven pigment, darker corners.
fn air(mut planes: Planes, work: Size, medium: Medium, order: &Order) -> Result<Planes, PaintError> {
    let mut dice = Dice::new(order.seed, 2);
    let mood = noise::field(work, 3, &mut dice)?;
    let pigment = noise::field(work, if medium == Medium::Watercolour { 14 } else { 40 }, &mut dice)?;
    let strength = match medium {
        Medium::Watercolour => 40,
        Medium::Oil => 22,
        Medium::Poster => 0,
        Medium::Gouache | Medium::Glow | Medium::Pencil => 10,
    };
    let (width, height) = (work.width as i32, work.height as i32);
    for y in 0..height {
        let dy = (2 * y - height) * 256 / height;
        for x in 0..width {
            let at = (y * width + x) as usize;
            let dx = (2 * x - width) * 256 / width;
            let corner = if medium == Medium::Watercolour { 0 } else { (dx * dx + dy * dy) * 34 / (2 * 65_536) };
            let light = i32::from(planes.light[at]) + (i32::from(pigment[at]) - 128) * strength / 256 - corner;
            planes.light[at] = light.clamp(0, 255) as u8;
            planes.warm[at] = (i32::from(planes.warm[at]) + (i32::from(mood[at]) - 128) * 80 / 256).clamp(0, 255) as u8;
        }
    }
    Ok(planes)
}

/// Lays palette and ink over the planes, at full size: edges between tones and lines come out crisp,
/// because they are cut after the planes are scaled up.
fn compose(planes: &Planes, work: Size, full: Size, look: &Look, order: &Order) -> Result<Vec<u8>, PaintError> {
    let light = canvas::resize(&planes.light, 1, work, full)?;
    let warm = canvas::resize(&planes.warm, 1, work, full)?;
    let lines = canvas::resize(&planes.lines, 1, work, full)?;
    let shine = if look.medium == Medium::Glow {
        let near = canvas::blur(&planes.lines, work, 5)?;
        let far = canvas::blur(&planes.lines, work, 16)?;
        let both: Vec<u8> =
            near.iter().zip(&far).map(|(a, b)| ((u16::from(*a) + u16::from(*b) * 2) / 3) as u8).collect();
        canvas::resize(&both, 1, work, full)?
    } else {
        Vec::new()
    };
    let margin = if look.medium == Medium::Watercolour { margin(work, full, order.seed)? } else { Vec::new() };
    let tones = tone_table(look, order);
    let cuts = ink_table(look.medium);
    let grain = grain(look.medium, order.seed);
    let paper = [0xfd, 0xfa, 0xf2];

    let mut rgb = Vec::with_capacity(full.area() * 3);
    let width = full.width as usize;
    for y in 0..full.height as usize {
        let row = (y & 127) << 7;
        for x in 0..width {
            let at = y * width + x;
            let tone = (i32::from(light[at]) + i32::from(grain[row | (x & 127)])).clamp(0, 255) as usize;
            let mut colour = tones[usize::from(warm[at] >> 3) << 8 | tone];
            let ink = cuts[usize::from(lines[at])];
            if look.medium == Medium::Glow {
                let hot = tones[usize::from((255 - warm[at]) >> 3) << 8 | 0xd6];
                colour = add(colour, hot, shine[at]);
                colour = mix(colour, tones[usize::from(warm[at] >> 3) << 8 | 0xec], ink);
            } else if ink > 0 {
                colour = mix(colour, look.ink, ink);
            }
            if let Some(cover) = margin.get(at) {
                colour = mix(colour, paper, *cover);
            }
            rgb.extend_from_slice(&colour);
        }
    }
    Ok(rgb)
}

fn mix(from: Rgb, to: Rgb, part: u8) -> Rgb {
    let part = i32::from(part);
    let channel = |i: usize| (i32::from(from[i]) + (i32::from(to[i]) - i32::from(from[i])) * part / 255) as u8;
    [channel(0), channel(1), channel(2)]
}

fn add(to: Rgb, glow: Rgb, part: u8) -> Rgb {
    let channel = |i: usize| to[i].saturating_add((u16::from(glow[i]) * u16::from(part) / 255) as u8);
    [channel(0), channel(1), channel(2)]
}

/// The colour of each of 32 warmths × 256 tones.
fn tone_table(look: &Look, order: &Order) -> Vec<Rgb> {
    let mut dice = Dice::new(order.seed, 3);
    let turn = dice.between(-9.0, 9.0).to_radians();
    let bend = dice.between(0.93, 1.08);
    let (levels, hard) = match look.medium {
        Medium::Poster => (4.0, 5.0),
        Medium::Watercolour => (6.0, 1.8),
        Medium::Oil | Medium::Glow => (9.0, 1.3),
        Medium::Gouache => (5.0 + order.steps as f32 / 6.0, 1.9),
        Medium::Pencil => (12.0, 1.0),
    };
    let mut table = Vec::with_capacity(32 * 256);
    for warmth in 0..32 {
        let part = ((warmth as f32 / 31.0 - 0.5) * 1.25 + 0.5).clamp(0.0, 1.0);
        for tone in 0..256 {
            let mut tone = (tone as f32 / 255.0).powf(bend);
            if order.enhance {
                tone = tone + (tone * tone * (3.0 - 2.0 * tone) - tone) * 0.6;
            }
            if look.medium == Medium::Glow {
                // Night: only the lights stay light.
                tone = tone.powf(1.55) * 0.92;
            } else if look.medium == Medium::Watercolour || look.medium == Medium::Pencil {
                tone = 0.16 + tone * 0.84;
            }
            let step = tone * levels;
            let soft = ((step.fract() - 0.5) * hard + 0.5).clamp(0.0, 1.0);
            let soft = soft * soft * (3.0 - 2.0 * soft);
            let tone = ((step.floor() + soft) / levels).clamp(0.0, 1.0);
            let (cool, warm) = (along(&look.cool, tone), along(&look.warm, tone));
            table.push(turned([0, 1, 2].map(|i| cool[i] + (warm[i] - cool[i]) * part), turn));
        }
    }
    table
}

/// The colour at `tone` (0–1) of a ramp.
fn along(ramp: &[Rgb; 5], tone: f32) -> [f32; 3] {
    let at = tone * 4.0;
    let (low, part) = ((at as usize).min(3), at - (at as usize).min(3) as f32);
    [0, 1, 2].map(|i| f32::from(ramp[low][i]) * (1.0 - part) + f32::from(ramp[low + 1][i]) * part)
}

/// The colour with its hue turned by some radians, as bright as before.
fn turned([red, green, blue]: [f32; 3], by: f32) -> Rgb {
    let (sin, cos) = by.sin_cos();
    let grey = 0.299 * red + 0.587 * green + 0.114 * blue;
    let (u, v) = (0.492 * (blue - grey), 0.877 * (red - grey));
    let (u, v) = (u * cos - v * sin, u * sin + v * cos);
    let (red, blue) = (grey + v / 0.877, grey + u / 0.492);
    let green = (grey - 0.299 * red - 0.114 * blue) / 0.587;
    [red, green, blue].map(|channel| channel.round().clamp(0.0, 255.0) as u8)
}

/// How much ink each strength of a line gets.
fn ink_table(medium: Medium) -> Vec<u8> {
    let (from, to, most) = match medium {
        Medium::Gouache => (0.30, 0.72, 0.72),
        Medium::Watercolour => (0.25, 0.9, 0.5),
        Medium::Poster => (0.26, 0.44, 0.96),
        Medium::Oil => (0.5, 1.0, 0.35),
        Medium::Glow => (0.22, 0.62, 0.95),
        Medium::Pencil => (0.10, 0.8, 0.88),
    };
    (0..256)
        .map(|line| {
            let part = ((line as f32 / 255.0 - from) / (to - from)).clamp(0.0, 1.0);
            (part * part * (3.0 - 2.0 * part) * most * 255.0) as u8
        })
        .collect()
}

/// A tile of 128 × 128 steps of tone: the tooth of the paper.
fn grain(medium: Medium, seed: i64) -> Vec<i8> {
    let strength = match medium {
        Medium::Poster | Medium::Glow => 0.0,
        Medium::Gouache => 4.0,
        Medium::Oil => 7.0,
        Medium::Watercolour => 9.0,
        Medium::Pencil => 26.0,
    };
    let mut dice = Dice::new(seed, 5);
    let rough: Vec<f32> = (0..128 * 128).map(|_| dice.unit() - 0.5).collect();
    // The mean of a pixel and two neighbours: grains, not dust. Edges of the tile fit each other.
    (0..128 * 128)
        .map(|i| {
            let (x, y) = (i & 127, i >> 7);
            let sum = rough[i] + rough[y << 7 | (x + 1) & 127] + rough[((y + 1) & 127) << 7 | x];
            (sum / 1.5 * strength) as i8
        })
        .collect()
}

/// How much of the paper shows at each pixel: a ragged white margin.
fn margin(work: Size, full: Size, seed: i64) -> Result<Vec<u8>, PaintError> {
    let mut dice = Dice::new(seed, 6);
    let (wide, fine) = (noise::field(work, 9, &mut dice)?, noise::field(work, 60, &mut dice)?);
    let (width, height) = (work.width as i32, work.height as i32);
    let unit = f64::from(width.min(height)) / 440.0;
    let mut cover = Vec::with_capacity(work.area());
    for y in 0..height {
        for x in 0..width {
            let at = (y * width + x) as usize;
            let inside = x.min(y).min(width - 1 - x).min(height - 1 - y);
            let edge = (i32::from(wide[at]) * 22 + i32::from(fine[at]) * 8) / 256 + 3;
            let depth = f64::from(inside) / unit - f64::from(edge);
            cover.push((255.0 - depth * 110.0).clamp(0.0, 255.0) as u8);
        }
    }
    canvas::resize(&cover, 1, work, full)
}

#[cfg(test)]
mod tests;
