//! The adapter, memory by purpose, and the time of every dispatch.

use egui::{Grid, ScrollArea, Ui};
use lara_runtime::profile::{Timing, profile};
#[cfg(not(target_arch = "wasm32"))]
use lara_runtime::{AdapterReport, Gpu};
use lara_runtime::{Dtype, Shape, human_bytes};

use crate::context::Context;
#[cfg(not(target_arch = "wasm32"))]
use crate::error::Error;
use crate::job::{Job, Stage};

/// The pane, with what has been measured and listed.
#[derive(Default)]
pub(crate) struct Performance {
    timings: Stage<Vec<Timing>>,
    #[cfg(not(target_arch = "wasm32"))]
    adapters: Stage<Vec<AdapterReport>>,
}

impl Performance {
    /// Draws the pane.
    pub(crate) fn show(&mut self, cx: &mut Context, ui: &mut Ui) {
        ScrollArea::vertical().auto_shrink(false).show(ui, |ui| {
            ui.heading("Adapter");
            self.adapter(cx, ui);
            ui.add_space(8.0);
            ui.heading("Memory on the device");
            memory(cx, ui);
            ui.add_space(8.0);
            ui.heading("Time of every dispatch");
            self.dispatches(cx, ui);
        });
    }

    fn adapter(&mut self, cx: &mut Context, ui: &mut Ui) {
        let report = cx.gpu.report().clone();
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
        ui.collapsing("Start again on another adapter", |ui| self.adapters(cx, ui));
    }

    /// A button for every adapter (a browser has one); the window opens again on the one that is chosen.
    #[cfg(not(target_arch = "wasm32"))]
    fn adapters(&mut self, cx: &mut Context, ui: &mut Ui) {
        if let Stage::Empty = self.adapters {
            let list = || async { Ok::<_, Error>(Gpu::list().await) };
            self.adapters = Stage::Coming(Job::spawn(cx.repaint.clone(), list));
        }
        let settled = self.adapters.settle();
        cx.messages.keep(settled);
        let Some(adapters) = self.adapters.ready() else {
            ui.spinner();
            return;
        };
        for adapter in adapters.iter() {
            if ui.button(format!("{} ({})", adapter.name, adapter.backend)).clicked() {
                cx.restart = Some(adapter.index.to_string());
                ui.ctx().send_viewport_cmd(egui::ViewportCommand::Close);
            }
        }
    }

    fn dispatches(&mut self, cx: &mut Context, ui: &mut Ui) {
        let settled = self.timings.settle();
        cx.messages.keep(settled);
        let can = cx.gpu.has_timestamps() && cx.inspector().is_some() && !self.timings.is_coming();
        let measure = ui.add_enabled(can, egui::Button::new("Measure"));
        if !cx.gpu.has_timestamps() {
            ui.weak("this adapter has no timestamps");
        }
        if let (true, Some(inspector)) = (measure.clicked(), cx.inspector()) {
            let (gpu, plan) = (cx.gpu.clone(), inspector.plan().clone());
            let work = move || async move { profile(&gpu, &plan).await };
            self.timings = Stage::Coming(Job::spawn(cx.repaint.clone(), work));
        }
        let Some(timings) = self.timings.ready() else { return };
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
}

fn memory(cx: &Context, ui: &mut Ui) {
    let Some(inspector) = cx.inspector() else { return };
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
    let matrix = Shape::from([sizes.tokens(); 2]).bytes(Dtype::F32);
    let largest = inspector.plan().largest_buffer();
    ui.weak(format!(
        "largest buffer {}; one N × N matrix of this image would take {} a head",
        human_bytes(largest),
        human_bytes(matrix)
    ));
}
