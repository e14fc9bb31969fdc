//! The page that opens first, and its short form beside a run's curves.

use egui::{ScrollArea, Ui, Vec2, vec2};
use lara_models::Weights;

use super::{heads, image, options, prediction};
use crate::context::Context;

/// Image on the left, heads and layers beside it, or below it where the window is narrow.
pub(crate) fn show(cx: &mut Context, ui: &mut Ui) {
    if cx.looking.is_coming() {
        ui.horizontal(|ui| {
            ui.spinner();
            ui.label("compiling the model for this adapter …");
        });
    }
    let size = ui.available_size();
    let (beside, below) = (beside(cx, size), below(cx, size));
    // A little more area is not worth that heads and layers have to be scrolled to.
    if cx.fit(beside).x >= 0.8 * cx.fit(below).x {
        let width = cx.fit(beside).x.max(beside.x.min(COLUMN));
        ui.horizontal_top(|ui| {
            ui.allocate_ui(egui::vec2(width, size.y), |ui| {
                ui.vertical(|ui| image::show(cx, ui, beside));
            });
            ui.separator();
            ui.vertical(|ui| {
                ScrollArea::vertical().id_salt("heads").auto_shrink(false).show(ui, |ui| heads::show(cx, ui));
            });
        });
    } else {
        ScrollArea::vertical().auto_shrink(false).show(ui, |ui| {
            image::show(cx, ui, below);
            ui.separator();
            heads::show(cx, ui);
        });
    }
}

/// A column of heads and layers has this width at least.
const COLUMN: f32 = 200.0;

/// The room for the image where heads and layers stand beside it.
fn beside(cx: &Context, size: Vec2) -> Vec2 {
    let width = (size.x - COLUMN - 24.0).max(160.0);
    vec2(width, (size.y - image::below(cx, width)).max(160.0))
}

/// The same where they stand below, and their beginning is to be seen.
fn below(cx: &Context, size: Vec2) -> Vec2 {
    let width = (size.x - 12.0).max(160.0);
    vec2(width, (size.y - image::below(cx, width) - HEADS).max(160.0))
}

/// Of heads and layers below an image so much is seen.
const HEADS: f32 = 152.0;

/// Beside a run's curves: the attention of an image that stays the same while the weights change.
pub(crate) fn live(cx: &mut Context, ui: &mut Ui) {
    ui.add_space(2.0);
    let is_live = matches!(cx.subject.weights, Weights::Live(_));
    ui.strong(if is_live { "Attention as it is learnt" } else { "Attention of the open model" });
    ScrollArea::vertical().auto_shrink(false).show(ui, |ui| {
        image::show(cx, ui, vec2(ui.available_width(), 480.0));
        options::place(cx, ui);
        prediction::show(cx, ui);
        ui.weak("another image: choose one on the page Look, or press N");
    });
}
