//! The page that opens first, and its short form beside a run's curves.

use egui::{ScrollArea, Ui};
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
    if size.x > 0.9 * size.y {
        let side = (size.x * 0.58).min(size.y - 96.0).max(160.0);
        ui.horizontal_top(|ui| {
            ui.allocate_ui(egui::vec2(side, size.y), |ui| {
                ui.vertical(|ui| image::show(cx, ui, side));
            });
            ui.separator();
            ui.vertical(|ui| {
                ScrollArea::vertical().id_salt("heads").auto_shrink(false).show(ui, |ui| heads::show(cx, ui));
            });
        });
    } else {
        ScrollArea::vertical().auto_shrink(false).show(ui, |ui| {
            let side = size.x.min(size.y * 0.62).max(160.0);
            image::show(cx, ui, side);
            ui.separator();
            heads::show(cx, ui);
        });
    }
}

/// Beside a run's curves: the attention of an image that stays the same while the weights change.
pub(crate) fn live(cx: &mut Context, ui: &mut Ui) {
    ui.add_space(2.0);
    let is_live = matches!(cx.subject.weights, Weights::Live(_));
    ui.strong(if is_live { "Attention as it is learnt" } else { "Attention of the open model" });
    ScrollArea::vertical().auto_shrink(false).show(ui, |ui| {
        image::show(cx, ui, ui.available_width());
        options::place(cx, ui);
        prediction::show(cx, ui);
        ui.weak("another image: choose one on the page Look, or press N");
    });
}
