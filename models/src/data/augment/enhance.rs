//! Colour, contrast, brightness and sharpness, as Pillow's `ImageEnhance` computes them: a blend of the picture with one
//! that has nothing of it, where a factor of 1 leaves the picture, 0 gives the other, and more exaggerates.

use crate::data::picture::Picture;

/// Against the grey picture. Grey pictures stay what they are.
pub fn color(picture: &Picture, factor: f64) -> Picture {
    let mut plain = picture.clone();
    let channels = picture.channels();
    for (pixel, grey) in plain.pixels_mut().chunks_exact_mut(channels).zip(grey(picture)) {
        pixel.fill(grey);
    }
    blend(&plain, picture, factor)
}

/// Against the mean of the grey picture, everywhere.
pub fn contrast(picture: &Picture, factor: f64) -> Picture {
    let grey = grey(picture);
    let sum: u64 = grey.iter().map(|&level| u64::from(level)).sum();
    let mean = (sum as f64 / grey.len() as f64 + 0.5) as u8;
    let mut plain = picture.clone();
    plain.pixels_mut().fill(mean);
    blend(&plain, picture, factor)
}

/// Against black.
pub fn brightness(picture: &Picture, factor: f64) -> Picture {
    let mut plain = picture.clone();
    plain.pixels_mut().fill(0);
    blend(&plain, picture, factor)
}

/// Against the smoothed picture.
pub fn sharpness(picture: &Picture, factor: f64) -> Picture {
    blend(&smooth(picture), picture, factor)
}

/// The grey level of each pixel.
fn grey(picture: &Picture) -> Vec<u8> {
    picture.clone().with_channels(1).pixels().to_vec()
}

/// plain + factor (picture - plain) in single precision, truncated.
fn blend(plain: &Picture, picture: &Picture, factor: f64) -> Picture {
    let factor = factor as f32;
    // Between 0 and 1 nothing leaves the range, so that one clamp serves all.
    let value = |plain: u8, picture: u8| {
        let difference = f32::from(i16::from(picture) - i16::from(plain));
        (f32::from(plain) + factor * difference).clamp(0.0, 255.0) as u8
    };
    let mut out = picture.clone();
    for (to, &plain) in out.pixels_mut().iter_mut().zip(plain.pixels()) {
        *to = value(plain, *to);
    }
    out
}

/// Means of 3x3 pixels of which the middle one counts five times. Pixels at the border stay.
fn smooth(picture: &Picture) -> Picture {
    let (width, height, channels) = (picture.width() as usize, picture.height() as usize, picture.channels());
    let bytes = picture.pixels();
    let mut out = picture.clone();
    if width < 3 || height < 3 {
        return out;
    }
    let stride = width * channels;
    let to = out.pixels_mut();
    for y in 1..height - 1 {
        for i in y * stride + channels..(y + 1) * stride - channels {
            let across =
                |at: usize| u32::from(bytes[at - channels]) + u32::from(bytes[at]) + u32::from(bytes[at + channels]);
            let sum = across(i - stride) + across(i) + across(i + stride) + 4 * u32::from(bytes[i]);
            // Rounded; a sum of whole numbers is never halfway between two thirteenths.
            to[i] = ((2 * sum + 13) / 26) as u8;
        }
    }
    out
}
