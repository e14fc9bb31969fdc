//! Resizing as Pillow computes it, level for level: the whole, or a part of the result without the rest of it.
//!
//! Resizing is separable: a row of the result is a weighted sum of a few rows of the source, a column one of a few
//! columns. Pillow first resizes every row to bytes, then every column of those, with integer weights; so a picture
//! comes out the same here only in that order and with that rounding (Pillow's Resample.c and Geometry.c). Pillow 13
//! resizes some shapes in the other order, and there differs by a few levels from itself up to 12, with which the models
//! were trained and measured.

use std::collections::VecDeque;
use std::f64::consts::PI;
use std::ops::Range;

use fearless_simd::{Simd, dispatch};
use serde::{Deserialize, Serialize};

use super::Picture;
use crate::data::vectors::level;

/// How a picture is resized; names and numbers are Pillow's. All but `nearest` look at every pixel of the source when
/// they shrink.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Interpolation {
    /// One pixel of the source.
    Nearest,
    /// The mean of the pixels that fall together.
    Box,
    /// A triangle.
    Bilinear,
    /// Sharper than a triangle, of the same reach.
    Hamming,
    /// Keys' cubic with a = -1/2.
    #[default]
    Bicubic,
    /// A sinc within a sinc, three lobes.
    Lanczos,
}

impl Interpolation {
    /// All of them, in the order of their numbers in Pillow: `PIL.Image.Resampling`.
    pub const ALL: [Self; 6] = [Self::Nearest, Self::Lanczos, Self::Bilinear, Self::Bicubic, Self::Box, Self::Hamming];

    /// Its name in configurations, which is timm's.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nearest => "nearest",
            Self::Box => "box",
            Self::Bilinear => "bilinear",
            Self::Hamming => "hamming",
            Self::Bicubic => "bicubic",
            Self::Lanczos => "lanczos",
        }
    }

    /// How far it looks to either side, in pixels of whichever of the two sizes is the coarser.
    fn support(self) -> f64 {
        match self {
            Self::Nearest => 0.0,
            Self::Box => 0.5,
            Self::Bilinear | Self::Hamming => 1.0,
            Self::Bicubic => 2.0,
            Self::Lanczos => 3.0,
        }
    }

    /// Its weight at a distance, before the weights are made to sum to 1.
    fn weight(self, x: f64) -> f64 {
        let sinc = |x: f64| if x == 0.0 { 1.0 } else { (x * PI).sin() / (x * PI) };
        let distance = x.abs();
        match self {
            Self::Nearest => 1.0,
            Self::Box => f64::from(u8::from(x > -0.5 && x <= 0.5)),
            Self::Bilinear => (1.0 - distance).max(0.0),
            Self::Hamming if distance == 0.0 => 1.0,
            Self::Hamming if distance < 1.0 => {
                let angle = distance * PI;
                angle.sin() / angle * (0.54 + 0.46 * angle.cos())
            }
            Self::Bicubic if distance < 1.0 => (1.5 * distance - 2.5) * distance * distance + 1.0,
            Self::Bicubic if distance < 2.0 => (((distance - 5.0) * distance + 8.0) * distance - 4.0) * -0.5,
            Self::Lanczos if (-3.0..3.0).contains(&x) => sinc(x) * sinc(x / 3.0),
            Self::Hamming | Self::Bicubic | Self::Lanczos => 0.0,
        }
    }
}

/// What is made of a picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Resize {
    /// The size that it gets, [width, height].
    pub size: [u64; 2],
    /// How.
    pub interpolation: Interpolation,
    /// A part of the picture, [left, top, width, height], that is cut out first: nothing outside is looked at.
    pub window: Option<[u32; 4]>,
    /// Pillow's `box` within the window, [left, top, right, bottom]: this becomes the size, but pixels beyond its edges
    /// are looked at.
    pub region: Option<[f32; 4]>,
    /// The columns and rows of the result that are wanted; the others are neither computed nor held.
    pub part: Option<[Range<u64>; 2]>,
}

impl Resize {
    /// All of a picture to a size, [width, height].
    pub fn to(size: [u64; 2], interpolation: Interpolation) -> Self {
        Self { size, interpolation, window: None, region: None, part: None }
    }

    /// The pixels of `picture`, resized.
    ///
    /// Beyond the picture and the result it holds a few rows of the result and their weights. What reaches beyond the
    /// picture or the result is cut off; a size of 0 counts as 1.
    pub fn apply(&self, picture: &Picture) -> Picture {
        let view = View::of(picture, self.window.unwrap_or([0, 0, u32::MAX, u32::MAX]));
        let region = self.region.map(|[left, top, right, bottom]| [[left, right], [top, bottom]]);
        let axis =
            |i: usize| Axis::new(view.size[i], self.size[i].max(1), region.map(|region| region[i]), self.interpolation);
        let wanted = |i: usize| {
            let all = self.size[i].max(1);
            let Range { start, end } = self.part.as_ref().map_or(0..all, |part| part[i].clone());
            start.min(all - 1)..end.clamp(start.min(all - 1) + 1, all)
        };
        let (axes, parts) = ([axis(0), axis(1)], [wanted(0), wanted(1)]);
        if self.interpolation == Interpolation::Nearest {
            return nearest(&view, &axes, parts);
        }
        match picture.channels() {
            1 => filtered::<1, 1, 8>(&view, &axes, parts),
            _ => filtered::<3, 4, 2>(&view, &axes, parts),
        }
    }
}

/// A window of a picture.
struct View<'a> {
    pixels: &'a [u8],
    channels: usize,
    /// Bytes from row to row.
    stride: usize,
    corner: [usize; 2],
    size: [u32; 2],
}

impl<'a> View<'a> {
    fn of(picture: &'a Picture, [left, top, width, height]: [u32; 4]) -> Self {
        let (left, top) = (left.min(picture.width() - 1), top.min(picture.height() - 1));
        Self {
            pixels: picture.pixels(),
            channels: picture.channels(),
            stride: picture.width() as usize * picture.channels(),
            corner: [left as usize, top as usize],
            size: [width.clamp(1, picture.width() - left), height.clamp(1, picture.height() - top)],
        }
    }

    /// Row `y` from column `from` on.
    fn row(&self, y: u32, from: u32) -> &'a [u8] {
        let begin = (self.corner[1] + y as usize) * self.stride;
        let column = self.corner[0] + from as usize;
        &self.pixels[begin + column * self.channels..begin + self.stride]
    }
}

/// How one side becomes another.
struct Axis {
    from: u32,
    to: u64,
    /// Where the region begins, and pixels of the source for one of the result.
    begin: f64,
    scale: f64,
    interpolation: Interpolation,
    /// Nothing changes along this side.
    same: bool,
}

/// What one pixel of the result is made of: weights of `begin`, `begin + 1`, .. of the source, which sum to 1.
struct Taps {
    begin: u32,
    weights: Vec<i32>,
}

/// Fractional bits of a weight. A byte times a weight leaves two bits of an i32: as the absolute weights of one pixel
/// sum to less than 2, no sum overflows.
const PRECISION: u32 = 22;
const HALF: i32 = 1 << (PRECISION - 1);

impl Axis {
    fn new(from: u32, to: u64, region: Option<[f32; 2]>, interpolation: Interpolation) -> Self {
        let whole = region.is_none_or(|[begin, end]| begin == 0.0 && f64::from(end) == f64::from(from));
        // Pillow subtracts in single precision.
        let (begin, length) = match region {
            Some([begin, end]) if !whole => (f64::from(begin), f64::from(end - begin)),
            _ => (0.0, f64::from(from)),
        };
        Self { from, to, begin, scale: length / to as f64, interpolation, same: whole && u64::from(from) == to }
    }

    /// How many pixels of the source make one of the result, if the filter shrinks.
    fn coarser(&self) -> f64 {
        self.scale.max(1.0)
    }

    fn centre(&self, at: u64) -> f64 {
        self.begin + (at as f64 + 0.5) * self.scale
    }

    /// The pixels of the source that pixel `at` of the result is made of. They begin and end in the order of `at`.
    fn reach(&self, at: u64) -> Range<u32> {
        if self.same {
            return at as u32..at as u32 + 1;
        }
        let (centre, support) = (self.centre(at), self.interpolation.support() * self.coarser());
        // Casts cut off below 0, as C's do after Pillow's test.
        let begin = ((centre - support + 0.5) as u32).min(self.from - 1);
        begin..((centre + support + 0.5) as u32).clamp(begin + 1, self.from)
    }

    fn taps(&self, at: u64) -> Taps {
        let reach = self.reach(at);
        if self.same {
            return Taps { begin: reach.start, weights: vec![1 << PRECISION] };
        }
        let (centre, finer) = (self.centre(at), 1.0 / self.coarser());
        let weights: Vec<f64> =
            reach.clone().map(|i| self.interpolation.weight((f64::from(i) - centre + 0.5) * finer)).collect();
        let sum: f64 = weights.iter().sum();
        let scale = if sum == 0.0 { 1.0 } else { sum };
        let fixed = |weight: f64| {
            let weight = weight / scale * f64::from(1 << PRECISION);
            (weight + 0.5f64.copysign(weight)) as i32
        };
        Taps { begin: reach.start, weights: weights.into_iter().map(fixed).collect() }
    }

    /// Most weights of one pixel.
    fn most_taps(&self) -> usize {
        (2.0 * self.interpolation.support() * self.coarser()) as usize + 2
    }
}

#[inline(always)]
fn rounded(sum: i32) -> u8 {
    (sum >> PRECISION).clamp(0, 255) as u8
}

/// Weights of columns that are held at once.
const WEIGHTS_MAX: usize = 1 << 20;

/// The result in upright strips, as wide as their weights may take memory: almost always one.
fn filtered<const C: usize, const STEP: usize, const ROWS: usize>(
    view: &View<'_>,
    [across, down]: &[Axis; 2],
    [columns, rows]: [Range<u64>; 2],
) -> Picture {
    let [width, height] = [&columns, &rows].map(|part| (part.end - part.start) as usize);
    let mut pixels = vec![0; width * height * C];
    let columns: Vec<u64> = columns.collect();
    let strip_width = (WEIGHTS_MAX / across.most_taps()).max(1);
    for (i, strip) in columns.chunks(strip_width).enumerate() {
        let strip = Strip { taps: strip.iter().map(|&x| across.taps(x)).collect(), same: across.same };
        stacked::<C, STEP, ROWS>(view, &strip, down, rows.clone(), |y, sums| {
            let out = &mut pixels[(y * width + i * strip_width) * C..];
            out.iter_mut().zip(sums).for_each(|(out, &sum)| *out = rounded(sum));
        });
    }
    Picture::of(width as u32, height as u32, C, pixels)
}

/// Columns of the result that are computed together.
struct Strip {
    taps: Vec<Taps>,
    same: bool,
}

/// Numbers of 32 bits that are computed together: of `ROWS` rows one pixel each, which has `STEP` places for its `C` channels.
const LANES: usize = 8;

impl Strip {
    /// The columns of the source that count.
    fn reach(&self) -> Range<u32> {
        let [first, last] = [0, self.taps.len() - 1].map(|at| &self.taps[at]);
        first.begin..last.begin + last.weights.len() as u32
    }

    /// Narrows rows of the source (the columns that count) to `taps.len()` pixels each. `woven` is filled with the
    /// pixels of all rows, column by column.
    fn narrow<const C: usize, const STEP: usize, const ROWS: usize>(
        &self,
        rows: [&[[u8; C]]; ROWS],
        woven: &mut [[u8; LANES]],
        out: &mut [Vec<[u8; C]>; ROWS],
    ) {
        if self.same {
            out.iter_mut().zip(rows).for_each(|(out, row)| out.copy_from_slice(row));
            return;
        }
        let out = out.each_mut().map(|out| &mut out[..]);
        dispatch!(level(), simd => {
            weave::<C, STEP, ROWS>(rows, woven);
            weigh::<C, STEP, ROWS>(simd, &self.taps, woven, out)
        });
    }
}

/// Puts the pixels of all rows beside each other, column by column.
#[inline(always)]
fn weave<const C: usize, const STEP: usize, const ROWS: usize>(rows: [&[[u8; C]]; ROWS], woven: &mut [[u8; LANES]]) {
    let rows = rows.map(|row| &row[..woven.len()]);
    for (i, lanes) in woven.iter_mut().enumerate() {
        for (lanes, row) in lanes.as_chunks_mut::<STEP>().0.iter_mut().zip(rows) {
            lanes[..C].copy_from_slice(&row[i]);
        }
    }
}

/// The weighted sums of columns, rounded to levels.
#[inline(always)]
fn weigh<const C: usize, const STEP: usize, const ROWS: usize>(
    simd: impl Simd,
    taps: &[Taps],
    woven: &[[u8; LANES]],
    mut out: [&mut [[u8; C]]; ROWS],
) {
    let first = taps[0].begin;
    for (x, taps) in taps.iter().enumerate() {
        let mut sums = simd.splat_i32x8(HALF);
        for (&weight, lanes) in taps.weights.iter().zip(&woven[(taps.begin - first) as usize..]) {
            let values = simd.load_array_i32x8(lanes.map(i32::from));
            sums = simd.add_i32x8(sums, simd.mul_i32x8(simd.splat_i32x8(weight), values));
        }
        let levels = simd.as_array_i32x8(sums).map(rounded);
        for (out, levels) in out.iter_mut().zip(levels.as_chunks::<STEP>().0) {
            out[x].copy_from_slice(&levels[..C]);
        }
    }
}

/// Sums for every row of `rows`, of rows of the source that the strip makes narrow. A row of the source is read once and
/// added to the few rows that are open, so that nothing grows with the picture.
fn stacked<const C: usize, const STEP: usize, const ROWS: usize>(
    view: &View<'_>,
    strip: &Strip,
    down: &Axis,
    rows: Range<u64>,
    mut done: impl FnMut(usize, &[i32]),
) {
    let (reach, width) = (strip.reach(), strip.taps.len());
    let mut woven = vec![[0; LANES]; if strip.same { 0 } else { reach.len() }];
    let mut narrowed: [Vec<[u8; C]>; ROWS] = std::array::from_fn(|_| vec![[0; C]; width]);
    let mut open: VecDeque<(Taps, Vec<i32>)> = VecDeque::new();
    let (mut next, mut finished) = (rows.start, 0);
    let last = down.reach(rows.end - 1).end;
    for y in (down.reach(rows.start).start..last).step_by(ROWS) {
        let beyond = y.saturating_add(ROWS as u32);
        while next < rows.end && down.reach(next).start < beyond {
            open.push_back((down.taps(next), vec![HALF; width * C]));
            next += 1;
        }
        // Of rows beyond the last one nothing is added.
        let sources = std::array::from_fn(|r| {
            &view.row((y + r as u32).min(last - 1), reach.start).as_chunks::<C>().0[..reach.len()]
        });
        strip.narrow::<C, STEP, ROWS>(sources, &mut woven, &mut narrowed);
        for (taps, sums) in &mut open {
            let weight =
                |r: usize| (y as usize + r).checked_sub(taps.begin as usize).and_then(|at| taps.weights.get(at));
            let weights = std::array::from_fn(|r| weight(r).copied().unwrap_or(0));
            let rows = narrowed.each_ref().map(|row| row.as_flattened());
            dispatch!(level(), _ => add_rows(rows, weights, sums));
        }
        while let Some((_, sums)) = open.pop_front_if(|(taps, _)| taps.begin + taps.weights.len() as u32 <= beyond) {
            done(finished, &sums);
            finished += 1;
        }
    }
}

/// Adds weighted rows to sums.
#[inline(always)]
fn add_rows<const ROWS: usize>(rows: [&[u8]; ROWS], weights: [i32; ROWS], sums: &mut [i32]) {
    let rows = rows.map(|row| &row[..sums.len()]);
    for (i, sum) in sums.iter_mut().enumerate() {
        for (row, weight) in rows.iter().zip(weights) {
            *sum = sum.wrapping_add(weight.wrapping_mul(i32::from(row[i])));
        }
    }
}

/// Pillow adds the scale up from pixel to pixel, which decides where a pixel falls on an edge. Beyond this many it is
/// multiplied.
const ADDED_MAX: u64 = 1 << 24;

fn nearest(view: &View<'_>, axes: &[Axis; 2], parts: [Range<u64>; 2]) -> Picture {
    let [columns, rows] = [0, 1].map(|i| {
        let (axis, part) = (&axes[i], &parts[i]);
        let pixel = |position: f64| (position as u32).min(axis.from - 1);
        if axis.to > ADDED_MAX {
            return part.clone().map(|at| pixel(axis.centre(at))).collect::<Vec<u32>>();
        }
        let first = axis.begin + axis.scale * 0.5;
        let positions = std::iter::successors(Some(first), |position| Some(position + axis.scale));
        positions.skip(part.start as usize).take((part.end - part.start) as usize).map(pixel).collect()
    });
    let channels = view.channels;
    let mut pixels = Vec::with_capacity(rows.len() * columns.len() * channels);
    for &y in &rows {
        let row = view.row(y, 0);
        columns.iter().for_each(|&x| pixels.extend_from_slice(&row[x as usize * channels..][..channels]));
    }
    Picture::of(columns.len() as u32, rows.len() as u32, channels, pixels)
}
