//! Sizes and scaling: how large a picture becomes, and the way there.
//!
//! Promises about one megapixel with the reference's aspect ratio. Very long pictures are held at
//! [`MAX_EDGE`]; then the ratio gives way, because nothing sensible is left of the picture anyway.

use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::{U8, U8x3};
use fast_image_resize::{FilterType, PixelTrait, ResizeAlg, ResizeOptions, Resizer};
use thiserror::Error;

/// Pixels of a result.
pub(super) const AREA: f64 = 1024.0 * 1024.0;
/// The longest edge of a result, in pixels.
pub(super) const MAX_EDGE: u32 = 4096;
/// The shortest edge of a result, in pixels: room for the plate.
pub(super) const MIN_EDGE: u32 = 96;
/// How many pixels of the work size stand for one of the result, along an edge.
const WORK_SCALE: f64 = 0.47;

/// Why a picture could not be painted. A mistake of this room, never of who asked.
#[derive(Debug, Error)]
pub(crate) enum PaintError {
    /// The scaler refused the sizes or the buffer.
    #[error("cannot scale a picture from {from} to {to}: {why}")]
    Scale {
        /// The size before, `W×H`.
        from: String,
        /// The size wanted, `W×H`.
        to: String,
        /// What the scaler says.
        why: String,
    },
    /// The encoder refused the picture.
    #[error("cannot encode the picture: {0}")]
    Encode(#[from] image::ImageError),
}

/// Width and height in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) width: u32,
    pub(super) height: u32,
}

impl Size {
    pub(super) fn area(self) -> usize {
        self.width as usize * self.height as usize
    }

    /// The size of the result for a reference of this size.
    pub(super) fn of_result(self) -> Self {
        let ratio = f64::from(self.width.max(1)) / f64::from(self.height.max(1));
        let edge = |pixels: f64| (pixels.round() as u32).clamp(MIN_EDGE, MAX_EDGE);
        Self { width: edge((AREA * ratio).sqrt()), height: edge((AREA / ratio).sqrt()) }
    }

    /// The smaller size at which shapes are worked out; the result is drawn over it at full size.
    pub(super) fn of_work(self) -> Self {
        let edge = |pixels: u32| ((f64::from(pixels) * WORK_SCALE) as u32).max(8);
        Self { width: edge(self.width), height: edge(self.height) }
    }
}

impl std::fmt::Display for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}×{}", self.width, self.height)
    }
}

/// Scales bytes of one or three channels, softly in both directions.
pub(super) fn resize(bytes: &[u8], channels: usize, from: Size, to: Size) -> Result<Vec<u8>, PaintError> {
    if from == to {
        return Ok(bytes.to_vec());
    }
    let mut target = vec![0; to.width as usize * to.height as usize * channels];
    let scaled = match channels {
        1 => resize_into::<U8>((bytes, from), (&mut target, to)),
        _ => resize_into::<U8x3>((bytes, from), (&mut target, to)),
    };
    scaled.map_err(|why| PaintError::Scale { from: from.to_string(), to: to.to_string(), why: why.to_string() })?;
    Ok(target)
}

fn resize_into<P: PixelTrait>(
    (bytes, from): (&[u8], Size),
    (target, to): (&mut [u8], Size),
) -> Result<(), Box<dyn std::error::Error>> {
    let source = TypedImageRef::<P>::from_buffer(from.width, from.height, bytes)?;
    let mut target = TypedImage::<P>::from_buffer(to.width, to.height, target)?;
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::CatmullRom));
    Ok(Resizer::new().resize_typed(&source, &mut target, &options)?)
}

/// A soft copy of a plane: scaled down by `by` and up again.
pub(super) fn blur(plane: &[u8], size: Size, by: u32) -> Result<Vec<u8>, PaintError> {
    let small = Size { width: (size.width / by).max(1), height: (size.height / by).max(1) };
    resize(&resize(plane, 1, size, small)?, 1, small, size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_has_a_megapixel_and_the_ratio_of_its_reference() {
        for (width, height) in [(600, 400), (451, 300), (1, 1), (4000, 3000), (300, 900), (1024, 1024)] {
            let size = Size { width, height }.of_result();
            let area = size.area() as f64;
            assert!((area / AREA - 1.0).abs() < 0.01, "{width}×{height} → {size}");
            let (before, after) =
                (f64::from(width) / f64::from(height), f64::from(size.width) / f64::from(size.height));
            assert!((before / after - 1.0).abs() < 0.01, "{width}×{height} → {size}");
        }
    }

    #[test]
    fn a_thread_of_a_picture_stays_bounded() {
        let size = Size { width: 16_000, height: 1 }.of_result();
        assert_eq!((size.width, size.height), (MAX_EDGE, MIN_EDGE));
    }
}
