//! All maps of a picture in one: a row for each mechanism, head and query, a panel for each layer.

use std::borrow::Cow;

use lara_models::data::picture::{Interpolation, Picture as Pixels, Resize};

use crate::error::Result;
use crate::export::layout::Area;
use crate::export::png::{INK, PAPER, compress, draw_map, outline};
use crate::export::text::Face;
use crate::export::{File, MOST_PIXELS, Picture, Scale, Sheet, bad};
use crate::map::{Map, Query};

/// The longer side of a panel has at least so many pixels.
const SIDE: usize = 192;
/// Larger pictures are shown smaller.
const LARGEST: usize = 256;
const GAP: usize = 10;
/// Size of the letters, pixels an em, and height of a line.
const LETTERS: usize = 14;
const LINE: usize = 20;

/// The overview of a sheet as a PNG file. Every panel has its own colour scale unless the style shares one.
///
/// # Errors
/// If the sheet's parts do not go together or the picture would be too large.
pub fn encode(sheet: &Sheet) -> Result<Vec<u8>> {
    compress(&draw(sheet)?)
}

/// The overview as a file.
///
/// # Errors
/// As [`encode`].
pub fn file(sheet: &Sheet) -> Result<File> {
    Ok(File { name: "overview.png".into(), bytes: encode(sheet)? })
}

/// The overview as pixels: left the picture, with the query's patch framed, then what it looks at in each layer.
///
/// # Errors
/// As [`encode`].
pub fn draw(sheet: &Sheet) -> Result<Picture> {
    sheet.check()?;
    let reduced = reduced(sheet)?;
    let sheet = &*reduced;
    let rows = rows(&sheet.maps);
    let panels = 1 + rows.iter().map(|(_, maps)| maps.len()).max().unwrap_or(0);
    let (across, down) = (sheet.picture.width, sheet.picture.height);
    let finest = sheet.maps.iter().flat_map(|map| map.grid).max().unwrap_or(1);
    let times = SIDE.max(finest).div_ceil(across.max(down));
    let (wide, high) = (across.saturating_mul(times), down.saturating_mul(times));
    let width = GAP.saturating_add((wide.saturating_add(GAP)).saturating_mul(panels));
    let height = GAP.saturating_add((high.saturating_add(GAP + 2 * LINE)).saturating_mul(rows.len()));
    if width.saturating_mul(height) > MOST_PIXELS {
        return bad(format!(
            "an overview of {} maps would have {width} x {height} pixels, and {MOST_PIXELS} are the most; export fewer \
             layers, heads or queries at a time, or the maps one by one",
            sheet.maps.len()
        ));
    }
    let mut canvas = Picture { width, height, rgb: PAPER.repeat(width * height) };
    let face = Face::new(LETTERS as f32)?;
    for (index, (title, maps)) in rows.iter().enumerate() {
        let top = GAP + index * (high + GAP + 2 * LINE);
        let place = |panel: usize| Area { x: GAP + panel * (wide + GAP), y: top + 2 * LINE, width: wide, height: high };
        let mut write = |x: usize, line: usize, text: &str| {
            let baseline = top + line * LINE + LETTERS;
            face.draw(&mut canvas, [x as f32, baseline as f32], text, INK);
        };
        write(GAP, 0, title);
        write(GAP, 1, &first_line(&face, &sheet.image_name, wide));
        for (panel, map) in maps.iter().enumerate() {
            let what = map.layer.map_or_else(|| map.kind.name().to_owned(), |layer| format!("layer {layer}"));
            write(place(panel + 1).x, 1, &what);
        }
        draw_picture(&mut canvas, place(0), &sheet.picture);
        if let Some(&&Map { query: Query::Patch(at), grid, .. }) = maps.first() {
            outline(&mut canvas, patch(place(0), grid, at));
        }
        for (panel, map) in maps.iter().enumerate() {
            draw_map(&mut canvas, place(panel + 1), sheet, map, &Scale::of(map, &sheet.style));
        }
    }
    Ok(canvas)
}

/// The same with a picture that is no larger than a panel: of a photo's detail a panel shows nothing.
fn reduced(sheet: &Sheet) -> Result<Cow<'_, Sheet>> {
    let Picture { width, height, ref rgb } = sheet.picture;
    let longer = width.max(height);
    if longer <= LARGEST {
        return Ok(Cow::Borrowed(sheet));
    }
    let sides = [width, height].map(|side| u32::try_from(side).unwrap_or(u32::MAX));
    let size = [width, height].map(|side| ((side * SIDE).div_ceil(longer) as u64).max(1));
    let picture = Pixels::new(sides[0], sides[1], 3, rgb.clone())?;
    let small = Resize::to(size, Interpolation::Box).apply(&picture);
    let picture =
        Picture { width: small.width() as usize, height: small.height() as usize, rgb: small.pixels().to_vec() };
    Ok(Cow::Owned(Sheet { picture, ..sheet.clone() }))
}

/// Maps that differ in their layer alone, in the order in which they come, under what they have in common.
fn rows(maps: &[Map]) -> Vec<(String, Vec<&Map>)> {
    let mut rows: Vec<(String, Vec<&Map>)> = Vec::new();
    for map in maps {
        let title = Map { layer: None, values: Vec::new(), ..map.clone() }.title();
        match rows.iter_mut().find(|(known, _)| *known == title) {
            Some((_, row)) => row.push(map),
            None => rows.push((title, vec![map])),
        }
    }
    rows
}

fn first_line(face: &Face, text: &str, width: usize) -> String {
    face.wrap(text, width as f32).into_iter().next().unwrap_or_default()
}

fn draw_picture(canvas: &mut Picture, area: Area, picture: &Picture) {
    for y in 0..area.height {
        for x in 0..area.width {
            let pixel = picture.at(x * picture.width / area.width, y * picture.height / area.height);
            canvas.set(area.x + x, area.y + y, pixel);
        }
    }
}

/// The pixels of patch `at` of a grid that covers `area`.
fn patch(area: Area, [rows, columns]: [usize; 2], at: usize) -> Area {
    let edge = |at: usize, parts: usize, pixels: usize| (at * pixels).div_ceil(parts);
    let (row, column) = (at / columns, at % columns);
    let (left, right) = (edge(column, columns, area.width), edge(column + 1, columns, area.width));
    let (top, bottom) = (edge(row, rows, area.height), edge(row + 1, rows, area.height));
    Area { x: area.x + left, y: area.y + top, width: right - left, height: bottom - top }
}
