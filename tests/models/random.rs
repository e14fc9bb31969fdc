//! The CPU's random numbers: the properties that shuffles and augmentation rest on.

use lara_models::random::{Draws, Purpose};
use lara_runtime::random::philox;

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
fn shuffles_are_permutations() {
    for length in [0, 1, 2, 97] {
        let mut items: Vec<u32> = (0..length).collect();
        Draws::new(5, Purpose::Shuffle, 0, 0).shuffle(&mut items);
        assert!(length < 3 || items != (0..length).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..length).collect::<Vec<_>>());
    }
}

#[test]
fn the_loader_draws_what_no_stream_of_the_device_does() {
    // The device's counters are [place, micro-step, step, stream], with streams counted from 1 under the run's seed.
    for purpose in [Purpose::Shuffle, Purpose::Augment] {
        for (epoch, index) in [(0u32, 0u32), (3, 9)] {
            let mut draws = Draws::new(7, purpose, u64::from(epoch), u64::from(index));
            let first = [(); 4].map(|()| draws.bits());
            assert!((1..=100).all(|stream| philox([0, index, epoch, stream], [7, 0]) != first), "{purpose:?}");
        }
    }
}
