//! RandAugment (Cubuk, Zoph, Shlens and Le 2020) as timm has it: its operations, its levels, its strings.

use super::affine::{Filter, affine, rotate};
use super::{enhance, levels};
use crate::data::picture::Picture;
use crate::error::{Error, Result, nearest};
use crate::random::Draws;

/// The magnitude of full strength, and the largest level unless `mmax` says otherwise.
const FULL: f64 = 10.0;

/// Standard deviations above it stand for levels that are uniform.
const UNIFORM: f64 = 100.0;

/// More operations an image than anybody wants.
const MAX_LAYERS: usize = 64;

/// One of the operations that are drawn from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are timm's; what each does is said where it is computed")]
pub enum Op {
    AutoContrast,
    Equalize,
    Invert,
    Rotate,
    Posterize,
    Solarize,
    SolarizeAdd,
    Color,
    Contrast,
    Brightness,
    Sharpness,
    ShearX,
    ShearY,
    TranslateX,
    TranslateY,
}

/// How an operation is applied, apart from the level.
#[derive(Clone, Copy, Debug)]
pub struct Manner<'a> {
    /// Whether the operation grows stronger with the level throughout (`inc1`).
    pub is_increasing: bool,
    /// The other direction, where there are two.
    pub is_negated: bool,
    /// Of rotations, shears and shifts.
    pub interpolation: Filter,
    /// What they leave empty, one value a channel.
    pub fill: &'a [u8],
}

impl Op {
    /// All of them, in timm's order.
    pub const ALL: [Op; 15] = [
        Op::AutoContrast,
        Op::Equalize,
        Op::Invert,
        Op::Rotate,
        Op::Posterize,
        Op::Solarize,
        Op::SolarizeAdd,
        Op::Color,
        Op::Contrast,
        Op::Brightness,
        Op::Sharpness,
        Op::ShearX,
        Op::ShearY,
        Op::TranslateX,
        Op::TranslateY,
    ];

    /// Applies it at a level of 0 to 10, or to more where `mmax` allows it.
    pub fn apply(self, picture: &Picture, level: f64, manner: Manner<'_>) -> Picture {
        let Manner { is_increasing, is_negated, interpolation, fill } = manner;
        let share = level / FULL;
        let signed = |value: f64| if is_negated { -value } else { value };
        let factor = if is_increasing { (1.0 + signed(share * 0.9)).max(0.1) } else { share * 1.8 + 0.1 };
        let moved = |matrix: [f64; 6]| affine(picture, matrix, interpolation, fill);
        match self {
            Op::AutoContrast => levels::auto_contrast(picture),
            Op::Equalize => levels::equalize(picture),
            Op::Invert => levels::invert(picture),
            Op::Rotate => rotate(picture, signed(share * 30.0), interpolation, fill),
            Op::Posterize => {
                let bits = (share * 4.0) as i64;
                levels::posterize(picture, if is_increasing { 4 - bits } else { bits })
            }
            Op::Solarize => {
                let threshold = ((share * 256.0) as i64).min(256);
                levels::solarize(picture, if is_increasing { 256 - threshold } else { threshold })
            }
            Op::SolarizeAdd => levels::solarize_add(picture, ((share * 110.0) as i64).min(128)),
            Op::Color => enhance::color(picture, factor),
            Op::Contrast => enhance::contrast(picture, factor),
            Op::Brightness => enhance::brightness(picture, factor),
            Op::Sharpness => enhance::sharpness(picture, factor),
            Op::ShearX => moved([1.0, signed(share * 0.3), 0.0, 0.0, 1.0, 0.0]),
            Op::ShearY => moved([1.0, 0.0, 0.0, signed(share * 0.3), 1.0, 0.0]),
            Op::TranslateX => moved([1.0, 0.0, signed(share * 0.45) * f64::from(picture.width()), 0.0, 1.0, 0.0]),
            Op::TranslateY => moved([1.0, 0.0, 0.0, 0.0, 1.0, signed(share * 0.45) * f64::from(picture.height())]),
        }
    }

    /// timm's weight where operations are not equally likely: `tweights`, and the older `w0`, which never takes two of
    /// them.
    fn weight(self, is_old: bool) -> f64 {
        match self {
            Op::Rotate => 3.0,
            Op::ShearX | Op::ShearY => 2.0,
            Op::TranslateX | Op::TranslateY => 1.0,
            Op::Color | Op::Sharpness | Op::AutoContrast => 0.25,
            Op::Posterize | Op::Invert if is_old => 0.0,
            _ => 0.05,
        }
    }
}

/// RandAugment with the settings of a string such as `rand-m9-mstd0.5-inc1`.
#[derive(Clone, Debug, PartialEq)]
pub struct RandAugment {
    /// `m`: mean level.
    pub magnitude: f64,
    /// `mstd`: standard deviation of the level; infinite for one that is uniform up to the mean.
    pub magnitude_std: f64,
    /// `mmax`: largest level.
    pub magnitude_max: f64,
    /// `n`: operations an image.
    pub layers: usize,
    /// `p`: probability with which each of them is applied.
    pub prob: f64,
    /// `inc`: all grow stronger with the level.
    pub is_increasing: bool,
    /// `tweights`, `w0`: how likely each operation is (see [`Op::ALL`]); without, all are equally likely and may come twice.
    pub weights: Option<[f64; 15]>,
}

/// One operation, as it was drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Drawn {
    /// Which.
    pub op: Op,
    /// How strong.
    pub level: f64,
    /// In the other direction.
    pub is_negated: bool,
    /// Of rotations, shears and shifts.
    pub interpolation: Filter,
}

impl RandAugment {
    /// Reads timm's string.
    ///
    /// # Errors
    /// A string that is none, or a part of it that has no meaning.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = |problem: String| {
            Error::Config(format!("\"{text}\" is no RandAugment: {problem}; timm's is \"rand-m9-mstd0.5-inc1\""))
        };
        let mut parts = text.split('-');
        if parts.next() != Some("rand") {
            return Err(wrong("it must begin with \"rand\"".into()));
        }
        let mut settings = RandAugment {
            magnitude: FULL,
            magnitude_std: 0.0,
            magnitude_max: FULL,
            layers: 2,
            prob: 0.5,
            is_increasing: false,
            weights: None,
        };
        for part in parts {
            settings.set(part).map_err(&wrong)?;
        }
        Ok(settings)
    }

    fn set(&mut self, part: &str) -> std::result::Result<(), String> {
        const KEYS: [&str; 8] = ["m", "mstd", "mmax", "n", "p", "inc", "w", "tweights"];
        if part == "tweights" {
            (self.weights, self.is_increasing) = (Some(Op::ALL.map(|op| op.weight(false))), true);
            return Ok(());
        }
        let (key, number) = part.split_at(part.find(|c: char| c.is_ascii_digit()).unwrap_or(part.len()));
        if !KEYS.contains(&key) || key == "tweights" {
            let near = nearest(key, KEYS).map(|near| format!("; did you mean \"{near}\"?")).unwrap_or_default();
            return Err(format!("its part \"{part}\" is not one of {}, each with a number{near}", KEYS.join(", ")));
        }
        let bad = |wanted: &str| format!("its part \"{part}\" needs {wanted} after \"{key}\"");
        let whole = || number.parse::<u32>().map_err(|_| bad("a whole number"));
        let real = || number.parse::<f64>().ok().filter(|value| value.is_finite()).ok_or_else(|| bad("a number"));
        match key {
            "m" => self.magnitude = f64::from(whole()?),
            "mmax" => self.magnitude_max = f64::from(whole()?),
            "mstd" => self.magnitude_std = Some(real()?).filter(|&std| std <= UNIFORM).unwrap_or(f64::INFINITY),
            "n" => {
                self.layers = whole()? as usize;
                if self.layers > MAX_LAYERS {
                    return Err(format!("its part \"{part}\" is more than {MAX_LAYERS} operations an image"));
                }
            }
            "p" => {
                self.prob = real()?;
                if self.prob > 1.0 {
                    return Err(format!("its part \"{part}\" is a probability above 1"));
                }
            }
            "inc" => self.is_increasing = whole()? != 0,
            _ if number == "0" => self.weights = Some(Op::ALL.map(|op| op.weight(true))),
            _ => return Err(format!("its part \"{part}\" names weights that there are not; there is \"w0\"")),
        }
        Ok(())
    }

    /// Draws what is done to one image; `interpolation` is drawn, too, where it is not given.
    pub fn draw(&self, interpolation: Option<Filter>, draws: &mut Draws) -> Vec<Drawn> {
        let ops = match self.weights {
            None => (0..self.layers).map(|_| Op::ALL[draws.below(15) as usize]).collect(),
            Some(weights) => without_replacement(weights, self.layers, draws),
        };
        let mut drawn = Vec::with_capacity(ops.len());
        for op in ops {
            if draws.chance(self.prob) {
                drawn.push(self.drawn(op, interpolation, draws));
            }
        }
        drawn
    }

    fn drawn(&self, op: Op, interpolation: Option<Filter>, draws: &mut Draws) -> Drawn {
        let level = if self.magnitude_std == f64::INFINITY {
            draws.between(0.0, self.magnitude)
        } else if self.magnitude_std > 0.0 {
            self.magnitude + self.magnitude_std * draws.normal()
        } else {
            self.magnitude
        };
        // As in timm, where a largest level of 0 is none.
        let largest = if self.magnitude_max > 0.0 { self.magnitude_max } else { FULL };
        let is_negated = draws.chance(0.5);
        let interpolation = interpolation.unwrap_or_else(|| Filter::draw(draws));
        Drawn { op, level: level.clamp(0.0, largest), is_negated, interpolation }
    }

    /// Draws, and does it; `fill` is what rotations, shears and shifts leave empty, one value a channel.
    pub fn apply(&self, picture: Picture, fill: &[u8], interpolation: Option<Filter>, draws: &mut Draws) -> Picture {
        self.draw(interpolation, draws).into_iter().fold(picture, |picture, drawn| {
            let Drawn { op, level, is_negated, interpolation } = drawn;
            let manner = Manner { is_increasing: self.is_increasing, is_negated, interpolation, fill };
            op.apply(&picture, level, manner)
        })
    }
}

/// `count` different operations, one after the other, each as likely as its weight among those that are left.
fn without_replacement(mut weights: [f64; 15], count: usize, draws: &mut Draws) -> Vec<Op> {
    let mut ops = Vec::new();
    for _ in 0..count {
        let total: f64 = weights.iter().sum();
        if total <= 0.0 {
            break;
        }
        let mut left = draws.between(0.0, total);
        let possible = (0..weights.len()).filter(|&at| weights[at] > 0.0);
        // Rounding may leave a little after the last.
        let mut chosen = 0;
        for at in possible {
            chosen = at;
            if left < weights[at] {
                break;
            }
            left -= weights[at];
        }
        weights[chosen] = 0.0;
        ops.push(Op::ALL[chosen]);
    }
    ops
}
