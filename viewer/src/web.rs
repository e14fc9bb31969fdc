//! The viewer in a browser: how a page starts it, what the page's address may ask for, and what a script on the page (or
//! a test that drives one) can see of it: the object `window.lara_status`, with the fields of [`crate::Status`] and `moves`: bytes on the device
//! before each move of Compare and after the last.

#[cfg(target_arch = "wasm32")]
pub use page::start;

use crate::settings::Page;

/// What the address of the page asks for, behind its `?`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// `train=5`: training on the digits starts by itself and stops when this many steps have been taken.
    pub train_steps: Option<u64>,
    /// `page=compare`: the page that opens, whichever was open last.
    pub page: Option<Page>,
    /// `moves=200`: on the page Compare the landmarks of LARA are moved so often, each time that all is worked out.
    pub moves: usize,
}

impl Options {
    /// Reads `?train=5&page=compare`. What is not known is passed over: addresses collect parameters that are meant for others.
    ///
    /// # Errors
    /// A sentence if a value is not a number, or no page.
    pub fn parse(query: &str) -> Result<Options, String> {
        let mut options = Options::default();
        for pair in query.trim_start_matches('?').split('&') {
            if let Some(steps) = pair.strip_prefix("train=") {
                options.train_steps = Some(steps.parse().map_err(|_| {
                    format!("train={steps} in the page's address is no number of steps; write for instance ?train=5")
                })?);
            }
            if let Some(moves) = pair.strip_prefix("moves=") {
                options.moves = moves.parse().map_err(|_| {
                    format!(
                        "moves={moves} in the page's address is no number; write for instance ?page=compare&moves=5"
                    )
                })?;
            }
            if let Some(name) = pair.strip_prefix("page=") {
                let known = Page::ALL.map(|page| page.title().to_lowercase());
                let at = known.iter().position(|known| *known == name.to_lowercase());
                let page = at.map(|at| Page::ALL[at]);
                options.page = Some(page.ok_or_else(|| {
                    format!("page={name} in the page's address is no page; there are {}", known.join(", "))
                })?);
            }
        }
        Ok(options)
    }
}

/// What exists in a browser only.
#[cfg(target_arch = "wasm32")]
mod page {
    use std::time::Duration;

    use eframe::egui_wgpu::WgpuConfiguration;
    use lara_runtime::attention::MechanismKind;
    use lara_runtime::{Gpu, GpuOptions};
    use wasm_bindgen::prelude::*;
    use web_sys::js_sys::{Function, JSON, Reflect};

    use super::Options;
    use crate::app::{App, Launch, Status};
    use crate::device::wgpu_setup;
    use crate::pictures::Gallery;
    use crate::settings::{Page, Settings};

    /// Where settings lie in the browser's storage.
    const SETTINGS: &str = "lara-settings";
    /// LARA's place on the page Compare.
    const LARA: usize = 1;

    /// Opens the adapter and runs the viewer on `canvas`, with the model and the pictures that come with the
    /// program. Returns when it runs.
    ///
    /// # Errors
    /// A sentence, if there is no adapter or the canvas cannot be drawn on. The page shows it.
    #[wasm_bindgen]
    pub async fn start(canvas: web_sys::HtmlCanvasElement) -> Result<(), JsValue> {
        let sentence = |error: &dyn std::fmt::Display| JsValue::from_str(&error.to_string());
        // The runner's hook goes over this one and logs the panic with its stack.
        std::panic::set_hook(Box::new(|panic| show_error(&format!("This is a bug in lara: {panic}"))));
        publish(&Status::default(), &[]);
        let query = web_sys::window().and_then(|w| w.location().search().ok()).unwrap_or_default();
        let (options, notes) = match Options::parse(&query) {
            Ok(options) => (options, Vec::new()),
            Err(note) => (Options::default(), vec![note]),
        };
        let gpu = Gpu::open(&GpuOptions::default()).await.map_err(|error| sentence(&error))?;
        let subject = lara_explain::bundled().map_err(|error| sentence(&error))?;
        let gallery = Gallery::bundled(&subject).map_err(|error| sentence(&error))?;
        let launch = Launch { subject, gallery, training: None, notes, tune: None };
        let wgpu_options = WgpuConfiguration { wgpu_setup: wgpu_setup(&gpu), ..Default::default() };
        let create = move |context: &eframe::CreationContext<'_>| -> Result<Box<dyn eframe::App>, _> {
            let format = context.wgpu_render_state.as_ref().ok_or("the page has no wgpu renderer")?.target_format;
            let stored = context.storage.and_then(|storage| eframe::get_value::<Settings>(storage, SETTINGS));
            let mut settings = stored.unwrap_or_default();
            settings.page = options.page.unwrap_or(settings.page);
            let app = App::new(&gpu, format, &context.egui_ctx, launch, settings);
            let Options { train_steps, moves, .. } = options;
            Ok(Box::new(Tab { app, train_steps, is_training: false, moves, memory: Vec::new() })
                as Box<dyn eframe::App>)
        };
        let web_options = eframe::WebOptions { wgpu_options, ..Default::default() };
        eframe::WebRunner::new().start(canvas, web_options, Box::new(create)).await
    }

    /// The viewer as a page.
    struct Tab {
        app: App,
        /// Steps that the address asks for, until they are taken.
        train_steps: Option<u64>,
        is_training: bool,
        /// How often Compare is to be moved.
        moves: usize,
        /// Bytes on the device before each move and after the last, when all was worked out.
        memory: Vec<u64>,
    }

    impl Tab {
        /// Trains as the address asks, from the first map on.
        fn train(&mut self) {
            let Some(steps) = self.train_steps else { return };
            if !self.is_training && self.app.status().ready {
                self.is_training = true;
                let training = self.app.training_mut();
                if let Err(error) = training.start_digits(MechanismKind::Lara) {
                    show_error(&error.to_string());
                    self.train_steps = None;
                }
            } else if self.is_training && self.app.status().train_steps >= steps {
                self.app.training_mut().control().stop();
                self.train_steps = None;
            }
        }
    }

    impl Tab {
        /// Moves Compare as the address asks, once everything of the last move is worked out.
        fn go_on_moving(&mut self) {
            let is_there = self.app.settings().page == Page::Compare && self.app.status().ready;
            if self.moves == 0 || self.memory.len() > self.moves || !is_there || self.app.is_busy() {
                return;
            }
            self.memory.push(self.app.status().memory);
            if self.memory.len() <= self.moves {
                self.app.move_compared(LARA);
            }
        }
    }

    impl eframe::App for Tab {
        fn ui(&mut self, ui: &mut egui::Ui, _: &mut eframe::Frame) {
            self.app.frame(ui);
            self.train();
            self.go_on_moving();
            publish(self.app.status(), &self.memory);
            if let Some(why) = self.app.lost() {
                show_error(&format!("{why} Reload the page to start again."));
            }
            // A device that is lost wakes nobody; this frame finds out.
            ui.ctx().request_repaint_after(Duration::from_secs(1));
        }

        fn save(&mut self, storage: &mut dyn eframe::Storage) {
            eframe::set_value(storage, SETTINGS, self.app.settings());
        }
    }

    /// Puts the status where scripts of the page find it.
    fn publish(status: &Status, moves: &[u64]) {
        let Some(window) = web_sys::window() else { return };
        let Status { ready, busy, frames, maps, train_steps, memory, errors } = status;
        let object = serde_json::json!({
            "ready": ready, "busy": busy, "frames": frames, "maps": maps, "train_steps": train_steps, "memory": memory,
            "moves": moves, "errors": errors,
        });
        if let Ok(object) = JSON::parse(&object.to_string()) {
            // A window is extensible: setting a property of it does not fail.
            let _ = Reflect::set(&window, &"lara_status".into(), &object);
        }
    }

    /// Calls the page's `lara_error(text)`, which index.html defines; another page only has the console.
    fn show_error(text: &str) {
        let Some(window) = web_sys::window() else { return };
        let function = Reflect::get(&window, &"lara_error".into()).ok().and_then(|f| f.dyn_into::<Function>().ok());
        if let Some(function) = function {
            let _ = function.call1(&window, &text.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Options, Page};

    #[test]
    fn the_address_asks_for_training() {
        assert_eq!(Options::parse(""), Ok(Options::default()));
        assert_eq!(Options::parse("?utm=1"), Ok(Options::default()));
        assert_eq!(Options::parse("?utm=1&train=5"), Ok(Options { train_steps: Some(5), ..Options::default() }));
        assert_eq!(Options::parse("?page=compare"), Ok(Options { page: Some(Page::Compare), ..Options::default() }));
        assert!(Options::parse("?page=home").is_err_and(|sentence| sentence.contains("performance")));
        assert_eq!(Options::parse("?moves=200"), Ok(Options { moves: 200, ..Options::default() }));
        assert!(Options::parse("?moves=x").is_err_and(|sentence| sentence.contains("moves=x")));
        assert!(Options::parse("?train=-1").is_err_and(|sentence| sentence.contains("train=-1")));
    }
}
