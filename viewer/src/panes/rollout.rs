//! Attention through all layers: rollout, and attention weighted with the gradient of a class.

use egui::{Color32, ComboBox, Pos2, Rect, Sense, Slider, Ui, Vec2, WidgetInfo};
use lara_models::top;
use lara_runtime::maps::Fusion;

use super::image::{patch_rect, point};
use super::legend::{self, Ends, number};
use crate::app::{App, Stage};
use crate::error::Result;
use crate::inspect::{Factor, Matrices};
use crate::job::Job;
use crate::maps::Query;
use crate::paint::{MapPaint, MapSource, Scale};

const FUSIONS: [(&str, Fusion); 3] = [("mean", Fusion::Mean), ("max", Fusion::Max), ("min", Fusion::Min)];

/// What is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum View {
    Rollout(Factor),
    /// Summed over the queries, layer by layer.
    Relevance,
}

/// The page's state.
pub(crate) struct RolloutPane {
    view: View,
    fusion: Fusion,
    discard: f32,
    /// The class asked about; None: the most probable one.
    class: Option<usize>,
    matrices: Stage<Matrices>,
    /// What the matrices were compiled for.
    compiled: Option<(Factor, Fusion)>,
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
            matrices: Stage::Empty,
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
        match &self.matrices {
            Stage::Empty => self.compiled.is_none(),
            Stage::Coming(_) => true,
            Stage::Ready(matrices) => matrices.is_waiting() || self.run_for.is_none(),
        }
    }

    fn factor(&self) -> Factor {
        match self.view {
            View::Rollout(factor) => factor,
            View::Relevance => Factor::Gradient,
        }
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
        if app.rollout.matrices.is_coming() {
            ui.horizontal(|ui| {
                ui.spinner();
                ui.label("compiling …");
            });
        }
        match app.rollout.view {
            View::Rollout(_) => large(app, ui),
            View::Relevance => layers(app, ui),
        }
    });
}

fn update(app: &mut App) -> Result<()> {
    let wanted = (app.rollout.factor(), app.rollout.fusion);
    if app.rollout.compiled != Some(wanted) {
        let (gpu, tune, subject, (factor, fusion)) = (app.gpu.clone(), app.tune.clone(), app.subject.clone(), wanted);
        let work = move || async move { Matrices::new(&gpu, &tune, &subject, factor, fusion).await };
        let pane = &mut app.rollout;
        pane.matrices = Stage::Coming(Job::spawn(app.repaint.clone(), work));
        (pane.compiled, pane.run_for, pane.looked) = (Some(wanted), None, None);
    }
    app.rollout.matrices.settle()?;
    let likely = app.probabilities.as_deref().and_then(|p| top(p, 1).first().map(|best| best.0));
    let class = app.rollout.class.or(likely).unwrap_or(0);
    let has_class = app.subject.config.model.class_token;
    let is_stale = app.rollout.image_is_stale || app.rollout.run_for != Some(class);
    let input = if is_stale && app.rollout.matrices.ready().is_some() { app.input() } else { None };
    let pane = &mut app.rollout;
    let Some(matrices) = pane.matrices.ready() else { return Ok(()) };
    if let Some(input) = &input {
        matrices.run(input, class)?;
        (pane.image_is_stale, pane.run_for, pane.looked) = (false, Some(class), None);
    }
    let queries = app.focus.queries(has_class, matrices.sizes().slots);
    let looked = Some((queries, pane.discard));
    if pane.run_for.is_some() && pane.looked != looked {
        if let Some((queries, discard)) = &looked {
            matrices.look(queries, *discard)?;
        }
        pane.looked = looked;
    }
    let prefix = matrices.sizes().prefix;
    pane.largest = matrices.row()?.iter().skip(prefix).copied().fold(0.0, f32::max);
    if matrices.is_waiting() {
        (app.repaint)();
    }
    Ok(())
}

fn controls(app: &mut App, ui: &mut Ui) {
    let classes = app.subject.classes.clone();
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
        if let View::Rollout(_) = pane.view {
            let chosen = FUSIONS.iter().find(|(_, fusion)| *fusion == pane.fusion).map_or("", |(name, _)| name);
            ComboBox::from_label("of heads").width(70.0).selected_text(chosen).show_ui(ui, |ui| {
                for (name, fusion) in FUSIONS {
                    ui.selectable_value(&mut pane.fusion, fusion, name);
                }
            });
            ui.add(Slider::new(&mut pane.discard, 0.0..=0.99).text("discard"))
                .on_hover_text("Share of each layer's lowest entries that are set to 0");
        }
        if pane.factor() == Factor::Gradient {
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
    let source = match &app.rollout.matrices {
        Stage::Ready(matrices) if app.rollout.looked.is_some() => matrices.rollout(0),
        _ => None,
    };
    ui.painter().extend(source.map(|(values, scale)| overlay(app, rect, values, scale, app.settings.opacity)));
    let query = app.focus.current(sizes.prefix > 0);
    if let Query::Patch(patch) = query {
        let stroke = egui::Stroke::new(1.5, Color32::WHITE);
        ui.painter().rect_stroke(patch_rect(rect, sizes.grid, patch), 0.0, stroke, egui::StrokeKind::Inside);
    }
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
        crate::inspect::Head::Mean => sizes.heads,
        crate::inspect::Head::One(head) => head,
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
                    let source = match &app.rollout.matrices {
                        Stage::Ready(matrices) => matrices.relevance(layer, row),
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

fn overlay(app: &App, rect: Rect, values: MapSource, scale: Scale, opacity: f32) -> egui::Shape {
    let grid = app.inspector().map_or([1, 1], |inspector| inspector.sizes().grid);
    let settings = &app.settings;
    let map = MapPaint {
        values,
        minus: None,
        scale,
        gain: 1.0,
        grid,
        colormap: settings.colormap,
        opacity,
        log_scale: settings.log_scale,
    };
    app.painter.shape(rect, map)
}
