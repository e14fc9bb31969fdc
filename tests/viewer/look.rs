//! The page that opens first: image, heads, layers, prediction.

use egui_kittest::kittest::Queryable;
use lara_explain::{Head, Query};
use lara_viewer::settings::Settings;

use crate::window::{app, open, picture, snapshot};

#[test]
fn the_first_start_shows_a_real_map() {
    let mut window = open([1180.0, 780.0], 1.0, Settings::default());
    window.step();
    snapshot(&mut window, "look");
    let image = picture(&mut window, "look");
    let colours: std::collections::HashSet<_> = image.pixels().collect();
    assert!(colours.len() > 100, "the window shows only {} colours", colours.len());
    assert_eq!(app(&mut window).focus().current(false), Query::Mean);
}

#[test]
fn hovering_shows_that_patch_and_clicks_keep_and_pin_it() {
    let mut window = open([1180.0, 780.0], 1.0, Settings::default());
    let pane = window.get_by_label_contains("over the image").rect();
    let [rows, columns] = app(&mut window).inspector().expect("the model is compiled").sizes().grid;
    let patch = |row: usize, column: usize| Query::Patch(row * columns + column);
    let centre = |row: usize, column: usize| {
        let [x, y] = [(column, columns), (row, rows)].map(|(at, of)| (at as f32 + 0.5) / of as f32);
        pane.min + pane.size() * egui::vec2(x, y)
    };
    let maps = app(&mut window).status().maps;
    window.hover_at(centre(2, 5));
    window.step();
    window.step();
    assert_eq!(app(&mut window).focus().hovered, Some(patch(2, 5)));
    assert!(app(&mut window).status().maps > maps, "the map follows in the same frame");
    for pressed in [true, false] {
        window.event(egui::Event::PointerButton {
            pos: centre(2, 5),
            button: egui::PointerButton::Primary,
            pressed,
            modifiers: egui::Modifiers::NONE,
        });
        window.step();
    }
    window.remove_cursor();
    window.step();
    window.step();
    let focus = app(&mut window).focus().clone();
    assert_eq!((focus.hovered, focus.chosen), (None, Some(patch(2, 5))));
    window.key_press(egui::Key::P);
    window.step();
    window.key_press(egui::Key::ArrowDown);
    window.key_press(egui::Key::L);
    window.step();
    window.step();
    let focus = app(&mut window).focus().clone();
    assert_eq!((focus.chosen, focus.pinned), (Some(patch(3, 5)), vec![patch(2, 5)]));
    assert!(app(&mut window).settings().log_scale);
    snapshot(&mut window, "look-pinned");
    window.get_by_label("Release patch (2, 5)").click();
    window.run_steps(2);
    assert!(app(&mut window).focus().pinned.is_empty());
}

#[test]
fn a_click_on_a_thumbnail_enlarges_it() {
    let mut window = open([1180.0, 780.0], 1.0, Settings::default());
    window.get_by_label("Show head 1").click();
    window.run_steps(2);
    assert_eq!(app(&mut window).settings().head, Head::One(1));
    window.get_by_label("Show layer 3").click();
    window.run_steps(2);
    assert_eq!(app(&mut window).settings().layer, 3);
    assert!(window.query_by_label_contains("layer 3 · head 1").is_some(), "the caption says what is shown");
}
