//! The adapter, memory by purpose, and the time of every dispatch.

use egui::{Grid, ScrollArea, Ui};
use lara_runtime::human_bytes;
use lara_runtime::profile::{Timing, profile};
#[cfg(not(target_arch = "wasm32"))]
use lara_runtime::{AdapterReport, Gpu};

use crate::app::{App, Stage};
#[cfg(not(target_arch = "wasm32"))]
use crate::error::Error;
use crate::job::Job;

/// What has been measured and listed.
pub(crate) struct Performance {
    timings: Stage<Vec<Timing>>,
    #[cfg(not(target_arch = "wasm32"))]
    adapters: Stage<Vec<AdapterReport>>,
}

impl Default for Performance {
    fn default() -> Self {
        Performance {
            timings: Stage::Empty,
            #[cfg(not(target_arch = "wasm32"))]
            adapters: Stage::Empty,
        }
    }
}

/// Draws the pane.
pub(crate) fn show(app: &mut App, ui: &mut Ui) {
    ScrollArea::vertical().auto_shrink(false).show(ui, |ui| {
        ui.heading("Adapter");
        adapter(app, ui);
        ui.add_space(8.0);
        ui.heading("Memory on the device");
        memory(app, ui);
        ui.add_space(8.0);
        ui.heading("Time of every dispatch");
        dispatches(app, ui);
    });
}

fn adapter(app: &mut App, ui: &mut Ui) {
    let report = app.gpu.report().clone();
    ui.label(format!("{} · {} · {}", report.name, report.backend, report.driver));
    let without = report.without.join(", ");
    ui.weak(if without.is_empty() { "nothing is missing".into() } else { format!("does without: {without}") });
    ui.collapsing("Limits", |ui| {
        Grid::new("limits").striped(true).show(ui, |ui| {
            for (name, value) in &report.limits {
                ui.monospace(*name);
                ui.label(value.to_string());
                ui.end_row();
            }
        });
    });
    #[cfg(not(target_arch = "wasm32"))]
    ui.collapsing("Start again on another adapter", |ui| adapters(app, ui));
}

/// A button for every adapter (a browser has one); the window opens again on the one that is chosen.
#[cfg(not(target_arch = "wasm32"))]
fn adapters(app: &mut App, ui: &mut Ui) {
    if let Stage::Empty = app.performance.adapters {
        let list = || async { Ok::<_, Error>(Gpu::list().await) };
        app.performance.adapters = Stage::Coming(Job::spawn(app.repaint.clone(), list));
    }
    let settled = app.performance.adapters.settle();
    app.messages.keep(settled);
    let Some(adapters) = app.performance.adapters.ready() else {
        ui.spinner();
        return;
    };
    for adapter in adapters.iter() {
        if ui.button(format!("{} ({})", adapter.name, adapter.backend)).clicked() {
            app.restart = Some(adapter.index.to_string());
            ui.ctx().send_viewport_cmd(egui::ViewportCommand::Close);
        }
    }
}

fn memory(app: &App, ui: &mut Ui) {
    let Some(inspector) = app.inspector() else { return };
    let memory = inspector.plan().memory();
    let rows = [
        ("weights", memory.weights),
        ("activations (shared buffers)", memory.activations),
        ("inputs, maps and what asides share", memory.pinned),
        ("activations if none were shared", memory.activations_unshared),
    ];
    Grid::new("memory").striped(true).show(ui, |ui| {
        for (name, bytes) in rows {
            ui.label(name);
            ui.label(human_bytes(bytes));
            ui.end_row();
        }
    });
    let sizes = inspector.sizes();
    let matrix = (sizes.tokens() * sizes.tokens() * 4) as u64;
    let largest = inspector.plan().largest_buffer();
    ui.weak(format!(
        "largest buffer {}; one N × N matrix of this image would take {} a head",
        human_bytes(largest),
        human_bytes(matrix)
    ));
}

fn dispatches(app: &mut App, ui: &mut Ui) {
    let settled = app.performance.timings.settle();
    app.messages.keep(settled);
    let can = app.gpu.has_timestamps() && app.inspector().is_some() && !app.performance.timings.is_coming();
    let measure = ui.add_enabled(can, egui::Button::new("Measure"));
    if !app.gpu.has_timestamps() {
        ui.weak("this adapter has no timestamps");
    }
    if let (true, Some(inspector)) = (measure.clicked(), app.inspector()) {
        let (gpu, plan) = (app.gpu.clone(), inspector.plan().clone());
        let work = move || async move { profile(&gpu, &plan).await };
        app.performance.timings = Stage::Coming(Job::spawn(app.repaint.clone(), work));
    }
    let Some(timings) = app.performance.timings.ready() else { return };
    let total: f64 = timings.iter().map(|t| t.duration_us).sum();
    let largest = timings.iter().map(|t| t.duration_us).fold(f64::MIN_POSITIVE, f64::max);
    ui.label(format!("{} dispatches, {:.2} ms", timings.len(), total / 1e3));
    Grid::new("dispatches").striped(true).num_columns(3).show(ui, |ui| {
        for timing in timings.iter() {
            ui.monospace(&timing.label);
            ui.label(format!("{:.1} µs", timing.duration_us));
            let share = (timing.duration_us / largest) as f32;
            ui.add(egui::ProgressBar::new(share).desired_width(160.0).desired_height(8.0));
            ui.end_row();
        }
    });
}
