//! The images that can be looked at, as thumbnails.

use egui::{Role, ScrollArea, Sense, Stroke, StrokeKind, Ui, Vec2, WidgetInfo};

use crate::context::Context;

/// Draws the thumbnails; a click shows the image.
pub(crate) fn show(cx: &mut Context, ui: &mut Ui) {
    ui.add_space(2.0);
    ui.add(egui::Label::new(egui::RichText::new(&cx.gallery.name).strong()).truncate());
    let columns = 3;
    let size = ((ui.available_width() - 14.0) / columns as f32 - ui.spacing().item_spacing.x).max(32.0);
    let rows = cx.gallery.entries.len().div_ceil(columns);
    ScrollArea::vertical().auto_shrink(false).show_rows(ui, size, rows, |ui, visible| {
        for row in visible {
            ui.horizontal(|ui| {
                for index in row * columns..((row + 1) * columns).min(cx.gallery.entries.len()) {
                    thumbnail(cx, ui, index, size);
                }
            });
        }
    });
}

fn thumbnail(cx: &mut Context, ui: &mut Ui, index: usize, size: f32) {
    let (rect, response) = ui.allocate_exact_size(Vec2::splat(size), Sense::click());
    cx.draw_thumbnail(ui, index, rect);
    if index == cx.picture {
        let stroke = Stroke::new(2.5, ui.visuals().selection.stroke.color);
        ui.painter().rect_stroke(rect, 0.0, stroke, StrokeKind::Inside);
    }
    let entry = &cx.gallery.entries[index];
    let class = entry.label.and_then(|label| cx.subject.classes.get(label));
    let label = match class {
        Some(class) => format!("{} (class {class})", entry.name),
        None => entry.name.clone(),
    };
    response.widget_info(|| WidgetInfo::selected(Role::Button, true, index == cx.picture, &label));
    if response.on_hover_text(label).clicked() {
        cx.choose(index);
    }
}
