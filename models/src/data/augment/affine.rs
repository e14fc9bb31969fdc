//! Shears, shifts and rotations as Pillow's `Image.transform` computes them, value for value.

use fearless_simd::{Simd, dispatch, f64x4};
use serde::{Deserialize, Serialize};

use crate::data::picture::Picture;
use crate::data::vectors::level;
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
        1 => dispatch!(level(), simd => moved::<1>(simd, picture, matrix, interpolation, fill)),
        _ => dispatch!(level(), simd => moved::<3>(simd, picture, matrix, interpolation, fill)),
    }
}

#[inline(always)]
fn moved<const C: usize>(
    simd: impl Simd,
    picture: &Picture,
    [a, b, c, d, e, f]: [f64; 6],
    interpolation: Filter,
    fill: &[u8],
) -> Picture {
    let source = Source::of::<C>(picture);
    let (columns, rows) = (picture.width() as usize, picture.height() as usize);
    let (width, height) = (columns as f64, rows as f64);
    let fill: [u8; C] = std::array::from_fn(|channel| fill[channel.min(fill.len() - 1)]);
    let mut pixels = vec![fill; columns * rows];
    for (row, to) in pixels.chunks_exact_mut(columns).enumerate() {
        for (column, to) in to.iter_mut().enumerate() {
            let (x, y) = (column as f64 + 0.5, row as f64 + 0.5);
            let (x, y) = (a * x + b * y + c, d * x + e * y + f);
            if (0.0..width).contains(&x) && (0.0..height).contains(&y) {
                let values = match interpolation {
                    Filter::Bilinear => source.bilinear(simd, x - 0.5, y - 0.5),
                    Filter::Bicubic => source.bicubic(simd, x - 0.5, y - 0.5),
                };
                for (to, value) in to.iter_mut().zip(simd.as_array_f64x4(values)) {
                    *to = value.clamp(0.0, 255.0) as u8;
                }
            }
        }
    }
    Picture::of(picture.width(), picture.height(), C, pixels.into_flattened())
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
#[inline(always)]
fn split(position: f64) -> (isize, f64) {
    let whole = position.floor();
    (whole as isize, position - whole)
}

/// Pixels that the border of a picture is repeated beyond it: as far as anything is looked at from within.
const BORDER: usize = 2;

/// The channels of a pixel, and what fills a vector up.
const LANES: usize = 4;

/// A picture with its border.
struct Source {
    pixels: Vec<[u8; LANES]>,
    width: usize,
}

impl Source {
    fn of<const C: usize>(picture: &Picture) -> Self {
        let (width, height) = (picture.width() as usize, picture.height() as usize);
        let mut pixels = Vec::with_capacity((width + 2 * BORDER) * (height + 2 * BORDER));
        let inside = picture.pixels().as_chunks::<C>().0;
        let lanes = |pixel: &[u8; C]| {
            let mut lanes = [0; LANES];
            lanes[..C].copy_from_slice(pixel);
            lanes
        };
        for y in 0..height + 2 * BORDER {
            let row = &inside[y.saturating_sub(BORDER).min(height - 1) * width..][..width];
            pixels.extend([lanes(&row[0]); BORDER]);
            pixels.extend(row.iter().map(lanes));
            pixels.extend([lanes(&row[width - 1]); BORDER]);
        }
        Self { pixels, width: width + 2 * BORDER }
    }

    /// `N` pixels of row `y` from column `x` on.
    #[inline(always)]
    fn taps<S: Simd, const N: usize>(&self, simd: S, x: isize, y: isize) -> [f64x4<S>; N] {
        let at = (y + BORDER as isize) as usize * self.width + (x + BORDER as isize) as usize;
        let pixels = self.pixels[at..].first_chunk().unwrap_or(&[[0; LANES]; N]);
        let mut taps = [simd.splat_f64x4(0.0); N];
        for (tap, &[a, b, c, d]) in taps.iter_mut().zip(pixels) {
            *tap = simd.load_array_f64x4([f64::from(a), f64::from(b), f64::from(c), f64::from(d)]);
        }
        taps
    }

    #[inline(always)]
    fn bilinear<S: Simd>(&self, simd: S, x: f64, y: f64) -> f64x4<S> {
        let ((left, dx), (top, dy)) = (split(x), split(y));
        let [above, below] = [self.taps(simd, left, top), self.taps(simd, left, top + 1)];
        let [above, below] = [linear(above, simd.splat_f64x4(dx)), linear(below, simd.splat_f64x4(dx))];
        linear([above, below], simd.splat_f64x4(dy))
    }

    /// Within row `y`, a share `dx` beyond column `left`.
    #[inline(always)]
    fn across<S: Simd>(&self, simd: S, left: isize, dx: f64, y: isize) -> f64x4<S> {
        // On a column, and on a row below, the others count nothing: shears and shifts need a quarter of the work.
        if dx == 0.0 {
            let [tap] = self.taps(simd, left, y);
            return tap;
        }
        cubic(self.taps(simd, left - 1, y), simd.splat_f64x4(dx))
    }

    #[inline(always)]
    fn bicubic<S: Simd>(&self, simd: S, x: f64, y: f64) -> f64x4<S> {
        let ((left, dx), (top, dy)) = (split(x), split(y));
        let here = self.across(simd, left, dx, top);
        if dy == 0.0 {
            return here;
        }
        let above = self.across(simd, left, dx, top - 1);
        let below = self.across(simd, left, dx, top + 1);
        let last = self.across(simd, left, dx, top + 2);
        cubic([above, here, below, last], simd.splat_f64x4(dy))
    }
}

/// Between two values.
#[inline(always)]
fn linear<S: Simd>([a, b]: [f64x4<S>; 2], t: f64x4<S>) -> f64x4<S> {
    a + (b - a) * t
}

/// Between the second and the third of four values.
#[inline(always)]
fn cubic<S: Simd>([v1, v2, v3, v4]: [f64x4<S>; 4], t: f64x4<S>) -> f64x4<S> {
    let p2 = v3 - v1;
    let p3 = (v1 - v2) * 2.0 + v3 - v4;
    let p4 = v2 - v1 - v3 + v4;
    v2 + t * (p2 + t * (p3 + t * p4))
}
