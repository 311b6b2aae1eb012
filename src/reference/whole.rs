//! Is a picture structurally whole?
//!
//! Promises: the answer is [`Whole::Whole`] only if the picture's own structure runs to its end inside the
//! file; a file that is still being written is [`Whole::Cut`], also where its writer reserved the room and
//! the rest is still zeros. Work and memory are bounded, whatever the file claims.
//! It does not decode: damage within the pixels is found by [`prepare`](super::prepare()), as far as it must be.

use std::fmt;
use std::io;

use super::formats::{Stop, bmp, gif, jpeg, png, tiff, webp};
use super::source::{Scan, Source};

/// What a picture is by its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// JPEG.
    Jpeg,
    /// PNG, animated or not.
    Png,
    /// WebP, animated or not.
    WebP,
    /// TIFF, either byte order.
    Tiff,
    /// Windows bitmap.
    Bmp,
    /// GIF, animated or not.
    Gif,
}

impl Format {
    /// The media type, as in a `data:` URI.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Jpeg => "image/jpeg",
            Self::Png => "image/png",
            Self::WebP => "image/webp",
            Self::Tiff => "image/tiff",
            Self::Bmp => "image/bmp",
            Self::Gif => "image/gif",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Jpeg => "JPEG",
            Self::Png => "PNG",
            Self::WebP => "WebP",
            Self::Tiff => "TIFF",
            Self::Bmp => "BMP",
            Self::Gif => "GIF",
        })
    }
}

/// How far a picture's structure goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whole {
    /// All of it is there.
    Whole {
        /// What it is.
        format: Format,
        /// Where the picture ends, in bytes from the start. What lies behind is never sent.
        end: u64,
    },
    /// The structure runs out: not finished yet, or cut off.
    Cut {
        /// What it is, or begins like.
        format: Format,
    },
    /// It contradicts itself; more bytes can't make it whole.
    Broken {
        /// What it is.
        format: Format,
        /// What is wrong, for a person.
        why: String,
    },
    /// Not a picture of a known kind, by its bytes.
    Unknown {
        /// What it seems to be, for a person.
        why: String,
    },
    /// Nothing is written yet: no bytes, or only zeros where a picture's head would be.
    Empty,
}

/// The bytes that [`sniff`] wants to see.
const HEAD: usize = 16;

/// The kind of picture that begins with `head` (16 bytes suffice); `None` if it is none that we take.
pub fn sniff(head: &[u8]) -> Option<Format> {
    let bmp_header = head.get(14..18).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    match head {
        [0xff, 0xd8, 0xff, ..] => Some(Format::Jpeg),
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Some(Format::Png),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some(Format::WebP),
        [b'I', b'I', 42 | 43, 0, ..] | [b'M', b'M', 0, 42 | 43, ..] => Some(Format::Tiff),
        [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Some(Format::Gif),
        // Two letters are little; the reserved fields and the header's size must fit too where they are seen.
        [b'B', b'M', _, _, _, _, _, _, _, _, _, _, _, 0, ..] if bmp_header.is_none_or(bmp::known_header) => {
            Some(Format::Bmp)
        }
        _ => None,
    }
}

/// Names what `head` is where it is something that people mistake for a picture we take.
fn other(head: &[u8]) -> Option<&'static str> {
    match head {
        [_, _, _, _, b'f', b't', b'y', b'p', brand @ ..] => Some(match brand.get(..4) {
            Some(b"avif" | b"avis") => "an AVIF picture",
            Some(b"heic" | b"heix" | b"hevc" | b"hevx" | b"heim" | b"heis" | b"mif1" | b"msf1") => "a HEIC picture",
            Some(b"crx ") => "a Canon raw picture",
            _ => "a video",
        }),
        [b'%', b'P', b'D', b'F', ..] => Some("a PDF document"),
        [b'8', b'B', b'P', b'S', ..] => Some("a Photoshop document"),
        [0xff, 0x0a, ..] | [0, 0, 0, 12, b'J', b'X', b'L', b' ', ..] => Some("a JPEG XL picture"),
        [0, 0, 0, 12, b'j', b'P', b' ', b' ', ..] => Some("a JPEG 2000 picture"),
        [b'P', b'K', 3, 4, ..] => Some("a ZIP archive or an office document"),
        [0x1a, 0x45, 0xdf, 0xa3, ..] => Some("a video"),
        [b'<', b's', b'v', b'g', ..] | [b'<', b'?', b'x', b'm', b'l', ..] => Some("an SVG or XML file"),
        [b'<', ..] => Some("a web page"),
        _ => None,
    }
}

/// The kind that a head too short to say may still become.
fn may_become(head: &[u8]) -> Option<Format> {
    const MAGICS: [(&[u8], Format); 8] = [
        (b"\xff\xd8\xff", Format::Jpeg),
        (b"\x89PNG\r\n\x1a\n", Format::Png),
        (b"II*\0", Format::Tiff),
        (b"MM\0*", Format::Tiff),
        (b"GIF89a", Format::Gif),
        (b"GIF87a", Format::Gif),
        (b"RIFF", Format::WebP),
        (b"BM", Format::Bmp),
    ];
    let fits = |magic: &[u8]| magic.starts_with(head);
    let riff = head.len() < 12 && head.starts_with(b"RIFF") && b"WEBP".starts_with(head.get(8..).unwrap_or_default());
    let bmp = head.len() < 14 && head.starts_with(b"BM");
    if riff {
        return Some(Format::WebP);
    }
    if bmp {
        return Some(Format::Bmp);
    }
    MAGICS.iter().find(|(magic, _)| fits(magic)).map(|(_, format)| *format)
}

/// Says whether the picture in `source` is whole, and where it ends. Reads by position and through a small
/// buffer. An error is one of reading; it carries no path, since only the caller knows it.
pub fn check(source: &dyn Source) -> io::Result<Whole> {
    let mut scan = Scan::new(source)?;
    let head = scan.rest(0)?;
    let head = head[..head.len().min(HEAD + 2)].to_vec();
    if head.iter().all(|b| *b == 0) {
        return Ok(Whole::Empty);
    }
    let Some(format) = sniff(&head) else {
        return Ok(match may_become(&head) {
            Some(format) => Whole::Cut { format },
            None => Whole::Unknown {
                why: match other(&head) {
                    Some(what) => format!("its bytes are those of {what}"),
                    None => "its bytes are not those of a picture".into(),
                },
            },
        });
    };
    let end = match format {
        Format::Jpeg => jpeg::walk(&mut scan, |_, _| Ok(())),
        Format::Png => png::walk(&mut scan, |_, _| Ok(())),
        Format::WebP => webp::walk(&mut scan, |_, _| Ok(())),
        Format::Tiff => tiff::walk(&mut scan).map(|pages| pages.end),
        Format::Bmp => bmp::read(&mut scan).map(|header| header.end),
        Format::Gif => gif::walk(&mut scan).map(|gif| gif.end),
    };
    Ok(match end {
        Ok(end) => Whole::Whole { format, end },
        Err(Stop::Cut) => Whole::Cut { format },
        Err(Stop::Broken(why)) => Whole::Broken { format, why: why.into() },
        Err(Stop::Io(e)) => return Err(e),
    })
}
