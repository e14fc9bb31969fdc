//! All heads of a layer, and all layers of a head: thumbnails that are maps of their own buffers. A click enlarges.

use egui::{Color32, Response, Sense, Stroke, StrokeKind, Ui, Vec2, WidgetInfo, Role};

use super::image::overlay;
use crate::app::App;
use crate::inspect::Head;

/// Draws both grids.
pub(crate) fn show(app: &mut App, ui: &mut Ui) {
    let Some(sizes) = app.inspector().map(|inspector| inspector.sizes()) else { return };
    let heads: Vec<Head> = (0..sizes.heads).map(Head::One).chain([Head::Mean]).collect();
    ui.strong(format!("Heads of layer {}", app.settings.layer));
    let layer = app.settings.layer;
    let size = thumbnail(ui, heads.len());
    ui.horizontal_wrapped(|ui| {
        for head in heads {
            let name = match head {
                Head::One(head) => format!("head {head}"),
                Head::Mean => "mean".to_owned(),
            };
            if tile(app, ui, layer, head, &name, size, app.settings.head == head).clicked() {
                app.settings.head = head;
            }
        }
    });
    ui.add_space(6.0);
    let name = match app.settings.head {
        Head::Mean => "Layers, mean of the heads".to_owned(),
        Head::One(head) => format!("Layers, head {head}"),
    };
    ui.strong(name);
    let size = thumbnail(ui, sizes.layers);
    ui.horizontal_wrapped(|ui| {
        for layer in 0..sizes.layers {
            let head = app.settings.head;
            if tile(app, ui, layer, head, &format!("layer {layer}"), size, app.settings.layer == layer).clicked() {
                app.settings.layer = layer;
            }
        }
    });
}

/// As large as fits two rows or so, but never too small to see.
fn thumbnail(ui: &Ui, count: usize) -> f32 {
    let width = ui.available_width();
    let columns = if count <= 3 { count.max(2) } else { count.div_ceil(2).clamp(2, 6) } as f32;
    (width / columns - 10.0).clamp(56.0, 150.0)
}

fn tile(app: &App, ui: &mut Ui, layer: usize, head: Head, name: &str, size: f32, chosen: bool) -> Response {
    ui.vertical(|ui| {
        ui.set_width(size);
        let (rect, response) = ui.allocate_exact_size(Vec2::splat(size), Sense::click());
        ui.painter().rect_filled(rect, 2.0, ui.visuals().extreme_bg_color);
        ui.painter().extend(overlay(app, rect.shrink(2.0), layer, head, 0, 1.0));
        let color = if chosen { ui.visuals().selection.stroke.color } else { Color32::TRANSPARENT };
        let color = if response.hovered() && !chosen { ui.visuals().weak_text_color() } else { color };
        ui.painter().rect_stroke(rect, 2.0, Stroke::new(2.0, color), StrokeKind::Inside);
        let label = format!("Show {name}");
        response.widget_info(|| WidgetInfo::selected(Role::Button, true, chosen, &label));
        ui.add(egui::Label::new(egui::RichText::new(name).small()).truncate());
        response
    })
    .inner
}
