//! Mixup (Zhang et al. 2018) and CutMix (Yun et al. 2019) of a batch, with timm's rules: image i is mixed with image
//! B - 1 - i.

use serde::{Deserialize, Serialize};

use crate::data::ImageShape;
use crate::random::Draws;

/// What is drawn anew for what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MixupMode {
    /// Once for the batch.
    #[default]
    Batch,
    /// For every two images that are mixed with each other.
    Pair,
    /// For every image.
    Elem,
}

/// How batches are mixed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mixup {
    /// Both parameters of the beta distribution of Mixup's weight; 0 for no Mixup.
    pub alpha: f64,
    /// The same for CutMix; 0 for no CutMix.
    pub cutmix_alpha: f64,
    /// Smallest and largest side of CutMix's rectangle as a share of the image's, instead of an area that is drawn.
    pub cutmix_minmax: Option<[f64; 2]>,
    /// Probability that anything is mixed.
    pub prob: f64,
    /// Probability of CutMix where both are on.
    pub switch_prob: f64,
    /// What is drawn anew for what.
    pub mode: MixupMode,
}

/// How much of an image stays, and how the rest comes in.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mix {
    Nothing,
    Blend(f64),
    /// Rows from and to, columns from and to.
    Paste([usize; 4]),
}

impl Mixup {
    /// Mixes images [B, C, H, W] in place; returns how much of each stays, in 0..1: its label counts as much, and that of
    /// image B - 1 - i the rest.
    pub fn apply(&self, images: &mut [f32], shape: ImageShape, draws: &mut Draws) -> Vec<f32> {
        let count = images.len() / shape.len();
        let mixes = match self.mode {
            MixupMode::Batch => vec![self.draw(shape, draws); count],
            MixupMode::Elem => (0..count).map(|_| self.draw(shape, draws)).collect(),
            MixupMode::Pair => {
                let mut half: Vec<Mix> = (0..count.div_ceil(2)).map(|_| self.draw(shape, draws)).collect();
                half.extend_from_within(..count / 2);
                half[count.div_ceil(2)..].reverse();
                half
            }
        };
        for first in 0..count / 2 {
            let (before, after) = images.split_at_mut((count - 1 - first) * shape.len());
            let (a, b) = (&mut before[first * shape.len()..][..shape.len()], &mut after[..shape.len()]);
            mix(a, b, [mixes[first], mixes[count - 1 - first]], shape);
        }
        mixes.iter().map(|mix| mix.weight(shape)).collect()
    }

    fn draw(&self, shape: ImageShape, draws: &mut Draws) -> Mix {
        let cutmix_alpha = if self.cutmix_minmax.is_some() { 1.0 } else { self.cutmix_alpha };
        let is_mixed = draws.chance(self.prob);
        let is_cut = draws.chance(self.switch_prob);
        let is_cut = cutmix_alpha > 0.0 && (self.alpha <= 0.0 || is_cut);
        let alpha = if is_cut { cutmix_alpha } else { self.alpha };
        if !is_mixed || alpha <= 0.0 {
            return Mix::Nothing;
        }
        let weight = draws.beta(alpha);
        match self.cutmix_minmax {
            _ if !is_cut => Mix::Blend(weight),
            Some(sides) => Mix::Paste(within(sides, shape, draws)),
            None => Mix::Paste(rectangle(weight, shape, draws)),
        }
    }
}

impl Mix {
    fn weight(self, shape: ImageShape) -> f32 {
        match self {
            Mix::Nothing => 1.0,
            Mix::Blend(weight) => weight as f32,
            // What the rectangle really covers: the edges may have cut it.
            Mix::Paste([top, bottom, left, right]) => {
                1.0 - ((bottom - top) * (right - left)) as f32 / (shape.height * shape.width) as f32
            }
        }
    }
}

/// About a share 1 - `weight` of the image, around a pixel of it; what lies beyond the edges is lost.
fn rectangle(weight: f64, shape: ImageShape, draws: &mut Draws) -> [usize; 4] {
    let side = (1.0 - weight).sqrt();
    let mut range = |size: usize| {
        // Half to either side: an odd length loses a pixel, as in the timm that DeiT was trained with.
        let half = (size as f64 * side) as usize / 2;
        let centre = draws.below(size as u32) as usize;
        [centre.saturating_sub(half), (centre + half).min(size)]
    };
    let ([top, bottom], [left, right]) = (range(shape.height), range(shape.width));
    [top, bottom, left, right]
}

/// With sides between two shares of the image's, somewhere inside.
fn within(sides: [f64; 2], shape: ImageShape, draws: &mut Draws) -> [usize; 4] {
    let mut range = |size: usize| {
        let [least, most] = sides.map(|share| (size as f64 * share) as usize);
        let length = least + draws.below(most.saturating_sub(least) as u32) as usize;
        let begin = draws.below((size - length) as u32 + 1) as usize;
        [begin, begin + length]
    };
    let ([top, bottom], [left, right]) = (range(shape.height), range(shape.width));
    [top, bottom, left, right]
}

/// Mixes two images with each other, each in its own way, from what both were: row by row.
fn mix(a: &mut [f32], b: &mut [f32], [mix_a, mix_b]: [Mix; 2], shape: ImageShape) {
    let mut kept = vec![0.0; shape.width];
    let rows = a.chunks_exact_mut(shape.width).zip(b.chunks_exact_mut(shape.width));
    for (row, (a, b)) in rows.enumerate() {
        let y = row % shape.height;
        kept.copy_from_slice(a);
        mix_a.of_row(y, a, b);
        mix_b.of_row(y, b, &kept);
    }
}

impl Mix {
    /// Mixes row `y` of another image into that of one.
    fn of_row(self, y: usize, own: &mut [f32], other: &[f32]) {
        match self {
            Mix::Nothing => {}
            Mix::Blend(weight) => {
                let (keeps, takes) = (weight as f32, (1.0 - weight) as f32);
                own.iter_mut().zip(other).for_each(|(own, other)| *own = *own * keeps + other * takes);
            }
            Mix::Paste([top, bottom, left, right]) => {
                if (top..bottom).contains(&y) && left < right {
                    own[left..right].copy_from_slice(&other[left..right]);
                }
            }
        }
    }
}
