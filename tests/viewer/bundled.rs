//! What comes with the program: drawings for its model, digits for one of their size.

use egui_kittest::kittest::Queryable;
use lara_runtime::attention::MechanismKind;
use lara_viewer::settings::{Page, Settings};

use crate::window::{Window, app, launch, open_with, wait};

/// What `lara view` opens.
fn open(settings: Settings) -> Window {
    let launch = || launch(lara_explain::bundled().expect("the bundled model is whole"));
    open_with([1180.0, 780.0], 1.0, settings, launch)
}

/// A run on the digits, begun beside the colour model, brings an image of its own size to look at.
#[test]
fn a_run_on_the_digits_is_looked_at_beside_a_colour_model() {
    let mut window = open(Settings { page: Page::Train, ..Settings::default() });
    let maps = app(&mut window).status().maps;
    app(&mut window).training_mut().start_digits(MechanismKind::Softmax).expect("the preset makes sense");
    wait(&mut window, "three steps", |app| app.status().train_steps >= 3);
    app(&mut window).training_mut().control().stop();
    wait(&mut window, "the map of the run", |app| app.status().maps > maps + 1 && !app.is_busy());
    app(&mut window).open(lara_explain::bundled_digits().map_err(Into::into));
    wait(&mut window, "the digits model", |app| !app.is_busy());
    window.get_by_label("Look").click();
    window.run_steps(2);
    window.get_by_label("digits, held out");
    assert!(window.query_by_label("digits 0 (class 2)").is_some(), "digits have their classes");
    // And back.
    app(&mut window).open(lara_explain::bundled().map_err(Into::into));
    wait(&mut window, "the emoji model", |app| !app.is_busy());
    window.run_steps(2);
    window.get_by_label("emoji, held out");
    assert!(window.query_by_label("nerd (class Smileys & Emotion)").is_some(), "drawings have their classes");
    assert_eq!(app(&mut window).status().errors, Vec::<String>::new());
}

/// Another model of the same size has other classes.
#[test]
fn labels_go_with_the_classes_that_they_count() {
    let mut window = open(Settings::default());
    assert!(window.query_by_label("nerd (class Smileys & Emotion)").is_some());
    let mut other = lara_explain::bundled().expect("the bundled model is whole");
    other.classes = (0..10).map(|class| class.to_string()).collect();
    app(&mut window).open(Ok(other));
    wait(&mut window, "the other model", |app| !app.is_busy());
    window.run_steps(2);
    assert!(window.query_by_label("nerd").is_some());
}
