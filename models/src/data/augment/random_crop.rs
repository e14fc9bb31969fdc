//! Crops of random size and shape (Szegedy et al. 2015), with timm's and torchvision's rules.

use crate::random::Draws;

/// How often a crop is drawn before the middle of the picture is taken.
const TRIES: usize = 10;

/// A part of a picture, in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crop {
    /// First row.
    pub top: usize,
    /// First column.
    pub left: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

/// Which parts are drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RandomResizedCrop {
    /// Smallest and largest share of the picture's area.
    pub scale: [f64; 2],
    /// Smallest and largest ratio of width to height, uniform in its logarithm.
    pub ratio: [f64; 2],
}

impl RandomResizedCrop {
    /// Draws a part of a picture of `height` x `width` pixels.
    pub fn draw(&self, height: usize, width: usize, draws: &mut Draws) -> Crop {
        let area = (height * width) as f64;
        for _ in 0..TRIES {
            let wanted = area * draws.between(self.scale[0], self.scale[1]);
            let ratio = draws.between(self.ratio[0].ln(), self.ratio[1].ln()).exp();
            // A picture of a few pixels may ask for less than one.
            let [w, h] = [wanted * ratio, wanted / ratio].map(|square| whole(square.sqrt()));
            if w <= width && h <= height {
                let [top, left] = [height - h, width - w].map(|most| draws.below(most as u32 + 1) as usize);
                return Crop { top, left, height: h, width: w };
            }
        }
        self.middle(height, width)
    }

    /// The largest part in the middle of the picture whose shape is allowed.
    pub fn middle(&self, height: usize, width: usize) -> Crop {
        let ratio = width as f64 / height as f64;
        let [narrowest, widest] = self.ratio;
        let (h, w) = if ratio < narrowest {
            (whole(width as f64 / narrowest).min(height), width)
        } else if ratio > widest {
            (height, whole(height as f64 * widest).min(width))
        } else {
            (height, width)
        };
        Crop { top: (height - h) / 2, left: (width - w) / 2, height: h, width: w }
    }
}

fn whole(size: f64) -> usize {
    size.round_ties_even().max(1.0) as usize
}
