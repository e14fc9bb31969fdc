//! Mixup and CutMix: what they do to a batch, and the distributions that they draw from.

use lara_models::data::ImageShape;
use lara_models::data::augment::{Mixup, MixupMode};
use lara_models::random::{Draws, Purpose};

const SHAPE: ImageShape = ImageShape { channels: 2, height: 12, width: 20 };

const DEIT: Mixup =
    Mixup { alpha: 0.8, cutmix_alpha: 1.0, cutmix_minmax: None, prob: 1.0, switch_prob: 0.5, mode: MixupMode::Batch };

fn draws(batch: u64) -> Draws {
    Draws::new(5, Purpose::Mixup, 2, batch)
}

/// `count` images, each of its own constant colour 1, 2, ..
fn plain(count: usize) -> Vec<f32> {
    (0..count * SHAPE.len()).map(|i| (i / SHAPE.len() + 1) as f32).collect()
}

/// Mixes plain images; returns the images and the weights.
fn mixed(mixup: Mixup, count: usize, batch: u64) -> (Vec<Vec<f32>>, Vec<f32>) {
    let mut images = plain(count);
    let weights = mixup.apply(&mut images, SHAPE, &mut draws(batch));
    assert_eq!(weights.len(), count);
    (images.chunks(SHAPE.len()).map(<[f32]>::to_vec).collect(), weights)
}

/// Mean and variance.
fn moments(values: &[f64]) -> (f64, f64) {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    (mean, values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / values.len() as f64)
}

#[test]
fn each_image_is_mixed_with_its_partner_from_the_end_by_the_weight_that_its_label_has() {
    for mode in [MixupMode::Batch, MixupMode::Pair, MixupMode::Elem] {
        for batch in 0..40 {
            for count in [2, 6] {
                let (images, weights) = mixed(Mixup { mode, ..DEIT }, count, batch);
                for (i, (image, &weight)) in images.iter().zip(&weights).enumerate() {
                    let [own, other] = [i + 1, count - i].map(|colour| colour as f32);
                    let mean = image.iter().sum::<f32>() / image.len() as f32;
                    let expected = own * weight + other * (1.0 - weight);
                    assert!((mean - expected).abs() < 1e-4, "{mode:?}: image {i} is {mean}, not {expected}");
                }
                let differ = |a: f32, b: f32| (a - b).abs() > 1e-6;
                match mode {
                    MixupMode::Batch => assert!(weights.iter().all(|&weight| weight == weights[0])),
                    MixupMode::Pair => assert!((0..count).all(|i| weights[i] == weights[count - 1 - i])),
                    MixupMode::Elem => assert!(batch > 0 || differ(weights[0], weights[count - 1])),
                }
            }
        }
    }
}

#[test]
fn cutmix_pastes_one_rectangle() {
    let cutmix = Mixup { alpha: 0.0, ..DEIT };
    for batch in 0..200 {
        let (images, weights) = mixed(cutmix, 2, batch);
        let pasted = |image: &[f32], at: usize| image[at] == 2.0;
        let plane = SHAPE.height * SHAPE.width;
        let at: Vec<[usize; 2]> =
            (0..plane).filter(|&i| pasted(&images[0], i)).map(|i| [i / SHAPE.width, i % SHAPE.width]).collect();
        assert!((0..plane).all(|i| pasted(&images[0], i) == pasted(&images[0], plane + i)), "in every channel");
        // In the same place of the other image.
        assert!((0..plane).all(|i| pasted(&images[0], i) == (images[1][i] == 1.0)));
        let side = |axis: usize| {
            let places = || at.iter().map(|place| place[axis]);
            places().max().map_or(0, |last| last + 1 - places().min().unwrap_or(0))
        };
        assert_eq!(at.len(), side(0) * side(1), "batch {batch}");
        assert!((weights[0] - (1.0 - at.len() as f32 / plane as f32)).abs() < 1e-6);
        // An odd length loses a pixel, unless an edge has cut it.
        let is_inside = |axis: usize, size: usize| at.iter().all(|place| place[axis] > 0 && place[axis] + 1 < size);
        assert!(!is_inside(0, SHAPE.height) || side(0) % 2 == 0);
        assert!(!is_inside(1, SHAPE.width) || side(1) % 2 == 0);
    }
}

#[test]
fn cutmix_by_sides_keeps_to_them() {
    let cutmix = Mixup { cutmix_minmax: Some([0.25, 0.5]), alpha: 0.0, cutmix_alpha: 0.0, ..DEIT };
    let mut areas = Vec::new();
    for batch in 0..400 {
        let (images, _) = mixed(cutmix, 2, batch);
        areas.push(images[0].iter().filter(|value| **value == 2.0).count() / SHAPE.channels);
    }
    // Rows 3 to 5 and columns 5 to 9: the upper end is left out, as numpy leaves it out.
    assert_eq!((areas.iter().min(), areas.iter().max()), (Some(&15), Some(&45)));
}

#[test]
fn weights_are_drawn_from_the_beta_distribution() {
    for alpha in [0.1, 0.2, 0.8, 1.0, 3.0] {
        let count = 20_000;
        let values: Vec<f64> = (0..count).map(|batch| draws(batch).beta(alpha)).collect();
        assert!(values.iter().all(|value| (0.0..=1.0).contains(value)));
        let (mean, variance) = moments(&values);
        let expected = 1.0 / (4.0 * (2.0 * alpha + 1.0));
        let deviation = (expected / count as f64).sqrt();
        assert!((mean - 0.5).abs() < 4.0 * deviation, "beta({alpha}) has the mean {mean}");
        assert!((variance / expected - 1.0).abs() < 0.03, "beta({alpha}) has the variance {variance}, not {expected}");
        // Kurtosis tells beta from other symmetric distributions of the same variance.
        let fourth = values.iter().map(|value| (value - 0.5).powi(4)).sum::<f64>() / count as f64 / expected.powi(2);
        let wanted = 3.0 - 6.0 / (2.0 * alpha + 3.0);
        assert!((fourth / wanted - 1.0).abs() < 0.05, "beta({alpha}) has the kurtosis {fourth}, not {wanted}");
    }
    // Too small for an f64 to hold the two gamma variates.
    assert!((0..1000).all(|batch| (0.0..=1.0).contains(&draws(batch).beta(1e-4))));
}

#[test]
fn probabilities_of_mixing_and_of_the_switch() {
    let batches = 4000;
    let share = |mixup: Mixup, what: fn(&[f32]) -> bool| {
        (0..batches).filter(|&batch| what(&mixed(mixup, 2, batch).0[0])).count() as f64 / batches as f64
    };
    let is_whole = |image: &[f32]| image.iter().all(|value| *value == 1.0);
    let is_blended = |image: &[f32]| image.iter().all(|value| *value > 1.0 && *value < 2.0);
    // Four standard deviations of a share.
    let near = |share: f64, expected: f64| (share - expected).abs() < 2.0 / (batches as f64).sqrt();
    assert!(near(share(DEIT, is_blended), 0.5));
    assert!(near(share(Mixup { switch_prob: 0.2, ..DEIT }, is_blended), 0.8));
    // A quarter is mixed by Mixup. What CutMix leaves whole (a rectangle of no pixel) is little on 12x20 pixels.
    let half = Mixup { prob: 0.5, ..DEIT };
    assert!(near(share(half, is_blended), 0.25));
    assert!((0.47..0.62).contains(&share(half, is_whole)));
    // One alone takes every batch.
    assert!(near(share(Mixup { cutmix_alpha: 0.0, ..DEIT }, is_blended), 1.0));
    assert!(near(share(Mixup { alpha: 0.0, ..DEIT }, is_blended), 0.0));
    assert!(near(share(Mixup { alpha: 0.0, cutmix_alpha: 0.0, ..DEIT }, is_whole), 1.0));
}
