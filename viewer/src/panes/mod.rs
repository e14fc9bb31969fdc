//! What is on the screen: one pane a file, and where they lie.

pub(crate) mod compare;
pub(crate) mod export;
pub(crate) mod gallery;
pub(crate) mod heads;
pub(crate) mod image;
pub(crate) mod legend;
pub(crate) mod mechanism;
pub(crate) mod options;
pub(crate) mod performance;
pub(crate) mod prediction;
pub(crate) mod rollout;
pub mod training;

use egui::{Align, Key, Layout, Panel, ScrollArea, Ui};
use lara_explain::{Head, Query};

use crate::app::App;
use crate::settings::Page;

/// Pins at most: the slots but one.
pub(crate) const MOST_PINS: usize = lara_explain::SLOTS - 1;

/// Every pane in its place.
pub(crate) fn layout(app: &mut App, ui: &mut Ui) {
    Panel::top("bar").show(ui, |ui| top_bar(app, ui));
    if app.messages.texts().next().is_some() {
        Panel::bottom("messages").show(ui, |ui| app.messages.show(ui));
    }
    if app.page() == Page::Train {
        Panel::right("live").resizable(true).default_size(280.0).size_range(200.0..=480.0).show(ui, |ui| live(app, ui));
    }
    if matches!(app.page(), Page::Train | Page::Performance) {
        egui::CentralPanel::default_margins().show(ui, |ui| match app.page() {
            Page::Train => training::show(ui, &mut app.training),
            _ => performance::show(app, ui),
        });
        return export::show(app, ui);
    }
    Panel::left("pictures").resizable(true).default_size(176.0).size_range(140.0..=320.0).show(ui, |ui| {
        Panel::bottom("prediction").resizable(false).show(ui, |ui| prediction::show(app, ui));
        gallery::show(app, ui);
    });
    Panel::right("options").resizable(true).default_size(204.0).size_range(180.0..=320.0).show(ui, |ui| {
        ScrollArea::vertical().show(ui, |ui| options::show(app, ui));
    });
    egui::CentralPanel::default_margins().show(ui, |ui| match app.page() {
        Page::Compare => compare::show(app, ui),
        Page::Rollout => rollout::show(app, ui),
        _ => look(app, ui),
    });
    export::show(app, ui);
}

/// Beside a run's curves: the attention of an image that stays the same while the weights change.
fn live(app: &mut App, ui: &mut Ui) {
    ui.add_space(2.0);
    let is_live = matches!(app.subject.weights, lara_explain::Weights::Live(_));
    ui.strong(if is_live { "Attention as it is learnt" } else { "Attention of the open model" });
    ScrollArea::vertical().auto_shrink(false).show(ui, |ui| {
        image::show(app, ui, ui.available_width());
        options::place(app, ui);
        prediction::show(app, ui);
        ui.weak("another image: choose one on the page Look, or press N");
    });
}

fn top_bar(app: &mut App, ui: &mut Ui) {
    ui.horizontal(|ui| {
        ui.strong("lara");
        for page in Page::ALL {
            ui.selectable_value(&mut app.settings.page, page, page.title());
        }
        ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
            let is_dark = ui.visuals().dark_mode;
            let theme =
                if is_dark { ("Light", egui::ThemePreference::Light) } else { ("Dark", egui::ThemePreference::Dark) };
            if ui.button(theme.0).on_hover_text("Change the theme").clicked() {
                app.settings.theme = theme.1;
                ui.ctx().set_theme(theme.1);
            }
            if ui.button("Export…").on_hover_text("Save the maps that are shown").clicked() {
                app.export.open = true;
            }
            #[cfg(not(target_arch = "wasm32"))]
            if ui
                .button("Open…")
                .on_hover_text("A checkpoint (safetensors) or an image; files can be dropped, too")
                .clicked()
            {
                export::pick_file(app);
            }
            let model = &app.subject.config.model;
            let name = format!("{} · {}", app.subject.name, app.subject.config.attention.mechanism.name());
            let sizes = format!(
                "{} blocks of {} heads, {} patches",
                model.depth(),
                model.layer(0).heads,
                model.layer(0).places()
            );
            ui.add(egui::Label::new(egui::RichText::new(name).weak()).truncate()).on_hover_text(sizes);
        });
    });
}

/// Image on the left, heads and layers beside it, or below it where the window is narrow.
fn look(app: &mut App, ui: &mut Ui) {
    if app.inspector.is_coming() {
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
                ui.vertical(|ui| image::show(app, ui, side));
            });
            ui.separator();
            ui.vertical(|ui| {
                ScrollArea::vertical().id_salt("heads").auto_shrink(false).show(ui, |ui| heads::show(app, ui));
            });
        });
    } else {
        ScrollArea::vertical().auto_shrink(false).show(ui, |ui| {
            let side = size.x.min(size.y * 0.62).max(160.0);
            image::show(app, ui, side);
            ui.separator();
            heads::show(app, ui);
        });
    }
}

/// The keyboard does what the mouse does.
pub(crate) fn keys(app: &mut App, ui: &Ui) {
    if ui.memory(|memory| memory.focused().is_some()) || app.page() == Page::Performance {
        return;
    }
    let pressed = |key: Key| ui.input(|input| input.modifiers.is_none() && input.key_pressed(key));
    let Some(sizes) = app.inspector().map(|inspector| inspector.sizes()) else { return };
    for (key, rows, columns) in
        [(Key::ArrowUp, -1, 0), (Key::ArrowDown, 1, 0), (Key::ArrowLeft, 0, -1), (Key::ArrowRight, 0, 1)]
    {
        if pressed(key) {
            app.focus.step(sizes.grid, rows, columns);
        }
    }
    if pressed(Key::C) && sizes.prefix > 0 {
        app.focus.chosen = Some(Query::Class);
    }
    if pressed(Key::M) {
        app.focus.chosen = Some(Query::Mean);
    }
    if pressed(Key::P) {
        let query = app.focus.current(sizes.prefix > 0);
        app.focus.toggle_pin(query, MOST_PINS.min(sizes.slots - 1));
    }
    if pressed(Key::Escape) {
        app.focus.pinned.clear();
        app.focus.chosen = None;
    }
    if pressed(Key::L) {
        app.settings.log_scale = !app.settings.log_scale;
    }
    if pressed(Key::H) {
        app.settings.head = match app.settings.head {
            Head::Mean => Head::One(0),
            Head::One(head) if head + 1 < sizes.heads => Head::One(head + 1),
            Head::One(_) => Head::Mean,
        };
    }
    if pressed(Key::PageDown) {
        app.settings.layer = (app.settings.layer + 1).min(sizes.layers - 1);
    }
    if pressed(Key::PageUp) {
        app.settings.layer = app.settings.layer.saturating_sub(1);
    }
    let count = app.gallery.entries.len();
    if pressed(Key::N) && count > 0 {
        app.choose((app.picture + 1) % count);
    }
}
