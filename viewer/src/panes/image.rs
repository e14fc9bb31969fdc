//! The image with the attention of one query over it; pointer and keyboard choose the query.

use egui::{Color32, Pos2, Rect, Response, Role, Sense, Stroke, StrokeKind, Ui, Vec2, WidgetInfo, vec2};
use lara_explain::{Head, Query, Sizes, carry};

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

/// Draws the image as large as `space` allows, with its caption, legend and pins below.
pub(crate) fn show(cx: &mut Context, ui: &mut Ui, space: Vec2) {
    let size = cx.fit(space);
    let (rect, response) = ui.allocate_exact_size(size, Sense::click());
    describe(cx, &response);
    let seen = cx.draw_image(ui, cx.picture, rect);
    if seen.is_none() {
        let text = "drop an image here";
        let font = egui::FontId::proportional(16.0);
        ui.painter().rect_stroke(rect, 4.0, Stroke::new(1.0, ui.visuals().weak_text_color()), StrokeKind::Inside);
        ui.painter().text(rect.center(), egui::Align2::CENTER_CENTER, text, font, ui.visuals().weak_text_color());
    }
    let rect = seen.unwrap_or(rect);
    let Some(sizes) = cx.sizes() else { return };
    point(cx, ui, &response, rect, sizes);
    if let Some(shape) = overlay(cx, rect, cx.settings.layer, cx.settings.head, 0, cx.settings.opacity) {
        ui.painter().add(shape);
    }
    outline(cx, ui, rect, sizes);
    let width = size.x.max(NARROWEST.min(space.x));
    caption(cx, ui, sizes, width);
    pins(cx, ui, width);
}

/// The height of what stands below the image: caption, legend, notes and pins, which have `width` points.
pub(crate) fn below(cx: &Context, width: f32) -> f32 {
    let pins = cx.focus.pinned.len();
    if pins == 0 {
        return 92.0;
    }
    let size = pin_size(width);
    let across = ((width + 8.0) / (size + 8.0)).max(1.0) as usize;
    92.0 + pins.div_ceil(across) as f32 * (cx.map_size(size).y + 8.0)
}

/// Text below a picture has at least so many points, however thin the picture.
const NARROWEST: f32 = 240.0;

fn pin_size(width: f32) -> f32 {
    (width / 4.0 - 8.0).clamp(48.0, 120.0)
}

fn describe(cx: &Context, response: &Response) {
    let shown = cx.looking.queries.first().zip(cx.inspector());
    let label = match shown {
        Some((query, _)) => {
            format!("Attention of {} over the image", cx.in_block(*query).label(cx.query_grid()))
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

/// Hover shows, a click chooses, a right click (or shift and click) pins. The patches are those of the block that is looked at.
pub(crate) fn point(cx: &mut Context, ui: &Ui, response: &Response, rect: Rect, sizes: Sizes) {
    let grid = cx.query_grid();
    point_on(cx, ui, response, rect, sizes, grid);
}

/// The same on another grid than that of the block that is looked at.
pub(crate) fn point_on(cx: &mut Context, ui: &Ui, response: &Response, rect: Rect, sizes: Sizes, grid: [usize; 2]) {
    let query = |patch: usize| carry(Query::Patch(patch), grid, sizes.query_grid);
    let hovered = response.hover_pos().and_then(|at| patch_at(rect, grid, at));
    cx.focus.hovered = hovered.map(query);
    if let Some(patch) = response.interact_pointer_pos().and_then(|at| patch_at(rect, grid, at)) {
        let shift = ui.input(|input| input.modifiers.shift);
        if response.secondary_clicked() || (response.clicked() && shift) {
            if !cx.focus.toggle_pin(query(patch), MOST_PINS.min(sizes.slots - 1)) {
                cx.messages.problem("no room for another pin; release one first");
            }
        } else if response.clicked() {
            let chosen = Some(query(patch));
            cx.focus.chosen = if cx.focus.chosen == chosen { None } else { chosen };
        }
    }
    if let Some(patch) = hovered {
        response.clone().on_hover_text_at_pointer(told(cx, grid, patch));
    }
}

/// What is known of a patch under the pointer.
fn told(cx: &Context, grid: [usize; 2], patch: usize) -> String {
    let place = |at: usize, [_, columns]: [usize; 2]| (at / columns.max(1), at % columns.max(1));
    let (row, column) = place(patch, grid);
    let known = cx.block().filter(|block| block.query_grid == grid).and_then(|block| {
        let key = block.key_under(Query::Patch(patch))?;
        let weight = *cx.row(0)?.get(block.prefix + key)?;
        Some((block, key, format!("{}, {}", number(weight), legend::times_uniform(weight, block.tokens()))))
    });
    match known {
        None => format!("patch ({row}, {column})"),
        Some((block, _, weight)) if block.is_square() => {
            format!("patch ({row}, {column}): its weight on itself {weight}")
        }
        Some((block, key, weight)) => {
            let (down, across) = place(key, block.grid);
            format!("patch ({row}, {column}): its weight on the key here, ({down}, {across}), {weight}")
        }
    }
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
    let (values, own) = (inspector.source(layer, head, slot)?, inspector.scale(layer, head, slot)?);
    let map = MapPaint { opacity, ..cx.map(values, own, inspector.block(layer)?) };
    Some(cx.painter.shape(rect, map))
}

fn outline(cx: &Context, ui: &Ui, rect: Rect, sizes: Sizes) {
    for (&query, color) in cx.focus.pinned.iter().zip(PIN_COLORS) {
        if let Query::Patch(patch) = cx.in_block(query) {
            mark(ui, patch_rect(rect, cx.query_grid(), patch), color);
        }
    }
    mark_query(cx, ui, rect, sizes);
}

/// Frames the patch whose attention is in front, as a patch of the block that is looked at.
pub(crate) fn mark_query(cx: &Context, ui: &Ui, rect: Rect, sizes: Sizes) {
    if let Query::Patch(patch) = cx.in_block(cx.focus.current(sizes.prefix > 0)) {
        mark(ui, patch_rect(rect, cx.query_grid(), patch), Color32::WHITE);
    }
}

/// A frame that is seen on light and on dark colours. It lies outside of patches that it would hide.
pub(crate) fn mark(ui: &Ui, patch: Rect, color: Color32) {
    let is_small = patch.width().min(patch.height()) < 12.0;
    let (inner, outer) = if is_small { (patch.expand(1.5), patch.expand(3.0)) } else { (patch, patch) };
    ui.painter().rect_stroke(outer, 0.0, Stroke::new(3.0, Color32::from_black_alpha(160)), StrokeKind::Inside);
    ui.painter().rect_stroke(inner, 0.0, Stroke::new(1.5, color), StrokeKind::Inside);
}

fn caption(cx: &Context, ui: &mut Ui, sizes: Sizes, width: f32) {
    let query = cx.in_block(cx.focus.current(sizes.prefix > 0)).label(cx.query_grid());
    let head = match cx.settings.head {
        Head::Mean => "mean of all heads".to_owned(),
        Head::One(head) => format!("head {head}"),
    };
    let text = format!("{query} · {} · {head}", cx.layer_name(cx.settings.layer));
    line(ui, width, egui::RichText::new(text));
    let prefix = cx.block().map_or(0, |block| block.prefix);
    let largest = cx.row(0).map(|row| row[prefix..].iter().copied().fold(0.0, f32::max));
    legend::show(ui, cx.settings.colormap, Ends::of(&cx.settings, largest.unwrap_or(0.0)), width);
    let (Some(row), Some(largest), Some(block)) = (cx.row(0), largest, cx.block()) else { return };
    let told = |weight: f32| legend::weight(&cx.settings, weight, block.tokens());
    let mut notes = Vec::new();
    if cx.settings.uniform {
        notes.push(format!("largest: {}", told(largest)));
    }
    if prefix > 0 {
        notes.push(format!("on the class token: {}", told(row[0])));
    }
    if !notes.is_empty() {
        line(ui, width, egui::RichText::new(notes.join(" · ")).weak());
    }
}

/// One line, cut off at its end where it is too long.
fn line(ui: &mut Ui, width: f32, text: egui::RichText) {
    ui.scope(|ui| {
        ui.set_max_width(width);
        ui.add(egui::Label::new(text).truncate());
    });
}

/// The pinned queries' maps, small.
fn pins(cx: &mut Context, ui: &mut Ui, width: f32) {
    if cx.focus.pinned.is_empty() {
        return;
    }
    let mut released = None;
    ui.horizontal_wrapped(|ui| {
        ui.set_max_width(width);
        let size = cx.map_size(pin_size(width));
        for (at, (&query, color)) in cx.focus.pinned.iter().zip(PIN_COLORS).enumerate() {
            let (rect, response) = ui.allocate_exact_size(size, Sense::click());
            let shape = overlay(cx, rect.shrink(2.0), cx.settings.layer, cx.settings.head, at + 1, 1.0);
            ui.painter().extend(shape);
            ui.painter().rect_stroke(rect, 0.0, Stroke::new(2.0, color), StrokeKind::Inside);
            let label = format!("Release {}", cx.in_block(query).label(cx.query_grid()));
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
