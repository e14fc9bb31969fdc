//! What is shown and how: query, layer, head, colours.

use egui::{Slider, Ui};
use lara_explain::{Colormap, Head, Query};

use super::MOST_PINS;
use crate::app::App;

/// Draws the controls.
pub(crate) fn show(app: &mut App, ui: &mut Ui) {
    ui.add_space(2.0);
    query(app, ui);
    ui.separator();
    place(app, ui);
    ui.separator();
    look(app, ui);
    ui.separator();
    ui.collapsing("Keyboard and mouse", |ui| {
        for line in [
            "move over the image: that patch's attention",
            "click: keep it; right click or P: pin it",
            "arrows: next patch; Esc: let go of all",
            "C: class token; M: mean of all queries",
            "Page up, page down: layer; H: head",
            "L: logarithmic scale; N: next image",
        ] {
            ui.small(line);
        }
    });
}

fn query(app: &mut App, ui: &mut Ui) {
    ui.strong("Query");
    let has_class = app.subject.config.model.layer(0).prefix > 0;
    ui.horizontal_wrapped(|ui| {
        let is = |query| app.focus.chosen == Some(query);
        if has_class && ui.selectable_label(is(Query::Class), "class token").clicked() {
            app.focus.chosen = Some(Query::Class);
        }
        let is = |query| app.focus.chosen == Some(query);
        if ui.selectable_label(is(Query::Mean), "mean of all").clicked() {
            app.focus.chosen = Some(Query::Mean);
        }
        if ui.button("Pin").on_hover_text("Keep this query's map in sight (P)").clicked() {
            let query = app.focus.current(has_class);
            app.focus.toggle_pin(query, MOST_PINS);
        }
        if !app.focus.pinned.is_empty() && ui.button("Release all").clicked() {
            app.focus.pinned.clear();
        }
    });
}

/// Layer and head.
pub(crate) fn place(app: &mut App, ui: &mut Ui) {
    let model = &app.subject.config.model;
    let (layers, heads) = (model.depth(), model.layer(0).heads);
    ui.strong("Layer and head");
    ui.add(Slider::new(&mut app.settings.layer, 0..=layers - 1).text("layer"));
    ui.horizontal_wrapped(|ui| {
        ui.label("head");
        ui.selectable_value(&mut app.settings.head, Head::Mean, "mean");
        for head in 0..heads {
            ui.selectable_value(&mut app.settings.head, Head::One(head), head.to_string());
        }
    });
    if matches!(app.settings.head, Head::One(head) if head >= heads) {
        app.settings.head = Head::Mean;
    }
}

fn look(app: &mut App, ui: &mut Ui) {
    ui.strong("Colours");
    let settings = &mut app.settings;
    egui::ComboBox::from_label("scale").width(90.0).selected_text(settings.colormap.name()).show_ui(ui, |ui| {
        for map in Colormap::SEQUENTIAL {
            ui.selectable_value(&mut settings.colormap, map, map.name());
        }
    });
    ui.add(Slider::new(&mut settings.opacity, 0.0..=1.0).text("opacity"));
    ui.checkbox(&mut settings.log_scale, "logarithmic (three decades)");
}
