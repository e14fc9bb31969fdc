//! What the panes share: the device, what is looked at and how, and what they ask of the program.

use std::ops::Range;

use egui::{Rect, Ui, Vec2};
use lara_explain::{Inspector, MapSource, Query, ScaleEnd, Sizes, carry};
use lara_models::{Model, Weights, imagenet, top};
use lara_runtime::{Gpu, Tune};

use crate::canvas::{self, Textures};
use crate::error::Result;
use crate::job::{Job, Repaint};
use crate::looking::Looking;
use crate::messages::Messages;
use crate::paint::{High, MapPaint, Painter};
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
    textures: Textures,
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
            subject: named(subject),
            gallery,
            picture: 0,
            looking: Looking::default(),
            restart: None,
            models: 0,
            textures: Textures::default(),
        };
        cx.compile();
        cx
    }

    /// Opens a model; what cannot be opened is said and the old one stays.
    pub(crate) fn open<E: std::fmt::Display>(&mut self, subject: Result<Model, E>) {
        let Some(subject) = self.messages.keep(subject) else { return };
        if subject.image_shape() != self.gallery.shape {
            // A model that takes no pictures gets none.
            self.gallery = Gallery::bundled(&subject).unwrap_or_else(|_| Gallery::empty(subject.image_shape()));
            self.picture = 0;
            self.textures.clear();
        } else if subject.classes != self.subject.classes {
            // Labels count the classes of the model before.
            self.gallery.entries.iter_mut().for_each(|entry| entry.label = None);
        }
        self.subject = named(subject);
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
        let decoded = self.textures.look_at(&self.gallery, self.picture, &self.repaint);
        self.messages.keep(decoded);
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

    /// Draws image number `index` into `rect`, as large as fits, and says where what the model sees of it lies; None if there
    /// is no such image.
    pub(crate) fn draw_image(&mut self, ui: &Ui, index: usize, rect: Rect) -> Option<Rect> {
        self.textures.draw(ui, &self.gallery, index, rect).map(|place| place.seen)
    }

    /// Draws image number `index` into `rect` as one of many.
    pub(crate) fn draw_thumbnail(&mut self, ui: &Ui, index: usize, rect: Rect) {
        self.textures.draw_small(ui, &self.gallery, index, rect);
    }

    /// The size of the image that is looked at where it is as large as `space` allows.
    pub(crate) fn fit(&self, space: Vec2) -> Vec2 {
        canvas::fit(&self.gallery, self.picture, space)
    }

    /// The size of a map alone, as wide as `width` and as high as it would be over the image.
    pub(crate) fn map_size(&self, width: f32) -> Vec2 {
        let unit = Rect::from_min_size(egui::Pos2::ZERO, Vec2::splat(width.max(1.0)));
        let seen = canvas::place(&self.gallery, self.picture, unit).seen.size();
        let height = width * (seen.y / seen.x.max(1e-3)).clamp(0.25, 4.0);
        egui::vec2(width, height)
    }

    /// Whether the image that is looked at is still being decoded.
    pub(crate) fn is_decoding(&self) -> bool {
        self.textures.is_coming()
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

    /// The blocks of each stage; a model that is no pyramid has one.
    pub(crate) fn stages(&self) -> Vec<Range<usize>> {
        self.inspector().map(|inspector| Sizes::stages(&inspector.blocks())).unwrap_or_default()
    }

    /// `layer 3`, with its stage where there are several.
    pub(crate) fn layer_name(&self, layer: usize) -> String {
        let stages = self.stages();
        match stages.iter().position(|stage| stage.contains(&layer)) {
            Some(stage) if stages.len() > 1 => format!("stage {} · layer {layer}", stage + 1),
            _ => format!("layer {layer}"),
        }
    }

    /// Rows and columns of the queries of the block that is looked at.
    pub(crate) fn query_grid(&self) -> [usize; 2] {
        self.block().map_or([1, 1], |block| block.query_grid)
    }

    /// A query as one of the block that is looked at. Otherwise queries count on the first block's grid.
    pub(crate) fn in_block(&self, query: Query) -> Query {
        self.sizes().map_or(query, |sizes| carry(query, sizes.query_grid, self.query_grid()))
    }

    /// A query of the block that is looked at on the first block's grid.
    pub(crate) fn query_of_block(&self, query: Query) -> Query {
        self.sizes().map_or(query, |sizes| carry(query, self.query_grid(), sizes.query_grid))
    }

    /// How the rows of weights of a block are painted.
    pub(crate) fn map(&self, values: MapSource, own: ScaleEnd, block: Sizes) -> MapPaint {
        let settings = &self.settings;
        let high = if settings.uniform { High::Is(settings.times / block.tokens() as f32) } else { High::Of(own) };
        MapPaint {
            values,
            minus: None,
            high,
            grid: block.grid,
            colormap: settings.colormap,
            opacity: settings.opacity,
            log_span: settings.log_scale.then(|| settings.span()),
        }
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

/// The model with ImageNet-1k's names for a thousand classes that have none.
fn named(mut subject: Model) -> Model {
    let is_numbered = subject.classes.iter().enumerate().all(|(class, name)| *name == class.to_string());
    if is_numbered && subject.classes.len() == imagenet::CLASSES {
        subject.classes = imagenet::classes();
    }
    subject
}
