//! Colour, contrast, brightness and sharpness, as Pillow's `ImageEnhance` computes them: a blend of the picture with one
//! that has nothing of it, where a factor of 1 leaves the picture, 0 gives the other, and more exaggerates.

use crate::data::picture::{Picture, grey_of};
use crate::data::vectors::widest;

/// Against the grey picture. Grey pictures stay what they are.
pub fn color(picture: &Picture, factor: f64) -> Picture {
    let mut plain = picture.clone();
    if picture.channels() == 3 {
        let grey = grey(picture);
        plain.pixels_mut().as_chunks_mut::<3>().0.iter_mut().zip(grey).for_each(|(pixel, grey)| *pixel = [grey; 3]);
    }
    blend(plain, picture, factor)
}

/// Against the mean of the grey picture, everywhere.
pub fn contrast(picture: &Picture, factor: f64) -> Picture {
    let grey = grey(picture);
    let sum: u64 = grey.iter().map(|&level| u64::from(level)).sum();
    let mean = (sum as f64 / grey.len() as f64 + 0.5) as u8;
    blend_with(mean, picture, factor)
}

/// Against black.
pub fn brightness(picture: &Picture, factor: f64) -> Picture {
    blend_with(0, picture, factor)
}

/// Against the smoothed picture.
pub fn sharpness(picture: &Picture, factor: f64) -> Picture {
    blend(smooth(picture), picture, factor)
}

/// The grey level of each pixel.
fn grey(picture: &Picture) -> Vec<u8> {
    let pixels = picture.pixels();
    match picture.channels() {
        1 => pixels.to_vec(),
        _ => widest(
            #[inline(always)]
            move || pixels.as_chunks::<3>().0.iter().map(|&pixel| grey_of(pixel)).collect(),
        ),
    }
}

/// plain + factor (picture - plain) in single precision, truncated.
#[inline(always)]
fn between(plain: u8, picture: u8, factor: f32) -> u8 {
    let difference = f32::from(i16::from(picture) - i16::from(plain));
    // Between 0 and 1 nothing leaves the range, so that one clamp serves all.
    (f32::from(plain) + factor * difference).clamp(0.0, 255.0) as i32 as u8
}

fn blend(plain: Picture, picture: &Picture, factor: f64) -> Picture {
    let (mut out, factor) = (plain, factor as f32);
    let both = out.pixels_mut().iter_mut().zip(picture.pixels());
    widest(
        #[inline(always)]
        move || both.for_each(|(to, &picture)| *to = between(*to, picture, factor)),
    );
    out
}

/// [`blend`] where the plain picture is of one level.
fn blend_with(plain: u8, picture: &Picture, factor: f64) -> Picture {
    let (mut out, factor) = (picture.clone(), factor as f32);
    let pixels = out.pixels_mut();
    widest(
        #[inline(always)]
        move || pixels.iter_mut().for_each(|to| *to = between(plain, *to, factor)),
    );
    out
}

/// Means of 3x3 pixels of which the middle one counts five times. Pixels at the border stay.
fn smooth(picture: &Picture) -> Picture {
    let (width, height, channels) = (picture.width() as usize, picture.height() as usize, picture.channels());
    let mut out = picture.clone();
    if width < 3 || height < 3 {
        return out;
    }
    let stride = width * channels;
    let rows = picture.pixels().chunks_exact(stride);
    let rows = rows.clone().zip(rows.clone().skip(1)).zip(rows.skip(2));
    for (((above, row), below), to) in rows.zip(out.pixels_mut().chunks_exact_mut(stride).skip(1)) {
        // What is left of each value, the value, what is right of it.
        let windows = [above, row, below].map(|row| [0, channels, 2 * channels].map(|from| &row[from..]));
        smooth_row(windows, &mut to[channels..stride - channels]);
    }
    out
}

fn smooth_row(windows: [[&[u8]; 3]; 3], to: &mut [u8]) {
    let windows = windows.map(|row| row.map(|window| &window[..to.len()]));
    widest(
        #[inline(always)]
        move || {
            for (i, to) in to.iter_mut().enumerate() {
                let value = |row: usize, column: usize| u16::from(windows[row][column][i]);
                let across = |row: usize| value(row, 0) + value(row, 1) + value(row, 2);
                let sum = across(0) + across(1) + across(2) + 4 * value(1, 1);
                // Rounded; a sum of whole numbers is never halfway between two thirteenths.
                *to = ((2 * sum + 13) / 26) as u8;
            }
        },
    );
}
