//! Pictures on disk: PNG and JPEG files to planes of numbers, and back.

use std::io::{BufRead, BufReader, Cursor, Seek};
use std::path::Path;

use image::{DynamicImage, ImageDecoder, ImageReader, Rgb};

use super::ImageShape;
use super::resample::resample;
use crate::error::{Error, Result};

/// What a picture may take when it is decoded, bytes.
const DECODED_MAX: u64 = 512 << 20;

/// What a decoder may take beside that, bytes: for rows, colour profiles, comments.
const ASIDE_MAX: u64 = 128 << 20;

/// Reads a PNG or JPEG file as an image of `shape`: [C, H, W], values in 0..1, grey (ITU-R 601, as Pillow) for one
/// channel or RGB for three. Transparent pixels are laid over black.
///
/// Geometry as in timm's evaluation: the shorter side is resized to `size / crop_pct` (Catmull-Rom, which is Pillow's
/// bicubic), then the centre is cut out. The format is told by the content, not by the name.
///
/// Only the centre is resized, so a picture of any shape takes the memory of its pixels and of its centre.
pub fn load(path: impl AsRef<Path>, shape: ImageShape, crop_pct: f64) -> Result<Vec<f32>> {
    let path = path.as_ref();
    let file = std::fs::File::open(path).map_err(Error::io("read", path))?;
    planes(&fit(&decode(path, BufReader::new(file))?, shape, crop_pct), shape)
}

/// As [`load`], from the bytes of a file; `name` stands for it in messages.
pub fn from_bytes(name: impl AsRef<Path>, bytes: &[u8], shape: ImageShape, crop_pct: f64) -> Result<Vec<f32>> {
    planes(&fit(&decode(name.as_ref(), Cursor::new(bytes))?, shape, crop_pct), shape)
}

fn planes(rgb: &image::RgbImage, shape: ImageShape) -> Result<Vec<f32>> {
    let mut pixels = vec![0.0; shape.len()];
    let plane = shape.height * shape.width;
    for (i, &Rgb(values)) in rgb.pixels().enumerate() {
        match shape.channels {
            1 => pixels[i] = grey(values) / 255.0,
            3 => (0..3).for_each(|c| pixels[c * plane + i] = f32::from(values[c]) / 255.0),
            channels => {
                return Err(Error::Config(format!(
                    "pictures are read as grey or RGB: model.in_chans must be 1 or 3, not {channels}"
                )));
            }
        }
    }
    Ok(pixels)
}

/// Writes [C, H, W] values in 0..1 (1 or 3 channels; clamped) as a PNG file.
pub fn save_png(path: impl AsRef<Path>, pixels: &[f32], shape: ImageShape) -> Result<()> {
    let path = path.as_ref();
    if pixels.len() != shape.len() || !matches!(shape.channels, 1 | 3) {
        return Err(Error::Failed(format!("{} values are not a grey or RGB picture of {shape}", pixels.len())));
    }
    let plane = shape.height * shape.width;
    let byte = |value: f32| (value.clamp(0.0, 1.0) * 255.0).round() as u8;
    let interleaved: Vec<u8> =
        (0..plane).flat_map(|i| (0..shape.channels).map(move |c| byte(pixels[c * plane + i]))).collect();
    let color = if shape.channels == 1 { image::ExtendedColorType::L8 } else { image::ExtendedColorType::Rgb8 };
    image::save_buffer_with_format(
        path,
        &interleaved,
        shape.width as u32,
        shape.height as u32,
        color,
        image::ImageFormat::Png,
    )
    .map_err(|error| match error {
        image::ImageError::IoError(source) => Error::Io { action: "write", path: path.to_path_buf(), source },
        other => Error::Failed(format!("cannot write {}: {other}", path.display())),
    })
}

fn decode(path: &Path, mut bytes: impl BufRead + Seek) -> Result<DynamicImage> {
    if has_broken_palette(&mut bytes).map_err(Error::io("read", path))? {
        return Err(Error::input(path, "cannot be read as an image: its palette is no list of colours"));
    }
    bytes.rewind().map_err(Error::io("read", path))?;
    let mut reader = ImageReader::new(bytes).with_guessed_format().map_err(Error::io("read", path))?;
    if reader.format().is_none() {
        return Err(Error::input(path, "is not an image of a known format; PNG and JPEG are read"));
    }
    let mut limits = image::Limits::default();
    limits.max_alloc = Some(ASIDE_MAX);
    reader.limits(limits);
    let damaged = |error| Error::input(path, format!("cannot be read as an image: {error}"));
    let decoder = reader.into_decoder().map_err(damaged)?;
    let (width, height) = decoder.dimensions();
    if width == 0 || height == 0 {
        return Err(Error::input(path, format!("has {width}x{height} pixels: there is nothing to see")));
    }
    if decoder.total_bytes() > DECODED_MAX {
        return Err(Error::input(
            path,
            format!(
                "has {width}x{height} pixels, which are {} MiB when they are decoded; at most {} MiB are read, so make it smaller",
                decoder.total_bytes().div_ceil(1 << 20),
                DECODED_MAX >> 20
            ),
        ));
    }
    DynamicImage::from_decoder(decoder).map_err(damaged)
}

/// Whether this is a PNG file with a palette that is not a whole number of colours: on such a one the decoder (png
/// 0.18.1, its issue 694) panics.
fn has_broken_palette(bytes: &mut (impl BufRead + Seek)) -> std::io::Result<bool> {
    const SIGNATURE: [u8; 8] = *b"\x89PNG\r\n\x1a\n";
    fn next(bytes: &mut impl BufRead) -> std::io::Result<Option<[u8; 8]>> {
        let mut eight = [0; 8];
        match bytes.read_exact(&mut eight) {
            Ok(()) => Ok(Some(eight)),
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error),
        }
    }
    if next(bytes)? != Some(SIGNATURE) {
        return Ok(false);
    }
    // A chunk: its length, its name, so many bytes, and a checksum of four.
    while let Some([a, b, c, d, name @ ..]) = next(bytes)? {
        let length = u32::from_be_bytes([a, b, c, d]);
        match &name {
            b"PLTE" if !length.is_multiple_of(3) => return Ok(true),
            b"IDAT" => return Ok(false),
            _ => bytes.seek_relative(i64::from(length) + 4)?,
        };
    }
    Ok(false)
}

fn fit(picture: &DynamicImage, shape: ImageShape, crop_pct: f64) -> image::RgbImage {
    let (height, width) = (shape.height as u64, shape.width as u64);
    // As torchvision does it: the shorter side becomes floor(size / crop_pct), the longer side keeps the aspect,
    // truncated.
    let shorter = (height.min(width) as f64 / crop_pct).floor().max(1.0);
    let (w, h) = (f64::from(picture.width()), f64::from(picture.height()));
    let scale = shorter / w.min(h);
    let scaled = |side: f64| (if side == w.min(h) { shorter } else { side * scale }) as u64;
    let (new_w, new_h) = (scaled(w).max(width), scaled(h).max(height));
    let centre = |outer: u64, inner: u64| {
        let offset = ((outer - inner) as f64 / 2.0).round_ties_even() as u64;
        offset..offset + inner
    };
    resample(picture, [new_w, new_h], [centre(new_w, width), centre(new_h, height)])
}

/// Pillow's integer weights: a grey pixel keeps its exact value.
fn grey([red, green, blue]: [u8; 3]) -> f32 {
    ((19_595 * u32::from(red) + 38_470 * u32::from(green) + 7_471 * u32::from(blue) + 0x8000) >> 16) as f32
}
