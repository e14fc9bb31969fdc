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
    match picture.channels() {
        1 => moved::<1>(picture, matrix, interpolation, fill),
        _ => moved::<3>(picture, matrix, interpolation, fill),
    }
}

fn moved<const C: usize>(picture: &Picture, matrix: [f64; 6], interpolation: Filter, fill: &[u8]) -> Picture {
    let [a, b, c, d, e, f] = matrix;
    let source = Source::<C>::of(picture);
    let (width, height) = (source.width as f64, source.height as f64);
    let fill: [u8; C] = std::array::from_fn(|channel| fill[channel.min(fill.len() - 1)]);
    let mut out = picture.clone();
    for (row, to) in out.pixels_mut().as_chunks_mut::<C>().0.chunks_exact_mut(source.width).enumerate() {
        for (column, to) in to.iter_mut().enumerate() {
            let (x, y) = (column as f64 + 0.5, row as f64 + 0.5);
            let (x, y) = (a * x + b * y + c, d * x + e * y + f);
            *to = if !(0.0..width).contains(&x) || !(0.0..height).contains(&y) {
                fill
            } else if interpolation == Filter::Bilinear {
                source.bilinear(x - 0.5, y - 0.5)
            } else {
                source.bicubic(x - 0.5, y - 0.5)
            };
        }
    }
    out
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

/// What is looked at, all channels of a pixel together.
struct Source<'a, const C: usize> {
    pixels: &'a [[u8; C]],
    width: usize,
    height: usize,
}

impl<'a, const C: usize> Source<'a, C> {
    fn of(picture: &'a Picture) -> Self {
        let (width, height) = (picture.width() as usize, picture.height() as usize);
        Self { pixels: picture.pixels().as_chunks::<C>().0, width, height }
    }

    fn row(&self, y: isize) -> &'a [[u8; C]] {
        &self.pixels[at_edge(y, self.height) * self.width..][..self.width]
    }

    fn bilinear(&self, x: f64, y: f64) -> [u8; C] {
        let ((left, dx), (top, dy)) = (split(x), split(y));
        let columns = [left, left + 1].map(|x| at_edge(x, self.width));
        let between = |a: f64, b: f64, t: f64| a + (b - a) * t;
        let [above, below] = [top, top + 1].map(|y| {
            let [a, b] = columns.map(|x| self.row(y)[x]);
            std::array::from_fn::<f64, C, _>(|c| between(f64::from(a[c]), f64::from(b[c]), dx))
        });
        std::array::from_fn(|c| between(above[c], below[c], dy) as u8)
    }

    fn bicubic(&self, x: f64, y: f64) -> [u8; C] {
        let ((left, dx), (top, dy)) = (split(x), split(y));
        let columns = [-1, 0, 1, 2].map(|by| at_edge(left + by, self.width));
        let across = |by: isize| -> [f64; C] {
            let row = self.row(top + by);
            // On a column, and on a row below, the others count nothing: shears and shifts need a quarter of the work.
            if dx == 0.0 {
                return row[columns[1]].map(f64::from);
            }
            let taps = columns.map(|x| row[x]);
            std::array::from_fn(|c| cubic(taps.map(|tap| f64::from(tap[c])), dx))
        };
        let values = if dy == 0.0 {
            across(0)
        } else {
            let rows = [-1, 0, 1, 2].map(across);
            std::array::from_fn(|c| cubic(rows.map(|row| row[c]), dy))
        };
        values.map(|value| value.clamp(0.0, 255.0) as u8)
    }
}

/// Between the second and the third of four values.
fn cubic([v1, v2, v3, v4]: [f64; 4], t: f64) -> f64 {
    let p2 = -v1 + v3;
    let p3 = 2.0 * (v1 - v2) + v3 - v4;
    let p4 = -v1 + v2 - v3 + v4;
    v2 + t * (p2 + t * (p3 + t * p4))
}
