//! Pictures cut out while they are resized: the same numbers as resizing first, and none of the cost.

use std::io::Cursor;

use image::{DynamicImage, ImageFormat};
use lara_models::data::picture::{self, CropMode, Interpolation, Resize, Scale};
use lara_models::data::{ImageShape, Picture, Preprocess};

use crate::pillow;

const RGB_8: ImageShape = ImageShape { channels: 3, height: 8, width: 8 };

fn png(picture: &DynamicImage) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, ImageFormat::Png).unwrap();
    bytes.into_inner()
}

fn grey_fitting(size: usize, crop_pct: f64) -> Preprocess {
    let shape = ImageShape { channels: 1, height: size, width: size };
    Preprocess::timm(shape, crop_pct, CropMode::Center, Interpolation::Bicubic)
}

/// The upper bytes of a linear congruential generator: the pictures that Pillow resized.
fn noise(width: u32, height: u32, channels: usize) -> Picture {
    let mut state = width * 1000 + height;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    let pixels = (0..(width * height) as usize * channels).map(|_| next()).collect();
    Picture::new(width, height, channels, pixels).unwrap()
}

fn cut(picture: &Picture, [left, top, width, height]: [usize; 4]) -> Picture {
    let channels = picture.channels();
    let rows = picture.pixels().chunks_exact(picture.width() as usize * channels).skip(top).take(height);
    let pixels = rows.flat_map(|row| &row[left * channels..(left + width) * channels]).copied().collect();
    Picture::new(width as u32, height as u32, channels, pixels).unwrap()
}

fn checksum(picture: &Picture) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(picture.pixels());
    crc.sum()
}

/// v(x, y) = (7x^2 + 13y + 3xy) mod 256, 9 wide, 7 high.
fn waves() -> Picture {
    let pixels = (0..7u32).flat_map(|y| (0..9u32).map(move |x| ((7 * x * x + 13 * y + 3 * x * y) % 256) as u8));
    Picture::new(9, 7, 1, pixels.collect()).unwrap()
}

#[test]
fn a_picture_is_resized_to_pillows_levels() {
    let small = Resize::to([5, 4], Interpolation::Bicubic).apply(&waves());
    let rows = [8, 40, 132, 157, 157, 32, 76, 156, 109, 101, 58, 118, 156, 94, 126, 82, 149, 122, 110, 89];
    assert_eq!(small.pixels(), rows);
    let large = Resize::to([12, 10], Interpolation::Bicubic).apply(&waves());
    assert_eq!(large.pixels()[..12], [0, 2, 12, 31, 57, 91, 132, 186, 255, 144, 112, 195]);
    for (name, [width, height], size, channels, expected) in pillow::RESIZED {
        let interpolation = interpolation(name);
        let resized = Resize::to(size, interpolation).apply(&noise(width, height, channels));
        assert_eq!([resized.width(), resized.height()].map(u64::from), size);
        assert_eq!(checksum(&resized), expected, "{name} {channels}x{height}x{width} to {size:?}");
    }
}

#[test]
fn a_part_of_a_picture_is_resized_to_pillows_levels() {
    for (name, [width, height], size, region, expected) in pillow::BOXES {
        let resize = Resize { region: Some(region), ..Resize::to(size, interpolation(name)) };
        let resized = resize.apply(&noise(width, height, 3));
        assert_eq!(checksum(&resized), expected, "{name} {height}x{width} in {region:?} to {size:?}");
    }
    for (name, expected) in pillow::CUT {
        let window = Some([7, 9, 40, 31]);
        let resize = Resize { window, ..Resize::to([24, 24], interpolation(name)) };
        let (noise, whole) = (noise(64, 50, 3), Resize::to([24, 24], interpolation(name)));
        let resized = resize.apply(&noise);
        assert_eq!(checksum(&resized), expected, "{name}");
        assert_eq!(resized, whole.apply(&cut(&noise, [7, 9, 40, 31])), "{name}");
    }
}

fn interpolation(name: &str) -> Interpolation {
    Interpolation::ALL.into_iter().find(|interpolation| interpolation.name() == name).unwrap()
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
        for interpolation in Interpolation::ALL {
            let fit = Preprocess::timm(shape, crop_pct, CropMode::Center, interpolation);
            let picture = noise(width, height, 3);
            let resized = fit.resized([width, height]);
            let whole = Resize::to(resized, interpolation).apply(&picture);
            let offset = |i: usize| ((resized[i] - size as u64) as f64 / 2.0).round_ties_even() as usize;
            let wanted = cut(&whole, [offset(0), offset(1), size, size]);
            let what = format!("{width}x{height} to {size} at {crop_pct}, {interpolation:?}");
            assert_eq!(fit.fit(picture).unwrap(), wanted, "{what}");
        }
    }
}

#[test]
fn sizes_before_the_crop_are_torchvisions_and_timms() {
    let of = |shape: [usize; 2], crop_pct, mode, size| {
        let shape = ImageShape { channels: 3, height: shape[0], width: shape[1] };
        Preprocess::timm(shape, crop_pct, mode, Interpolation::Bicubic).resized(size)
    };
    // In floating point 248 / 175 * 350 is 495.99..
    assert_eq!(of([224, 224], 0.9, CropMode::Center, [350, 175]), [496, 248]);
    assert_eq!(of([224, 224], 0.9, CropMode::Center, [175, 350]), [248, 496]);
    for (crop_pct, side) in [(0.875, 256), (0.9, 248), (0.95, 235), (1.0, 224)] {
        assert_eq!(of([224, 224], crop_pct, CropMode::Center, [500, 375]), [500 * side / 375, side]);
        assert_eq!(of([224, 224], crop_pct, CropMode::Squash, [500, 375]), [side, side]);
    }
    // ResizeKeepRatio: 500 / (375 / 256) = 341.33, 375 / (500 / 256) = 192; halves to the even number.
    assert_eq!(of([224, 224], 0.875, CropMode::Border, [500, 375]), [256, 192]);
    assert_eq!(of([224, 112], 1.0, CropMode::Center, [500, 375]), [299, 224]);
    assert_eq!(of([4, 4], 1.0, CropMode::Border, [8, 5]), [4, 2]);
    assert_eq!(of([4, 4], 1.0, CropMode::Border, [8, 7]), [4, 4]);
    let keep = Preprocess { scale: Scale::Keep, ..grey_fitting(8, 1.0) };
    assert_eq!(keep.resized([3, 50]), [3, 50]);
}

#[test]
fn a_border_has_the_colour_of_the_mean() {
    let shape = ImageShape { channels: 3, height: 8, width: 8 };
    let fit = Preprocess::timm(shape, 1.0, CropMode::Border, Interpolation::Bicubic);
    let fit = fit.normalised(&[0.485, 0.456, 0.406], &[0.229, 0.224, 0.225]).unwrap();
    let white = Picture::new(16, 6, 3, vec![255; 16 * 6 * 3]).unwrap();
    let seen = fit.fit(white.clone()).unwrap();
    // 3 of 8 rows: 2 above, 3 below.
    let row = |y: usize| &seen.pixels()[y * 24..][..24];
    for y in [0, 1, 5, 6, 7] {
        assert_eq!(row(y), [124, 116, 104].repeat(8), "{y}");
    }
    for y in 2..5 {
        assert_eq!(row(y), [255; 24], "{y}");
    }
    // The mean becomes nearly 0, in the order of planes.
    let input = fit.apply(white).unwrap();
    for (c, plane) in input.chunks(64).enumerate() {
        assert!(plane[0].abs() < 0.01, "{c}: {}", plane[0]);
        assert_eq!(plane[16], (1.0 - fit.mean[c] as f32) / fit.std[c] as f32, "{c}");
    }
}

#[test]
fn what_the_model_is_given_is_what_was_seen_normalised() {
    let fit = Preprocess::timm(RGB_8, 0.875, CropMode::Center, Interpolation::Lanczos);
    let fit = fit.normalised(&[0.5, 0.4, 0.3], &[0.2]).unwrap();
    let seen = fit.fit(noise(31, 17, 3)).unwrap();
    assert_eq!(fit.apply(noise(31, 17, 3)).unwrap(), fit.normalise(&seen.planes()).unwrap());
    let error = fit.normalise(&[0.0; 3]).unwrap_err();
    assert_eq!(error.to_string(), "the model takes images of 3x8x8, 192 numbers, not 3");
    let two = Preprocess::timm(RGB_8, 1.0, CropMode::Center, Interpolation::Box).normalised(&[0.5; 2], &[0.5]);
    assert_eq!(
        two.unwrap_err().to_string(),
        "data.mean has 2 values for images of 3 channels; give one value, or one for each channel"
    );
}

#[test]
fn a_long_thin_picture_is_cut_from_its_middle() {
    // 1 pixel high and 100,000 wide, black but for a white middle: resized it would be 256 x 25,600,000.
    for (width, height) in [(100_000, 1), (1, 100_000)] {
        let lines = image::GrayImage::from_fn(width, height, |x, y| {
            image::Luma([if (49_999..=50_000).contains(&(x + y)) { 255 } else { 0 }])
        });
        let found = grey_fitting(224, 0.875).read_bytes("line.png", &png(&lines.into())).unwrap();
        // 224 of the 512 columns of the two white pixels, whose edges are 256 from the middle; the rest is ripple.
        assert!(found.iter().all(|&value| value == 1.0), "{width}x{height}: {:?}", &found[..8]);
    }
    // Almost nothing of a picture is asked for: its middle, enlarged.
    let found = grey_fitting(224, 1e-9).fit(noise(40, 30, 1)).unwrap().planes();
    assert!(found.iter().all(|value| *value == found[0]));
}

#[test]
fn a_picture_of_twenty_million_pixels_in_a_line_is_squashed_and_framed() {
    // Half black, half white. All weights of all columns at once would be 640 MB, all resized rows 4.5 GB.
    const LONG: u32 = 20_000_000;
    let halves = || [vec![0; LONG as usize / 2], vec![255; LONG as usize / 2]].concat();
    for [width, height] in [[LONG, 1], [1, LONG]] {
        for mode in [CropMode::Squash, CropMode::Border] {
            let fit = Preprocess::timm(ImageShape { channels: 1, height: 8, width: 8 }, 1.0, mode, Interpolation::Box);
            let seen = fit.fit(Picture::new(width, height, 1, halves()).unwrap()).unwrap();
            let at = |i: usize| if width == LONG { seen.pixels()[3 * 8 + i] } else { seen.pixels()[i * 8 + 3] };
            assert_eq!([0, 1, 2, 3, 4, 5, 6, 7].map(at), [0, 0, 0, 0, 255, 255, 255, 255], "{width}x{height} {mode:?}");
        }
    }
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
    let error = picture::from_bytes("bomb.png", &promise(60_000, 60_000)).unwrap_err();
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
    let error = picture::from_bytes("p.png", &bytes).unwrap_err();
    assert_eq!(error.to_string(), "p.png: cannot be read as an image: its palette is no list of colours");
}

/// Files of every kind, each with a PNG file of what Pillow's `exif_transpose` and `convert("RGB")` make of it.
#[test]
fn files_are_read_as_pillow_reads_them() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("models/fixtures/pictures");
    let mut tried = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name.ends_with(".expected.png") {
            continue;
        }
        let expected = picture::load(folder.join(format!("{name}.expected.png"))).unwrap().with_channels(3);
        let found = picture::load(&path).unwrap_or_else(|error| panic!("{error}")).with_channels(3);
        assert_eq!((found.width(), found.height()), (expected.width(), expected.height()), "{name}");
        let levels = found.pixels().iter().zip(expected.pixels()).map(|(a, b)| a.abs_diff(*b));
        // Decoders of lossy files round differently: this one and libjpeg-turbo, this one and libwebp.
        let most = if name.ends_with(".jpg") || name.starts_with("lossy") { 3 } else { 0 };
        let largest = levels.max().unwrap();
        assert!(largest <= most, "{name}: off by {largest} levels");
        tried += 1;
    }
    assert!(tried >= 30, "{tried}");
}

#[test]
fn a_file_that_is_cut_short_is_refused_whatever_it_is() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("models/fixtures/pictures");
    for name in [
        "alpha.png",
        "plain.bmp",
        "still.gif",
        "lossless.webp",
        "lossy.webp",
        "baseline.jpg",
        "progressive.jpg",
        "turned_6.jpg",
    ] {
        let bytes = std::fs::read(folder.join(name)).unwrap();
        for length in [bytes.len() - 2, bytes.len() * 3 / 4, bytes.len() / 2, 20] {
            let read = picture::from_bytes(name, &bytes[..length]);
            // The last bytes of a GIF are a length of 0 and the end, of a PNG its last checksum.
            if read.is_ok() && length == bytes.len() - 2 && (name.ends_with("gif") || name.ends_with("png")) {
                continue;
            }
            let error = read.expect_err(&format!("{name} of {length} bytes"));
            assert!(error.is_bad_input(), "{error}");
            assert!(
                error.to_string().starts_with(&format!("{name}: ")) && !error.to_string().contains('\n'),
                "{error}"
            );
        }
    }
}
