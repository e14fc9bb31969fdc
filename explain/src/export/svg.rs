//! A map as vectors: one rectangle a patch, which tells its value.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::colormap::Colormap;
use crate::error::Result;
use crate::export::layout::{Area, Layout, Line};
use crate::export::scale::number;
use crate::export::{Picture, Scale, Sheet, png};
use crate::map::Map;

/// Stops of the colour bar's gradient.
const STOPS: u8 = 32;

/// The map at `index` of a sheet as a self-contained SVG document.
///
/// # Errors
/// If the sheet's parts do not go together or the picture would be too large.
pub fn encode(sheet: &Sheet, index: usize) -> Result<String> {
    let layout = Layout::of(sheet, index)?;
    let map = sheet.map(index)?;
    let scale = Scale::of(map, &sheet.style);
    let (width, height) = (layout.width, layout.height);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\" role=\"img\" \
         font-family=\"'Noto Sans', 'Helvetica Neue', Arial, sans-serif\" fill=\"#181818\">\n"
    );
    // Writing to a string does not fail.
    let _ = writeln!(out, "<title>{}</title>", escape(&format!("{}: {}", sheet.image_name, map.title())));
    let _ = writeln!(out, "<rect width=\"{width}\" height=\"{height}\" fill=\"#ffffff\"/>");
    if !sheet.style.bare {
        let Area { x, y, width, height } = layout.picture;
        let _ = writeln!(
            out,
            "<image x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" preserveAspectRatio=\"none\" \
             style=\"image-rendering:pixelated\" href=\"{}\"/>",
            data_uri(&sheet.picture)?
        );
    }
    let opacity = if sheet.style.bare { 1.0 } else { sheet.style.opacity };
    patches(&mut out, &layout, map, &scale, opacity);
    if let Some(area) = layout.query() {
        outline(&mut out, area);
    }
    bar(&mut out, layout.bar, scale.colormap);
    layout.lines.iter().chain(&layout.ticks).for_each(|line| text(&mut out, line));
    out.push_str("</svg>\n");
    Ok(out)
}

fn patches(out: &mut String, layout: &Layout, map: &Map, scale: &Scale, opacity: f32) {
    let _ = writeln!(out, "<g fill-opacity=\"{opacity}\" shape-rendering=\"crispEdges\">");
    for (at, &value) in map.patches().iter().enumerate() {
        let (row, column) = (at / map.grid[1], at % map.grid[1]);
        let times = scale.times(value).map_or_else(String::new, |times| format!(", {times}"));
        let _ = writeln!(
            out,
            "<rect {} fill=\"{}\"><title>row {row}, column {column}: {}{times}</title></rect>",
            sides(layout.patch(row, column)),
            hex(scale.color(value)),
            number(f64::from(value), 4)
        );
    }
    out.push_str("</g>\n");
}

/// A white frame within a dark one, as in pixels. It lets the pointer through to the patch's value.
fn outline(out: &mut String, area: Area) {
    let thin = (area.width.min(area.height) as f32 / 10.0).clamp(1.0, 3.0);
    for (inset, color) in [(0.5, "#181818"), (1.5, "#ffffff")] {
        let (x, y) = (area.x as f32 + inset * thin, area.y as f32 + inset * thin);
        let side = |whole: usize| (whole as f32 - 2.0 * inset * thin).max(0.0);
        let _ = writeln!(
            out,
            "<rect x=\"{x}\" y=\"{y}\" width=\"{}\" height=\"{}\" fill=\"none\" stroke=\"{color}\" \
             stroke-width=\"{thin}\" pointer-events=\"none\"/>",
            side(area.width),
            side(area.height)
        );
    }
}

fn bar(out: &mut String, area: Area, colormap: Colormap) {
    out.push_str("<defs><linearGradient id=\"scale\" x1=\"0\" y1=\"1\" x2=\"0\" y2=\"0\">");
    for stop in 0..=STOPS {
        let place = f32::from(stop) / f32::from(STOPS);
        let _ = write!(out, "<stop offset=\"{place}\" stop-color=\"{}\"/>", hex(colormap.color(place)));
    }
    let _ = writeln!(out, "</linearGradient></defs>\n<rect {} fill=\"url(#scale)\"/>", sides(area));
}

fn text(out: &mut String, line: &Line) {
    let Line { x, y, size, ref text } = *line;
    let _ = writeln!(out, "<text x=\"{x}\" y=\"{y}\" font-size=\"{size}\">{}</text>", escape(text));
}

fn sides(area: Area) -> String {
    let Area { x, y, width, height } = area;
    format!("x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\"")
}

/// `#rrggbb`
pub(super) fn hex([r, g, b]: [u8; 3]) -> String {
    format!("#{r:02x}{g:02x}{b:02x}")
}

/// A picture as the address of itself.
pub(super) fn data_uri(picture: &Picture) -> Result<String> {
    Ok(format!("data:image/png;base64,{}", STANDARD.encode(png::compress(picture)?)))
}

/// Text for XML and HTML, between tags and in attributes. What XML cannot hold (control characters) becomes U+FFFD.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\t' | '\n' | '\r' => out.push(' '),
            '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}
