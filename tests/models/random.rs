//! The CPU's random numbers: published vectors, and the properties that shuffles and augmentation rest on.

use lara_models::random::{Draws, Purpose, philox4x32};

/// kat_vectors of Random123 (Salmon et al.), philox4x32 with 10 rounds.
#[test]
fn philox_matches_its_published_vectors() {
    let zeros = philox4x32([0; 4], [0; 2]);
    assert_eq!(zeros, [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
    let ones = philox4x32([u32::MAX; 4], [u32::MAX; 2]);
    assert_eq!(ones, [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
    let digits_of_pi = philox4x32([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0]);
    assert_eq!(digits_of_pi, [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]);
}

#[test]
fn draws_differ_by_each_part_of_their_address_and_by_nothing_else() {
    let first = |seed, purpose, epoch, index| {
        let mut draws = Draws::new(seed, purpose, epoch, index);
        [(); 6].map(|()| draws.bits())
    };
    let base = first(7, Purpose::Augment, 3, 9);
    assert_eq!(base, first(7, Purpose::Augment, 3, 9));
    for other in [
        first(8, Purpose::Augment, 3, 9),
        first(7 + (1 << 32), Purpose::Augment, 3, 9),
        first(7, Purpose::Shuffle, 3, 9),
        first(7, Purpose::Augment, 4, 9),
        first(7, Purpose::Augment, 3, 10),
    ] {
        assert!(base.iter().zip(other).all(|(a, b)| *a != b), "{base:x?} {other:x?}");
    }
}

#[test]
fn below_is_uniform_and_stays_below() {
    let mut draws = Draws::new(1, Purpose::Augment, 0, 0);
    assert_eq!(draws.below(0), 0);
    assert_eq!(draws.below(1), 0);
    let (sides, rolls) = (5, 50_000);
    let mut counts = [0u32; 5];
    (0..rolls).for_each(|_| counts[draws.below(sides) as usize] += 1);
    // Binomial standard deviation 89.4; five of them.
    assert!(counts.iter().all(|&count| count.abs_diff(rolls / sides) < 450), "{counts:?}");
}

#[test]
fn normal_draws_have_mean_0_and_variance_1() {
    let mut draws = Draws::new(2, Purpose::Init, 0, 0);
    let count = 40_000;
    let values: Vec<f64> = (0..count).map(|_| f64::from(draws.normal())).collect();
    let mean = values.iter().sum::<f64>() / f64::from(count);
    let variance = values.iter().map(|value| value * value).sum::<f64>() / f64::from(count);
    // Standard errors 0.005 and 0.00707; five of them.
    assert!(mean.abs() < 0.025, "{mean}");
    assert!((variance - 1.0).abs() < 0.0354, "{variance}");
}

#[test]
fn shuffles_are_permutations() {
    for length in [0, 1, 2, 97] {
        let mut items: Vec<u32> = (0..length).collect();
        Draws::new(5, Purpose::Shuffle, 0, 0).shuffle(&mut items);
        assert!(length < 3 || items != (0..length).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..length).collect::<Vec<_>>());
    }
}
