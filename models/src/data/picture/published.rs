//! How a published model wants its pictures: timm's `pretrained_cfg` and Hugging Face's `preprocessor_config.json`.

use serde_json::Value;

use super::{CropMode, Interpolation, Middle, Preprocess, Scale};
use crate::data::ImageShape;
use crate::error::{Error, Result, nearest};

/// Means and deviations that are known by name.
const IMAGENET: [[f64; 3]; 2] = [[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]];
const INCEPTION: [[f64; 3]; 2] = [[0.5; 3]; 2];
const CLIP: [[f64; 3]; 2] = [[0.481_454_66, 0.457_827_5, 0.408_210_73], [0.268_629_54, 0.261_302_58, 0.275_777_11]];

impl Preprocess {
    /// From timm's settings of a pretrained model: `pretrained_cfg` of a hub's config.json, or the whole of an older
    /// one. What is not there is what timm takes then: 3x224x224, ImageNet's mean and deviation, 0.875, center, bicubic.
    /// With `shape`, for a model that takes other images than it was published with.
    ///
    /// # Errors
    /// A value of the wrong kind, or an unknown name.
    pub fn from_timm(settings: &Value, shape: Option<ImageShape>) -> Result<Self> {
        let config = Settings { name: "pretrained_cfg", values: settings.get("pretrained_cfg").unwrap_or(settings) };
        let input = config.numbers("input_size")?.unwrap_or_else(|| vec![3.0, 224.0, 224.0]);
        let [channels, rows, columns] = input[..] else {
            return Err(config.wrong("input_size", "three numbers: channels, rows, columns"));
        };
        let [channels, height, width] = [channels, rows, columns].map(|size| size as usize);
        if [channels, height, width].contains(&0) {
            return Err(config.wrong("input_size", "three numbers above 0"));
        }
        let shape = shape.unwrap_or(ImageShape { channels, height, width });
        let crop_pct = config.number("crop_pct")?.unwrap_or(0.875);
        if !(crop_pct > 0.0 && crop_pct <= 1.0) {
            return Err(config.wrong("crop_pct", "a number above 0 and at most 1"));
        }
        let mode = config.word(
            "crop_mode",
            &[("center", CropMode::Center), ("squash", CropMode::Squash), ("border", CropMode::Border)],
        )?;
        let mode = mode.unwrap_or_default();
        let names = Interpolation::ALL.map(|interpolation| (interpolation.name(), interpolation));
        let mut interpolation = config.word("interpolation", &names)?.unwrap_or_default();
        if mode == CropMode::Center && shape.height != shape.width {
            // timm passes the setting on to squares only; its ResizeKeepRatio is bilinear unless told otherwise.
            interpolation = Interpolation::Bilinear;
        }
        config.refuse_other_statistics(["mean", "std"])?;
        let means = [config.numbers("mean")?, config.numbers("std")?];
        let [mean, std] = [0, 1].map(|i| means[i].clone().unwrap_or_else(|| IMAGENET[i].to_vec()));
        Self::timm(shape, crop_pct, mode, interpolation)
            .normalised(&of(&mean, shape.channels), &of(&std, shape.channels))
    }

    /// From Hugging Face's preprocessor_config.json of an image classifier. What is not there is what the processor that
    /// the file names takes then. With `shape`, for a model that takes other images than it was published with.
    ///
    /// # Errors
    /// A value of the wrong kind, or a resampling that Pillow has not.
    pub fn from_hugging_face(settings: &Value, shape: Option<ImageShape>) -> Result<Self> {
        let config = Settings { name: "preprocessor_config.json", values: settings };
        let kind = Kind::of(&config);
        let numbers = Interpolation::ALL;
        let interpolation = match config.number("resample")? {
            None => kind.interpolation(),
            Some(number) => *numbers
                .get(number as usize)
                .filter(|_| number >= 0.0 && number.fract() == 0.0)
                .ok_or_else(|| config.wrong("resample", "a number that Pillow has for a filter, 0 to 5"))?,
        };
        let before = match config.size("size", kind.is_squashed())? {
            Some(before) => before,
            None => kind.size(),
        };
        let crop = match config.flag("do_center_crop")?.unwrap_or(kind.crops()) {
            false => None,
            true => Some(config.size("crop_size", true)?.unwrap_or(Before::Exactly([224; 2]))),
        };
        let mut scale = if config.flag("do_resize")?.unwrap_or(true) { before.scale() } else { Scale::Keep };
        let published = match (crop, before) {
            (Some(Before::Exactly(size)), _) | (None, Before::Exactly(size)) => size,
            (Some(Before::Shorter(side)), _) | (None, Before::Shorter(side)) => [side; 2],
        };
        let [height, width] = published.map(|side| side as usize);
        let shape = shape.unwrap_or(ImageShape { channels: 3, height, width });
        let (rows, columns) = (shape.height, shape.width);
        // At another size the picture is resized in proportion.
        if [rows as u64, columns as u64] != published {
            let [down, across] = [rows as f64 / published[0] as f64, columns as f64 / published[1] as f64];
            let times = |side: u64, factor: f64| (side as f64 * factor).round().max(1.0) as u64;
            scale = match scale {
                Scale::Shorter(side) => Scale::Shorter(times(side, down.max(across))),
                Scale::Exactly([high, wide]) => Scale::Exactly([times(high, down), times(wide, across)]),
                other => other,
            };
        }
        let [mean, std] = config.statistics(kind)?.map(|values| of(&values, shape.channels));
        let square = Self::timm(shape, 1.0, CropMode::Center, interpolation);
        Self { scale, middle: Middle::First, ..square }.normalised(&mean, &std)
    }
}

/// One value for all channels, or as many as there are: the published ones are RGB.
fn of(values: &[f64], channels: usize) -> Vec<f64> {
    if values.len() == 3 && channels == 1 { vec![values.iter().sum::<f64>() / 3.0] } else { values.to_vec() }
}

/// A size as Hugging Face writes it.
#[derive(Clone, Copy)]
enum Before {
    Shorter(u64),
    Exactly([u64; 2]),
}

impl Before {
    fn scale(self) -> Scale {
        match self {
            Self::Shorter(side) => Scale::Shorter(side),
            Self::Exactly(size) => Scale::Exactly(size),
        }
    }
}

/// Processors that differ in what they take for granted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// ViT's, and any other.
    Vit,
    /// DeiT's.
    Deit,
    /// CLIP's and BiT's (which DINOv2 uses).
    Clip,
}

impl Kind {
    fn of(config: &Settings<'_>) -> Self {
        let named = |key| config.values.get(key).and_then(Value::as_str);
        let name = named("image_processor_type").or_else(|| named("feature_extractor_type")).unwrap_or_default();
        match name {
            _ if name.starts_with("DeiT") => Self::Deit,
            _ if ["CLIP", "Bit", "ConvNext", "ChineseCLIP"].iter().any(|kind| name.starts_with(kind)) => Self::Clip,
            _ => Self::Vit,
        }
    }

    /// A size that is one number is both sides, not the shorter one.
    fn is_squashed(self) -> bool {
        self != Self::Clip
    }

    fn interpolation(self) -> Interpolation {
        if self == Self::Vit { Interpolation::Bilinear } else { Interpolation::Bicubic }
    }

    fn size(self) -> Before {
        match self {
            Self::Vit => Before::Exactly([224; 2]),
            Self::Deit => Before::Exactly([256; 2]),
            Self::Clip => Before::Shorter(224),
        }
    }

    fn crops(self) -> bool {
        self != Self::Vit
    }
}

/// The values of a file, and its name for messages.
struct Settings<'a> {
    name: &'static str,
    values: &'a Value,
}

impl Settings<'_> {
    fn get(&self, key: &str) -> Option<&Value> {
        self.values.get(key).filter(|value| !value.is_null())
    }

    fn wrong(&self, key: &str, wanted: &str) -> Error {
        let given = self.values.get(key).unwrap_or(&Value::Null);
        Error::BadInput(format!("{} of {} is {given}; it must be {wanted}", key, self.name))
    }

    fn number(&self, key: &str) -> Result<Option<f64>> {
        let number = |value: &Value| value.as_f64().ok_or_else(|| self.wrong(key, "a number"));
        self.get(key).map(number).transpose()
    }

    fn flag(&self, key: &str) -> Result<Option<bool>> {
        let flag = |value: &Value| value.as_bool().ok_or_else(|| self.wrong(key, "true or false"));
        self.get(key).map(flag).transpose()
    }

    fn numbers(&self, key: &str) -> Result<Option<Vec<f64>>> {
        let wrong = || self.wrong(key, "a list of numbers");
        let numbers = |value: &Value| match value {
            Value::Number(number) => Ok(vec![number.as_f64().ok_or_else(wrong)?]),
            Value::Array(values) if !values.is_empty() => {
                values.iter().map(|value| value.as_f64().ok_or_else(wrong)).collect()
            }
            _ => Err(wrong()),
        };
        self.get(key).map(numbers).transpose()
    }

    fn word<T: Copy>(&self, key: &str, words: &[(&str, T)]) -> Result<Option<T>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let given = value.as_str().ok_or_else(|| self.wrong(key, "a word"))?;
        if let Some((_, found)) = words.iter().find(|(word, _)| *word == given) {
            return Ok(Some(*found));
        }
        let all: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let meant = nearest(given, all.iter().copied()).map(|word| format!(" (is {word} meant?)")).unwrap_or_default();
        Err(self.wrong(key, &format!("one of {}{meant}", all.join(", "))))
    }

    /// Refuses what looks like means or deviations under another name where they are missing: the usual ones would take their
    /// place in silence.
    fn refuse_other_statistics(&self, keys: [&str; 2]) -> Result<()> {
        for (key, word) in keys.into_iter().zip(["mean", "std"]) {
            let others = self.values.as_object().into_iter().flat_map(|values| values.keys());
            let alike = |other: &&String| other.contains(word) || strsim::jaro_winkler(other, key) > 0.9;
            let other = others.filter(|other| !keys.contains(&other.as_str())).find(alike);
            if let (None, Some(other)) = (self.get(key), other) {
                return Err(Error::BadInput(format!(
                    "{} has no {key} but {other}, which means nothing there; is {key} meant?",
                    self.name
                )));
            }
        }
        Ok(())
    }

    /// A number, `{height, width}` or `{shortest_edge}`. One number is both sides if it `is_square`.
    fn size(&self, key: &str, is_square: bool) -> Result<Option<Before>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let wrong = || self.wrong(key, "a number, {height, width} or {shortest_edge}, in pixels");
        let side = |value: &Value| value.as_u64().filter(|side| (1..=1 << 20).contains(side)).ok_or_else(wrong);
        if value.is_number() {
            let side = side(value)?;
            return Ok(Some(if is_square { Before::Exactly([side; 2]) } else { Before::Shorter(side) }));
        }
        match (value.get("height"), value.get("width"), value.get("shortest_edge")) {
            (Some(height), Some(width), _) => Ok(Some(Before::Exactly([side(height)?, side(width)?]))),
            (None, None, Some(edge)) => Ok(Some(Before::Shorter(side(edge)?))),
            _ => Err(wrong()),
        }
    }

    /// Means and deviations of values in 0..1, whatever the file divides bytes by.
    fn statistics(&self, kind: Kind) -> Result<[Vec<f64>; 2]> {
        let unit = match self.flag("do_rescale")?.unwrap_or(true) {
            true => self.number("rescale_factor")?.unwrap_or(1.0 / 255.0) * 255.0,
            false => 255.0,
        };
        if !(unit.is_finite() && unit > 0.0) {
            return Err(self.wrong("rescale_factor", "a number above 0 (1/255 is usual)"));
        }
        // 0.00392156862745098 is meant to be 1/255.
        let unit = if (unit - 1.0).abs() < 1e-9 { 1.0 } else { unit };
        let [mean, std] = match self.flag("do_normalize")?.unwrap_or(true) {
            false => [vec![0.0], vec![1.0]],
            true => {
                let usual = if kind == Kind::Clip { CLIP } else { INCEPTION };
                self.refuse_other_statistics(["image_mean", "image_std"])?;
                let given = [self.numbers("image_mean")?, self.numbers("image_std")?];
                [0, 1].map(|i| given[i].clone().unwrap_or_else(|| usual[i].to_vec()))
            }
        };
        Ok([mean, std].map(|values| values.into_iter().map(|value| value / unit).collect()))
    }
}
