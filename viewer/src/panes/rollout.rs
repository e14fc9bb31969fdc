//! Attention through all layers: rollout, and attention weighted with the gradient of a class.

use egui::{ComboBox, Rect, Sense, Slider, Ui, Vec2, WidgetInfo, vec2};
use lara_explain::{
    Factor, Inspector, MOST_TOKENS, MapSource, Matrices, NOT_SQUARE, Query, Relevance, ScaleEnd, Sizes,
};
use lara_models::Model;
use lara_runtime::maps::Fusion;
use lara_runtime::{Gpu, Tune};

use super::image::{mark, patch_rect, point_on};
use super::legend::{self, Ends, number};
use crate::context::Context;
use crate::error::Result;
use crate::job::{Job, Stage};
use crate::paint::{High, MapPaint};

/// The largest value over the smallest colour's, of a logarithmic scale.
const DECADES: f32 = 1000.0;

const FUSIONS: [(&str, Fusion); 3] = [("mean", Fusion::Mean), ("max", Fusion::Max), ("min", Fusion::Min)];

/// What is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum View {
    Rollout(Factor),
    /// Summed over the queries, layer by layer.
    Relevance,
}

/// What has to be compiled for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    /// N x N numbers a layer.
    Matrices(Factor, Fusion),
    /// The rollout in linear memory: heads averaged, nothing discarded.
    Linear,
    /// Gradient-weighted attention of every layer.
    Relevance,
    /// What this model has too many tokens for.
    Nothing,
}

/// What was compiled.
enum Engine {
    Matrices(Box<Matrices>),
    Linear(Box<Inspector>),
    Relevance(Box<Relevance>),
}

impl Engine {
    async fn new(gpu: &Gpu, tune: &Tune, subject: &Model, need: Need) -> lara_explain::Result<Option<Self>> {
        Ok(match need {
            Need::Matrices(factor, fusion) => {
                Some(Engine::Matrices(Box::new(Matrices::new(gpu, tune, subject, factor, fusion).await?)))
            }
            Need::Linear => {
                let inspector = Inspector::new(gpu, tune, subject, &subject.config, false).await?;
                Some(Engine::Linear(Box::new(inspector)))
            }
            Need::Relevance => Some(Engine::Relevance(Box::new(Relevance::new(gpu, tune, subject).await?))),
            Need::Nothing => None,
        })
    }

    fn run(&mut self, input: &[f32], class: usize) -> lara_explain::Result<()> {
        match self {
            Engine::Matrices(matrices) => matrices.run(input, class),
            Engine::Linear(inspector) => inspector.run(input, 0),
            Engine::Relevance(relevance) => relevance.run(input, class),
        }
    }

    fn look(&mut self, queries: &[Query], discard: f32) -> lara_explain::Result<()> {
        match self {
            Engine::Matrices(matrices) => matrices.look(queries, discard),
            Engine::Linear(inspector) => inspector.roll_out(queries).map(|_| ()),
            Engine::Relevance(_) => Ok(()),
        }
    }

    fn sizes(&self) -> Sizes {
        match self {
            Engine::Matrices(matrices) => matrices.sizes(),
            Engine::Linear(inspector) => inspector.sizes(),
            Engine::Relevance(relevance) => relevance.sizes(),
        }
    }

    /// The largest number of the rollout in front, if it has just come back.
    fn largest(&mut self) -> lara_explain::Result<Option<f32>> {
        let prefix = self.sizes().prefix;
        let largest = |row: &[f32]| row.iter().skip(prefix).copied().fold(0.0, f32::max);
        Ok(match self {
            Engine::Matrices(matrices) => Some(largest(matrices.row()?)),
            Engine::Linear(inspector) => inspector.news()?.rolled.as_deref().map(largest),
            Engine::Relevance(_) => None,
        })
    }

    fn is_waiting(&self) -> bool {
        match self {
            Engine::Matrices(matrices) => matrices.is_waiting(),
            Engine::Linear(inspector) => inspector.is_waiting(),
            Engine::Relevance(_) => false,
        }
    }

    /// Where the rollout in front lies, and its scale.
    fn rollout(&self) -> Option<(MapSource, ScaleEnd)> {
        match self {
            Engine::Matrices(matrices) => matrices.rollout(0),
            Engine::Linear(inspector) => inspector.rolled(0),
            Engine::Relevance(_) => None,
        }
    }
}

/// The page.
pub(crate) struct RolloutPane {
    view: View,
    fusion: Fusion,
    discard: f32,
    /// The class asked about; None: the most probable one.
    class: Option<usize>,
    engine: Stage<Option<Engine>>,
    /// What the engine was compiled for.
    compiled: Option<Need>,
    /// The image that it ran on, by its count, and the class asked about.
    run_for: Option<(u64, usize)>,
    looked: Option<(Vec<Query>, f32)>,
    largest: f32,
}

impl Default for RolloutPane {
    fn default() -> Self {
        RolloutPane {
            view: View::Rollout(Factor::Attention),
            fusion: Fusion::Mean,
            discard: 0.0,
            class: None,
            engine: Stage::Empty,
            compiled: None,
            run_for: None,
            looked: None,
            largest: 0.0,
        }
    }
}

impl RolloutPane {
    /// Another model: everything is compiled again when the page is opened.
    pub(crate) fn reset(&mut self) {
        let (view, fusion, discard) = (self.view, self.fusion, self.discard);
        *self = RolloutPane { view, fusion, discard, ..RolloutPane::default() };
    }

    /// Something is still being compiled or worked out.
    pub(crate) fn is_busy(&self) -> bool {
        match &self.engine {
            Stage::Empty => self.compiled.is_none(),
            Stage::Coming(_) => true,
            Stage::Ready(None) => false,
            Stage::Ready(Some(engine)) => engine.is_waiting() || self.run_for.is_none(),
        }
    }

    /// Draws the page.
    pub(crate) fn show(&mut self, cx: &mut Context, ui: &mut Ui) {
        let Some(sizes) = cx.sizes() else {
            return compiling(ui);
        };
        let rolls = cx.inspector().is_some_and(Inspector::rolls);
        let need = self.need(sizes.tokens(), rolls);
        let updated = self.update(cx, need);
        cx.messages.keep(updated);
        self.controls(cx, ui, need);
        ui.separator();
        // What was clicked counts at once.
        let need = self.need(sizes.tokens(), rolls);
        let height = ui.available_height();
        egui::ScrollArea::vertical().auto_shrink(false).show(ui, |ui| {
            if self.engine.is_coming() {
                compiling(ui);
            }
            let why_not = match self.view {
                View::Rollout(_) if !rolls => Some(no_rollout()),
                View::Rollout(_) if sizes.tokens() > MOST_TOKENS => Some(limits(sizes.tokens())),
                _ => None,
            };
            if let Some(sentence) = why_not {
                ui.weak(sentence);
            }
            match need {
                Need::Matrices(..) | Need::Linear => {
                    let above = ui.cursor().top() - ui.max_rect().top();
                    self.large(cx, ui, sizes, height - above);
                }
                Need::Relevance => self.layers(cx, ui, sizes),
                Need::Nothing => (),
            }
        });
    }

    /// What the chosen view needs of a model with so many tokens, whose blocks' matrices can be multiplied or not.
    fn need(&self, tokens: usize, rolls: bool) -> Need {
        match self.view {
            View::Relevance => Need::Relevance,
            View::Rollout(_) if !rolls => Need::Nothing,
            View::Rollout(factor) if tokens <= MOST_TOKENS => Need::Matrices(factor, self.fusion),
            View::Rollout(Factor::Attention) => Need::Linear,
            View::Rollout(Factor::Gradient) => Need::Nothing,
        }
    }

    fn engine(&self) -> Option<&Engine> {
        if let Stage::Ready(engine) = &self.engine { engine.as_ref() } else { None }
    }

    fn update(&mut self, cx: &mut Context, need: Need) -> Result<()> {
        if self.compiled != Some(need) {
            let (gpu, tune, subject) = (cx.gpu.clone(), cx.tune.clone(), cx.subject.clone());
            let work = move || async move { Engine::new(&gpu, &tune, &subject, need).await };
            self.engine = match need {
                Need::Nothing => Stage::Ready(None),
                _ => Stage::Coming(Job::spawn(cx.repaint.clone(), work)),
            };
            (self.compiled, self.run_for, self.looked) = (Some(need), None, None);
        }
        self.engine.settle()?;
        let class = self.class.or(cx.best().map(|best| best.0)).unwrap_or(0);
        let wanted = Some((cx.looking.images, class));
        let is_stale = self.run_for != wanted;
        let input = if is_stale && self.engine().is_some() { cx.input() } else { None };
        let Some(Some(engine)) = self.engine.ready() else { return Ok(()) };
        if let Some(input) = &input {
            engine.run(input, class)?;
            (self.run_for, self.looked) = (wanted, None);
        }
        let looked = Some((cx.queries(engine.sizes()), self.discard));
        if self.run_for.is_some() && self.looked != looked {
            if let Some((queries, discard)) = &looked {
                engine.look(queries, *discard)?;
            }
            self.looked = looked;
        }
        if let Some(largest) = engine.largest()? {
            self.largest = largest;
        }
        if engine.is_waiting() {
            (cx.repaint)();
        }
        Ok(())
    }

    fn controls(&mut self, cx: &Context, ui: &mut Ui, need: Need) {
        ui.horizontal_wrapped(|ui| {
            ui.selectable_value(&mut self.view, View::Rollout(Factor::Attention), "Rollout").on_hover_text(
                "Attention multiplied through the layers, with the residual connection (Abnar and Zuidema 2020)",
            );
            ui.selectable_value(&mut self.view, View::Rollout(Factor::Gradient), "Gradient-weighted rollout")
                .on_hover_text("Each layer's attention times its gradient for a class, then rolled out");
            ui.selectable_value(&mut self.view, View::Relevance, "Gradient-weighted, by layer")
                .on_hover_text("Attention times its gradient, summed over all queries: linear time, no matrix");
        });
        ui.horizontal_wrapped(|ui| {
            if let Need::Matrices(..) = need {
                let chosen = FUSIONS.iter().find(|(_, fusion)| *fusion == self.fusion).map_or("", |(name, _)| name);
                ComboBox::from_label("of heads").width(70.0).selected_text(chosen).show_ui(ui, |ui| {
                    for (name, fusion) in FUSIONS {
                        ui.selectable_value(&mut self.fusion, fusion, name);
                    }
                });
                ui.add(Slider::new(&mut self.discard, 0.0..=0.99).text("discard"))
                    .on_hover_text("Share of each layer's lowest entries that are set to 0");
            }
            if matches!(need, Need::Relevance | Need::Matrices(Factor::Gradient, _)) {
                let shown = self.class.map_or_else(|| "most probable".to_owned(), |class| cx.class_name(class));
                ComboBox::from_label("class").width(110.0).selected_text(shown).show_ui(ui, |ui| {
                    ui.selectable_value(&mut self.class, None, "most probable");
                    for class in 0..cx.subject.classes.len() {
                        ui.selectable_value(&mut self.class, Some(class), cx.class_name(class));
                    }
                });
            }
        });
    }

    /// The rollout of the query in front, over the image.
    fn large(&self, cx: &mut Context, ui: &mut Ui, sizes: Sizes, height: f32) {
        let space = vec2(ui.available_width(), (height - 64.0).max(160.0));
        let size = cx.fit(space);
        let (rect, response) = ui.allocate_exact_size(size, Sense::click());
        response.widget_info(|| WidgetInfo::labeled(egui::Role::Image, true, "Rollout over the image"));
        let rect = cx.draw_image(ui, cx.picture, rect).unwrap_or(rect);
        point_on(cx, ui, &response, rect, sizes, sizes.query_grid);
        let source = self.looked.as_ref().and_then(|_| self.engine()?.rollout());
        let is_weight = self.view == View::Rollout(Factor::Attention);
        ui.painter().extend(source.map(|source| overlay(cx, rect, sizes, source, is_weight)));
        let query = cx.focus.current(sizes.prefix > 0);
        if let Query::Patch(patch) = query {
            mark(ui, patch_rect(rect, sizes.query_grid, patch), egui::Color32::WHITE);
        }
        ui.label(format!("what flows into the {} through {} layers", query.label(sizes.query_grid), sizes.layers));
        let high = self.largest;
        let ends = match is_weight {
            true => Ends::of(&cx.settings, high),
            false if cx.settings.log_scale => Ends::Decades(high),
            false => Ends::Zero(high),
        };
        legend::show(ui, cx.settings.colormap, ends, size.x.max(240.0));
    }

    /// Gradient-weighted attention of every layer, each with its own scale.
    fn layers(&self, cx: &mut Context, ui: &mut Ui, sizes: Sizes) {
        ui.label(
            "where each layer's attention speaks for the class, all queries together (each layer on its own scale)",
        );
        let columns = sizes.layers.min(3);
        let side = (ui.available_width() / columns as f32 - 12.0).clamp(110.0, 300.0);
        let all: Vec<usize> = (0..sizes.layers).collect();
        for chunk in all.chunks(columns) {
            ui.horizontal_top(|ui| {
                for &layer in chunk {
                    ui.vertical(|ui| self.layer(cx, ui, layer, side));
                }
            });
        }
        if let Some((_, class)) = self.run_for {
            let probability = cx.looking.probabilities.as_ref().and_then(|p| p.get(class)).copied().unwrap_or(0.0);
            ui.weak(format!("class {}, probability {}", cx.class_name(class), number(probability as f32)));
        }
    }

    fn layer(&self, cx: &mut Context, ui: &mut Ui, layer: usize, side: f32) {
        let (rect, response) = ui.allocate_exact_size(cx.fit(Vec2::splat(side)), Sense::hover());
        let name = cx.layer_name(layer);
        response.widget_info(|| WidgetInfo::labeled(egui::Role::Image, true, &name));
        let rect = cx.draw_image(ui, cx.picture, rect).unwrap_or(rect);
        if let (Some(Engine::Relevance(relevance)), Some(_)) = (self.engine(), self.run_for) {
            let block = relevance.block(layer);
            let row = block.and_then(|block| block.row(cx.settings.head, 0));
            let source = row.and_then(|row| relevance.source(layer, row));
            ui.painter().extend(block.zip(source).map(|(block, source)| overlay(cx, rect, block, source, false)));
        }
        ui.small(name);
    }
}

fn compiling(ui: &mut Ui) {
    ui.horizontal(|ui| {
        ui.spinner();
        ui.label("compiling …");
    });
}

/// What is told of a pyramid, and what it has instead.
fn no_rollout() -> String {
    format!(
        "There is no rollout here: {NOT_SQUARE}. \"Gradient-weighted, by layer\" shows all of them, each on its own grid, and \
         the page Look single rows."
    )
}

/// What is told where there are too many tokens for matrices.
fn limits(tokens: usize) -> String {
    format!(
        "This model has {tokens} tokens. The rollout of attention, heads averaged, is worked out for any number of them; the \
         largest or smallest head, discarding and the gradient-weighted rollout need N x N matrices and are limited to \
         {MOST_TOKENS} tokens."
    )
}

/// A map over the image; what are no weights are no multiples of the uniform one.
fn overlay(
    cx: &Context,
    rect: Rect,
    sizes: Sizes,
    (values, own): (MapSource, ScaleEnd),
    is_weight: bool,
) -> egui::Shape {
    let map = cx.map(values, own.clone(), sizes);
    let plain = MapPaint { high: High::Of(own), log_span: map.log_span.map(|_| DECADES), ..map.clone() };
    cx.painter.shape(rect, if is_weight { map } else { plain })
}
