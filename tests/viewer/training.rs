//! Training in the window: curves that stay small, runs that are followed and driven, and the pane itself.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use egui::Theme;
use egui_kittest::Harness;
use egui_kittest::kittest::Queryable;
use lara_models::train::{Checkpoint, Control, Event, TrainConfig, Trainer};
use lara_runtime::attention::MechanismKind;
use lara_runtime::{Role, Tune, Variant};
use lara_tests::adapter;
use lara_viewer::panes::training::TrainingPane;
use lara_viewer::training::{Curve, Pace, State, Training};
use pollster::block_on;

fn curve(values: impl IntoIterator<Item = f64>) -> Curve {
    let mut curve = Curve::default();
    values.into_iter().enumerate().for_each(|(x, y)| curve.push(x as f64, y));
    curve
}

#[test]
fn a_short_curve_is_kept_as_it_is() {
    let values = [3.0, 1.0, 2.0, 2.0, -5.0];
    let points: Vec<[f64; 2]> = curve(values).points().collect();
    assert_eq!(points, [[0.0, 3.0], [1.0, 1.0], [2.0, 2.0], [3.0, 2.0], [4.0, -5.0]]);
    assert!(Curve::default().is_empty() && Curve::default().points().next().is_none());
}

#[test]
fn what_is_not_finite_is_left_out() {
    let curve = curve([1.0, f64::NAN, f64::INFINITY, 2.0]);
    assert_eq!(curve.points().collect::<Vec<_>>(), [[0.0, 1.0], [3.0, 2.0]]);
    assert_eq!(curve.last(), Some([3.0, 2.0]));
}

#[test]
fn a_long_curve_is_thinned_evenly_and_keeps_its_extremes() {
    for count in [1_000usize, 1_025, 2_048, 5_000, 123_457] {
        // Noise of its own for every count, with one spike up and one down somewhere.
        let (up, down) = (count / 3, 2 * count / 3 + 1);
        let value = |i: usize| match i {
            _ if i == up => 99.0,
            _ if i == down => -99.0,
            _ => ((i * 7919 + count) % 1000) as f64 / 1000.0,
        };
        let curve = curve((0..count).map(value));
        let points: Vec<[f64; 2]> = curve.points().collect();
        assert!(points.len() <= 2049, "{} points", points.len());
        assert!(points.len() >= count.min(1000), "{} points of {count}", points.len());
        assert!(points.windows(2).all(|pair| pair[0][0] < pair[1][0]), "steps go back");
        assert!(points.iter().all(|[x, y]| *y == value(*x as usize)), "a point was made up");
        assert!(points.contains(&[up as f64, 99.0]) && points.contains(&[down as f64, -99.0]), "a spike was lost");
        assert_eq!(points.last(), Some(&[(count - 1) as f64, value(count - 1)]));
        // Nowhere is a hole: the first tenth has about as many points as any other.
        let largest = points.windows(2).map(|pair| pair[1][0] - pair[0][0]).fold(0.0, f64::max);
        assert!(largest <= (4 * count / 1000).max(1) as f64, "a gap of {largest} in {count}");
    }
}

#[test]
fn slow_frames_ask_for_fewer_steps() {
    let mut pace = Pace::default();
    let counts = |pace: &mut Pace, ms: &[u64]| -> Vec<usize> {
        ms.iter().map(|&ms| pace.after(Duration::from_millis(ms))).collect()
    };
    assert_eq!(counts(&mut pace, &[16, 16, 16, 16, 16]), [2, 3, 4, 4, 4]);
    assert_eq!(counts(&mut pace, &[30, 400, 400, 400, 400]), [4, 3, 2, 1, 1]);
}

/// A small model on the digits: 44 steps an epoch.
fn config(dir: &Path, sets: &[&str]) -> TrainConfig {
    let dir = format!("output.dir={}", dir.display());
    let small = ["model.embed_dim=16", "model.depth=1", "output.eval_interval=1", "output.tensorboard=false", &dir];
    let sets: Vec<&str> = small.into_iter().chain(sets.iter().copied()).collect();
    TrainConfig::load("digits", &sets).unwrap_or_else(|e| panic!("{e}"))
}

fn tune() -> Tune {
    Tune::fixed(&[Variant::ROWS4, Variant::ROWS, Variant::FORWARD_ROWS, Variant::SLABS])
}

fn training() -> Training {
    Training::new(adapter(), &tune(), Arc::new(|| {}))
}

fn attach(config: &TrainConfig, control: &Control) -> Training {
    let mut training = training();
    let trainer = block_on(Trainer::new(adapter(), &tune(), config)).unwrap_or_else(|e| panic!("{e}"));
    training.attach(trainer, control, Box::new(|_| {})).unwrap();
    training
}

/// Polls as a window would until it is so.
fn until(training: &mut Training, what: &str, is_so: impl Fn(&Training) -> bool) {
    let begin = Instant::now();
    while !is_so(training) {
        assert!(begin.elapsed() < Duration::from_secs(90), "{what}: {:?}", training.state());
        std::thread::sleep(Duration::from_millis(5));
        training.poll();
    }
}

#[test]
fn an_attached_run_is_followed_to_its_end() {
    let temp = tempfile::tempdir().unwrap();
    let frames = Arc::new(AtomicUsize::new(0));
    let heard = Arc::new(Mutex::new(0));
    let (asked, listener) = (frames.clone(), heard.clone());
    let repaint = Arc::new(move || {
        asked.fetch_add(1, Ordering::Relaxed);
    });
    let mut training = Training::new(adapter(), &tune(), repaint);
    assert_eq!(training.state(), State::Idle);
    assert!(training.parameters().is_none() && !training.can_save());
    let config = config(temp.path(), &["train.epochs=2", "train.warmup_epochs=1"]);
    let trainer = block_on(Trainer::new(adapter(), &tune(), &config)).unwrap();
    let hear = move |event: &Event<'_>| *listener.lock().unwrap() += u64::from(matches!(event, Event::Step(_)));
    training.attach(trainer, &Control::new(), Box::new(hear)).unwrap();
    assert_eq!(training.take_model().unwrap().config, config);
    assert!(training.take_model().is_none() && training.can_save());
    until(&mut training, "the end", |t| t.state() == State::Finished);
    let history = training.history();
    assert_eq!((history.steps(), training.total_steps(), *heard.lock().unwrap()), (88, 88, 88));
    assert_eq!(history.loss.points().count(), 88);
    assert_eq!(history.held_out_accuracy.points().map(|[x, _]| x).collect::<Vec<_>>(), [44.0, 88.0]);
    assert!(history.lr.points().zip(1..).all(|([x, _], step)| x == f64::from(step)));
    // The smoothed curve ends lower than the first loss, and below no value that was there.
    let least = history.loss.points().map(|[_, y]| y).fold(f64::INFINITY, f64::min);
    let (first, smooth) = (history.loss.points().next().unwrap()[1], history.smooth_loss.curve.last().unwrap()[1]);
    assert!(smooth < first && smooth >= least, "{first} {smooth} {least}");
    assert!(frames.load(Ordering::Relaxed) >= 90, "the window is asked to draw what is new");
    assert_eq!(training.saved(), Some(temp.path().join("checkpoint-000088").as_path()));
    // The weights outlive the run, and are those of its checkpoint.
    let parameters = training.parameters().unwrap();
    let checkpoint = Checkpoint::load(temp.path()).unwrap();
    let saved = checkpoint.weights(&lara_models::train::names_and_shapes(parameters)).unwrap();
    assert_eq!(block_on(parameters.read(adapter(), Role::Weight)).unwrap(), saved);
    let summary = training.into_summary().unwrap();
    assert!(summary.steps == 88 && !summary.interrupted);
}

#[test]
fn a_run_outlives_the_window_even_if_it_was_held() {
    let temp = tempfile::tempdir().unwrap();
    let control = Control::new();
    control.pause();
    let training = attach(&config(temp.path(), &["train.epochs=1", "train.warmup_epochs=0"]), &control);
    assert_eq!(training.state(), State::Paused);
    assert_eq!(training.into_summary().unwrap().steps, 44);
    assert!(training_without_run().to_string().contains("no run was attached"));
}

fn training_without_run() -> lara_models::Error {
    training().into_summary().unwrap_err()
}

#[test]
fn a_run_that_fails_says_so() {
    let temp = tempfile::tempdir().unwrap();
    let sets = ["train.lr=1e30", "train.clip_grad=0", "train.warmup_epochs=0"];
    let mut training = attach(&config(&temp.path().join("attached"), &sets), &Control::new());
    until(&mut training, "failure", |t| !t.state().is_active());
    let State::Failed(sentence) = training.state() else { panic!("{:?}", training.state()) };
    assert!(sentence.contains("Try a lower train.lr"), "{sentence}");
    assert_eq!(training.into_summary().unwrap_err().to_string(), sentence);
    // The same for a run that the frames drive, and for one that cannot even begin.
    let mut training = self::training();
    training.start(config(temp.path(), &sets));
    until(&mut training, "failure", |t| !t.state().is_active());
    assert!(matches!(training.state(), State::Failed(sentence) if sentence.contains("Try a lower train.lr")));
    training.start(config(temp.path(), &["train.batch_size=4000"]));
    until(&mut training, "refusal", |t| !t.state().is_active());
    assert!(matches!(training.state(), State::Failed(sentence) if sentence.contains("4000")));
}

#[test]
fn frames_drive_a_run_that_was_begun_here() {
    let temp = tempfile::tempdir().unwrap();
    let mut training = training();
    training.start(config(temp.path(), &["train.epochs=2", "train.warmup_epochs=0"]));
    assert_eq!(training.state(), State::Preparing);
    assert!(training.parameters().is_none());
    until(&mut training, "first step", |t| t.history().steps() >= 1);
    assert!(training.take_model().is_some() && !training.can_save());
    training.control().pause();
    assert_eq!(training.state(), State::Paused);
    // What is under way arrives; then nothing more does.
    let begin = Instant::now();
    until(&mut training, "rest", |_| begin.elapsed() > Duration::from_millis(700));
    let held = training.history().steps();
    until(&mut training, "rest", |_| begin.elapsed() > Duration::from_millis(1000));
    assert_eq!(training.history().steps(), held);
    let weights = |t: &Training| block_on(t.parameters().unwrap().read(adapter(), Role::Weight)).unwrap();
    let before = weights(&training);
    training.control().step();
    until(&mut training, "one step", |t| t.history().steps() > held);
    assert_eq!((training.history().steps(), training.state()), (held + 1, State::Paused));
    assert_ne!(weights(&training), before);
    training.control().resume();
    until(&mut training, "the end", |t| t.state() == State::Finished);
    assert_eq!(training.history().steps(), 88);
    assert_eq!(training.history().held_out_loss.points().map(|[x, _]| x).collect::<Vec<_>>(), [44.0, 88.0]);
    // Another one takes its place, and can be stopped.
    training.start_digits(MechanismKind::Softmax).unwrap();
    until(&mut training, "a step of the next run", |t| t.history().steps() >= 1);
    assert_eq!(training.config().unwrap().attention.mechanism, MechanismKind::Softmax);
    assert!(training.total_steps() > 1000 && training.take_model().is_some());
    training.control().stop();
    until(&mut training, "the stop", |t| t.state() == State::Stopped);
    assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 0, "it wrote files");
}

/// The pane in a window of `size`, polled as the program does.
fn pane<'a>(training: &'a mut Training, size: [f32; 2], theme: Theme) -> Harness<'a> {
    let mut pane = TrainingPane::default();
    Harness::builder().with_size(size).with_theme(theme).with_max_steps(20).wgpu().build_ui(move |ui| {
        egui::CentralPanel::default().show(ui, |ui| pane.show(training, ui));
    })
}

/// The picture, and a copy of it in the folder `LARA_PICTURES`, if that is set.
fn picture(harness: &mut Harness<'_>, name: &str) -> Vec<[u8; 4]> {
    let picture = harness.render().unwrap_or_else(|e| panic!("{e}"));
    if let Ok(dir) = std::env::var("LARA_PICTURES") {
        picture.save(Path::new(&dir).join(format!("{name}.png"))).unwrap();
    }
    picture.pixels().map(|pixel| pixel.0).collect()
}

#[test]
fn the_pane_draws_its_curves_in_both_themes() {
    let temp = tempfile::tempdir().unwrap();
    let mut training = attach(&config(temp.path(), &["train.epochs=4"]), &Control::new());
    until(&mut training, "the end", |t| t.state() == State::Finished);
    // Colours of the smoothed curves, the held-out points and the learning rate.
    let dark = [[104, 170, 255], [255, 178, 84], [126, 211, 140]];
    let light = [[26, 98, 204], [196, 88, 0], [36, 130, 58]];
    for (theme, colors, size, name) in [
        (Theme::Dark, dark, [900.0, 600.0], "training-dark"),
        (Theme::Light, light, [900.0, 600.0], "training-light"),
        (Theme::Dark, dark, [480.0, 400.0], "training-small"),
    ] {
        let mut harness = pane(&mut training, size, theme);
        harness.run_steps(4);
        let pixels = picture(&mut harness, name);
        assert_eq!(pixels.len(), (size[0] * size[1]) as usize);
        for color in colors {
            let count = pixels.iter().filter(|pixel| pixel[..3] == color).count();
            assert!(count > 20, "{name}: {count} pixels of {color:?}");
        }
    }
}

#[test]
fn the_buttons_of_the_pane_reach_the_run() {
    let temp = tempfile::tempdir().unwrap();
    let control = Control::new();
    let mut training = attach(&config(temp.path(), &["train.epochs=500"]), &control);
    until(&mut training, "a step", |t| t.history().steps() > 3);
    let training = Arc::new(Mutex::new(training));
    let shown = training.clone();
    let mut pane = TrainingPane::default();
    let mut harness = Harness::builder().with_size([900.0, 600.0]).wgpu().build_ui(move |ui| {
        let mut training = shown.lock().unwrap();
        training.poll();
        egui::CentralPanel::default().show(ui, |ui| pane.show(&mut training, ui));
    });
    let click = |harness: &mut Harness<'_>, label: &str| {
        harness.get_by_label(label).click();
        harness.run_steps(3);
    };
    click(&mut harness, "Pause");
    assert!(control.is_paused());
    until(&mut training.lock().unwrap(), "the pause", |t| t.state() == State::Paused);
    std::thread::sleep(Duration::from_millis(700));
    harness.run_steps(3);
    let held = training.lock().unwrap().history().steps();
    click(&mut harness, "Step");
    until(&mut training.lock().unwrap(), "one step", |t| t.history().steps() == held + 1);
    click(&mut harness, "Save");
    let path = temp.path().join(format!("checkpoint-{:06}", held + 1));
    until(&mut training.lock().unwrap(), "the checkpoint", |t| t.saved() == Some(&path));
    assert_eq!(Checkpoint::load(&path).unwrap().state.step, held + 1);
    harness.run_steps(3);
    picture(&mut harness, "training-paused");
    click(&mut harness, "log scale");
    picture(&mut harness, "training-log");
    // By the keyboard, too: the button has the focus.
    harness.get_by_label("Go on").focus();
    harness.key_press(egui::Key::Enter);
    harness.run_steps(3);
    assert!(!control.is_paused());
    until(&mut training.lock().unwrap(), "more steps", |t| t.history().steps() > held + 2);
    click(&mut harness, "Stop");
    assert!(control.is_stopped());
    until(&mut training.lock().unwrap(), "the end", |t| t.state() == State::Stopped);
    harness.run_steps(3);
    picture(&mut harness, "training-stopped");
    // What cannot be asked for any more cannot be clicked, and another run can be begun.
    click(&mut harness, "Pause");
    assert!(!control.is_paused());
    click(&mut harness, "Start");
    assert_eq!(training.lock().unwrap().state(), State::Preparing);
    until(&mut training.lock().unwrap(), "a run begun here", |t| t.history().steps() > 0);
}
