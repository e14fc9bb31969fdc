//! The window at its smallest, at two pixels a point, in both themes, and with things that go wrong.

use egui_kittest::kittest::Queryable;
use lara_viewer::settings::{Page, Settings};

use crate::window::{app, gpu, open, picture, wait};

#[test]
fn every_page_fits_the_smallest_window_in_both_themes() {
    for theme in [egui::ThemePreference::Light, egui::ThemePreference::Dark] {
        for page in Page::ALL {
            let mut window = open([900.0, 600.0], 1.0, Settings { page, theme, ..Settings::default() });
            wait(&mut window, page.title(), |app| !app.is_busy());
            window.run_steps(2);
            picture(&mut window, &format!("small-{}-{theme:?}", page.title()));
            let screen = egui::Rect::from_min_size(egui::Pos2::ZERO, egui::vec2(900.0, 600.0));
            for name in ["Look", "Export…", if theme == egui::ThemePreference::Light { "Dark" } else { "Light" }] {
                let button = window.get_by_label(name).rect();
                assert!(screen.contains_rect(button), "{name} lies at {button} on {}", page.title());
            }
        }
    }
}

#[test]
fn two_pixels_a_point_are_sharp() {
    let mut window = open([900.0, 600.0], 2.0, Settings::default());
    window.run_steps(2);
    let image = picture(&mut window, "small-2x");
    assert_eq!(image.dimensions(), (1800, 1200));
}

#[test]
fn what_cannot_be_opened_is_said_and_can_be_dismissed() {
    let mut window = open([900.0, 600.0], 1.0, Settings::default());
    app(&mut window).open_bytes("broken.safetensors", vec![1, 2, 3]);
    app(&mut window).open_bytes("no-image.png", b"not a picture".to_vec());
    window.run_steps(2);
    let errors = app(&mut window).status().errors.clone();
    assert_eq!(errors.len(), 2, "{errors:?}");
    assert!(errors[0].contains("broken.safetensors") && errors[1].contains("no-image.png"), "{errors:?}");
    picture(&mut window, "messages");
    window.get_all_by_label("×").next().expect("a button that dismisses").click();
    window.run_steps(2);
    assert_eq!(app(&mut window).status().errors.len(), 1);
}

#[test]
fn a_dropped_image_is_looked_at() {
    let mut window = open([900.0, 600.0], 1.0, Settings::default());
    let mut bytes = Vec::new();
    let grey = image::GrayImage::from_fn(24, 24, |x, y| image::Luma([(10 * x) as u8 ^ (10 * y) as u8]));
    grey.write_to(&mut std::io::Cursor::new(&mut bytes), image::ImageFormat::Png).expect("a picture can be encoded");
    let maps = app(&mut window).status().maps;
    app(&mut window).open_bytes("drawn.png", bytes);
    window.run_steps(2);
    assert!(app(&mut window).status().maps > maps);
    assert!(window.query_by_label("drawn.png").is_some() || app(&mut window).status().errors.is_empty());
}

#[test]
fn maps_are_saved_from_the_dialog() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut window = open([1180.0, 780.0], 1.0, Settings::default());
    window.get_by_label("Export…").click();
    window.run_steps(2);
    window.get_by_role_and_label(egui::Role::TextInput, "folder").focus();
    window.run_steps(2);
    window.key_press_modifiers(egui::Modifiers::COMMAND, egui::Key::A);
    window.run_steps(2);
    let typed = folder.path().display().to_string();
    window.get_by_role_and_label(egui::Role::TextInput, "folder").type_text(&typed);
    window.run_steps(2);
    picture(&mut window, "export");
    window.get_by_label("Save").click();
    window.step();
    wait(&mut window, "the files", |app| app.status().errors.iter().any(|text| text.contains("saved")));
    let names: Vec<String> = std::fs::read_dir(folder.path())
        .expect("the folder is there")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    assert!(names.iter().any(|n| n.ends_with(".png")) && names.iter().any(|n| n.ends_with(".html")), "{names:?}");
}

#[test]
fn every_dispatch_is_timed() {
    let mut window = open([900.0, 600.0], 1.0, Settings { page: Page::Performance, ..Settings::default() });
    window.get_by_label("Measure").click();
    window.step();
    if !gpu().has_timestamps() {
        assert!(window.query_by_label_contains("no timestamps").is_some());
        return;
    }
    let start = std::time::Instant::now();
    while window.query_by_label_contains(" dispatches, ").is_none() {
        assert!(start.elapsed().as_secs() < 120, "no times came back");
        window.step();
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    picture(&mut window, "dispatches");
    assert!(window.query_all_by_label_contains("lara_mix.forward").count() > 0, "every step has its line");
}

#[test]
fn another_adapter_can_be_asked_for() {
    let mut window = open([900.0, 600.0], 1.0, Settings { page: Page::Performance, ..Settings::default() });
    window.get_by_label("Start again on another adapter").click();
    let name = format!("{} ({})", gpu().report().name, gpu().report().backend);
    let start = std::time::Instant::now();
    while window.query_by_label(&name).is_none() {
        assert!(start.elapsed().as_secs() < 60, "the adapters were not listed");
        window.step();
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    window.run_steps(20);
    window.get_by_label(&name).click();
    window.run_steps(2);
    let index = gpu().report().index.to_string();
    assert_eq!(app(&mut window).restart_on(), Some(index.as_str()));
}
