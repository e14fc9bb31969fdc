//! Operations that map each of the 256 levels of a channel to another, as Pillow's `ImageOps` computes them.

use crate::data::picture::Picture;

type Table = [u8; 256];

/// Stretches each channel until its darkest pixel is 0 and its brightest 255.
pub fn auto_contrast(picture: &Picture) -> Picture {
    by_channel(picture, |histogram| {
        let lowest = histogram.iter().position(|&count| count > 0).unwrap_or(0);
        let highest = histogram.iter().rposition(|&count| count > 0).unwrap_or(0);
        if highest <= lowest {
            return identity();
        }
        // In this order: as level - lowest, times the scale, other values would be truncated.
        let scale = 255.0 / (highest - lowest) as f64;
        let offset = -(lowest as f64) * scale;
        std::array::from_fn(|level| (level as f64 * scale + offset).clamp(0.0, 255.0) as u8)
    })
}

/// Spreads each channel so that its levels are about equally frequent.
pub fn equalize(picture: &Picture) -> Picture {
    by_channel(picture, |histogram| {
        let used = || histogram.iter().filter(|&&count| count > 0);
        let last = used().next_back().copied().unwrap_or(0);
        let step = (used().sum::<usize>() - last) / 255;
        if used().count() <= 1 || step == 0 {
            return identity();
        }
        let mut below = step / 2;
        std::array::from_fn(|level| {
            let value = (below / step).min(255) as u8;
            below += histogram[level];
            value
        })
    })
}

/// Light for dark.
pub fn invert(picture: &Picture) -> Picture {
    by_level(picture, |level| 255 - level)
}

/// Keeps the `bits` highest bits of each value: none leaves black, 8 or more change nothing.
pub fn posterize(picture: &Picture, bits: i64) -> Picture {
    let mask = match bits {
        ..=0 => 0,
        1..=7 => !0 << (8 - bits),
        _ => 0xff,
    };
    by_level(picture, |level| level & mask)
}

/// Inverts values of `threshold` or more.
pub fn solarize(picture: &Picture, threshold: i64) -> Picture {
    by_level(picture, |level| if i64::from(level) < threshold { level } else { 255 - level })
}

/// Adds `add` to values below 128.
pub fn solarize_add(picture: &Picture, add: i64) -> Picture {
    by_level(picture, |level| if level < 128 { (i64::from(level) + add).clamp(0, 255) as u8 } else { level })
}

fn identity() -> Table {
    std::array::from_fn(|level| level as u8)
}

fn by_level(picture: &Picture, value: impl Fn(u8) -> u8) -> Picture {
    by_channel(picture, |_| std::array::from_fn(|level| value(level as u8)))
}

/// Looks each value up in the table that `table` makes of its channel's histogram.
fn by_channel(picture: &Picture, table: impl Fn(&[usize; 256]) -> Table) -> Picture {
    let channels = picture.channels();
    let mut histograms = vec![[0; 256]; channels];
    for pixel in picture.pixels().chunks_exact(channels) {
        pixel.iter().zip(&mut histograms).for_each(|(&level, histogram)| histogram[usize::from(level)] += 1);
    }
    let tables: Vec<Table> = histograms.iter().map(table).collect();
    let mut out = picture.clone();
    for pixel in out.pixels_mut().chunks_exact_mut(channels) {
        pixel.iter_mut().zip(&tables).for_each(|(level, table)| *level = table[usize::from(*level)]);
    }
    out
}
