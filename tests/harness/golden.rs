//! The float64 reference values of `tests/golden/attention.json` and the closed-form inputs they belong to.

use std::collections::BTreeMap;

/// Outputs by case name, each [2, N, 16].
#[derive(Debug)]
pub struct Golden {
    cases: BTreeMap<String, Vec<f64>>,
}

impl Golden {
    /// Reads the file beside the tests, which is part of the program: a page has no files.
    ///
    /// # Panics
    /// If it is not what it should be.
    pub fn load() -> Golden {
        let text = include_str!("../golden/attention.json");
        let json: serde_json::Value = serde_json::from_str(text).unwrap_or_else(|e| panic!("attention.json: {e}"));
        let cases =
            json["cases"].as_object().map(|cases| cases.iter().map(|(name, v)| (name.clone(), flat(v))).collect());
        Golden { cases: cases.unwrap_or_else(|| panic!("attention.json has no cases")) }
    }

    /// The output of a case as [2, N, 16], flat.
    ///
    /// # Panics
    /// If there is no such case.
    pub fn case(&self, name: &str) -> &[f64] {
        self.cases.get(name).unwrap_or_else(|| panic!("no golden case \"{name}\"; there are {:?}", self.cases.keys()))
    }

    /// Names of all cases.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.cases.keys().map(String::as_str)
    }
}

fn flat(value: &serde_json::Value) -> Vec<f64> {
    match value {
        serde_json::Value::Array(items) => items.iter().flat_map(flat).collect(),
        serde_json::Value::Number(number) => number.as_f64().into_iter().collect(),
        _ => Vec::new(),
    }
}

/// q, k, v [2, 2, tokens, 8] of the golden cases: q = 1.5 sin(.37 i + .11), k = 1.5 sin(.73 i + .52), v = sin(1.19 i + 1.3).
pub fn golden_inputs(tokens: usize) -> [Vec<f64>; 3] {
    let wave = |amplitude: f64, frequency: f64, phase: f64| {
        (0..2 * 2 * tokens * 8).map(|i| amplitude * (frequency * i as f64 + phase).sin()).collect()
    };
    [wave(1.5, 0.37, 0.11), wave(1.5, 0.73, 0.52), wave(1.0, 1.19, 1.3)]
}
