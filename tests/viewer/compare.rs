//! Mechanisms side by side on the same weights.

use egui_kittest::kittest::Queryable;
use lara_viewer::settings::{Page, Settings};

use crate::window::{app, open, snapshot, wait};

#[test]
fn columns_show_maps_differences_and_deviations() {
    let settings = Settings { page: Page::Compare, ..Settings::default() };
    let mut window = open([1180.0, 780.0], 1.0, settings);
    wait(&mut window, "the columns", |app| !app.is_busy() && app.compared().len() == 3);
    window.run_steps(3);
    snapshot(&mut window, "compare");
    let numbers: Vec<f32> = app(&mut window).compared().iter().map(|d| d.relative).collect();
    assert_eq!(numbers.len(), 3);
    assert!(numbers[0] < 1e-5, "softmax differs from itself by {}", numbers[0]);
    assert!(numbers[1] > 1e-3 && numbers[2] > 1e-3, "LARA and RFA are estimates: {numbers:?}");
    window.get_by_label("Difference from softmax").click();
    window.run_steps(3);
    snapshot(&mut window, "compare-difference");
    window.get_by_label("Deviation over redraws").click();
    window.step();
    wait(&mut window, "the redraws", |app| !app.is_busy());
    snapshot(&mut window, "compare-deviation");
    assert!(window.query_all_by_label_contains("16 of 16 redraws").count() == 3);
}

/// Scripts move it without a mouse or a key, each of which would bring a frame along.
#[test]
fn a_move_asks_for_the_frame_that_begins_it() {
    let settings = Settings { page: Page::Compare, ..Settings::default() };
    let mut window = open([1180.0, 780.0], 1.0, settings);
    wait(&mut window, "the columns", |app| !app.is_busy() && app.compared().len() == 3);
    window.run_steps(8);
    assert!(!window.ctx.has_requested_repaint(), "a frame is wanted where nothing moves");
    assert!(app(&mut window).move_compared(1));
    assert!(window.ctx.has_requested_repaint(), "the move waits for a frame that nobody asked for");
}

/// The slider of LARA's landmarks, moved by the keyboard.
#[test]
fn two_hundred_moves_leave_nothing_on_the_device() {
    let settings = Settings { page: Page::Compare, ..Settings::default() };
    let mut window = open([1180.0, 780.0], 1.0, settings);
    wait(&mut window, "the columns", |app| !app.is_busy() && app.compared().len() == 3);
    window.get_by_role_and_label(egui::Role::Slider, "num_landmarks").focus();
    window.run_steps(2);
    let mut memory = Vec::new();
    for at in 0..200 {
        window.key_press(if at % 2 == 0 { egui::Key::ArrowRight } else { egui::Key::ArrowLeft });
        window.step();
        assert!(app(&mut window).is_busy(), "move {at} changed nothing");
        wait(&mut window, "the moved column", |app| !app.is_busy() && app.compared().len() == 3);
        // The last frame's maps have gone, too.
        window.run_steps(2);
        memory.push(app(&mut window).status().memory);
    }
    let (first, last) = memory.split_at(2);
    for (at, pair) in last.chunks(2).enumerate() {
        assert_eq!(pair, first, "after {} moves: {memory:?}", 2 * at + 4);
    }
    assert_eq!(app(&mut window).status().errors, Vec::<String>::new());
}
