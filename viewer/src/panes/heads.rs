//! All heads of a layer, and all layers of a head: thumbnails that are maps of their own buffers. A click enlarges.

use egui::{Color32, Response, Role, Sense, Stroke, StrokeKind, Ui, WidgetInfo};
use lara_explain::Head;

use super::image::overlay;
use crate::context::Context;

/// Draws the grids.
pub(crate) fn show(cx: &mut Context, ui: &mut Ui) {
    let (stages, layer) = (cx.stages(), cx.settings.layer);
    let Some(stage) = stages.iter().position(|stage| stage.contains(&layer)) else { return };
    if stages.len() > 1 {
        ui.strong("Stages, mean of the heads");
        let tiles = stages.iter().enumerate().map(|(at, blocks)| {
            // Of the stage that is looked at, the block that is.
            let shown = if at == stage { layer } else { blocks.start };
            (shown, Head::Mean, format!("stage {}", at + 1), at == stage)
        });
        if let Some((layer, _)) = grid(cx, ui, &tiles.collect::<Vec<_>>()) {
            cx.settings.layer = layer;
        }
        ui.add_space(6.0);
    }
    let heads = cx.block().map_or(0, |block| block.heads);
    let heads: Vec<Head> = (0..heads).map(Head::One).chain([Head::Mean]).collect();
    ui.strong(format!("Heads of layer {layer}"));
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
    let of = if stages.len() > 1 { format!("Layers of stage {}", stage + 1) } else { "Layers".to_owned() };
    ui.strong(match head {
        Head::Mean => format!("{of}, mean of the heads"),
        Head::One(head) => format!("{of}, head {head}"),
    });
    let blocks = stages[stage].clone();
    let tiles = blocks.map(|layer| (layer, head, format!("layer {layer}"), cx.settings.layer == layer));
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

/// Columns, and a width that fills the pane without being too small to see or larger than needed.
fn thumbnail(ui: &Ui, count: usize) -> (usize, f32) {
    let (width, gap) = (ui.available_width() - 4.0, ui.spacing().item_spacing.x);
    let most = ((width + gap) / (SMALLEST + gap)) as usize;
    // Few are in one row if they fit, more in two or as many as it takes.
    let wanted = if count <= most.min(4) || width > 4.0 * WIDE { count } else { count.div_ceil(2).max(3) };
    let columns = wanted.min(most).max(2);
    // Below an image one row of them is to be seen.
    let largest = if width > 4.0 * WIDE { WIDE } else { 150.0 };
    (columns, (width / columns as f32 - gap).clamp(40.0, largest))
}

/// A thumbnail has this width or more, where there is room for two of them.
const SMALLEST: f32 = 72.0;
/// And where there is much room, this one.
const WIDE: f32 = 96.0;

fn tile(cx: &Context, ui: &mut Ui, layer: usize, head: Head, name: &str, size: f32, chosen: bool) -> Response {
    ui.vertical(|ui| {
        ui.set_width(size);
        let (rect, response) = ui.allocate_exact_size(cx.map_size(size), Sense::click());
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
