//! The page of rollouts and gradient-weighted attention.

use std::sync::Arc;

use egui_kittest::kittest::Queryable;
use lara_models::train::TrainConfig;
use lara_models::{Model, Predictor, Weights};
use lara_runtime::{Parameters, Role, Tune};
use lara_viewer::Launch;
use lara_viewer::pictures::{Entry, Gallery};
use lara_viewer::settings::{Page, Settings};

use crate::window::{app, gpu, open, open_with, picture, snapshot, wait};

/// LARA with fresh weights, this many patches a side and two blocks.
fn large(side: usize) -> Model {
    fresh(side, false)
}

/// The same, or with weights of 0: then exact softmax, which is uniform.
pub(crate) fn fresh(side: usize, is_flat: bool) -> Model {
    let size = format!("model.image_size={side}");
    // The preset's own initial head is 0, and so is every gradient behind it.
    let sets = ["model.patch_size=1", "model.depth=2", "model.weight_init=timm"];
    let mechanism = if is_flat { "attention.mechanism=softmax" } else { "attention.mechanism=lara" };
    let sets = [&[&size, mechanism, "attention.num_landmarks=36"][..], &sets].concat();
    let config = TrainConfig::load("digits", &sets).expect("a preset with settings");
    let (mut parameters, tune) = (Parameters::new(gpu()), Tune::fixed(&[]));
    pollster::block_on(Predictor::new(gpu(), &tune, &config, &mut parameters, 1, false)).expect("a small model");
    parameters.initialize(gpu(), 3).unwrap();
    let flat = parameters.entries().iter().enumerate().filter(|_| is_flat);
    for (index, entry) in flat {
        parameters.write(gpu(), Role::Weight, index, &vec![0.0; entry.shape.len()]).unwrap();
    }
    let classes = (0..10).map(|class| class.to_string()).collect();
    Model { name: "fresh".into(), config, classes, weights: Weights::Live(Arc::new(parameters)) }
}

#[test]
fn the_page_says_what_needs_matrices_and_shows_the_rest() {
    let side = 36;
    let launch = move || {
        let subject = large(side);
        let mut gallery = Gallery::empty(subject.image_shape());
        let pixels: Vec<f32> = lara_tests::random(3, side * side).iter().map(|x| x.abs() as f32).collect();
        gallery.entries.push(Entry { name: "noise".into(), pixels: pixels.into(), label: None, photo: None });
        Launch { subject, gallery, training: None, notes: Vec::new(), tune: None }
    };
    let settings = Settings { page: Page::Rollout, ..Settings::default() };
    let mut window = open_with([1180.0, 780.0], 1.0, settings, launch);
    let said = "This model has 1296 tokens.";
    wait(&mut window, "the rollout", |app| !app.is_busy());
    window.run_steps(3);
    let plain = picture(&mut window, "rollout-large");
    assert_eq!(window.query_all_by_label_contains(said).count(), 1);
    assert_eq!(window.query_all_by_label("of heads").count(), 0, "heads are averaged");
    window.get_by_label("Gradient-weighted rollout").click();
    window.step();
    wait(&mut window, "the sentence", |app| !app.is_busy());
    window.run_steps(2);
    assert_eq!(window.query_all_by_label_contains(said).count(), 1);
    assert_eq!(window.query_all_by_label("Rollout over the image").count(), 0);
    window.get_by_label("Gradient-weighted, by layer").click();
    window.step();
    wait(&mut window, "the gradient", |app| !app.is_busy());
    window.run_steps(3);
    let layers = picture(&mut window, "relevance-large");
    assert_eq!(window.query_all_by_label_contains(said).count(), 0, "layers need no matrix");
    assert!(window.query_all_by_label("layer 1").count() > 0, "every layer has a map");
    assert_ne!(plain.as_raw(), layers.as_raw());
    assert_eq!(app(&mut window).status().errors, Vec::<String>::new());
}

#[test]
fn the_page_shows_rollouts_and_layers() {
    let mut window = open([1180.0, 780.0], 1.0, Settings { page: Page::Rollout, ..Settings::default() });
    wait(&mut window, "the rollout", |app| !app.is_busy());
    window.run_steps(3);
    snapshot(&mut window, "rollout");
    window.get_by_label("Gradient-weighted, by layer").click();
    window.step();
    wait(&mut window, "the gradient", |app| !app.is_busy());
    window.run_steps(3);
    snapshot(&mut window, "relevance");
    assert!(window.query_all_by_label("layer 3").count() > 0, "every layer has a map");
    assert_eq!(app(&mut window).status().errors, Vec::<String>::new());
}
