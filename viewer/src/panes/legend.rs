//! The colour scale with its numbers.

use egui::{Color32, Mesh, Rect, Sense, Shape, Ui, vec2};
use lara_explain::{Colormap, LEVELS};

/// What the ends of the scale stand for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ends {
    /// 0 to the largest weight.
    Zero(f32),
    /// Three decades up to the largest weight.
    Decades(f32),
    /// The same distance to both sides of zero.
    Around(f32),
}

impl Ends {
    fn labels(self) -> [String; 3] {
        match self {
            Ends::Zero(high) => ["0".into(), number(high / 2.0), number(high)],
            Ends::Decades(high) => [number(high / 1e3), number(high / 31.622_776), number(high)],
            Ends::Around(high) => [format!("−{}", number(high)), "0".into(), format!("+{}", number(high))],
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

/// Draws the scale as wide as `width`, with numbers below its ends and its middle.
pub(crate) fn show(ui: &mut Ui, colormap: Colormap, ends: Ends, width: f32) {
    let (rect, response) = ui.allocate_exact_size(vec2(width, 30.0), Sense::hover());
    let bar = Rect::from_min_size(rect.min, vec2(width, 12.0));
    let mut mesh = Mesh::default();
    let table = colormap.table();
    for (i, &[r, g, b]) in table.iter().enumerate() {
        let x = bar.left() + bar.width() * i as f32 / (LEVELS - 1) as f32;
        let color = Color32::from_rgb(r, g, b);
        mesh.colored_vertex(egui::pos2(x, bar.top()), color);
        mesh.colored_vertex(egui::pos2(x, bar.bottom()), color);
        if i > 0 {
            let at = 2 * i as u32;
            mesh.add_triangle(at - 2, at - 1, at);
            mesh.add_triangle(at - 1, at, at + 1);
        }
    }
    ui.painter().add(Shape::mesh(mesh));
    let aligns = [egui::Align2::LEFT_TOP, egui::Align2::CENTER_TOP, egui::Align2::RIGHT_TOP];
    for ((label, align), t) in ends.labels().into_iter().zip(aligns).zip([0.0, 0.5, 1.0]) {
        let at = egui::pos2(bar.left() + t * bar.width(), bar.bottom() + 2.0);
        ui.painter().text(at, align, label, egui::FontId::proportional(11.0), ui.visuals().text_color());
    }
    let what = match ends {
        Ends::Zero(high) => format!("scale from 0 to {}", number(high)),
        Ends::Decades(high) => format!("logarithmic scale up to {}", number(high)),
        Ends::Around(high) => format!("difference, up to {} either way", number(high)),
    };
    response.widget_info(|| egui::WidgetInfo::labeled(egui::Role::Label, true, &what));
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
    fn ends_name_the_middle_of_a_logarithmic_scale() {
        assert_eq!(Ends::Decades(1.0).labels(), ["0.001", "0.0316", "1"]);
        assert_eq!(Ends::Around(0.5).labels(), ["−0.5", "0", "+0.5"]);
    }
}
