//! The bytes that leave the machine.
//!
//! Promises: what comes out is upright, within the [`Rules`], and holds pixels and a colour profile only
//! (unless the rules keep metadata). Where no pixel has to change, none is encoded anew: the metadata is cut
//! out, and where the picture's structure vouches for its pixels (nothing strange stands in a JPEG, and all its tables are
//! there; each part of a PNG has its sum), none is decoded. Any other is decoded once, so that none is paid for that
//! can't be opened.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use image::metadata::Orientation;
use tempfile::NamedTempFile;

use super::budget::{Budget, Permit};
use super::encode::{Failed, Sink, Written, fit};
use super::formats::{Stop, Survey, area, bmp, gif, jpeg, png, tiff, webp};
use super::pieces::Pieces;
use super::pixels::{Decoded, decode, scaled};
use super::reduced::Reduced;
use super::source::{Scan, Source};
use super::whole::{Format, Whole, check};
use crate::domain::ids::Fingerprint;

/// Pixels that a picture may have.
pub(super) const MAX_PIXELS: u64 = 300_000_000;
/// Pixels that one of its edges may have.
const MAX_EDGE: u32 = 65_500;
/// Bytes that decoding a picture may take.
const MAX_MEMORY: u64 = 1 << 30;
/// Raised when the same picture and rules come to give other bytes.
const RECIPE: u8 = 3;

/// What may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rules {
    /// The longest edge, in pixels. A larger picture is scaled down; none is enlarged.
    pub max_edge: u32,
    /// The largest size, in bytes.
    pub max_bytes: u64,
    /// Take all metadata away but the colour profile. With `false` a picture goes as it is, unless its
    /// pixels have to change (turned, scaled, converted): then the metadata is lost too, but the profile.
    pub strip_metadata: bool,
}

/// A picture that [`check`](super::check) found whole.
#[derive(Clone, Copy, Debug)]
pub struct Original<'a> {
    /// Opened for reading; its cursor is not used.
    pub file: &'a File,
    /// Its path, for messages only.
    pub path: &'a Path,
    /// What it is by its bytes.
    pub format: Format,
    /// Where it ends, in bytes.
    pub end: u64,
}

/// A picture that may be sent.
#[derive(Debug)]
pub struct Prepared {
    /// Its bytes, mode 0600; deleted when dropped.
    pub file: NamedTempFile,
    /// How many bytes.
    pub bytes: u64,
    /// What they are: JPEG, PNG or WebP.
    pub format: Format,
    /// The same as a media type.
    pub media_type: &'static str,
    /// The fingerprint of the prepared bytes.
    pub fingerprint: Fingerprint,
    /// Pixels across, upright.
    pub width: u32,
    /// Pixels down, upright.
    pub height: u32,
    /// What was done to it.
    pub change: Change,
}

/// What was done to a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing: its own bytes, up to the picture's end.
    AsItIs,
    /// Its metadata was cut out; the coded pixels are the original's.
    Stripped,
    /// Its pixels were encoded anew.
    Reencoded(Why),
}

/// Why pixels were encoded anew; the first reason that holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// A format that the service does not take.
    Format,
    /// An animation: its first frame.
    Animation,
    /// CMYK.
    Colours,
    /// 16 bits a channel.
    Depth,
    /// Its EXIF says that it lies on its side.
    Turned,
    /// Longer than the longest edge.
    Scaled,
    /// More than the most bytes.
    Bytes,
}

/// Why a picture can't be prepared.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// It can't be decoded: the picture's own fault.
    #[error("the picture is damaged or of a kind that is not supported: {why}; open it, and save it as JPEG or PNG")]
    Broken {
        /// What the decoder says.
        why: String,
    },
    /// Decoding it would take too much.
    #[error("the picture is too large ({width} × {height} pixels; the limit is {limit})")]
    TooLarge {
        /// Pixels across that it claims.
        width: u32,
        /// Pixels down that it claims.
        height: u32,
        /// What it exceeds.
        limit: &'static str,
    },
    /// It stays too large whatever is tried.
    #[error("the picture has {bytes} bytes at the least, and {max_bytes} are allowed ([reference] max_bytes)")]
    DoesNotFit {
        /// The smallest that was reached, in bytes.
        bytes: u64,
        /// What the rules allow, in bytes.
        max_bytes: u64,
    },
    /// Reading the original or writing the prepared file failed: not the picture's fault.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which file or directory.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
}

/// The fingerprint of a file's bytes, read by position through a small buffer.
pub fn fingerprint(file: &File) -> io::Result<Fingerprint> {
    let mut hasher = blake3::Hasher::new();
    let mut buf = vec![0; 128 * 1024];
    let mut at = 0;
    loop {
        match Source::read_at(file, &mut buf, at)? {
            0 => return Ok(Fingerprint(*hasher.finalize().as_bytes())),
            n => {
                hasher.update(&buf[..n]);
                at += n as u64;
            }
        }
    }
}

/// Files up to this many bytes are read once for all that is to be known of them.
const READ_AT_ONCE: u64 = 1 << 20;

/// [`check`] and [`fingerprint`] of what `check` finds in a small file, from the same bytes; of a larger one the
/// structure alone.
pub fn check_at_once(file: &File) -> io::Result<(Whole, Option<Fingerprint>)> {
    let at_once = look_at_once(file, check_bytes)?;
    at_once.map_or_else(|| Ok((check(file)?, None)), |(whole, print)| Ok((whole, Some(print))))
}

/// [`check_at_once`], and [`strip`] of the same bytes.
pub fn check_and_strip(file: &File, rules: &Rules) -> io::Result<(Whole, Option<Fingerprint>, Option<Stripped>)> {
    let at_once = look_at_once(file, |bytes| {
        let (whole, print) = check_bytes(bytes);
        let stripped = match &whole {
            Whole::Whole { format, end } => strip(bytes, *format, *end, rules),
            _ => None,
        };
        (whole, Some(print), stripped)
    })?;
    at_once.map_or_else(|| Ok((check(file)?, None, None)), Ok)
}

/// Lets `look` see all of a small file; `None` of a larger one.
fn look_at_once<T>(file: &File, look: impl FnOnce(&[u8]) -> T) -> io::Result<Option<T>> {
    let size = file.metadata()?.len();
    if size > READ_AT_ONCE {
        return Ok(None);
    }
    AT_ONCE.with_borrow_mut(|buffer| {
        let size = size as usize;
        if buffer.len() < size {
            *buffer = vec![0; size];
        }
        let mut got = 0;
        while got < size {
            match Source::read_at(file, &mut buffer[got..size], got as u64)? {
                0 => break,
                n => got += n,
            }
        }
        Ok(Some(look(&buffer[..got])))
    })
}

thread_local! {
    /// Where a picture is read to: making room for each anew costs as much as half of the look at it. It goes with its
    /// thread, which ends when it has had nothing to do for a while.
    static AT_ONCE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// [`check_at_once`] of a picture that is in memory.
pub fn check_bytes(bytes: &[u8]) -> (Whole, Fingerprint) {
    // Nothing that is in memory fails to be read.
    (check(&bytes).unwrap_or(Whole::Empty), Fingerprint::of(bytes))
}

/// What an upload is remembered by: the same original and rules give the same prepared bytes.
pub fn cache_key(original: Fingerprint, rules: &Rules) -> Fingerprint {
    let mut bytes = b"reimagined reference".to_vec();
    bytes.push(RECIPE);
    bytes.extend_from_slice(&original.0);
    bytes.extend_from_slice(&rules.max_edge.to_le_bytes());
    bytes.extend_from_slice(&rules.max_bytes.to_le_bytes());
    bytes.push(u8::from(rules.strip_metadata));
    Fingerprint::of(&bytes)
}

/// Makes the bytes to send of `original`, in a new file in the directory `into`. Blocks, also on `budget`:
/// for threads that may, few of them: the system's allocator keeps tens of megabytes back for each thread that
/// decoded a large picture.
pub fn prepare(original: &Original<'_>, rules: &Rules, into: &Path, budget: &Budget) -> Result<Prepared, PrepareError> {
    let reading = |source| PrepareError::Io { path: original.path.to_path_buf(), source };
    let writing = |source| PrepareError::Io { path: into.to_path_buf(), source };
    let stopped = |stop| match stop {
        Stop::Cut => PrepareError::Broken { why: "it ends in the middle".into() },
        Stop::Broken(why) => PrepareError::Broken { why: why.into() },
        Stop::Io(e) => reading(e),
    };
    let survey = survey(original.file, original.format).map_err(stopped)?;
    let max_edge = rules.max_edge.max(1);
    let as_is = Pieces::all(original.end);
    let pieces = if rules.strip_metadata { &survey.pieces } else { &as_is };
    let why = reason(&survey, max_edge, pieces.len(), rules.max_bytes);
    let file = tempfile::Builder::new().prefix(".reference-").tempfile_in(into).map_err(writing)?;

    let edge = why.map(|_| max_edge);
    let attempt = |reduced: Option<Reduced>| {
        let permit = budget.take(weigh(&survey, rules, reduced)?);
        let work = || encode(original, &survey, edge, reduced, file.as_file(), rules.max_bytes, permit);
        Ok(apart(work))
    };
    let reduced = match edge {
        Some(edge) => Reduced::of(original.format, &survey, edge),
        None => Reduced::to_check(original.format, &survey),
    };
    let vouched = edge.is_none() && is_vouched(original.file, original.format, &survey).map_err(stopped)?;
    let mut written = if vouched {
        weigh(&survey, rules, reduced)?;
        Ok(None)
    } else {
        attempt(reduced)?
    };
    if reduced.is_some() && matches!(written, Err(Failed::Codec(_))) {
        // The other decoder takes some pictures that this one does not.
        written = attempt(None)?;
    }
    let written = written.map_err(|failed| match failed {
        Failed::TooMany(bytes) => PrepareError::DoesNotFit { bytes, max_bytes: rules.max_bytes },
        Failed::Io(e) => writing(e),
        // A disk that fails looks like a damaged picture to a decoder.
        Failed::Codec(why) => readable(original).map_or_else(reading, |()| PrepareError::Broken { why }),
    })?;

    if let (Some(written), Some(why)) = (written, why) {
        return Ok(Prepared {
            file,
            bytes: written.bytes,
            format: written.format,
            media_type: written.format.media_type(),
            fingerprint: written.fingerprint,
            width: written.width,
            height: written.height,
            change: Change::Reencoded(why),
        });
    }
    let mut sink = Sink::new(file.as_file(), u64::MAX).map_err(writing)?;
    copy(pieces, original.file, &mut sink).map_err(|e| match e {
        Copy::Read(e) => reading(e),
        Copy::Write(e) => writing(e),
    })?;
    let (bytes, fingerprint) = sink.finish().map_err(writing)?;
    Ok(Prepared {
        file,
        bytes,
        format: original.format,
        media_type: original.format.media_type(),
        fingerprint,
        width: survey.width,
        height: survey.height,
        change: if rules.strip_metadata { Change::Stripped } else { Change::AsItIs },
    })
}

/// Decodes, and where `max_edge` is given makes new bytes of it in `file`.
fn encode(
    original: &Original<'_>,
    survey: &Survey,
    max_edge: Option<u32>,
    reduced: Option<Reduced>,
    file: &File,
    max_bytes: u64,
    mut permit: Permit<'_>,
) -> Result<Option<Written>, Failed> {
    let decoded = match reduced {
        Some(reduced) => reduced.decode(original.file, survey),
        None => decode(original.file, original.format, survey),
    };
    let Decoded { mut pixels, profile } = decoded.map_err(Failed::Codec)?;
    let Some(max_edge) = max_edge else { return Ok(None) };
    pixels.drop_idle_alpha();
    let as_png = survey.as_png.unwrap_or_else(|| pixels.has_alpha() || pixels.looks_drawn());
    let (width, height) = scaled(survey.width, survey.height, max_edge);
    let pixels = pixels.scale_to(width, height).map_err(Failed::Codec)?.turn(survey.orientation);
    // From here on only the small picture is held, with room for a copy and its coded form.
    permit.shrink(pixels.data.len() as u64 * 3);
    fit(&Decoded { pixels, profile }, as_png, file, max_bytes).map(Some)
}

/// Runs a decoder. One that panics has met a broken picture.
fn apart<T>(work: impl FnOnce() -> Result<T, Failed>) -> Result<T, Failed> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(Failed::Codec("its data makes no sense".into())))
}

fn survey(source: &dyn Source, format: Format) -> Result<Survey, Stop> {
    let scan = &mut Scan::new(source)?;
    match format {
        Format::Jpeg => jpeg::survey(scan),
        Format::Png => png::survey(scan),
        Format::WebP => webp::survey(scan),
        Format::Tiff => tiff::survey(scan),
        Format::Bmp => bmp::survey(scan),
        Format::Gif => gif::survey(scan),
    }
}

/// Whether the structure of a whole picture vouches for its pixels.
fn is_vouched(source: &dyn Source, format: Format, survey: &Survey) -> Result<bool, Stop> {
    Ok(survey.vouched && (format != Format::Png || png::sums_hold(&mut Scan::new(source)?)?))
}

/// The bytes to send of a picture that is in memory, where nothing has to be decoded for them.
pub struct Stripped {
    /// The picture without its metadata, or as it is where the rules keep that.
    pub bytes: Vec<u8>,
    /// What they are: `image/jpeg` or `image/png`.
    pub media_type: &'static str,
    /// Their fingerprint.
    pub fingerprint: Fingerprint,
}

impl std::fmt::Debug for Stripped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { bytes, media_type, fingerprint } = self;
        write!(f, "Stripped({} bytes of {media_type}, {fingerprint})", bytes.len())
    }
}

/// What [`prepare`] would make of `picture`, which [`check`](super::check()) found to be whole up to `end`; `None` where
/// that takes more than a copy in memory, or refuses it.
pub fn strip(picture: &[u8], format: Format, end: u64, rules: &Rules) -> Option<Stripped> {
    let survey = survey(&picture, format).ok()?;
    let as_is = Pieces::all(end);
    let pieces = if rules.strip_metadata { &survey.pieces } else { &as_is };
    let changes = reason(&survey, rules.max_edge.max(1), pieces.len(), rules.max_bytes).is_some();
    if changes || weigh(&survey, rules, None).is_err() || !is_vouched(&picture, format, &survey).ok()? {
        return None;
    }
    // About as long as the picture, which is in memory.
    let mut bytes = vec![0; usize::try_from(pieces.len()).ok()?];
    pieces.reader(&picture).read_exact(&mut bytes).ok()?;
    let fingerprint = Fingerprint::of(&bytes);
    Some(Stripped { bytes, media_type: format.media_type(), fingerprint })
}

/// The bytes that this picture takes at its peak, or why it is refused, before anything is allocated.
fn weigh(survey: &Survey, rules: &Rules, reduced: Option<Reduced>) -> Result<u64, PrepareError> {
    let &Survey { width, height, .. } = survey;
    if width == 0 || height == 0 {
        return Err(PrepareError::Broken { why: "it says that it has no pixels".into() });
    }
    let refuse = |limit| Err(PrepareError::TooLarge { width, height, limit });
    if width.max(height) > MAX_EDGE {
        return refuse("65,500 pixels an edge");
    }
    if area(width, height) > MAX_PIXELS {
        return refuse("300 megapixels");
    }
    // Each colour of a reduced picture stands by itself until they are put together.
    let (output, beside) = match reduced {
        Some(reduced) => (reduced.output(survey), survey.beside.saturating_add(reduced.output(survey))),
        None => (survey.output, survey.beside),
    };
    let (width, height) = reduced.map_or((width, height), |r| (r.width, r.height));
    let decoding = output.saturating_add(beside);
    // Between the two passes of scaling stands a picture of the new width and the old height; without
    // scaling, turning and encoding make copies.
    let edge = rules.max_edge.max(1);
    let after = if width.max(height) > edge {
        area(((u64::from(width) * u64::from(edge)) / u64::from(width.max(height)) + 1) as u32, height) * 4
            + area(edge, edge).min(area(width, height)) * 8
    } else {
        area(width, height) * 8
    };
    let peak = decoding.max(output.saturating_add(after));
    if peak > MAX_MEMORY { refuse("1 GiB of memory") } else { Ok(peak) }
}

/// Why the pixels must be encoded anew; `None` if they need not.
fn reason(survey: &Survey, max_edge: u32, bytes: u64, max_bytes: u64) -> Option<Why> {
    if survey.convert.is_some() {
        survey.convert
    } else if survey.orientation != Orientation::NoTransforms {
        Some(Why::Turned)
    } else if survey.width.max(survey.height) > max_edge {
        Some(Why::Scaled)
    } else {
        (bytes > max_bytes).then_some(Why::Bytes)
    }
}

/// Whether all of the original can be read.
fn readable(original: &Original<'_>) -> io::Result<()> {
    fingerprint(original.file).map(drop)
}

enum Copy {
    Read(io::Error),
    Write(io::Error),
}

fn copy(pieces: &Pieces, from: &File, to: &mut Sink<'_>) -> Result<(), Copy> {
    use std::io::Write as _;
    let mut reader = pieces.reader(from);
    let mut buf = vec![0; 64 * 1024];
    loop {
        match reader.read(&mut buf).map_err(Copy::Read)? {
            0 => return Ok(()),
            n => to.write_all(&buf[..n]).map_err(Copy::Write)?,
        }
    }
}
