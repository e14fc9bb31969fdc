//! Where the parts of a drawn map stand: the same for pixels and for vectors.

use crate::error::Result;
use crate::export::scale::number;
use crate::export::text::Face;
use crate::export::{MOST_PIXELS, Scale, Sheet, bad};
use crate::map::{Map, Query};

/// The longer side of the picture has at least so many pixels.
pub const SIDE: usize = 512;
/// Free space around everything.
const MARGIN: usize = 20;
/// Text needs this width, however narrow the picture.
const NARROWEST: usize = 360;
/// A colour bar with its numbers needs this height, however low the picture.
const LOWEST: usize = 120;
/// The colour bar's width and the space before it and before its numbers.
const BAR: usize = 18;
const GAP: usize = 20;
const TICK: usize = 6;
/// Sizes of letters, pixels an em.
const LARGE: usize = 20;
const SMALL: usize = 14;
/// Of the width, what lines of text may take: an SVG may be shown in a wider font than the one that was measured.
const TEXT: f32 = 0.85;
/// Values of tokens before the patches that are told.
const MOST_PREFIX: usize = 4;

/// A rectangle of whole pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Area {
    /// Left edge.
    pub x: usize,
    /// Upper edge.
    pub y: usize,
    /// Columns of pixels.
    pub width: usize,
    /// Rows of pixels.
    pub height: usize,
}

/// A line of text.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// Left end.
    pub x: usize,
    /// Baseline.
    pub y: usize,
    /// Size of the letters, pixels an em.
    pub size: usize,
    /// What it says.
    pub text: String,
}

/// The parts of one drawn map.
#[derive(Clone, Debug, PartialEq)]
pub struct Layout {
    /// Pixels of the whole in a row.
    pub width: usize,
    /// Rows of the whole.
    pub height: usize,
    /// The picture with the map over it.
    pub picture: Area,
    /// The colour bar, highest value on top.
    pub bar: Area,
    /// Title, what else is known, and what stands below the picture; the first is the title.
    pub lines: Vec<Line>,
    /// Numbers beside the bar.
    pub ticks: Vec<Line>,
    query_grid: [usize; 2],
    grid: [usize; 2],
    query: Query,
}

impl Layout {
    /// Places the parts of the map at `index` of a sheet.
    ///
    /// # Errors
    /// If the sheet's parts do not go together, or the picture would have more than 2^26 pixels.
    pub fn of(sheet: &Sheet, index: usize) -> Result<Self> {
        sheet.check()?;
        let map = sheet.map(index)?;
        let (large, small) = (Face::new(LARGE as f32)?, Face::new(SMALL as f32)?);
        let [width, height] = picture_size(sheet, map)?;
        let scale = Scale::of(map, &sheet.style);
        let numbers = scale.ticks();
        let widest = numbers.iter().map(|(_, text)| small.width(text)).fold(0.0, f32::max).ceil() as usize;
        let inner = (width + GAP + BAR + TICK + widest).max(NARROWEST);
        let mut lines = Vec::new();
        let mut y = MARGIN;
        let mut put = |face: &Face, size: usize, text: &str, y: &mut usize| {
            for text in face.wrap(text, inner as f32 * TEXT).into_iter().filter(|line| !line.is_empty()) {
                lines.push(Line { x: MARGIN, y: *y + face.ascent().ceil() as usize, size, text });
                *y += line_height(size);
            }
        };
        put(&large, LARGE, &map.title(), &mut y);
        about(sheet).iter().for_each(|text| put(&small, SMALL, text, &mut y));
        y += SMALL / 2;
        let picture = Area { x: MARGIN, y, width, height };
        // The numbers at the bar's ends reach half a line beyond it.
        let half = SMALL / 2;
        let bar_height = height.max(LOWEST) - 2 * half;
        let bar = Area { x: MARGIN + width + GAP, y: y + half, width: BAR, height: bar_height };
        y += height.max(LOWEST) + SMALL / 2;
        below(map, &scale).iter().for_each(|text| put(&small, SMALL, text, &mut y));
        let tick = |(place, text): (f32, String)| {
            let centre = bar.y as f32 + (1.0 - place) * bar.height as f32;
            // Figures are 0.7 of an em in height.
            Line { x: bar.x + BAR + TICK, y: (centre + 0.35 * SMALL as f32).round() as usize, size: SMALL, text }
        };
        let ticks = numbers.into_iter().map(tick).collect();
        let (width, height) = (inner + 2 * MARGIN, y - SMALL / 2 + MARGIN);
        Ok(Layout {
            width,
            height,
            picture,
            bar,
            lines,
            ticks,
            grid: map.grid,
            query_grid: map.query_grid,
            query: map.query,
        })
    }

    /// The pixels of a patch of the grid.
    pub fn patch(&self, row: usize, column: usize) -> Area {
        self.cell(self.grid, row, column)
    }

    fn cell(&self, [rows, columns]: [usize; 2], row: usize, column: usize) -> Area {
        let Area { x, y, width, height } = self.picture;
        let (left, right) = (edge(column, columns, width), edge(column + 1, columns, width));
        let (top, bottom) = (edge(row, rows, height), edge(row + 1, rows, height));
        Area { x: x + left, y: y + top, width: right - left, height: bottom - top }
    }

    /// The pixels of the patch whose attention the map shows, if it is a patch's.
    pub fn query(&self) -> Option<Area> {
        match self.query {
            Query::Patch(at) => Some(self.cell(self.query_grid, at / self.query_grid[1], at % self.query_grid[1])),
            Query::Class | Query::Mean => None,
        }
    }
}

fn line_height(size: usize) -> usize {
    size * 27 / 20
}

/// The first of `pixels` pixels that belongs to part `at` of `parts`: pixel i belongs to part i x parts / pixels.
fn edge(at: usize, parts: usize, pixels: usize) -> usize {
    (at * pixels).div_ceil(parts)
}

/// Width and height: the picture (of a bare map, one pixel a patch) so many times that it is large enough to look at and
/// every patch has a pixel.
fn picture_size(sheet: &Sheet, map: &Map) -> Result<[usize; 2]> {
    let [rows, columns] = map.grid;
    let (width, height) = if sheet.style.bare { (columns, rows) } else { (sheet.picture.width, sheet.picture.height) };
    let times = SIDE.div_ceil(width.max(height)).max(columns.div_ceil(width)).max(rows.div_ceil(height));
    let sides = (width.checked_mul(times), height.checked_mul(times));
    if let (Some(width), Some(height)) = sides
        && width.checked_mul(height).is_some_and(|area| area <= MOST_PIXELS)
    {
        return Ok([width, height]);
    }
    bad(format!(
        "a picture of {width} x {height} pixels with {rows} x {columns} patches would be drawn {times} times as large, \
         and {MOST_PIXELS} pixels are the most; export it as npy or safetensors"
    ))
}

/// Whose map it is, and the notes.
fn about(sheet: &Sheet) -> Vec<String> {
    let head = [sheet.title.as_str(), sheet.image_name.as_str()];
    let head: Vec<&str> = head.into_iter().filter(|text| !text.trim().is_empty()).collect();
    let notes: Vec<String> = sheet.notes.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    vec![head.join(" · "), notes.join(" · ")]
}

/// What goes to the tokens before the patches, if there are any.
pub(super) fn prefix_text(map: &Map) -> Option<String> {
    let prefix = &map.values[..map.prefix.min(map.values.len())];
    match prefix {
        [] => None,
        [value] => Some(format!("to the class token: {}", number(f64::from(*value), 3))),
        _ => {
            let told: Vec<String> = prefix.iter().take(MOST_PREFIX).map(|&v| number(f64::from(v), 3)).collect();
            let more = if prefix.len() > MOST_PREFIX { ", .." } else { "" };
            Some(format!("to the {} tokens before the patches: {}{more}", prefix.len(), told.join(", ")))
        }
    }
}

/// What the picture cannot show.
fn below(map: &Map, scale: &Scale) -> Vec<String> {
    let mut parts = Vec::from_iter(prefix_text(map));
    if scale.log {
        parts.push("logarithmic scale".into());
    }
    if scale.unit.is_some() {
        let beyond = map.patches().iter().filter(|&&value| f64::from(value) > scale.high).count();
        let keys = map.values.len();
        parts.push(format!(
            "1× is the uniform weight, 1 / {keys}; above the scale: {beyond} of {}",
            map.patches().len()
        ));
    }
    let strange = map.patches().iter().filter(|value| !value.is_finite()).count();
    if strange > 0 {
        parts.push(format!("grey: no finite number ({strange} of {})", map.patches().len()));
    }
    vec![parts.join(" · ")]
}
