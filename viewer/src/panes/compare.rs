//! The same weights and the same image through several mechanisms, side by side, and how far each is from exact softmax.

use egui::{Color32, ComboBox, Pos2, Rect, ScrollArea, Sense, Slider, Ui, Vec2, WidgetInfo};
use lara_explain::{
    Colormap, Comparison, Distances, Head, Inspector, Map, Query, ScaleEnd, attention_for, with_attention,
};
use lara_runtime::attention::{AttentionConfig, MechanismKind};

use super::image::{mark_query, point};
use super::legend::{self, Ends, number};
use super::mechanism;
use crate::app::{App, Stage};
use crate::error::Result;
use crate::job::Job;
use crate::paint::MapPaint;

/// Most mechanisms at once.
const MOST: usize = 4;
/// Redraws that are added to a deviation in one frame.
const DRAWS_A_FRAME: usize = 2;

/// What the columns show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum View {
    #[default]
    Attention,
    Difference,
    Deviation,
}

struct Column {
    attention: AttentionConfig,
    stage: Stage<Comparison>,
    forward_ms: Option<f64>,
    /// Samples in the deviation.
    samples: usize,
    is_stale: bool,
}

/// The comparison.
pub(crate) struct Compare {
    columns: Vec<Column>,
    reference: Stage<Inspector>,
    /// Rows of exact softmax, [slots, heads + 1, tokens], for the ends of scales.
    exact: Vec<f32>,
    view: View,
    redraws: usize,
    draw: u32,
    looked: Option<(Vec<Query>, usize)>,
    input: Option<Vec<f32>>,
    image_is_stale: bool,
}

impl Default for Compare {
    fn default() -> Self {
        Compare {
            columns: Vec::new(),
            reference: Stage::Empty,
            exact: Vec::new(),
            view: View::Attention,
            redraws: 16,
            draw: 0,
            looked: None,
            input: None,
            image_is_stale: true,
        }
    }
}

impl Compare {
    /// Another model: everything is compiled again when the page is opened.
    pub(crate) fn reset(&mut self) {
        *self = Compare { view: self.view, redraws: self.redraws, ..Compare::default() };
    }

    /// Another image, or other weights.
    pub(crate) fn image_changed(&mut self) {
        self.image_is_stale = true;
    }

    /// Distances of the columns' rows in front.
    pub(crate) fn distances(&self, head: Head) -> Vec<Distances> {
        let of = |column: &Column| match &column.stage {
            Stage::Ready(comparison) => comparison.distances(head, 0),
            _ => None,
        };
        self.columns.iter().filter_map(of).collect()
    }

    /// What reads the columns' maps of a layer back, one future a column.
    pub(crate) fn read_maps(
        &self,
        layer: usize,
        heads: &[Head],
    ) -> Vec<impl Future<Output = lara_explain::Result<Vec<Map>>> + use<>> {
        let of = |column: &Column| match &column.stage {
            Stage::Ready(comparison) => {
                let name = column.attention.mechanism.name();
                Some(comparison.settled.read_maps(name, &[layer], heads))
            }
            _ => None,
        };
        self.columns.iter().filter_map(of).collect()
    }

    /// Something is still being compiled, measured or drawn.
    pub(crate) fn is_busy(&self) -> bool {
        let redraws = if self.view == View::Deviation { self.redraws } else { 0 };
        let unfinished = |column: &Column| match &column.stage {
            Stage::Empty => false,
            Stage::Coming(_) => true,
            Stage::Ready(comparison) => comparison.is_waiting() || column.samples < redraws,
        };
        self.columns.is_empty() || self.reference.is_coming() || self.columns.iter().any(unfinished)
    }
}

/// Draws the page.
pub(crate) fn show(app: &mut App, ui: &mut Ui) {
    if app.compare.columns.is_empty() {
        start(app);
    }
    if let Err(error) = update(app) {
        app.messages.problem(error);
    }
    controls(app, ui);
    ui.separator();
    let count = app.compare.columns.len().max(1);
    let width = (ui.available_width() / count as f32 - ui.spacing().item_spacing.x).max(176.0);
    ScrollArea::both().auto_shrink(false).show(ui, |ui| {
        ui.horizontal_top(|ui| {
            for index in 0..app.compare.columns.len() {
                ui.allocate_ui(Vec2::new(width, ui.available_height()), |ui| {
                    ui.push_id(index, |ui| ui.vertical(|ui| column(app, ui, index, width)));
                });
            }
        });
    });
}

/// Exact softmax as the reference, and two linear mechanisms beside it.
fn start(app: &mut App) {
    let config = &app.subject.config;
    let exact = with_attention(config, &attention_for(config, MechanismKind::Softmax));
    let kinds = [MechanismKind::Softmax, MechanismKind::Lara, MechanismKind::Rfa];
    let wanted = kinds.map(|kind| attention_for(config, kind));
    let (gpu, tune, subject) = (app.gpu.clone(), app.tune.clone(), app.subject.clone());
    let work = move || async move { Inspector::new(&gpu, &tune, &subject, &exact, false).await };
    app.compare.reference = Stage::Coming(Job::spawn(app.repaint.clone(), work));
    wanted.into_iter().for_each(|attention| add(app, attention));
}

fn add(app: &mut App, attention: AttentionConfig) {
    let stage = compile(app, &attention);
    app.compare.columns.push(Column { attention, stage, forward_ms: None, samples: 0, is_stale: true });
}

fn compile(app: &App, attention: &AttentionConfig) -> Stage<Comparison> {
    let (gpu, tune, subject, attention) = (app.gpu.clone(), app.tune.clone(), app.subject.clone(), attention.clone());
    let work = move || async move { Comparison::new(&gpu, &tune, &subject, &attention).await };
    Stage::Coming(Job::spawn(app.repaint.clone(), work))
}

fn update(app: &mut App) -> Result<()> {
    let input = if app.compare.image_is_stale || app.compare.input.is_none() { app.input() } else { None };
    let (has_class, layer) = (app.subject.config.model.layer(0).prefix > 0, app.settings.layer);
    let compare = &mut app.compare;
    let mut fresh = compare.reference.settle()?;
    if input.is_some() {
        (compare.input, compare.image_is_stale, fresh) = (input, false, true);
    }
    let Some(image) = &compare.input else { return Ok(()) };
    let Some(reference) = compare.reference.ready() else { return Ok(()) };
    let looked = Some((app.focus.queries(has_class, reference.sizes().slots), layer));
    if fresh {
        reference.run(image, 0)?;
    }
    let moved = fresh || compare.looked != looked;
    if let Some((queries, layer)) = looked.as_ref().filter(|_| moved) {
        reference.look(queries, &[*layer], Some(*layer))?;
    }
    compare.looked = looked;
    if let Some((_, rows)) = reference.news()?.rows {
        compare.exact = rows;
    }
    let mut is_waiting = false;
    for column in &mut compare.columns {
        let (queries, layer) = compare.looked.as_ref().map_or((&[] as &[Query], 0), |(q, l)| (q, *l));
        let deviates = (compare.view == View::Deviation).then_some(compare.redraws);
        is_waiting |=
            column.update(&app.gpu, reference, (image, fresh), (queries, layer, moved), (compare.draw, deviates))?;
    }
    if is_waiting {
        (app.repaint)();
    }
    Ok(())
}

impl Column {
    /// Runs what is stale; true if there is more to come.
    fn update(
        &mut self,
        gpu: &lara_runtime::Gpu,
        reference: &Inspector,
        (image, is_new): (&[f32], bool),
        (queries, layer, moved): (&[Query], usize, bool),
        (draw, redraws): (u32, Option<usize>),
    ) -> Result<bool> {
        let settled = self.stage.settle()?;
        let Some(comparison) = self.stage.ready() else { return Ok(false) };
        let rerun = settled || is_new || self.is_stale;
        // The first runs of a fresh plan warm the device up; the time that is shown is the last one's.
        for _ in 0..if settled { 3 } else { usize::from(rerun) } {
            comparison.settled.run(image, draw)?;
            self.is_stale = false;
        }
        if rerun || moved {
            comparison.look(queries, layer, reference)?;
            self.samples = 0;
        }
        let wanted = redraws.unwrap_or(0);
        if wanted > 0 && self.samples == 0 {
            comparison.noisy.look(queries, &[], None)?;
        }
        for _ in 0..DRAWS_A_FRAME.min(wanted.saturating_sub(self.samples)) {
            comparison.noisy.redraw(image, layer, draw.wrapping_mul(65_537), self.samples as u32)?;
            self.samples += 1;
        }
        self.forward_ms = comparison.receive(gpu)?.or(self.forward_ms);
        Ok(comparison.is_waiting() || self.samples < wanted)
    }
}

fn controls(app: &mut App, ui: &mut Ui) {
    let mut redraw = false;
    ui.horizontal_wrapped(|ui| {
        let compare = &mut app.compare;
        ui.selectable_value(&mut compare.view, View::Attention, "Attention");
        ui.selectable_value(&mut compare.view, View::Difference, "Difference from softmax");
        ui.selectable_value(&mut compare.view, View::Deviation, "Deviation over redraws");
        if compare.view == View::Deviation {
            let slider = ui.add(Slider::new(&mut compare.redraws, 2..=128).logarithmic(true).text("redraws"));
            if slider.changed() {
                compare.columns.iter_mut().for_each(|column| column.samples = 0);
            }
        }
        redraw = ui.button("Redraw").on_hover_text("Draw the keys and the noise anew").clicked();
    });
    if redraw {
        app.compare.draw = app.compare.draw.wrapping_add(1);
        app.compare.columns.iter_mut().for_each(|column| {
            column.samples = 0;
            column.is_stale = true;
        });
    }
    let full = app.compare.columns.len() >= MOST;
    if !full && ui.button("Add a mechanism").clicked() {
        add(app, attention_for(&app.subject.config, MechanismKind::Performer));
    }
}

fn column(app: &mut App, ui: &mut Ui, index: usize, width: f32) {
    let side = (width - 8.0).min(360.0);
    header(app, ui, index, width);
    let (rect, response) = ui.allocate_exact_size(Vec2::splat(side), Sense::click());
    let name = app.compare.columns[index].attention.mechanism.name();
    response.widget_info(|| WidgetInfo::labeled(egui::Role::Image, true, format!("Map of {name}")));
    if let Some(texture) = app.texture(ui.ctx(), app.picture) {
        let uv = Rect::from_min_max(Pos2::ZERO, Pos2::new(1.0, 1.0));
        ui.painter().image(texture.id(), rect, uv, Color32::WHITE);
    }
    let Some(sizes) = app.inspector().map(Inspector::sizes) else { return };
    if response.contains_pointer() || response.clicked() {
        point(app, ui, &response, rect, sizes);
    }
    let column = &app.compare.columns[index];
    if column.stage.is_coming() {
        ui.put(Rect::from_center_size(rect.center(), Vec2::splat(28.0)), egui::Spinner::new());
    }
    ui.painter().extend(paint(app, index, rect));
    mark_query(app, ui, rect, sizes);
    numbers(app, ui, index, side);
    settings(app, ui, index);
}

fn header(app: &mut App, ui: &mut Ui, index: usize, width: f32) {
    let mut chosen = app.compare.columns[index].attention.mechanism;
    let before = chosen;
    let mut remove = false;
    ui.horizontal(|ui| {
        let combo = ComboBox::from_id_salt("mechanism").width((width - 60.0).clamp(70.0, 180.0));
        let shown = combo.selected_text(chosen.name()).show_ui(ui, |ui| {
            for kind in MechanismKind::ALL {
                ui.selectable_value(&mut chosen, kind, kind.name());
            }
        });
        shown.response.widget_info(|| WidgetInfo::labeled(egui::Role::ComboBox, true, format!("Mechanism {index}")));
        let many = app.compare.columns.len() > 1;
        remove = many && ui.button("×").on_hover_text("Take this mechanism out").clicked();
    });
    if chosen != before {
        let attention = attention_for(&app.subject.config, chosen);
        change(app, index, attention);
    }
    if remove {
        app.compare.columns.remove(index);
        app.compare.columns.iter_mut().for_each(|column| column.is_stale = true);
    }
}

fn change(app: &mut App, index: usize, attention: AttentionConfig) {
    let stage = compile(app, &attention);
    app.compare.columns[index] = Column { attention, stage, forward_ms: None, samples: 0, is_stale: true };
}

/// The map of a column.
fn paint(app: &App, index: usize, rect: Rect) -> Option<egui::Shape> {
    let (settings, compare) = (&app.settings, &app.compare);
    let Stage::Ready(comparison) = &compare.columns.get(index)?.stage else { return None };
    let (layer, head) = (settings.layer, settings.head);
    let own = comparison.settled.source(layer, head, 0)?;
    let map = |values, minus, scale, colormap| MapPaint {
        values,
        minus,
        scale,
        grid: comparison.settled.sizes().grid,
        colormap,
        // White means agreement only if nothing shines through.
        opacity: if compare.view == View::Difference { 1.0 } else { settings.opacity },
        log_scale: settings.log_scale && compare.view == View::Attention,
    };
    let map = match compare.view {
        View::Attention => map(own, None, comparison.settled.scale(layer, head, 0)?, settings.colormap),
        View::Difference => {
            let Stage::Ready(reference) = &compare.reference else { return None };
            let exact = reference.source(layer, head, 0)?;
            map(own, Some(exact), reference.scale(layer, head, 0)?, Colormap::Diverging)
        }
        View::Deviation => {
            let (values, _) = comparison.noisy.deviation(layer, head, 0)?;
            map(values, None, deviation_scale(app, layer)?, settings.colormap)
        }
    };
    Some(app.painter.shape(rect, map))
}

/// Deviations are shown against the largest exact weight, the same for all columns.
fn deviation_scale(app: &App, layer: usize) -> Option<ScaleEnd> {
    let Stage::Ready(reference) = &app.compare.reference else { return None };
    reference.scale(layer, app.settings.head, 0)
}

fn numbers(app: &App, ui: &mut Ui, index: usize, side: f32) {
    let column = &app.compare.columns[index];
    let head = app.settings.head;
    let distances = match &column.stage {
        Stage::Ready(comparison) => comparison.distances(head, 0),
        _ => None,
    };
    match app.compare.view {
        View::Attention => {}
        View::Difference => legend::show(ui, Colormap::Diverging, Ends::Around(exact_high(app)), side),
        View::Deviation => {
            legend::show(ui, app.settings.colormap, Ends::Zero(exact_high(app)), side);
            ui.weak(format!("{} of {} redraws", column.samples, app.compare.redraws));
        }
    }
    egui::Grid::new("numbers").num_columns(2).show(ui, |ui| {
        let text = |value: Option<f32>| value.map_or_else(|| "…".to_owned(), number);
        ui.label("relative error").on_hover_text("|map − softmax| / |softmax|, Euclidean, this row");
        ui.label(text(distances.map(|d| d.relative)));
        ui.end_row();
        ui.label("KL").on_hover_text("KL(softmax ‖ map) in nats, this row");
        ui.label(text(distances.map(|d| d.divergence)));
        ui.end_row();
        ui.label("GPU time").on_hover_text("Of the whole forward pass of this model, from timestamps");
        ui.label(column.forward_ms.map_or_else(|| "…".to_owned(), |ms| format!("{ms:.2} ms")));
        ui.end_row();
    });
}

/// The largest exact weight of a patch in the row in front; 0 until it is known.
fn exact_high(app: &App) -> f32 {
    let Stage::Ready(reference) = &app.compare.reference else { return 0.0 };
    let (sizes, row) = (reference.sizes(), reference.row(app.settings.head, 0));
    let row = row.and_then(|row| app.compare.exact.chunks(sizes.tokens()).nth(row));
    row.map_or(0.0, |row| row[sizes.prefix..].iter().copied().fold(0.0, f32::max))
}

fn settings(app: &mut App, ui: &mut Ui, index: usize) {
    let mut attention = app.compare.columns[index].attention.clone();
    let learned = app.subject.config.attention.mechanism == MechanismKind::Lara;
    let patches = app.subject.config.model.layer(0).places();
    if mechanism::settings(ui, &mut attention, patches, learned) {
        change(app, index, attention);
    }
}
