//! Shears, shifts and rotations as Pillow's `Image.transform` computes them, value for value.

use serde::{Deserialize, Serialize};

use crate::data::picture::Picture;
use crate::random::Draws;

/// How a value between pixels is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Filter {
    /// From 2x2 pixels.
    Bilinear,
    /// From 4x4 pixels, by the cubic convolution with a = -1 (resizing has -1/2: so it is in Pillow).
    Bicubic,
}

impl Filter {
    /// One of the two.
    pub(crate) fn draw(draws: &mut Draws) -> Self {
        if draws.chance(0.5) { Self::Bilinear } else { Self::Bicubic }
    }
}

/// The picture whose pixel (x, y) is the one at (a (x + 1/2) + b (y + 1/2) + c, d (x + 1/2) + e (y + 1/2) + f) of `picture`,
/// for `matrix` [a, b, c, d, e, f]; `fill` (one value a channel) where that lies outside.
pub fn affine(picture: &Picture, matrix: [f64; 6], interpolation: Filter, fill: &[u8]) -> Picture {
    let [a, b, c, d, e, f] = matrix;
    let (width, height) = (f64::from(picture.width()), f64::from(picture.height()));
    picture.map_pixels(|row, column, to| {
        let (x, y) = (column as f64 + 0.5, row as f64 + 0.5);
        let (x, y) = (a * x + b * y + c, d * x + e * y + f);
        if !(0.0..width).contains(&x) || !(0.0..height).contains(&y) {
            to.iter_mut().enumerate().for_each(|(channel, to)| *to = fill[channel.min(fill.len() - 1)]);
        } else {
            match interpolation {
                Filter::Bilinear => bilinear(picture, x - 0.5, y - 0.5, to),
                Filter::Bicubic => bicubic(picture, x - 0.5, y - 0.5, to),
            }
        }
    })
}

/// Turned about the centre, counter-clockwise for positive `degrees`. Half turns, and quarter turns of squares, move pixels
/// without mixing them.
pub fn rotate(picture: &Picture, degrees: f64, interpolation: Filter, fill: &[u8]) -> Picture {
    let degrees = degrees.rem_euclid(360.0);
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    if degrees == 0.0 {
        return picture.clone();
    }
    if degrees == 180.0 {
        return picture.flip_horizontally().flip_vertically();
    }
    if width == height && degrees == 90.0 {
        return picture.map_pixels(|y, x, to| to.copy_from_slice(picture.pixel(x, width - 1 - y)));
    }
    if width == height && degrees == 270.0 {
        return picture.map_pixels(|y, x, to| to.copy_from_slice(picture.pixel(height - 1 - x, y)));
    }
    let (sin, cos) = (-degrees.to_radians()).sin_cos();
    let (sin, cos) = (to_15_digits(sin), to_15_digits(cos));
    let (x, y) = (width as f64 / 2.0, height as f64 / 2.0);
    // `0.0 +` as in Pillow's sums: a zero keeps its sign.
    let c = cos * -x + sin * -y + 0.0 + x;
    let f = -sin * -x + cos * -y + 0.0 + y;
    affine(picture, [cos, sin, c, -sin, cos, f], interpolation, fill)
}

/// Rounded to 15 decimal places, as Python rounds: correctly, the nearest of them.
fn to_15_digits(value: f64) -> f64 {
    format!("{value:.15}").parse().unwrap_or(value)
}

/// The pixel left of (or on) a position, and how far the position lies beyond it.
fn split(position: f64) -> (isize, f64) {
    let whole = position.floor();
    (whole as isize, position - whole)
}

/// A row or column, or the edge where it lies beyond.
fn at_edge(at: isize, size: usize) -> usize {
    at.clamp(0, size as isize - 1) as usize
}

fn bilinear(picture: &Picture, x: f64, y: f64, to: &mut [u8]) {
    let ((left, dx), (top, dy)) = (split(x), split(y));
    let columns = [left, left + 1].map(|x| at_edge(x, picture.width() as usize));
    let rows = [top, top + 1].map(|y| at_edge(y, picture.height() as usize));
    let between = |a: f64, b: f64, t: f64| a + (b - a) * t;
    for (channel, to) in to.iter_mut().enumerate() {
        let [above, below] = rows.map(|y| {
            let [a, b] = columns.map(|x| f64::from(picture.pixel(y, x)[channel]));
            between(a, b, dx)
        });
        *to = between(above, below, dy) as u8;
    }
}

fn bicubic(picture: &Picture, x: f64, y: f64, to: &mut [u8]) {
    let ((left, dx), (top, dy)) = (split(x), split(y));
    let columns = [-1, 0, 1, 2].map(|by| at_edge(left + by, picture.width() as usize));
    let rows = [-1, 0, 1, 2].map(|by| at_edge(top + by, picture.height() as usize));
    for (channel, to) in to.iter_mut().enumerate() {
        let across = |y: usize| {
            if dx == 0.0 {
                return f64::from(picture.pixel(y, columns[1])[channel]);
            }
            cubic(columns.map(|x| f64::from(picture.pixel(y, x)[channel])), dx)
        };
        // On a row the others count nothing: shears and shifts along it need a quarter of the work.
        let value = if dy == 0.0 { across(rows[1]) } else { cubic(rows.map(across), dy) };
        *to = value.clamp(0.0, 255.0) as u8;
    }
}

/// Between the second and the third of four values.
fn cubic([v1, v2, v3, v4]: [f64; 4], t: f64) -> f64 {
    let p2 = -v1 + v3;
    let p3 = 2.0 * (v1 - v2) + v3 - v4;
    let p4 = -v1 + v2 - v3 + v4;
    v2 + t * (p2 + t * (p3 + t * p4))
}
