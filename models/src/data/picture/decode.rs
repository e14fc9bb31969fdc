//! Files of pictures to bytes: PNG, JPEG, WebP, GIF and BMP.

use std::io::{BufRead, BufReader, Cursor, Seek, SeekFrom};
use std::path::Path;

use image::metadata::Orientation;
use image::{ColorType, DynamicImage, ImageDecoder, ImageFormat, ImageReader};

use super::Picture;
use crate::error::{Error, Result};

/// What a picture may take when it is decoded, bytes.
const DECODED_MAX: u64 = 512 << 20;

/// What a decoder may take beside that, bytes: for rows, colour profiles, comments.
const ASIDE_MAX: u64 = 128 << 20;

/// What names of files of pictures end in.
pub const EXTENSIONS: [&str; 6] = ["png", "jpg", "jpeg", "webp", "gif", "bmp"];

/// Whether a file is called a picture: its name ends in one of [`EXTENSIONS`], in small or capital letters.
pub fn is_called_picture(path: &Path) -> bool {
    let extension = path.extension().map(|extension| extension.to_string_lossy().to_ascii_lowercase());
    extension.is_some_and(|extension| EXTENSIONS.contains(&extension.as_str()))
}

/// Reads a PNG, JPEG, WebP, GIF (its first frame) or BMP file; the content tells which, not the name.
///
/// Colours are as Pillow's `convert("RGB")` gives them: transparency is dropped, not laid over anything, palettes are
/// looked up, CMYK is multiplied out, of 16 bits the upper 8 count. (Of a 16-bit grey picture, too, where Pillow makes
/// everything above 255 white.) Pictures that are grey in the file stay grey. A camera's EXIF orientation is applied; a
/// picture that lies on its side takes its memory twice while it is turned.
///
/// # Errors
/// A file that is not there, is no picture, is damaged or cut short, or takes more than 512 MiB when it is decoded.
pub fn load(path: impl AsRef<Path>) -> Result<Picture> {
    let path = path.as_ref();
    let file = std::fs::File::open(path).map_err(Error::io("read", path))?;
    decode(path, BufReader::new(file), None)
}

/// As [`load`], but what is transparent is laid over a colour: for drawings, whose hidden colours mean nothing.
///
/// # Errors
/// As there.
pub fn load_over(path: impl AsRef<Path>, background: [u8; 3]) -> Result<Picture> {
    let path = path.as_ref();
    let file = std::fs::File::open(path).map_err(Error::io("read", path))?;
    decode(path, BufReader::new(file), Some(background))
}

/// As [`load`], from the bytes of a file; `name` stands for it in messages.
///
/// # Errors
/// As there.
pub fn from_bytes(name: impl AsRef<Path>, bytes: &[u8]) -> Result<Picture> {
    decode(name.as_ref(), Cursor::new(bytes), None)
}

fn decode(path: &Path, mut bytes: impl BufRead + Seek, background: Option<[u8; 3]>) -> Result<Picture> {
    if has_broken_palette(&mut bytes).map_err(Error::io("read", path))? {
        return Err(Error::input(path, "cannot be read as an image: its palette is no list of colours"));
    }
    bytes.rewind().map_err(Error::io("read", path))?;
    let mut reader = ImageReader::new(&mut bytes).with_guessed_format().map_err(Error::io("read", path))?;
    let format = reader.format().filter(ImageFormat::reading_enabled);
    let Some(format) = format else {
        return Err(Error::input(path, "is not an image of a known format; PNG, JPEG, WebP, GIF and BMP are read"));
    };
    let mut limits = image::Limits::default();
    limits.max_alloc = Some(ASIDE_MAX);
    reader.limits(limits);
    let damaged = |error: image::ImageError| Error::input(path, format!("cannot be read as an image: {error}"));
    let mut decoder = reader.into_decoder().map_err(damaged)?;
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
    // A camera's notes that cannot be read take nothing from the picture.
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let color = decoder.color_type();
    let mut pixels = vec![0; decoder.total_bytes() as usize];
    decoder.read_image(&mut pixels).map_err(damaged)?;
    // These two decoders fill in what is missing.
    let is_whole = match format {
        ImageFormat::Jpeg => is_whole_jpeg(&mut bytes),
        ImageFormat::WebP => is_whole_webp(&mut bytes),
        _ => Ok(true),
    };
    if !is_whole.map_err(Error::io("read", path))? {
        return Err(Error::input(path, "is cut short: the end of the image is missing; fetch it again"));
    }
    let channels = narrow(&mut pixels, color, background);
    upright(pixels, [width, height], channels, orientation)
        .ok_or_else(|| Error::Failed(format!("{}: {width}x{height} pixels became none", path.display())))
}

/// Keeps the upper byte of the colours of every pixel, in place; returns how many there are. What is transparent is laid
/// over the background, if there is one (its first number under grey).
fn narrow(pixels: &mut Vec<u8>, color: ColorType, background: Option<[u8; 3]>) -> usize {
    let samples = usize::from(color.channel_count());
    let step = usize::from(color.bytes_per_pixel());
    let kept = if samples < 3 { 1 } else { 3 };
    if step == kept {
        return kept;
    }
    let wide = step / samples;
    let upper = if cfg!(target_endian = "little") { wide - 1 } else { 0 };
    let count = pixels.len() / step;
    for i in 0..count {
        let alpha = pixels[(i + 1) * step - wide + upper];
        for c in 0..kept {
            let value = pixels[i * step + c * wide + upper];
            pixels[i * kept + c] = match background.filter(|_| color.has_alpha()) {
                Some(background) => laid(value, alpha, background[c]),
                None => value,
            };
        }
    }
    pixels.truncate(count * kept);
    kept
}

/// A value over another, as Pillow's `paste` mixes them.
fn laid(value: u8, alpha: u8, below: u8) -> u8 {
    let sum = u32::from(value) * u32::from(alpha) + u32::from(below) * u32::from(255 - alpha) + 128;
    ((sum + (sum >> 8)) >> 8) as u8
}

fn upright(pixels: Vec<u8>, [width, height]: [u32; 2], channels: usize, orientation: Orientation) -> Option<Picture> {
    let mut picture: DynamicImage = match channels {
        1 => image::GrayImage::from_raw(width, height, pixels)?.into(),
        _ => image::RgbImage::from_raw(width, height, pixels)?.into(),
    };
    picture.apply_orientation(orientation);
    let (width, height) = (picture.width(), picture.height());
    Some(Picture::of(width, height, channels, picture.into_bytes()))
}

/// Whether a WebP file is as long as it says.
fn is_whole_webp(bytes: &mut (impl BufRead + Seek)) -> std::io::Result<bool> {
    let mut head = [0; 8];
    bytes.rewind()?;
    bytes.read_exact(&mut head)?;
    let [.., a, b, c, d] = head;
    Ok(bytes.seek(SeekFrom::End(0))? >= u64::from(u32::from_le_bytes([a, b, c, d])) + 8)
}

/// Whether a JPEG file has its end, which is looked for behind the headers, which may hold
/// another picture with another end.
fn is_whole_jpeg(bytes: &mut (impl BufRead + Seek)) -> std::io::Result<bool> {
    const START_OF_SCAN: u8 = 0xda;
    bytes.seek(SeekFrom::Start(2))?;
    loop {
        let mut head = [0; 4];
        match bytes.read_exact(&mut head) {
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(false),
            other => other?,
        }
        match head {
            [0xff, START_OF_SCAN, ..] => break,
            // Fill bytes may precede a marker.
            [0xff, 0xff, ..] => bytes.seek_relative(-3)?,
            [0xff, _, a, b] => bytes.seek_relative(i64::from(u16::from_be_bytes([a, b])) - 2)?,
            // What is between segments is the decoder's to judge.
            _ => bytes.seek_relative(-3)?,
        }
    }
    let mut rest = Vec::new();
    bytes.read_to_end(&mut rest)?;
    Ok(rest.windows(2).rev().any(|pair| pair == [0xff, 0xd9]))
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
