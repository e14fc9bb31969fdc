//! The augmentations of single pictures, against what Pillow and timm make of the same pictures, and what they draw against
//! the distributions that timm draws from.

use lara_models::data::augment::affine::{affine, rotate};
use lara_models::data::augment::rand_augment::{Manner, Op};
use lara_models::data::augment::{
    ColorJitter, ErasingMode, Filter, RandAugment, RandomErasing, RandomResizedCrop, enhance,
};
use lara_models::data::{ImageShape, Picture};
use lara_models::random::{Draws, Purpose};

/// What Pillow 13.0 and timm 1.0.31 made of [`pattern`], a line for each picture, operation (in timm's order), level, `inc`,
/// sign and interpolation, with the CRC-32 of the result. (Pillow refuses to keep 0 bits; those lines are its `point`
/// with the table that older versions made: all 0.)
const FROM_PILLOW: &str = include_str!("fixtures/rand_augment.json");

/// Width, height, channels, operation, level, `inc`, sign, interpolation, CRC-32.
type Line = (usize, usize, usize, usize, f64, u8, u8, Filter, u32);

/// ImageNet's mean colour, as timm fills with it.
const FILL: [u8; 3] = [124, 116, 104];

/// A pattern that no symmetry leaves alone, its third channel with little contrast.
fn pattern(width: usize, height: usize, channels: usize) -> Picture {
    let values = |x: usize, y: usize| [7 * x * x + 13 * y + 3 * x * y, 11 * x + 5 * y * y + x * y, 40 + 3 * x + 2 * y];
    let bytes = (0..width * height)
        .flat_map(|i| values(i % width, i / width).into_iter().take(channels))
        .map(|value| (value % 256) as u8)
        .collect();
    Picture::new(width as u32, height as u32, channels, bytes).unwrap()
}

fn crc(picture: &Picture) -> u32 {
    let mut sum = flate2::Crc::new();
    sum.update(picture.pixels());
    sum.sum()
}

#[test]
fn every_operation_makes_pillows_pixels() {
    let lines: Vec<Line> = serde_json::from_str(FROM_PILLOW).unwrap();
    assert_eq!(lines.len(), 453);
    for (width, height, channels, op, level, is_increasing, is_negated, interpolation, expected) in lines {
        let (is_increasing, is_negated) = (is_increasing == 1, is_negated == 1);
        let manner = Manner { is_increasing, is_negated, interpolation, fill: &FILL[..channels] };
        let op = Op::ALL[op];
        let made = op.apply(&pattern(width, height, channels), level, manner);
        assert_eq!(crc(&made), expected, "{op:?} at {level} on {width}x{height}x{channels}, {manner:?}");
    }
}

#[test]
fn rows_of_the_specification() {
    let picture = pattern(9, 7, 1);
    let row = |picture: &Picture, y: usize| picture.pixels()[9 * y..][..9].to_vec();
    assert_eq!(row(&picture, 3), [39, 55, 85, 129, 187, 3, 89, 189, 47]);
    let moved = |matrix| row(&affine(&picture, matrix, Filter::Bicubic, &[124]), 3);
    assert_eq!(moved([1.0, 0.27, 0.0, 0.0, 1.0, 0.0]), [52, 81, 123, 192, 9, 78, 190, 55, 124]);
    assert_eq!(moved([1.0, 0.0, 3.645, 0.0, 1.0, 0.0]), [197, 60, 28, 181, 105, 124, 124, 124, 124]);
    let turned = rotate(&picture, 27.0, Filter::Bicubic, &[124]);
    assert_eq!(row(&turned, 3), [18, 39, 79, 129, 187, 0, 72, 154, 68]);
    assert_eq!(row(&turned, 0), [124, 124, 124, 133, 196, 57, 152, 72, 124]);
    assert_eq!(row(&enhance::brightness(&picture, 1.81), 3), [70, 99, 153, 233, 255, 5, 161, 255, 85]);
    assert_eq!(row(&enhance::brightness(&picture, 0.19), 3), [7, 10, 16, 24, 35, 0, 16, 35, 8]);
}

#[test]
fn quarter_and_half_turns_move_pixels_where_pillow_does() {
    let expected = [
        (90.0, 416_590_154, 2_115_012_398),
        (180.0, 1_195_890_896, 2_523_594_972),
        (-90.0, 1_303_012_028, 2_332_548_082),
    ];
    for (degrees, square, oblong) in expected {
        let turned = |width, height| crc(&rotate(&pattern(width, height, 3), degrees, Filter::Bicubic, &FILL));
        assert_eq!((turned(32, 32), turned(37, 23)), (square, oblong), "{degrees} degrees");
    }
}

#[test]
fn strings_of_timm_are_read() {
    let deit = RandAugment::parse("rand-m9-mstd0.5-inc1").unwrap();
    assert_eq!((deit.magnitude, deit.magnitude_std, deit.magnitude_max), (9.0, 0.5, 10.0));
    assert_eq!((deit.layers, deit.prob, deit.is_increasing, deit.weights), (2, 0.5, true, None));
    let plain = RandAugment::parse("rand").unwrap();
    assert_eq!((plain.magnitude, plain.magnitude_std, plain.is_increasing), (10.0, 0.0, false));
    let all = RandAugment::parse("rand-n3-p1.0-m15-mmax30-mstd101-inc0-w0").unwrap();
    assert_eq!((all.layers, all.prob, all.magnitude, all.magnitude_max), (3, 1.0, 15.0, 30.0));
    assert_eq!((all.magnitude_std, all.is_increasing), (f64::INFINITY, false));
    // Of the older weights inverting and posterizing have none, of the newer ones a little.
    assert_eq!(all.weights.unwrap()[2], 0.0);
    assert_eq!(RandAugment::parse("rand-tweights").unwrap().weights.unwrap()[2], 0.05);
}

#[test]
fn strings_that_are_wrong_get_a_sentence() {
    let refused = |text: &str| RandAugment::parse(text).unwrap_err().to_string();
    assert_eq!(
        refused("augmix-m5"),
        "\"augmix-m5\" is no RandAugment: it must begin with \"rand\"; timm's is \"rand-m9-mstd0.5-inc1\""
    );
    assert_eq!(
        refused("rand-m9-msd0.5"),
        "\"rand-m9-msd0.5\" is no RandAugment: its part \"msd0.5\" is not one of m, mstd, mmax, n, p, inc, w, tweights, each \
         with a number; did you mean \"mstd\"?; timm's is \"rand-m9-mstd0.5-inc1\""
    );
    for (text, problem) in [
        ("rand-m9.5", "its part \"m9.5\" needs a whole number after \"m\""),
        ("rand-mstd", "its part \"mstd\" needs a number after \"mstd\""),
        ("rand-p2", "its part \"p2\" is a probability above 1"),
        ("rand-n65", "its part \"n65\" is more than 64 operations an image"),
        ("rand-w3", "its part \"w3\" names weights that there are not; there is \"w0\""),
        ("rand-", "its part \"\" is not one of"),
        ("rand-m-9", "its part \"m\" needs a whole number after \"m\""),
        ("rand-mstd1e400", "its part \"mstd1e400\" needs a number after \"mstd\""),
    ] {
        assert!(refused(text).contains(problem), "{text}: {}", refused(text));
    }
}

/// Draws for image number `index`.
fn draws(index: u64) -> Draws {
    Draws::new(7, Purpose::RandAugment, 3, index)
}

/// That a share that was counted in `of` draws is `expected`, within four standard deviations.
fn assert_share(what: &str, count: usize, of: usize, expected: f64) {
    let (share, deviation) = (count as f64 / of as f64, (expected * (1.0 - expected) / of as f64).sqrt());
    assert!((share - expected).abs() <= 4.0 * deviation, "{what}: {share}, not {expected} (+- {deviation})");
}

/// That values are uniform in `low` .. `high`: no step of their distribution is further off than one in 10,000 samples' would
/// be (Kolmogorov).
fn assert_uniform(what: &str, mut values: Vec<f64>, low: f64, high: f64) {
    values.sort_by(f64::total_cmp);
    let count = values.len() as f64;
    let off =
        values.iter().enumerate().map(|(i, value)| ((value - low) / (high - low) - (i as f64 + 0.5) / count).abs());
    let worst = off.fold(0.0, f64::max) * count.sqrt();
    assert!(worst < 2.23, "{what} is not uniform in {low} .. {high}: {worst}");
}

#[test]
fn rand_augment_draws_as_timm_does() {
    let deit = RandAugment::parse("rand-m9-mstd0.5-inc1").unwrap();
    let images = 30_000;
    let drawn: Vec<Vec<_>> = (0..images).map(|index| deit.draw(None, &mut draws(index as u64))).collect();
    for (count, expected) in [(0, 0.25), (1, 0.5), (2, 0.25)] {
        assert_share("operations an image", drawn.iter().filter(|ops| ops.len() == count).count(), images, expected);
    }
    let all: Vec<_> = drawn.concat();
    for op in Op::ALL {
        assert_share("each", all.iter().filter(|drawn| drawn.op == op).count(), all.len(), 1.0 / 15.0);
    }
    // With replacement: both are the same in a fifteenth of the pairs.
    let pairs: Vec<_> = drawn.iter().filter(|ops| ops.len() == 2).collect();
    assert_share("twice the same", pairs.iter().filter(|ops| ops[0].op == ops[1].op).count(), pairs.len(), 1.0 / 15.0);
    assert_share("signs", all.iter().filter(|drawn| drawn.is_negated).count(), all.len(), 0.5);
    let bicubic = all.iter().filter(|drawn| drawn.interpolation == Filter::Bicubic).count();
    assert_share("interpolations", bicubic, all.len(), 0.5);
    // A normal distribution that is cut at 10, two standard deviations above its mean.
    assert_share("levels of 10", all.iter().filter(|drawn| drawn.level == 10.0).count(), all.len(), 0.022_750);
    assert_share("levels below 8.5", all.iter().filter(|drawn| drawn.level < 8.5).count(), all.len(), 0.158_655);
    assert_share("levels below 9", all.iter().filter(|drawn| drawn.level < 9.0).count(), all.len(), 0.5);

    let uniform = RandAugment { magnitude_std: f64::INFINITY, ..deit };
    let levels = (0..5000).flat_map(|index| uniform.draw(None, &mut draws(index))).map(|drawn| drawn.level).collect();
    assert_uniform("a level", levels, 0.0, 9.0);
}

#[test]
fn weighted_operations_come_once_and_by_their_weights() {
    let weighted = RandAugment::parse("rand-m9-n2-p1-w0").unwrap();
    let drawn: Vec<_> = (0..20_000).map(|index| weighted.draw(Some(Filter::Bicubic), &mut draws(index))).collect();
    assert!(drawn.iter().all(|ops| ops.len() == 2 && ops[0].op != ops[1].op));
    // timm's weights without the two that are 0: 3, 2, 2, 1, 1, three times 0.25, five times 0.05.
    let total = 9.0 + 0.75 + 0.25;
    let first = |op: Op| drawn.iter().filter(|ops| ops[0].op == op).count();
    for (op, weight) in
        [(Op::Rotate, 3.0), (Op::ShearY, 2.0), (Op::Sharpness, 0.25), (Op::Equalize, 0.05), (Op::Invert, 0.0)]
    {
        assert_share("a weight", first(op), drawn.len(), weight / total);
    }
    let second: Vec<_> = drawn.iter().filter(|ops| ops[0].op == Op::Rotate).collect();
    let shears = second.iter().filter(|ops| ops[1].op == Op::ShearX).count();
    assert_share("a weight among what is left", shears, second.len(), 2.0 / (total - 3.0));
}

#[test]
fn crops_are_drawn_as_timm_draws_them() {
    // No more than half of a square, so that each first try fits.
    let crops = RandomResizedCrop { scale: [0.08, 0.5], ratio: [3.0 / 4.0, 4.0 / 3.0] };
    let size = 4000;
    let drawn: Vec<_> = (0..5000).map(|index| crops.draw(size, size, &mut draws(index))).collect();
    let each = |value: fn(&lara_models::data::augment::Crop) -> f64| drawn.iter().map(value).collect::<Vec<f64>>();
    assert_uniform("an area", each(|crop| (crop.width * crop.height) as f64 / 16e6), 0.08, 0.5);
    assert_uniform(
        "a shape",
        each(|crop| (crop.width as f64 / crop.height as f64).ln()),
        0.75f64.ln(),
        -(0.75f64.ln()),
    );
    assert_uniform("a row", each(|crop| crop.top as f64 / (4000 - crop.height) as f64), 0.0, 1.0);
    assert_uniform("a column", each(|crop| crop.left as f64 / (4000 - crop.width) as f64), 0.0, 1.0);

    // Of DeiT's crops the large ones often do not fit; all lie inside, and both ends of the offsets occur.
    let crops = RandomResizedCrop { scale: [0.08, 1.0], ratio: [3.0 / 4.0, 4.0 / 3.0] };
    let drawn: Vec<_> = (0..5000).map(|index| crops.draw(12, 16, &mut draws(index))).collect();
    assert!(drawn.iter().all(|crop| crop.top + crop.height <= 12 && crop.left + crop.width <= 16));
    assert!(drawn.iter().any(|crop| crop.top == 0 && crop.height < 12));
    assert!(drawn.iter().any(|crop| crop.height < 12 && crop.top + crop.height == 12));
}

#[test]
fn where_no_crop_fits_the_middle_is_taken() {
    let crops = RandomResizedCrop { scale: [0.08, 1.0], ratio: [3.0 / 4.0, 4.0 / 3.0] };
    for ((height, width), expected) in
        [((10, 1000), (0, 493, 10, 13)), ((1000, 10), (493, 0, 13, 10)), ((1, 1), (0, 0, 1, 1)), ((1, 5), (0, 2, 1, 1))]
    {
        let middle = crops.middle(height, width);
        assert_eq!((middle.top, middle.left, middle.height, middle.width), expected, "of {height}x{width}");
        let drawn = crops.draw(height, width, &mut draws(0));
        if height.max(width) == 1000 {
            assert_eq!(drawn, middle);
        }
        assert!(drawn.width >= 1 && drawn.height >= 1);
    }
    // A narrower range than a square.
    let narrow = RandomResizedCrop { scale: [0.08, 1.0], ratio: [0.5, 0.8] };
    assert_eq!((narrow.middle(100, 100).height, narrow.middle(100, 100).width), (100, 80));
}

#[test]
fn colour_jitter_is_uniform_around_the_picture() {
    let grey = Picture::new(1, 1, 1, vec![100]).unwrap();
    let jitter = ColorJitter { strength: [0.4, 0.0, 0.0] };
    let level = |index| jitter.apply(grey.clone(), &mut draws(index)).pixels()[0];
    // Truncated: 99.5 in the middle of 60 .. 140, less half a level.
    assert_uniform("brightness", (0..5000).map(|index| f64::from(level(index)) + 0.5).collect(), 60.0, 140.0);
    // Brightness above 1 is no less than 0, and the order matters: contrast after brightness is another picture.
    let strong = ColorJitter { strength: [2.0, 2.0, 2.0] };
    let picture = pattern(9, 7, 3);
    let made: Vec<_> = (0..50).map(|index| crc(&strong.apply(picture.clone(), &mut draws(index)))).collect();
    assert!(made.windows(2).all(|two| two[0] != two[1]));
    assert_eq!(ColorJitter { strength: [0.0; 3] }.apply(picture.clone(), &mut draws(0)), picture);
}

#[test]
fn erasing_takes_rectangles_of_timms_sizes() {
    let shape = ImageShape { channels: 2, height: 200, width: 300 };
    let erasing = RandomErasing { prob: 0.25, mode: ErasingMode::Const, count: 1 };
    let erased = |index: u64, erasing: RandomErasing| {
        let mut pixels = vec![9.0; shape.len()];
        erasing.apply(&mut pixels, shape, &mut draws(index));
        pixels
    };
    let images = 2000;
    let hit = (0..images).filter(|&index| erased(index as u64, erasing).contains(&0.0)).count();
    assert_share("images", hit, images, 0.25);

    let always = RandomErasing { prob: 1.0, ..erasing };
    let areas = (0..1000).map(|index| {
        let pixels = erased(index, always);
        let plane = &pixels[..200 * 300];
        assert_eq!(plane, &pixels[200 * 300..], "both channels lose the same");
        plane.iter().filter(|value| **value == 0.0).count() as f64 / 60_000.0
    });
    let areas: Vec<f64> = areas.collect();
    assert!(areas.iter().all(|area| (0.0199..0.3343).contains(area)));
    // Small ones always fit: below the share at which the longest would not, areas are uniform.
    let small: Vec<f64> = areas.into_iter().filter(|&area| area < 0.15).collect();
    assert_uniform("an area", small, 0.02, 0.15);

    let noise = erased(1, RandomErasing { mode: ErasingMode::Pixel, ..always });
    let changed: Vec<f64> = noise.iter().filter(|value| **value != 9.0).map(|&value| f64::from(value)).collect();
    let mean = changed.iter().sum::<f64>() / changed.len() as f64;
    let square = changed.iter().map(|value| value * value).sum::<f64>() / changed.len() as f64;
    let deviation = (changed.len() as f64).sqrt().recip();
    assert!(mean.abs() < 4.0 * deviation && (square - 1.0).abs() < 6.0 * deviation, "{mean} {square}");

    let colours = erased(1, RandomErasing { mode: ErasingMode::Rand, ..always });
    for plane in colours.chunks(200 * 300) {
        let mut values: Vec<f32> = plane.iter().copied().filter(|value| *value != 9.0).collect();
        values.dedup();
        assert_eq!(values.len(), 1, "one colour a channel");
    }
    // Up to four, smaller ones: together no more, and not always one rectangle.
    let counts = RandomErasing { count: 4, ..always };
    let is_split = |pixels: &[f32]| {
        let gone = |at: usize| pixels[at] == 0.0;
        let rows = (0..200).filter(|y| (0..300).any(|x| gone(y * 300 + x))).count();
        let columns = (0..300).filter(|x| (0..200).any(|y| gone(y * 300 + x))).count();
        let area = (0..60_000).filter(|&at| gone(at)).count();
        assert!(area as f64 <= 0.3343 * 60_000.0);
        area < rows * columns
    };
    let split = (0..200).filter(|&index| is_split(&erased(index, counts))).count();
    assert!((100..200).contains(&split), "{split} of 200 images have more than one rectangle");
}
