//! What the panes share: the device, what is looked at and how, and what they ask of the program.

use std::collections::HashMap;

use egui::{Color32, Pos2, Rect, TextureHandle, TextureOptions, Ui};
use lara_explain::{Inspector, Query, Sizes};
use lara_models::{Model, Weights, top};
use lara_runtime::{Gpu, Tune};

use crate::error::Result;
use crate::job::{Job, Repaint};
use crate::looking::Looking;
use crate::messages::Messages;
use crate::paint::Painter;
use crate::pictures::Gallery;
use crate::settings::{Focus, Settings};

/// Handed to every pane: what it may read, change and ask for. It knows no pane.
pub(crate) struct Context {
    pub(crate) gpu: Gpu,
    pub(crate) tune: Tune,
    pub(crate) painter: Painter,
    pub(crate) repaint: Repaint,
    pub(crate) settings: Settings,
    pub(crate) focus: Focus,
    pub(crate) messages: Messages,
    pub(crate) subject: Model,
    pub(crate) gallery: Gallery,
    /// Number of the image that is looked at.
    pub(crate) picture: usize,
    pub(crate) looking: Looking,
    /// The adapter that the user asked for.
    pub(crate) restart: Option<String>,
    /// How often a model was opened: whoever holds plans of one compares.
    pub(crate) models: u64,
    textures: HashMap<usize, TextureHandle>,
}

impl Context {
    /// Around a model and images; the model is compiled at once.
    pub(crate) fn new(
        gpu: &Gpu,
        tune: Tune,
        painter: Painter,
        repaint: Repaint,
        settings: Settings,
        (subject, gallery): (Model, Gallery),
    ) -> Self {
        let mut cx = Context {
            gpu: gpu.clone(),
            tune,
            painter,
            repaint,
            settings,
            focus: Focus::default(),
            messages: Messages::default(),
            subject,
            gallery,
            picture: 0,
            looking: Looking::default(),
            restart: None,
            models: 0,
            textures: HashMap::new(),
        };
        cx.compile();
        cx
    }

    /// Opens a model; what cannot be opened is said and the old one stays.
    pub(crate) fn open<E: std::fmt::Display>(&mut self, subject: Result<Model, E>) {
        let Some(subject) = self.messages.keep(subject) else { return };
        if subject.image_shape() != self.gallery.shape {
            self.gallery = Gallery::empty(subject.image_shape());
            self.picture = 0;
            self.textures.clear();
        }
        self.subject = subject;
        self.compile();
    }

    /// Shows these images.
    pub(crate) fn open_gallery(&mut self, gallery: Result<Gallery>) {
        let Some(gallery) = self.messages.keep(gallery) else { return };
        self.gallery = gallery;
        self.textures.clear();
        self.choose(0);
    }

    /// Compiles the subject for looking at.
    fn compile(&mut self) {
        let (gpu, tune, subject) = (self.gpu.clone(), self.tune.clone(), self.subject.clone());
        let work = move || async move { Inspector::new(&gpu, &tune, &subject, &subject.config, false).await };
        self.looking.begin(Job::spawn(self.repaint.clone(), work));
        self.settings.layer = self.settings.layer.min(self.subject.config.model.depth().saturating_sub(1));
        self.models += 1;
    }

    /// Shows image number `index`.
    pub(crate) fn choose(&mut self, index: usize) {
        self.picture = index;
        self.looking.choose_image();
    }

    /// A run has taken steps: if its model is looked at, the image is run again.
    pub(crate) fn follow_run(&mut self) {
        if matches!(self.subject.weights, Weights::Live(_)) {
            self.looking.change_weights();
        }
    }

    /// Works out what this frame needs of the model that is looked at, and takes what has come back.
    pub(crate) fn update(&mut self) {
        let settled = self.looking.settle();
        self.messages.keep(settled);
        let image = if self.looking.wants_image() { self.input() } else { None };
        let focus = &self.focus;
        let queries = |has_class, slots| focus.queries(has_class, slots);
        let updated = self.looking.update(image.as_deref(), queries, self.settings.layer);
        if self.messages.keep(updated).unwrap_or(false) {
            (self.repaint)();
        }
    }

    /// The normalised image, if there is one.
    pub(crate) fn input(&mut self) -> Option<Vec<f32>> {
        let pixels = self.gallery.entries.get(self.picture)?.pixels.clone();
        self.messages.keep(self.subject.normalise(&pixels))
    }

    /// Draws image number `index` into `rect`; false if there is none.
    pub(crate) fn draw_image(&mut self, ui: &Ui, index: usize, rect: Rect) -> bool {
        let Some(entry) = self.gallery.entries.get(index) else { return false };
        let image = || self.gallery.color_image(entry);
        let load = || ui.ctx().load_texture(format!("image {index}"), image(), TextureOptions::NEAREST);
        let texture = self.textures.entry(index).or_insert_with(load);
        let uv = Rect::from_min_max(Pos2::ZERO, Pos2::new(1.0, 1.0));
        ui.painter().image(texture.id(), rect, uv, Color32::WHITE);
        true
    }

    /// The model that is looked at, once it is compiled.
    pub(crate) fn inspector(&self) -> Option<&Inspector> {
        self.looking.inspector()
    }

    /// Its sizes, those of the first block: queries count on its grid.
    pub(crate) fn sizes(&self) -> Option<Sizes> {
        self.inspector().map(Inspector::sizes)
    }

    /// Sizes of the block that is looked at.
    pub(crate) fn block(&self) -> Option<Sizes> {
        self.inspector()?.block(self.settings.layer)
    }

    /// The row that is in front, for labels: every token's weight. It may be a frame old.
    pub(crate) fn row(&self, slot: usize) -> Option<&[f32]> {
        self.looking.row(self.settings.layer, self.settings.head, slot)
    }

    /// Queries in front: the current one and those that are pinned.
    pub(crate) fn queries(&self, sizes: Sizes) -> Vec<Query> {
        self.focus.queries(sizes.prefix > 0, sizes.slots)
    }

    /// What the image is taken for: class and probability, once they are known.
    pub(crate) fn best(&self) -> Option<(usize, f64)> {
        self.looking.probabilities.as_deref().and_then(|p| top(p, 1).first().copied())
    }

    /// Name of a class; its number where it has none.
    pub(crate) fn class_name(&self, class: usize) -> String {
        self.subject.classes.get(class).cloned().unwrap_or_else(|| class.to_string())
    }
}
