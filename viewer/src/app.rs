//! The program: what is open, what has to be worked out this frame, and where the panes lie.

use std::collections::HashMap;

use egui::{TextureHandle, TextureOptions, Ui};
use lara_explain::{Inspector, Query, Subject, Weights};
use lara_models::softmax;
use lara_runtime::{Gpu, Tune};

use crate::error::Result;
use crate::job::{Job, Repaint};
use crate::messages::Messages;
use crate::paint::Painter;
use crate::panes;
use crate::panes::compare::Compare;
use crate::panes::export::Export;
use crate::panes::performance::Performance;
use crate::panes::rollout::RolloutPane;
use crate::pictures::Gallery;
use crate::settings::{Focus, Page, Settings};
use crate::training::Training;

/// Runs of a fresh plan until its time means something.
const WARM_UP: usize = 3;

/// Something that takes its time.
pub(crate) enum Stage<T> {
    Empty,
    Coming(Job<T>),
    Ready(T),
}

impl<T: Send + 'static> Stage<T> {
    /// Takes what has arrived; an error empties the stage.
    pub(crate) fn settle(&mut self) -> Result<bool> {
        let Stage::Coming(job) = self else { return Ok(false) };
        match job.poll() {
            None => Ok(false),
            Some(Ok(value)) => {
                *self = Stage::Ready(value);
                Ok(true)
            }
            Some(Err(error)) => {
                *self = Stage::Empty;
                Err(error)
            }
        }
    }

    pub(crate) fn ready(&mut self) -> Option<&mut T> {
        if let Stage::Ready(value) = self { Some(value) } else { None }
    }

    /// Takes the value out, if it is there.
    pub(crate) fn take_ready(&mut self) -> Option<T> {
        match std::mem::replace(self, Stage::Empty) {
            Stage::Ready(value) => Some(value),
            other => {
                *self = other;
                None
            }
        }
    }

    pub(crate) fn is_coming(&self) -> bool {
        matches!(self, Stage::Coming(_))
    }
}

/// What to open at the start.
pub struct Launch {
    /// The model.
    pub subject: Subject,
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
    /// Messages on the screen.
    pub errors: Vec<String>,
}

/// The viewer.
pub struct App {
    pub(crate) gpu: Gpu,
    pub(crate) tune: Tune,
    pub(crate) painter: Painter,
    pub(crate) repaint: Repaint,
    pub(crate) settings: Settings,
    pub(crate) focus: Focus,
    pub(crate) messages: Messages,
    pub(crate) subject: Subject,
    pub(crate) gallery: Gallery,
    pub(crate) picture: usize,
    pub(crate) inspector: Stage<Inspector>,
    pub(crate) textures: HashMap<usize, TextureHandle>,
    pub(crate) probabilities: Option<Vec<f64>>,
    pub(crate) forward_ms: Option<f64>,
    /// Rows of a block, [slots, heads + 1, tokens], for labels and tooltips.
    pub(crate) rows: Option<(usize, Vec<f32>)>,
    /// Queries of the slots.
    pub(crate) queries: Vec<Query>,
    pub(crate) compare: Compare,
    pub(crate) rollout: RolloutPane,
    pub(crate) training: Training,
    pub(crate) performance: Performance,
    pub(crate) export: Export,
    pub(crate) restart: Option<String>,
    image_is_stale: bool,
    rows_are_stale: bool,
    looked: (Vec<Query>, usize),
    seen_steps: u64,
    status: Status,
    lost: Option<String>,
    #[cfg(target_arch = "wasm32")]
    drops: Vec<Job<(String, Vec<u8>)>>,
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
        let mut messages = Messages::default();
        launch.notes.into_iter().for_each(|note| messages.problem(note));
        let mut app = App {
            gpu: gpu.clone(),
            tune,
            painter: Painter::new(gpu, target),
            repaint,
            settings,
            focus: Focus::default(),
            messages,
            subject: launch.subject,
            gallery: launch.gallery,
            picture: 0,
            inspector: Stage::Empty,
            textures: HashMap::new(),
            probabilities: None,
            forward_ms: None,
            rows: None,
            queries: Vec::new(),
            compare: Compare::default(),
            rollout: RolloutPane::default(),
            training,
            performance: Performance::default(),
            export: Export::default(),
            restart: None,
            image_is_stale: true,
            rows_are_stale: true,
            looked: (Vec::new(), usize::MAX),
            seen_steps: 0,
            status: Status::default(),
            lost: None,
            #[cfg(target_arch = "wasm32")]
            drops: Vec::new(),
        };
        app.inspect();
        app
    }

    /// What the user has chosen, to be remembered.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Where the program stands.
    pub fn status(&self) -> &Status {
        &self.status
    }

    /// Whether something is being compiled, or drawn for a deviation, on the open page.
    pub fn is_busy(&self) -> bool {
        match self.page() {
            Page::Compare => self.inspector.is_coming() || self.compare.is_busy(),
            Page::Rollout => self.inspector.is_coming() || self.rollout.is_busy(),
            _ => self.inspector.is_coming(),
        }
    }

    /// How far each compared mechanism is from exact softmax, for the row in front; those that are not known yet are left
    /// out.
    pub fn compared(&self) -> Vec<lara_explain::Distances> {
        self.compare.distances(self.settings.head)
    }

    /// Whose attention is shown.
    pub fn focus(&self) -> &Focus {
        &self.focus
    }

    /// The model that is looked at, once it is compiled.
    pub fn inspector(&self) -> Option<&Inspector> {
        if let Stage::Ready(inspector) = &self.inspector { Some(inspector) } else { None }
    }

    /// The adapter that the user asked for; the window closes and one on that adapter opens.
    pub fn restart_on(&self) -> Option<&str> {
        self.restart.as_deref()
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
    pub fn open(&mut self, subject: Result<Subject>) {
        let Some(subject) = self.messages.keep(subject) else { return };
        if subject.image_shape() != self.gallery.shape {
            self.gallery = Gallery::empty(subject.image_shape());
            self.picture = 0;
            self.textures.clear();
        }
        self.subject = subject;
        self.inspect();
    }

    /// Shows these images.
    pub fn open_gallery(&mut self, gallery: Result<Gallery>) {
        let Some(gallery) = self.messages.keep(gallery) else { return };
        self.gallery = gallery;
        self.textures.clear();
        self.choose(0);
    }

    /// Compiles the subject for looking at.
    pub(crate) fn inspect(&mut self) {
        let (gpu, tune, subject) = (self.gpu.clone(), self.tune.clone(), self.subject.clone());
        let work = move || async move { Inspector::new(&gpu, &tune, &subject, &subject.config, false).await };
        self.inspector = Stage::Coming(Job::spawn(self.repaint.clone(), work));
        self.settings.layer = self.settings.layer.min(self.subject.config.model.depth() - 1);
        self.compare.reset();
        self.rollout.reset();
        self.probabilities = None;
        self.rows = None;
    }

    /// Shows image number `index`.
    pub(crate) fn choose(&mut self, index: usize) {
        self.picture = index;
        self.image_is_stale = true;
        self.probabilities = None;
    }

    /// The normalised image, if there is one.
    pub(crate) fn input(&mut self) -> Option<Vec<f32>> {
        let pixels = self.gallery.entries.get(self.picture)?.pixels.clone();
        self.messages.keep(self.subject.normalise(&pixels))
    }

    /// The texture of image `index`.
    pub(crate) fn texture(&mut self, ctx: &egui::Context, index: usize) -> Option<TextureHandle> {
        let entry = self.gallery.entries.get(index)?;
        let image = || self.gallery.color_image(entry);
        let load = || ctx.load_texture(format!("image {index}"), image(), TextureOptions::NEAREST);
        Some(self.textures.entry(index).or_insert_with(load).clone())
    }

    /// One frame.
    pub fn frame(&mut self, ui: &mut Ui) {
        self.status.frames += 1;
        self.take_drops(ui);
        panes::keys(self, ui);
        self.update();
        if self.lost.is_some() {
            // Nothing can be drawn on a device that is gone; egui's renderer panics if it is asked to.
            return;
        }
        panes::layout(self, ui);
        self.status.busy = self.is_busy();
        self.status.errors = self.messages.texts().map(str::to_owned).collect();
    }

    #[cfg(not(target_arch = "wasm32"))]
    fn take_drops(&mut self, ui: &Ui) {
        let files = ui.input(|input| input.raw.dropped_files.clone());
        files.iter().for_each(|file| self.open_path(file.path()));
    }

    /// A browser reads dropped files while the program goes on.
    #[cfg(target_arch = "wasm32")]
    fn take_drops(&mut self, ui: &Ui) {
        for file in ui.input(|input| input.raw.dropped_files.clone()) {
            let name = file.path().display().to_string();
            let read = move || async move {
                let bytes = file.bytes_async().await.map_err(crate::Error::bad_input)?;
                Ok((name, bytes))
            };
            self.drops.push(Job::spawn(self.repaint.clone(), read));
        }
        let arrived: Vec<_> = self.drops.iter().map(Job::poll).collect();
        self.drops.retain({
            let mut pending = arrived.iter().map(Option::is_none).collect::<Vec<_>>().into_iter();
            move |_| pending.next().unwrap_or(false)
        });
        for read in arrived.into_iter().flatten() {
            if let Some((name, bytes)) = self.messages.keep(read) {
                self.open_bytes(&name, bytes);
            }
        }
    }

    /// Opens a model (safetensors) or an image, told by the name.
    pub fn open_bytes(&mut self, name: &str, bytes: Vec<u8>) {
        if name.to_lowercase().ends_with(".safetensors") {
            return self.open(Subject::from_bytes(name, bytes).map_err(Into::into));
        }
        let crop = self.subject.crop_pct();
        let added = self.gallery.add(name, &bytes, crop);
        if let Some(index) = self.messages.keep(added) {
            self.choose(index);
        }
    }

    /// Opens a checkpoint, a run's folder, an image, or a folder of images.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn open_path(&mut self, path: &std::path::Path) {
        let is_model = path.extension().is_some_and(|e| e == "safetensors");
        if is_model || (path.is_dir() && Subject::open(path).is_ok()) {
            return self.open(Subject::open(path).map_err(Into::into));
        }
        let crop = self.subject.crop_pct();
        let opened = Gallery::open(path, self.gallery.shape, crop);
        let single = opened.as_ref().is_ok_and(|gallery| gallery.entries.len() == 1);
        match opened {
            Ok(mut gallery) if single => {
                self.gallery.entries.append(&mut gallery.entries);
                self.choose(self.gallery.entries.len() - 1);
            }
            opened => self.open_gallery(opened),
        }
    }

    /// Works out what this frame needs and takes what has come back; everything else waits for nobody.
    fn update(&mut self) {
        self.gpu.poll();
        if let Err(error) = self.gpu.check() {
            if matches!(error, lara_runtime::Error::DeviceLost(_)) {
                self.lost.get_or_insert(error.to_string());
            }
            self.messages.problem(error);
        }
        if self.lost.is_some() {
            return;
        }
        self.follow_training();
        let settled = self.inspector.settle();
        let fresh = self.messages.keep(settled).unwrap_or(false);
        self.image_is_stale |= fresh;
        if let Err(error) = self.run_inspector(if fresh { WARM_UP } else { 1 }) {
            self.messages.problem(error);
        }
    }

    /// A run's weights change under the inspector: its forward pass is run again with every step that was seen.
    fn follow_training(&mut self) {
        self.training.poll();
        let steps = self.training.history().steps();
        if let Some(model) = self.training.take_model() {
            self.open(Ok(Subject::live(model)));
        }
        if steps != self.seen_steps {
            self.seen_steps = steps;
            self.status.train_steps = steps;
            self.image_is_stale |= matches!(self.subject.weights, Weights::Live(_));
        }
    }

    /// `times` is how often an image is run: the time that is shown is that of the last run.
    fn run_inspector(&mut self, times: usize) -> Result<()> {
        let input = if self.image_is_stale { self.input() } else { None };
        let layer = self.settings.layer;
        let Some(inspector) = self.inspector.ready() else { return Ok(()) };
        let sizes = inspector.sizes();
        if let Some(input) = &input {
            for _ in 0..times {
                inspector.run(input, 0)?;
            }
            (self.image_is_stale, self.rows_are_stale) = (false, true);
            self.rollout.image_changed();
            self.compare.image_changed();
        }
        self.queries = self.focus.queries(sizes.prefix > 0, sizes.slots);
        let wanted = (self.queries.clone(), layer);
        if !self.image_is_stale && (self.rows_are_stale || self.looked != wanted) {
            let layers: Vec<usize> = (0..sizes.layers).collect();
            inspector.look(&self.queries, &layers, Some(layer))?;
            (self.rows_are_stale, self.looked) = (false, wanted);
            self.status.maps += 1;
            self.status.ready = true;
        }
        let news = inspector.news()?;
        self.probabilities = news.logits.map(|logits| softmax(&logits)).or(self.probabilities.take());
        self.forward_ms = news.forward_ms.or(self.forward_ms);
        self.rows = news.rows.or(self.rows.take());
        let waiting = inspector.is_waiting();
        if waiting {
            (self.repaint)();
        }
        Ok(())
    }

    /// The row that is in front, for labels: every token's weight. It may be a frame old.
    pub(crate) fn row(&self, slot: usize) -> Option<&[f32]> {
        let inspector = self.inspector()?;
        let (layer, values) = self.rows.as_ref()?;
        let tokens = inspector.sizes().tokens();
        let row = inspector.row(self.settings.head, slot)?;
        values.get(row * tokens..(row + 1) * tokens).filter(|_| *layer == self.settings.layer)
    }

    /// Whether a page is open.
    pub(crate) fn page(&self) -> Page {
        self.settings.page
    }
}
