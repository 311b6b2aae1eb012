#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;
use crate::config::preset_file;

type Parser = fn(&[u8], &str) -> Result<Told<Layer>, Problems>;

fn complaint(parse: Parser, text: &str) -> String {
    let problems = parse(text.as_bytes(), "terrace").expect_err(text);
    for problem in &problems {
        assert!(problem.line.is_some() && problem.column.is_some(), "{text}: {problem}");
    }
    problems.to_string()
}

fn value(layer: &Layer, key: Key) -> Option<Value> {
    match layer.get(key) {
        Some((Setting::Set(value), _)) => Some(value.clone()),
        _ => None,
    }
}

#[test]
fn a_text_is_the_prompt_without_bom_and_blank_space() {
    let layer = parse_txt("\u{feff}\n\n  A café, at dusk\nwith rain \n".as_bytes(), "a.txt").unwrap().value;
    assert_eq!(value(&layer, Key::Prompt), Some(Value::Text("A café, at dusk\nwith rain".into())));
    assert_eq!(layer.get(Key::Prompt).unwrap().1.line, Some(3));
    // The word is a prompt here: there is no syntax in a text.
    assert!(value(&parse_txt(b"unset", "a.txt").unwrap().value, Key::Prompt).is_some());
    for blank in ["", " \n\t", "\u{feff}"] {
        complaint(parse_txt, blank);
    }
    assert!(parse_txt(b"a\xff", "a.txt").is_err());
}

#[test]
fn the_apis_own_request_body_works_as_it_is() {
    let body = r#"{"prompt": "autumn", "structure_image_url": "https://example.com/a.png",
        "structure_ref_influence": 0.75, "steps_num": 12.0, "seed": 42, "fast": true, "enhance_image": false,
        "prompt_content_moderation": true, "content_moderation": false, "ip_signal": false,
        "include_generation_prefix": true}"#;
    let layer = parse_json(body.as_bytes(), "a.json").unwrap().value;
    assert_eq!(layer.iter().count(), 11);
    assert_eq!(value(&layer, Key::StepsNum), Some(Value::Integer(12)));
    assert_eq!(layer.get(Key::StepsNum).unwrap().1.line, Some(2));
}

#[test]
fn json_is_strict() {
    for bad in [
        "{\"prompt\": \"a\",}",
        "{\"prompt\": \"a\"} // done",
        "/* x */ {}",
        "{'prompt': 'a'}",
        "{prompt: \"a\"}",
        "{\"seed\": 0x1F}",
        "{\"seed\": +1}",
        "{\"seed\": 01}",
        "{\"structure_ref_influence\": .5}",
        "{\"structure_ref_influence\": NaN}",
        "{\"structure_ref_influence\": 1e999}",
        "{\"prompt\": \"a\nb\"}",
        "{\"prompt\": \"\\ud800\"}",
        "{} {}",
        "{\"prompt\": \"a\"",
        "[]",
        "\"prompt\"",
        "null",
        "",
        " ",
    ] {
        complaint(parse_json, bad);
    }
    complaint(parse_json, &"[".repeat(500_000));
    complaint(parse_json, &"{\"a\":".repeat(100_000));
    complaint(parse_toml, &format!("a = {}", "[".repeat(500_000)));
}

#[test]
fn wrong_keys_and_values_are_told_all_at_once_with_places_and_names() {
    let text = "{\n  \"steps\": 12,\n  \"seed\": 1.5,\n  \"fast\": null,\n  \"enabled\": true,\n  \"seed\": 2\n}";
    insta_like(
        &complaint(parse_json, text),
        "terrace:2: steps: unknown key; did you mean \"steps_num\"?\n\
         terrace:3: seed: must be a whole number, not a number with a fraction\n\
         terrace:4: fast: is null: to leave a parameter out, write \"unset\"\n\
         terrace:5: enabled: is not allowed in a sidecar: it belongs into the folder's preset.toml\n\
         terrace:6: seed: stands here twice: give it once",
    );
}

fn insta_like(is: &str, should: &str) {
    assert_eq!(is, should, "\n{is}\n");
}

#[test]
fn values_are_of_the_right_type_and_within_their_range() {
    for (line, good) in [
        ("steps_num = 4", true),
        ("steps_num = 51", false),
        ("steps_num = 12.0", false),
        ("steps_num = \"12\"", false),
        ("structure_ref_influence = 1", true),
        ("structure_ref_influence = -0.1", false),
        ("structure_ref_influence = nan", false),
        ("structure_ref_influence = inf", false),
        ("seed = 9223372036854775807", true),
        ("seed = 9223372036854775808", false),
        ("seed = 0x10", true),
        ("seed = \"unset\"", true),
        ("prompt = \"unset\"", true),
        ("prompt = \" \"", false),
        ("fast = \"true\"", false),
        ("variants = 4", true),
        ("variants = 0", false),
        ("seeds = [7, 42]", true),
        ("seeds = []", false),
        ("seeds = [7, 7]", false),
        ("seeds = [7, \"a\"]", false),
        ("variants = 2\nseeds = [1]", false),
        ("structure_image_url = \"http://127.0.0.1/a.png\"", true),
        ("structure_image_url = \"http://example.com/a.png\"", false),
        ("structure_image_url = \"data:image/png;base64,AA==\"", true),
        ("prompt = null", false),
        ("prompt = \"a\"\nprompt = \"b\"", false),
        ("[prompt]\na = 1", false),
        ("sidecar = \"ignore\"", false),
    ] {
        assert_eq!(parse_toml(line.as_bytes(), "a.toml").is_ok(), good, "{line}");
        if !good {
            complaint(parse_toml, line);
        }
    }
    assert!(complaint(parse_toml, "fast = null").contains("unset"));
    assert_eq!(complaint(parse_toml, "seed = 1\nseed = 2"), "terrace:2: seed: stands here twice: give it once");
    assert!(complaint(parse_toml, "prompt = autumn cafe").starts_with("terrace:1: prompt: "));
}

#[test]
fn a_preset_takes_what_a_sidecar_may_not() {
    let text = b"sidecar = \"ignore\"\nreference = \"none\"\nenabled = false\npriority = -3\nprompt = \" \"\n";
    let layer = preset_file::parse(text, "inbox/preset.toml").unwrap().value;
    assert_eq!(value(&layer, Key::Priority), Some(Value::Integer(-3)));
    assert_eq!(layer.get(Key::Prompt).unwrap().0, &Setting::Unset);
    assert!(preset_file::parse(b"", "inbox/preset.toml").unwrap().value.is_empty());
    assert!(complaint(preset_file::parse, "referense = 1").contains("did you mean \"reference\"?"));
    assert!(preset_file::parse(&vec![b'#'; 1024 * 1024 + 1], "p").is_err());
}

#[test]
fn after_a_slip_in_the_syntax_the_rest_is_read_on() {
    let told = complaint(preset_file::parse, "prompt = \nsteps = 3\nseed = [\n");
    assert!(told.contains("terrace:1: "), "{told}");
    assert!(told.contains("steps_num"), "{told}");
}

proptest! {
    #[test]
    fn no_bytes_make_a_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        for parse in [parse_txt, parse_toml, parse_json, preset_file::parse] as [Parser; 4] {
            let _ = parse(&bytes, "x").map_err(|problems| problems.to_string());
        }
    }

    #[test]
    fn every_problem_has_a_line_that_is_there(
        text in "((seed|sed|prompt|fast|\"|\\{|\\}|\\[|\\]|=|:|,|1|x|'| |#|é|\n){0,4}\n?){0,12}"
    ) {
        for parse in [parse_txt, parse_toml, parse_json, preset_file::parse] as [Parser; 4] {
            let Err(problems) = parse(text.as_bytes(), "x") else { continue };
            for problem in &problems {
                let lines = 1 + text.matches('\n').count() as u32;
                prop_assert!(problem.line.is_some_and(|line| (1..=lines).contains(&line)), "{:?}: {}", text, problem);
            }
        }
    }
}
