use lara_runtime::attention::Noise;
use lara_runtime::random::{normal_pair, philox};
use lara_runtime::{Header, Mode, Tape, Tensor};
use lara_tests::{Case, Real, Reference, check, random, run};

fn header(step: u32, micro_step: u32, seed: [u32; 2]) -> Header {
    Header { step, micro_step, seed, ..Header::default() }
}

/// The numbers of the host's generator.
pub(super) fn host_noise(header: Header, stream: u32, len: usize) -> Vec<f64> {
    let four = |i: usize| {
        let bits = philox([i as u32, header.micro_step, header.step, stream], header.seed);
        [normal_pair([bits[0], bits[1]]), normal_pair([bits[2], bits[3]])].concat()
    };
    (0..len.div_ceil(4)).flat_map(four).map(f64::from).take(len).collect()
}

struct Noisy {
    std: f64,
    noise: Vec<f64>,
}

impl Reference for Noisy {
    fn eval<R: Real>(&self, x: &[Vec<R>]) -> Vec<Vec<R>> {
        vec![x[0].iter().zip(&self.noise).map(|(&x, &e)| x + R::of(self.std * e)).collect()]
    }
}

#[test]
fn adds_the_hosts_numbers() {
    let headers = [header(0, 0, [0, 0]), header(7, 2, [0xdead_beef, 0x1234_5678]), header(u32::MAX, 1, [1, u32::MAX])];
    for len in [1, 2, 3, 4, 5, 255, 256, 257, 1021] {
        for (header, std) in headers.into_iter().zip([1.0_f32, 2.5, 0.0]) {
            let build = |tape: &mut Tape<'_>, x: &[Tensor]| {
                vec![tape.apply(Noise { std, stream: 11, ranks: None, samples: 1 }, x)]
            };
            let case = Case::new(format!("noise {len} std {std} {header:?}"), &build)
                .variable([len], random(1, len))
                .mode(Mode::Train { accumulate: false })
                .header(header)
                .tolerance(1e-5);
            check(&case, &Noisy { std: f64::from(std), noise: host_noise(header, 11, len) }, &[&[]]);
        }
    }
}

/// Salmon et al.'s known answers for philox4x32-10.
#[test]
fn philox_gives_its_published_answers() {
    assert_eq!(philox([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
    assert_eq!(philox([u32::MAX; 4], [u32::MAX; 2]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
    let counter = [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344];
    let answer = [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1];
    assert_eq!(philox(counter, [0xa409_3822, 0x299f_31d0]), answer);
}

const COUNT: usize = 1 << 16;

fn drawn(header: Header, stream: u32) -> Vec<f64> {
    let build =
        |tape: &mut Tape<'_>, x: &[Tensor]| vec![tape.apply(Noise { std: 1.0, stream, ranks: None, samples: 1 }, x)];
    let case = Case::new("noise", &build).constant([COUNT], vec![0.0; COUNT]).header(header);
    run(&case, &[], 1).outputs.remove(0)
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    values.sum::<f64>() / COUNT as f64
}

/// Sample moments of a standard normal: mean 0 +- 1, variance 1 +- sqrt 2, third moment 0 +- sqrt 15, fourth 3 +- sqrt 96,
/// each over sqrt n; five standard errors.
#[test]
fn moments_are_those_of_a_standard_normal() {
    let x = drawn(header(5, 0, [1, 2]), 3);
    let root = (COUNT as f64).sqrt();
    for (power, expected, deviation) in
        [(1, 0.0, 1.0_f64), (2, 1.0, 2.0_f64.sqrt()), (3, 0.0, 15.0_f64.sqrt()), (4, 3.0, 96.0_f64.sqrt())]
    {
        let moment = mean(x.iter().map(|x| x.powi(power)));
        let error = (moment - expected).abs();
        assert!(error < 5.0 * deviation / root, "moment {power} is {moment}, not {expected} +- {}", deviation / root);
    }
    let neighbours = mean(x.windows(2).map(|pair| pair[0] * pair[1]));
    assert!(neighbours.abs() < 5.0 / root, "neighbouring numbers are correlated: {neighbours}");
    let inside = mean(x.iter().map(|x| f64::from(u8::from(x.abs() < 1.0))));
    assert!(
        (inside - 0.682_689).abs() < 5.0 * (0.6827_f64 * 0.3173).sqrt() / root,
        "{inside} lie within one deviation"
    );
}

#[test]
fn another_step_seed_or_stream_gives_other_numbers() {
    let base = drawn(header(5, 0, [1, 2]), 3);
    assert_eq!(base, drawn(header(5, 0, [1, 2]), 3));
    let others = [header(6, 0, [1, 2]), header(5, 1, [1, 2]), header(5, 0, [2, 2]), header(5, 0, [1, 3])];
    for (header, stream) in others.into_iter().map(|h| (h, 3)).chain([(header(5, 0, [1, 2]), 4)]) {
        let other = drawn(header, stream);
        let correlation = mean(base.iter().zip(&other).map(|(a, b)| a * b));
        assert!(
            correlation.abs() < 5.0 / (COUNT as f64).sqrt(),
            "{header:?} stream {stream}: correlation {correlation}"
        );
    }
}
