//! A window on a run of the command line.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lara_models::train::{Control, Summary, Trainer};
use lara_runtime::{Gpu, Tune};

use super::{Listener, Training};
use crate::error::{Error, Result};
use crate::panes;

/// What the command line and the window share.
pub struct View {
    /// The handle on the run.
    pub control: Control,
    /// Set when the user ended the run in the terminal: the window closes with it.
    pub interrupted: Arc<AtomicBool>,
    /// Hears the run's events.
    pub listener: Listener,
}

/// Trains with a window on the run. Call it in the main thread, which some systems want for windows. The run does not
/// wait for the screen, and closing the window leaves it going on; this returns at its end.
///
/// # Errors
/// If no window can be opened (nothing was trained then), and what [`Trainer::run`] fails with.
pub fn view_training(gpu: &Gpu, tune: &Tune, trainer: Trainer, view: View) -> Result<Summary> {
    let View { control, interrupted, listener } = view;
    let mut attached = None;
    let slot = &mut attached;
    let create = move |creation: &eframe::CreationContext<'_>| {
        let context = creation.egui_ctx.clone();
        let mut training = Training::new(gpu, tune, Arc::new(move || context.request_repaint()));
        training.attach(trainer, &control, listener)?;
        let training = slot.insert(training);
        Ok(Box::new(Window { training, interrupted }) as Box<dyn eframe::App>)
    };
    let size = egui::ViewportBuilder::default().with_inner_size([900.0, 600.0]).with_min_inner_size([480.0, 400.0]);
    let options = eframe::NativeOptions { viewport: size, ..Default::default() };
    let shown = eframe::run_native("lara: training", options, Box::new(create));
    let Some(training) = attached else {
        let why = shown.err().map_or_else(|| "the system gave none".to_owned(), |error| error.to_string());
        return Err(Error::Window(format!("cannot open a window ({why}); train without --view")));
    };
    if let Err(error) = shown {
        tracing::warn!("the window was lost ({error}); the run goes on without it");
    } else if training.state().is_active() {
        tracing::info!("the window was closed; the run goes on, and Ctrl-C stops and saves it");
    }
    Ok(training.into_summary()?)
}

struct Window<'a> {
    training: &'a mut Training,
    interrupted: Arc<AtomicBool>,
}

impl eframe::App for Window<'_> {
    fn ui(&mut self, ui: &mut egui::Ui, _frame: &mut eframe::Frame) {
        self.training.poll();
        if self.interrupted.load(Ordering::Relaxed) && !self.training.state().is_active() {
            ui.ctx().send_viewport_cmd(egui::ViewportCommand::Close);
        }
        egui::CentralPanel::default().show(ui, |ui| panes::training::show(ui, self.training));
        // Ctrl-C after the end of the run wakes nobody else.
        ui.ctx().request_repaint_after(Duration::from_millis(500));
    }
}
