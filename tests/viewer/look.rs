//! The page that opens first: image, heads, layers, prediction.

use egui_kittest::kittest::Queryable;
use lara_viewer::Query;
use lara_viewer::settings::Settings;

use crate::window::{app, open, picture, wait};

#[test]
fn the_first_start_shows_a_real_map() {
    let mut window = open([1180.0, 780.0], 1.0, Settings::default());
    window.step();
    let image = picture(&mut window, "look");
    let colours: std::collections::HashSet<_> = image.pixels().collect();
    assert!(colours.len() > 100, "the window shows only {} colours", colours.len());
    assert_eq!(app(&mut window).focus().current(false), Query::Mean);
}
