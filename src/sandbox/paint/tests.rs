#![allow(clippy::unwrap_used)]

use super::*;

fn order(prompt: &str, seed: i64) -> Order {
    Order { prompt: prompt.into(), influence: 0.75, steps: 12, fast: true, enhance: false, seed }
}

/// A disc, a bar and a soft ground: 240 × 160.
fn reference() -> RgbImage {
    RgbImage::from_fn(240, 160, |x, y| {
        let (dx, dy) = (f64::from(x) - 80.0, f64::from(y) - 70.0);
        image::Rgb(if dx * dx + dy * dy < 42.0 * 42.0 {
            [240, 230, 210]
        } else if (150..200).contains(&x) && y > 40 {
            [30, 60, 140]
        } else {
            [150, (60 + y / 4) as u8, 40]
        })
    })
}

/// How steep the light is at each place of a grid of 80 × 53 cells.
fn edges(picture: &RgbImage) -> Vec<f64> {
    let (small, from) = (Size { width: 80, height: 53 }, Size { width: picture.width(), height: picture.height() });
    let light: Vec<u8> = canvas::resize(picture.as_raw(), 3, from, small)
        .unwrap()
        .chunks(3)
        .map(|p| strokes::luma(p[0], p[1], p[2]))
        .collect();
    let at = |x: usize, y: usize| f64::from(light[y * 80 + x]);
    let steep = |x: usize, y: usize| (at(x + 1, y) - at(x - 1, y)).hypot(at(x, y + 1) - at(x, y - 1));
    // The plate stands in the last rows; it is no part of the structure.
    (1..46).flat_map(|y| (1..79).map(move |x| (x, y))).map(|(x, y)| steep(x, y)).collect()
}

fn correlation(a: &[f64], b: &[f64]) -> f64 {
    let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len() as f64;
    let (mean_a, mean_b) = (mean(a), mean(b));
    let sum = |f: &dyn Fn(f64, f64) -> f64| a.iter().zip(b).map(|(x, y)| f(x - mean_a, y - mean_b)).sum::<f64>();
    sum(&|x, y| x * y) / (sum(&|x, _| x * x) * sum(&|_, y| y * y)).sqrt()
}

fn plate_is_there(picture: &RgbImage) -> bool {
    marks::has_plate(picture.as_raw(), Size { width: picture.width(), height: picture.height() })
}

#[test]
fn forms_stay_while_colours_change_and_the_plate_is_there() {
    let reference = reference();
    let mirrored = image::imageops::flip_horizontal(&reference);
    for prompt in ["neon night", "watercolour of a winter morning"] {
        let painted = paint(Some(&reference), &order(prompt, 42)).unwrap();
        assert!(plate_is_there(&painted), "{prompt}");
        let (same, other) =
            (correlation(&edges(&painted), &edges(&reference)), correlation(&edges(&painted), &edges(&mirrored)));
        assert!(same > 0.45 && same > other + 0.3, "{prompt}: {same:.2} with the reference, {other:.2} mirrored");

        let from = Size { width: reference.width(), height: reference.height() };
        let to = Size { width: painted.width(), height: painted.height() };
        let large = canvas::resize(reference.as_raw(), 3, from, to).unwrap();
        let apart: u64 = large.iter().zip(painted.as_raw()).map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
        assert!(apart / large.len() as u64 > 30, "{prompt}: the colours are still the reference's");
    }
}

#[test]
fn a_higher_influence_follows_the_reference_more_closely() {
    let reference = reference();
    let likeness = |influence| {
        let order = Order { influence, ..order("forest", 5) };
        correlation(&edges(&paint(Some(&reference), &order).unwrap()), &edges(&reference))
    };
    let (loose, close) = (likeness(0.0), likeness(1.0));
    assert!(close > loose + 0.1, "{close:.2} at 1, {loose:.2} at 0");
}

#[test]
fn a_seed_repeats_its_picture_and_another_seed_does_not() {
    for reference in [Some(reference()), None] {
        let paint = |seed| paint(reference.as_ref(), &order("autumn", seed)).unwrap();
        let first = paint(42);
        assert!(first == paint(42), "the same seed");
        assert!(first != paint(43), "another seed");
    }
}

#[test]
fn pictures_of_any_shape_become_a_picture_with_a_plate() {
    for (width, height) in [(1, 1), (3000, 2), (2, 3000)] {
        let painted = paint(Some(&RgbImage::new(width, height)), &order("oil", 1)).unwrap();
        assert_eq!(
            (painted.width(), painted.height()),
            match width {
                1 => (1024, 1024),
                2 => (96, 4096),
                _ => (4096, 96),
            }
        );
        assert!(plate_is_there(&painted), "{width}×{height}");
    }
}

#[test]
fn every_medium_and_all_that_drifts_leaves_the_plate_readable() {
    let prompts = ["poster rain", "oil fire", "pencil stars", "underwater", "sakura", "autumn"];
    for prompt in prompts {
        assert!(plate_is_there(&paint(None, &order(prompt, 3)).unwrap()), "{prompt}");
    }
}
