//! The body of a model call, held against the parameter table of the API's page. Pure.
//!
//! Promises that every mistake is refused with a text that names the parameter. The page names "Bad
//! Request" and no other status for this, so all of them are 400.

use serde_json::{Map, Value};

/// A request that holds what the table asks for.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Request {
    pub(crate) prompt: String,
    pub(crate) structure_image_url: Option<String>,
    pub(crate) influence: f32,
    pub(crate) steps: u32,
    pub(crate) seed: Option<i64>,
    pub(crate) fast: bool,
    pub(crate) enhance: bool,
}

const SWITCHES: [&str; 6] = [
    "fast",
    "enhance_image",
    "prompt_content_moderation",
    "content_moderation",
    "ip_signal",
    "include_generation_prefix",
];

impl Request {
    /// Reads a body; the error is the text for the client.
    pub(crate) fn read(body: &[u8]) -> Result<Self, String> {
        let value: Value = serde_json::from_slice(body).map_err(|e| format!("the body is not JSON: {e}"))?;
        let Value::Object(fields) = &value else {
            return Err(format!("the body must be a JSON object, not {}", kind(&value)));
        };
        let known = ["prompt", "structure_image_url", "structure_ref_influence", "steps_num", "seed"];
        if let Some(name) =
            fields.keys().find(|name| !known.contains(&name.as_str()) && !SWITCHES.contains(&name.as_str()))
        {
            return Err(format!("unknown parameter \"{name}\""));
        }
        for name in SWITCHES {
            switch(fields, name)?;
        }
        Ok(Self {
            prompt: prompt(fields)?,
            structure_image_url: address(fields)?,
            influence: influence(fields)?,
            steps: steps(fields)?,
            seed: seed(fields)?,
            fast: switch(fields, "fast")?.unwrap_or(true),
            enhance: switch(fields, "enhance_image")?.unwrap_or(false),
        })
    }
}

fn prompt(fields: &Map<String, Value>) -> Result<String, String> {
    match fields.get("prompt") {
        None => Err("\"prompt\" is required".into()),
        Some(Value::String(text)) if text.trim().is_empty() => Err("\"prompt\" must not be empty".into()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(other) => Err(wrong("prompt", "a string", other)),
    }
}

fn address(fields: &Map<String, Value>) -> Result<Option<String>, String> {
    match fields.get("structure_image_url") {
        None => Ok(None),
        Some(Value::String(text)) if url::Url::parse(text).is_ok() => Ok(Some(text.clone())),
        Some(Value::String(_)) => Err("\"structure_image_url\" must be a URI".into()),
        Some(other) => Err(wrong("structure_image_url", "a string", other)),
    }
}

fn influence(fields: &Map<String, Value>) -> Result<f32, String> {
    match fields.get("structure_ref_influence") {
        None => Ok(0.75),
        Some(value) => match value.as_f64() {
            Some(number) if (0.0..=1.0).contains(&number) => Ok(number as f32),
            Some(number) => Err(format!("\"structure_ref_influence\" must be between 0 and 1, not {number}")),
            None => Err(wrong("structure_ref_influence", "a number", value)),
        },
    }
}

fn steps(fields: &Map<String, Value>) -> Result<u32, String> {
    match fields.get("steps_num") {
        None => Ok(12),
        Some(value) if value.is_i64() || value.is_u64() => match value.as_u64() {
            Some(number @ 4..=50) => Ok(number as u32),
            _ => Err(format!("\"steps_num\" must be between 4 and 50, not {value}")),
        },
        Some(value) => Err(wrong("steps_num", "an integer", value)),
    }
}

fn seed(fields: &Map<String, Value>) -> Result<Option<i64>, String> {
    match fields.get("seed") {
        None => Ok(None),
        Some(value) if value.is_u64() && !value.is_i64() => {
            Err(format!("\"seed\" must be at most {}, not {value}", i64::MAX))
        }
        Some(value) => value.as_i64().map(Some).ok_or_else(|| wrong("seed", "an integer", value)),
    }
}

fn switch(fields: &Map<String, Value>, name: &str) -> Result<Option<bool>, String> {
    match fields.get(name) {
        None => Ok(None),
        Some(value) => value.as_bool().map(Some).ok_or_else(|| wrong(name, "true or false", value)),
    }
}

fn wrong(name: &str, wanted: &str, value: &Value) -> String {
    format!("\"{name}\" must be {wanted}, not {}", kind(value))
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(number) if number.is_f64() => "a number with a fraction",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn each_line_of_the_table_is_held() {
        let table = [
            ("", "not JSON"),
            ("nonsense", "not JSON"),
            ("[]", "a JSON object, not an array"),
            ("{}", "\"prompt\" is required"),
            (r#"{"prompt":""}"#, "\"prompt\" must not be empty"),
            (r#"{"prompt":" \n"}"#, "\"prompt\" must not be empty"),
            (r#"{"prompt":7}"#, "\"prompt\" must be a string, not a number"),
            (r#"{"prompt":null}"#, "\"prompt\" must be a string, not null"),
            (r#"{"prompt":"a","promt":"b"}"#, "unknown parameter \"promt\""),
            (r#"{"prompt":"a","variants":2}"#, "unknown parameter \"variants\""),
            (r#"{"prompt":"a","structure_image_url":1}"#, "\"structure_image_url\" must be a string"),
            (r#"{"prompt":"a","structure_image_url":"cat.png"}"#, "\"structure_image_url\" must be a URI"),
            (r#"{"prompt":"a","structure_ref_influence":"0.5"}"#, "\"structure_ref_influence\" must be a number"),
            (r#"{"prompt":"a","structure_ref_influence":1.01}"#, "between 0 and 1, not 1.01"),
            (r#"{"prompt":"a","structure_ref_influence":-0.1}"#, "between 0 and 1, not -0.1"),
            (r#"{"prompt":"a","steps_num":3}"#, "between 4 and 50, not 3"),
            (r#"{"prompt":"a","steps_num":51}"#, "between 4 and 50, not 51"),
            (r#"{"prompt":"a","steps_num":-5}"#, "between 4 and 50, not -5"),
            (r#"{"prompt":"a","steps_num":12.0}"#, "\"steps_num\" must be an integer, not a number with a fraction"),
            (r#"{"prompt":"a","seed":"42"}"#, "\"seed\" must be an integer, not a string"),
            (r#"{"prompt":"a","seed":4.2}"#, "\"seed\" must be an integer"),
            (r#"{"prompt":"a","seed":18446744073709551615}"#, "\"seed\" must be at most"),
            (r#"{"prompt":"a","fast":1}"#, "\"fast\" must be true or false, not a number"),
            (r#"{"prompt":"a","enhance_image":"no"}"#, "\"enhance_image\" must be true or false"),
            (r#"{"prompt":"a","prompt_content_moderation":0}"#, "\"prompt_content_moderation\" must be"),
            (r#"{"prompt":"a","content_moderation":null}"#, "\"content_moderation\" must be"),
            (r#"{"prompt":"a","ip_signal":[]}"#, "\"ip_signal\" must be"),
            (r#"{"prompt":"a","include_generation_prefix":{}}"#, "\"include_generation_prefix\" must be"),
        ];
        for (body, part) in table {
            let told = Request::read(body.as_bytes()).unwrap_err();
            assert!(told.contains(part), "{body}: {told}");
        }
    }

    #[test]
    fn the_pages_own_example_and_the_ends_of_ranges_are_accepted() {
        let full = r#"{"prompt":"a","structure_image_url":"https://x.example/a.png","structure_ref_influence":0.75,
            "steps_num":12,"seed":42,"fast":true,"enhance_image":false,"prompt_content_moderation":true,
            "content_moderation":false,"ip_signal":false,"include_generation_prefix":true}"#;
        assert_eq!(Request::read(full.as_bytes()).unwrap().seed, Some(42));
        for ends in [
            r#""structure_ref_influence":0,"steps_num":4,"seed":-1"#,
            r#""structure_ref_influence":1,"steps_num":50,"seed":0"#,
        ] {
            assert!(Request::read(format!("{{\"prompt\":\"a\",{ends}}}").as_bytes()).is_ok(), "{ends}");
        }
    }
}
