//! Attention through all layers: rollout, and attention weighted with the gradient of a class.

use egui::{Color32, ComboBox, Pos2, Rect, Sense, Slider, Ui, Vec2, WidgetInfo};
use lara_explain::{Factor, Inspector, MOST_TOKENS, MapSource, Matrices, Query, Relevance, ScaleEnd, Sizes, Subject};
use lara_models::top;
use lara_runtime::maps::Fusion;
use lara_runtime::{Gpu, Tune};

use super::image::{mark_query, point};
use super::legend::{self, Ends, number};
use crate::app::{App, Stage};
use crate::error::Result;
use crate::job::Job;
use crate::paint::MapPaint;

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
    async fn new(gpu: &Gpu, tune: &Tune, subject: &Subject, need: Need) -> lara_explain::Result<Option<Self>> {
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

/// The page's state.
pub(crate) struct RolloutPane {
    view: View,
    fusion: Fusion,
    discard: f32,
    /// The class asked about; None: the most probable one.
    class: Option<usize>,
    engine: Stage<Option<Engine>>,
    /// What the engine was compiled for.
    compiled: Option<Need>,
    run_for: Option<usize>,
    looked: Option<(Vec<Query>, f32)>,
    image_is_stale: bool,
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
            image_is_stale: true,
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

    /// Another image, or other weights.
    pub(crate) fn image_changed(&mut self) {
        self.image_is_stale = true;
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

    /// What the chosen view needs of a model with so many tokens.
    fn need(&self, tokens: usize) -> Need {
        match self.view {
            View::Relevance => Need::Relevance,
            View::Rollout(factor) if tokens <= MOST_TOKENS => Need::Matrices(factor, self.fusion),
            View::Rollout(Factor::Attention) => Need::Linear,
            View::Rollout(Factor::Gradient) => Need::Nothing,
        }
    }

    fn engine(&self) -> Option<&Engine> {
        if let Stage::Ready(engine) = &self.engine { engine.as_ref() } else { None }
    }
}

/// Draws the page.
pub(crate) fn show(app: &mut App, ui: &mut Ui) {
    if let Err(error) = update(app) {
        app.messages.problem(error);
    }
    controls(app, ui);
    ui.separator();
    egui::ScrollArea::vertical().auto_shrink(false).show(ui, |ui| {
        if app.rollout.engine.is_coming() {
            ui.horizontal(|ui| {
                ui.spinner();
                ui.label("compiling …");
            });
        }
        let tokens = tokens(app);
        if let (View::Rollout(_), true) = (app.rollout.view, tokens > MOST_TOKENS) {
            ui.weak(limits(tokens));
        }
        match app.rollout.need(tokens) {
            Need::Matrices(..) | Need::Linear => large(app, ui),
            Need::Relevance => layers(app, ui),
            Need::Nothing => (),
        }
    });
}

/// Tokens of the model that is open.
fn tokens(app: &App) -> usize {
    Sizes::of(&app.subject.config).tokens()
}

/// What is told where there are too many tokens for matrices.
fn limits(tokens: usize) -> String {
    format!(
        "This model has {tokens} tokens. The rollout of attention, heads averaged, is worked out for any number of them; the \
         largest or smallest head, discarding and the gradient-weighted rollout need N x N matrices and are limited to \
         {MOST_TOKENS} tokens."
    )
}

fn update(app: &mut App) -> Result<()> {
    let need = app.rollout.need(tokens(app));
    if app.rollout.compiled != Some(need) {
        let (gpu, tune, subject) = (app.gpu.clone(), app.tune.clone(), app.subject.clone());
        let work = move || async move { Engine::new(&gpu, &tune, &subject, need).await };
        let pane = &mut app.rollout;
        pane.engine = match need {
            Need::Nothing => Stage::Ready(None),
            _ => Stage::Coming(Job::spawn(app.repaint.clone(), work)),
        };
        (pane.compiled, pane.run_for, pane.looked) = (Some(need), None, None);
    }
    app.rollout.engine.settle()?;
    let likely = app.probabilities.as_deref().and_then(|p| top(p, 1).first().map(|best| best.0));
    let class = app.rollout.class.or(likely).unwrap_or(0);
    let has_class = app.subject.config.model.layer(0).prefix > 0;
    let is_stale = app.rollout.image_is_stale || app.rollout.run_for != Some(class);
    let input = if is_stale && app.rollout.engine().is_some() { app.input() } else { None };
    let pane = &mut app.rollout;
    let Some(Some(engine)) = pane.engine.ready() else { return Ok(()) };
    if let Some(input) = &input {
        engine.run(input, class)?;
        (pane.image_is_stale, pane.run_for, pane.looked) = (false, Some(class), None);
    }
    let queries = app.focus.queries(has_class, engine.sizes().slots);
    let looked = Some((queries, pane.discard));
    if pane.run_for.is_some() && pane.looked != looked {
        if let Some((queries, discard)) = &looked {
            engine.look(queries, *discard)?;
        }
        pane.looked = looked;
    }
    if let Some(largest) = engine.largest()? {
        pane.largest = largest;
    }
    if engine.is_waiting() {
        (app.repaint)();
    }
    Ok(())
}

fn controls(app: &mut App, ui: &mut Ui) {
    let classes = app.subject.classes.clone();
    let need = app.rollout.need(tokens(app));
    let pane = &mut app.rollout;
    ui.horizontal_wrapped(|ui| {
        ui.selectable_value(&mut pane.view, View::Rollout(Factor::Attention), "Rollout").on_hover_text(
            "Attention multiplied through the layers, with the residual connection (Abnar and Zuidema 2020)",
        );
        ui.selectable_value(&mut pane.view, View::Rollout(Factor::Gradient), "Gradient-weighted rollout")
            .on_hover_text("Each layer's attention times its gradient for a class, then rolled out");
        ui.selectable_value(&mut pane.view, View::Relevance, "Gradient-weighted, by layer")
            .on_hover_text("Attention times its gradient, summed over all queries: linear time, no matrix");
    });
    ui.horizontal_wrapped(|ui| {
        if let Need::Matrices(..) = need {
            let chosen = FUSIONS.iter().find(|(_, fusion)| *fusion == pane.fusion).map_or("", |(name, _)| name);
            ComboBox::from_label("of heads").width(70.0).selected_text(chosen).show_ui(ui, |ui| {
                for (name, fusion) in FUSIONS {
                    ui.selectable_value(&mut pane.fusion, fusion, name);
                }
            });
            ui.add(Slider::new(&mut pane.discard, 0.0..=0.99).text("discard"))
                .on_hover_text("Share of each layer's lowest entries that are set to 0");
        }
        if matches!(need, Need::Relevance | Need::Matrices(Factor::Gradient, _)) {
            let name = |class: usize| classes.get(class).cloned().unwrap_or_else(|| class.to_string());
            let shown = pane.class.map_or_else(|| "most probable".to_owned(), name);
            ComboBox::from_label("class").width(110.0).selected_text(shown).show_ui(ui, |ui| {
                ui.selectable_value(&mut pane.class, None, "most probable");
                for class in 0..classes.len() {
                    ui.selectable_value(&mut pane.class, Some(class), name(class));
                }
            });
        }
    });
}

/// The rollout of the query in front, over the image.
fn large(app: &mut App, ui: &mut Ui) {
    let side = ui.available_width().min(ui.available_height() - 64.0).clamp(160.0, 640.0);
    let (rect, response) = ui.allocate_exact_size(Vec2::splat(side), Sense::click());
    response.widget_info(|| WidgetInfo::labeled(egui::Role::Image, true, "Rollout over the image"));
    picture(app, ui, rect);
    let Some(sizes) = app.inspector().map(|inspector| inspector.sizes()) else { return };
    point(app, ui, &response, rect, sizes);
    let source = app.rollout.looked.as_ref().and_then(|_| app.rollout.engine()?.rollout());
    ui.painter().extend(source.map(|(values, scale)| overlay(app, rect, values, scale, app.settings.opacity)));
    let query = app.focus.current(sizes.prefix > 0);
    mark_query(app, ui, rect, sizes);
    ui.label(format!("what flows into the {} through {} layers", query.label(sizes.grid), sizes.layers));
    let high = app.rollout.largest;
    let ends = if app.settings.log_scale { Ends::Decades(high) } else { Ends::Zero(high) };
    legend::show(ui, app.settings.colormap, ends, side);
}

/// Gradient-weighted attention of every layer, each with its own scale.
fn layers(app: &mut App, ui: &mut Ui) {
    let Some(sizes) = app.inspector().map(|inspector| inspector.sizes()) else { return };
    ui.label("where each layer's attention speaks for the class, all queries together (each layer on its own scale)");
    let columns = sizes.layers.min(3);
    let side = (ui.available_width() / columns as f32 - 12.0).clamp(110.0, 300.0);
    let row = match app.settings.head {
        lara_explain::Head::Mean => sizes.heads,
        lara_explain::Head::One(head) => head,
    };
    let all: Vec<usize> = (0..sizes.layers).collect();
    for chunk in all.chunks(columns) {
        ui.horizontal_top(|ui| {
            for &layer in chunk {
                ui.vertical(|ui| {
                    let (rect, response) = ui.allocate_exact_size(Vec2::splat(side), Sense::hover());
                    let name = format!("layer {layer}");
                    response.widget_info(|| WidgetInfo::labeled(egui::Role::Image, true, &name));
                    picture(app, ui, rect);
                    let source = match app.rollout.engine() {
                        Some(Engine::Relevance(relevance)) if app.rollout.run_for.is_some() => {
                            relevance.source(layer, row)
                        }
                        _ => None,
                    };
                    let shape = source.map(|(values, scale)| overlay(app, rect, values, scale, app.settings.opacity));
                    ui.painter().extend(shape);
                    ui.small(name);
                });
            }
        });
    }
    if let Some(class) = app.rollout.run_for {
        let name = app.subject.classes.get(class).cloned().unwrap_or_else(|| class.to_string());
        let p = app.probabilities.as_ref().and_then(|p| p.get(class)).copied().unwrap_or(0.0);
        ui.weak(format!("class {name}, probability {}", number(p as f32)));
    }
}

fn picture(app: &mut App, ui: &Ui, rect: Rect) {
    if let Some(texture) = app.texture(ui.ctx(), app.picture) {
        let uv = Rect::from_min_max(Pos2::ZERO, Pos2::new(1.0, 1.0));
        ui.painter().image(texture.id(), rect, uv, Color32::WHITE);
    }
}

fn overlay(app: &App, rect: Rect, values: MapSource, scale: ScaleEnd, opacity: f32) -> egui::Shape {
    let grid = app.inspector().map_or([1, 1], |inspector| inspector.sizes().grid);
    let settings = &app.settings;
    let map = MapPaint {
        values,
        minus: None,
        scale,
        grid,
        colormap: settings.colormap,
        opacity,
        log_scale: settings.log_scale,
    };
    app.painter.shape(rect, map)
}
