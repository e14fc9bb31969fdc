//! All that is done to a training image, in timm's order: crop, flips, RandAugment or colour jitter, normalisation, erasing;
//! then batches are mixed.

use super::{
    Augment, AugmentConfig, ColorJitter, Filter, Mixup, RandAugment, RandomErasing, RandomResizedCrop,
    TrainInterpolation,
};
use crate::data::picture::{Interpolation, Picture, Resize};
use crate::data::{DataConfig, ImageShape};
use crate::error::Result;
use crate::random::{Draws, Purpose};

/// What is done to images on their way to a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Recipe {
    /// Padded crop, flip and normalisation.
    pub plain: Augment,
    /// What is done to pictures of 8 bits; none where nothing is, and then values are never rounded to 8 bits.
    pub pictures: Option<PictureRecipe>,
    /// Of the normalised image.
    pub erasing: Option<RandomErasing>,
    /// Of the batch.
    pub mixup: Option<Mixup>,
}

impl From<Augment> for Recipe {
    fn from(plain: Augment) -> Self {
        Self { plain, pictures: None, erasing: None, mixup: None }
    }
}

impl Recipe {
    /// For training, as the configuration says.
    ///
    /// # Errors
    /// A string of RandAugment that has no meaning.
    pub fn train(data: &DataConfig, augment: &AugmentConfig) -> Result<Self> {
        let pictures = PictureRecipe {
            crop: augment.crop(),
            vflip: augment.vflip,
            interpolation: augment.train_interpolation,
            rand_augment: augment.rand_augment()?,
            jitter: augment.jitter(),
        };
        Ok(Self {
            plain: Augment::train(data),
            pictures: augment.works_on_pictures().then_some(pictures),
            erasing: augment.erasing(),
            mixup: augment.mixing(),
        })
    }

    /// For evaluation: normalisation alone.
    pub fn eval(data: &DataConfig) -> Self {
        Augment::eval(data).into()
    }

    /// Whether pictures are cropped as they are on disk, before they have the model's size.
    pub fn crops_pictures(&self) -> bool {
        self.pictures.as_ref().is_some_and(|pictures| pictures.crop.is_some())
    }

    /// Writes what becomes of a picture into `out`, a normalised image [C, H, W]; `draws` gives what is drawn for this image
    /// and a purpose. A picture that is not cropped has the size already.
    pub fn apply_to_picture(
        &self,
        picture: Picture,
        shape: ImageShape,
        draws: impl Fn(Purpose) -> Draws,
        out: &mut [f32],
    ) {
        let (plain, mut moves) = (&self.plain, draws(Purpose::Augment));
        // Drawn as without all this, so that crops and flips do not depend on what else is on.
        let padding = plain.crop_padding;
        let [top, left] = [(); 2].map(|()| moves.below((2 * padding + 1) as u32) as usize);
        let is_flipped = moves.uniform() < plain.hflip;
        let mut picture = picture;
        if padding > 0 {
            picture = picture.crop_padded(top, left, padding);
        }
        if let Some(recipe) = &self.pictures {
            let is_upside_down = moves.chance(recipe.vflip);
            picture = recipe.cropped(picture, shape, &mut moves);
            if is_flipped {
                picture = picture.flip_horizontally();
            }
            if is_upside_down {
                picture = picture.flip_vertically();
            }
            picture = recipe.coloured(picture, &self.fill(shape.channels), draws);
        } else if is_flipped {
            picture = picture.flip_horizontally();
        }
        self.normalise(&picture, shape, out);
    }

    /// The mean colour: what turned pictures leave empty.
    pub fn fill(&self, channels: usize) -> Vec<u8> {
        let mean = |channel: usize| self.plain.mean[channel.min(self.plain.mean.len() - 1)];
        (0..channels).map(|channel| (255.0 * f64::from(mean(channel))).round_ties_even() as u8).collect()
    }

    fn normalise(&self, picture: &Picture, shape: ImageShape, out: &mut [f32]) {
        let (plane, pixels) = (shape.height * shape.width, picture.pixels());
        let table = |channel: usize| -> [f32; 256] {
            std::array::from_fn(|level| self.plain.value(level as f32 / 255.0, channel))
        };
        if shape.channels == 3 && out.len() == 3 * plane {
            let tables = [0, 1, 2].map(table);
            let (red, rest) = out.split_at_mut(plane);
            let (green, blue) = rest.split_at_mut(plane);
            let planes = red.iter_mut().zip(green).zip(blue);
            for (((red, green), blue), pixel) in planes.zip(pixels.as_chunks::<3>().0) {
                *red = tables[0][usize::from(pixel[0])];
                *green = tables[1][usize::from(pixel[1])];
                *blue = tables[2][usize::from(pixel[2])];
            }
            return;
        }
        for (channel, out) in out.chunks_exact_mut(plane).enumerate() {
            let (table, levels) = (table(channel), pixels.iter().skip(channel).step_by(shape.channels));
            out.iter_mut().zip(levels).for_each(|(out, &level)| *out = table[usize::from(level)]);
        }
    }
}

/// What is done to pictures of 8 bits.
#[derive(Clone, Debug, PartialEq)]
pub struct PictureRecipe {
    /// A part of the picture as it is on disk, resized.
    pub crop: Option<RandomResizedCrop>,
    /// Probability that it is flipped top to bottom.
    pub vflip: f64,
    /// How crops are resized and pictures turned.
    pub interpolation: TrainInterpolation,
    /// Operations that change colours and shape.
    pub rand_augment: Option<RandAugment>,
    /// Brightness, contrast and saturation.
    pub jitter: Option<ColorJitter>,
}

impl PictureRecipe {
    /// The one that is always taken, or none for one that is drawn.
    fn filter(&self) -> Option<Filter> {
        match self.interpolation {
            TrainInterpolation::Random => None,
            TrainInterpolation::Bilinear => Some(Filter::Bilinear),
            TrainInterpolation::Bicubic => Some(Filter::Bicubic),
        }
    }

    fn cropped(&self, picture: Picture, shape: ImageShape, draws: &mut Draws) -> Picture {
        let Some(crop) = &self.crop else { return picture };
        let crop = crop.draw(picture.height() as usize, picture.width() as usize, draws);
        let interpolation = match self.filter().unwrap_or_else(|| Filter::draw(draws)) {
            Filter::Bilinear => Interpolation::Bilinear,
            Filter::Bicubic => Interpolation::Bicubic,
        };
        let window = Some([crop.left, crop.top, crop.width, crop.height].map(|side| side as u32));
        Resize { window, ..Resize::to([shape.width as u64, shape.height as u64], interpolation) }.apply(&picture)
    }

    fn coloured(&self, picture: Picture, fill: &[u8], draws: impl Fn(Purpose) -> Draws) -> Picture {
        let picture = match &self.rand_augment {
            None => picture,
            Some(augment) => augment.apply(picture, fill, self.filter(), &mut draws(Purpose::RandAugment)),
        };
        match &self.jitter {
            None => picture,
            Some(jitter) => jitter.apply(picture, &mut draws(Purpose::ColorJitter)),
        }
    }
}
