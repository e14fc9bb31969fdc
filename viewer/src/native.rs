//! The desktop window, on the runtime's own device.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use eframe::egui_wgpu::WgpuConfiguration;
use lara_models::data::Split;
use lara_models::train::{Control, Summary, Trainer};
use lara_runtime::{Gpu, GpuOptions, Tune};

use crate::app::{App, Launch};
use crate::device::wgpu_setup;
use crate::error::{Error, Result};
use crate::pictures::Gallery;
use crate::settings::{Page, Settings};
use crate::training::{Listener, Training};

/// Where settings lie in eframe's storage.
const SETTINGS: &str = "lara-settings";
/// Held-out images of a run that are shown.
const SHOWN: usize = 60;

/// Opens the window and returns when it is closed. A user who asks for another adapter, because a device was lost or out
/// of curiosity, gets a new window there; `launch` says what to open in each.
///
/// # Errors
/// No adapter, no window, or whatever `launch` fails with.
pub fn view(options: &GpuOptions, launch: &mut dyn FnMut(&Gpu) -> Result<Launch>) -> Result<()> {
    let (mut options, mut notes) = (options.clone(), Vec::new());
    // Adapters to go on with after a loss, the next one last; not every adapter can show a window.
    let mut others: Vec<String> = Vec::new();
    loop {
        let opened = open(&options, &notes, launch);
        let (gpu, closed) = match (opened, others.pop()) {
            (Ok(opened), _) => opened,
            (Err(Error::Window(_) | Error::Explain(lara_explain::Error::Gpu(_))), Some(next)) => {
                options = GpuOptions { adapter: Some(next), ..GpuOptions::default() };
                continue;
            }
            (Err(error), _) => return Err(error),
        };
        let adapter = match (closed.restart, closed.lost) {
            (Some(chosen), _) => Some(chosen),
            (None, Some(why)) => {
                let name = &gpu.report().name;
                notes = vec![format!(
                    "the device of {name} was lost ({why}) and this window opened; nothing on disk was touched. \
                     The page Performance offers other adapters"
                )];
                others = after(&gpu);
                others.pop()
            }
            (None, None) => return Ok(()),
        };
        options = GpuOptions { adapter, ..GpuOptions::default() };
    }
}

fn open(
    options: &GpuOptions,
    notes: &[String],
    launch: &mut dyn FnMut(&Gpu) -> Result<Launch>,
) -> Result<(Gpu, Closed)> {
    let gpu = Gpu::open_blocking(options)?;
    let mut launch = launch(&gpu)?;
    launch.notes.extend(notes.iter().cloned());
    let closed = window(&gpu, None, Box::new(|_| Ok(launch)))?;
    Ok((gpu, closed))
}

/// The indices of all adapters in the order in which they are tried after a loss, the first of them last: those behind the
/// lost one, those before it, and itself.
fn after(gpu: &Gpu) -> Vec<String> {
    let adapters = pollster::block_on(Gpu::list()).len().max(1);
    (0..adapters).map(|step| ((gpu.report().index + adapters - step) % adapters).to_string()).collect()
}

/// What the command line and the window on its run share.
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
    let (device, tune) = (gpu.clone(), tune.clone());
    let create: Create = Box::new(move |ctx| {
        let waker = ctx.clone();
        let mut training = Training::new(&device, &tune, Arc::new(move || waker.request_repaint()));
        let gallery = held_out(&trainer)?;
        training.attach(trainer, &control, listener)?;
        let model = training.take_model().ok_or_else(|| Error::bad_input("a run without a model"))?;
        Ok(Launch { subject: model, gallery, training: Some(training), notes: Vec::new(), tune: None })
    });
    let closed = window(gpu, Some(interrupted), create);
    let (training, lost) = match closed {
        Ok(closed) => (closed.training, None),
        Err(error) => (None, Some(error)),
    };
    let Some(training) = training else {
        return Err(lost.unwrap_or_else(|| Error::Window("the window gave no run back".into())));
    };
    if training.state().is_active() {
        tracing::info!("the window was closed; the run goes on, and Ctrl-C stops and saves it");
    }
    Ok(training.into_summary()?)
}

/// The first held-out images of a run's data set.
fn held_out(trainer: &Trainer) -> Result<Gallery> {
    let config = trainer.config();
    Gallery::of(&*config.open_data(Split::Test)?, SHOWN)
}

type Create = Box<dyn FnOnce(&egui::Context) -> Result<Launch>>;

/// What is left when a window closes.
#[derive(Default)]
struct Closed {
    /// The adapter to go on with, if the user chose another.
    restart: Option<String>,
    /// Why the device is gone, if that closed the window.
    lost: Option<String>,
    training: Option<Training>,
}

fn window(gpu: &Gpu, interrupted: Option<Arc<AtomicBool>>, create: Create) -> Result<Closed> {
    let closed = Arc::new(Mutex::new(Closed::default()));
    let (device, result) = (gpu.clone(), closed.clone());
    let make = move |context: &eframe::CreationContext<'_>| -> std::result::Result<Box<dyn eframe::App>, _> {
        let format = context.wgpu_render_state.as_ref().ok_or("the window has no wgpu renderer")?.target_format;
        let stored = context.storage.and_then(|storage| eframe::get_value::<Settings>(storage, SETTINGS));
        let mut settings = stored.unwrap_or_default();
        let launch = create(&context.egui_ctx)?;
        if launch.training.is_some() {
            settings.page = Page::Train;
        }
        let app = App::new(&device, format, &context.egui_ctx, launch, settings);
        Ok(Box::new(Window { app: Some(app), closed: result, interrupted }) as Box<dyn eframe::App>)
    };
    // egui's renderer panics where a device goes in the middle of a frame: that ends the window, not the program.
    let ended = catch_unwind(AssertUnwindSafe(|| eframe::run_native("lara", options(gpu), Box::new(make))));
    let lost = match gpu.check() {
        Err(error @ lara_runtime::Error::DeviceLost(_)) => Some(error.to_string()),
        _ => None,
    };
    let mut closed = std::mem::take(&mut *closed.lock().unwrap_or_else(PoisonError::into_inner));
    match (ended, lost) {
        (_, Some(why)) => closed.lost = Some(why),
        (Err(panic), None) => resume_unwind(panic),
        (Ok(Err(error)), None) => {
            let why = without_place(&error.to_string());
            let hint = "is there a display? `lara export-maps` and `lara train` need none";
            return Err(Error::Window(format!("no window could be opened ({why}); {hint}")));
        }
        (Ok(Ok(())), None) => {}
    }
    Ok(closed)
}

/// winit says in which line of its source it gave up, which helps nobody who reads the message.
fn without_place(error: &str) -> String {
    let reason = error.rsplit_once(".rs:").and_then(|(_, rest)| rest.split_once(": "));
    reason.map_or(error, |(_, reason)| reason).to_owned()
}

fn options(gpu: &Gpu) -> eframe::NativeOptions {
    eframe::NativeOptions {
        viewport: egui::ViewportBuilder::default()
            .with_title("lara")
            .with_inner_size([1180.0, 780.0])
            .with_min_inner_size([900.0, 600.0])
            .with_drag_and_drop(true),
        wgpu_options: WgpuConfiguration { wgpu_setup: wgpu_setup(gpu), ..Default::default() },
        ..Default::default()
    }
}

struct Window {
    app: Option<App>,
    closed: Arc<Mutex<Closed>>,
    /// Set when a run was ended in the terminal.
    interrupted: Option<Arc<AtomicBool>>,
}

impl eframe::App for Window {
    fn ui(&mut self, ui: &mut egui::Ui, _: &mut eframe::Frame) {
        let Some(app) = &mut self.app else { return };
        app.frame(ui);
        if app.lost().is_some() {
            ui.ctx().send_viewport_cmd(egui::ViewportCommand::Close);
        }
        if let Some(interrupted) = &self.interrupted {
            if interrupted.load(Ordering::Relaxed) && !app.training_mut().state().is_active() {
                ui.ctx().send_viewport_cmd(egui::ViewportCommand::Close);
            }
            // Ctrl-C after the end of the run wakes nobody else.
            ui.ctx().request_repaint_after(Duration::from_millis(500));
        }
    }

    fn save(&mut self, storage: &mut dyn eframe::Storage) {
        if let Some(app) = &self.app {
            eframe::set_value(storage, SETTINGS, app.settings());
        }
    }

    fn on_exit(&mut self) {
        let Some(app) = self.app.take() else { return };
        let mut closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        closed.restart = app.restart_on().map(str::to_owned);
        closed.training = Some(app.into_training());
    }
}
