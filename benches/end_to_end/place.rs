//! Folders, pictures and the configuration of one run.

use std::fmt::Write as _;
use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use image::codecs::jpeg::JpegEncoder;
use image::{ExtendedColorType, ImageEncoder as _};
use tempfile::TempDir;

/// Folders of one run, on the disk that is measured. They stay until all is measured ([`Places`]): ext4 without a
/// journal keeps off inodes that were deleted in the last minutes, and whoever makes files meanwhile looks at each
/// of them first.
pub struct Place {
    dir: PathBuf,
}

/// Where the places of all runs lie; gone with the value, and all of them with it, unless they are kept.
pub struct Places {
    dir: TempDir,
}

impl Places {
    /// None yet.
    pub fn new(within: &Path, keep: bool) -> Self {
        let dir = tempfile::Builder::new().prefix("end-to-end-").disable_cleanup(keep).tempdir_in(within).unwrap();
        Self { dir }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Their room is given back, and their inodes are not.
        for entry in walkdir::WalkDir::new(&self.dir).into_iter().filter_map(Result::ok) {
            if entry.file_type().is_file() {
                let _ = fs::OpenOptions::new().write(true).open(entry.path()).and_then(|file| file.set_len(0));
            }
        }
        rustix::fs::sync();
    }
}

impl Place {
    /// Empty folders.
    pub fn new(within: &Places) -> Self {
        let dir = tempfile::Builder::new().prefix("run-").tempdir_in(within.dir.path()).unwrap().keep();
        for folder in ["inbox", "working", "outbox", "archive", "errors", "stage", "state"] {
            fs::create_dir(dir.join(folder)).unwrap();
        }
        Self { dir }
    }

    /// A path in it.
    pub fn path(&self, rel: &str) -> PathBuf {
        self.dir.join(rel)
    }

    /// The configuration of `reimagined`: no limits, no waits for sidecars, the rest as it comes.
    pub fn configure(&self, port: u16, in_flight: usize, public: bool) {
        let mut text = format!(
            "[api]\nbase_url = \"http://127.0.0.1:{port}\"\nupload_url = \"http://127.0.0.1:{port}{}\"\n\
             requests_per_minute = 0\nmax_in_flight = {in_flight}\n\n[folders]\n",
            super::api::UPLOAD
        );
        for folder in ["inbox", "outbox", "archive", "errors"] {
            let _ = writeln!(text, "{folder} = \"{folder}\"");
        }
        text.push_str("\n[limits]\nimages_per_day = 0\n\n[service]\nstate_dir = \"state\"\n\n[reference]\n");
        text.push_str(if public {
            "mode = \"public_url\"\nurl_base = \"http://127.0.0.1:1/\"\nstrip_metadata = false\n"
        } else {
            "mode = \"upload\"\n"
        });
        text.push_str("\n[preset]\nprompt = \"a look\"\nsidecar = \"ignore\"\n");
        fs::write(self.path("config.toml"), text).unwrap();
    }

    /// Puts `count` pictures beside the inbox, each of its own bytes, and has the disk take them.
    pub fn stage(&self, count: usize, picture: &[u8], into: &str) {
        for n in 0..count {
            fs::write(self.path(into).join(format!("picture-{n:06}.jpg")), numbered(picture, n)).unwrap();
        }
        rustix::fs::sync();
    }

    /// Renames what was staged into the inbox, `from` to `to`.
    pub fn drop_staged(&self, range: std::ops::Range<usize>) {
        for n in range {
            let name = format!("picture-{n:06}.jpg");
            fs::rename(self.path("stage").join(&name), self.path("inbox").join(&name)).unwrap();
        }
    }
}

/// The picture with a comment of its own in it.
fn numbered(picture: &[u8], n: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(picture.len() + 12);
    out.extend_from_slice(&picture[..2]);
    out.extend_from_slice(&[0xFF, 0xFE, 0, 10]);
    out.extend_from_slice(&(n as u64).to_be_bytes());
    out.extend_from_slice(&picture[2..]);
    out
}

/// A JPEG with as much in it as a photograph has: soft shapes and some grain.
pub fn photograph(width: u32, height: u32, grain: u32, quality: u8) -> Vec<u8> {
    let mut state = 1_u32;
    let mut pixels = Vec::with_capacity((width * height * 3) as usize);
    for y in 0..height {
        for x in 0..width {
            let (fx, fy) = (x as f32 / width as f32, y as f32 / height as f32);
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let noise = ((state >> 16) % (grain * 2 + 1)) as f32 - grain as f32;
            for k in [3.0_f32, 5.0, 7.0] {
                let shape = (fx * k * 6.0).sin() * (fy * k * 4.0).cos() * 90.0;
                pixels.push((128.0 + shape + noise).clamp(0.0, 255.0) as u8);
            }
        }
    }
    let mut out = Cursor::new(Vec::new());
    JpegEncoder::new_with_quality(&mut out, quality)
        .write_image(&pixels, width, height, ExtendedColorType::Rgb8)
        .unwrap();
    out.into_inner()
}
