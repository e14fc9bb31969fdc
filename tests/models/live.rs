//! Training tick by tick takes the trainer's steps, and whoever shares the weights sees each of them.

use std::time::{Duration, Instant};

use lara_models::data::{Augment, Dataset, Digits, ImageDataset, Split};
use lara_models::random::{Draws, Purpose};
use lara_models::train::{Control, Progress, Session, TrainConfig, Trainer};
use lara_models::{Predictor, data};
use lara_runtime::Role;
use lara_tests::adapter;
use pollster::block_on;

use crate::trainer::{configure, done, start, tensors, tune};

fn live(config: &TrainConfig) -> Trainer {
    block_on(Trainer::without_files(adapter(), &tune(), config)).unwrap_or_else(|e| panic!("{e}"))
}

/// Ticks until the results of everything started are in.
fn settle(trainer: &mut Trainer, control: &Control) -> Vec<Progress> {
    let (mut results, begin) = (Vec::new(), Instant::now());
    while trainer.under_way() > 0 {
        results.extend(trainer.tick(control, 0).unwrap());
        assert!(begin.elapsed() < Duration::from_secs(60), "a result does not arrive");
        std::thread::sleep(Duration::from_millis(1));
    }
    results
}

#[test]
fn ticks_take_the_steps_of_the_trainer_bit_for_bit() {
    let temp = tempfile::tempdir().unwrap();
    let config = configure(temp.path(), &["train.grad_accum_steps=2"]);
    let expected = done(start(&config));
    let (mut trainer, control) = (live(&config), Control::new());
    assert_eq!((trainer.position(), trainer.total()), (0, 22));
    let (mut results, mut evaluations) = (Vec::new(), Vec::new());
    while !(trainer.has_ended() && trainer.under_way() == 0 && !trainer.is_evaluation_due()) {
        let before = trainer.position();
        let tick = Instant::now();
        results.extend(trainer.tick(&control, 3).unwrap());
        assert!(tick.elapsed() < Duration::from_secs(20));
        assert!(trainer.position() - before <= 3);
        // A tick never goes over the end of an epoch.
        assert!(before / 11 == trainer.position() / 11 || trainer.position().is_multiple_of(11));
        if trainer.is_evaluation_due() {
            let mut heard = 0;
            evaluations
                .push((trainer.epochs(), block_on(trainer.evaluate(&control, |done| heard = done)).unwrap().unwrap()));
            assert_eq!(heard, trainer.held_out());
            assert!(!trainer.is_evaluation_due());
        }
    }
    let steps: Vec<u64> = results.iter().map(|progress| progress.result.step).collect();
    assert_eq!(steps, (0..22).collect::<Vec<u64>>());
    for progress in &results {
        assert_eq!((progress.lr, progress.total_steps), (trainer.lr(progress.result.step), 22));
        assert_eq!(progress.epoch, (progress.result.step + 1) as f64 / 11.0);
    }
    assert!(results[21].images_per_second > 0.0);
    assert_eq!(evaluations.iter().map(|(epoch, _)| *epoch).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(Some(&evaluations[1].1), expected.evaluation.as_ref());
    let parameters = &trainer.session().parameters;
    let weights = block_on(parameters.read(adapter(), Role::Weight)).unwrap();
    let saved = tensors(expected.checkpoint.as_ref().unwrap());
    for (entry, values) in parameters.entries().iter().zip(&weights) {
        let bits: Vec<u32> = values.iter().map(|value| value.to_bits()).collect();
        assert!(bits == saved[&format!("weight.{}", entry.name)], "{} differs", entry.name);
    }
}

#[test]
fn ticks_follow_the_control() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("run");
    let (mut trainer, control) = (live(&configure(&dir, &[])), Control::new());
    control.pause();
    assert!(trainer.tick(&control, 10).unwrap().is_empty());
    assert_eq!(trainer.under_way(), 0);
    control.step();
    trainer.tick(&control, 10).unwrap();
    assert_eq!(trainer.position(), 1);
    assert_eq!(settle(&mut trainer, &control).len(), 1);
    control.save();
    trainer.tick(&control, 10).unwrap();
    assert_eq!(trainer.position(), 1, "there is nowhere to save to, and that is no step");
    control.resume();
    trainer.tick(&control, 100).unwrap();
    // No more than the device has room for: a fifth would have to wait.
    assert_eq!((trainer.position(), trainer.under_way()), (5, 4));
    assert_eq!(settle(&mut trainer, &control).len(), 4);
    control.stop();
    assert!(!trainer.has_ended());
    trainer.tick(&control, 1).unwrap();
    assert!(trainer.has_ended() && trainer.position() == 5);
    control.resume();
    trainer.tick(&control, 10).unwrap();
    assert_eq!(trainer.position(), 5, "an end is for good");
    assert!(!dir.exists(), "it wrote files");
}

#[test]
fn a_loss_that_is_not_finite_ends_it_with_a_sentence() {
    let temp = tempfile::tempdir().unwrap();
    let sets = ["train.lr=1e30", "train.clip_grad=0", "train.warmup_epochs=0"];
    let (mut trainer, control) = (live(&configure(temp.path(), &sets)), Control::new());
    let begin = Instant::now();
    let error = loop {
        match trainer.tick(&control, 4) {
            Err(error) => break error.to_string(),
            Ok(_) => assert!(begin.elapsed() < Duration::from_secs(60), "it does not notice"),
        }
    };
    assert!(error.contains("the loss of step 2 is") && error.contains("keeps no checkpoints"), "{error}");
}

#[test]
fn a_clone_of_the_parameters_is_the_same_weights() {
    let temp = tempfile::tempdir().unwrap();
    let config = configure(temp.path(), &["model.drop_rate=0", "model.drop_path_rate=0"]);
    let (mut trainer, control) = (live(&config), Control::new());
    let digits = Digits::new(Split::Test);
    let mut image = vec![0.0; digits.image_shape().len()];
    let draws = &mut Draws::new(0, Purpose::Augment, 0, 0);
    Augment::eval(&config.data).apply(&digits.get(0).unwrap().pixels, digits.image_shape(), draws, &mut image);
    let mut shared = trainer.session().parameters.clone();
    let viewer = block_on(Predictor::new(adapter(), &tune(), &config, &mut shared, 1, true)).unwrap();
    let look = || {
        let logits = block_on(viewer.logits(&image)).unwrap();
        (logits, block_on(viewer.maps()).unwrap())
    };
    let before = look();
    assert_eq!(before, look(), "the same weights give the same picture");
    control.step();
    trainer.tick(&control, 1).unwrap();
    // The plan over the clone comes after the step in the queue: nobody has to wait for it.
    let after = look();
    assert_ne!(before.0, after.0);
    assert_ne!(before.1, after.1);
    // One over the session's own parameters sees exactly that.
    assert_eq!(after.0, own_logits(&config, &control, &image));
    let original = block_on(trainer.session().parameters.read(adapter(), Role::Weight)).unwrap();
    assert_eq!(original, block_on(shared.read(adapter(), Role::Weight)).unwrap());
    settle(&mut trainer, &control);
}

/// Logits after one step, by a predictor that a session made itself.
fn own_logits(config: &TrainConfig, control: &Control, image: &[f32]) -> Vec<Vec<f32>> {
    control.pause();
    let images = config.open_data(Split::Train).unwrap();
    let options =
        data::LoaderOptions::train(config.train.batch_size, config.train.seed, 0, Augment::train(&config.data));
    let mut loader = data::Loader::new(images, options, data::Position::default()).unwrap();
    let schedule = config.schedule(loader.batches_per_epoch());
    let mut session = block_on(Session::new(adapter(), &tune(), config, schedule)).unwrap();
    session.step(0, &[loader.next().unwrap().unwrap()]).unwrap();
    session.finish().unwrap();
    let predictor = block_on(Predictor::new(adapter(), &tune(), config, &mut session.parameters, 1, true)).unwrap();
    block_on(predictor.logits(image)).unwrap()
}
