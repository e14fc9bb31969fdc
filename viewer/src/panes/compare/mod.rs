//! The same weights and the same image through several mechanisms, side by side, and how far each is from exact softmax.

mod column;

use egui::{ComboBox, Rect, ScrollArea, Sense, Slider, Ui, Vec2, WidgetInfo};
use lara_explain::{Colormap, Distances, Head, Inspector, Query, attention_for, with_attention};
use lara_runtime::attention::MechanismKind;

use super::export::MapsRead;
use super::image::{mark_query, point};
use super::legend::{self, Ends, number};
use super::mechanism;
use crate::context::Context;
use crate::error::Result;
use crate::job::{Job, Stage};
use crate::paint::MapPaint;
use crate::settings::Settings;
use column::{Column, Shown};

/// Most mechanisms at once.
const MOST: usize = 4;

/// What the columns show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum View {
    #[default]
    Attention,
    Difference,
    Deviation,
}

/// The page.
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
    /// The image that was taken, by its count.
    image: Option<u64>,
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
            image: None,
        }
    }
}

impl Compare {
    /// Another model: everything is compiled again when the page is opened.
    pub(crate) fn reset(&mut self) {
        *self = Compare { view: self.view, redraws: self.redraws, ..Compare::default() };
    }

    /// Distances of the columns' rows in front.
    pub(crate) fn distances(&self, head: Head) -> Vec<Distances> {
        self.columns.iter().filter_map(|column| column.distances(head)).collect()
    }

    /// What reads the columns' maps of a layer back, one future a column.
    pub(crate) fn read_maps(&self, layer: usize, heads: &[Head]) -> Vec<MapsRead> {
        let of = |column: &Column| {
            let name = column.attention().mechanism.name();
            let read = column.comparison()?.settled.read_maps(name, &[layer], heads);
            Some(Box::pin(read) as MapsRead)
        };
        self.columns.iter().filter_map(of).collect()
    }

    /// Something is still being compiled, measured or drawn.
    pub(crate) fn is_busy(&self) -> bool {
        let redraws = self.deviates().unwrap_or(0);
        self.columns.is_empty()
            || self.reference.is_coming()
            || self.columns.iter().any(|column| column.is_busy(redraws))
    }

    /// Redraws that are wanted, while the deviation is shown.
    fn deviates(&self) -> Option<usize> {
        (self.view == View::Deviation).then_some(self.redraws)
    }

    /// Moves the landmarks of a column up and down by turns; false if there is none.
    pub(crate) fn move_landmarks(&mut self, column: usize) -> bool {
        let Some(column) = self.columns.get_mut(column) else { return false };
        let mut attention = column.attention().clone();
        let landmarks = attention.num_landmarks;
        attention.num_landmarks = if landmarks.is_multiple_of(2) { landmarks + 1 } else { landmarks - 1 };
        column.change(attention);
        true
    }

    /// Draws the page.
    pub(crate) fn show(&mut self, cx: &mut Context, ui: &mut Ui) {
        if self.columns.is_empty() {
            self.start(cx);
        }
        let updated = self.update(cx);
        cx.messages.keep(updated);
        self.controls(cx, ui);
        ui.separator();
        let count = self.columns.len().max(1);
        let width = (ui.available_width() / count as f32 - ui.spacing().item_spacing.x).max(176.0);
        let mut removed = None;
        ScrollArea::both().auto_shrink(false).show(ui, |ui| {
            ui.horizontal_top(|ui| {
                for index in 0..self.columns.len() {
                    ui.allocate_ui(Vec2::new(width, ui.available_height()), |ui| {
                        let shown = ui.push_id(index, |ui| ui.vertical(|ui| self.column(cx, ui, index, width)).inner);
                        removed = if shown.inner { Some(index) } else { removed };
                    });
                }
            });
        });
        if let Some(index) = removed {
            self.columns.remove(index);
            self.columns.iter_mut().for_each(Column::redo);
        }
    }

    /// Exact softmax as the reference, and two linear mechanisms beside it.
    fn start(&mut self, cx: &Context) {
        let config = &cx.subject.config;
        let exact = with_attention(config, &attention_for(config, MechanismKind::Softmax));
        let (gpu, tune, subject) = (cx.gpu.clone(), cx.tune.clone(), cx.subject.clone());
        let work = move || async move { Inspector::new(&gpu, &tune, &subject, &exact, false).await };
        self.reference = Stage::Coming(Job::spawn(cx.repaint.clone(), work));
        let kinds = [MechanismKind::Softmax, MechanismKind::Lara, MechanismKind::Rfa];
        self.columns = kinds.map(|kind| Column::new(attention_for(config, kind))).into();
    }

    fn update(&mut self, cx: &mut Context) -> Result<()> {
        let image = Some(cx.looking.images);
        let input = if self.image != image || self.input.is_none() { cx.input() } else { None };
        let deviates = self.deviates();
        // One that fails leaves the others at work; the first error is told.
        let compiled: Vec<Result<()>> =
            self.columns.iter_mut().map(|column| column.compile(cx, deviates.is_some())).collect();
        let mut fresh = self.reference.settle()?;
        compiled.into_iter().collect::<Result<()>>()?;
        if input.is_some() {
            (self.input, self.image, fresh) = (input, image, true);
        }
        let Some(input) = &self.input else { return Ok(()) };
        let Some(reference) = self.reference.ready() else { return Ok(()) };
        let (queries, layer) = (cx.queries(reference.sizes()), cx.settings.layer);
        if fresh {
            reference.run(input, 0)?;
        }
        let looked = Some((queries.clone(), layer));
        let moved = fresh || self.looked != looked;
        if moved {
            reference.look(&queries, &[layer], Some(layer))?;
        }
        self.looked = looked;
        if let Some((_, rows)) = reference.news()?.rows {
            self.exact = rows;
        }
        let image = (input.as_slice(), fresh);
        let shown = Shown { image, queries: &queries, layer, moved, draw: self.draw, redraws: deviates };
        let mut is_waiting = false;
        for column in &mut self.columns {
            is_waiting |= column.update(cx, reference, &shown)?;
        }
        if is_waiting {
            (cx.repaint)();
        }
        Ok(())
    }

    fn controls(&mut self, cx: &Context, ui: &mut Ui) {
        let mut redraw = false;
        ui.horizontal_wrapped(|ui| {
            ui.selectable_value(&mut self.view, View::Attention, "Attention");
            ui.selectable_value(&mut self.view, View::Difference, "Difference from softmax");
            ui.selectable_value(&mut self.view, View::Deviation, "Deviation over redraws");
            if self.view == View::Deviation {
                let slider = ui.add(Slider::new(&mut self.redraws, 2..=128).logarithmic(true).text("redraws"));
                if slider.changed() {
                    self.columns.iter_mut().for_each(Column::begin_deviation);
                }
            }
            redraw = ui.button("Redraw").on_hover_text("Draw the keys and the noise anew").clicked();
        });
        if redraw {
            self.draw = self.draw.wrapping_add(1);
            self.columns.iter_mut().for_each(Column::redo);
        }
        let stages = cx.stages();
        if stages.len() > 1 {
            let layer = cx.settings.layer;
            let stage = stages.iter().position(|stage| stage.contains(&layer)).unwrap_or(0) + 1;
            ui.weak(format!(
                "A mechanism stands in all {} stages of this pyramid, and none can be chosen for one stage alone; errors are \
                 those of layer {layer}, in stage {stage}, and times those of the whole model. Landmarks are limited by the \
                 smallest stage, which has {} places.",
                stages.len(),
                fewest_places(cx)
            ));
        }
        let full = self.columns.len() >= MOST;
        if !full && ui.button("Add a mechanism").clicked() {
            self.columns.push(Column::new(attention_for(&cx.subject.config, MechanismKind::Performer)));
        }
    }

    /// Draws a column; true if it is to be taken out.
    fn column(&mut self, cx: &mut Context, ui: &mut Ui, index: usize, width: f32) -> bool {
        let side = (width - 8.0).min(360.0);
        let removed = self.header(cx, ui, index, width);
        let (rect, response) = ui.allocate_exact_size(cx.fit(Vec2::splat(side)), Sense::click());
        let name = self.columns[index].attention().mechanism.name();
        response.widget_info(|| WidgetInfo::labeled(egui::Role::Image, true, format!("Map of {name}")));
        let rect = cx.draw_image(ui, cx.picture, rect).unwrap_or(rect);
        let Some(sizes) = cx.sizes() else { return removed };
        if response.contains_pointer() || response.clicked() {
            point(cx, ui, &response, rect, sizes);
        }
        if self.columns[index].is_coming() {
            // Painted, not placed: the sliders below keep their ids, and so the keyboard's focus.
            egui::Spinner::new().paint_at(ui, Rect::from_center_size(rect.center(), Vec2::splat(28.0)));
        }
        ui.painter().extend(self.paint(cx, index, rect));
        mark_query(cx, ui, rect, sizes);
        self.numbers(cx, ui, index, side);
        self.settings(cx, ui, index);
        removed
    }

    fn header(&mut self, cx: &Context, ui: &mut Ui, index: usize, width: f32) -> bool {
        let before = self.columns[index].attention().mechanism;
        let (mut chosen, mut remove) = (before, false);
        ui.horizontal(|ui| {
            let combo = ComboBox::from_id_salt("mechanism").width((width - 60.0).clamp(70.0, 180.0));
            let shown = combo.selected_text(chosen.name()).show_ui(ui, |ui| {
                for kind in MechanismKind::ALL {
                    ui.selectable_value(&mut chosen, kind, kind.name());
                }
            });
            let label = || WidgetInfo::labeled(egui::Role::ComboBox, true, format!("Mechanism {index}"));
            shown.response.widget_info(label);
            let many = self.columns.len() > 1;
            remove = many && ui.button("×").on_hover_text("Take this mechanism out").clicked();
        });
        if chosen != before {
            self.columns[index].change(attention_for(&cx.subject.config, chosen));
        }
        remove
    }

    /// The map of a column.
    fn paint(&self, cx: &Context, index: usize, rect: Rect) -> Option<egui::Shape> {
        let (settings, column) = (&cx.settings, self.columns.get(index)?);
        let own = &column.comparison()?.settled;
        let Stage::Ready(reference) = &self.reference else { return None };
        let (layer, head) = (settings.layer, settings.head);
        let (values, minus, end) = match self.view {
            View::Attention => (own.source(layer, head, 0)?, None, own.scale(layer, head, 0)?),
            View::Difference => {
                let exact = reference.source(layer, head, 0)?;
                (own.source(layer, head, 0)?, Some(exact), reference.scale(layer, head, 0)?)
            }
            // Deviations are shown against the largest exact weight, the same for all columns.
            View::Deviation => (column.noisy()?.deviation(layer, head, 0)?.0, None, reference.scale(layer, head, 0)?),
        };
        let is_difference = self.view == View::Difference;
        let map = cx.map(values, end, own.block(layer)?);
        let map = MapPaint {
            minus,
            colormap: if is_difference { Colormap::Diverging } else { settings.colormap },
            // White means agreement only if nothing shines through.
            opacity: if is_difference { 1.0 } else { settings.opacity },
            log_span: map.log_span.filter(|_| self.view == View::Attention),
            ..map
        };
        Some(cx.painter.shape(rect, map))
    }

    fn numbers(&self, cx: &Context, ui: &mut Ui, index: usize, side: f32) {
        let column = &self.columns[index];
        let (distances, high) =
            (column.distances(cx.settings.head), self.exact_high(cx.settings.layer, cx.settings.head));
        match self.view {
            // Each map has its own scale, unless it is that of uniform weights.
            View::Attention if cx.settings.uniform => {
                legend::show(ui, cx.settings.colormap, Ends::of(&cx.settings, high), side);
            }
            View::Attention => {}
            View::Difference => legend::show(ui, Colormap::Diverging, Ends::around(&cx.settings, high), side),
            View::Deviation => {
                let linear = Settings { log_scale: false, ..cx.settings.clone() };
                legend::show(ui, cx.settings.colormap, Ends::of(&linear, high), side);
                ui.weak(format!("{} of {} redraws", column.samples(), self.redraws));
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
            ui.label(column.forward_ms().map_or_else(|| "…".to_owned(), |ms| format!("{ms:.2} ms")));
            ui.end_row();
        });
    }

    /// The largest exact weight of a patch in the row in front; 0 until it is known.
    fn exact_high(&self, layer: usize, head: Head) -> f32 {
        let Stage::Ready(reference) = &self.reference else { return 0.0 };
        let Some(block) = reference.block(layer) else { return 0.0 };
        let row = block.row(head, 0).and_then(|row| self.exact.chunks(block.tokens()).nth(row));
        row.map_or(0.0, |row| row[block.prefix..].iter().copied().fold(0.0, f32::max))
    }

    fn settings(&mut self, cx: &Context, ui: &mut Ui, index: usize) {
        let mut attention = self.columns[index].attention().clone();
        let learned = cx.subject.config.attention.mechanism == MechanismKind::Lara;
        let patches = fewest_places(cx);
        if mechanism::settings(ui, &mut attention, patches, learned) {
            self.columns[index].change(attention);
        }
    }
}

/// Places of the block that has the fewest.
fn fewest_places(cx: &Context) -> usize {
    let model = &cx.subject.config.model;
    (0..model.depth()).map(|layer| model.layer(layer).places()).min().unwrap_or(1)
}
