//! PNG and JPEG: sizes that promise too much, chunks in no order, damaged data, all kinds of pixels.

use std::io::{Cursor, Write};

use flate2::Compression;
use flate2::write::ZlibEncoder;
use image::{DynamicImage, ImageFormat};
use lara_models::data::ImageShape;
use lara_models::data::picture::{CropMode, Interpolation, Preprocess};

use super::Rooms;
use crate::case::{Answer, Case, answer};
use crate::source::Source;

/// What a picture may take when it is decoded.
const DECODED_MAX: u64 = 512 << 20;
/// What a decoder may take beside them.
const ASIDE_MAX: usize = 128 << 20;

/// Whole pictures to be damaged.
pub(crate) struct Album {
    pub(super) png: Vec<Vec<u8>>,
    jpeg: Vec<Vec<u8>>,
}

impl Album {
    pub(super) fn paint() -> Self {
        let rgb = image::RgbImage::from_fn(19, 13, |x, y| image::Rgb([(x * 13) as u8, (y * 19) as u8, (x * y) as u8]));
        let rgb = DynamicImage::from(rgb);
        let kinds = [
            rgb.to_luma8().into(),
            rgb.to_luma_alpha8().into(),
            rgb.to_rgba8().into(),
            rgb.to_rgb16().into(),
            rgb.clone(),
        ];
        let encode = |picture: &DynamicImage, format| {
            let mut bytes = Cursor::new(Vec::new());
            picture.write_to(&mut bytes, format).expect("a small picture can be encoded");
            bytes.into_inner()
        };
        Self {
            png: kinds.iter().map(|picture| encode(picture, ImageFormat::Png)).collect(),
            jpeg: [&kinds[0], &rgb].iter().map(|picture| encode(picture, ImageFormat::Jpeg)).collect(),
        }
    }
}

pub(super) fn png(case: &mut Case<'_>, rooms: &mut Rooms) -> Answer {
    let bytes = if case.source.chance(1, 3) { damaged(&mut case.source, &rooms.pictures.png) } else { composed(case) };
    read(case, "input.png", &bytes)
}

pub(super) fn jpeg(case: &mut Case<'_>, rooms: &mut Rooms) -> Answer {
    let mut bytes = damaged(&mut case.source, &rooms.pictures.jpeg);
    // The frame header: marker, length, precision, height, width.
    let frame = bytes.windows(2).position(|pair| pair[0] == 0xff && (0xc0..=0xc2).contains(&pair[1]));
    if let Some(at) = frame.filter(|_| case.source.chance(1, 2)).filter(|at| at + 9 <= bytes.len()) {
        let [height, width] = [(); 2].map(|()| side(&mut case.source).min(65_535) as u16);
        bytes[at + 5..at + 7].copy_from_slice(&height.to_be_bytes());
        bytes[at + 7..at + 9].copy_from_slice(&width.to_be_bytes());
        if case.source.chance(1, 4) {
            bytes[at + 1] = 0xc2;
        }
        // A progressive picture is held as coefficients, too.
        let pixels = u64::from(width) * u64::from(height);
        case.allow((pixels * 3).min(DECODED_MAX) as usize * 5);
    }
    read(case, "input.jpg", &bytes)
}

fn read(case: &mut Case<'_>, name: &str, bytes: &[u8]) -> Answer {
    let size = case.source.pick(&[1, 2, 8, 28, 32]);
    let channels = if case.source.chance(1, 20) { 2 } else { case.source.pick(&[1, 3]) };
    let shape = ImageShape { channels, height: size, width: size };
    let crop_pct = case.source.pick(&[0.875, 1.0, 0.5, 1e-3, 1e-9, 1e-300]);
    let mode = case.source.pick(&[CropMode::Center, CropMode::Squash, CropMode::Border]);
    let interpolation = case.source.pick(&Interpolation::ALL);
    case.keep(name, bytes);
    let read = Preprocess::timm(shape, crop_pct, mode, interpolation).read_bytes(name, bytes);
    if let Ok(pixels) = &read {
        assert!(pixels.iter().all(|value| (0.0..=1.0).contains(value)), "pixels beyond 0..1");
    }
    answer(read)
}

fn damaged(source: &mut Source<'_>, album: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = album[source.range(0..=album.len() - 1)].clone();
    source.damage(&mut bytes);
    bytes
}

/// Mostly small, sometimes long and thin, sometimes more than there is memory for. What would be decoded at length is
/// left to few cases.
fn side(source: &mut Source<'_>) -> u32 {
    match source.range(0..=19) {
        0 => source.word() as u32,
        1 => source.pick(&[65_535, 65_536, 1 << 20, 20_000_000, u32::MAX]),
        2 => source.range(0..=3000) as u32,
        _ => source.range(0..=40) as u32,
    }
}

/// A PNG file of chunks whose checksums are right, whatever they say.
fn composed(case: &mut Case<'_>) -> Vec<u8> {
    let source = &mut case.source;
    let (width, height) = (side(source), side(source));
    let (color, depth) = source.pick(&[
        (0, 8),
        (2, 8),
        (6, 8),
        (4, 8),
        (3, 8),
        (0, 1),
        (0, 16),
        (2, 16),
        (6, 16),
        (3, 2),
        (7, 8),
        (2, 3),
    ]);
    let interlace = u8::from(source.chance(1, 8));
    let header = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[depth, color, 0, 0, interlace]].concat();
    let samples = match color {
        2 => 3,
        4 => 2,
        6 => 4,
        _ => 1,
    };
    let row = 1 + (u64::from(width) * samples * u64::from(depth)).div_ceil(8);
    let decoded = row.saturating_mul(u64::from(height));
    // The decoded pixels, a copy of them in the decoder, and what is beside them.
    let held = (u64::from(width) * u64::from(height)).saturating_mul(4 * u64::from(depth).div_ceil(8));
    case.allow(2 * held.min(DECODED_MAX) as usize + ASIDE_MAX);
    let source = &mut case.source;
    let data = pixels(source, decoded);
    let mut chunks = vec![chunk(b"IHDR", &header)];
    if color == 3 || source.chance(1, 20) {
        let colors = source.noise(30);
        chunks.push(chunk(b"PLTE", &colors));
    }
    if source.chance(1, 10) {
        let body = source.noise(12);
        let kind = source.pick(&[b"tRNS", b"gAMA", b"iCCP", b"zTXt", b"acTL", b"fcTL", b"fdAT", b"eXIf", b"xxxx"]);
        chunks.push(chunk(kind, &body));
    }
    if source.chance(1, 500) {
        // A text that unpacks to 100 MiB.
        chunks.push(chunk(b"zTXt", &[&b"Comment\0\0"[..], &zlib(&vec![b'a'; 100 << 20])].concat()));
    }
    chunks.push(chunk(b"IDAT", &data));
    chunks.push(chunk(b"IEND", &[]));
    if source.chance(1, 20) {
        let (a, b) = (source.range(0..=chunks.len() - 1), source.range(0..=chunks.len() - 1));
        chunks.swap(a, b);
    }
    let mut bytes = [b"\x89PNG\r\n\x1a\n".to_vec(), chunks.concat()].concat();
    if source.chance(1, 20) {
        source.damage(&mut bytes);
    }
    bytes
}

/// Data for so many bytes of rows: enough, a little short, or anything.
fn pixels(source: &mut Source<'_>, decoded: u64) -> Vec<u8> {
    match source.range(0..=5) {
        0 => source.noise(200),
        1 => zlib(&[]),
        _ if decoded <= 1 << 20 || (decoded <= 64 << 20 && source.chance(1, 20)) => {
            let missing = if source.chance(1, 4) { source.range(0..=20) } else { 0 };
            zlib(&vec![source.pick(&[0, 1, 255]); (decoded as usize).saturating_sub(missing)])
        }
        _ => zlib(&[0; 100]),
    }
}

fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    // Writing to memory does not fail.
    _ = encoder.write_all(bytes);
    encoder.finish().unwrap_or_default()
}

fn chunk(kind: &[u8; 4], body: &[u8]) -> Vec<u8> {
    let checked = [&kind[..], body].concat();
    let mut crc = flate2::Crc::new();
    crc.update(&checked);
    [&(body.len() as u32).to_be_bytes()[..], &checked, &crc.sum().to_be_bytes()].concat()
}
