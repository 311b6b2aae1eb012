//! Pictures: dropped ones, and those that the service sends.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::{Mutex, Once};

use reimagined::domain::ids::Fingerprint;
use reimagined::reference::{
    Budget, Change, Format, Original, PrepareError, Prepared, Rules, Source, Whole, check, prepare as make, sniff,
};

/// Bytes that come in pieces of changing length, as they may from a network filesystem.
struct Pieces<'a> {
    bytes: &'a [u8],
    most: usize,
}

impl Source for Pieces<'_> {
    fn read_at(&self, buf: &mut [u8], at: u64) -> io::Result<usize> {
        let rest = usize::try_from(at).ok().and_then(|at| self.bytes.get(at..)).unwrap_or_default();
        let n = rest.len().min(buf.len()).min(1 + (at as usize * 7 + buf.len()) % self.most);
        buf[..n].copy_from_slice(&rest[..n]);
        Ok(n)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.bytes.len() as u64)
    }
}

fn look(bytes: &[u8], most: usize) -> Whole {
    check(&Pieces { bytes, most }).expect("memory can be read")
}

/// Whether a picture is whole, and where it ends.
pub fn whole(data: &[u8]) {
    let mut dice = super::dice(data);
    let found = look(data, 1 << 20);
    assert_eq!(look(data, 1 + dice(300)), found, "how it is read makes no difference");
    let Whole::Whole { format, end } = found else { return };
    assert_eq!(sniff(data), Some(format));
    let length = usize::try_from(end).expect("within the file");
    assert!(length <= data.len());
    assert_eq!(look(&data[..length], 1 << 20), found, "what lies behind it plays no part");
    assert_eq!(look(&[data, b"\xff\xd9IEND;\0\0"].concat(), 1 << 20), found);
    for cut in [length - 1, length / 2, dice(length), dice(length)] {
        let part = look(&data[..cut], 1 << 20);
        assert!(!matches!(part, Whole::Whole { .. }), "whole at {cut} of {length}: {part:?}");
        // The formats that mark their end; the others have lengths alone.
        if matches!(format, Format::Jpeg | Format::Png | Format::Gif) && data[cut..length].iter().any(|b| *b != 0) {
            let reserved = [&data[..cut], &vec![0; length - cut]].concat();
            let part = look(&reserved, 1 << 20);
            assert!(!matches!(part, Whole::Whole { .. }), "zeros from {cut} to {length} make it whole: {part:?}");
        }
    }
}

/// A picture that is whole, to the bytes that are sent.
pub fn prepare(data: &[u8]) {
    static QUIET: Once = Once::new();
    // Codecs that panic are the library's to catch; a fuzzer's hook would end the process before.
    QUIET.call_once(|| std::panic::set_hook(Box::new(|info| eprintln!("{info}"))));
    let Whole::Whole { format, end } = look(data, 1 << 20) else { return };
    let into = if Path::new("/dev/shm").is_dir() { Path::new("/dev/shm").to_owned() } else { std::env::temp_dir() };
    let mut file = tempfile::tempfile_in(&into).expect("a file");
    file.write_all(data).expect("written");
    let original = Original { file: &file, path: Path::new("picture"), format, end };
    let usual = Rules { max_edge: 2048, max_bytes: 12_000_000, strip_metadata: true };
    let Some(done) = prepared(&original, &usual, &into) else { return };
    let bytes = std::fs::read(done.file.path()).expect("readable");
    assert!(!holds_metadata(&bytes, done.format), "metadata leaves the machine");
    // What may be sent may be sent again as it is.
    let again = File::open(done.file.path()).expect("readable");
    let stripped = Original { file: &again, path: Path::new("again"), format: done.format, end: done.bytes };
    let twice = prepared(&stripped, &usual, &into).expect("what was prepared can be prepared");
    assert_eq!((twice.fingerprint, twice.change), (done.fingerprint, Change::Stripped));
    assert_eq!((twice.width, twice.height), (done.width, done.height));
    if u64::from(done.width) * u64::from(done.height) < 64 * 64 {
        prepared(&original, &Rules { max_edge: 9, max_bytes: 900, strip_metadata: true }, &into);
        prepared(&original, &Rules { strip_metadata: false, ..usual }, &into);
    }
}

/// Prepares it; what comes out is a whole picture within the rules. `None` where it is refused.
fn prepared(original: &Original<'_>, rules: &Rules, into: &Path) -> Option<Prepared> {
    static BUDGET: Mutex<Option<&'static Budget>> = Mutex::new(None);
    let budget = *BUDGET.lock().expect("no panic").get_or_insert_with(|| Box::leak(Box::default()));
    let done = match make(original, rules, into, budget) {
        Ok(done) => done,
        Err(PrepareError::Io { path, source }) => panic!("{}: {source}", path.display()),
        Err(PrepareError::DoesNotFit { bytes, max_bytes }) => {
            assert!(bytes > max_bytes);
            return None;
        }
        Err(_) => return None,
    };
    let bytes = std::fs::read(done.file.path()).expect("readable");
    assert_eq!((done.bytes, done.fingerprint), (bytes.len() as u64, Fingerprint::of(&bytes)));
    let whole = look(&bytes, 1 << 20);
    assert_eq!(whole, Whole::Whole { format: done.format, end: done.bytes }, "{:?}", done.change);
    assert!(matches!(done.format, Format::Jpeg | Format::Png | Format::WebP));
    assert_eq!(done.media_type, done.format.media_type());
    assert!(done.width > 0 && done.height > 0 && done.bytes <= rules.max_bytes);
    assert!(done.width.max(done.height) <= rules.max_edge, "{}x{}", done.width, done.height);
    Some(done)
}

/// Whether there are segments or chunks that hold more than pixels and what decoding needs.
fn holds_metadata(bytes: &[u8], format: Format) -> bool {
    let number = |at: usize, little: bool| {
        let four: [u8; 4] = bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).unwrap_or_default();
        if little { u32::from_le_bytes(four) as usize } else { u32::from_be_bytes(four) as usize }
    };
    let kind = |at: usize| bytes.get(at..at + 4).unwrap_or_default();
    match format {
        Format::Png => {
            let mut at = 8;
            while at + 8 <= bytes.len() {
                if [b"tEXt", b"iTXt", b"zTXt", b"eXIf", b"tIME"].iter().any(|k| kind(at + 4) == *k) {
                    return true;
                }
                at += 12 + number(at, false);
            }
            false
        }
        Format::WebP => {
            let mut at = 12;
            while at + 8 <= bytes.len() {
                if kind(at) == b"EXIF" || kind(at) == b"XMP " {
                    return true;
                }
                let length = number(at + 4, true);
                at += 8 + length + length % 2;
            }
            false
        }
        _ => {
            let mut at = 2;
            while let Some([0xff, marker, high, low]) = bytes.get(at..at + 4) {
                // Up to the first scan.
                match *marker {
                    0xda => return false,
                    0xff => at += 1,
                    0x01 | 0xd0..=0xd7 => at += 2,
                    0xe1 | 0xed | 0xfe => return true,
                    _ => at += 2 + usize::from(u16::from_be_bytes([*high, *low])),
                }
            }
            false
        }
    }
}
