//! What is shown and how: query, layer, head, colours.

use std::ops::Range;

use egui::{Slider, Ui};
use lara_explain::{Colormap, Head, Query, Sizes};

use crate::context::Context;
use crate::settings::MOST_PINS;

/// Draws the controls.
pub(crate) fn show(cx: &mut Context, ui: &mut Ui) {
    ui.add_space(2.0);
    query(cx, ui);
    ui.separator();
    place(cx, ui);
    ui.separator();
    look(cx, ui);
    ui.separator();
    ui.collapsing("Keyboard and mouse", |ui| {
        for line in [
            "move over the image: that patch's attention",
            "click: keep it; right click or P: pin it",
            "arrows: next patch; Esc: let go of all",
            "C: class token; M: mean of all queries",
            "Page up, page down: layer; H: head",
            "L: logarithmic scale; U: × uniform",
            "S: next stage of a pyramid; N: next image",
        ] {
            ui.small(line);
        }
    });
}

fn query(cx: &mut Context, ui: &mut Ui) {
    ui.strong("Query");
    let has_class = cx.sizes().is_some_and(|sizes| sizes.prefix > 0);
    ui.horizontal_wrapped(|ui| {
        let is = |query| cx.focus.chosen == Some(query);
        if has_class && ui.selectable_label(is(Query::Class), "class token").clicked() {
            cx.focus.chosen = Some(Query::Class);
        }
        let is = |query| cx.focus.chosen == Some(query);
        if ui.selectable_label(is(Query::Mean), "mean of all").clicked() {
            cx.focus.chosen = Some(Query::Mean);
        }
        if ui.button("Pin").on_hover_text("Keep this query's map in sight (P)").clicked() {
            let query = cx.focus.current(has_class);
            cx.focus.toggle_pin(query, MOST_PINS);
        }
        if !cx.focus.pinned.is_empty() && ui.button("Release all").clicked() {
            cx.focus.pinned.clear();
        }
    });
}

/// Layer and head.
pub(crate) fn place(cx: &mut Context, ui: &mut Ui) {
    let (stages, Some(Sizes { heads, .. })) = (cx.stages(), cx.block()) else { return };
    if stages.len() > 1 {
        ui.strong("Stage, layer and head");
        stage(cx, ui, &stages);
    } else {
        ui.strong("Layer and head");
    }
    let layer = cx.settings.layer;
    let Some(blocks) = stages.iter().find(|blocks| blocks.contains(&layer)) else { return };
    if blocks.len() > 1 || stages.len() == 1 {
        ui.add(Slider::new(&mut cx.settings.layer, blocks.start..=blocks.end - 1).text("layer"));
    }
    ui.horizontal_wrapped(|ui| {
        ui.label("head");
        ui.selectable_value(&mut cx.settings.head, Head::Mean, "mean");
        for head in 0..heads {
            ui.selectable_value(&mut cx.settings.head, Head::One(head), head.to_string());
        }
    });
    if matches!(cx.settings.head, Head::One(head) if head >= heads) {
        cx.settings.head = Head::Mean;
    }
}

/// The stages of a pyramid, and the grids of that which is looked at.
fn stage(cx: &mut Context, ui: &mut Ui, stages: &[Range<usize>]) {
    let layer = cx.settings.layer;
    ui.horizontal_wrapped(|ui| {
        ui.label("stage");
        for (number, blocks) in stages.iter().enumerate() {
            let is_open = blocks.contains(&layer);
            let label = ui.selectable_label(is_open, (number + 1).to_string());
            let hint = format!("Stage {}: layers {} to {}", number + 1, blocks.start, blocks.end - 1);
            if label.on_hover_text(hint).clicked() && !is_open {
                cx.settings.layer = blocks.start;
            }
        }
    });
    let Some(block) = cx.block() else { return };
    let grid = |[rows, columns]: [usize; 2]| format!("{rows} × {columns}");
    ui.weak(if block.is_square() {
        format!("{} tokens", grid(block.grid))
    } else {
        format!("{} queries, {} keys", grid(block.query_grid), grid(block.grid))
    });
}

fn look(cx: &mut Context, ui: &mut Ui) {
    ui.strong("Colours");
    let settings = &mut cx.settings;
    egui::ComboBox::from_label("scale").width(90.0).selected_text(settings.colormap.name()).show_ui(ui, |ui| {
        for map in Colormap::SEQUENTIAL {
            ui.selectable_value(&mut settings.colormap, map, map.name());
        }
    });
    ui.add(Slider::new(&mut settings.opacity, 0.0..=1.0).text("opacity"));
    let log = if settings.uniform { "logarithmic" } else { "logarithmic (three decades)" };
    ui.checkbox(&mut settings.log_scale, log);
    ui.checkbox(&mut settings.uniform, "× uniform")
        .on_hover_text("Weights as times what every key would get if all got the same, on one scale for all maps (U)");
    if settings.uniform {
        let slider = Slider::new(&mut settings.times, 1.5..=64.0).logarithmic(true).max_decimals(1).suffix("×");
        ui.add(slider.text("up to")).on_hover_text("The upper end of the scale; what lies above has its colour");
    }
}
