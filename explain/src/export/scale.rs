//! From values to places on a colour scale, and the numbers beside it.

use std::str::FromStr;

use crate::colormap::Colormap;
use crate::error::{Error, Result};
use crate::export::Style;
use crate::map::Map;

/// The colour of values that are no numbers (NaN, infinity), and of tokens that have none.
pub(super) const NO_NUMBER: [u8; 3] = [128; 3];

/// Below this share of the largest value a logarithmic scale ends: single zeros would stretch it beyond use.
const SMALLEST_SHARE: f64 = 1e-6;

/// Powers of ten of numbers that are written without an exponent.
const WRITTEN_OUT: std::ops::Range<i32> = -4..6;

/// What the ends of maps' scales are.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Ends {
    /// Each map's own smallest and largest value.
    #[default]
    Own,
    /// Those of all maps of a picture.
    Shared,
    /// 0 and so many times the uniform weight: see [`Style::uniform`].
    Uniform(f32),
}

/// Times the uniform weight, where nothing else is said.
const TIMES: f32 = 4.0;

impl FromStr for Ends {
    type Err = Error;

    /// `own`, `shared`, `uniform` or `uniform:TIMES`.
    fn from_str(text: &str) -> Result<Self> {
        let times: Option<f32> = text.strip_prefix("uniform:").and_then(|times| times.parse().ok());
        match (text, times) {
            ("own", _) => Ok(Ends::Own),
            ("shared", _) => Ok(Ends::Shared),
            ("uniform", _) => Ok(Ends::Uniform(TIMES)),
            (_, Some(times)) if times > 1.0 && times <= super::MOST_TIMES => Ok(Ends::Uniform(times)),
            _ => Err(Error::BadInput(format!(
                "`{text}` is no scale; there are own, shared and uniform, the last with its upper end if you like, above 1 \
                 and up to {}: uniform:8 for eight times the uniform weight",
                super::MOST_TIMES
            ))),
        }
    }
}

/// The scale of one map.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scale {
    /// Its colours.
    pub colormap: Colormap,
    /// The value of the lowest colour.
    pub low: f64,
    /// The value of the highest colour.
    pub high: f64,
    /// Whether places are those of logarithms.
    pub log: bool,
    /// The uniform weight, where numbers are told in it.
    pub unit: Option<f64>,
}

impl Scale {
    /// The scale of `map`: from its smallest to its largest finite value, or over the style's range. With negative
    /// values, or the diverging colours, it is symmetric around zero and never logarithmic.
    pub fn of(map: &Map, style: &Style) -> Self {
        if let Some((times, unit)) = style.uniform.zip(map.uniform()) {
            return Self::around(map, style, f64::from(times), f64::from(unit));
        }
        let finite = || map.patches().iter().copied().filter(|v| v.is_finite()).map(f64::from);
        let (low, high) = match style.shared_range {
            Some((low, high)) => (f64::from(low), f64::from(high)),
            None => finite().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v))),
        };
        let (low, high) = if low > high { (0.0, 0.0) } else { (low, high) };
        if low < 0.0 || style.colormap == Colormap::Diverging {
            let reach = low.abs().max(high.abs());
            return Scale { colormap: Colormap::Diverging, low: -reach, high: reach, log: false, unit: None };
        }
        let colormap = style.colormap;
        if !style.log_scale || high <= 0.0 {
            return Scale { colormap, low, high, log: false, unit: None };
        }
        let positive = if low > 0.0 { low } else { finite().filter(|&v| v > 0.0).fold(high, f64::min) };
        Scale { colormap, low: positive.max(high * SMALLEST_SHARE), high, log: true, unit: None }
    }

    /// Up to `times` the uniform weight `unit`, whatever the map's values are.
    fn around(map: &Map, style: &Style, times: f64, unit: f64) -> Self {
        let (high, colormap, log) = (times * unit, style.colormap, style.log_scale);
        if map.range().0 < 0.0 || colormap == Colormap::Diverging {
            return Scale { colormap: Colormap::Diverging, low: -high, high, log: false, unit: Some(unit) };
        }
        let low = if log { unit / times } else { 0.0 };
        Scale { colormap, low, high, log, unit: Some(unit) }
    }

    /// `3.2× uniform`, where the scale counts so.
    pub fn times(&self, value: f32) -> Option<String> {
        self.unit.map(|unit| format!("{}× uniform", number(f64::from(value) / unit, 2)))
    }

    /// Where `value` lies, 0 ..= 1: the middle if all values are the same, nothing if it is no finite number.
    pub fn place(&self, value: f32) -> Option<f32> {
        if !value.is_finite() {
            return None;
        }
        if self.high <= self.low {
            return Some(0.5);
        }
        let value = f64::from(value);
        let share = if self.log {
            // Zero has no logarithm: it takes the lowest colour.
            (value.max(self.low) / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        Some(share.clamp(0.0, 1.0) as f32)
    }

    /// sRGB colour of `value`; grey where it is no finite number.
    pub fn color(&self, value: f32) -> [u8; 3] {
        self.place(value).map_or(NO_NUMBER, |place| self.colormap.color(place))
    }

    /// Places (0 ..= 1, rising) and the numbers that belong there; a single one if all values are the same.
    pub fn ticks(&self) -> Vec<(f32, String)> {
        if let Some(unit) = self.unit {
            let ticks = Scale { low: self.low / unit, high: self.high / unit, unit: None, ..*self }.ticks();
            return ticks.into_iter().map(|(place, text)| (place, format!("{text}×"))).collect();
        }
        if self.high <= self.low {
            return vec![(0.5, number(self.low, 3))];
        }
        let tick = |i: u8| {
            let share = f64::from(i) / 4.0;
            let text = if self.log {
                number(self.low * (self.high / self.low).powf(share), 3)
            } else {
                self.fixed(self.low + share * (self.high - self.low))
            };
            (share as f32, text)
        };
        (0..5).map(tick).collect()
    }

    /// `value` with as many decimals as all numbers of a linear scale.
    fn fixed(&self, value: f64) -> String {
        let (reach, digits) = (self.low.abs().max(self.high.abs()), self.digits());
        match exponent(reach) {
            exponent if WRITTEN_OUT.contains(&exponent) => {
                let decimals = (digits as i32 - 1 - exponent).max(0) as usize;
                // Not -0.00, which rounding makes of small negative numbers.
                let text = format!("{value:.decimals$}");
                if text.contains(|c: char| ('1'..='9').contains(&c)) { text } else { "0".into() }
            }
            _ => number(value, digits),
        }
    }

    /// Digits that tell neighbouring ticks apart.
    fn digits(&self) -> usize {
        let step = (self.high - self.low) / 4.0;
        let steps = (self.low.abs().max(self.high.abs()) / step).log10();
        if steps.is_finite() { (steps.ceil() as usize + 2).clamp(3, 8) } else { 3 }
    }
}

/// `value` with `digits` significant digits: `0`, `0.0123`, `1.20e-5`, `NaN`.
pub(super) fn number(value: f64, digits: usize) -> String {
    if value == 0.0 || !value.is_finite() {
        return if value == 0.0 { "0".into() } else { value.to_string() };
    }
    let exponent = exponent(value);
    if !WRITTEN_OUT.contains(&exponent) {
        return format!("{value:.*e}", digits.saturating_sub(1));
    }
    let decimals = (digits as i32 - 1 - exponent).max(0) as usize;
    format!("{value:.decimals$}")
}

/// The power of ten of the first digit; 0 for zero.
fn exponent(value: f64) -> i32 {
    format!("{value:e}").split_once('e').and_then(|(_, exponent)| exponent.parse().ok()).unwrap_or(0)
}
