//! Colours for numbers: perceptually uniform scales, as tables that a shader or a picture looks up.

use serde::{Deserialize, Serialize};

/// Entries of a table.
pub const LEVELS: usize = 256;

/// A colour scale. All but `Diverging` rise evenly in lightness and stay readable for colour-blind people and in grey.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Colormap {
    /// Blue, green, yellow.
    #[default]
    Viridis,
    /// Black, purple, cream.
    Magma,
    /// Black, red, yellow.
    Inferno,
    /// Blue, pink, yellow.
    Plasma,
    /// Blue to yellow, made for colour-blind people.
    Cividis,
    /// Blue, white, red: for differences around zero.
    Diverging,
}

impl Colormap {
    /// Scales for values that start at zero.
    pub const SEQUENTIAL: [Colormap; 5] =
        [Colormap::Viridis, Colormap::Magma, Colormap::Inferno, Colormap::Plasma, Colormap::Cividis];

    /// Name in menus, on the command line and in files.
    pub fn name(self) -> &'static str {
        match self {
            Colormap::Viridis => "viridis",
            Colormap::Magma => "magma",
            Colormap::Inferno => "inferno",
            Colormap::Plasma => "plasma",
            Colormap::Cividis => "cividis",
            Colormap::Diverging => "diverging",
        }
    }

    /// The scale with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::SEQUENTIAL.into_iter().chain([Colormap::Diverging]).find(|c| c.name() == name)
    }

    /// sRGB colour of `t` in 0 ..= 1; values outside take the nearest end, NaN the lower.
    pub fn color(self, t: f32) -> [u8; 3] {
        let t = f64::from(if t.is_nan() { 0.0 } else { t.clamp(0.0, 1.0) });
        let color = match self {
            Colormap::Viridis => colorous::VIRIDIS.eval_continuous(t),
            Colormap::Magma => colorous::MAGMA.eval_continuous(t),
            Colormap::Inferno => colorous::INFERNO.eval_continuous(t),
            Colormap::Plasma => colorous::PLASMA.eval_continuous(t),
            Colormap::Cividis => colorous::CIVIDIS.eval_continuous(t),
            Colormap::Diverging => colorous::RED_BLUE.eval_continuous(1.0 - t),
        };
        [color.r, color.g, color.b]
    }

    /// The whole scale, lowest first.
    pub fn table(self) -> [[u8; 3]; LEVELS] {
        std::array::from_fn(|i| self.color(i as f32 / (LEVELS - 1) as f32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lightness([r, g, b]: [u8; 3]) -> f32 {
        let linear = |c: u8| (f32::from(c) / 255.0).powf(2.2);
        0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b)
    }

    #[test]
    fn sequential_scales_rise_in_lightness() {
        for map in Colormap::SEQUENTIAL {
            let table = map.table();
            assert!(table.windows(2).all(|w| lightness(w[1]) >= lightness(w[0]) - 0.01), "{}", map.name());
        }
    }

    #[test]
    fn names_lead_back_to_their_scale_and_ends_are_kept() {
        for map in Colormap::SEQUENTIAL.into_iter().chain([Colormap::Diverging]) {
            assert_eq!(Colormap::from_name(map.name()), Some(map));
            assert_eq!((map.color(-1.0), map.color(f32::NAN)), (map.color(0.0), map.color(0.0)));
            assert_eq!(map.color(7.0), map.color(1.0));
        }
        assert_eq!(Colormap::from_name("jet"), None);
    }
}
