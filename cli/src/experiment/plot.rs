//! Charts as SVG and PNG. Letters come from a font in the binary: a clean machine has none.

use std::fmt::Display;
use std::path::Path;

use image::RgbImage;
use plotters::coord::Shift;
use plotters::coord::ranged1d::ValueFormatter;
use plotters::prelude::*;
use plotters::style::register_font;

use crate::fail::{Failure, Outcome};

const WIDTH: u32 = 960;
const HEIGHT: u32 = 640;
const FONT: &str = "sans-serif";

/// One line or set of points.
pub(super) struct Series {
    pub(super) name: String,
    /// x, y and half the length of the error bar.
    pub(super) points: Vec<(f64, f64, f64)>,
}

/// What is drawn. Both axes are logarithmic, or x counts `categories` and y is linear.
pub(super) struct Chart {
    pub(super) title: String,
    pub(super) x: String,
    pub(super) y: String,
    pub(super) categories: Vec<String>,
    /// With categories: a height that the others are compared with, drawn as a line across.
    pub(super) level: Option<f64>,
    pub(super) series: Vec<Series>,
}

/// Told apart by people who see red and green alike (Okabe and Ito).
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(230, 159, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(213, 94, 0),
    RGBColor(90, 90, 90),
];

impl Chart {
    /// Writes `STEM.svg` and `STEM.png`.
    pub(super) fn write(&self, stem: &Path) -> Outcome {
        if register_font(FONT, FontStyle::Normal, ttf_noto_sans::REGULAR).is_err() {
            return Err(Failure::failed("the font in the binary cannot be read; no chart was drawn"));
        }
        let cannot =
            |path: &Path, error: &dyn Display| Failure::input(format!("cannot draw {}: {error}", path.display()));
        let path = stem.with_extension("svg");
        let area = SVGBackend::new(&path, (WIDTH, HEIGHT)).into_drawing_area();
        self.draw(&area).map_err(|error| cannot(&path, &error))?;
        drop(area);
        let path = stem.with_extension("png");
        let mut pixels = vec![0; (WIDTH * HEIGHT * 3) as usize];
        let area = BitMapBackend::with_buffer(&mut pixels, (WIDTH, HEIGHT)).into_drawing_area();
        self.draw(&area).map_err(|error| cannot(&path, &error))?;
        drop(area);
        let image = RgbImage::from_raw(WIDTH, HEIGHT, pixels);
        let image = image.ok_or_else(|| Failure::failed("the chart has not the size it was drawn in"))?;
        image.save(&path).map_err(|error| cannot(&path, &error))
    }

    fn draw<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>) -> Result<(), DrawingAreaErrorKind<B::ErrorType>> {
        area.fill(&WHITE)?;
        if self.categories.is_empty() {
            self.draw_lines(area)?
        } else {
            self.draw_categories(area)?
        }
        area.present()
    }

    /// Least and largest of all points and, if wanted, their error bars.
    fn range(&self, value: impl Fn(&(f64, f64, f64)) -> [f64; 2]) -> [f64; 2] {
        let all = self.series.iter().flat_map(|series| series.points.iter().flat_map(&value));
        all.filter(|x| x.is_finite())
            .fold([f64::INFINITY, f64::NEG_INFINITY], |[low, high], x| [low.min(x), high.max(x)])
    }

    /// The size of letters in which the longest category fits its place.
    fn size_of_names(&self) -> f64 {
        let place = f64::from(WIDTH) * 0.88 / self.categories.len().max(1) as f64;
        let longest = self.categories.iter().map(|name| name.chars().count()).max().unwrap_or(1);
        // A letter is about 0.55 times as wide as it is high.
        (place / (0.55 * longest.max(1) as f64)).clamp(8.0, 16.0)
    }

    fn draw_lines<B: DrawingBackend>(
        &self,
        area: &DrawingArea<B, Shift>,
    ) -> Result<(), DrawingAreaErrorKind<B::ErrorType>> {
        // Where every error is zero there is nothing to show but axes.
        let usable = |[low, high]: [f64; 2]| if low <= high { [low, high] } else { [1.0, 1.0] };
        let [x0, x1] = usable(self.range(|p| [p.0, p.0]));
        let [y0, y1] = usable(self.range(|p| [p.1, p.1 + p.2]));
        let mut chart = ChartBuilder::on(area)
            .caption(&self.title, (FONT, 22))
            .margin(16)
            .x_label_area_size(48)
            .y_label_area_size(84)
            .build_cartesian_2d((x0 / 1.2..x1 * 1.2).log_scale().base(4.0), (y0 / 2.0..y1 * 2.0).log_scale())?;
        let power = |y: &f64| format!("{y:.0e}");
        let count = |x: &f64| format!("{x:.0}");
        let style = (FONT, 16);
        chart
            .configure_mesh()
            .x_desc(&self.x)
            .y_desc(&self.y)
            .label_style(style)
            .x_label_formatter(&count)
            .y_label_formatter(&power)
            .light_line_style(WHITE.mix(0.0))
            .draw()?;
        for (series, colour) in self.series.iter().zip(COLOURS.into_iter().cycle()) {
            let line = series.points.iter().map(|p| (p.0, p.1));
            chart
                .draw_series(LineSeries::new(line, colour.stroke_width(2)))?
                .label(&series.name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], colour.stroke_width(2)));
            // A bar that reached zero would have no place on a logarithmic axis.
            let bars = series
                .points
                .iter()
                .map(|&(x, y, e)| ErrorBar::new_vertical(x, (y - e).max(y0 / 2.0), y, y + e, colour.filled(), 8));
            chart.draw_series(bars)?;
        }
        let legend = WHITE.mix(0.85).filled();
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::LowerLeft)
            .background_style(legend)
            .border_style(BLACK.mix(0.3))
            .label_font(style)
            .draw()?;
        Ok(())
    }

    fn draw_categories<B: DrawingBackend>(
        &self,
        area: &DrawingArea<B, Shift>,
    ) -> Result<(), DrawingAreaErrorKind<B::ErrorType>> {
        let [y0, y1] = self.range(|p| [p.1 - p.2, p.1 + p.2]);
        let margin = ((y1 - y0) * 0.1).max(1e-3);
        let mut chart = ChartBuilder::on(area)
            .caption(&self.title, (FONT, 22))
            .margin(16)
            .x_label_area_size(48)
            .y_label_area_size(84)
            .build_cartesian_2d(Slots(self.categories.len()), y0 - margin..y1 + margin)?;
        let name = |at: &f64| self.categories.get(at.round() as usize).cloned().unwrap_or_default();
        chart
            .configure_mesh()
            .disable_x_mesh()
            .x_desc(&self.x)
            .y_desc(&self.y)
            .label_style((FONT, 16))
            .x_label_style((FONT, self.size_of_names()))
            .x_label_formatter(&name)
            .light_line_style(WHITE.mix(0.0))
            .draw()?;
        if let Some(level) = self.level {
            let ends = [-0.5, self.categories.len() as f64 - 0.5].map(|x| (x, level));
            chart.draw_series(DashedLineSeries::new(ends, 6, 4, BLACK.mix(0.5).stroke_width(1)))?;
        }
        for (series, colour) in self.series.iter().zip(COLOURS.into_iter().cycle()) {
            chart.draw_series(
                series
                    .points
                    .iter()
                    .filter(|p| p.2 > 0.0)
                    .map(|&(x, y, e)| ErrorBar::new_vertical(x, y - e, y, y + e, colour.filled(), 12)),
            )?;
            chart.draw_series(
                series.points.iter().filter(|p| p.2 <= 0.0).map(|p| Circle::new((p.0, p.1), 4, colour.filled())),
            )?;
        }
        Ok(())
    }
}

/// An axis with one place for each category, at 0, 1, 2 ..
struct Slots(usize);

impl Ranged for Slots {
    type FormatOption = plotters::coord::ranged1d::NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        let share = (value + 0.5) / self.0.max(1) as f64;
        limit.0 + (share * f64::from(limit.1 - limit.0)).round() as i32
    }

    fn key_points<H: plotters::coord::ranged1d::KeyPointHint>(&self, _: H) -> Vec<f64> {
        (0..self.0).map(|at| at as f64).collect()
    }

    fn range(&self) -> std::ops::Range<f64> {
        -0.5..self.0 as f64 - 0.5
    }
}

impl ValueFormatter<f64> for Slots {}
