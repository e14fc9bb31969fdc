//! Photos, of which a model sees a part; pyramids, stage by stage; many tokens; and weights in uniform ones.

use std::sync::Arc;

use egui_kittest::kittest::Queryable;
use lara_explain::{Colormap, Query};
use lara_models::train::TrainConfig;
use lara_models::{Model, Predictor, Weights};
use lara_runtime::{Parameters, Role, Tune};
use lara_viewer::Launch;
use lara_viewer::pictures::{Entry, Gallery};
use lara_viewer::settings::Settings;

use crate::rollout::fresh;
use crate::window::{Window, app, gpu, open_with, picture, wait};

/// A small model of another library.
fn golden(folder: &str) -> Model {
    let path = format!("{}/../tests/golden/models/{folder}", env!("CARGO_MANIFEST_DIR"));
    Model::open(path).unwrap_or_else(|e| panic!("{e}"))
}

/// A picture of this size: a disc before a sky.
fn drawn(width: u32, height: u32) -> Vec<u8> {
    let centre = [0.6 * width as f32, 0.45 * height as f32];
    let picture = image::RgbImage::from_fn(width, height, |x, y| {
        let far = (x as f32 - centre[0]).hypot(y as f32 - centre[1]);
        let sky = (90 + 120 * y / height) as u8;
        image::Rgb(if far < 0.25 * height as f32 { [250, 190, 40] } else { [40, sky, 230] })
    });
    let mut bytes = Vec::new();
    picture.write_to(&mut std::io::Cursor::new(&mut bytes), image::ImageFormat::Png).expect("it can be encoded");
    bytes
}

/// A window of a small model and a photo.
fn photo(folder: &'static str, size: [f32; 2], settings: Settings) -> Window {
    let launch = move || {
        let subject = golden(folder);
        let mut gallery = Gallery::empty(subject.image_shape());
        let preprocess = subject.preprocess().expect("its own");
        gallery.add("photo.png", &drawn(640, 427), &preprocess).expect("a picture");
        Launch { subject, gallery, training: None, notes: Vec::new(), tune: None }
    };
    let mut window = open_with(size, 1.0, settings, launch);
    wait(&mut window, "the photo", |app| !app.is_busy());
    window.run_steps(3);
    window
}

fn pane(window: &Window) -> egui::Rect {
    window.get_by_label_contains("over the image").rect()
}

#[test]
fn a_photo_is_shown_whole_and_large_and_what_is_cut_off_has_no_patches() {
    let mut window = photo("timm_pvt_v2", [1180.0, 780.0], Settings::default());
    picture(&mut window, "photo");
    let pane = pane(&window);
    assert!((pane.aspect_ratio() - 640.0 / 427.0).abs() < 0.01, "{pane}");
    assert!(pane.width() > 600.0, "{pane} is small for a window of 1180 points");
    window.hover_at(pane.min + 0.02 * pane.size());
    window.run_steps(2);
    assert_eq!(app(&mut window).focus().hovered, None, "the corner is cut off");
    window.hover_at(pane.center());
    window.run_steps(2);
    assert!(app(&mut window).focus().hovered.is_some());
    picture(&mut window, "photo-hovered");
    assert_eq!(app(&mut window).status().errors, Vec::<String>::new());
}

#[test]
fn every_page_holds_a_photo_in_the_smallest_window() {
    for page in lara_viewer::settings::Page::ALL {
        let settings = Settings { page, uniform: true, ..Settings::default() };
        let mut window = photo("timm_vit_token", [900.0, 600.0], settings);
        picture(&mut window, &format!("photo-small-{}", page.title()));
        assert_eq!(app(&mut window).status().errors, Vec::<String>::new(), "{}", page.title());
    }
}

#[test]
fn a_pyramid_is_looked_at_stage_by_stage_on_its_own_grids() {
    let mut window = photo("timm_pvt_v2", [1180.0, 780.0], Settings::default());
    assert!(window.query_by_label("16 × 16 queries, 2 × 2 keys").is_some(), "stage 1 reduces its keys");
    window.get_by_label("Show stage 3").click();
    window.run_steps(3);
    assert_eq!(app(&mut window).settings().layer, 3);
    assert!(window.query_by_label("4 × 4 queries, 2 × 2 keys").is_some());
    let pane = pane(&window);
    window.hover_at(pane.center() + egui::vec2(30.0, 30.0));
    window.run_steps(3);
    // Patch (2, 2) of 4 x 4 is counted on the first stage's 16 x 16.
    assert_eq!(app(&mut window).focus().hovered, Some(Query::Patch(10 * 16 + 10)));
    assert!(window.query_by_label_contains("patch (2, 2) · stage 3 · layer 3").is_some(), "it is told on its own grid");
    picture(&mut window, "pyramid-stage-3");
    window.remove_cursor();
    for layer in [4, 0, 1, 3] {
        window.key_press(egui::Key::S);
        window.run_steps(2);
        assert_eq!(app(&mut window).settings().layer, layer);
    }
    window.key_press(egui::Key::ArrowDown);
    window.key_press(egui::Key::ArrowDown);
    window.run_steps(2);
    assert!(window.query_by_label_contains("patch (3, 2) · stage 3").is_some(), "arrows go from patch to patch");
    assert_eq!(app(&mut window).status().errors, Vec::<String>::new());
}

/// A model of so many patches a side on noise; with weights of 0 its attention is uniform.
fn noise(side: usize, is_flat: bool, settings: Settings) -> Window {
    let launch = move || {
        let subject = fresh(side, is_flat);
        let mut gallery = Gallery::empty(subject.image_shape());
        let pixels: Vec<f32> = lara_tests::random(3, side * side).iter().map(|x| x.abs() as f32).collect();
        gallery.entries.push(Entry { name: "noise".into(), pixels: pixels.into(), label: None, photo: None });
        Launch { subject, gallery, training: None, notes: Vec::new(), tune: None }
    };
    let mut window = open_with([1180.0, 780.0], 1.0, settings, launch);
    wait(&mut window, "the maps", |app| !app.is_busy());
    window.run_steps(3);
    window
}

#[test]
fn a_uniform_map_is_flat_on_the_scale_of_uniform_weights() {
    let settings = Settings { opacity: 1.0, uniform: true, ..Settings::default() };
    let mut window = noise(8, true, settings);
    assert!(window.query_by_label_contains("largest: 1.0× uniform").is_some());
    let image = picture(&mut window, "uniform-flat");
    let (pane, wanted) = (pane(&window), Colormap::Viridis.color(0.25));
    for (x, y) in [(0.1, 0.1), (0.5, 0.9), (0.9, 0.3)] {
        let at = pane.min + pane.size() * egui::vec2(x, y);
        let found = image.get_pixel(at.x as u32, at.y as u32).0;
        assert!(found.iter().zip(wanted).all(|(a, b)| a.abs_diff(b) <= 3), "{found:?} at {at}, not {wanted:?}");
    }
    window.key_press(egui::Key::U);
    window.run_steps(2);
    assert!(!app(&mut window).settings().uniform && window.query_by_label_contains("largest:").is_none());
}

/// 28 x 28 patches (8 pixels of 224) and 56 x 56 (4 pixels).
#[test]
fn hovering_over_thousands_of_tokens_leaves_nothing_on_the_device() {
    for side in [28, 56] {
        let mut window = noise(side, false, Settings::default());
        let pane = pane(&window);
        let mut memory = Vec::new();
        for at in 0..12 {
            let maps = app(&mut window).status().maps;
            let place = egui::vec2((at as f32 + 0.5) / 12.0, (at as f32 * 0.37).fract());
            window.hover_at(pane.min + pane.size() * place);
            wait(&mut window, "the map", |app| app.status().maps > maps);
            memory.push(gpu().memory_in_use());
        }
        assert!(memory[2..].iter().all(|bytes| *bytes == memory[1]), "{side}: {memory:?}");
        wait(&mut window, "the other layers", |app| !app.is_busy());
        picture(&mut window, &format!("tokens-{}", side * side));
        assert_eq!(app(&mut window).status().errors, Vec::<String>::new());
    }
}

#[test]
fn what_cannot_be_done_for_a_pyramid_is_said() {
    use lara_viewer::settings::Page;
    let mut window = photo("timm_pvt_v2", [1180.0, 780.0], Settings { page: Page::Rollout, ..Settings::default() });
    assert!(window.query_by_label_contains("There is no rollout here").is_some());
    picture(&mut window, "pyramid-rollout");
    window.get_by_label("Gradient-weighted, by layer").click();
    window.step();
    wait(&mut window, "the gradient", |app| !app.is_busy());
    window.run_steps(3);
    assert!(window.query_all_by_label("stage 4 · layer 4").count() > 0, "every layer has a map");
    picture(&mut window, "pyramid-relevance");
    window.get_by_label("Compare").click();
    window.step();
    wait(&mut window, "the columns", |app| !app.is_busy() && app.compared().len() == 3);
    window.run_steps(3);
    assert!(window.query_by_label_contains("all 4 stages of this pyramid").is_some());
    picture(&mut window, "pyramid-compare");
    assert_eq!(app(&mut window).status().errors, Vec::<String>::new());
}

/// A model of full size with drawn weights; those of queries and keys are large enough for maps that are not flat.
fn full(preset: &str, sets: &[&str]) -> Model {
    let config = TrainConfig::load(preset, sets).unwrap_or_else(|e| panic!("{e}"));
    let (mut parameters, tune) = (Parameters::new(gpu()), Tune::fixed(&[]));
    pollster::block_on(Predictor::new(gpu(), &tune, &config, &mut parameters, 1, false)).expect("it fits");
    parameters.initialize(gpu(), 3).expect("the device is there");
    let names = ["attn.q.weight", "attn.kv.weight", "attn.qkv.weight"];
    for (index, entry) in parameters.entries().iter().enumerate() {
        if names.iter().any(|name| entry.name.ends_with(name)) {
            let drawn = lara_tests::random(index as u32, entry.shape.len());
            let values: Vec<f32> = drawn.iter().map(|x| 0.12 * *x as f32).collect();
            parameters.write(gpu(), Role::Weight, index, &values).expect("as many as there are");
        }
    }
    let classes = (0..config.model.num_classes()).map(|class| class.to_string()).collect();
    Model { name: preset.to_owned(), config, classes, weights: Weights::Live(Arc::new(parameters)) }
}

/// For a person's eye: LARA_PHOTO=FILE and LARA_SCREENSHOTS=FOLDER, and as much patience as the device takes.
#[test]
#[ignore = "full sizes take minutes on a CPU and are looked at by hand"]
fn full_sizes_over_a_photo() {
    let Some(file) = std::env::var_os("LARA_PHOTO").map(std::path::PathBuf::from) else { return };
    let b0 = ["model.embed_dims=[32,64,160,256]", "model.depths=[2,2,2,2]", "model.num_heads=[1,2,5,8]"];
    let b0 = [&b0[..], &["model.sr_ratios=[8,4,2,1]", "attention=softmax"]].concat();
    let models = [
        ("pvt_v2_b3", b0, "pvt-b0"),
        ("deit_tiny_p8", vec!["attention=softmax"], "patch-8"),
        ("deit_tiny_p8", vec!["attention=softmax", "model.patch_size=4", "model.depth=2"], "patch-4"),
    ];
    for (preset, sets, name) in models {
        let file = file.clone();
        let launch = move || {
            let subject = full(preset, &sets);
            let gallery =
                Gallery::open(&file, &subject.preprocess().expect("its own")).unwrap_or_else(|e| panic!("{e}"));
            Launch { subject, gallery, training: None, notes: Vec::new(), tune: None }
        };
        let mut window = open_with([1440.0, 900.0], 1.0, Settings::default(), launch);
        wait(&mut window, "the photo", |app| !app.is_busy());
        window.run_steps(3);
        picture(&mut window, &format!("full-{name}"));
        let pane = pane(&window);
        let mut times = Vec::new();
        for at in 0..4 {
            let maps = app(&mut window).status().maps;
            let begin = std::time::Instant::now();
            window.hover_at(pane.center() + egui::vec2(40.0 * at as f32, 30.0));
            wait(&mut window, "the map", |app| {
                app.status().maps > maps && app.inspector().is_some_and(|i| !i.is_waiting())
            });
            times.push((begin.elapsed().as_millis(), gpu().memory_in_use() >> 20));
        }
        eprintln!("{name}: milliseconds and MiB of each move {times:?}");
        wait(&mut window, "the other layers", |app| !app.is_busy());
        window.key_press(egui::Key::U);
        window.run_steps(3);
        picture(&mut window, &format!("full-{name}-uniform"));
        for stage in 2..=4 {
            window.key_press(egui::Key::S);
            window.run_steps(2);
            wait(&mut window, "the stage", |app| !app.is_busy());
            if name == "pvt-b0" {
                picture(&mut window, &format!("full-{name}-stage-{stage}"));
            }
        }
    }
}
