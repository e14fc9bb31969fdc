//! Safetensors: headers whose names, types, shapes and offsets agree, or not, with each other and with the data.

use lara_models::train::checkpoint::TrainedModel;
use lara_models::weights::TensorFile;

use super::{Rooms, configs, worst};
use crate::case::{Answer, Case, answer, is_sentence};
use crate::source::Source;

const NAMES: [&str; 12] = [
    "q",
    "k",
    "v",
    "w",
    "noise",
    "index",
    "dout",
    "key_padding_mask",
    "projection",
    "norm.weight",
    "blocks.0.attn.qkv.weight",
    "blocks.0.attn.q_landmarks.0.weight",
];
/// Types and their bits.
const TYPES: [(&str, u64); 14] = [
    ("F32", 32),
    ("F64", 64),
    ("F16", 16),
    ("BF16", 16),
    ("I64", 64),
    ("I32", 32),
    ("U8", 8),
    ("BOOL", 8),
    ("F8_E4M3", 8),
    ("F4", 4),
    ("C64", 64),
    ("U16", 16),
    ("f32", 32),
    ("", 32),
];

pub(super) fn file(case: &mut Case<'_>, _: &mut Rooms) -> Answer {
    let bytes = whole_or_not(&mut case.source);
    case.keep("input.safetensors", &bytes);
    let model = answer(TrainedModel::from_bytes("input.safetensors", bytes.clone()));
    let file = match TensorFile::from_bytes("input.safetensors", bytes) {
        Ok(file) => file,
        Err(error) => return worst([answer::<()>(Err(error)), model]),
    };
    let names: Vec<String> = file.names().map(str::to_owned).collect();
    let mut answers = vec![model];
    for name in &names {
        let shape = file.shape(name).unwrap_or_default().to_vec();
        answers.push(answer(file.numbers(name)));
        answers.push(answer(file.get(name, &shape)));
    }
    // A model that wants others, and a name that is hardly there.
    answers.push(in_words(answer(file.get_all(&[("q", &[2, 2][..]), ("norm.weight", &[][..])]))));
    answers.push(in_words(answer(file.refuse_others(names.iter().map(String::as_str).skip(1)))));
    answers.push(in_words(answer(file.get(&case.source.text(12), &[1]))));
    worst(answers)
}

/// All is well with a refusal as it should be.
fn in_words(answer: Answer) -> Answer {
    answer.or_else(
        |(sentence, is_bad_input)| {
            if is_bad_input && is_sentence(&sentence) { Ok(()) } else { Err((sentence, is_bad_input)) }
        },
    )
}

/// A file of a few tensors; two in three are damaged in one way or another.
fn whole_or_not(source: &mut Source<'_>) -> Vec<u8> {
    let is_honest = source.chance(1, 3);
    let mut entries = Vec::new();
    let mut end = 0u64;
    for _ in 0..source.range(0..=5) {
        let name = if source.chance(1, 8) { source.text(20) } else { source.pick(&NAMES).to_owned() };
        let (dtype, bits) = source.pick(&TYPES);
        let shape: Vec<u64> = (0..source.range(0..=4))
            .map(|_| if !is_honest && source.chance(1, 8) { source.word() } else { source.range(0..=5) as u64 })
            .collect();
        let elements = shape.iter().try_fold(1u64, |product, &size| product.checked_mul(size)).unwrap_or(1);
        let bytes = elements.checked_mul(bits).map_or(4, |bits| bits / 8).min(1 << 16);
        let (mut from, mut to) = (end, end + bytes);
        end = to;
        if !is_honest && source.chance(1, 8) {
            (from, to) = (source.word(), source.word());
        }
        let shape = if is_honest || source.chance(19, 20) { format!("{shape:?}") } else { nested(source) };
        entries.push(entry(&name, dtype, &shape, (from, to)));
    }
    if source.chance(1, 3) {
        let config = serde_json::to_string(&configs::text(source)).unwrap_or_default();
        let classes = if source.chance(1, 2) { r#""[\"zero\",\"one\"]""#.to_owned() } else { nested(source) };
        entries.push(format!(r#""__metadata__":{{"format":"pt","config":{config},"classes":{classes}}}"#));
    }
    let mut header = format!("{{{}}}", entries.join(",")).into_bytes();
    if !is_honest && source.chance(1, 3) {
        source.damage(&mut header);
    }
    let length = if is_honest || source.chance(9, 10) { header.len() as u64 } else { source.word() };
    let mut bytes = length.to_le_bytes().to_vec();
    bytes.extend(header);
    bytes.resize(bytes.len() + end as usize, 0x3f);
    if !is_honest && source.chance(1, 3) {
        source.damage(&mut bytes);
    }
    bytes
}

/// What a header says of a tensor.
pub(super) fn entry(name: &str, dtype: &str, shape: &str, (from, to): (u64, u64)) -> String {
    let name = serde_json::to_string(name).unwrap_or_default();
    format!(r#"{name}:{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{from},{to}]}}"#)
}

/// An undamaged file.
pub(super) fn whole(entries: &[String], data: &[u8]) -> Vec<u8> {
    let header = format!("{{{}}}", entries.join(","));
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

/// JSON of some depth, sometimes of too much.
pub(super) fn nested(source: &mut Source<'_>) -> String {
    let depth = if source.chance(1, 8) { source.pick(&[100, 127, 128, 129, 2000]) } else { source.range(0..=4) };
    let (open, close) = if source.chance(1, 2) { ("[", "]") } else { ("{\"a\":", "}") };
    format!("{}{}{}", open.repeat(depth), source.number(), close.repeat(depth))
}
