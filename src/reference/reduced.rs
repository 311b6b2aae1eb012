//! JPEGs that a decoder makes smaller while it decodes.
//!
//! A JPEG is coded in blocks of 8 × 8 pixels, of which a decoder can work out 4 × 4, 2 × 2 or one instead. Where a
//! picture is going to be scaled down to less than half, or is decoded only to see that it can be, that takes a
//! fraction of the memory and less time than all of its pixels would.

use std::io::BufReader;

use jpeg_decoder::{Decoder, PixelFormat};

use super::formats::Survey;
use super::pixels::{Decoded, Pixels, fits};
use super::source::Source;
use super::whole::Format;

/// How large a JPEG comes out of the decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reduced {
    pub(super) width: u32,
    pub(super) height: u32,
}

impl Reduced {
    /// The smallest that the decoder can make of it with a long edge of at least `edge`, if that is smaller than it is.
    /// Pictures of four colours, or of colours that are said in an unusual way, are left to the other decoder.
    pub(super) fn of(format: Format, survey: &Survey, edge: u32) -> Option<Self> {
        if format != Format::Jpeg || !survey.reducible {
            return None;
        }
        let long = survey.width.max(survey.height);
        let eighths = [1, 2, 4].into_iter().find(|eighths| part(long, *eighths) >= edge)?;
        Some(Self { width: part(survey.width, eighths), height: part(survey.height, eighths) })
    }

    /// The smallest that there is, for a picture whose pixels are not needed.
    pub(super) fn to_check(format: Format, survey: &Survey) -> Option<Self> {
        Self::of(format, survey, 1)
    }

    /// Decodes `source` to this size. The error is for a person.
    pub(super) fn decode(self, source: &dyn Source, survey: &Survey) -> Result<Decoded, String> {
        let input = BufReader::with_capacity(64 * 1024, survey.pieces.reader(source));
        let mut decoder = Decoder::new(input);
        let said = |e: jpeg_decoder::Error| e.to_string();
        decoder.read_info().map_err(said)?;
        let info = decoder.info().ok_or("it does not say its size")?;
        if (u32::from(info.width), u32::from(info.height)) != (survey.width, survey.height) {
            return Err("it contradicts itself about its size".into());
        }
        let channels = match info.pixel_format {
            PixelFormat::L8 => 1,
            PixelFormat::RGB24 => 3,
            PixelFormat::L16 | PixelFormat::CMYK32 => return Err("its colours are of another kind".into()),
        };
        // It looks for the smallest whose width or whose height is not below what is asked for: the long edge counts.
        let edge = |edge: u32, counts: bool| if counts { edge as u16 } else { u16::MAX };
        let wide = survey.width >= survey.height;
        let size = decoder.scale(edge(self.width, wide), edge(self.height, !wide)).map_err(said)?;
        if (u32::from(size.0), u32::from(size.1)) != (self.width, self.height) {
            return Err("it came out in another size".into());
        }
        decoder.set_max_decoding_buffer_size(usize::try_from(self.output(survey)).unwrap_or(usize::MAX));
        let data = decoder.decode().map_err(said)?;
        let profile = decoder.icc_profile().filter(|profile| fits(profile, channels));
        let pixels = Pixels { width: self.width, height: self.height, channels, data };
        if pixels.data.len() as u64 != super::formats::area(self.width, self.height) * u64::from(channels) {
            return Err("it came out in another size".into());
        }
        Ok(Decoded { pixels, profile })
    }

    /// Bytes of what comes out, at the most.
    pub(super) fn output(self, survey: &Survey) -> u64 {
        let channels = survey.output / super::formats::area(survey.width, survey.height).max(1);
        super::formats::area(self.width, self.height) * channels
    }
}

fn part(edge: u32, eighths: u32) -> u32 {
    (edge * eighths).div_ceil(8)
}
