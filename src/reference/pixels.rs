//! Decoded pixels: 8 bits, one to four channels, in as few copies as possible.
//!
//! Promises: the size and cost are checked against the survey before anything is allocated, because `image`
//! keeps no limits on this path. Scaling comes before turning, so that the small picture is turned.

use std::io::BufReader;

use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::{U8, U8x2, U8x3, U8x4};
use fast_image_resize::{MulDiv, PixelTrait, ResizeOptions, Resizer};
use image::codecs::{bmp, gif, jpeg, png, tiff, webp};
use image::metadata::Orientation;
use image::{ColorType, DynamicImage, ImageBuffer, ImageDecoder, ImageResult, Limits};

use super::formats::Survey;
use super::source::Source;
use super::whole::Format;

/// A picture of 8 bits a channel: grey, grey and alpha, RGB or RGBA.
#[derive(Clone)]
pub(super) struct Pixels {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) channels: u8,
    pub(super) data: Vec<u8>,
}

/// Pixels with the colour profile that belongs to them.
pub(super) struct Decoded {
    pub(super) pixels: Pixels,
    pub(super) profile: Option<Vec<u8>>,
}

/// Decodes what `survey` found. The error is for a person.
pub(super) fn decode(source: &dyn Source, format: Format, survey: &Survey) -> Result<Decoded, String> {
    let input = BufReader::with_capacity(64 * 1024, survey.pieces.reader(source));
    let limits = |bytes: u64| {
        let mut limits = Limits::no_limits();
        limits.max_alloc = Some(bytes);
        limits
    };
    let decoded = match format {
        Format::Jpeg => jpeg::JpegDecoder::new(input).map(|d| read(d, survey)),
        // The limit is for what stands beside the pixels: rows, a packed profile.
        Format::Png => png::PngDecoder::with_limits(input, limits(64 << 20)).map(|d| read(d, survey)),
        Format::WebP => webp::WebPDecoder::new(input).map(|d| read(d, survey)),
        Format::Bmp => bmp::BmpDecoder::new(input).map(|d| read(d, survey)),
        Format::Gif => gif::GifDecoder::new(input).map(|d| read(d, survey)),
        Format::Tiff => tiff::TiffDecoder::new(input).and_then(|mut d| {
            // Its limits are made for pixels, and a profile may be larger than those of a small picture.
            let profile = profile(&mut d, survey);
            d.set_limits(limits(survey.output.saturating_add(survey.beside).saturating_add(16 << 20)))?;
            Ok(read_pixels(d, survey, profile))
        }),
    };
    decoded.and_then(|d| d).map_err(|e| e.to_string())
}

fn read<D: ImageDecoder>(mut decoder: D, survey: &Survey) -> ImageResult<Decoded> {
    let profile = profile(&mut decoder, survey);
    read_pixels(decoder, survey, profile)
}

fn profile(decoder: &mut impl ImageDecoder, survey: &Survey) -> Option<Vec<u8>> {
    if survey.foreign_colours { None } else { decoder.icc_profile().ok().flatten() }
}

fn read_pixels(decoder: impl ImageDecoder, survey: &Survey, profile: Option<Vec<u8>>) -> ImageResult<Decoded> {
    let (width, height) = decoder.dimensions();
    let (colour, bytes) = (decoder.color_type(), decoder.total_bytes());
    if (width, height) != (survey.width, survey.height) || bytes > survey.output {
        return Err(image::ImageError::IoError(std::io::Error::other("it contradicts itself about its size")));
    }
    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    let mut data = Vec::new();
    data.try_reserve_exact(bytes).map_err(|e| image::ImageError::IoError(std::io::Error::other(e)))?;
    data.resize(bytes, 0);
    decoder.read_image(&mut data)?;
    to_8_bits(&mut data, colour);
    let pixels = Pixels { width, height, channels: colour.channel_count(), data };
    Ok(Decoded { profile: profile.filter(|p| fits(p, pixels.channels)), pixels })
}

/// Whether a colour profile is for pixels of so many channels.
pub(super) fn fits(profile: &[u8], channels: u8) -> bool {
    match profile.get(16..20) {
        Some(b"RGB ") => channels >= 3,
        Some(b"GRAY") => channels < 3,
        _ => false,
    }
}

/// Makes 8-bit samples of deeper ones, in place.
fn to_8_bits(data: &mut Vec<u8>, colour: ColorType) {
    let width = usize::from(colour.bytes_per_pixel() / colour.channel_count());
    if width == 1 {
        return;
    }
    let samples = data.len() / width;
    for n in 0..samples {
        let sample = &data[n * width..(n + 1) * width];
        data[n] = match *sample {
            [a, b] => ((u32::from(u16::from_ne_bytes([a, b])) * 255 + 32_895) >> 16) as u8,
            [a, b, c, d] => (f32::from_ne_bytes([a, b, c, d]).clamp(0.0, 1.0) * 255.0).round() as u8,
            _ => 0,
        };
    }
    data.truncate(samples);
    data.shrink_to_fit();
}

impl Pixels {
    pub(super) fn has_alpha(&self) -> bool {
        matches!(self.channels, 2 | 4)
    }

    pub(super) fn long_edge(&self) -> u32 {
        self.width.max(self.height)
    }

    /// Takes an alpha channel away that hides nothing.
    pub(super) fn drop_idle_alpha(&mut self) {
        let channels = usize::from(self.channels);
        if !self.has_alpha() || self.data.chunks_exact(channels).any(|p| p[channels - 1] != 255) {
            return;
        }
        let kept = channels - 1;
        let count = self.data.len() / channels;
        for n in 0..count {
            self.data.copy_within(n * channels..n * channels + kept, n * kept);
        }
        self.data.truncate(count * kept);
        self.channels -= 1;
    }

    /// Lays what is transparent on white.
    pub(super) fn flatten(&mut self) {
        if !self.has_alpha() {
            return;
        }
        let channels = usize::from(self.channels);
        for pixel in self.data.chunks_exact_mut(channels) {
            let alpha = u32::from(pixel[channels - 1]);
            for sample in &mut pixel[..channels - 1] {
                *sample = ((u32::from(*sample) * alpha + 255 * (255 - alpha) + 127) / 255) as u8;
            }
            pixel[channels - 1] = 255;
        }
        self.drop_idle_alpha();
    }

    /// Whether a PNG is the better home: drawings have few colours, photographs have many.
    pub(super) fn looks_drawn(&self) -> bool {
        let most = if self.channels < 3 { 32 } else { 256 };
        let mut colours = std::collections::HashSet::new();
        let mut last: &[u8] = &[];
        self.data.chunks_exact(usize::from(self.channels)).all(|pixel| {
            // Few colours mean long runs: those are passed over quickly, since a drawing is looked at to its end.
            if pixel != last {
                colours.insert(pixel);
                last = pixel;
            }
            colours.len() <= most
        })
    }

    /// The picture with a long edge of `edge` pixels; as it is if it is not longer. What was larger is freed.
    pub(super) fn scale_down(self, edge: u32) -> Result<Self, String> {
        let (width, height) = scaled(self.width, self.height, edge);
        self.scale_to(width, height)
    }

    /// The picture with these edges. What was larger is freed.
    pub(super) fn scale_to(mut self, width: u32, height: u32) -> Result<Self, String> {
        if (width, height) == (self.width, self.height) {
            return Ok(self);
        }
        let mut data = vec![0; width as usize * height as usize * usize::from(self.channels)];
        let small = (width, height, data.as_mut_slice());
        let done = match self.channels {
            1 => self.scale_into::<U8>(small),
            2 => self.scale_into::<U8x2>(small),
            3 => self.scale_into::<U8x3>(small),
            _ => self.scale_into::<U8x4>(small),
        };
        done.map_err(|e| format!("it can't be scaled: {e}"))?;
        Ok(Self { width, height, channels: self.channels, data })
    }

    /// By its kind of pixels, so that nothing of the others is in the program.
    fn scale_into<P: PixelTrait>(
        &mut self,
        (width, height, small): (u32, u32, &mut [u8]),
    ) -> Result<(), Box<dyn std::error::Error>> {
        // Colours of transparent pixels must not bleed; done in place, the resizer would copy everything.
        let alpha = MulDiv::new();
        if self.has_alpha() {
            let mut whole = TypedImage::<P>::from_buffer(self.width, self.height, &mut self.data)?;
            alpha.multiply_alpha_inplace_typed(&mut whole)?;
        }
        let mut small = TypedImage::<P>::from_buffer(width, height, small)?;
        let whole = TypedImageRef::<P>::from_buffer(self.width, self.height, &self.data)?;
        let options = ResizeOptions::new().use_alpha(false);
        Resizer::new().resize_typed(&whole, &mut small, Some(&options))?;
        self.data = Vec::new();
        if self.has_alpha() {
            alpha.divide_alpha_inplace_typed(&mut small)?;
        }
        Ok(())
    }

    /// The picture turned upright.
    pub(super) fn turn(self, orientation: Orientation) -> Self {
        if orientation == Orientation::NoTransforms {
            return self;
        }
        let Self { width, height, channels, data } = self;
        let image = match channels {
            1 => ImageBuffer::from_raw(width, height, data).map(DynamicImage::ImageLuma8),
            2 => ImageBuffer::from_raw(width, height, data).map(DynamicImage::ImageLumaA8),
            3 => ImageBuffer::from_raw(width, height, data).map(DynamicImage::ImageRgb8),
            _ => ImageBuffer::from_raw(width, height, data).map(DynamicImage::ImageRgba8),
        };
        let mut image = image.unwrap_or_default();
        image.apply_orientation(orientation);
        Self { width: image.width(), height: image.height(), channels, data: image.into_bytes() }
    }
}

/// The size with a long edge of at most `edge`, never larger, never 0.
pub(super) fn scaled(width: u32, height: u32, edge: u32) -> (u32, u32) {
    let long = width.max(height);
    if long <= edge {
        return (width, height);
    }
    let side = |n: u32| {
        let half = u64::from(long) / 2;
        ((u64::from(n) * u64::from(edge) + half) / u64::from(long)).max(1) as u32
    };
    (side(width), side(height))
}
