//! A stripped picture as a list of pieces of the original and a few new bytes.
//!
//! So a picture loses its metadata without being held in memory, and decoders never see what was dropped.

use std::io::{self, Read, Seek, SeekFrom};

use super::source::Source;

enum Piece {
    /// `from .. from + len` of the original.
    Kept { from: u64, len: u64 },
    /// Bytes that stand there instead.
    New(Vec<u8>),
}

/// What a stripped copy is made of, in order.
#[derive(Default)]
pub(super) struct Pieces {
    /// Each with the place in the copy where it begins.
    list: Vec<(u64, Piece)>,
    len: u64,
}

impl Pieces {
    /// The first `end` bytes of the original, as they are.
    pub(super) fn all(end: u64) -> Self {
        let mut pieces = Self::default();
        pieces.keep(0, end);
        pieces
    }

    /// Adds `from .. to` of the original.
    pub(super) fn keep(&mut self, from: u64, to: u64) {
        let len = to.saturating_sub(from);
        match self.list.last_mut() {
            Some((_, Piece::Kept { from: f, len: l })) if *f + *l == from => *l += len,
            _ => self.list.push((self.len, Piece::Kept { from, len })),
        }
        self.len += len;
    }

    /// Adds bytes that the original does not have.
    pub(super) fn add(&mut self, bytes: Vec<u8>) {
        let at = self.len;
        self.len += bytes.len() as u64;
        self.list.push((at, Piece::New(bytes)));
    }

    /// The length of the copy in bytes.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Reads the copy.
    pub(super) fn reader<'a>(&'a self, source: &'a dyn Source) -> Splice<'a> {
        Splice { source, pieces: self, at: 0 }
    }
}

/// Reads a stripped copy as if it stood somewhere.
pub(super) struct Splice<'a> {
    source: &'a dyn Source,
    pieces: &'a Pieces,
    at: u64,
}

impl Read for Splice<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() || self.at >= self.pieces.len {
            return Ok(0);
        }
        let mut index = self.pieces.list.partition_point(|(start, _)| *start <= self.at).saturating_sub(1);
        while let Some((start, piece)) = self.pieces.list.get(index) {
            let skip = self.at - start;
            let n = match piece {
                Piece::Kept { from, len } if skip < *len => {
                    let want = buf.len().min(usize::try_from(len - skip).unwrap_or(usize::MAX));
                    match self.source.read_at(&mut buf[..want], from + skip)? {
                        0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                        n => n,
                    }
                }
                Piece::New(bytes) if skip < bytes.len() as u64 => {
                    let rest = &bytes[skip as usize..];
                    let n = rest.len().min(buf.len());
                    buf[..n].copy_from_slice(&rest[..n]);
                    n
                }
                _ => {
                    index += 1;
                    continue;
                }
            };
            self.at += n as u64;
            return Ok(n);
        }
        Ok(0)
    }

    // The JPEG decoder reads everything at once; growing by doubling would cost twice the file.
    fn read_to_end(&mut self, out: &mut Vec<u8>) -> io::Result<usize> {
        let rest = usize::try_from(self.pieces.len.saturating_sub(self.at)).map_err(io::Error::other)?;
        out.try_reserve_exact(rest).map_err(io::Error::other)?;
        let before = out.len();
        out.resize(before + rest, 0);
        let done = self.read_exact(&mut out[before..]);
        if let Err(e) = done {
            out.truncate(before);
            return Err(e);
        }
        Ok(rest)
    }
}

impl Seek for Splice<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.pieces.len.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = target.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}
