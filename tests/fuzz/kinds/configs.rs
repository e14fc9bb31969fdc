//! Configurations: TOML of any nesting with any number, and `--set` of anything.

use std::sync::LazyLock;

use lara_models::train::TrainConfig;
use lara_runtime::attention::AttentionConfig;

use super::{Rooms, worst};
use crate::case::{Answer, Case, answer};
use crate::source::Source;

/// Sections with their keys, as the default configuration has them.
static KEYS: LazyLock<Vec<(String, String)>> = LazyLock::new(|| {
    let text = TrainConfig::default().to_toml().unwrap_or_default();
    let mut section = String::new();
    let mut keys = Vec::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name.to_owned();
        } else if let Some((key, _)) = line.split_once(" = ") {
            keys.push((section.clone(), key.to_owned()));
        }
    }
    keys
});

/// Texts that some key takes.
const WORDS: [&str; 22] = [
    "lara",
    "softmax",
    "ra",
    "rfa",
    "performer",
    "avg",
    "token",
    "timm",
    "jax",
    "digits",
    "mnist",
    "folder",
    "mis-opt",
    "mis-bh",
    "exact",
    "released",
    "fourier",
    "favorp",
    "pool-vmixed",
    "antithetic",
    "true",
    "false",
];

pub(super) fn toml(case: &mut Case<'_>, _: &mut Rooms) -> Answer {
    let mut bytes = text(&mut case.source).into_bytes();
    if case.source.chance(1, 3) {
        case.source.damage(&mut bytes);
    }
    case.keep("input.toml", &bytes);
    let text = String::from_utf8_lossy(&bytes);
    TrainConfig::from_toml(&text, "input.toml").map_or_else(|error| answer::<()>(Err(error)), |config| used(&config))
}

pub(super) fn set(case: &mut Case<'_>, _: &mut Rooms) -> Answer {
    let preset = case.source.pick(&["digits", "mnist"]);
    let sets: Vec<String> = (0..case.source.range(1..=3)).map(|_| assignment(&mut case.source)).collect();
    case.keep("sets.txt", sets.join("\n").as_bytes());
    TrainConfig::load(preset, &sets).map_or_else(|error| answer::<()>(Err(error)), |config| used(&config))
}

pub(super) fn attention(case: &mut Case<'_>, _: &mut Rooms) -> Answer {
    let sets: Vec<String> = (0..case.source.range(1..=3)).map(|_| assignment(&mut case.source)).collect();
    case.keep("sets.txt", sets.join("\n").as_bytes());
    answer(TrainConfig::attention_from(&AttentionConfig::default(), &sets))
}

/// What every command does with a configuration before it opens a device.
fn used(config: &TrainConfig) -> Answer {
    let valid = config.validate();
    if valid.is_ok() {
        let text = config.to_toml().expect("a valid configuration can be written");
        let again = TrainConfig::from_toml(&text, "again.toml").expect("what was written can be read");
        assert_eq!(again.to_toml().expect("and written again"), text);
        let steps = config.steps_per_epoch(1437 / config.train.batch_size.max(1) as u64);
        let schedule = config.schedule(steps);
        for step in [0, 1, steps, schedule.total_steps / 2, schedule.total_steps, u64::MAX] {
            assert!(schedule.at(step).is_finite(), "the learning rate of step {step} is {}", schedule.at(step));
        }
    }
    worst([answer(valid)])
}

/// `KEY=VALUE`, or something like it.
pub(super) fn assignment(source: &mut Source<'_>) -> String {
    let key = key(source);
    let value = value(source, 0);
    match source.range(0..=9) {
        0 => source.text(40),
        1 => format!("{key}{value}"),
        2 => format!(" {} = {value}", key.rsplit('.').next().unwrap_or_default()),
        _ => format!("{key}={value}"),
    }
}

fn key(source: &mut Source<'_>) -> String {
    match source.range(0..=9) {
        0 => source.text(12),
        1 => source
            .pick(&["attention", "train", "model.attention_layers", "train.betas.0", "attention.approx_attn_dim"])
            .to_owned(),
        _ => {
            let (section, key) = &KEYS[source.range(0..=KEYS.len() - 1)];
            format!("{section}.{key}")
        }
    }
}

/// A value of TOML, to a depth that ends.
fn value(source: &mut Source<'_>, depth: usize) -> String {
    match source.range(0..=if depth < 3 { 13 } else { 9 }) {
        0..=5 => source.number(),
        6 | 7 => format!("{:?}", source.pick(&WORDS)),
        8 => source
            .pick(&["true", "false", "1979-05-27", "07:32:00", "''", "\"\\u0000\"", "0x7fffffffffffffff", "1_000"])
            .to_owned(),
        9 => format!("{:?}", source.text(12)),
        10 => {
            let items: Vec<String> = (0..source.range(0..=4)).map(|_| value(source, depth + 1)).collect();
            format!("[{}]", items.join(", "))
        }
        11 => format!("{{ {} = {} }}", source.pick(&["mechanism", "a", "num_landmarks"]), value(source, depth + 1)),
        12 => {
            let depth = source.pick(&[10, 79, 80, 81, 500, 20_000]);
            format!("{}1{}", "[".repeat(depth), "]".repeat(depth))
        }
        _ => format!("\"{}\"", "x".repeat(source.pick(&[1, 100, 5000]))),
    }
}

/// A configuration of a few keys.
pub(super) fn text(source: &mut Source<'_>) -> String {
    let mut text = String::new();
    if source.chance(1, 8) {
        text += &format!("attention = {}\n", value(source, 0));
    }
    for section in ["model", "attention", "data", "train", "output"] {
        if source.chance(1, 2) {
            text += &format!("[{section}]\n");
            for _ in 0..source.range(0..=3) {
                let here: Vec<&str> =
                    KEYS.iter().filter(|(owner, _)| owner == section).map(|(_, key)| key.as_str()).collect();
                let key = if source.chance(1, 12) || here.is_empty() {
                    format!("{:?}", source.text(8))
                } else {
                    source.pick(&here).to_owned()
                };
                text += &format!("{key} = {}\n", value(source, 0));
            }
        }
    }
    if source.chance(1, 12) {
        let depth = source.pick(&[3, 80, 200, 5000]);
        text += &format!("[{}]\n", vec!["a"; depth].join("."));
    }
    text
}
