//! The image with the attention of one query over it; pointer and keyboard choose the query.

use egui::{Color32, Pos2, Rect, Response, Role, Sense, Stroke, StrokeKind, Ui, Vec2, WidgetInfo, vec2};
use lara_explain::{Head, Query, Sizes};

use super::legend::{self, Ends, number};
use crate::context::Context;
use crate::paint::MapPaint;
use crate::settings::MOST_PINS;

/// Colours of the outlines of pinned queries, readable on every scale.
pub(crate) const PIN_COLORS: [Color32; MOST_PINS] = [
    Color32::from_rgb(255, 105, 97),
    Color32::from_rgb(255, 179, 71),
    Color32::from_rgb(119, 221, 119),
    Color32::from_rgb(120, 200, 255),
    Color32::from_rgb(203, 153, 255),
    Color32::from_rgb(255, 160, 220),
    Color32::from_rgb(210, 210, 210),
];

/// Draws the image pane `side` wide and high, with its caption, legend and pins below.
pub(crate) fn show(cx: &mut Context, ui: &mut Ui, side: f32) {
    let (rect, response) = ui.allocate_exact_size(Vec2::splat(side), Sense::click());
    describe(cx, &response);
    if !cx.draw_image(ui, cx.picture, rect) {
        let text = "drop an image here";
        let font = egui::FontId::proportional(16.0);
        ui.painter().rect_stroke(rect, 4.0, Stroke::new(1.0, ui.visuals().weak_text_color()), StrokeKind::Inside);
        ui.painter().text(rect.center(), egui::Align2::CENTER_CENTER, text, font, ui.visuals().weak_text_color());
    }
    let Some(sizes) = cx.sizes() else { return };
    point(cx, ui, &response, rect, sizes);
    if let Some(shape) = overlay(cx, rect, cx.settings.layer, cx.settings.head, 0, cx.settings.opacity) {
        ui.painter().add(shape);
    }
    outline(cx, ui, rect, sizes);
    caption(cx, ui, sizes, side);
    pins(cx, ui, side);
}

fn describe(cx: &Context, response: &Response) {
    let shown = cx.looking.queries.first().zip(cx.inspector());
    let label = match shown {
        Some((query, inspector)) => {
            format!("Attention of {} over the image", query.label(inspector.sizes().query_grid))
        }
        None => "Attention over the image".to_owned(),
    };
    response.widget_info(|| WidgetInfo::labeled(Role::Image, true, &label));
}

/// The patch under a point.
pub(crate) fn patch_at(rect: Rect, [rows, columns]: [usize; 2], at: Pos2) -> Option<usize> {
    if !rect.contains(at) {
        return None;
    }
    let place = |x: f32, size: f32, count: usize| ((x / size * count as f32) as usize).min(count - 1);
    let row = place(at.y - rect.top(), rect.height(), rows);
    Some(row * columns + place(at.x - rect.left(), rect.width(), columns))
}

/// The rectangle of a patch.
pub(crate) fn patch_rect(rect: Rect, [rows, columns]: [usize; 2], patch: usize) -> Rect {
    let size = vec2(rect.width() / columns as f32, rect.height() / rows as f32);
    let (row, column) = (patch / columns, patch % columns);
    Rect::from_min_size(rect.min + vec2(column as f32 * size.x, row as f32 * size.y), size)
}

/// Hover shows, a click chooses, a right click (or shift and click) pins.
pub(crate) fn point(cx: &mut Context, ui: &Ui, response: &Response, rect: Rect, sizes: Sizes) {
    let hovered = response.hover_pos().and_then(|at| patch_at(rect, sizes.query_grid, at));
    cx.focus.hovered = hovered.map(Query::Patch);
    let Some(patch) = response.interact_pointer_pos().and_then(|at| patch_at(rect, sizes.query_grid, at)) else {
        return tooltip(cx, response, sizes, hovered);
    };
    let shift = ui.input(|input| input.modifiers.shift);
    if response.secondary_clicked() || (response.clicked() && shift) {
        if !cx.focus.toggle_pin(Query::Patch(patch), MOST_PINS.min(sizes.slots - 1)) {
            cx.messages.problem("no room for another pin; release one first");
        }
    } else if response.clicked() {
        let chosen = Some(Query::Patch(patch));
        cx.focus.chosen = if cx.focus.chosen == chosen { None } else { chosen };
    }
    tooltip(cx, response, sizes, hovered);
}

fn tooltip(cx: &Context, response: &Response, sizes: Sizes, hovered: Option<usize>) {
    let Some(patch) = hovered else { return };
    let (row, column) = (patch / sizes.query_grid[1], patch % sizes.query_grid[1]);
    // Where the keys lie on another grid than the queries, none of them is the query itself.
    let values = cx.row(0).filter(|_| cx.block().is_some_and(|block| block.grid == sizes.query_grid));
    let weight = values.and_then(|values| values.get(sizes.prefix + patch)).copied();
    let text = match weight {
        Some(weight) => format!(
            "patch ({row}, {column}): its weight on itself {}, {:.1} times the uniform one",
            number(weight),
            weight * sizes.tokens() as f32
        ),
        None => format!("patch ({row}, {column})"),
    };
    response.clone().on_hover_text_at_pointer(text);
}

/// The map of a row over `rect`.
pub(crate) fn overlay(
    cx: &Context,
    rect: Rect,
    layer: usize,
    head: Head,
    slot: usize,
    opacity: f32,
) -> Option<egui::Shape> {
    let inspector = cx.inspector()?;
    if slot >= inspector.queries().len() {
        return None;
    }
    let map = MapPaint {
        values: inspector.source(layer, head, slot)?,
        minus: None,
        scale: inspector.scale(layer, head, slot)?,
        grid: inspector.block(layer)?.grid,
        colormap: cx.settings.colormap,
        opacity,
        log_scale: cx.settings.log_scale,
    };
    Some(cx.painter.shape(rect, map))
}

fn outline(cx: &Context, ui: &Ui, rect: Rect, sizes: Sizes) {
    for (query, color) in cx.focus.pinned.iter().zip(PIN_COLORS) {
        if let Query::Patch(patch) = *query {
            mark(ui, patch_rect(rect, sizes.query_grid, patch), color);
        }
    }
    mark_query(cx, ui, rect, sizes);
}

/// Frames the patch whose attention is in front.
pub(crate) fn mark_query(cx: &Context, ui: &Ui, rect: Rect, sizes: Sizes) {
    if let Query::Patch(patch) = cx.focus.current(sizes.prefix > 0) {
        mark(ui, patch_rect(rect, sizes.query_grid, patch), Color32::WHITE);
    }
}

/// A frame that is seen on light and on dark colours.
fn mark(ui: &Ui, patch: Rect, color: Color32) {
    ui.painter().rect_stroke(patch, 0.0, Stroke::new(3.0, Color32::from_black_alpha(160)), StrokeKind::Inside);
    ui.painter().rect_stroke(patch, 0.0, Stroke::new(1.5, color), StrokeKind::Inside);
}

fn caption(cx: &Context, ui: &mut Ui, sizes: Sizes, side: f32) {
    let query = cx.focus.current(sizes.prefix > 0).label(sizes.query_grid);
    let head = match cx.settings.head {
        Head::Mean => "mean of all heads".to_owned(),
        Head::One(head) => format!("head {head}"),
    };
    ui.add(egui::Label::new(format!("{query} · layer {} · {head}", cx.settings.layer)).truncate());
    let largest = cx.row(0).map(|row| row[sizes.prefix..].iter().copied().fold(0.0, f32::max));
    let high = largest.unwrap_or(0.0);
    let ends = if cx.settings.log_scale { Ends::Decades(high) } else { Ends::Zero(high) };
    legend::show(ui, cx.settings.colormap, ends, side);
    if let Some(row) = cx.row(0).filter(|_| sizes.prefix > 0) {
        ui.weak(format!("on the class token: {}", number(row[0])));
    }
}

/// The pinned queries' maps, small.
fn pins(cx: &mut Context, ui: &mut Ui, side: f32) {
    if cx.focus.pinned.is_empty() {
        return;
    }
    let mut released = None;
    ui.horizontal_wrapped(|ui| {
        let size = (side / 4.0 - 8.0).clamp(48.0, 120.0);
        for (at, (&query, color)) in cx.focus.pinned.iter().zip(PIN_COLORS).enumerate() {
            let (rect, response) = ui.allocate_exact_size(Vec2::splat(size), Sense::click());
            let shape = overlay(cx, rect.shrink(2.0), cx.settings.layer, cx.settings.head, at + 1, 1.0);
            ui.painter().extend(shape);
            ui.painter().rect_stroke(rect, 0.0, Stroke::new(2.0, color), StrokeKind::Inside);
            let grid = cx.inspector().map_or([1, 1], |inspector| inspector.sizes().query_grid);
            let label = format!("Release {}", query.label(grid));
            response.widget_info(|| WidgetInfo::labeled(Role::Button, true, &label));
            if response.on_hover_text(label).clicked() {
                released = Some(query);
            }
        }
    });
    if let Some(query) = released {
        cx.focus.toggle_pin(query, MOST_PINS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_patch_is_found_at_its_own_centre() {
        let rect = Rect::from_min_size(Pos2::new(10.0, 20.0), vec2(90.0, 60.0));
        for grid in [[1, 1], [3, 5], [7, 2]] {
            for patch in 0..grid[0] * grid[1] {
                assert_eq!(patch_at(rect, grid, patch_rect(rect, grid, patch).center()), Some(patch));
            }
        }
        assert_eq!(patch_at(rect, [2, 2], Pos2::new(0.0, 0.0)), None);
        assert_eq!(patch_at(rect, [2, 2], rect.max), Some(3));
    }
}
