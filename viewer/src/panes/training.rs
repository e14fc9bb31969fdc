//! Training: the run's buttons, its numbers and its curves.

use egui::{Align, Button, Color32, ComboBox, Id, Label, Layout, ProgressBar, RichText, ScrollArea, Ui, vec2};
use egui_plot::{HoverPosition, Line, LineStyle, Plot, PlotPoint, PlotPoints, Points, uniform_grid_spacer};
use lara_runtime::attention::MechanismKind;

use crate::training::{Curve, State, Training};

/// The pane and what it is set to.
#[derive(Debug)]
pub struct TrainingPane {
    /// The mechanism that the next run gets.
    choice: MechanismKind,
    /// Whether the loss is drawn over a logarithmic axis.
    log_loss: bool,
}

impl Default for TrainingPane {
    fn default() -> Self {
        TrainingPane { choice: MechanismKind::Lara, log_loss: false }
    }
}

impl TrainingPane {
    /// Draws the pane into the whole of `ui`. Polling the run is the caller's part: [`Training::poll`], once a frame.
    pub fn show(&mut self, training: &mut Training, ui: &mut Ui) {
        controls(ui, training, &mut self.choice);
        status(ui, training);
        progress(ui, training);
        numbers(ui, training);
        ui.add_space(2.0);
        // Where the window is too low for three plots it scrolls, rather than making them unreadable.
        let height = ui.available_height();
        ScrollArea::vertical().auto_shrink(false).show(ui, |ui| curves(ui, training, &mut self.log_loss, height));
    }
}

/// A button of a width that its label does not change.
fn button(ui: &mut Ui, enabled: bool, label: &str, does: &str, else_why: &str) -> bool {
    let button = Button::new(label).min_size(vec2(68.0, 0.0));
    ui.add_enabled(enabled, button).on_hover_text(does).on_disabled_hover_text(else_why).clicked()
}

fn controls(ui: &mut Ui, training: &mut Training, choice: &mut MechanismKind) {
    let state = training.state();
    let control = training.control().clone();
    let no_run = "There is no run in progress";
    // What may be ordered: nothing any more once the run is ending.
    let obeys = state.is_active() && state != State::Stopping;
    let mut ordered = false;
    ui.horizontal_wrapped(|ui| {
        start(ui, training, choice, &state);
        ui.separator();
        if control.is_paused() && obeys {
            if button(ui, true, "Go on", "Let the run go on", no_run) {
                (ordered, _) = (true, control.resume());
            }
        } else if button(ui, obeys, "Pause", "Hold the run after the step it is at; its numbers stay the same", no_run)
        {
            (ordered, _) = (true, control.pause());
        }
        if button(ui, obeys, "Step", "Take exactly one optimizer step and hold", no_run) {
            (ordered, _) = (true, control.step());
        }
        let can_save = obeys && training.can_save() && !control.is_saving();
        let why = if obeys && !training.can_save() {
            "A run begun here has no folder to save to; begin one with `lara train --view`"
        } else if control.is_saving() {
            "A checkpoint is being written"
        } else {
            no_run
        };
        if button(ui, can_save, "Save", "Write a checkpoint of where the run stands", why) {
            (ordered, _) = (true, control.save());
        }
        let stops = if training.can_save() { "End the run and save it; it can be resumed" } else { "End the run" };
        if button(ui, obeys, "Stop", stops, no_run) {
            (ordered, _) = (true, control.stop());
        }
    });
    if ordered {
        ui.ctx().request_repaint();
    }
}

fn start(ui: &mut Ui, training: &mut Training, choice: &mut MechanismKind, state: &State) {
    let idle = !state.is_active();
    let busy = "A run is in progress; stop it first";
    ui.add_enabled_ui(idle, |ui| {
        let list = ComboBox::new("mechanism of the next run", "").width(96.0).selected_text(name(*choice));
        let list = list.show_ui(ui, |ui| {
            for kind in MechanismKind::ALL {
                ui.selectable_value(choice, kind, name(kind));
            }
        });
        list.response.on_hover_text("Attention mechanism of the next run").on_disabled_hover_text(busy);
    });
    let does = "Train a small model on the embedded digits, here between the frames";
    if button(ui, idle, "Start", does, busy)
        && let Err(error) = training.start_digits(*choice)
    {
        training.fail(error.to_string());
    }
}

fn name(kind: MechanismKind) -> &'static str {
    match kind {
        MechanismKind::Softmax => "softmax",
        MechanismKind::Ra => "RA",
        MechanismKind::Rfa => "RFA",
        MechanismKind::Performer => "Performer",
        MechanismKind::Lara => "LARA",
    }
}

/// One line, however long the sentence: the whole of it is under the pointer.
fn status(ui: &mut Ui, training: &Training) {
    let state = training.state();
    let mut text = match &state {
        State::Idle => "No run. Start trains a small model on the embedded digits.".to_owned(),
        State::Preparing => "Recording, tuning and compiling the training step".to_owned(),
        State::Running => "Running".to_owned(),
        State::Paused => "Paused".to_owned(),
        State::Evaluating { done, total } => format!("Evaluating held-out images, {done} of {total}"),
        State::Stopping => "Stopping".to_owned(),
        State::Stopped => "Stopped before its end".to_owned(),
        State::Finished => "Finished".to_owned(),
        State::Failed(sentence) => sentence.clone(),
    };
    if let Some(path) = training.saved().filter(|_| !matches!(state, State::Failed(_))) {
        text += &format!(", saved as {}", path.display());
    }
    let shown = match state {
        State::Failed(_) => RichText::new(&text).color(ui.visuals().error_fg_color),
        _ => RichText::new(&text),
    };
    ui.add(Label::new(shown).truncate());
}

fn progress(ui: &mut Ui, training: &Training) {
    let (steps, total) = (training.history().steps(), training.total_steps());
    let epochs = training.config().map(|config| config.train.total_epochs());
    let text = match (training.history().latest(), epochs) {
        (Some(latest), Some(epochs)) => format!("epoch {:.1} of {epochs}, step {steps} of {total}", latest.epoch),
        (None, Some(epochs)) => format!("epoch 0 of {epochs}, step 0 of {total}"),
        _ => String::new(),
    };
    let share = if total == 0 { 0.0 } else { steps as f32 / total as f32 };
    ui.add(ProgressBar::new(share).text(text).desired_height(18.0).corner_radius(3));
}

/// What is known now, each under its name in a column of its own width.
fn numbers(ui: &mut Ui, training: &Training) {
    let history = training.history();
    let latest = history.latest();
    let show = |value: Option<f64>, format: fn(f64) -> String| value.map_or_else(|| "-".to_owned(), format);
    let percent = |share: f64| format!("{:.1} %", 100.0 * share);
    let rate = latest.map(|latest| latest.images_per_second).filter(|rate| *rate > 0.0);
    let images_a_step = training.config().map(|c| (c.train.batch_size * c.train.grad_accum_steps.max(1)) as f64);
    let left = training.total_steps().saturating_sub(history.steps()) as f64;
    let seconds = rate.zip(images_a_step).map(|(rate, images)| left * images / rate);
    let shown = [
        ("loss", show(history.smooth_loss.curve.last().map(|[_, y]| y), |x| format!("{x:.4}"))),
        ("accuracy", show(history.smooth_accuracy.curve.last().map(|[_, y]| y), percent)),
        ("held-out", show(history.held_out_accuracy.last().map(|[_, y]| y), percent)),
        ("learning rate", show(latest.map(|latest| latest.lr), |x| format!("{x:.2e}"))),
        ("gradient norm", show(latest.map(|latest| latest.result.grad_norm), |x| format!("{x:.3}"))),
        ("images/s", show(rate, |x| format!("{x:.0}"))),
        ("time left", show(seconds, duration)),
    ];
    let in_a_row = if ui.available_width() < 560.0 { 4 } else { shown.len() };
    for row in shown.chunks(in_a_row) {
        ui.columns(in_a_row, |columns| {
            for (ui, (name, value)) in columns.iter_mut().zip(row) {
                ui.spacing_mut().item_spacing.y = 0.0;
                ui.add(Label::new(RichText::new(*name).small().weak()).truncate());
                ui.add(Label::new(RichText::new(value).monospace().strong()).truncate());
            }
        });
    }
}

/// Seconds in words of a width that hardly changes.
fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole {
        0..60 => format!("{whole} s"),
        60..3600 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole / 60 % 60),
    }
}

/// Colours that stand out from the theme's background.
struct Palette {
    train: Color32,
    held_out: Color32,
    lr: Color32,
}

impl Palette {
    fn of(ui: &Ui) -> Self {
        let rgb = Color32::from_rgb;
        if ui.visuals().dark_mode {
            Palette { train: rgb(104, 170, 255), held_out: rgb(255, 178, 84), lr: rgb(126, 211, 140) }
        } else {
            Palette { train: rgb(26, 98, 204), held_out: rgb(196, 88, 0), lr: rgb(36, 130, 58) }
        }
    }
}

/// One curve of a plot.
struct Series<'a> {
    name: &'static str,
    curve: &'a Curve,
    color: Color32,
    width: f32,
    /// Few values that are drawn one by one.
    marked: bool,
}

/// One of the plots above each other.
struct Chart<'a> {
    title: &'static str,
    series: Vec<Series<'a>>,
    /// From values to the axis.
    to_axis: fn(f64) -> f64,
    /// A mark of the axis in words.
    label: fn(f64) -> String,
    /// A point on the axis in words, more exactly.
    value: fn(f64) -> String,
    /// On the axis in any case.
    includes: &'static [f64],
}

/// No loss is drawn below, where the logarithm would leave the plot.
const LEAST_LOSS: f64 = 1e-9;

fn charts<'a>(training: &'a Training, palette: &Palette, log: bool) -> [Chart<'a>; 3] {
    let history = training.history();
    let batches =
        |curve| Series { name: "batch", curve, color: palette.train.gamma_multiply(0.55), width: 1.0, marked: false };
    let smooth = |curve| Series { name: "smoothed", curve, color: palette.train, width: 1.8, marked: false };
    let held_out = |curve| Series { name: "held-out", curve, color: palette.held_out, width: 1.2, marked: true };
    [
        Chart {
            title: "Loss",
            series: vec![batches(&history.loss), smooth(&history.smooth_loss.curve), held_out(&history.held_out_loss)],
            to_axis: if log { |y| y.max(LEAST_LOSS).log10() } else { |y| y },
            label: if log { |y| short(10f64.powf(y)) } else { short },
            value: if log { |y| format!("{:.4}", 10f64.powf(y)) } else { |y| format!("{y:.4}") },
            includes: if log { &[] } else { &[0.0] },
        },
        Chart {
            title: "Accuracy",
            series: vec![
                batches(&history.accuracy),
                smooth(&history.smooth_accuracy.curve),
                held_out(&history.held_out_accuracy),
            ],
            to_axis: |y| 100.0 * y,
            label: |y| format!("{y:.0} %"),
            value: |y| format!("{y:.1} %"),
            includes: &[0.0, 100.0],
        },
        Chart {
            title: "Learning rate",
            series: vec![Series { name: "rate", curve: &history.lr, color: palette.lr, width: 1.8, marked: false }],
            to_axis: |y| y,
            label: |y| if y == 0.0 { "0".to_owned() } else { format!("{y:.1e}") },
            value: |y| format!("{y:.3e}"),
            includes: &[0.0],
        },
    ]
}

fn short(y: f64) -> String {
    if y != 0.0 && y.abs() < 0.01 {
        format!("{y:.1e}")
    } else {
        format!("{y:.3}").trim_end_matches('0').trim_end_matches('.').to_owned()
    }
}

/// The next number of 1, 2, 5, 10, ... for marks about `least` apart.
fn nice(least: f64) -> f64 {
    if !(least.is_finite() && least > 0.0) {
        return 1.0;
    }
    let power = 10f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0].map(|digit| digit * power).into_iter().find(|step| *step >= least).unwrap_or(10.0 * power)
}

/// The height of the labels under the last plot.
const X_LABELS: f32 = 20.0;

fn curves(ui: &mut Ui, training: &Training, log_loss: &mut bool, available: f32) {
    let palette = Palette::of(ui);
    let titles = 3.0 * (ui.spacing().interact_size.y + 2.0 * ui.spacing().item_spacing.y);
    let height = ((available - titles - X_LABELS) / 3.0).max(45.0);
    let is_log = *log_loss;
    for (at, chart) in charts(training, &palette, is_log).into_iter().enumerate() {
        ui.horizontal(|ui| {
            ui.strong(chart.title);
            for series in chart.series.iter().filter(|_| chart.series.len() > 1) {
                ui.colored_label(series.color, series.name);
            }
            if at == 0 {
                ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
                    ui.checkbox(log_loss, "log scale").on_hover_text("Draw the loss over a logarithmic axis");
                });
            }
        });
        draw(ui, &chart, height, at == 2, is_log);
    }
}

fn draw(ui: &mut Ui, chart: &Chart<'_>, height: f32, is_last: bool, log: bool) {
    let group = Id::unique("steps of the training pane");
    let (label, value) = (chart.label, chart.value);
    // Another axis is another plot: what was zoomed into on the one means nothing on the other.
    let plot = Plot::new(("training", chart.title, log && chart.title == "Loss"))
        .height(if is_last { height + X_LABELS } else { height })
        .link_axis(group, [true, false])
        .link_cursor(group, [true, false])
        .show_axes([is_last, true])
        .y_axis_min_width(54.0)
        .allow_scroll(false)
        .allow_drag([true, false])
        .allow_zoom([true, false])
        .allow_boxed_zoom(false)
        .grid_color(ui.visuals().weak_text_color().gamma_multiply(0.5))
        .x_grid_spacer(uniform_grid_spacer(|input| [nice((input.bounds.1 - input.bounds.0) / 8.0).max(1.0); 3]))
        .y_grid_spacer(uniform_grid_spacer(|input| [nice((input.bounds.1 - input.bounds.0) / 4.0); 3]))
        .include_x(0.0)
        .include_x(10.0)
        .x_axis_formatter(|mark, _| format!("{}", mark.value))
        .y_axis_formatter(move |mark, _| label(mark.value))
        .label_formatter(move |hover| match hover {
            HoverPosition::NearDataPoint { plot_name, position, .. } => {
                Some(format!("step {:.0}\n{plot_name} {}", position.x, value(position.y)))
            }
            HoverPosition::Elsewhere { .. } => None,
        });
    let plot = chart.includes.iter().fold(plot, |plot, &y| plot.include_y(y));
    plot.show(ui, |ui| {
        for series in &chart.series {
            let points = || -> Vec<PlotPoint> {
                series.curve.points().map(|[x, y]| PlotPoint::new(x, (chart.to_axis)(y))).collect()
            };
            let line = Line::new(series.name, PlotPoints::Owned(points())).color(series.color).width(series.width);
            ui.line(if series.marked { line.style(LineStyle::dashed_dense()).allow_hover(false) } else { line });
            if series.marked {
                ui.points(Points::new(series.name, PlotPoints::Owned(points())).color(series.color).radius(3.0));
            }
        }
    });
}
