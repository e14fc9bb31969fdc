//! What the model takes the image for: the five most probable classes with bars.

use egui::{ProgressBar, Ui};
use lara_models::top;

use crate::app::App;

/// Draws the bars.
pub(crate) fn show(app: &mut App, ui: &mut Ui) {
    ui.add_space(2.0);
    let truth = app.gallery.entries.get(app.picture).and_then(|entry| entry.label);
    let truth = truth.and_then(|label| app.subject.classes.get(label)).map(|class| format!(" (it is {class})"));
    ui.strong(format!("Prediction{}", truth.unwrap_or_default()));
    let ranked = app.probabilities.as_deref().map(|p| top(p, 5)).unwrap_or_default();
    for place in 0..5.min(app.subject.classes.len()) {
        let Some(&(class, probability)) = ranked.get(place) else {
            ui.add(ProgressBar::new(0.0).desired_height(16.0).text("…"));
            continue;
        };
        let name = app.subject.classes.get(class).cloned().unwrap_or_else(|| class.to_string());
        let text = format!("{name}   {:.1} %", 100.0 * probability);
        ui.add(ProgressBar::new(probability as f32).desired_height(16.0).text(text));
    }
    if let Some(ms) = app.forward_ms {
        ui.weak(format!("forward pass {ms:.2} ms")).on_hover_text("On the GPU, from timestamps");
    }
}
