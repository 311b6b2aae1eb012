#![allow(clippy::unwrap_used)]

use std::collections::HashSet;

use jiff::civil::date;
use proptest::prelude::*;

use super::*;
use crate::domain::ids::RelPath;

fn os(text: &str) -> &OsStr {
    OsStr::new(text)
}

fn render(template: &str, stem: &OsStr, seed: Option<i64>, shots: u32, folder: &str) -> OsString {
    let folder = RelPath::new(folder).unwrap();
    Template::parse(template).unwrap().render(&Parts {
        stem,
        seed,
        variant: 2,
        shots,
        folder: &folder,
        date: date(2026, 11, 3),
    })
}

#[test]
fn a_template_says_what_the_result_is_called() {
    for (template, seed, shots, wanted) in [
        ("{stem}", Some(7), 1, "terrace"),
        ("{stem}", Some(7), 4, "terrace-7"),
        ("{stem}", Some(-7), 4, "terrace--7"),
        ("{stem}", None, 4, "terrace-2"),
        ("{stem}.{variant}", Some(7), 4, "terrace.2"),
        ("{seed}_{stem}", Some(7), 4, "7_terrace"),
        ("{stem}-{seed}", None, 1, "terrace-v2"),
        ("{folder} {date} {stem}", Some(7), 1, "a-b 2026-11-03 terrace"),
        ("{{{stem}}}", None, 1, "{terrace}"),
        (".{stem}", None, 1, "_terrace"),
    ] {
        assert_eq!(render(template, os("terrace"), seed, shots, "a/b"), os(wanted), "{template}");
    }
}

#[test]
fn what_is_no_template_is_refused_with_its_reason() {
    for (text, wanted) in [
        ("", TemplateError::Empty),
        ("  ", TemplateError::Empty),
        ("../{stem}", TemplateError::Slash),
        ("{stem}\n", TemplateError::Control),
        ("{Stem}", TemplateError::Unknown("Stem".into())),
        ("{stem", TemplateError::Brace),
        ("stem}", TemplateError::Brace),
        ("{a{stem}", TemplateError::Brace),
    ] {
        assert_eq!(Template::parse(text), Err(wanted), "{text}");
    }
    assert!(TemplateError::Unknown("x".into()).to_string().contains("\"{x}\""));
}

#[test]
fn a_stem_of_broken_utf8_keeps_its_bytes_and_loses_its_control_characters() {
    assert_eq!(render("{stem}", OsStr::from_bytes(b"a\xffb\n"), None, 1, "").as_bytes(), b"a\xffb_");
    assert_eq!(render("{folder}", os("x"), None, 1, ""), os("image"));
}

#[test]
fn the_number_stands_at_the_stem_of_the_whole_set() {
    let set = SetNames::new(os("terrace"), ["terrace.txt", "Terrace.JPG.txt", "terrace.jpg"]);
    assert_eq!(set.members(1), ["terrace.txt", "Terrace.JPG.txt", "terrace.jpg"]);
    assert_eq!(set.members(2), ["terrace (2).txt", "Terrace (2).JPG.txt", "terrace (2).jpg"]);
    assert_eq!(set.note(1), "terrace.error.txt");
    assert_eq!(set.note(2), "terrace (2).error.txt");
    assert_eq!(result_name(os("terrace"), 2, "png", true), "terrace (2).png");
    // Cut at one place, if one of them has to be.
    for (length, cut) in [(239, false), (240, true), (250, true)] {
        for n in [1, 2] {
            let long = "a".repeat(length - if n > 1 { 4 } else { 0 });
            let (result, provenance) = (result_name(os(&long), n, "png", true), provenance_name(os(&long), n));
            let stem = |name: &OsStr, end: &str| name.to_str().unwrap().strip_suffix(end).unwrap().to_owned();
            let stem = (stem(&result, ".png"), stem(&provenance, ".reimagined.json"));
            assert_eq!(stem.0, stem.1);
            assert_eq!(stem.0.contains('~'), cut, "{length} {n}");
        }
        assert_eq!(result_name(os(&"a".repeat(length)), 1, "png", false).len(), length + 4);
    }
    assert_eq!(provenance_name(os("terrace"), 2), "terrace (2).reimagined.json");
}

#[test]
fn a_stem_with_dots_and_another_spelling_is_found_again() {
    let set = SetNames::new(os("caf\u{e9}.v2"), ["Cafe\u{301}.V2.jpg", "caf\u{e9}.v2"]);
    assert_eq!(set.members(3), ["Cafe\u{301}.V2 (3).jpg", "caf\u{e9}.v2 (3)"]);
}

#[test]
fn members_of_a_set_are_cut_at_the_same_place() {
    let stem = "ä".repeat(120);
    let names = [format!("{stem}.jpg"), format!("{}.jpg.txt", stem.to_uppercase())];
    let set = SetNames::new(os(&stem), &names);
    assert_eq!(set.members(1), names.each_ref().map(OsString::from));
    let cut = set.members(1000);
    let image = cut[0].to_str().unwrap().strip_suffix(".jpg").unwrap();
    assert_eq!(cut[1].to_str().unwrap().strip_suffix(".jpg.txt").unwrap(), image);
    assert_eq!(set.note(1000).to_str().unwrap().strip_suffix(".error.txt").unwrap(), image);
    assert!(image.contains('~') && image.ends_with(" (1000)"), "{image}");
}

#[test]
fn long_names_are_cut_at_a_character() {
    let name = numbered(os(&"€".repeat(100)), 12, os(".reimagined.json"));
    let text = name.to_str().unwrap();
    assert!(text.starts_with("€€") && text.ends_with(" (12).reimagined.json") && text.len() <= MAX_BYTES);
    let other = numbered(os(&format!("{}x", "€".repeat(100))), 12, os(".reimagined.json"));
    assert_ne!(name, other, "the hash tells stems apart that begin alike");
}

#[test]
fn names_are_compared_ignoring_case_and_composition() {
    for (a, b, same) in [
        ("Terrace.JPG", "terrace.jpg", true),
        ("e\u{301}", "É", true),
        ("ΣΑΣ", "σας", true),
        ("ß", "ss", false),
        ("a", "b", false),
    ] {
        assert_eq!(fold(os(a)) == fold(os(b)), same, "{a} {b}");
    }
    assert_eq!(fold(OsStr::from_bytes(b"A\xff")), fold(OsStr::from_bytes(b"a\xff")));
    assert_ne!(fold(OsStr::from_bytes(b"a\xfe")), fold(OsStr::from_bytes(b"a\xff")));
}

#[test]
fn the_first_free_number_is_taken() {
    assert_eq!(try_first_free(|n| Ok::<_, ()>(n < 4)), Ok(4));
    assert_eq!(try_first_free(|n| if n < 2 { Ok(true) } else { Err("lost") }), Err("lost"));
}

proptest! {
    #[test]
    fn a_numbered_name_is_always_one_short_component_with_its_suffix(
        stem in proptest::collection::vec(any::<u8>(), 0..300),
        n in 1_u32..2_000_000,
        suffix in "(\\.[a-zA-Zä]{1,12}){0,3}",
    ) {
        let name = numbered(OsStr::from_bytes(&stem), n, os(&suffix));
        prop_assert!(name.len() <= MAX_BYTES);
        prop_assert!(!name.as_bytes().contains(&b'/') && !name.as_bytes().contains(&0));
        prop_assert!(!matches!(name.as_bytes(), b"" | b"." | b".."));
        prop_assert!(name.as_bytes().ends_with(suffix.as_bytes()));
    }

    #[test]
    fn different_numbers_give_different_names(stem in "\\PC{0,120}", from in 1_u32..100_000) {
        let names: HashSet<_> = (from..from + 20).map(|n| numbered(os(&stem), n, os(".png"))).collect();
        prop_assert_eq!(names.len(), 20);
    }

    #[test]
    fn a_rendered_name_never_leaves_its_folder(
        stem in proptest::collection::vec(any::<u8>(), 0..60),
        template in prop_oneof!["\\{stem\\}", "\\{folder\\}\\{stem\\}", "[. ]{1,3}\\{stem\\}", "\\.\\.?"],
        folder in "[a-c. ]{0,4}(/[a-c]{1,3}){0,3}",
        shots in 1_u32..3,
    ) {
        prop_assume!(RelPath::new(&folder).is_some());
        let name = render(&template, OsStr::from_bytes(&stem), None, shots, &folder);
        let bytes = name.as_bytes();
        prop_assert!(!bytes.is_empty() && bytes[0] != b'.');
        prop_assert!(!bytes.contains(&b'/') && !bytes.iter().any(|b| *b < 0x20));
    }

    #[test]
    fn members_of_a_set_stay_apart(stem in "[a-z€]{1,90}", n in 1_u32..20_000) {
        let names = [format!("{stem}.jpg"), format!("{stem}.txt"), format!("{stem}.jpg.txt")];
        prop_assume!(names.iter().all(|name| name.len() <= MAX_BYTES));
        let set = SetNames::new(os(&stem), &names);
        let mut all = set.members(n);
        all.push(set.note(n));
        prop_assert!(all.iter().all(|name| name.len() <= MAX_BYTES));
        prop_assert_eq!(all.iter().collect::<HashSet<_>>().len(), 4);
    }
}
