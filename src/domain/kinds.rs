//! What a name in the inbox means: picture, sidecar, preset, junk, or foreign.
//!
//! Decides by the name alone, and by whether it is a folder's. What lies in the file is not looked at here
//! (`reference` does that), nor whether it is a file at all (links, pipes and devices are sorted out by
//! whoever looked: they are never opened).

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use super::ids::RelPath;

/// What a name in the inbox means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NameKind {
    /// A reference image.
    Picture(PictureExt),
    /// Says something about the image of its name, or stands for a drop without one.
    Sidecar(SidecarKind),
    /// `preset.toml`, in any case: never a drop.
    Preset,
    /// A folder that is looked into.
    Folder,
    /// Never touched, listed by `check`.
    Ignored(Why),
    /// A file nobody can do anything with: to errors, alone.
    Foreign,
}

/// The extensions that make a file a picture. What it really is, its bytes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the extensions themselves")]
pub enum PictureExt {
    Jpg,
    Jpeg,
    Png,
    Webp,
    Tif,
    Tiff,
    Bmp,
    Gif,
}

/// The extensions that make a file a sidecar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SidecarKind {
    /// A prompt as plain text.
    Txt,
    /// A request in TOML.
    Toml,
    /// A request in JSON.
    Json,
}

impl SidecarKind {
    /// What it says: the prompt, or the request. Two of one kind fail their drop, so that TOML and JSON
    /// exclude one another.
    pub const fn says(self) -> Says {
        match self {
            Self::Txt => Says::Prompt,
            Self::Toml | Self::Json => Says::Request,
        }
    }
}

/// What a sidecar is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Says {
    /// The prompt.
    Prompt,
    /// The request: parameters, prefix, suffix, variants.
    Request,
}

impl fmt::Display for Says {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Prompt => "prompt",
            Self::Request => "request",
        })
    }
}

/// Why a name is ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Why {
    /// Begins with a dot.
    Dotfile,
    /// A program has not finished it yet, or a lock of an office program.
    Temporary,
    /// What operating systems and storage boxes leave behind.
    System,
    /// For people: `README*`.
    Readme,
    /// Written by this program: a note or provenance.
    Ours,
    /// `[watch] ignore` says so.
    Configured,
    /// `preset.toml` stands beside it, spelled exactly so.
    SecondPreset,
    /// A sidecar in a folder whose preset says `sidecar = "ignore"`.
    SidecarsOff,
    /// A symbolic link, pipe, socket or device: never followed or opened.
    Special(Special),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dotfile => "its name begins with a dot",
            Self::Temporary => "a temporary file of another program",
            Self::System => "made by an operating system or storage box",
            Self::Readme => "a README is for people",
            Self::Ours => "a note or provenance written by reimagined",
            Self::Configured => "matches [watch] ignore",
            Self::SecondPreset => "another preset.toml of this folder is used",
            Self::SidecarsOff => "the preset says sidecar = \"ignore\"",
            Self::Special(special) => return write!(f, "{special}"),
        })
    }
}

/// What is neither file nor folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the words of stat(2)")]
pub enum Special {
    Symlink,
    Fifo,
    Socket,
    Device,
    Unknown,
}

impl fmt::Display for Special {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Symlink => "a symbolic link, never followed",
            Self::Fifo => "a named pipe, never opened",
            Self::Socket => "a socket, never opened",
            Self::Device => "a device, never opened",
            Self::Unknown => "neither file nor folder, never opened",
        })
    }
}

/// Answers whether `[watch] ignore` names this path below the inbox.
pub type IgnoreFn = dyn Fn(&Path) -> bool + Send + Sync;

/// What `name` in `folder` means. `ignore` is asked with the path below the inbox, for whatever is neither
/// junk by itself nor a preset.
pub fn classify(folder: &RelPath, name: &OsStr, is_dir: bool, ignore: &IgnoreFn) -> NameKind {
    if let Some(why) = junk(name, is_dir) {
        return NameKind::Ignored(why);
    }
    if !is_dir && is_preset(name) {
        return NameKind::Preset;
    }
    if ignore(folder.join(name).as_path()) {
        return NameKind::Ignored(Why::Configured);
    }
    if is_dir {
        return NameKind::Folder;
    }
    let (_, ext) = split(name);
    match picture_ext(ext) {
        Some(ext) => NameKind::Picture(ext),
        None => sidecar_kind(ext).map_or(NameKind::Foreign, NameKind::Sidecar),
    }
}

/// Whether this is the name of a preset, in any case.
pub fn is_preset(name: &OsStr) -> bool {
    name.as_bytes().eq_ignore_ascii_case(b"preset.toml")
}

/// The stem and the extension (without the dot; empty if there is none). A leading dot begins no extension.
pub fn split(name: &OsStr) -> (&OsStr, &OsStr) {
    let bytes = name.as_bytes();
    match bytes.iter().rposition(|b| *b == b'.') {
        Some(at) if at > 0 => (OsStr::from_bytes(&bytes[..at]), OsStr::from_bytes(&bytes[at + 1..])),
        _ => (name, OsStr::new("")),
    }
}

/// The picture this extension names, ignoring case.
pub fn picture_ext(ext: &OsStr) -> Option<PictureExt> {
    const TABLE: [(&[u8], PictureExt); 8] = [
        (b"jpg", PictureExt::Jpg),
        (b"jpeg", PictureExt::Jpeg),
        (b"png", PictureExt::Png),
        (b"webp", PictureExt::Webp),
        (b"tif", PictureExt::Tif),
        (b"tiff", PictureExt::Tiff),
        (b"bmp", PictureExt::Bmp),
        (b"gif", PictureExt::Gif),
    ];
    TABLE.iter().find(|(name, _)| ext.as_bytes().eq_ignore_ascii_case(name)).map(|(_, ext)| *ext)
}

/// The sidecar this extension names, ignoring case.
pub fn sidecar_kind(ext: &OsStr) -> Option<SidecarKind> {
    const TABLE: [(&[u8], SidecarKind); 3] =
        [(b"txt", SidecarKind::Txt), (b"toml", SidecarKind::Toml), (b"json", SidecarKind::Json)];
    TABLE.iter().find(|(name, _)| ext.as_bytes().eq_ignore_ascii_case(name)).map(|(_, kind)| *kind)
}

/// The built-in list. Case counts where the systems that make these names let it count.
fn junk(name: &OsStr, is_dir: bool) -> Option<Why> {
    const TEMPORARY: [&[u8]; 5] = [b".part", b".partial", b".crdownload", b".download", b".tmp"];
    const OURS: [&[u8]; 2] = [b".error.txt", b".reimagined.json"];
    const WINDOWS_FILES: [&[u8]; 2] = [b"thumbs.db", b"desktop.ini"];
    const WINDOWS_FOLDERS: [&[u8]; 2] = [b"$recycle.bin", b"system volume information"];
    const FOLDERS: [&[u8]; 5] = [b"@eaDir", b"#recycle", b"@Recycle", b"#snapshot", b"lost+found"];

    let bytes = name.as_bytes();
    let is = |other: &&[u8]| bytes.eq_ignore_ascii_case(other);
    let ends = |end: &&[u8]| bytes.len() >= end.len() && bytes[bytes.len() - end.len()..].eq_ignore_ascii_case(end);
    if bytes.starts_with(b".") {
        Some(Why::Dotfile)
    } else if bytes.starts_with(b"~$") || TEMPORARY.iter().any(ends) {
        Some(Why::Temporary)
    } else if WINDOWS_FILES.iter().any(is) || (is_dir && (WINDOWS_FOLDERS.iter().any(is) || FOLDERS.contains(&bytes))) {
        Some(Why::System)
    } else if bytes.len() >= 6 && bytes[..6].eq_ignore_ascii_case(b"readme") {
        Some(Why::Readme)
    } else if !is_dir && OURS.iter().any(ends) {
        Some(Why::Ours)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(name: &str, is_dir: bool) -> NameKind {
        classify(&RelPath::root(), OsStr::new(name), is_dir, &|p| p.ends_with("skip.png"))
    }

    #[test]
    fn files_mean_what_the_table_says() {
        use NameKind::{Foreign, Ignored, Picture, Preset, Sidecar};
        let table = [
            ("a.jpg", Picture(PictureExt::Jpg)),
            ("a.JPEG", Picture(PictureExt::Jpeg)),
            ("a.b.Png", Picture(PictureExt::Png)),
            ("a.webp", Picture(PictureExt::Webp)),
            ("a.tif", Picture(PictureExt::Tif)),
            ("a.TIFF", Picture(PictureExt::Tiff)),
            ("a.bmp", Picture(PictureExt::Bmp)),
            ("a.gif", Picture(PictureExt::Gif)),
            ("a.txt", Sidecar(SidecarKind::Txt)),
            ("a.jpg.TXT", Sidecar(SidecarKind::Txt)),
            ("a.toml", Sidecar(SidecarKind::Toml)),
            ("a.json", Sidecar(SidecarKind::Json)),
            ("preset.toml", Preset),
            ("Preset.TOML", Preset),
            ("my preset.toml", Sidecar(SidecarKind::Toml)),
            (".hidden.jpg", Ignored(Why::Dotfile)),
            (".DS_Store", Ignored(Why::Dotfile)),
            (".working", Ignored(Why::Dotfile)),
            ("~$letter.txt", Ignored(Why::Temporary)),
            ("a.jpg.part", Ignored(Why::Temporary)),
            ("a.jpg.PARTIAL", Ignored(Why::Temporary)),
            ("a.crdownload", Ignored(Why::Temporary)),
            ("a.download", Ignored(Why::Temporary)),
            ("a.tmp", Ignored(Why::Temporary)),
            ("thumbs.DB", Ignored(Why::System)),
            ("Desktop.ini", Ignored(Why::System)),
            ("ReadMe first.txt", Ignored(Why::Readme)),
            ("README", Ignored(Why::Readme)),
            ("a.error.txt", Ignored(Why::Ours)),
            ("a.reimagined.json", Ignored(Why::Ours)),
            ("skip.png", Ignored(Why::Configured)),
            ("a.pdf", Foreign),
            ("a.heic", Foreign),
            ("noextension", Foreign),
            ("a.", Foreign),
            ("#recycle", Foreign),
            ("jpg", Foreign),
        ];
        for (name, want) in table {
            assert_eq!(kind(name, false), want, "{name}");
        }
    }

    #[test]
    fn folders_mean_what_the_table_says() {
        for name in [
            "@eaDir",
            "#recycle",
            "@Recycle",
            "#snapshot",
            "$Recycle.Bin",
            "lost+found",
            ".stfolder",
            ".stversions",
            "System Volume Information",
            "x.download",
            ".working",
        ] {
            assert!(matches!(kind(name, true), NameKind::Ignored(_)), "{name}");
        }
        for name in ["autumn-cafe", "a.jpg", "preset.toml", "LOST+FOUND", "notes.error.txt"] {
            assert_eq!(kind(name, true), NameKind::Folder, "{name}");
        }
    }

    #[test]
    fn a_name_that_is_not_utf_8_is_classified_too() {
        let name = OsStr::from_bytes(b"caf\xe9.JPG");
        let kind = classify(&RelPath::root(), name, false, &|_| false);
        assert_eq!(kind, NameKind::Picture(PictureExt::Jpg));
    }

    #[test]
    fn the_configured_list_sees_the_path_below_the_inbox() {
        let folder = RelPath::new("drafts/old").unwrap_or_default();
        let ignore = |path: &Path| path.starts_with("drafts");
        let kind = classify(&folder, OsStr::new("a.jpg"), false, &ignore);
        assert_eq!(kind, NameKind::Ignored(Why::Configured));
    }
}
