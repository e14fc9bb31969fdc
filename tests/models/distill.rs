//! Students of a teacher: what they learn, with which classifier, and that their runs go on bit for bit.

use std::path::Path;

use lara_models::Model;
use lara_models::data::augment::Recipe;
use lara_models::data::{Batch, Loader, LoaderOptions, Position, Split};
use lara_models::train::{Session, TrainConfig, Trainer};
use lara_runtime::Role;
use lara_tests::adapter;
use pollster::block_on;

use crate::trainer::{configure, done, interrupted, resume, start, tensors, tune};

/// A student with classifiers for the labels and for the teacher.
const TWO_HEADS: [&str; 4] =
    ["model.class_token=true", "model.dist_token=true", "model.head_dist=true", "model.global_pool=token"];

/// Nothing random but the images.
const CALM: [&str; 4] =
    ["attention.mechanism=softmax", "model.drop_rate=0", "model.drop_path_rate=0", "train.model_ema=false"];

/// What learns digits in a few hundred steps.
const QUICK: [&str; 5] =
    ["model.weight_init=jax", "data.hflip=0", "data.crop_padding=0", "train.batch_size=32", "train.epochs=7"];

/// A teacher, in `root/teacher`; of one epoch unless `sets` say otherwise.
fn teacher(root: &Path, sets: &[&str]) -> f64 {
    let config = configure(&root.join("teacher"), &[&["train.epochs=1"], sets].concat());
    done(start(&config)).evaluation.unwrap().accuracy
}

/// A student of it.
fn student(root: &Path, sets: &[&str]) -> TrainConfig {
    let taught = format!("distill.teacher={}", root.join("teacher").display());
    configure(&root.join("student"), &[&[taught.as_str()], sets].concat())
}

fn first_batch(config: &TrainConfig) -> Batch {
    let recipe = Recipe::train(&config.data, &config.augment).unwrap();
    let options = LoaderOptions::train(config.train.batch_size, config.train.seed, 0, recipe);
    Loader::new(config.open_data(Split::Train).unwrap(), options, Position::default()).unwrap().next().unwrap().unwrap()
}

fn session(config: &TrainConfig) -> Session {
    config.validate().unwrap();
    block_on(Session::new(adapter(), &tune(), config, config.schedule(22))).unwrap()
}

fn log_softmax(row: &[f32], tau: f64) -> Vec<f64> {
    let scaled: Vec<f64> = row.iter().map(|&x| f64::from(x) / tau).collect();
    let total = scaled.iter().map(|x| x.exp()).sum::<f64>().ln();
    scaled.into_iter().map(|x| x - total).collect()
}

/// DeiT's `DistillationLoss` of logits, with its cross-entropy smoothed by 0.1.
fn deits_loss(student: &[Vec<f32>], teacher: &[Vec<f32>], labels: &[u32], hard: bool, [alpha, tau]: [f64; 2]) -> f64 {
    let (mut base, mut distilled) = (0.0, 0.0);
    for ((student, teacher), &label) in student.iter().zip(teacher).zip(labels) {
        let log_p = log_softmax(student, 1.0);
        base -= 0.9 * log_p[label as usize] + 0.1 * log_p.iter().sum::<f64>() / 10.0;
        let best = (0..10).fold(0, |best, k| if teacher[k] > teacher[best] { k } else { best });
        distilled += match hard {
            true => -log_p[best],
            false => {
                let pairs = log_softmax(student, tau).into_iter().zip(log_softmax(teacher, tau));
                pairs.map(|(s, t)| t.exp() * (t - s)).sum::<f64>() * tau * tau / 10.0
            }
        };
    }
    ((1.0 - alpha) * base + alpha * distilled) / labels.len() as f64
}

#[test]
fn the_loss_of_a_step_is_that_of_deit() {
    let temp = tempfile::tempdir().unwrap();
    teacher(temp.path(), &[]);
    let teacher = Model::open(temp.path().join("teacher")).unwrap();
    for (kind, alpha, tau) in [("hard", 0.5, 1.0), ("soft", 0.5, 1.0), ("soft", 0.9, 3.0)] {
        let sets = [format!("distill.type={kind}"), format!("distill.alpha={alpha}"), format!("distill.tau={tau}")];
        let config = student(temp.path(), &[&CALM[..], &sets.each_ref().map(String::as_str)].concat());
        let batch = first_batch(&config);
        let mut session = session(&config);
        let own = block_on(session.evaluator(batch.len())).unwrap();
        let own = block_on(own.logits(&batch.images)).unwrap();
        let of_teacher = block_on(teacher.predictor(adapter(), &tune(), batch.len())).unwrap();
        let of_teacher = block_on(of_teacher.logits(&batch.images)).unwrap();
        let expected = deits_loss(&own, &of_teacher, &batch.labels, kind == "hard", [alpha, tau]);
        session.step(0, &[batch]).unwrap();
        let found = session.finish().unwrap()[0].loss;
        assert!((found - expected).abs() < 1e-5 * expected, "{kind} {alpha} {tau}: {found}, not {expected}");
    }
}

/// With the teacher's share at 0 or 1 one of the two classifiers learns nothing.
#[test]
fn the_labels_teach_one_classifier_and_the_teacher_the_other() {
    let temp = tempfile::tempdir().unwrap();
    teacher(temp.path(), &[]);
    for (kind, alpha) in [("hard", 0.0), ("hard", 0.5), ("soft", 0.5), ("soft", 1.0)] {
        let sets = [format!("distill.type={kind}"), format!("distill.alpha={alpha}"), "train.weight_decay=0".into()];
        let sets = [&CALM[..], &TWO_HEADS, &sets.each_ref().map(String::as_str)].concat();
        let config = student(temp.path(), &sets);
        let mut session = session(&config);
        let read = |session: &Session| block_on(session.parameters.read(adapter(), Role::Weight)).unwrap();
        let before = read(&session);
        session.step(0, &[first_batch(&config)]).unwrap();
        session.finish().unwrap();
        let after = read(&session);
        let moved = |name: &str| {
            let at = session.parameters.entries().iter().position(|entry| entry.name == name).unwrap();
            before[at] != after[at]
        };
        let found = ["head.weight", "head_dist.weight", "blocks.0.mlp.fc1.weight"].map(moved);
        assert_eq!(found, [alpha < 1.0, alpha > 0.0, true], "{kind} {alpha}");
    }
}

#[test]
fn a_student_learns_from_its_teacher_alone() {
    let temp = tempfile::tempdir().unwrap();
    let quick = [&CALM[..], &QUICK].concat();
    let of_teacher = teacher(temp.path(), &quick);
    assert!(of_teacher > 0.8, "the teacher knows too little: {of_teacher}");
    for kind in ["hard", "soft"] {
        let kind = format!("distill.type={kind}");
        // No label has a say.
        let config = student(temp.path(), &[&quick[..], &[&kind, "distill.alpha=1"]].concat());
        let summary = done(start(&config));
        let accuracy = summary.evaluation.unwrap().accuracy;
        assert!(accuracy > 0.7, "{kind}: {accuracy} after a teacher of {of_teacher}");
        std::fs::remove_dir_all(temp.path().join("student")).unwrap();
    }
}

#[test]
fn a_run_with_a_teacher_goes_on_bit_for_bit() {
    let temp = tempfile::tempdir().unwrap();
    teacher(temp.path(), &[]);
    let more = [
        "distill.type=soft",
        "distill.tau=2",
        "augment.mixup=0.8",
        "train.batch_size=32",
        "train.grad_accum_steps=2",
        "train.epochs=3",
    ];
    let config = student(temp.path(), &[&TWO_HEADS[..], &more].concat());
    let expected = tensors(&done(start(&config)).checkpoint.unwrap());
    let folder = temp.path().join("student");
    std::fs::rename(&folder, temp.path().join("whole")).unwrap();
    interrupted(start(&config), 30);
    assert!(tensors(&done(resume(&folder)).checkpoint.unwrap()) == expected);
    // The teacher decides: another one is another run.
    std::fs::remove_dir_all(&folder).unwrap();
    let without = configure(&folder, &[&TWO_HEADS[..], &more[2..]].concat());
    assert!(tensors(&done(start(&without)).checkpoint.unwrap()) != expected);
}

#[test]
fn teachers_that_do_not_fit_get_a_sentence() {
    let temp = tempfile::tempdir().unwrap();
    teacher(temp.path(), &[]);
    let root = temp.path().display().to_string();
    let refused = |sets: &[&str]| {
        let error =
            block_on(Trainer::new(adapter(), &tune(), &student(temp.path(), sets))).err().expect("it is refused");
        assert!(error.is_bad_input(), "{error}");
        error.to_string().replace(&root, "ROOT")
    };
    assert_eq!(
        refused(&[]),
        "distill.teacher = ROOT/teacher teaches nothing under distill.type = \"none\"; set it to hard or soft"
    );
    assert!(refused(&["distill.type=soft", "distill.teacher="]).starts_with("distill.teacher is empty; name a run's"));
    assert!(refused(&["distill.type=hard", "distill.alpha=1.5"]).starts_with("distill.alpha is 1.5; it is a share"));
    assert!(refused(&["distill.type=soft", "distill.tau=0"]).starts_with("distill.tau is 0; it must be between 0.01"));
    assert!(refused(&["distill.type=hard", "distill.teacher=nowhere"]).contains("nowhere"));
    assert_eq!(
        refused(&["distill.type=hard", "data.mean=[0.5]"]),
        "distill.teacher = ROOT/teacher was trained on images with other numbers than the student's; both see the same ones, \
         so set data.mean=[0.3] and data.std=[0.4]"
    );
    // Settings for which there are no data are refused where the data are opened; a session alone meets the teacher.
    let alone = |sets: &[&str]| {
        let config = student(temp.path(), &[&["distill.type=hard"], sets].concat());
        block_on(Session::new(adapter(), &tune(), &config, config.schedule(1))).err().unwrap().to_string()
    };
    assert!(alone(&["model.image_size=16"]).contains("takes images of 1x8x8 and the student of 1x16x16; both see the"));
    assert!(alone(&["model.num_classes=11"]).contains("has 10 classes and the student 11; choose a teacher for the"));
    let unknown = TrainConfig::load("digits", &["distill.type=sofd"]).unwrap_err().to_string();
    assert!(unknown.ends_with("must be one of none, hard, soft; did you mean \"soft\"?"), "{unknown}");
}
