//! Whether the write-ahead log beside the database still ends where it ended.
//!
//! `SQLite` reads a log up to the first frame whose checksum is wrong and takes the rest for what a crash left
//! of the last commit, without a word. For us a commit that is missing may be a request that was paid for, so
//! the log is read here with other eyes: commits that stand behind a broken frame were on the disk once.

use std::io::{self, ErrorKind, Read};

const HEAD: usize = 32;
const FRAME_HEAD: usize = 24;

/// Each time the log begins anew its first salt grows by one; older frames stay behind the new ones.
const OLDER: u32 = 1 << 20;

/// How a log ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// As it should: nothing that was committed is missing.
    Whole,
    /// Perhaps one commit is missing: a crash in its midst, or damage, nobody can tell.
    Torn,
    /// Commits are missing that were durable.
    Damaged(&'static str),
}

/// Reads a log to its end. Nobody may write to it meanwhile.
pub(super) fn end(mut log: impl Read) -> io::Result<End> {
    let mut head = [0; HEAD];
    if fill(&mut log, &mut head)? < HEAD {
        return Ok(End::Whole);
    }
    let word = |bytes: &[u8], at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let mut sum = Sum { big_endian: word(&head, 0) & 1 == 1, pair: (0, 0) };
    sum.add(&head[..24]);
    let page = word(&head, 8) as usize;
    let known = word(&head, 0) | 1 == 0x377f_0683 && (512..=65_536).contains(&page) && page.is_power_of_two();
    if !known || sum.pair != (word(&head, 24), word(&head, 28)) {
        // Its beginning is synced before the first frame is written.
        let mut rest = Vec::new();
        log.take(1 << 16).read_to_end(&mut rest)?;
        let nothing = rest.iter().all(|byte| *byte == 0);
        return Ok(if nothing { End::Whole } else { End::Damaged("the beginning of its log cannot be read") });
    }
    let (first_salt, salts) = (word(&head, 16), head[16..24].to_vec());
    let mut frame = vec![0; FRAME_HEAD + page];
    let (mut sound, mut commits, mut torn) = (true, 0, false);
    loop {
        let got = fill(&mut log, &mut frame)?;
        if got < FRAME_HEAD {
            break;
        }
        let (number, commit) = (word(&frame, 0), word(&frame, 4) != 0);
        let ours = frame[8..16] == salts[..];
        if sound && ours && number != 0 && got == frame.len() {
            sum.add(&frame[..8]);
            sum.add(&frame[FRAME_HEAD..]);
            sound = sum.pair == (word(&frame, 16), word(&frame, 20));
        } else {
            sound = false;
        }
        if sound {
            continue;
        }
        // A crash within a commit leaves sound frames that no commit ends; hardly ever half a frame.
        commits += u32::from(ours && commit);
        let older = (1..=OLDER).contains(&first_salt.wrapping_sub(word(&frame, 8)));
        torn |= ours || !older && frame[..FRAME_HEAD].iter().any(|byte| *byte != 0);
    }
    // Each is synced before the next begins: a crash can break the last one only.
    Ok(match commits {
        2.. => End::Damaged("commits in its log are broken"),
        _ if torn => End::Torn,
        _ => End::Whole,
    })
}

/// Reads until `buf` is full or the file ends; how much there was.
fn fill(from: &mut impl Read, buf: &mut [u8]) -> io::Result<usize> {
    let mut got = 0;
    while got < buf.len() {
        match from.read(&mut buf[got..]) {
            Ok(0) => break,
            Ok(n) => got += n,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(got)
}

/// The log's running checksum.
struct Sum {
    big_endian: bool,
    pair: (u32, u32),
}

impl Sum {
    fn add(&mut self, bytes: &[u8]) {
        for two in bytes.chunks_exact(8) {
            let word = |at: usize| {
                let four = [two[at], two[at + 1], two[at + 2], two[at + 3]];
                if self.big_endian { u32::from_be_bytes(four) } else { u32::from_le_bytes(four) }
            };
            self.pair.0 = self.pair.0.wrapping_add(word(0)).wrapping_add(self.pair.1);
            self.pair.1 = self.pair.1.wrapping_add(word(4)).wrapping_add(self.pair.0);
        }
    }
}
