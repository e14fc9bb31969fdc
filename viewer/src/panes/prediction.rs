//! What the model takes the image for: the five most probable classes with bars.

use egui::{ProgressBar, Ui};
use lara_models::top;

use crate::context::Context;

/// Draws the bars.
pub(crate) fn show(cx: &Context, ui: &mut Ui) {
    ui.add_space(2.0);
    let truth = cx.gallery.entries.get(cx.picture).and_then(|entry| entry.label);
    let truth = truth.and_then(|label| cx.subject.classes.get(label)).map(|class| format!(" (it is {class})"));
    ui.strong(format!("Prediction{}", truth.unwrap_or_default()));
    let ranked = cx.looking.probabilities.as_deref().map(|p| top(p, 5)).unwrap_or_default();
    for place in 0..5.min(cx.subject.classes.len()) {
        let Some(&(class, probability)) = ranked.get(place) else {
            ui.add(ProgressBar::new(0.0).desired_height(16.0).text("…"));
            continue;
        };
        let text = format!("{}   {:.1} %", cx.class_name(class), 100.0 * probability);
        ui.add(ProgressBar::new(probability as f32).desired_height(16.0).text(text));
    }
    if let Some(ms) = cx.looking.forward_ms {
        ui.weak(format!("forward pass {ms:.2} ms")).on_hover_text("On the GPU, from timestamps");
    }
}
