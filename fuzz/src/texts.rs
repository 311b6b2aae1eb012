//! What people write: sidecars and presets.

use std::collections::{BTreeMap, BTreeSet};

use reimagined::config::preset_file;
use reimagined::config::sidecar::{parse_json, parse_toml, parse_txt};
use reimagined::config::{Problems, Told};
use reimagined::domain::params::{Key, UNSET, Value};
use reimagined::domain::preset::{By, Layer, Rules, Setting, merge};
use reimagined::domain::request::plan_request;

/// The same bytes as each kind of sidecar.
pub fn sidecar(data: &[u8]) {
    let txt = judged(parse_txt(data, "a.txt"), data);
    if let Some(layer) = &txt {
        let text = std::str::from_utf8(data).expect("only UTF-8 is taken");
        let prompt = text.strip_prefix('\u{feff}').unwrap_or(text).trim();
        assert_eq!(settings(layer), [(Key::Prompt, Setting::Set(Value::Text(prompt.to_owned())))].into());
    }
    for layer in
        [judged(parse_toml(data, "a.toml"), data), judged(parse_json(data, "a.json"), data)].into_iter().flatten()
    {
        assert!(settings(&layer).keys().all(|key| key.in_sidecar()), "{layer:?}");
        comes_back(&layer, |text| parse_toml(text, "a.toml"), parse_json);
        // Beside a text, in any order: the text has the prompt.
        if let Some(txt) = &txt {
            let one = merge(&[layer.clone(), txt.clone()], &rules());
            assert_eq!(one, merge(&[txt.clone(), layer], &rules()));
        }
    }
}

/// A folder's preset.
pub fn preset(data: &[u8]) {
    let Some(layer) = judged(preset_file::parse(data, "preset.toml"), data) else { return };
    comes_back(
        &layer,
        |text| preset_file::parse(text, "preset.toml"),
        |_, _| Ok(Told { value: layer.clone(), warnings: Vec::new() }),
    );
}

fn rules() -> Rules {
    Rules { max_variants: 8, locked: BTreeSet::new() }
}

fn settings(layer: &Layer) -> BTreeMap<Key, Setting> {
    layer.iter().map(|(key, setting, _)| (key, setting.clone())).collect()
}

/// A complaint names the file and a place in it, and fits on a screen; a layer holds only what may stand in it.
fn judged(read: Result<Told<Layer>, Problems>, data: &[u8]) -> Option<Layer> {
    let lines = 1 + data.iter().filter(|b| **b == b'\n').count();
    match read {
        Ok(Told { value: layer, warnings }) => {
            assert!(warnings.iter().all(|warning| warning.line.is_some()), "{warnings:?}");
            for (key, setting, origin) in layer.iter() {
                if let Setting::Set(value) = setting {
                    assert_eq!(key.check(value), Ok(()), "{key}");
                }
                assert!(origin.line.is_none_or(|line| (1..=lines).contains(&(line as usize))), "{origin} of {lines}");
            }
            Some(layer)
        }
        Err(problems) => {
            assert!((1..=200).contains(&problems.iter().count()), "{}", problems.iter().count());
            for problem in problems.iter() {
                let place = problem.line.zip(problem.column);
                assert!(
                    place.is_none_or(|(line, column)| line as usize <= lines && line > 0 && column > 0),
                    "{problem:?}"
                );
                assert!(!problem.to_string().is_empty() && !problem.message.is_empty());
            }
            None
        }
    }
}

/// What was read says the same when it is written down and read again, and can be asked for.
fn comes_back(
    layer: &Layer,
    toml: impl Fn(&[u8]) -> Result<Told<Layer>, Problems>,
    json: impl Fn(&[u8], &str) -> Result<Told<Layer>, Problems>,
) {
    let mut as_json = serde_json::Map::new();
    let mut as_toml = toml::Table::new();
    for (key, setting, _) in layer.iter() {
        let (in_json, in_toml) = match setting {
            Setting::Unset => (UNSET.into(), UNSET.into()),
            Setting::Set(value) => (value.to_json(), to_toml(value)),
        };
        as_json.insert(key.name().to_owned(), in_json);
        as_toml.insert(key.name().to_owned(), in_toml);
    }
    let as_json = serde_json::Value::Object(as_json).to_string();
    if !layer.is_empty() {
        let again = toml(as_toml.to_string().as_bytes()).expect("what was read can be written as TOML");
        assert_eq!(settings(&again.value), settings(layer));
        let again = json(as_json.as_bytes(), "b.json").expect("what was read can be written as JSON");
        assert_eq!(settings(&again.value), settings(layer));
    }
    let Ok(resolved) = merge(std::slice::from_ref(layer), &rules()) else { return };
    for has_picture in [true, false] {
        let plan = plan_request(&resolved, has_picture);
        assert!((1..=8).contains(&plan.shots.count()), "{:?}", plan.shots);
        assert_eq!(plan.is_ready(), resolved.prompt().is_some());
        // A layer of presets knows keys that no request does.
        for key in plan.body(Some(7), None).keys() {
            assert!(Key::parse(key).is_some_and(Key::is_api), "{key}");
        }
    }
    let nobody = |by: By| by.is_sidecar() && !layer.iter().all(|(_, _, origin)| origin.by == by);
    assert!(layer.is_empty() || !nobody(layer.iter().next().map_or(By::Preset, |(_, _, origin)| origin.by)));
}

fn to_toml(value: &Value) -> toml::Value {
    match value {
        Value::Text(text) => text.as_str().into(),
        Value::Integer(n) => (*n).into(),
        Value::Number(n) => (*n).into(),
        Value::Flag(flag) => (*flag).into(),
        Value::Integers(list) => list.clone().into(),
    }
}
