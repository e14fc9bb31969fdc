use lara_runtime::ops::Dropout;
use lara_runtime::random::{philox, uniform_open};
use lara_runtime::{Header, Mode};
use lara_tests::{Case, Real, Reference, check, random, run};

const HEADER: Header = Header {
    step: 3,
    seed: [7, 9],
    micro_step: 1,
    lr: 0.0,
    bias_correction1: 1.0,
    bias_correction2: 1.0,
    ema_decay: 0.0,
};

/// The mask from the host's generator.
struct Masked {
    probability: f32,
    group: usize,
    stream: u32,
}

impl Masked {
    fn factor(&self, i: usize) -> f64 {
        let counter = [(i / self.group) as u32, HEADER.micro_step, HEADER.step, self.stream];
        let zeroed = uniform_open(philox(counter, HEADER.seed)[0]) < self.probability;
        if zeroed { 0.0 } else { 1.0 / (1.0 - f64::from(self.probability)) }
    }
}

impl Reference for Masked {
    fn eval<R: Real>(&self, x: &[Vec<R>]) -> Vec<Vec<R>> {
        vec![x[0].iter().enumerate().map(|(i, &x)| R::of(self.factor(i)) * x).collect()]
    }
}

#[test]
fn draws_the_hosts_mask_in_both_directions() {
    for (len, group, probability) in
        [(1, 1, 0.5), (63, 1, 0.1), (65, 5, 0.5), (129, 43, 0.9), (1000, 250, 0.3), (64, 1, 0.0)]
    {
        let reference = Masked { probability, group, stream: 4 };
        let build = |tape: &mut lara_runtime::Tape<'_>, x: &[lara_runtime::Tensor]| {
            vec![tape.apply(Dropout { probability, group, stream: 4 }, x)]
        };
        let case = Case::new(format!("dropout {len} {group} {probability}"), &build);
        let case = case.variable([len], random(1, len)).mode(Mode::Train { accumulate: false }).header(HEADER);
        check(&case.tolerance(1e-6), &reference, &[&[]]);
    }
}

fn ones_left(header: Header, stream: u32) -> Vec<f64> {
    let build = |tape: &mut lara_runtime::Tape<'_>, x: &[lara_runtime::Tensor]| {
        vec![tape.apply(Dropout { probability: 0.25, group: 1, stream }, x)]
    };
    run(&Case::new("dropout", &build).constant([4096], vec![1.0; 4096]).header(header), &[], 1).outputs.remove(0)
}

#[test]
fn keeps_the_mean_and_changes_with_step_stream_and_seed() {
    let base = ones_left(HEADER, 4);
    let kept = base.iter().filter(|&&y| y != 0.0).count() as f64 / 4096.0;
    let standard_error = (0.75 * 0.25 / 4096.0_f64).sqrt();
    assert!((kept - 0.75).abs() < 4.0 * standard_error, "{kept} of the elements were kept, not 0.75");
    assert_eq!(base, ones_left(HEADER, 4), "the same step drew another mask");
    for (header, stream) in [
        (Header { step: 4, ..HEADER }, 4),
        (Header { micro_step: 2, ..HEADER }, 4),
        (Header { seed: [8, 9], ..HEADER }, 4),
        (HEADER, 5),
    ] {
        let other = ones_left(header, stream);
        let differ = base.iter().zip(&other).filter(|(a, b)| a != b).count() as f64 / 4096.0;
        assert!((differ - 0.375).abs() < 0.04, "masks of {header:?} and stream {stream} differ in {differ}, not 3/8");
    }
}
