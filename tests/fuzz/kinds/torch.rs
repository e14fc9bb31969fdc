//! Files of PyTorch: zip archives whose records lie, with pickles whose instructions, numbers and names go together, or not.

use lara_models::torch;
use lara_models::train::checkpoint::TrainedModel;

use super::{Rooms, worst};
use crate::case::{Answer, Case, answer};
use crate::source::Source;

/// Names that a pickle calls; some of them run programs elsewhere.
const GLOBALS: [&[u8]; 10] = [
    b"ccollections\nOrderedDict\n",
    b"ctorch._utils\n_rebuild_tensor_v2\n",
    b"ctorch._utils\n_rebuild_parameter\n",
    b"ctorch\nFloatStorage\n",
    b"ctorch\nHalfStorage\n",
    b"ctorch\nLongStorage\n",
    b"cargparse\nNamespace\n",
    b"cos\nsystem\n",
    b"c\n\n",
    b"cbuiltins\neval",
];

/// Instructions without what follows them.
const CODES: &[u8] = b"(){}].0tRbQNsueaqhjrKMJGXcU\x80\x81\x85\x86\x87\x88\x89\x8a\x8c\x8d\x8f\x90\x93\x94\x95PIL1";

pub(super) fn file(case: &mut Case<'_>, _: &mut Rooms) -> Answer {
    let source = &mut case.source;
    let is_honest = source.chance(1, 4);
    let numbers = source.range(0..=12);
    let mut pickle = dictionary(source, is_honest, numbers);
    if !is_honest && source.chance(1, 3) {
        source.damage(&mut pickle);
    }
    let data: Vec<u8> = (0..numbers).flat_map(|i| (i as f32).to_le_bytes()).collect();
    let folder = if is_honest { "archive/".to_owned() } else { source.text(6) };
    let entries = [(format!("{folder}data.pkl"), pickle), (format!("{folder}data/0"), data)];
    let mut bytes = zip(source, &entries, is_honest);
    if !is_honest && source.chance(1, 3) {
        source.damage(&mut bytes);
    }
    case.keep("input.pth", &bytes);
    let model = answer(TrainedModel::from_bytes("input.pth", bytes.clone()));
    let file = match torch::from_bytes("input.pth", bytes) {
        Ok(file) => file,
        Err(error) if is_honest && numbers > 0 => return Err((format!("a whole file: {error}"), false)),
        Err(error) => return worst([answer::<()>(Err(error)), model]),
    };
    worst(file.names().map(|name| answer(file.numbers(name))).chain([model]))
}

/// A dictionary of a few tensors over one storage.
fn dictionary(source: &mut Source<'_>, is_honest: bool, numbers: usize) -> Vec<u8> {
    let mut bytes = b"\x80\x02}".to_vec();
    for at in 0..source.range(1..=4) {
        text(&mut bytes, &format!("w{at}"));
        bytes.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        text(&mut bytes, "storage");
        bytes.extend(if is_honest { GLOBALS[3] } else { source.pick(&GLOBALS[3..6]) });
        text(&mut bytes, "0");
        text(&mut bytes, "cpu");
        int(&mut bytes, numbers as u64);
        bytes.extend(b"tQ");
        let mut number = |usual: usize| {
            if is_honest || source.chance(7, 8) { usual as u64 } else { source.word() }
        };
        int(&mut bytes, number(0));
        let rows = if numbers.is_multiple_of(2) { 2 } else { 1 };
        for pair in [[rows, numbers / rows], [1, rows]] {
            bytes.push(b'(');
            pair.into_iter().for_each(|size| int(&mut bytes, number(size)));
            bytes.push(b't');
        }
        bytes.extend(b"\x89ccollections\nOrderedDict\n)RtRs");
        if !is_honest && source.chance(1, 3) {
            for _ in 0..source.range(1..=12) {
                match source.range(0..=3) {
                    0 => bytes.extend(source.pick(&GLOBALS)),
                    1 => bytes.extend(source.noise(6)),
                    _ => bytes.push(source.pick(CODES)),
                }
            }
        }
    }
    bytes.push(b'.');
    bytes
}

fn text(bytes: &mut Vec<u8>, text: &str) {
    bytes.push(b'X');
    bytes.extend((text.len() as u32).to_le_bytes());
    bytes.extend(text.as_bytes());
}

fn int(bytes: &mut Vec<u8>, number: u64) {
    bytes.extend(b"\x8a\x08");
    bytes.extend(number.to_le_bytes());
}

fn zip(source: &mut Source<'_>, entries: &[(String, Vec<u8>)], is_honest: bool) -> Vec<u8> {
    let (mut bytes, mut list) = (Vec::new(), Vec::new());
    for (name, data) in entries {
        let mut word = |usual: usize| {
            let word = if is_honest || source.chance(15, 16) { usual as u64 } else { source.word() };
            (word as u32).to_le_bytes()
        };
        let crc = crc32fast::hash(data).to_le_bytes();
        let offset = word(bytes.len());
        let sizes = [crc, word(data.len()), word(data.len())].concat();
        let name_len = word(name.len());
        bytes.extend([&b"PK\x03\x04"[..], &[0; 10], &sizes, &name_len[..2], &[0; 2], name.as_bytes(), data].concat());
        list.extend([&b"PK\x01\x02"[..], &[0; 12], &sizes, &name_len[..2], &[0; 12]].concat());
        list.extend([&offset[..], name.as_bytes()].concat());
    }
    let [len, begin] = [list.len(), bytes.len()].map(|number| (number as u32).to_le_bytes());
    bytes.extend([&list[..], b"PK\x05\x06", &[0; 4], &[2, 0, 2, 0], &len, &begin, &[0; 2]].concat());
    bytes
}
