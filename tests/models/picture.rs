//! Pictures cut out while they are resized: the same numbers as resizing first, and none of the cost.

use std::io::Cursor;

use image::imageops::{FilterType, crop_imm, resize};
use image::{DynamicImage, ImageFormat};
use lara_models::data::{ImageShape, picture};
use lara_models::random::{Draws, Purpose};

fn png(picture: &DynamicImage) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, ImageFormat::Png).unwrap();
    bytes.into_inner()
}

fn noise(width: u32, height: u32) -> DynamicImage {
    let mut draws = Draws::new(1, Purpose::Augment, u64::from(width), u64::from(height));
    image::RgbImage::from_fn(width, height, |_, _| image::Rgb([(); 3].map(|()| draws.bits() as u8))).into()
}

/// timm's evaluation as it is written: resize all of it, then cut.
fn resized_then_cut(picture: &image::RgbImage, shape: ImageShape, crop_pct: f64) -> Vec<f32> {
    let (height, width) = (shape.height as u32, shape.width as u32);
    let shorter = (f64::from(height.min(width)) / crop_pct).floor();
    let (w, h) = (f64::from(picture.width()), f64::from(picture.height()));
    let scaled = |side: f64| (if side == w.min(h) { shorter } else { side * (shorter / w.min(h)) }) as u32;
    let (new_w, new_h) = (scaled(w).max(width), scaled(h).max(height));
    let whole = resize(picture, new_w, new_h, FilterType::CatmullRom);
    let offset = |outer: u32, inner: u32| (f64::from(outer - inner) / 2.0).round_ties_even() as u32;
    let cut = crop_imm(&whole, offset(new_w, width), offset(new_h, height), width, height).to_image();
    (0..3).flat_map(|c| cut.pixels().map(move |pixel| f32::from(pixel[c]) / 255.0).collect::<Vec<_>>()).collect()
}

#[test]
fn cutting_while_resizing_changes_no_bit() {
    for (width, height, size, crop_pct) in [
        (500, 375, 224, 0.875),
        (224, 224, 224, 1.0),
        (97, 1003, 32, 0.875),
        (7, 5, 16, 0.9),
        (3, 300, 8, 0.5),
        (300, 3, 8, 1.0),
        (1, 1, 4, 0.875),
        (1, 17, 5, 0.3),
        (33, 32, 32, 1.0),
        (640, 480, 7, 0.01),
    ] {
        let shape = ImageShape { channels: 3, height: size, width: size };
        let picture = noise(width, height);
        let found = picture::from_bytes("noise.png", &png(&picture), shape, crop_pct).unwrap();
        let wanted = resized_then_cut(&picture.into_rgb8(), shape, crop_pct);
        assert_eq!(found, wanted, "{width}x{height} to {size} at {crop_pct}");
    }
}

#[test]
fn a_long_thin_picture_is_cut_from_its_middle() {
    // 1 pixel high and 100,000 wide, black but for a white middle: resized it would be 256 x 25,600,000.
    let shape = ImageShape { channels: 1, height: 224, width: 224 };
    for (width, height) in [(100_000, 1), (1, 100_000)] {
        let lines = image::GrayImage::from_fn(width, height, |x, y| {
            image::Luma([if (49_999..=50_000).contains(&(x + y)) { 255 } else { 0 }])
        });
        let found = picture::from_bytes("line.png", &png(&lines.into()), shape, 0.875).unwrap();
        // 224 of the 512 columns of the two white pixels, whose edges are 256 from the middle; the rest is ripple.
        assert!(found.iter().all(|&value| value == 1.0), "{width}x{height}: {:?}", &found[..8]);
    }
    // Almost nothing of a picture is asked for: its middle, enlarged.
    let found = picture::from_bytes("noise.png", &png(&noise(40, 30)), shape, 1e-9).unwrap();
    assert!(found.iter().all(|value| *value == found[0]));
}

fn chunk(kind: &[u8; 4], body: &[u8]) -> Vec<u8> {
    let mut checked = kind.to_vec();
    checked.extend(body);
    let mut crc = flate2::Crc::new();
    crc.update(&checked);
    [&(body.len() as u32).to_be_bytes()[..], &checked, &crc.sum().to_be_bytes()].concat()
}

/// A PNG file that promises `width` x `height` grey pixels and holds none.
fn promise(width: u32, height: u32) -> Vec<u8> {
    let size = [width.to_be_bytes(), height.to_be_bytes()].concat();
    let header = [&size[..], &[8, 0, 0, 0, 0]].concat();
    [b"\x89PNG\r\n\x1a\n".to_vec(), chunk(b"IHDR", &header), chunk(b"IDAT", &[0x78, 0x9c]), chunk(b"IEND", &[])]
        .concat()
}

#[test]
fn a_picture_that_promises_too_much_is_refused_before_it_is_decoded() {
    let shape = ImageShape { channels: 1, height: 8, width: 8 };
    let error = picture::from_bytes("bomb.png", &promise(60_000, 60_000), shape, 1.0).unwrap_err();
    assert!(error.is_bad_input());
    assert_eq!(
        error.to_string(),
        "bomb.png: has 60000x60000 pixels, which are 3434 MiB when they are decoded; at most 512 MiB are read, so make it \
         smaller"
    );
}

#[test]
fn a_palette_that_is_no_list_of_colours_is_refused() {
    // The decoder panics on it (png 0.18.1).
    let mut bytes = promise(1, 1);
    bytes[25] = 3;
    let header = chunk(b"IHDR", &bytes[16..29]);
    bytes.splice(8..33, [header, chunk(b"PLTE", &[1, 2, 3, 4])].concat());
    let error = picture::from_bytes("p.png", &bytes, ImageShape { channels: 1, height: 8, width: 8 }, 1.0).unwrap_err();
    assert_eq!(error.to_string(), "p.png: cannot be read as an image: its palette is no list of colours");
}
