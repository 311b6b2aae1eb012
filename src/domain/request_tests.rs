#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use super::*;
use crate::domain::preset::{By, Layer, Rules, Setting, merge};

fn resolved(entries: &[(By, Key, Value)]) -> Resolved {
    let layers: Vec<Layer> = entries
        .iter()
        .map(|(by, key, value)| {
            let mut layer = Layer::new();
            let source = if by.is_sidecar() { "s" } else { "p" };
            layer.put(*key, Setting::Set(value.clone()), Origin { by: *by, source: source.into(), line: None });
            layer
        })
        .collect();
    merge(&layers, &Rules { max_variants: 8, locked: BTreeSet::new() }).unwrap()
}

fn text(text: &str) -> Value {
    Value::Text(text.into())
}

#[test]
fn shots_have_the_seeds_that_were_asked_for() {
    let (variants, seed, seeds) = (Key::Variants, Key::Seed, Key::Seeds);
    for (set, shots) in [
        (vec![], Seeds::Unsaid),
        (vec![(variants, Value::Integer(1))], Seeds::Unsaid),
        (vec![(variants, Value::Integer(3))], Seeds::Random(3)),
        (vec![(seed, Value::Integer(5))], Seeds::Fixed(vec![5])),
        (vec![(seed, Value::Integer(5)), (variants, Value::Integer(3))], Seeds::Fixed(vec![5, 6, 7])),
        (vec![(seed, Value::Integer(-1)), (variants, Value::Integer(2))], Seeds::Fixed(vec![-1, 0])),
        (vec![(seed, Value::Integer(5)), (seeds, Value::Integers(vec![7, 42]))], Seeds::Fixed(vec![7, 42])),
    ] {
        let entries: Vec<_> = set.into_iter().map(|(key, value)| (By::Preset, key, value)).collect();
        let plan = plan_request(&resolved(&entries), false);
        assert_eq!(plan.shots, shots, "{entries:?}");
        assert!(plan.shots.count() >= 1);
    }
}

#[test]
fn a_sidecars_address_beats_the_picture_and_a_presets_does_not() {
    let url = "https://example.com/a.png";
    let given = RefPlan::Given { url: url.into() };
    for (by, has_picture, reference) in [
        (Some(By::Request), true, given.clone()),
        (Some(By::Request), false, given.clone()),
        (Some(By::Preset), true, RefPlan::Picture),
        (Some(By::Preset), false, given),
        (None, true, RefPlan::Picture),
        (None, false, RefPlan::None),
    ] {
        let entries: Vec<_> = by.map(|by| (by, Key::StructureImageUrl, text(url))).into_iter().collect();
        let plan = plan_request(&resolved(&entries), has_picture);
        assert_eq!(plan.reference, reference, "{by:?} {has_picture}");
        let counts = matches!(reference, RefPlan::Given { .. });
        assert_eq!(plan.origins.contains_key(&Key::StructureImageUrl), counts);
    }
}

#[test]
fn the_body_holds_what_was_set_in_the_order_of_the_apis_table() {
    let plan = plan_request(
        &resolved(&[
            (By::Preset, Key::Fast, Value::Flag(true)),
            (By::Preset, Key::StepsNum, Value::Integer(12)),
            (By::Preset, Key::StructureRefInfluence, Value::Number(0.75)),
            (By::Preset, Key::PromptSuffix, text(" at dusk")),
            (By::Preset, Key::Priority, Value::Integer(9)),
            (By::Text, Key::Prompt, text("a café")),
        ]),
        true,
    );
    let body = serde_json::to_string(&plan.body(Some(42), Some("https://assets/x"))).unwrap();
    assert_eq!(
        body,
        "{\"prompt\":\"a café at dusk\",\"structure_image_url\":\"https://assets/x\",\
         \"structure_ref_influence\":0.75,\"steps_num\":12,\"seed\":42,\"fast\":true}"
    );
    let bare = plan_request(&resolved(&[(By::Text, Key::Prompt, text("x"))]), false);
    assert_eq!(serde_json::to_string(&bare.body(None, Some("ignored"))).unwrap(), "{\"prompt\":\"x\"}");
}

#[test]
fn a_request_is_known_again_by_what_is_asked_for_and_not_by_where_it_was_written() {
    let plan = |entries: &[(By, Key, Value)], picture| plan_request(&resolved(entries), picture);
    let base = plan(&[(By::Text, Key::Prompt, text("x"))], true);
    assert_eq!(base.written(), plan(&[(By::Preset, Key::Prompt, text("x"))], true).written());
    for other in [
        plan(&[(By::Text, Key::Prompt, text("y"))], true),
        plan(&[(By::Text, Key::Prompt, text("x"))], false),
        plan(&[(By::Text, Key::Prompt, text("x")), (By::Preset, Key::Fast, Value::Flag(false))], true),
        plan(&[(By::Text, Key::Prompt, text("x")), (By::Preset, Key::Seed, Value::Integer(1))], true),
        plan(&[(By::Text, Key::Prompt, text("x")), (By::Preset, Key::Variants, Value::Integer(2))], true),
    ] {
        assert_ne!(base.fingerprint(), other.fingerprint(), "{other:?}");
    }
}

#[test]
fn without_a_prompt_it_is_not_ready() {
    assert!(!plan_request(&resolved(&[(By::Preset, Key::PromptPrefix, text("a"))]), true).is_ready());
    assert!(plan_request(&resolved(&[(By::Preset, Key::Prompt, text("a"))]), true).is_ready());
}
