//! Checkpoints: state.json with any number in any place, and parts that are missing, cut short or of another run.

use std::borrow::Cow;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lara_models::data::{Augment, Digits, Loader, LoaderOptions, Position, Split};
use lara_models::train::checkpoint::{MODEL_FILE, OPTIMIZER_FILE, STATE_FILE, TrainedModel};
use lara_models::train::{Checkpoint, Checkpoints, Snapshot, State, TrainConfig};
use lara_models::weights::TensorView;

use super::tensors::nested;
use super::{Rooms, worst};
use crate::case::{Answer, Case, answer};
use crate::source::Source;

const SHAPES: [(&str, &[usize]); 3] =
    [("patch_embed.proj.weight", &[3, 1, 2, 2]), ("blocks.0.attn.qkv.bias", &[6]), ("norm.weight", &[])];
const FILES: [&str; 3] = [MODEL_FILE, OPTIMIZER_FILE, STATE_FILE];

/// A run with three checkpoints and a best one.
pub(super) fn write(run: &Path) -> lara_models::Result<()> {
    let mut checkpoints = Checkpoints::open(run, 3)?;
    for step in [100, 200, 300] {
        let path = checkpoints.save(&Held::new(step)?.snapshot())?;
        if step == 200 {
            checkpoints.promote_to_best(&path)?;
        }
    }
    Ok(())
}

/// What a run holds in memory.
struct Held {
    state: State,
    weights: Vec<Vec<f32>>,
}

impl Held {
    fn new(step: u64) -> lara_models::Result<Self> {
        let state = State {
            step,
            position: Position { epoch: step / 10, batch: step % 10 },
            evaluation_due: false,
            seed: 1,
            best_metric: Some(0.5),
            best_step: Some(200),
            classes: (0..10).map(|digit| digit.to_string()).collect(),
            data: None,
            config: TrainConfig::load("digits", &["model_ema=true"])?.to_toml()?,
            kernels: [("matmul".to_owned(), "forward_rows".to_owned())].into(),
        };
        let values = |shape: &[usize]| (0..shape.iter().product()).map(|i: usize| i as f32 + step as f32).collect();
        Ok(Self { state, weights: SHAPES.iter().map(|(_, shape)| values(shape)).collect() })
    }

    fn snapshot(&self) -> Snapshot<'_> {
        let view = |((name, shape), data)| TensorView { name: Cow::Borrowed(name), shape, data };
        let views = || -> Vec<TensorView<'_>> {
            SHAPES.iter().copied().zip(self.weights.iter().map(Vec::as_slice)).map(view).collect()
        };
        Snapshot { state: &self.state, weights: views(), exp_avg: views(), exp_avg_sq: views(), ema: Some(views()) }
    }
}

/// A checkpoint whose state.json says anything.
pub(super) fn state(case: &mut Case<'_>, rooms: &mut Rooms) -> Answer {
    let from = rooms.run.join("checkpoint-000300");
    let folder = rooms.empty();
    for name in [MODEL_FILE, OPTIMIZER_FILE] {
        fs::hard_link(from.join(name), folder.join(name)).expect("a file of the run cannot be linked");
    }
    let text = fs::read_to_string(from.join(STATE_FILE)).expect("the run has a state");
    let bytes = altered(&mut case.source, &text);
    fs::write(folder.join(STATE_FILE), &bytes).expect("a file of a case cannot be written");
    case.keep(STATE_FILE, &bytes);
    resumed(&folder)
}

/// JSON with some of its values replaced, or some of its bytes.
fn altered(source: &mut Source<'_>, text: &str) -> Vec<u8> {
    let mut value: serde_json::Value = serde_json::from_str(text).expect("the state of the run is JSON");
    for _ in 0..source.range(1..=3) {
        let mut paths = vec![];
        collect(&value, &mut String::new(), &mut paths);
        let path = &paths[source.range(0..=paths.len() - 1)];
        let text = match source.range(0..=5) {
            0 => nested(source),
            1 => format!("{:?}", source.text(20)),
            2 => "null".to_owned(),
            _ => source.number(),
        };
        let new = serde_json::from_str(&text).unwrap_or(serde_json::Value::Null);
        if let Some(place) = value.pointer_mut(path) {
            *place = new;
        }
    }
    let mut bytes = value.to_string().into_bytes();
    if source.chance(1, 4) {
        source.damage(&mut bytes);
    }
    bytes
}

/// The addresses of all values below `value`.
fn collect(value: &serde_json::Value, at: &mut String, found: &mut Vec<String>) {
    let length = at.len();
    let mut go = |key: &str, inner: &serde_json::Value, found: &mut Vec<String>| {
        *at += &format!("/{}", key.replace('~', "~0").replace('/', "~1"));
        found.push(at.clone());
        collect(inner, at, found);
        at.truncate(length);
    };
    match value {
        serde_json::Value::Object(map) => map.iter().for_each(|(key, inner)| go(key, inner, found)),
        serde_json::Value::Array(items) => {
            items.iter().enumerate().for_each(|(i, inner)| go(&i.to_string(), inner, found));
        }
        _ => {}
    }
}

/// What a resume does with a checkpoint before it opens a device, and what evaluation and prediction do.
pub(super) fn resumed(folder: &Path) -> Answer {
    let model = answer(TrainedModel::open(folder));
    let checkpoint = match Checkpoint::load(folder) {
        Ok(checkpoint) => checkpoint,
        Err(error) => return worst([model, answer::<()>(Err(error))]),
    };
    let mut answers = vec![model, answer(checkpoint.weights(&SHAPES)), answer(checkpoint.optimizer(&SHAPES))];
    let position = checkpoint.state.position;
    match checkpoint.config().and_then(|config| config.validate().map(|()| config)) {
        Ok(config) => {
            let augment = Augment { mean: vec![0.5], std: vec![0.5], crop_padding: 1, hflip: 0.5 };
            let options = LoaderOptions::train(config.train.batch_size, config.train.seed, 0, augment);
            let loader = Loader::new(Arc::new(Digits::new(Split::Train)), options, position);
            answers.push(loader.map_or_else(
                |error| answer::<()>(Err(error)),
                |mut loader| {
                    let first = loader.next().map(answer).unwrap_or(Ok(()));
                    _ = loader.position();
                    first
                },
            ));
        }
        Err(error) => answers.push(answer::<()>(Err(error))),
    }
    worst(answers)
}

/// A run's folder with parts missing, extra, swapped and cut short; then a resume, and the next save.
pub(super) fn folder(case: &mut Case<'_>, rooms: &mut Rooms) -> Answer {
    let run = rooms.empty();
    let names = ["checkpoint-000100", "checkpoint-000200", "checkpoint-000300", "best"];
    for name in names {
        let folder = run.join(name);
        if case.source.chance(1, 8) {
            continue;
        }
        fs::create_dir(&folder).expect("a folder of a case cannot be made");
        for file in FILES {
            let bytes = fs::read(rooms.run.join(name).join(file)).expect("the run has its files");
            fs::write(folder.join(file), bytes).expect("a file of a case cannot be written");
        }
    }
    let mut log = String::new();
    for _ in 0..case.source.range(1..=4) {
        let target = run.join(case.source.pick(&names)).join(case.source.pick(&FILES));
        log += &break_one(&mut case.source, &run, &target);
        log.push('\n');
    }
    case.keep("what-was-done.txt", log.as_bytes());
    // A file in the place of a run's folder is refused; all else can be gone on with or says why not.
    let at = case.source.pick(&["", "checkpoint-000300", "best", "checkpoint-000100/state.json"]);
    let resumed = resumed(&run.join(at));
    let next = Checkpoints::open(&run, 3).and_then(|mut checkpoints| {
        if let Ok(checkpoint) = Checkpoint::load(&run) {
            checkpoints.repair_best(&checkpoint.state)?;
            checkpoints.go_back_to(&checkpoint);
        }
        let path = checkpoints.save(&Held::new(400)?.snapshot())?;
        Checkpoint::load(&path)
    });
    worst([resumed, answer(next)])
}

/// Damages one part of a run and says how.
fn break_one(source: &mut Source<'_>, run: &Path, target: &PathBuf) -> String {
    let shown = target.strip_prefix(run).unwrap_or(target).display().to_string();
    // What is not there cannot be damaged; the case goes on with what is.
    match source.range(0..=7) {
        0 => {
            _ = fs::remove_file(target);
            format!("removed {shown}")
        }
        1 => {
            let mut bytes = fs::read(target).unwrap_or_default();
            source.damage(&mut bytes);
            _ = fs::write(target, bytes);
            format!("damaged {shown}")
        }
        2 => {
            let length = source.range(0..=200);
            _ = fs::OpenOptions::new().write(true).open(target).and_then(|file| file.set_len(length as u64));
            format!("cut {shown} to {length} bytes")
        }
        3 => {
            let other = run.join(source.pick(&["checkpoint-000100", "best"])).join(source.pick(&FILES));
            _ = fs::copy(&other, target);
            format!("copied another file over {shown}")
        }
        4 => {
            let name = source.pick(&[
                "checkpoint-999999",
                "checkpoint-18446744073709551615",
                "checkpoint-",
                "checkpoint-abc",
                "checkpoint-0",
                ".checkpoint-000300.new.tmp",
                ".checkpoint-000300.old.tmp",
                ".best.old.tmp",
                "checkpoint-99999999999999999999",
            ]);
            _ = fs::create_dir(run.join(name));
            if source.chance(1, 2) {
                _ = fs::copy(target, run.join(name).join(STATE_FILE));
            }
            format!("added the folder {name}")
        }
        5 => {
            let name = source.pick(&["checkpoint-000400", ".lock", "metrics.jsonl", ".best.new.tmp"]);
            _ = fs::write(run.join(name), source.noise(40));
            format!("added the file {name}")
        }
        6 => {
            _ = fs::remove_file(target);
            _ = fs::create_dir(target);
            format!("made {shown} a folder")
        }
        _ => {
            let folder = target.parent().unwrap_or(run);
            _ = fs::rename(folder, run.join("checkpoint-000050"));
            format!("renamed the folder of {shown}")
        }
    }
}
