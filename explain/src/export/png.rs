//! A map as pixels: over its picture, with a colour bar and numbers.

use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};

use crate::error::{Error, Result};
use crate::export::layout::{Area, Layout, Line};
use crate::export::text::{Face, blend};
use crate::export::{Picture, Scale, Sheet};
use crate::map::Map;

pub(super) const PAPER: [u8; 3] = [255; 3];
pub(super) const INK: [u8; 3] = [24; 3];
const FRAME: [u8; 3] = [255; 3];

/// The map at `index` of a sheet as a PNG file.
///
/// # Errors
/// If the sheet's parts do not go together or the picture would be too large.
pub fn encode(sheet: &Sheet, index: usize) -> Result<Vec<u8>> {
    compress(&draw(sheet, index)?)
}

/// The map at `index` of a sheet, drawn as [`Layout`] says.
///
/// # Errors
/// As [`encode`].
pub fn draw(sheet: &Sheet, index: usize) -> Result<Picture> {
    let layout = Layout::of(sheet, index)?;
    let map = sheet.map(index)?;
    let scale = Scale::of(map, &sheet.style);
    let (width, height) = (layout.width, layout.height);
    let mut canvas = Picture { width, height, rgb: PAPER.repeat(width * height) };
    draw_map(&mut canvas, layout.picture, sheet, map, &scale);
    if let Some(area) = layout.query() {
        outline(&mut canvas, area);
    }
    draw_bar(&mut canvas, layout.bar, &scale);
    write_lines(&mut canvas, layout.lines.iter().chain(&layout.ticks))?;
    Ok(canvas)
}

/// A map over its picture, or bare, in the pixels of `area`.
pub(super) fn draw_map(canvas: &mut Picture, area: Area, sheet: &Sheet, map: &Map, scale: &Scale) {
    let colors: Vec<[u8; 3]> = map.patches().iter().map(|&value| scale.color(value)).collect();
    let [rows, columns] = map.grid;
    let Area { x: left, y: top, width, height } = area;
    let (opacity, under) = if sheet.style.bare { (1.0, None) } else { (sheet.style.opacity, Some(&sheet.picture)) };
    for y in 0..height {
        for x in 0..width {
            if let Some(under) = under {
                canvas.set(left + x, top + y, under.at(x * under.width / width, y * under.height / height));
            }
            let color = colors[(y * rows / height) * columns + x * columns / width];
            blend(canvas, left + x, top + y, color, opacity);
        }
    }
}

/// A picture as a PNG file.
///
/// # Errors
/// If its sizes do not fit its bytes.
pub fn compress(picture: &Picture) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let size = |side: usize| u32::try_from(side).unwrap_or(u32::MAX);
    let (width, height) = (size(picture.width), size(picture.height));
    if picture.width.checked_mul(picture.height).and_then(|n| n.checked_mul(3)) != Some(picture.rgb.len()) {
        let count = picture.rgb.len();
        return Err(Error::BadInput(format!("{count} bytes are no picture of {width} x {height} pixels")));
    }
    PngEncoder::new(&mut bytes)
        .write_image(&picture.rgb, width, height, ExtendedColorType::Rgb8)
        .map_err(|error| Error::BadInput(format!("a picture of {width} x {height} cannot be PNG: {error}")))?;
    Ok(bytes)
}

/// A white frame within a dark one, to be seen on every colour; thinner on small patches.
pub(super) fn outline(canvas: &mut Picture, area: Area) {
    let thin = (area.width.min(area.height) / 10).clamp(1, 3);
    for y in 0..area.height {
        for x in 0..area.width {
            let inside = x.min(y).min(area.width - 1 - x).min(area.height - 1 - y);
            if inside < 2 * thin {
                canvas.set(area.x + x, area.y + y, if inside < thin { INK } else { FRAME });
            }
        }
    }
}

fn draw_bar(canvas: &mut Picture, bar: Area, scale: &Scale) {
    for y in 0..bar.height {
        let place = 1.0 - (y as f32 + 0.5) / bar.height as f32;
        for x in 0..bar.width {
            canvas.set(bar.x + x, bar.y + y, scale.colormap.color(place));
        }
    }
}

fn write_lines<'a>(canvas: &mut Picture, lines: impl Iterator<Item = &'a Line>) -> Result<()> {
    for line in lines {
        let face = Face::new(line.size as f32)?;
        face.draw(canvas, [line.x as f32, line.y as f32], &line.text, INK);
    }
    Ok(())
}
