//! The keyboard does what the mouse does.

use egui::{Key, Ui};
use lara_explain::{Head, Query};

use crate::context::Context;
use crate::settings::{MOST_PINS, Page};

/// Takes the keys of this frame, unless a field of text has them.
pub(crate) fn take(cx: &mut Context, ui: &Ui) {
    if ui.memory(|memory| memory.focused().is_some()) || cx.settings.page == Page::Performance {
        return;
    }
    let pressed = |key: Key| ui.input(|input| input.modifiers.is_none() && input.key_pressed(key));
    let Some(sizes) = cx.sizes() else { return };
    for (key, rows, columns) in
        [(Key::ArrowUp, -1, 0), (Key::ArrowDown, 1, 0), (Key::ArrowLeft, 0, -1), (Key::ArrowRight, 0, 1)]
    {
        if pressed(key) {
            // By a patch of the block that is looked at.
            cx.focus.chosen = cx.focus.chosen.map(|query| cx.in_block(query));
            let grid = cx.query_grid();
            cx.focus.step(grid, rows, columns);
            cx.focus.chosen = cx.focus.chosen.map(|query| cx.query_of_block(query));
        }
    }
    if pressed(Key::C) && sizes.prefix > 0 {
        cx.focus.chosen = Some(Query::Class);
    }
    if pressed(Key::M) {
        cx.focus.chosen = Some(Query::Mean);
    }
    if pressed(Key::P) {
        let query = cx.focus.current(sizes.prefix > 0);
        cx.focus.toggle_pin(query, MOST_PINS.min(sizes.slots - 1));
    }
    if pressed(Key::Escape) {
        cx.focus.pinned.clear();
        cx.focus.chosen = None;
    }
    if pressed(Key::L) {
        cx.settings.log_scale = !cx.settings.log_scale;
    }
    if pressed(Key::U) {
        cx.settings.uniform = !cx.settings.uniform;
    }
    if pressed(Key::S) {
        let (stages, layer) = (cx.stages(), cx.settings.layer);
        let next = stages.iter().find(|stage| stage.start > layer).or(stages.first());
        cx.settings.layer = next.filter(|_| stages.len() > 1).map_or(layer, |stage| stage.start);
    }
    if pressed(Key::H) {
        let heads = cx.block().map_or(0, |block| block.heads);
        cx.settings.head = match cx.settings.head {
            Head::Mean => Head::One(0),
            Head::One(head) if head + 1 < heads => Head::One(head + 1),
            Head::One(_) => Head::Mean,
        };
    }
    if pressed(Key::PageDown) {
        cx.settings.layer = (cx.settings.layer + 1).min(sizes.layers - 1);
    }
    if pressed(Key::PageUp) {
        cx.settings.layer = cx.settings.layer.saturating_sub(1);
    }
    let count = cx.gallery.entries.len();
    if pressed(Key::N) && count > 0 {
        cx.choose((cx.picture + 1) % count);
    }
}
