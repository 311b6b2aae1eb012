#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

fn origin(by: By, source: &str) -> Origin {
    Origin { by, source: source.into(), line: Some(1) }
}

fn layer(by: By, source: &str, entries: &[(Key, Setting)]) -> Layer {
    let mut layer = Layer::new();
    for (key, setting) in entries {
        layer.put(*key, setting.clone(), origin(by, source));
    }
    layer
}

fn text(text: &str) -> Setting {
    Setting::Set(Value::Text(text.into()))
}

fn int(n: i64) -> Setting {
    Setting::Set(Value::Integer(n))
}

fn rules() -> Rules {
    Rules { max_variants: 8, locked: BTreeSet::new() }
}

/// Whether a preset is at fault.
fn are_presets(faults: &Faults) -> bool {
    faults.0.iter().any(|fault| !fault.origin.by.is_sidecar())
}

#[test]
fn the_inner_layer_replaces_the_outer_and_values_keep_where_they_came_from() {
    let outer = layer(By::Preset, "config.toml [preset]", &[(Key::Prompt, text("a")), (Key::StepsNum, int(12))]);
    let inner = layer(By::Preset, "inbox/preset.toml", &[(Key::Prompt, text("b"))]);
    let resolved = merge(&[outer, inner], &rules()).unwrap();
    assert_eq!(resolved.prompt().as_deref(), Some("b"));
    assert_eq!(resolved.get(Key::Prompt).unwrap().1.to_string(), "inbox/preset.toml:1");
    assert_eq!(resolved.get(Key::StepsNum).unwrap().1.source.as_ref(), "config.toml [preset]");
}

#[test]
fn a_text_beats_the_prompt_of_a_request_in_whatever_order_they_come() {
    let txt = layer(By::Text, "a.txt", &[(Key::Prompt, text("text"))]);
    let toml = layer(By::Request, "a.toml", &[(Key::Prompt, text("toml")), (Key::PromptPrefix, text("> "))]);
    let preset = layer(By::Preset, "p", &[(Key::Prompt, text("preset"))]);
    let resolved = merge(&[txt, preset, toml], &rules()).unwrap();
    assert_eq!(resolved.prompt().as_deref(), Some("> text"));
}

#[test]
fn variants_and_seeds_are_one_setting() {
    let seeds = layer(By::Preset, "p", &[(Key::Seeds, Setting::Set(Value::Integers(vec![7, 42])))]);
    let variants = layer(By::Request, "a.toml", &[(Key::Variants, int(3))]);
    let unset = layer(By::Request, "a.toml", &[(Key::Variants, Setting::Unset)]);
    assert_eq!(merge(&[seeds.clone(), variants], &rules()).unwrap().shots(), Shots::Variants(3));
    assert_eq!(merge(&[seeds.clone(), unset], &rules()).unwrap().shots(), Shots::One);
    assert_eq!(merge(&[seeds], &rules()).unwrap().shots(), Shots::Seeds(vec![7, 42]));
}

#[test]
fn unset_leaves_a_parameter_out_and_a_blank_prompt_is_none() {
    let outer =
        layer(By::Preset, "p", &[(Key::Prompt, text("a")), (Key::PromptPrefix, text("x")), (Key::Seed, int(1))]);
    let inner = layer(By::Preset, "q", &[(Key::Prompt, text("  ")), (Key::Seed, Setting::Unset)]);
    let resolved = merge(&[outer, inner], &rules()).unwrap();
    assert_eq!(resolved.prompt(), None);
    assert_eq!(resolved.seed(), None);
}

#[test]
fn nothing_set_means_the_defaults() {
    let resolved = merge(&[], &rules()).unwrap();
    assert!(resolved.enabled());
    assert_eq!(resolved.priority(), 0);
    assert_eq!(resolved.sidecar(), SidecarRule::Optional);
    assert_eq!(resolved.reference(), ReferenceRule::Optional);
    assert_eq!((resolved.prompt(), resolved.shots()), (None, Shots::One));
}

#[test]
fn a_sidecar_may_not_set_what_is_locked_but_a_preset_may() {
    let rules = Rules { locked: [Key::Variants, Key::Prompt].into(), ..rules() };
    let seeds = Setting::Set(Value::Integers(vec![1]));
    for (by, key, setting, good) in [
        (By::Preset, Key::Variants, int(2), true),
        (By::Request, Key::Variants, int(2), false),
        (By::Request, Key::Seeds, seeds, false),
        (By::Request, Key::Variants, Setting::Unset, false),
        (By::Text, Key::Prompt, text("a"), false),
        (By::Request, Key::Seed, int(2), true),
    ] {
        let result = merge(&[layer(by, "x", &[(key, setting)])], &rules);
        assert_eq!(result.is_ok(), good, "{by:?} {key}");
        if let Err(faults) = result {
            assert!(!are_presets(&faults));
            assert!(faults.to_string().contains("locked"), "{faults}");
        }
    }
}

#[test]
fn too_many_variants_are_the_fault_of_the_layer_that_asks_for_them() {
    let many = |by| layer(by, "x", &[(Key::Variants, int(9))]);
    let fine = layer(By::Request, "y", &[(Key::Variants, int(8))]);
    assert!(!are_presets(&merge(&[many(By::Request)], &rules()).unwrap_err()));
    let faults = merge(&[many(By::Preset), fine.clone()], &rules()).unwrap_err();
    assert!(are_presets(&faults), "a broken preset is broken even where a sidecar overrides it");
    assert_eq!(faults.0[0].origin.line, Some(1));
    assert!(merge(&[fine], &rules()).is_ok());
}

#[test]
fn seeds_in_a_row_must_all_be_numbers_that_can_be_sent() {
    let seed = layer(By::Preset, "p", &[(Key::Seed, int(i64::MAX - 1))]);
    let variants = |n| layer(By::Request, "s", &[(Key::Variants, int(n))]);
    assert!(merge(&[seed.clone(), variants(2)], &rules()).is_ok());
    let faults = merge(&[seed, variants(3)], &rules()).unwrap_err();
    assert!(!are_presets(&faults));
}

fn any_setting(key: Key) -> BoxedStrategy<Setting> {
    let set = match key.kind() {
        crate::domain::params::Kind::Flag => any::<bool>().prop_map(Value::Flag).boxed(),
        crate::domain::params::Kind::Integers => prop::collection::btree_set(any::<i64>(), 1..4)
            .prop_map(|set| Value::Integers(set.into_iter().collect()))
            .boxed(),
        crate::domain::params::Kind::Number(..) => (0.0..=1.0).prop_map(Value::Number).boxed(),
        crate::domain::params::Kind::Integer(..) => (4i64..=8).prop_map(Value::Integer).boxed(),
        _ => "[a-z]{1,3}".prop_map(Value::Text).boxed(),
    };
    prop_oneof![3 => set.prop_map(Setting::Set), 1 => Just(Setting::Unset)].boxed()
}

fn any_layer(source: &'static str) -> impl Strategy<Value = Layer> {
    let entry = prop::sample::select(Key::ALL.to_vec()).prop_flat_map(|key| (Just(key), any_setting(key)));
    prop::collection::vec(entry, 0..8).prop_map(move |entries| layer(By::Preset, source, &entries))
}

proptest! {
    #[test]
    fn laying_over_one_another_is_associative(a in any_layer("a"), b in any_layer("b"), c in any_layer("c")) {
        let left = a.clone().under(&b).under(&c);
        let right = a.under(&b.under(&c));
        prop_assert_eq!(left, right);
    }

    #[test]
    fn the_innermost_layer_always_has_its_way(a in any_layer("a"), b in any_layer("b"), c in any_layer("c")) {
        let resolved = lay(&[a, b, c.clone()]);
        for (key, setting, origin) in c.iter() {
            match setting {
                Setting::Set(value) => prop_assert_eq!(resolved.get(key), Some((value, origin))),
                Setting::Unset => prop_assert_eq!(resolved.get(key), None),
            }
        }
        let shots = [Key::Variants, Key::Seeds].into_iter().filter(|key| resolved.get(*key).is_some()).count();
        prop_assert!(shots <= 1);
    }
}
