//! Reading by position.
//!
//! Promises: no shared cursor is moved, a file that shrinks meanwhile just ends earlier, and walking a
//! structure reads through one small buffer.

use std::fs::File;
use std::io;

/// Bytes that can be read at any place: a file, or a reply that is held in memory.
pub trait Source {
    /// Reads at `at` into `buf`; 0 means the end.
    fn read_at(&self, buf: &mut [u8], at: u64) -> io::Result<usize>;

    /// The length in bytes at this moment.
    fn size(&self) -> io::Result<u64>;

    /// All of it, where it is in memory anyway.
    fn all(&self) -> Option<&[u8]> {
        None
    }
}

impl Source for File {
    fn read_at(&self, buf: &mut [u8], at: u64) -> io::Result<usize> {
        loop {
            match std::os::unix::fs::FileExt::read_at(self, buf, at) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }

    fn size(&self) -> io::Result<u64> {
        self.metadata().map(|m| m.len())
    }
}

impl Source for &[u8] {
    fn read_at(&self, buf: &mut [u8], at: u64) -> io::Result<usize> {
        let rest = usize::try_from(at).ok().and_then(|at| self.get(at..)).unwrap_or_default();
        let n = rest.len().min(buf.len());
        buf[..n].copy_from_slice(&rest[..n]);
        Ok(n)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }

    fn all(&self) -> Option<&[u8]> {
        Some(self)
    }
}

impl Source for Vec<u8> {
    fn read_at(&self, buf: &mut [u8], at: u64) -> io::Result<usize> {
        self.as_slice().read_at(buf, at)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }

    fn all(&self) -> Option<&[u8]> {
        Some(self)
    }
}

const BUFFER: usize = 64 * 1024;

/// Walks a source through one buffer, or as it lies in memory.
pub(super) struct Scan<'a> {
    source: &'a dyn Source,
    all: Option<&'a [u8]>,
    size: u64,
    buf: Vec<u8>,
    start: u64,
}

impl<'a> Scan<'a> {
    pub(super) fn new(source: &'a dyn Source) -> io::Result<Self> {
        Ok(Self { source, all: source.all(), size: source.size()?, buf: Vec::new(), start: 0 })
    }

    /// The length of the source when the walk began.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// What the buffer holds from `at` on; empty only at the end.
    pub(super) fn rest(&mut self, at: u64) -> io::Result<&[u8]> {
        if let Some(all) = self.all {
            return Ok(usize::try_from(at).ok().and_then(|at| all.get(at..)).unwrap_or_default());
        }
        let held = self.start..self.start + self.buf.len() as u64;
        if !held.contains(&at) {
            self.fill(at)?;
        }
        Ok(&self.buf[(at - self.start) as usize..])
    }

    /// `n` bytes (at most 4 KiB) at `at`; `None` if the source ends before.
    pub(super) fn bytes(&mut self, at: u64, n: usize) -> io::Result<Option<&[u8]>> {
        debug_assert!(n <= 4096);
        let end = at.saturating_add(n as u64);
        if end > self.size {
            return Ok(None);
        }
        if let Some(all) = self.all {
            return Ok(all.get(at as usize..end as usize));
        }
        if at < self.start || end > self.start + self.buf.len() as u64 {
            self.fill(at)?;
        }
        Ok(self.buf.get((at - self.start) as usize..).and_then(|b| b.get(..n)))
    }

    /// `N` bytes at `at`; `None` if the source ends before.
    pub(super) fn array<const N: usize>(&mut self, at: u64) -> io::Result<Option<[u8; N]>> {
        Ok(self.bytes(at, N)?.and_then(|b| b.try_into().ok()))
    }

    /// A longer piece, copied; `None` if the source ends before. The caller bounds `n`.
    pub(super) fn copy(&mut self, at: u64, n: usize) -> io::Result<Option<Vec<u8>>> {
        if at.saturating_add(n as u64) > self.size {
            return Ok(None);
        }
        let mut out = vec![0; n];
        let mut done = 0;
        while done < n {
            match self.source.read_at(&mut out[done..], at + done as u64)? {
                0 => return Ok(None),
                k => done += k,
            }
        }
        Ok(Some(out))
    }

    fn fill(&mut self, at: u64) -> io::Result<()> {
        self.buf.resize(BUFFER, 0);
        self.start = at;
        let mut done = 0;
        while done < BUFFER {
            match self.source.read_at(&mut self.buf[done..], at + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(e) => {
                    self.buf.clear();
                    return Err(e);
                }
            }
        }
        self.buf.truncate(done);
        Ok(())
    }
}
