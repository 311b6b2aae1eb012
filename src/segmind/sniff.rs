//! What the first bytes say: the only judge of whether something is a picture.

/// The kinds of picture that the service gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PictureKind {
    /// JPEG.
    Jpeg,
    /// PNG.
    Png,
    /// WebP.
    Webp,
}

/// How many bytes [`sniff`] needs.
pub(super) const SNIFF: usize = 12;

/// The kind of picture that begins with `bytes`.
pub fn sniff(bytes: &[u8]) -> Option<PictureKind> {
    match bytes {
        [0xff, 0xd8, 0xff, ..] => Some(PictureKind::Jpeg),
        [0x89, b'P', b'N', b'G', 0x0d, 0x0a, 0x1a, 0x0a, ..] => Some(PictureKind::Png),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some(PictureKind::Webp),
        _ => None,
    }
}
