//! The desktop window, on the runtime's own device.

use std::sync::{Arc, Mutex, PoisonError};

use eframe::egui_wgpu::WgpuConfiguration;
use lara_runtime::{Gpu, GpuOptions};

use crate::app::{App, Launch};
use crate::error::{Error, Result};
use crate::settings::Settings;

/// Where settings lie in eframe's storage.
const SETTINGS: &str = "lara-settings";

/// Opens the window and returns when it is closed. A user who asks for another adapter, because a device was lost or out
/// of curiosity, gets a new window there; `launch` says what to open in each.
///
/// # Errors
/// No adapter, no window, or whatever `launch` fails with.
pub fn view(options: &GpuOptions, launch: &mut dyn FnMut(&Gpu) -> Result<Launch>) -> Result<()> {
    let mut options = options.clone();
    loop {
        let gpu = Gpu::open_blocking(&options)?;
        let launch = launch(&gpu)?;
        match window(&gpu, launch)? {
            Some(adapter) => options = GpuOptions { adapter: Some(adapter), low_power: false },
            None => return Ok(()),
        }
    }
}

/// One window; the adapter to go on with, if the user chose another.
pub(crate) fn window(gpu: &Gpu, launch: Launch) -> Result<Option<String>> {
    let next = Arc::new(Mutex::new(None));
    let options = eframe::NativeOptions {
        viewport: egui::ViewportBuilder::default()
            .with_title("lara")
            .with_inner_size([1180.0, 780.0])
            .with_min_inner_size([900.0, 600.0])
            .with_drag_and_drop(true),
        wgpu_options: WgpuConfiguration { wgpu_setup: crate::wgpu_setup(gpu), ..Default::default() },
        ..Default::default()
    };
    let (device, chosen) = (gpu.clone(), next.clone());
    let create = move |context: &eframe::CreationContext<'_>| -> std::result::Result<Box<dyn eframe::App>, _> {
        let format = context.wgpu_render_state.as_ref().ok_or("the window has no wgpu renderer")?.target_format;
        let stored = context.storage.and_then(|storage| eframe::get_value::<Settings>(storage, SETTINGS));
        let app = App::new(&device, format, &context.egui_ctx, launch, stored.unwrap_or_default());
        Ok(Box::new(Window { app, chosen }) as Box<dyn eframe::App>)
    };
    eframe::run_native("lara", options, Box::new(create)).map_err(|error| {
        Error::Window(format!("no window could be opened ({error}); is there a display? `lara export-maps` needs none"))
    })?;
    let adapter = next.lock().unwrap_or_else(PoisonError::into_inner).take();
    Ok(adapter)
}

struct Window {
    app: App,
    chosen: Arc<Mutex<Option<String>>>,
}

impl eframe::App for Window {
    fn ui(&mut self, ui: &mut egui::Ui, _: &mut eframe::Frame) {
        self.app.frame(ui);
    }

    fn save(&mut self, storage: &mut dyn eframe::Storage) {
        eframe::set_value(storage, SETTINGS, self.app.settings());
    }

    fn on_exit(&mut self) {
        *self.chosen.lock().unwrap_or_else(PoisonError::into_inner) = self.app.restart_on().map(str::to_owned);
    }
}
