//! Whole runs through the trainer: reproducible, resumable bit for bit, and stopped before they lose anything.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use lara_models::data::{Augment, Batch, Dataset, Digits, ImageDataset, Loader, LoaderOptions, Position, Split};
use lara_models::random::{Draws, Purpose};
use lara_models::train::checkpoint::{MODEL_FILE, OPTIMIZER_FILE, STATE_FILE, TrainedModel};
use lara_models::train::checkpoints::latest;
use lara_models::train::metrics::METRICS_FILE;
use lara_models::train::{
    Checkpoint, Control, Event, Session, StepResult, Summary, TrainConfig, Trainer, names_and_shapes,
};
use lara_models::weights::TensorFile;
use lara_models::{Error, Predictor, Result, softmax, top};
use lara_runtime::{Parameters, Role, Tune, Variant};
use lara_tests::adapter;
use pollster::block_on;
use serde_json::Value;

/// A small model with everything random in training switched on: 22 steps an epoch.
const SETS: &[&str] = &[
    "model.image_size=8",
    "model.in_chans=1",
    "model.patch_size=2",
    "model.embed_dim=32",
    "model.depth=2",
    "model.num_heads=2",
    "model.mlp_ratio=2",
    "model.num_classes=10",
    "model.drop_rate=0.1",
    "model.drop_path_rate=0.1",
    "attention.mechanism=lara",
    "attention.num_landmarks=4",
    "attention.noise=released",
    "data.mean=[0.3]",
    "data.std=[0.4]",
    "data.crop_padding=1",
    "data.hflip=0.5",
    "data.workers=1",
    "train.epochs=2",
    "train.batch_size=64",
    "train.warmup_epochs=0.5",
    "train.lr=3e-3",
    "train.model_ema=true",
    "train.model_ema_decay=0.9",
    "output.log_interval=5",
    "output.tensorboard=false",
];

/// Two micro-batches a step out of 11 batches an epoch: the odd one is left out, 5 steps an epoch.
const ODD: &[&str] =
    &["train.batch_size=128", "train.grad_accum_steps=2", "train.epochs=3", "train.model_ema_warmup=true"];

pub(crate) fn configure(dir: &Path, sets: &[&str]) -> TrainConfig {
    let mut config = TrainConfig::default();
    SETS.iter().chain(sets).for_each(|set| config.set(set).unwrap_or_else(|e| panic!("{e}")));
    config.output.dir = dir.to_path_buf();
    config
}

pub(crate) fn tune() -> Tune {
    Tune::fixed(&[Variant::ROWS4, Variant::ROWS, Variant::FORWARD_ROWS, Variant::SLABS])
}

pub(crate) fn start(config: &TrainConfig) -> Result<Trainer> {
    block_on(Trainer::new(adapter(), &tune(), config))
}

pub(crate) fn resume(path: &Path) -> Result<Trainer> {
    block_on(Trainer::resume(adapter(), &tune(), path))
}

/// Runs to the end, or stops once the result of `stop_after` steps is in.
fn run(trainer: Result<Trainer>, stop_after: Option<u64>) -> Result<Summary> {
    let control = Control::new();
    let mut on_event = |event: Event<'_>| {
        if let Event::Step(progress) = event
            && stop_after.is_some_and(|steps| progress.result.step + 1 >= steps)
        {
            control.stop();
        }
    };
    block_on(trainer?.run(&control, &mut on_event))
}

pub(crate) fn done(trainer: Result<Trainer>) -> Summary {
    let summary = run(trainer, None).unwrap_or_else(|e| panic!("{e}"));
    assert!(!summary.interrupted);
    summary
}

/// Stops somewhere after `steps` steps and checks that it is in the middle of an epoch.
pub(crate) fn interrupted(trainer: Result<Trainer>, steps: u64) -> Summary {
    let summary = run(trainer, Some(steps)).unwrap_or_else(|e| panic!("{e}"));
    assert!(summary.interrupted, "the run ended before it could be stopped");
    let checkpoint = Checkpoint::load(summary.checkpoint.as_ref().unwrap()).unwrap();
    assert_eq!(checkpoint.state.step, summary.steps);
    assert!((steps..steps + 6).contains(&summary.steps), "stopped after {} steps", summary.steps);
    assert!(checkpoint.state.position.batch > 0, "stopped between two epochs, which is too easy");
    summary
}

/// Every tensor of a checkpoint, as bits.
pub(crate) fn tensors(checkpoint: &Path) -> BTreeMap<String, Vec<u32>> {
    let files = [MODEL_FILE, OPTIMIZER_FILE].map(|name| TensorFile::open(checkpoint.join(name)).unwrap());
    let bits = |file: &TensorFile, name: &str| {
        let values = file.get(name, file.shape(name).unwrap()).unwrap();
        values.iter().map(|value| value.to_bits()).collect()
    };
    files.iter().flat_map(|file| file.names().map(|name| (name.to_owned(), bits(file, name)))).collect()
}

/// Lines of metrics.jsonl without what depends on the clock.
pub(crate) fn metrics(dir: &Path) -> Vec<Value> {
    let text = fs::read_to_string(dir.join(METRICS_FILE)).unwrap();
    let mut lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for line in &mut lines {
        let object = line.as_object_mut().unwrap();
        assert!(object.remove("time").is_some_and(|time| time.as_f64() > Some(1.6e9)));
        object.remove("train/images_per_second");
    }
    lines
}

fn steps_of(lines: &[Value], key: &str) -> Vec<u64> {
    lines.iter().filter(|line| line.get(key).is_some()).map(|line| line["step"].as_u64().unwrap()).collect()
}

#[test]
fn the_same_seed_gives_the_same_file_and_another_seed_another() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("run");
    let file = |seed: &str| {
        let summary = done(start(&configure(&dir, &[seed, "train.epochs=1"])));
        let bytes = fs::read(summary.checkpoint.unwrap().join(MODEL_FILE)).unwrap();
        fs::remove_dir_all(&dir).unwrap();
        bytes
    };
    let first = file("train.seed=11");
    assert!(first == file("train.seed=11"), "two runs with one seed wrote different weights");
    // Of equal length: the seeds are named in the file.
    let other = file("train.seed=12");
    let different = first.iter().zip(&other).filter(|(a, b)| a != b).count();
    assert!(different > first.len() / 4, "two seeds differ in {different} of {} bytes", first.len());
}

#[test]
fn an_interrupted_run_ends_as_if_it_had_not_been() {
    for (sets, stops) in [(&[][..], [8, 30]), (ODD, [2, 6])] {
        let temp = tempfile::tempdir().unwrap();
        let [whole, broken] = ["whole", "broken"].map(|name| temp.path().join(name));
        let expected = done(start(&configure(&whole, sets)));
        interrupted(start(&configure(&broken, sets)), stops[0]);
        interrupted(resume(&broken), stops[1]);
        // A moved run goes on where it is.
        let moved = temp.path().join("moved");
        fs::rename(&broken, &moved).unwrap();
        let resumed = done(resume(&moved));
        let [whole_end, moved_end] = [&expected, &resumed].map(|s| s.checkpoint.clone().unwrap());
        assert!(moved_end.starts_with(&moved) && !broken.exists());
        let (a, b) = (tensors(&whole_end), tensors(&moved_end));
        assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>());
        let different: Vec<&String> = a.keys().filter(|name| a[*name] != b[*name]).collect();
        assert!(different.is_empty(), "{sets:?}: these tensors differ: {different:?}");
        // Four of a kind: weight, both moments, average; and the average, which is the model, is not just a copy.
        assert_eq!(a.len() % 4, 0);
        assert_ne!(a["weight.head.weight"], a["head.weight"]);
        assert_eq!(expected.evaluation.unwrap(), resumed.evaluation.unwrap());
        assert_eq!(expected.best, resumed.best);
        assert_eq!(metrics(&whole), metrics(&moved));
        let [a, b] = [&whole_end, &moved_end].map(|path| Checkpoint::load(path).unwrap().state);
        assert_eq!((a.step, a.position, a.best_step), (b.step, b.position, b.best_step));
    }
}

#[test]
fn metrics_have_every_step_that_is_due() {
    let temp = tempfile::tempdir().unwrap();
    let mut sets = ODD.to_vec();
    sets.extend(["output.eval_interval=2", "output.log_interval=4", "output.tensorboard=true"]);
    let summary = done(start(&configure(temp.path(), &sets)));
    assert_eq!(summary.steps, 15);
    let lines = metrics(temp.path());
    // Every fourth step and the last; after every second epoch of 5 steps and the last.
    assert_eq!(steps_of(&lines, "train/loss"), [4, 8, 12, 15]);
    assert_eq!(steps_of(&lines, "eval/accuracy"), [10, 15]);
    assert_eq!(lines.len(), 6);
    for line in &lines {
        for (key, value) in line.as_object().unwrap() {
            assert!(value.as_f64().is_some_and(f64::is_finite), "{key} of {line}");
        }
    }
    let events = fs::read_dir(temp.path()).unwrap().flatten();
    let events = events.filter(|e| e.file_name().to_string_lossy().starts_with("events.out.tfevents")).count();
    assert_eq!(events, 1);
}

#[test]
fn the_last_checkpoints_and_the_best_are_kept() {
    let temp = tempfile::tempdir().unwrap();
    let sets = ["train.epochs=4", "output.checkpoint_hist=2", "data.crop_padding=0", "data.hflip=0"];
    let summary = done(start(&configure(temp.path(), &sets)));
    let mut folders: Vec<String> = fs::read_dir(temp.path())
        .unwrap()
        .flatten()
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    folders.sort();
    assert_eq!(folders, ["best", "checkpoint-000066", "checkpoint-000088"]);
    assert_eq!(latest(temp.path()), summary.checkpoint);
    let (accuracy, step) = summary.best.unwrap();
    let best = Checkpoint::load(temp.path().join("best")).unwrap().state;
    assert_eq!((best.step, best.best_metric, best.best_step), (step, Some(accuracy), Some(step)));
    let lines = metrics(temp.path());
    let accuracies: Vec<f64> = lines.iter().filter_map(|line| line.get("eval/accuracy")?.as_f64()).collect();
    assert_eq!(accuracies.len(), 4);
    assert_eq!(accuracies.iter().copied().fold(0.0, f64::max), accuracy);
    assert!(accuracies[3] > 0.3, "nothing was learnt: {accuracies:?}");
    assert_evaluation_is_the_predictors(&summary);
}

/// The evaluation of a run, again by hand from its checkpoint, image by image.
fn assert_evaluation_is_the_predictors(summary: &Summary) {
    let checkpoint = Checkpoint::load(summary.checkpoint.as_ref().unwrap()).unwrap();
    let config = checkpoint.config().unwrap();
    let mut parameters = Parameters::new(adapter());
    let predictor = block_on(Predictor::new(adapter(), &tune(), &config, &mut parameters, 7, false)).unwrap();
    let model = TrainedModel::open(&checkpoint.path).unwrap();
    for (index, values) in model.weights.get_all(&names_and_shapes(&parameters)).unwrap().iter().enumerate() {
        parameters.write(adapter(), Role::Weight, index, values).unwrap();
    }
    let (digits, augment) = (Digits::new(Split::Test), Augment::eval(&config.data));
    let (mut right, mut loss, mut counts) = (0, 0.0, [0u32; 10]);
    for start in (0..digits.len()).step_by(7) {
        let samples: Vec<_> = (start..digits.len().min(start + 7)).map(|i| digits.get(i).unwrap()).collect();
        let mut images = vec![0.0; samples.len() * 64];
        for (sample, image) in samples.iter().zip(images.chunks_mut(64)) {
            augment.apply(&sample.pixels, digits.image_shape(), &mut Draws::new(0, Purpose::Augment, 0, 0), image);
        }
        let logits = block_on(predictor.logits(&images)).unwrap();
        assert_eq!(logits.len(), samples.len());
        for (row, sample) in logits.iter().zip(&samples) {
            let probabilities = softmax(row);
            right += u32::from(top(&probabilities, 1)[0].0 == sample.label as usize);
            loss -= probabilities[sample.label as usize].ln() / digits.len() as f64;
            counts[sample.label as usize] += 1;
        }
    }
    let evaluation = summary.evaluation.as_ref().unwrap();
    assert_eq!(evaluation.images, 360);
    assert!((evaluation.loss - loss).abs() < 1e-5, "loss {} and by hand {loss}", evaluation.loss);
    // Rounding, which differs with the batch, may turn one close call.
    assert!((evaluation.accuracy * 360.0 - f64::from(right)).abs() <= 1.0 + 1e-9);
    let diagonal: u32 = (0..10).map(|class| evaluation.confusion[class][class]).sum();
    assert!((evaluation.accuracy * 360.0 - f64::from(diagonal)).abs() < 1e-9);
    let rows: Vec<u32> = evaluation.confusion.iter().map(|row| row.iter().sum()).collect();
    assert_eq!(rows, counts);
    assert!(evaluation.top5 >= evaluation.accuracy && evaluation.top5 <= 1.0);
}

pub(crate) fn error<T>(result: Result<T>) -> Error {
    match result {
        Err(error) => error,
        Ok(_) => panic!("this should have been refused"),
    }
}

#[test]
fn a_folder_that_holds_a_run_is_not_begun_again() {
    let temp = tempfile::tempdir().unwrap();
    let config = configure(temp.path(), &["train.epochs=1"]);
    let first = interrupted(start(&config), 3).checkpoint.unwrap();
    let refusal = error(start(&config));
    assert!(refusal.is_bad_input());
    let text = refusal.to_string();
    assert!(text.contains("already holds a run") && text.contains("--resume"), "{text}");
    assert!(text.contains(first.to_str().unwrap()), "{text}");
}

#[test]
fn settings_that_no_epoch_can_serve_are_refused() {
    let temp = tempfile::tempdir().unwrap();
    for (sets, words) in [
        (&["train.batch_size=1500"][..], ["1500", "1437"]),
        (&["train.grad_accum_steps=23"], ["grad_accum_steps = 23", "22 batches"]),
        (&["model.num_classes=7"], ["num_classes is 7", "10 classes"]),
        (&["model.in_chans=3"], ["1x8x8", "3x8x8"]),
    ] {
        let refusal = error(start(&configure(&temp.path().join("run"), sets)));
        assert!(refusal.is_bad_input(), "{refusal}");
        words.iter().for_each(|word| assert!(refusal.to_string().contains(word), "no {word} in: {refusal}"));
    }
    assert!(!temp.path().join("run").exists(), "a refused run left a folder");
}

#[test]
fn activations_that_do_not_fit_the_adapter_are_refused_with_their_size() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("run");
    // The hidden layer of the MLP: 1,024 images x 64 tokens x 20,480 x 4 bytes, more than wgpu can bind.
    let sets = ["train.batch_size=1024", "model.patch_size=1", "model.mlp_ratio=640", "attention.mechanism=softmax"];
    let refusal = error(start(&configure(&dir, &sets)));
    assert!(refusal.is_bad_input());
    let text = refusal.to_string();
    for words in ["[1024, 64, 20480]", "needs 5.0 GiB", "the adapter allows", "lower train.batch_size"] {
        assert!(text.contains(words), "no {words} in: {text}");
    }
    assert!(!dir.exists(), "a refused run left a folder");
}

/// Files of a folder and their contents.
fn contents(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = [MODEL_FILE, OPTIMIZER_FILE, STATE_FILE];
    files.iter().map(|name| (name.to_string(), fs::read(dir.join(name)).unwrap())).collect()
}

#[test]
fn a_loss_that_is_not_finite_stops_the_run_and_keeps_its_checkpoint() {
    let temp = tempfile::tempdir().unwrap();
    let config = configure(temp.path(), &["train.clip_grad=0", "train.warmup_epochs=0"]);
    let stopped = interrupted(start(&config), 10);
    let checkpoint = stopped.checkpoint.unwrap();
    // The run goes on with an absurd learning rate.
    let state = fs::read_to_string(checkpoint.join(STATE_FILE)).unwrap();
    assert!(state.contains("\\nlr = 0.003\\n"), "{state}");
    fs::write(checkpoint.join(STATE_FILE), state.replace("\\nlr = 0.003\\n", "\\nlr = 1e30\\n")).unwrap();
    let before = contents(&checkpoint);
    let failure = error(run(resume(temp.path()), None));
    assert!(!failure.is_bad_input());
    let text = failure.to_string();
    // The step after the first with that rate.
    assert!(text.contains(&format!("the loss of step {} is", stopped.steps + 2)), "{text}");
    assert!(text.contains(checkpoint.to_str().unwrap()) && text.contains("train.lr"), "{text}");
    assert!(before == contents(&checkpoint), "the last good checkpoint was touched");
    assert_eq!(latest(temp.path()), Some(checkpoint));
    assert!(
        tensors(temp.path().join(latest(temp.path()).unwrap()).as_path())
            .values()
            .flatten()
            .all(|&bits| { f32::from_bits(bits).is_finite() })
    );
}

#[test]
fn weights_spoilt_by_the_last_step_of_an_epoch_are_not_saved() {
    let temp = tempfile::tempdir().unwrap();
    // One step an epoch: its own loss is still that of the initial weights.
    let sets = ["train.lr=1e30", "train.clip_grad=0", "train.warmup_epochs=0", "train.batch_size=1437"];
    let failure = error(run(start(&configure(temp.path(), &sets)), None));
    let text = failure.to_string();
    assert!(text.contains("after step 1 is not finite") && text.contains("no checkpoint was written"), "{text}");
    assert_eq!(latest(temp.path()), None);
    assert!(!temp.path().join("best").exists());
}

#[test]
fn the_loss_of_a_step_is_the_mean_over_its_micro_batches() {
    let temp = tempfile::tempdir().unwrap();
    // Nothing random, which would depend on the place in the step.
    let fixed = ["model.drop_rate=0", "model.drop_path_rate=0", "attention.mechanism=softmax", "train.batch_size=4"];
    let results = |count: usize, batches: &[Batch]| -> StepResult {
        let accumulate = format!("train.grad_accum_steps={count}");
        let config = configure(temp.path(), &[&fixed[..], &[&accumulate]].concat());
        let mut session = block_on(Session::new(adapter(), &tune(), &config, config.schedule(22))).unwrap();
        session.step(0, batches).unwrap();
        session.finish().unwrap()[0]
    };
    let config = configure(temp.path(), &[]);
    let images: Arc<dyn ImageDataset> = Arc::new(Digits::new(Split::Train));
    let options = LoaderOptions::train(4, 1, 0, Augment::eval(&config.data));
    let batches: Vec<Batch> =
        Loader::new(images, options, Position::default()).unwrap().take(3).map(Result::unwrap).collect();
    let alone: Vec<StepResult> = batches.iter().map(|batch| results(1, std::slice::from_ref(batch))).collect();
    let together = results(3, &batches);
    let mean = |value: fn(&StepResult) -> f64| alone.iter().map(value).sum::<f64>() / 3.0;
    let (loss, accuracy) = (mean(|r| r.loss), mean(|r| r.accuracy));
    assert!((alone[2].loss - loss).abs() > 1e-3, "the last micro-batch has the mean loss by chance");
    assert!((together.loss - loss).abs() < 1e-6, "{} and {loss}", together.loss);
    assert!((together.accuracy - accuracy).abs() < 1e-6, "{} and {accuracy}", together.accuracy);
}
