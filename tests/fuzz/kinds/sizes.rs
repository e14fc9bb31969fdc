//! Configurations that are valid and absurd: what they ask of a device is refused before it is allocated.

use lara_models::train::{Schedule, Session, TrainConfig};
use lara_runtime::{Gpu, GpuOptions, Tune};
use pollster::block_on;

use super::Rooms;
use crate::case::{Answer, Case, answer};

/// Numbers that sizes of a model may have, and some that they should not.
const SIZES: [&str; 16] = [
    "1",
    "2",
    "3",
    "4",
    "8",
    "16",
    "64",
    "224",
    "256",
    "1000",
    "4096",
    "16384",
    "65535",
    "65536",
    "1000000",
    "4294967296",
];
const KEYS: [&str; 9] = [
    "model.image_size",
    "model.patch_size",
    "model.embed_dim",
    "model.num_heads",
    "model.num_classes",
    "model.depth",
    "train.batch_size",
    "attention.num_landmarks",
    "attention.features",
];

/// What recordings and refusals may take on the host.
pub(super) const RECORDINGS: usize = 512 << 20;
/// Memory of the device.
const DEVICE: u64 = 16 << 20;

pub(super) fn training(case: &mut Case<'_>, rooms: &mut Rooms) -> Answer {
    let source = &mut case.source;
    let mut sets = vec![format!("attention={:?}", source.pick(&["softmax", "lara", "ra", "rfa", "performer"]))];
    // One size at least that no small model has; what is small and valid would only be compiled.
    sets.push(format!("{}={}", source.pick(&KEYS), source.pick(&SIZES[10..])));
    for _ in 0..source.range(0..=3) {
        sets.push(format!("{}={}", source.pick(&KEYS), source.pick(&SIZES)));
    }
    case.keep("sets.txt", sets.join("\n").as_bytes());
    case.allow(RECORDINGS);
    let config = match TrainConfig::load("digits", &sets) {
        Ok(config) => config,
        Err(error) => return answer::<()>(Err(error)),
    };
    let schedule: Schedule = config.schedule(1);
    told(answer(block_on(Session::new(small(rooms), &Tune::fixed(&[]), &config, schedule))))
}

/// A device of little memory.
pub(super) fn small(rooms: &mut Rooms) -> &Gpu {
    rooms.gpu.get_or_insert_with(|| {
        let adapter = std::env::var("LARA_ADAPTER").ok();
        let options = GpuOptions { adapter, memory_limit: Some(DEVICE), ..GpuOptions::default() };
        Gpu::open_blocking(&options).expect("the campaign needs an adapter")
    })
}

/// A device that is too small is no fault of the input, and is told with numbers.
pub(super) fn told(answer: Answer) -> Answer {
    answer.map_err(|(sentence, is_bad_input)| {
        let told = sentence.starts_with("the GPU has not enough memory");
        (sentence, is_bad_input || told)
    })
}
