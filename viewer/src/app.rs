//! The program: what is open, what has to be worked out this frame, and where the panes lie.

use egui::{Align, Layout, Panel, ScrollArea, ThemePreference, Ui};
use lara_explain::{Distances, Inspector, Sizes};
use lara_models::Model;
use lara_runtime::{Gpu, Tune};

use crate::context::Context;
use crate::error::Result;
use crate::incoming::{self, Incoming};
use crate::job::Repaint;
use crate::keys;
use crate::paint::Painter;
use crate::panes::compare::Compare;
use crate::panes::export::Export;
use crate::panes::performance::Performance;
use crate::panes::rollout::RolloutPane;
use crate::panes::training::TrainingPane;
use crate::panes::{gallery, look, options, prediction};
use crate::pictures::Gallery;
use crate::settings::{Focus, Page, Settings};
use crate::training::Training;

/// What to open at the start.
pub struct Launch {
    /// The model.
    pub subject: Model,
    /// The images.
    pub gallery: Gallery,
    /// The run to attach to, if one is in progress.
    pub training: Option<Training>,
    /// Sentences to begin with (why another adapter is in use, say).
    pub notes: Vec<String>,
    /// Which kernels to take; None measures on this adapter.
    pub tune: Option<Tune>,
}

/// What a script that drives the program wants to know.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Status {
    /// The model is compiled and its first map was worked out.
    pub ready: bool,
    /// Something is being compiled or drawn for the open page.
    pub busy: bool,
    /// Frames painted.
    pub frames: u64,
    /// Times that rows of attention were worked out.
    pub maps: u64,
    /// Training steps whose results arrived.
    pub train_steps: u64,
    /// Bytes on the device, of everything that is open.
    pub memory: u64,
    /// Messages on the screen.
    pub errors: Vec<String>,
}

/// The viewer.
pub struct App {
    cx: Context,
    incoming: Incoming,
    compare: Compare,
    rollout: RolloutPane,
    training_pane: TrainingPane,
    performance: Performance,
    export: Export,
    training: Training,
    seen_steps: u64,
    /// The model that the panes hold plans of, by its count.
    model: u64,
    status: Status,
    lost: Option<String>,
}

impl App {
    /// The program on a device that the window shares.
    pub fn new(
        gpu: &Gpu,
        target: wgpu::TextureFormat,
        ctx: &egui::Context,
        launch: Launch,
        settings: Settings,
    ) -> Self {
        let tune = launch.tune.unwrap_or_else(|| Tune::measured(gpu));
        let waker = ctx.clone();
        let repaint: Repaint = std::sync::Arc::new(move || waker.request_repaint());
        let training = launch.training.unwrap_or_else(|| Training::new(gpu, &tune, repaint.clone()));
        ctx.set_theme(settings.theme);
        let painter = Painter::new(gpu, target);
        let mut cx = Context::new(gpu, tune, painter, repaint, settings, (launch.subject, launch.gallery));
        launch.notes.into_iter().for_each(|note| cx.messages.problem(note));
        App {
            model: cx.models,
            cx,
            incoming: Incoming::default(),
            compare: Compare::default(),
            rollout: RolloutPane::default(),
            training_pane: TrainingPane::default(),
            performance: Performance::default(),
            export: Export::default(),
            training,
            seen_steps: 0,
            status: Status::default(),
            lost: None,
        }
    }

    /// What the user has chosen, to be remembered.
    pub fn settings(&self) -> &Settings {
        &self.cx.settings
    }

    /// Where the program stands.
    pub fn status(&self) -> &Status {
        &self.status
    }

    /// Whether something is being compiled, or drawn for a deviation, on the open page.
    pub fn is_busy(&self) -> bool {
        self.cx.looking.is_coming()
            || self.cx.looking.is_behind()
            || self.cx.is_decoding()
            || match self.cx.settings.page {
                Page::Compare => self.compare.is_busy(),
                Page::Rollout => self.rollout.is_busy(),
                _ => false,
            }
    }

    /// How far each compared mechanism is from exact softmax, for the row in front; those that are not known yet are left
    /// out.
    pub fn compared(&self) -> Vec<Distances> {
        self.compare.distances(self.cx.settings.head)
    }

    /// Moves `num_landmarks` of a compared mechanism, by its place, up and down by turns, as its slider does; false if there
    /// is none. For scripts that watch what that leaves behind.
    pub fn move_compared(&mut self, column: usize) -> bool {
        // What a hand on a slider does by itself: without a frame nothing begins.
        (self.cx.repaint)();
        self.compare.move_landmarks(column)
    }

    /// Whose attention is shown.
    pub fn focus(&self) -> &Focus {
        &self.cx.focus
    }

    /// The model that is looked at, once it is compiled.
    pub fn inspector(&self) -> Option<&Inspector> {
        self.cx.inspector()
    }

    /// The adapter that the user asked for; the window closes and one on that adapter opens.
    pub fn restart_on(&self) -> Option<&str> {
        self.cx.restart.as_deref()
    }

    /// Why the device is gone, if it is: nothing can be drawn on it any more, so whoever owns the window opens another.
    pub fn lost(&self) -> Option<&str> {
        self.lost.as_deref()
    }

    /// The run in progress.
    pub fn training_mut(&mut self) -> &mut Training {
        &mut self.training
    }

    /// Ends the program and hands over the run, which goes on.
    pub fn into_training(self) -> Training {
        self.training
    }

    /// Opens a model; what cannot be opened is said and the old one stays.
    pub fn open(&mut self, subject: Result<Model>) {
        self.cx.open(subject);
    }

    /// Opens a model (safetensors) or an image, told by the name.
    pub fn open_bytes(&mut self, name: &str, bytes: Vec<u8>) {
        incoming::open_bytes(&mut self.cx, name, bytes);
    }

    /// Opens a checkpoint, a run's folder, an image, or a folder of images.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn open_path(&mut self, path: &std::path::Path) {
        incoming::open_path(&mut self.cx, path);
    }

    /// One frame.
    pub fn frame(&mut self, ui: &mut Ui) {
        self.status.frames += 1;
        self.incoming.take(&mut self.cx, ui);
        keys::take(&mut self.cx, ui);
        self.update();
        if self.lost.is_some() {
            // Nothing can be drawn on a device that is gone; egui's renderer panics if it is asked to.
            return;
        }
        self.layout(ui);
        self.status.busy = self.is_busy();
        self.status.maps = self.cx.looking.maps;
        self.status.ready = self.status.maps > 0;
        self.status.memory = self.cx.gpu.memory_in_use();
        self.status.errors = self.cx.messages.texts().map(str::to_owned).collect();
    }

    /// Works out what this frame needs and takes what has come back; everything else waits for nobody.
    fn update(&mut self) {
        self.cx.gpu.poll();
        if let Err(error) = self.cx.gpu.check() {
            if matches!(error, lara_runtime::Error::DeviceLost(_)) {
                self.lost.get_or_insert(error.to_string());
            }
            self.cx.messages.problem(error);
        }
        if self.lost.is_some() {
            return;
        }
        self.follow_training();
        if self.cx.models != self.model {
            // What was compiled for the last model goes at once, not when its page is opened next.
            self.model = self.cx.models;
            self.compare.reset();
            self.rollout.reset();
        }
        self.cx.update();
    }

    /// A run's weights change under the inspector: its forward pass is run again with every step that was seen.
    fn follow_training(&mut self) {
        self.training.poll();
        if let Some(model) = self.training.take_model() {
            self.open(Ok(model));
        }
        let steps = self.training.history().steps();
        if steps != self.seen_steps {
            self.seen_steps = steps;
            self.status.train_steps = steps;
            self.cx.follow_run();
        }
    }

    /// Every pane in its place.
    fn layout(&mut self, ui: &mut Ui) {
        let (page, cx) = (self.cx.settings.page, &mut self.cx);
        Panel::top("bar").show(ui, |ui| top_bar(cx, &mut self.export, &mut self.incoming, ui));
        if cx.messages.texts().next().is_some() {
            Panel::bottom("messages").show(ui, |ui| cx.messages.show(ui));
        }
        match page {
            Page::Train => {
                let live = Panel::right("live").resizable(true).default_size(280.0).size_range(200.0..=480.0);
                live.show(ui, |ui| look::live(cx, ui));
                egui::CentralPanel::default_margins().show(ui, |ui| self.training_pane.show(&mut self.training, ui));
            }
            Page::Performance => {
                egui::CentralPanel::default_margins().show(ui, |ui| self.performance.show(cx, ui));
            }
            Page::Look | Page::Compare | Page::Rollout => {
                beside(cx, ui);
                egui::CentralPanel::default_margins().show(ui, |ui| match page {
                    Page::Compare => self.compare.show(cx, ui),
                    Page::Rollout => self.rollout.show(cx, ui),
                    _ => look::show(cx, ui),
                });
            }
        }
        self.export.show(cx, ui, &|layer, heads| self.compare.read_maps(layer, heads));
    }
}

/// What lies left and right of the pages that show maps.
fn beside(cx: &mut Context, ui: &mut Ui) {
    Panel::left("pictures").resizable(true).default_size(176.0).size_range(140.0..=320.0).show(ui, |ui| {
        Panel::bottom("prediction").resizable(false).show(ui, |ui| prediction::show(cx, ui));
        gallery::show(cx, ui);
    });
    Panel::right("options").resizable(true).default_size(204.0).size_range(180.0..=320.0).show(ui, |ui| {
        ScrollArea::vertical().show(ui, |ui| options::show(cx, ui));
    });
}

/// Blocks, heads and patches of a model, stage by stage.
fn described(blocks: &[Sizes]) -> String {
    let stage = |stage: std::ops::Range<usize>| {
        let Sizes { query_grid: [rows, columns], heads, .. } = blocks[stage.start];
        format!("{} blocks of {heads} heads, {} patches ({rows} × {columns})", stage.len(), rows * columns)
    };
    Sizes::stages(blocks).into_iter().map(stage).collect::<Vec<_>>().join("\n")
}

fn top_bar(cx: &mut Context, export: &mut Export, incoming: &mut Incoming, ui: &mut Ui) {
    ui.horizontal(|ui| {
        ui.strong("lara");
        for page in Page::ALL {
            ui.selectable_value(&mut cx.settings.page, page, page.title());
        }
        ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
            let (name, theme) = match ui.visuals().dark_mode {
                true => ("Light", ThemePreference::Light),
                false => ("Dark", ThemePreference::Dark),
            };
            if ui.button(name).on_hover_text("Change the theme").clicked() {
                cx.settings.theme = theme;
                ui.ctx().set_theme(theme);
            }
            if ui.button("Export…").on_hover_text("Save the maps that are shown").clicked() {
                export.open();
            }
            open_button(cx, incoming, ui);
            let name = format!("{} · {}", cx.subject.name, cx.subject.config.attention.mechanism.name());
            let sizes = cx.inspector().map_or_else(String::new, |inspector| described(&inspector.blocks()));
            ui.add(egui::Label::new(egui::RichText::new(name).weak()).truncate()).on_hover_text(sizes);
        });
    });
}

#[cfg(not(target_arch = "wasm32"))]
fn open_button(cx: &Context, incoming: &mut Incoming, ui: &mut Ui) {
    let hint = "A checkpoint (safetensors) or an image; files can be dropped, too";
    if ui.button("Open…").on_hover_text(hint).clicked() {
        incoming.pick(cx);
    }
}

/// A browser has its own ways to files: they are dropped on the page.
#[cfg(target_arch = "wasm32")]
fn open_button(_: &Context, _: &mut Incoming, _: &mut Ui) {}
