//! Operations that map each of the 256 levels of a channel to another, as Pillow's `ImageOps` computes them.

use crate::data::picture::Picture;
use crate::data::vectors::widest;

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
    by_level(picture, move |level| 255 - level)
}

/// Keeps the `bits` highest bits of each value: none leaves black, 8 or more change nothing.
pub fn posterize(picture: &Picture, bits: i64) -> Picture {
    let mask = match bits {
        ..=0 => 0,
        1..=7 => !0 << (8 - bits),
        _ => 0xff,
    };
    by_level(picture, move |level| level & mask)
}

/// Inverts values of `threshold` or more.
pub fn solarize(picture: &Picture, threshold: i64) -> Picture {
    let threshold = threshold.clamp(0, 256) as u16;
    by_level(picture, move |level| if u16::from(level) < threshold { level } else { 255 - level })
}

/// Adds `add` to values below 128.
pub fn solarize_add(picture: &Picture, add: i64) -> Picture {
    let add = add.clamp(-255, 255) as i16;
    by_level(picture, move |level| if level < 128 { (i16::from(level) + add).clamp(0, 255) as u8 } else { level })
}

fn identity() -> Table {
    std::array::from_fn(|level| level as u8)
}

fn by_level(picture: &Picture, value: impl Fn(u8) -> u8) -> Picture {
    let mut out = picture.clone();
    let pixels = out.pixels_mut();
    widest(
        #[inline(always)]
        move || pixels.iter_mut().for_each(|level| *level = value(*level)),
    );
    out
}

/// Looks each value up in the table that `table` makes of its channel's histogram.
fn by_channel(picture: &Picture, table: impl Fn(&[usize; 256]) -> Table) -> Picture {
    match picture.channels() {
        1 => by_table::<1>(picture, table),
        _ => by_table::<3>(picture, table),
    }
}

fn by_table<const C: usize>(picture: &Picture, table: impl Fn(&[usize; 256]) -> Table) -> Picture {
    let mut histograms = [[0; 256]; C];
    for pixel in picture.pixels().as_chunks::<C>().0 {
        pixel.iter().zip(&mut histograms).for_each(|(&level, histogram)| histogram[usize::from(level)] += 1);
    }
    let tables = histograms.each_ref().map(table);
    let mut out = picture.clone();
    for pixel in out.pixels_mut().as_chunks_mut::<C>().0 {
        pixel.iter_mut().zip(&tables).for_each(|(level, table)| *level = table[usize::from(*level)]);
    }
    out
}
