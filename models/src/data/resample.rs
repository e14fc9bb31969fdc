//! A part of a resized picture, without the rest of it.
//!
//! Resizing is separable: every row of the result is a weighted sum of a few rows of the source, every column one of a
//! few columns. So the part that is wanted says which rows and columns are needed, and nothing else is computed or held.

use std::ops::Range;

use image::{DynamicImage, Rgb, RgbImage, Rgba};

/// Catmull-Rom's reach to either side, in pixels of whichever of the two sizes is the coarser.
const SUPPORT: f32 = 2.0;

/// Sides up to here are placed in single precision, which is how the `image` crate resizes and how pictures have been
/// fitted from the beginning: they keep their values to the last bit. Beyond it single precision could not tell two
/// neighbours apart.
const SINGLE: u64 = 1 << 20;

/// The pixels that `part` covers of `picture` resized to `size`, [width, height] (Catmull-Rom, which is Pillow's
/// bicubic). Transparent pixels are laid over black.
///
/// Beyond the picture itself it holds as many numbers as the part has rows times the columns of the source that it
/// touches. The part lies inside the size, the picture has pixels.
pub(crate) fn resample(picture: &DynamicImage, size: [u64; 2], part: [Range<u64>; 2]) -> RgbImage {
    let [columns, rows] = part;
    let across = windows(picture.width(), size[0], columns);
    let down = windows(picture.height(), size[1], rows);
    let touched = touched(&across);
    let width = (touched.end - touched.start) as usize;
    // Vertically first, row by row of the source, which rounds as summing up the rows of each result would.
    let mut sums = vec![[0.0f32; 3]; down.len() * width];
    let mut open = 0;
    for y in self::touched(&down) {
        let row = rgb_row(picture, touched.clone(), y);
        while down[open].end() <= y {
            open += 1;
        }
        for (at, window) in down.iter().enumerate().skip(open).take_while(|(_, window)| window.begin <= y) {
            let weight = window.weights[(y - window.begin) as usize];
            for (sum, &Rgb(pixel)) in sums[at * width..][..width].iter_mut().zip(row.pixels()) {
                (0..3).for_each(|c| sum[c] += f32::from(pixel[c]) * weight);
            }
        }
    }
    RgbImage::from_fn(across.len() as u32, down.len() as u32, |x, y| {
        let window = &across[x as usize];
        let begin = y as usize * width + (window.begin - touched.start) as usize;
        let mut sum = [0.0f32; 3];
        for (value, weight) in sums[begin..].iter().zip(&window.weights) {
            (0..3).for_each(|c| sum[c] += value[c] * weight);
        }
        Rgb(sum.map(|value| value.clamp(0.0, 255.0).round() as u8))
    })
}

/// What one pixel of the result is made of: weights of `begin`, `begin + 1`, .. of the source, which sum to 1.
struct Window {
    begin: u32,
    weights: Vec<f32>,
}

impl Window {
    fn end(&self) -> u32 {
        self.begin + self.weights.len() as u32
    }
}

/// From the first to the last pixel of the source that is needed. Windows begin and end in the order of the pixels.
fn touched(windows: &[Window]) -> Range<u32> {
    windows.first().map_or(0, |window| window.begin)..windows.last().map_or(0, Window::end)
}

/// The windows of the pixels `wanted`, where a side of `from` pixels becomes one of `to`.
fn windows(from: u32, to: u64, wanted: Range<u64>) -> Vec<Window> {
    let ratio = f64::from(from) / to as f64;
    let single = u64::from(from).max(to) <= SINGLE;
    let single_ratio = from as f32 / to as f32;
    let coarser = if single { single_ratio.max(1.0) } else { (ratio as f32).max(1.0) };
    let reach = SUPPORT * coarser;
    let window = |at: u64| {
        // Positions of pixels are those of their centres.
        let (low, high, centre) = if single {
            let centre = (at as f32 + 0.5) * single_ratio;
            ((centre - reach).floor() as i64, (centre + reach).ceil() as i64, f64::from(centre - 0.5))
        } else {
            let centre = (at as f64 + 0.5) * ratio;
            let reach = f64::from(reach);
            ((centre - reach).floor() as i64, (centre + reach).ceil() as i64, centre - 0.5)
        };
        let begin = low.clamp(0, i64::from(from) - 1);
        let end = high.clamp(begin + 1, i64::from(from));
        let mut weights: Vec<f32> = (begin..end).map(|i| catmull_rom((i as f64 - centre) as f32 / coarser)).collect();
        let mut sum = 0.0;
        weights.iter().for_each(|weight| sum += weight);
        weights.iter_mut().for_each(|weight| *weight /= sum);
        Window { begin: begin as u32, weights }
    };
    wanted.map(window).collect()
}

/// The cubic convolution kernel with a = -1/2 (Keys, 1981), in the `image` crate's order of operations.
fn catmull_rom(x: f32) -> f32 {
    let x = x.abs();
    let sixfold = if x < 1.0 {
        9.0 * x.powi(3) - 15.0 * x.powi(2) + 6.0
    } else if x < 2.0 {
        -3.0 * x.powi(3) + 15.0 * x.powi(2) - 24.0 * x + 12.0
    } else {
        0.0
    };
    sixfold / 6.0
}

/// Part of a row of the picture.
fn rgb_row(picture: &DynamicImage, columns: Range<u32>, y: u32) -> RgbImage {
    let row = picture.crop_imm(columns.start, y, columns.end - columns.start, 1);
    if !row.color().has_alpha() {
        return row.into_rgb8();
    }
    let rgba = row.into_rgba8();
    RgbImage::from_fn(rgba.width(), rgba.height(), |x, y| {
        let Rgba([red, green, blue, alpha]) = *rgba.get_pixel(x, y);
        let lay = |value: u8| ((u16::from(value) * u16::from(alpha) + 127) / 255) as u8;
        Rgb([lay(red), lay(green), lay(blue)])
    })
}
