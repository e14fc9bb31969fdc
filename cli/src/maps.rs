//! Attention maps as pictures: the image, then for every block what its tokens attend to.

use std::path::{Path, PathBuf};

use image::{Rgb, RgbImage};
use lara_models::data::ImageShape;

use crate::fail::{Failure, Outcome};

/// Side of a panel and width of the gap between panels, pixels.
const PANEL: u32 = 192;
const GAP: u32 = 8;

/// Writes `DIR/NAME.png`. Top row: the image, then for each block the attention averaged over heads and queries. Bottom
/// row: the image with one query marked (the patch that the last block attends to most), then for each block where that
/// query looks, averaged over heads. Each panel is scaled to its own largest value.
///
/// `maps` holds, for every block, [1, heads, tokens, tokens] and those sizes; `prefix` tokens stand before the grid.
pub(crate) fn write(
    dir: &Path,
    image: &Path,
    pixels: &[f32],
    shape: ImageShape,
    maps: &[(Vec<usize>, Vec<f32>)],
    prefix: usize,
) -> Outcome<PathBuf> {
    let means: Vec<Vec<f64>> = maps.iter().map(|(sizes, map)| over_heads(sizes, map)).collect();
    let tokens = maps.first().map_or(0, |m| m.0[2]);
    let average: Vec<Vec<f64>> = means.iter().map(|m| column_means(m, tokens)[prefix..].to_vec()).collect();
    let query = average.last().map_or(0, |last| largest_index(last));
    let row = (query + prefix) * tokens;
    let of_query: Vec<Vec<f64>> = means.iter().map(|m| m[row + prefix..row + tokens].to_vec()).collect();
    let grid = (tokens - prefix).isqrt();
    let columns = maps.len() as u32 + 1;
    let mut canvas = RgbImage::from_pixel(columns * (PANEL + GAP) + GAP, 2 * (PANEL + GAP) + GAP, Rgb([255; 3]));
    for (y, panels) in [(0, &average), (1, &of_query)] {
        draw(&mut canvas, 0, y, |u, v| pixel(pixels, shape, u, v));
        for (x, panel) in panels.iter().enumerate() {
            let top = panel.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
            draw(&mut canvas, x as u32 + 1, y, |u, v| {
                let cell = (v * grid as f64) as usize * grid + (u * grid as f64) as usize;
                let heat = colorous::INFERNO.eval_continuous(panel[cell] / top);
                blend(pixel(pixels, shape, u, v), [heat.r, heat.g, heat.b])
            });
        }
    }
    mark(&mut canvas, query, grid);
    let name = image.file_stem().map_or_else(|| "image".into(), |s| s.to_string_lossy());
    let path = dir.join(format!("{name}.png"));
    std::fs::create_dir_all(dir).map_err(|e| Failure::input(format!("cannot create {}: {e}", dir.display())))?;
    canvas.save(&path).map_err(|e| Failure::input(format!("cannot write {}: {e}", path.display())))?;
    Ok(path)
}

fn over_heads(sizes: &[usize], map: &[f32]) -> Vec<f64> {
    let (heads, area) = (sizes[1], sizes[2] * sizes[3]);
    (0..area).map(|i| (0..heads).map(|h| f64::from(map[h * area + i])).sum::<f64>() / heads as f64).collect()
}

fn column_means(map: &[f64], tokens: usize) -> Vec<f64> {
    (0..tokens).map(|m| (0..tokens).map(|n| map[n * tokens + m]).sum::<f64>() / tokens as f64).collect()
}

fn largest_index(values: &[f64]) -> usize {
    (0..values.len()).max_by(|&a, &b| values[a].total_cmp(&values[b])).unwrap_or(0)
}

/// The colour of the image at (u, v), both in 0..1.
fn pixel(pixels: &[f32], shape: ImageShape, u: f64, v: f64) -> [u8; 3] {
    let at = (v * shape.height as f64) as usize * shape.width + (u * shape.width as f64) as usize;
    let plane = shape.height * shape.width;
    std::array::from_fn(|c| (pixels[c.min(shape.channels - 1) * plane + at].clamp(0.0, 1.0) * 255.0) as u8)
}

fn blend(under: [u8; 3], over: [u8; 3]) -> [u8; 3] {
    std::array::from_fn(|c| (f64::from(under[c]) * 0.3 + f64::from(over[c]) * 0.7) as u8)
}

fn draw(canvas: &mut RgbImage, x: u32, y: u32, colour: impl Fn(f64, f64) -> [u8; 3]) {
    let (left, top) = (GAP + x * (PANEL + GAP), GAP + y * (PANEL + GAP));
    for v in 0..PANEL {
        for u in 0..PANEL {
            let centre = |i: u32| (f64::from(i) + 0.5) / f64::from(PANEL);
            canvas.put_pixel(left + u, top + v, Rgb(colour(centre(u), centre(v))));
        }
    }
}

/// A frame around the query's patch in the lower left panel.
fn mark(canvas: &mut RgbImage, query: usize, grid: usize) {
    let side = PANEL / grid as u32;
    let (left, top) = (GAP + (query % grid) as u32 * side, 2 * GAP + PANEL + (query / grid) as u32 * side);
    for i in 0..side {
        for thickness in 0..3.min(side) {
            for (x, y) in [(i, thickness), (i, side - 1 - thickness), (thickness, i), (side - 1 - thickness, i)] {
                canvas.put_pixel(left + x, top + y, Rgb([0, 200, 255]));
            }
        }
    }
}
