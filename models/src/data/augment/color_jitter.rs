//! Random brightness, contrast and saturation, as torchvision's `ColorJitter` without hue.

use super::enhance;
use crate::data::picture::Picture;
use crate::random::Draws;

/// How far each may stray from 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ColorJitter {
    /// Brightness, contrast, saturation: the factor is uniform in max(0, 1 - x) .. 1 + x.
    pub strength: [f64; 3],
}

impl ColorJitter {
    /// Changes all three, in a random order.
    pub fn apply(&self, picture: Picture, draws: &mut Draws) -> Picture {
        let mut order = [0, 1, 2];
        draws.shuffle(&mut order);
        let factors = self.strength.map(|x| draws.between((1.0 - x).max(0.0), 1.0 + x));
        order.into_iter().filter(|&which| self.strength[which] > 0.0).fold(picture, |picture, which| {
            let change = [enhance::brightness, enhance::contrast, enhance::color][which];
            change(&picture, factors[which])
        })
    }
}
