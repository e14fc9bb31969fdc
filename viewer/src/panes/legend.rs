//! The colour scale with its numbers, and numbers as people write them.

use egui::{Align2, Color32, FontId, Mesh, Rect, Sense, Shape, Stroke, Ui, pos2, vec2};
use lara_explain::{Colormap, LEVELS};

use crate::settings::Settings;

/// What the ends of the scale stand for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ends {
    /// 0 to the largest weight.
    Zero(f32),
    /// Three decades up to the largest weight.
    Decades(f32),
    /// The same distance to both sides of zero.
    Around(f32),
    /// 0 to so many times the uniform weight.
    Times(f32),
    /// So many times below the uniform weight to so many times above it.
    Octaves(f32),
    /// So many times the uniform weight to both sides of zero.
    AroundTimes(f32),
}

impl Ends {
    /// Those of weights up to `high`, as the settings want them.
    pub(crate) fn of(settings: &Settings, high: f32) -> Self {
        match (settings.uniform, settings.log_scale) {
            (true, true) => Ends::Octaves(settings.times),
            (true, false) => Ends::Times(settings.times),
            (false, true) => Ends::Decades(high),
            (false, false) => Ends::Zero(high),
        }
    }

    /// Those of differences up to `high`.
    pub(crate) fn around(settings: &Settings, high: f32) -> Self {
        if settings.uniform { Ends::AroundTimes(settings.times) } else { Ends::Around(high) }
    }

    /// Numbers and where they belong, 0 to 1.
    fn labels(self) -> Vec<(f32, String)> {
        let spread = |labels: [String; 3]| [0.0, 0.5, 1.0].into_iter().zip(labels).collect();
        let ends = |high: f32| format!("≥ {}× uniform", number(high));
        match self {
            Ends::Zero(high) => spread(["0".into(), number(high / 2.0), number(high)]),
            Ends::Decades(high) => spread([number(high / 1e3), number(high / 31.622_776), number(high)]),
            Ends::Around(high) => spread([format!("−{}", number(high)), "0".into(), format!("+{}", number(high))]),
            Ends::Octaves(times) => spread([format!("≤ 1/{}×", number(times)), "1×".into(), ends(times)]),
            Ends::AroundTimes(times) => {
                spread([format!("−{}×", number(times)), "0".into(), format!("+{}× uniform", number(times))])
            }
            // Where uniform weights are is the point of it; close to the end there is no room for its name.
            Ends::Times(times) if times > 12.0 => vec![(0.0, "0".into()), (1.0, ends(times))],
            Ends::Times(times) => vec![(0.0, "0".into()), (1.0 / times, "1×".into()), (1.0, ends(times))],
        }
    }

    /// Where the uniform weight is.
    fn mark(self) -> Option<f32> {
        match self {
            Ends::Times(times) => Some(1.0 / times),
            Ends::Octaves(_) => Some(0.5),
            _ => None,
        }
    }

    fn description(self) -> String {
        match self {
            Ends::Zero(high) => format!("scale from 0 to {}", number(high)),
            Ends::Decades(high) => format!("logarithmic scale up to {}", number(high)),
            Ends::Around(high) => format!("difference, up to {} either way", number(high)),
            Ends::Times(times) => format!("scale from 0 to {} times the uniform weight", number(times)),
            Ends::Octaves(times) => format!("logarithmic scale up to {} times the uniform weight", number(times)),
            Ends::AroundTimes(times) => format!("difference, up to {} times the uniform weight", number(times)),
        }
    }
}

/// Three significant digits, as people write them.
pub(crate) fn number(x: f32) -> String {
    let size = x.abs();
    match size {
        _ if x == 0.0 => "0".into(),
        _ if !x.is_finite() => format!("{x}"),
        _ if !(1e-4..1e5).contains(&size) => format!("{x:.1e}"),
        _ => {
            let decimals = (2 - size.log10().floor() as i32).clamp(0, 6) as usize;
            let text = format!("{x:.decimals$}");
            if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
        }
    }
}

/// `3.2× uniform`: a weight beside what each of so many keys would get if all got the same.
pub(crate) fn times_uniform(weight: f32, keys: usize) -> String {
    let times = weight * keys as f32;
    let text = match times.abs() {
        _ if !times.is_finite() => format!("{times}"),
        0.0 => "0".into(),
        size if size >= 99.95 => format!("{times:.0}"),
        size if size >= 0.95 => format!("{times:.1}"),
        size if size >= 0.005 => format!("{times:.2}"),
        _ => format!("{times:.0e}"),
    };
    format!("{text}× uniform")
}

/// A weight as the settings want it.
pub(crate) fn weight(settings: &Settings, weight: f32, keys: usize) -> String {
    if settings.uniform { times_uniform(weight, keys) } else { number(weight) }
}

/// Draws the scale as wide as `width`, with numbers below it.
pub(crate) fn show(ui: &mut Ui, colormap: Colormap, ends: Ends, width: f32) {
    let (rect, response) = ui.allocate_exact_size(vec2(width, 30.0), Sense::hover());
    let bar = Rect::from_min_size(rect.min, vec2(width, 12.0));
    let mut mesh = Mesh::default();
    let table = colormap.table();
    for (i, &[r, g, b]) in table.iter().enumerate() {
        let x = bar.left() + bar.width() * i as f32 / (LEVELS - 1) as f32;
        let color = Color32::from_rgb(r, g, b);
        mesh.colored_vertex(pos2(x, bar.top()), color);
        mesh.colored_vertex(pos2(x, bar.bottom()), color);
        if i > 0 {
            let at = 2 * i as u32;
            mesh.add_triangle(at - 2, at - 1, at);
            mesh.add_triangle(at - 1, at, at + 1);
        }
    }
    ui.painter().add(Shape::mesh(mesh));
    if let Some(mark) = ends.mark() {
        let x = bar.left() + mark * bar.width();
        for (width, color) in [(3.0, Color32::BLACK), (1.0, Color32::WHITE)] {
            ui.painter().vline(x, bar.y_range(), Stroke::new(width, color));
        }
    }
    for (t, label) in ends.labels() {
        let align = match t {
            0.0 => Align2::LEFT_TOP,
            1.0 => Align2::RIGHT_TOP,
            _ => Align2::CENTER_TOP,
        };
        let at = pos2(bar.left() + t * bar.width(), bar.bottom() + 2.0);
        ui.painter().text(at, align, label, FontId::proportional(11.0), ui.visuals().text_color());
    }
    response.widget_info(|| egui::WidgetInfo::labeled(egui::Role::Label, true, ends.description()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_three_digits() {
        let shown = [0.0, 1.0, 0.123_456, 0.012_345, 123.4, 1e-7, 0.5].map(number);
        assert_eq!(shown, ["0", "1", "0.123", "0.0123", "123", "1.0e-7", "0.5"]);
    }

    #[test]
    fn weights_are_told_in_uniform_ones() {
        let shown = [0.032, 0.01, 0.001, 0.0, 2.5, 1e-6].map(|weight| times_uniform(weight, 100));
        let wanted = ["3.2", "1.0", "0.10", "0", "250", "1e-4"].map(|times| format!("{times}× uniform"));
        assert_eq!(shown, wanted);
    }

    #[test]
    fn ends_name_what_they_stand_for() {
        let texts = |ends: Ends| ends.labels().into_iter().map(|(_, text)| text).collect::<Vec<_>>();
        assert_eq!(texts(Ends::Decades(1.0)), ["0.001", "0.0316", "1"]);
        assert_eq!(texts(Ends::Around(0.5)), ["−0.5", "0", "+0.5"]);
        assert_eq!(Ends::Times(4.0).labels()[1], (0.25, "1×".into()));
        assert_eq!(texts(Ends::Octaves(8.0)), ["≤ 1/8×", "1×", "≥ 8× uniform"]);
        assert_eq!(texts(Ends::Times(32.0)), ["0", "≥ 32× uniform"]);
    }
}
