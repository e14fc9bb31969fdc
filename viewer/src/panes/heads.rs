//! All heads of a layer, and all layers of a head: thumbnails that are maps of their own buffers. A click enlarges.

use egui::{Color32, Response, Role, Sense, Stroke, StrokeKind, Ui, Vec2, WidgetInfo};
use lara_explain::Head;

use super::image::overlay;
use crate::context::Context;

/// Draws both grids.
pub(crate) fn show(cx: &mut Context, ui: &mut Ui) {
    let Some(sizes) = cx.sizes() else { return };
    let heads = cx.block().map_or(0, |block| block.heads);
    let heads: Vec<Head> = (0..heads).map(Head::One).chain([Head::Mean]).collect();
    ui.strong(format!("Heads of layer {}", cx.settings.layer));
    let layer = cx.settings.layer;
    let tiles = heads.iter().map(|&head| {
        let name = match head {
            Head::One(head) => format!("head {head}"),
            Head::Mean => "mean".to_owned(),
        };
        (layer, head, name, cx.settings.head == head)
    });
    if let Some((_, head)) = grid(cx, ui, &tiles.collect::<Vec<_>>()) {
        cx.settings.head = head;
    }
    ui.add_space(6.0);
    let head = cx.settings.head;
    ui.strong(match head {
        Head::Mean => "Layers, mean of the heads".to_owned(),
        Head::One(head) => format!("Layers, head {head}"),
    });
    let tiles = (0..sizes.layers).map(|layer| (layer, head, format!("layer {layer}"), cx.settings.layer == layer));
    if let Some((layer, _)) = grid(cx, ui, &tiles.collect::<Vec<_>>()) {
        cx.settings.layer = layer;
    }
}

/// Thumbnails in rows; the layer and head of the one that was clicked.
fn grid(cx: &Context, ui: &mut Ui, tiles: &[(usize, Head, String, bool)]) -> Option<(usize, Head)> {
    let (columns, size) = thumbnail(ui, tiles.len());
    let mut clicked = None;
    for row in tiles.chunks(columns) {
        ui.horizontal_top(|ui| {
            for (layer, head, name, chosen) in row {
                if tile(cx, ui, *layer, *head, name, size, *chosen).clicked() {
                    clicked = Some((*layer, *head));
                }
            }
        });
    }
    clicked
}

/// Columns, and a size that fills the width without being too small to see or larger than needed.
fn thumbnail(ui: &Ui, count: usize) -> (usize, f32) {
    let (width, gap) = (ui.available_width() - 4.0, ui.spacing().item_spacing.x);
    let columns = if count <= 4 { count } else { count.div_ceil(2).min((width / (64.0 + gap)) as usize).max(2) };
    (columns.max(1), (width / columns.max(2) as f32 - gap).clamp(40.0, 150.0))
}

fn tile(cx: &Context, ui: &mut Ui, layer: usize, head: Head, name: &str, size: f32, chosen: bool) -> Response {
    ui.vertical(|ui| {
        ui.set_width(size);
        let (rect, response) = ui.allocate_exact_size(Vec2::splat(size), Sense::click());
        ui.painter().rect_filled(rect, 2.0, ui.visuals().extreme_bg_color);
        ui.painter().extend(overlay(cx, rect.shrink(2.0), layer, head, 0, 1.0));
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
