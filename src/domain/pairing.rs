//! Which files of a folder belong to one drop.
//!
//! Looks at names only. Promises: the same names give the same drops in whatever order they were seen; no
//! file belongs to two drops but a sidecar that several images share. When a drop may go is not decided
//! here (`arrivals` does that).

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

use unicode_normalization::UnicodeNormalization as _;

use super::kinds::{NameKind, Says, picture_ext, split};
use super::names::fold;

/// A name as it is compared: NFC, lower case. Bytes that are no UTF-8 stay as they are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fold(Box<[u8]>);

impl Fold {
    /// Folds `name`.
    pub fn of(name: &OsStr) -> Self {
        Self(fold(name).into_vec().into())
    }

    /// Only composed, case kept.
    fn nfc(name: &OsStr) -> Self {
        Self::through(name.as_bytes(), |text| text.nfc().collect())
    }

    fn through(bytes: &[u8], text: impl Fn(&str) -> String) -> Self {
        let mut out = Vec::with_capacity(bytes.len());
        for chunk in bytes.utf8_chunks() {
            out.extend_from_slice(text(chunk.valid()).as_bytes());
            out.extend_from_slice(chunk.invalid());
        }
        Self(out.into())
    }
}

impl From<Fold> for Box<[u8]> {
    fn from(fold: Fold) -> Self {
        fold.0
    }
}

/// The key of the names that can have to do with one another: the stem, folded, with all picture extensions
/// taken off, so that `a.jpg`, `a.jpg.txt`, `A.toml` and `a.jpg.png` meet.
pub fn group_key(name: &OsStr) -> Fold {
    stem_key(split(name).0)
}

/// [`group_key`] of a name whose own extension is already off.
pub fn stem_key(mut stem: &OsStr) -> Fold {
    loop {
        let (shorter, ext) = split(stem);
        if picture_ext(ext).is_none() {
            return Fold::of(stem);
        }
        stem = shorter;
    }
}

/// One file of a group: an image or a sidecar.
#[derive(Clone, Copy, Debug)]
pub struct Named<'a> {
    /// Its name.
    pub name: &'a OsStr,
    /// What the name means; anything but picture and sidecar is left out of every drop.
    pub kind: NameKind,
}

/// A drop, by names. Numbers are places in the slice given to [`pair`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// The name without its extension.
    pub stem: OsString,
    /// The image, if there is one.
    pub image: Option<usize>,
    /// Its sidecars, ordered by name.
    pub parts: Vec<Part>,
    /// Two sidecars of one kind that match equally well: the drop fails.
    pub clash: Option<Clash>,
}

/// A sidecar's part in a drop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Which file.
    pub index: usize,
    /// Bound to the very image by its whole name (`NAME.jpg.txt`).
    pub tied: bool,
    /// Whether it is read. One that was beaten by a tied one of its kind only moves along.
    pub used: bool,
    /// Whether another image of the group still needs it: then it is read, and stays.
    pub shared: bool,
}

/// Two sidecars of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clash {
    /// Which kind.
    pub says: Says,
    /// The two, by name.
    pub between: [usize; 2],
}

/// What [`pair`] finds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pairing {
    /// The drops, ordered by name.
    pub units: Vec<Unit>,
    /// Sidecars that an image of their folded name passed over for a better match: they wait for an image
    /// of their own.
    pub left: Vec<usize>,
}

struct Side<'a> {
    index: usize,
    stem: &'a OsStr,
    fold: Fold,
    says: Says,
    tied: bool,
    images: Vec<usize>,
}

/// Sorts the files of one group into drops.
pub fn pair(files: &[Named<'_>]) -> Pairing {
    // Nearly always there is one file, which needs no comparing.
    if let [alone] = files {
        return of_one(alone);
    }
    let mut order: Vec<usize> = (0..files.len()).collect();
    order.sort_by_key(|i| files[*i].name);
    let images: Vec<usize> = order.iter().copied().filter(|i| matches!(files[*i].kind, NameKind::Picture(_))).collect();
    let image_folds: Vec<(Fold, Fold)> =
        images.iter().map(|i| (Fold::of(files[*i].name), Fold::of(split(files[*i].name).0))).collect();

    let mut sides: Vec<Side<'_>> = Vec::new();
    for &index in &order {
        let NameKind::Sidecar(kind) = files[index].kind else { continue };
        let (stem, _) = split(files[index].name);
        let fold = Fold::of(stem);
        let matching = |pick: fn(&(Fold, Fold)) -> &Fold| -> Vec<usize> {
            images.iter().zip(&image_folds).filter(|(_, folds)| *pick(folds) == fold).map(|(i, _)| *i).collect()
        };
        let mut found = matching(|folds| &folds.0);
        let tied = !found.is_empty();
        if !tied {
            found = matching(|folds| &folds.1);
        }
        sides.push(Side { index, stem, fold, says: kind.says(), tied, images: found });
    }

    let mut out = Pairing::default();
    for &image in &images {
        out.units.push(with_image(files, image, &sides));
    }
    share(&mut out.units);
    let taken = |index: usize| out.units.iter().any(|u| u.parts.iter().any(|p| p.index == index));
    out.left = sides.iter().filter(|s| !s.images.is_empty() && !taken(s.index)).map(|s| s.index).collect();

    let mut lone: Vec<&Side<'_>> = sides.iter().filter(|s| s.images.is_empty()).collect();
    while let Some(first) = lone.first().copied() {
        let (own, rest): (Vec<_>, Vec<_>) = lone.into_iter().partition(|s| s.fold == first.fold);
        lone = rest;
        let parts = own.iter().map(|s| Part { index: s.index, tied: false, used: true, shared: false }).collect();
        let clash = [Says::Prompt, Says::Request].into_iter().find_map(|says| {
            let mut of_kind = own.iter().filter(|s| s.says == says);
            Some(Clash { says, between: [of_kind.next()?.index, of_kind.next()?.index] })
        });
        out.units.push(Unit { stem: first.stem.to_owned(), image: None, parts, clash });
    }
    out
}

fn of_one(file: &Named<'_>) -> Pairing {
    let (image, parts) = match file.kind {
        NameKind::Picture(_) => (Some(0), Vec::new()),
        NameKind::Sidecar(_) => (None, vec![Part { index: 0, tied: false, used: true, shared: false }]),
        _ => return Pairing::default(),
    };
    let unit = Unit { stem: split(file.name).0.to_owned(), image, parts, clash: None };
    Pairing { units: vec![unit], left: Vec::new() }
}

fn with_image(files: &[Named<'_>], image: usize, sides: &[Side<'_>]) -> Unit {
    let name = files[image].name;
    let (stem, _) = split(name);
    let mut unit = Unit { stem: stem.to_owned(), image: Some(image), parts: Vec::new(), clash: None };
    for says in [Says::Prompt, Says::Request] {
        let best = |tied: bool| -> Vec<&Side<'_>> {
            let wanted = if tied { name } else { stem };
            let all = || sides.iter().filter(|s| s.says == says && s.tied == tied && s.images.contains(&image));
            let rank = all().map(|s| distance(s.stem, wanted)).min();
            all().filter(|s| Some(distance(s.stem, wanted)) == rank).collect()
        };
        let (tied, untied) = (best(true), best(false));
        let winners = if tied.is_empty() { &untied } else { &tied };
        if let [one, two, ..] = winners.as_slice() {
            unit.clash = unit.clash.or(Some(Clash { says, between: [one.index, two.index] }));
        }
        let beaten = if tied.is_empty() { &[][..] } else { &untied[..] };
        let part = |s: &&Side<'_>, used| Part { index: s.index, tied: s.tied, used, shared: false };
        unit.parts.extend(winners.iter().map(|s| part(s, true)));
        unit.parts.extend(beaten.iter().map(|s| part(s, false)));
    }
    unit.parts.sort_by_key(|p| files[p.index].name);
    unit
}

/// Marks what more than one image takes.
fn share(units: &mut [Unit]) {
    let all: Vec<usize> = units.iter().flat_map(|u| u.parts.iter().map(|p| p.index)).collect();
    for part in units.iter_mut().flat_map(|u| u.parts.iter_mut()) {
        part.shared = all.iter().filter(|i| **i == part.index).count() > 1;
    }
}

/// How far a sidecar's stem is from what it should be: 0 the same bytes, 1 the same letters, 2 ignoring case.
fn distance(stem: &OsStr, wanted: &OsStr) -> u8 {
    if stem == wanted {
        0
    } else if Fold::nfc(stem) == Fold::nfc(wanted) {
        1
    } else {
        2
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::domain::{ids::RelPath, kinds::classify};
    use proptest::prelude::*;

    /// `image + sidecar -beaten =shared !clash` per drop, `left: …` at the end.
    fn told(names: &[&str]) -> Vec<String> {
        let files: Vec<Named<'_>> = names
            .iter()
            .map(|n| Named { name: OsStr::new(n), kind: classify(&RelPath::root(), OsStr::new(n), false, &|_| false) })
            .collect();
        let pairing = pair(&files);
        let mut out: Vec<String> = pairing
            .units
            .iter()
            .map(|unit| {
                let mut text = unit.image.map_or(format!("[{}]", unit.stem.display()), |i| names[i].to_owned());
                for part in &unit.parts {
                    let sign = match (part.used, part.shared) {
                        (false, true) => "-=",
                        (false, false) => "-",
                        (true, true) => "=",
                        (true, false) => "+",
                    };
                    text.extend([" ", sign, names[part.index]]);
                }
                if unit.clash.is_some() {
                    text += " !";
                }
                text
            })
            .collect();
        out.extend(pairing.left.iter().map(|i| format!("left: {}", names[*i])));
        out
    }

    #[test]
    fn files_are_sorted_into_drops_as_the_table_says() {
        let table: &[(&[&str], &[&str])] = &[
            (&["a.jpg"], &["a.jpg"]),
            (&["a.jpg", "a.txt"], &["a.jpg +a.txt"]),
            (&["a.jpg", "A.TXT"], &["a.jpg +A.TXT"]),
            (&["a.jpg", "a.txt", "a.toml"], &["a.jpg +a.toml +a.txt"]),
            (&["a.jpg", "a.json", "a.toml"], &["a.jpg +a.json +a.toml !"]),
            (&["a.jpg", "a.jpg.txt", "a.txt"], &["a.jpg +a.jpg.txt -a.txt"]),
            (&["a.jpg", "a.jpg.txt", "a.toml"], &["a.jpg +a.jpg.txt +a.toml"]),
            (&["a.jpg", "a.jpg.json", "a.toml"], &["a.jpg +a.jpg.json -a.toml"]),
            (&["a.jpg", "a.jpg.json", "a.jpg.toml"], &["a.jpg +a.jpg.json +a.jpg.toml !"]),
            (&["a.jpg", "a.png", "a.txt"], &["a.jpg =a.txt", "a.png =a.txt"]),
            (&["a.jpg", "a.png", "a.jpg.txt", "a.txt"], &["a.jpg +a.jpg.txt -=a.txt", "a.png =a.txt"]),
            (&["a.jpg", "A.jpg", "a.txt", "A.txt"], &["A.jpg +A.txt", "a.jpg +a.txt"]),
            (&["a.jpg", "a.txt", "A.txt"], &["a.jpg +a.txt", "left: A.txt"]),
            (&["aa.jpg", "aA.txt", "Aa.txt"], &["aa.jpg +Aa.txt +aA.txt !"]),
            (&["a.jpg", "a.txt", "a.TXT"], &["a.jpg +a.TXT +a.txt !"]),
            (&["a.txt"], &["[a] +a.txt"]),
            (&["a.txt", "a.toml"], &["[a] +a.toml +a.txt"]),
            (&["a.txt", "A.txt"], &["[A] +A.txt +a.txt !"]),
            (&["a.json", "a.toml"], &["[a] +a.json +a.toml !"]),
            (&["a.jpg.txt"], &["[a.jpg] +a.jpg.txt"]),
            (&["a.png", "a.jpg.txt"], &["a.png", "[a.jpg] +a.jpg.txt"]),
            (&["a.jpg", "a.jpg.png", "a.jpg.txt"], &["a.jpg +a.jpg.txt", "a.jpg.png"]),
            (&["a.jpg.png", "a.jpg.txt"], &["a.jpg.png +a.jpg.txt"]),
            (
                &["cafe\u{301}.jpg", "caf\u{e9}.txt", "CAF\u{c9}.txt"],
                &["cafe\u{301}.jpg +caf\u{e9}.txt", "left: CAF\u{c9}.txt"],
            ),
        ];
        for (names, want) in table {
            assert_eq!(told(names), *want, "{names:?}");
        }
    }

    #[test]
    fn names_that_can_meet_share_a_group() {
        for name in ["A.jpg", "a.JPG.txt", "a.txt", "a.jpg.png", "a.jpg.png.toml"] {
            assert_eq!(group_key(OsStr::new(name)), Fold::of(OsStr::new("a")), "{name}");
        }
        assert_eq!(group_key(OsStr::new("a.b.jpg")), Fold::of(OsStr::new("A.B")));
        assert_ne!(group_key(OsStr::from_bytes(b"\xe9.jpg")), group_key(OsStr::from_bytes(b"\xe8.jpg")));
    }

    proptest! {
        #[test]
        fn the_order_in_which_files_are_seen_changes_nothing(
            names in proptest::sample::subsequence(
                vec!["a.jpg", "A.jpg", "a.png", "a.txt", "A.txt", "a.jpg.txt", "A.JPG.txt", "a.toml", "a.json",
                     "a.jpg.json", "a.jpg.png"], 0..=11).prop_shuffle()
        ) {
            let mut sorted = names.clone();
            sorted.sort_unstable();
            prop_assert_eq!(told(&names), told(&sorted));
        }
    }
}
