//! Random erasing (Zhong et al. 2020) of normalised images, with timm's rules.

use lara_runtime::random::normal_pair;
use serde::{Deserialize, Serialize};

use crate::data::ImageShape;
use crate::random::Draws;

/// How often a rectangle is drawn before the image is left as it is.
const TRIES: usize = 10;

/// Smallest and largest share of the image.
const AREA: [f64; 2] = [0.02, 1.0 / 3.0];

/// Smallest and largest ratio of height to width, uniform in its logarithm.
const ASPECT: [f64; 2] = [0.3, 1.0 / 0.3];

/// What is put there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ErasingMode {
    /// Normal noise, another value for every pixel and channel.
    Pixel,
    /// One normal value a channel.
    Rand,
    /// 0, which is the mean.
    #[default]
    Const,
}

/// Which images lose how many rectangles, and to what.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RandomErasing {
    /// Probability that an image loses anything.
    pub prob: f64,
    /// What is put there.
    pub mode: ErasingMode,
    /// Most rectangles; their number is uniform from 1, and the more there are the smaller they are.
    pub count: u32,
}

impl RandomErasing {
    /// Erases parts of the normalised image [C, H, W].
    pub fn apply(&self, pixels: &mut [f32], shape: ImageShape, draws: &mut Draws) {
        let ImageShape { height, width, .. } = shape;
        if !draws.chance(self.prob) {
            return;
        }
        let count = 1 + draws.below(self.count);
        for _ in 0..count {
            let drawn = (0..TRIES).find_map(|_| {
                let area = draws.between(AREA[0], AREA[1]) * (height * width) as f64 / f64::from(count);
                let aspect = draws.between(ASPECT[0].ln(), ASPECT[1].ln()).exp();
                let [h, w] = [area * aspect, area / aspect].map(|square| square.sqrt().round_ties_even() as usize);
                (w < width && h < height).then_some([h, w])
            });
            if let Some([h, w]) = drawn {
                let [top, left] = [height - h, width - w].map(|most| draws.below(most as u32 + 1) as usize);
                self.erase(pixels, shape, [top, left, h, w], draws);
            }
        }
    }

    fn erase(&self, pixels: &mut [f32], shape: ImageShape, [top, left, h, w]: [usize; 4], draws: &mut Draws) {
        for plane in pixels.chunks_exact_mut(shape.height * shape.width) {
            let color = if self.mode == ErasingMode::Rand { draws.normal() as f32 } else { 0.0 };
            for row in plane.chunks_exact_mut(shape.width).skip(top).take(h) {
                let row = &mut row[left..left + w];
                if self.mode != ErasingMode::Pixel {
                    row.fill(color);
                    continue;
                }
                // The device's normal numbers, two at a time: there are many of them.
                for pair in row.chunks_mut(2) {
                    let noise = normal_pair([draws.bits(), draws.bits()]);
                    pair.copy_from_slice(&noise[..pair.len()]);
                }
            }
        }
    }
}
