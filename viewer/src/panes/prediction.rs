//! What the model takes the image for: the five most probable classes with bars.

use egui::{ProgressBar, Ui};
use lara_models::top;

use crate::context::Context;

/// Draws the bars.
pub(crate) fn show(cx: &Context, ui: &mut Ui) {
    ui.add_space(2.0);
    let truth = cx.gallery.entries.get(cx.picture).and_then(|entry| entry.label);
    let truth = truth.and_then(|label| cx.subject.classes.get(label)).map(|class| format!(" (it is {class})"));
    let heading = egui::RichText::new(format!("Prediction{}", truth.unwrap_or_default())).strong();
    ui.add(egui::Label::new(heading).truncate());
    if cx.subject.config.model.num_classes() == 0 {
        ui.weak("this model has no classifier");
    }
    let ranked = cx.looking.probabilities.as_deref().map(|p| top(p, 5)).unwrap_or_default();
    for place in 0..5.min(cx.subject.classes.len()) {
        let Some(&(class, probability)) = ranked.get(place) else {
            ui.add(ProgressBar::new(0.0).desired_height(16.0).text("…"));
            continue;
        };
        let (name, share) = (cx.class_name(class), format!("   {:.1} %", 100.0 * probability));
        let text = format!("{}{share}", cut(ui, &name, &share));
        let bar = ui.add(ProgressBar::new(probability as f32).desired_height(16.0).text(text));
        bar.on_hover_text(format!("{name}{share}"));
    }
    if let Some(ms) = cx.looking.forward_ms {
        ui.weak(format!("forward pass {ms:.2} ms")).on_hover_text("On the GPU, from timestamps");
    }
}

/// As much of a name as fits into a bar before `rest`: its first of several (`giant panda, panda, ..`) if that is enough.
fn cut(ui: &Ui, name: &str, rest: &str) -> String {
    let font = egui::TextStyle::Button.resolve(ui.style());
    let room = ui.available_width() - 2.0 * ui.spacing().item_spacing.x;
    let fits = |text: &str| {
        let text = format!("{text}{rest}");
        ui.painter().layout_no_wrap(text, font.clone(), egui::Color32::WHITE).size().x <= room
    };
    shorten(name, fits)
}

/// The longest of a name's forms that fits: all of it, the first of several, or its beginning.
fn shorten(name: &str, fits: impl Fn(&str) -> bool) -> String {
    let first = name.split(", ").next().unwrap_or(name);
    for whole in [name, first] {
        if fits(whole) {
            return whole.to_owned();
        }
    }
    let ends: Vec<usize> = first.char_indices().map(|(at, _)| at).collect();
    let cut = |end: usize| format!("{}…", first[..end].trim_end());
    let longest = ends.into_iter().rev().map(cut).find(|text| fits(text));
    longest.unwrap_or_else(|| "…".to_owned())
}

#[cfg(test)]
mod tests {
    use super::shorten;

    #[test]
    fn long_names_keep_their_beginning() {
        let to = |most: usize| move |text: &str| text.chars().count() <= most;
        let panda = "giant panda, panda, panda bear";
        assert_eq!(shorten(panda, to(30)), panda);
        assert_eq!(shorten(panda, to(29)), "giant panda");
        assert_eq!(shorten(panda, to(8)), "giant p…");
        assert_eq!(shorten(panda, to(7)), "giant…");
        assert_eq!((shorten(panda, to(0)), shorten("née", to(2))), ("…".into(), "n…".into()));
    }
}
