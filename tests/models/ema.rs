//! The average of the weights: what is evaluated, what is kept as the best, what is saved as the model.

use std::borrow::Cow;
use std::fs::{self, File};
use std::path::Path;

use lara_models::Predictor;
use lara_models::data::{Augment, Split};
use lara_models::train::checkpoint::{MODEL_FILE, OPTIMIZER_FILE, STATE_FILE, TrainedModel};
use lara_models::train::{Checkpoint, Control, Evaluation, TrainConfig, Trainer, evaluate, names_and_shapes};
use lara_models::weights::{self, TensorFile, TensorView};
use lara_runtime::{Parameters, Role};
use lara_tests::adapter;
use pollster::block_on;
use serde_json::Value;

use crate::trainer::{configure, done, interrupted, metrics, resume, start, tensors, tune};

/// Evaluates weights as `lara eval` does, in batches of the run's size.
fn evaluated(config: &TrainConfig, weights: impl FnOnce(&[(String, Vec<usize>)]) -> Vec<Vec<f32>>) -> Evaluation {
    let mut parameters = Parameters::new(adapter());
    let batch = config.train.batch_size;
    let predictor = block_on(Predictor::new(adapter(), &tune(), config, &mut parameters, batch, false)).unwrap();
    for (index, values) in weights(&names_and_shapes(&parameters)).iter().enumerate() {
        parameters.write(adapter(), Role::Weight, index, values).unwrap();
    }
    let images = config.open_data(Split::Test).unwrap();
    block_on(evaluate(&predictor, &images, &Augment::eval(&config.data), 1, |_| {})).unwrap()
}

#[test]
fn the_average_is_what_is_evaluated_saved_and_best() {
    let temp = tempfile::tempdir().unwrap();
    let config = configure(temp.path(), &["train.model_ema_decay=0.95"]);
    let (accuracy, step) = done(start(&config)).best.unwrap();
    let line =
        metrics(temp.path()).into_iter().find(|line| line["step"] == step && line["eval/loss"].is_f64()).unwrap();
    assert_eq!(line["eval/accuracy"], accuracy);
    // What eval and predict open.
    let best = TrainedModel::open(temp.path()).unwrap();
    let of_best = evaluated(&config, |wanted| best.weights.get_all(wanted).unwrap());
    assert_eq!([&line["eval/accuracy"], &line["eval/loss"]], [of_best.accuracy, of_best.loss]);
    assert_eq!(best.weights.metadata()["weights"], "exponential moving average");
    // The weights that are trained are others, and are there for who resumes.
    let checkpoint = Checkpoint::load(temp.path().join("best")).unwrap();
    let raw = evaluated(&config, |wanted| checkpoint.weights(wanted).unwrap());
    assert!((raw.loss - of_best.loss).abs() > 0.01, "{} and {}", raw.loss, of_best.loss);
}

#[test]
fn without_an_average_the_model_is_what_is_trained() {
    let temp = tempfile::tempdir().unwrap();
    let config = configure(temp.path(), &["train.model_ema=false", "train.epochs=1"]);
    let summary = done(start(&config));
    let checkpoint = summary.checkpoint.unwrap();
    assert!(tensors(&checkpoint).keys().all(|name| !name.starts_with("weight.")));
    let state: Value = serde_json::from_str(&fs::read_to_string(checkpoint.join(STATE_FILE)).unwrap()).unwrap();
    assert_eq!(state["format"], 1, "older programs read it");
}

#[test]
fn the_warm_up_is_that_of_timm() {
    let mut config = TrainConfig::default();
    config.set("train.model_ema_warmup=true").unwrap();
    config.set("train.model_ema_decay=0.9").unwrap();
    // ModelEmaV3.get_decay(step + 1) with use_warmup, gamma 1, power 2/3.
    for (step, decay) in
        [(0, 0.0), (1, 0.370_039_475), (9, 0.784_556_531), (30, 0.898_665_7), (31, 0.9), (1_000_000, 0.9)]
    {
        let found = config.train.ema_decay(step);
        assert!((found - decay).abs() < 1e-6, "step {step}: {found}");
    }
    config.set("train.model_ema_warmup=false").unwrap();
    assert_eq!([0, 9].map(|step| config.train.ema_decay(step)), [0.9; 2]);
}

/// Weights and average after `steps` steps.
fn after(steps: u64, warmup: bool) -> [Vec<Vec<f32>>; 2] {
    let temp = tempfile::tempdir().unwrap();
    let set = format!("train.model_ema_warmup={warmup}");
    let trainer: Trainer = start(&configure(temp.path(), &[&set])).unwrap();
    let (parameters, control) = (trainer.session().parameters.clone(), Control::new());
    control.pause();
    (0..steps).for_each(|_| control.step());
    let stop = control.clone();
    let summary = block_on(trainer.run(&control, &mut move |event| {
        if matches!(event, lara_models::train::Event::Step(progress) if progress.result.step + 1 == steps) {
            stop.stop();
        }
    }));
    assert_eq!(summary.unwrap().steps, steps);
    [Role::Weight, Role::Ema].map(|role| block_on(parameters.read(adapter(), role)).unwrap())
}

#[test]
fn with_the_warm_up_the_first_step_forgets_the_initial_weights() {
    let [weights, average] = after(1, true);
    assert!(weights == average);
    let [weights, average] = after(1, false);
    assert!(weights != average);
    // The second weighs the first with 1 - 2^(-2/3).
    let [first, _] = after(1, true);
    let [second, average] = after(2, true);
    let decay = 1.0 - 2.0f64.powf(-2.0 / 3.0);
    for ((first, second), average) in first.iter().zip(&second).zip(&average) {
        for ((&first, &second), &average) in first.iter().zip(second).zip(average) {
            let expected = decay * f64::from(first) + (1.0 - decay) * f64::from(second);
            assert!((expected - f64::from(average)).abs() <= 1e-6 * expected.abs().max(1e-3));
        }
    }
}

/// Rewrites a checkpoint as the first programs wrote it: the weights that are trained as the model, the average beside
/// the moments.
fn as_format_1(checkpoint: &Path) {
    let [model, optimizer] = [MODEL_FILE, OPTIMIZER_FILE].map(|name| TensorFile::open(checkpoint.join(name)).unwrap());
    let read = |file: &TensorFile, name: &str| file.get(name, file.shape(name).unwrap()).unwrap();
    let write = |file: &str, metadata: &weights::Metadata, tensors: &[(String, Vec<usize>, Vec<f32>)]| {
        let views: Vec<_> = tensors
            .iter()
            .map(|(name, shape, data)| TensorView { name: Cow::Borrowed(name.as_str()), shape, data })
            .collect();
        weights::write(&mut File::create(checkpoint.join(file)).unwrap(), &views, metadata).unwrap();
    };
    let (mut old_model, mut old_optimizer) = (Vec::new(), Vec::new());
    for name in model.names() {
        let shape = model.shape(name).unwrap().to_vec();
        old_model.push((name.to_owned(), shape.clone(), read(&optimizer, &format!("weight.{name}"))));
        for moment in ["exp_avg", "exp_avg_sq"].map(|moment| format!("{moment}.{name}")) {
            old_optimizer.push((moment.clone(), shape.clone(), read(&optimizer, &moment)));
        }
        old_optimizer.push((format!("ema.{name}"), shape, read(&model, name)));
    }
    write(MODEL_FILE, model.metadata(), &old_model);
    write(OPTIMIZER_FILE, &weights::Metadata::new(), &old_optimizer);
    let path = checkpoint.join(STATE_FILE);
    let mut state: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    state["format"] = 1.into();
    state.as_object_mut().unwrap().remove("files");
    fs::write(path, state.to_string()).unwrap();
}

#[test]
fn a_checkpoint_of_the_first_format_resumes_bit_for_bit() {
    let temp = tempfile::tempdir().unwrap();
    let [whole, broken] = ["whole", "broken"].map(|name| temp.path().join(name));
    let expected = done(start(&configure(&whole, &[])));
    as_format_1(&interrupted(start(&configure(&broken, &[])), 8).checkpoint.unwrap());
    let resumed = done(resume(&broken));
    assert!(tensors(&expected.checkpoint.unwrap()) == tensors(&resumed.checkpoint.unwrap()));
    assert_eq!(expected.evaluation, resumed.evaluation);
}
