use lara_runtime::ops::{AdamW, Clip};
use lara_runtime::{Header, Init, Keep, Parameters, Plan, Recorder, Role, Shape};
use lara_tests::{adapter, assert_close, random, tune};

/// Shapes of parameters and what is done with them: only matrices that may do decay.
const SHAPES: [(&[usize], Keep); 6] = [
    (&[3, 5], Keep::Decayed),
    (&[7], Keep::Decayed),
    (&[2, 3], Keep::Plain),
    (&[1], Keep::Decayed),
    (&[70, 65], Keep::Decayed),
    (&[257], Keep::Decayed),
];

const LR: f64 = 0.01;

/// What the learning rate of each parameter is multiplied by: p2 and p5 by what their names say, p4 by what begins as p
/// does.
const LR_SCALES: [f64; 6] = [0.25, 0.25, 0.5, 0.25, 0.25, 1.0];
const EMA_DECAY: f64 = 0.75;

fn decays(i: usize) -> bool {
    SHAPES[i].1 == Keep::Decayed && SHAPES[i].0.len() > 1
}

/// Weights, moments and average in f64.
struct State {
    weights: Vec<Vec<f64>>,
    first: Vec<Vec<f64>>,
    second: Vec<Vec<f64>>,
    average: Vec<Vec<f64>>,
}

impl State {
    fn new() -> State {
        let weights: Vec<Vec<f64>> =
            (0..SHAPES.len()).map(|i| random(i as u32, SHAPES[i].0.iter().product())).collect();
        let zeros: Vec<Vec<f64>> = weights.iter().map(|w| vec![0.0; w.len()]).collect();
        State { average: weights.clone(), first: zeros.clone(), second: zeros, weights }
    }

    /// Algorithm 2 of Loshchilov and Hutter, with the learning rate as the schedule multiplier.
    fn step(&mut self, adamw: &AdamW, step: i32, gradients: &[Vec<f64>]) {
        let [beta1, beta2] = adamw.betas.map(f64::from);
        let length = gradients.iter().flatten().map(|g| g * g).sum::<f64>().sqrt();
        let factor = if let Clip::Norm(most) = adamw.clip { (f64::from(most) / length).min(1.0) } else { 1.0 };
        let limit = if let Clip::Value(limit) = adamw.clip { f64::from(limit) } else { f64::INFINITY };
        for (p, gradient) in gradients.iter().enumerate() {
            let decay = if decays(p) { f64::from(adamw.weight_decay) } else { 0.0 };
            let lr = LR * LR_SCALES[p];
            for (i, g) in gradient.iter().map(|g| (factor * g).clamp(-limit, limit)).enumerate() {
                let (m, v) = (&mut self.first[p][i], &mut self.second[p][i]);
                *m = beta1 * *m + (1.0 - beta1) * g;
                *v = beta2 * *v + (1.0 - beta2) * g * g;
                let (m, v) = (*m / (1.0 - beta1.powi(step + 1)), *v / (1.0 - beta2.powi(step + 1)));
                let w = &mut self.weights[p][i];
                *w -= lr * (m / (v.sqrt() + f64::from(adamw.eps)) + decay * *w);
                self.average[p][i] = EMA_DECAY * self.average[p][i] + (1.0 - EMA_DECAY) * *w;
            }
        }
    }
}

fn to_f32(values: &[f64]) -> Vec<f32> {
    values.iter().map(|&v| v as f32).collect()
}

struct Device {
    parameters: Parameters,
    plan: Plan,
    adamw: AdamW,
}

impl Device {
    fn new(adamw: AdamW, state: &State) -> Device {
        let gpu = adapter();
        let mut parameters = Parameters::new(gpu);
        parameters
            .scale_learning_rates([("p2", 0.5), ("p5", 1.0), ("p", 0.25)].map(|(p, scale)| (p.into(), scale)).into());
        for (i, (shape, keep)) in SHAPES.iter().enumerate() {
            parameters.declare(&format!("p{i}"), Shape::from(*shape), Init::Zeros, *keep).expect("new parameters fit");
        }
        let roles = [Role::Weight, Role::Grad, Role::FirstMoment, Role::SecondMoment, Role::Ema];
        parameters.allocate_blocking(gpu, if adamw.ema { &roles } else { &roles[..4] }).unwrap();
        for (i, weights) in state.weights.iter().enumerate() {
            parameters.write(gpu, Role::Weight, i, &to_f32(weights)).unwrap();
        }
        if adamw.ema {
            parameters.copy(gpu, Role::Weight, Role::Ema).unwrap();
        }
        let mut rec = Recorder::new(tune(&[]));
        adamw.record(&mut rec, &parameters);
        let plan = Plan::compile_blocking(gpu, rec, &parameters).expect("adamw compiles");
        plan.poison();
        Device { parameters, plan, adamw }
    }

    fn step(&self, step: i32, gradients: &[Vec<f64>]) {
        for (i, gradient) in gradients.iter().enumerate() {
            self.parameters.write(adapter(), Role::Grad, i, &to_f32(gradient)).unwrap();
        }
        let correction = |beta: f32| (1.0 - f64::from(beta).powi(step + 1)) as f32;
        let header = Header {
            step: step as u32,
            lr: LR as f32,
            bias_correction1: correction(self.adamw.betas[0]),
            bias_correction2: correction(self.adamw.betas[1]),
            ema_decay: EMA_DECAY as f32,
            ..Header::default()
        };
        self.plan.run().header(header).steps().submit().expect("adamw runs");
    }

    fn read(&self, role: Role) -> Vec<Vec<f32>> {
        pollster::block_on(self.parameters.read(adapter(), role)).expect("parameters can be read")
    }
}

fn gradients(step: u32) -> Vec<Vec<f64>> {
    let scale = |p: usize| [1.0, 0.1, 3.0, 1e-3, 0.02, 1.0][p];
    let of = |p: usize| random(50 + 10 * step + p as u32, SHAPES[p].0.iter().product());
    (0..SHAPES.len()).map(|p| of(p).into_iter().map(|g| f64::from((scale(p) * g) as f32)).collect()).collect()
}

const PLAIN: AdamW = AdamW { betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.05, clip: Clip::None, ema: false };

#[test]
fn follows_the_algorithm_for_several_steps() {
    for adamw in [
        PLAIN,
        AdamW { clip: Clip::Norm(1.0), ..PLAIN },
        AdamW { clip: Clip::Norm(1e4), ema: true, ..PLAIN },
        AdamW { clip: Clip::Value(0.02), ..PLAIN },
        AdamW { clip: Clip::Norm(0.01), ema: true, weight_decay: 0.0, betas: [0.8, 0.95], eps: 1e-4 },
    ] {
        let mut state = State::new();
        let device = Device::new(adamw, &state);
        for step in 0..6 {
            state.step(&adamw, step, &gradients(step as u32));
            device.step(step, &gradients(step as u32));
        }
        let mut kept = vec![
            (Role::Weight, &state.weights),
            (Role::FirstMoment, &state.first),
            (Role::SecondMoment, &state.second),
        ];
        if adamw.ema {
            kept.push((Role::Ema, &state.average));
        }
        for (role, want) in kept {
            for (p, (want, got)) in want.iter().zip(device.read(role)).enumerate() {
                // Relative to the parameter's own size: second moments are tiny.
                let size = want.iter().fold(0.0_f64, |m, w| m.max(w.abs()));
                let relative = |x: f64| x / size;
                let want: Vec<f64> = want.iter().map(|&w| relative(w)).collect();
                let got: Vec<f64> = got.into_iter().map(|g| relative(f64::from(g))).collect();
                assert_close(&format!("{adamw:?}: {role:?} of parameter {p}"), &want, &got, 1e-5);
            }
        }
    }
}

/// With a gradient of zero only decay moves a weight.
#[test]
fn only_matrices_decay() {
    let state = State::new();
    let device = Device::new(PLAIN, &state);
    let zeros: Vec<Vec<f64>> = state.weights.iter().map(|w| vec![0.0; w.len()]).collect();
    device.step(0, &zeros);
    for (p, (before, after)) in state.weights.iter().zip(device.read(Role::Weight)).enumerate() {
        let decay = if decays(p) { 1.0 - LR * LR_SCALES[p] * f64::from(PLAIN.weight_decay) } else { 1.0 };
        let want: Vec<f64> = before.iter().map(|w| w * decay).collect();
        let got: Vec<f64> = after.into_iter().map(f64::from).collect();
        assert_close(&format!("decay of parameter {p}"), &want, &got, 2e-7);
    }
}

#[test]
fn a_gradient_that_is_not_finite_changes_nothing() {
    let adaptive = Clip::Adaptive { factor: 0.01, except: "head" };
    for (bad, clip) in [
        (f64::NAN, Clip::Norm(1.0)),
        (f64::INFINITY, Clip::None),
        (f64::NAN, Clip::Value(1.0)),
        (1e30, Clip::Norm(1.0)),
        (f64::NAN, adaptive),
        (1e30, adaptive),
    ] {
        let device = Device::new(AdamW { clip, ..PLAIN }, &State::new());
        device.step(0, &gradients(0));
        let roles = [Role::Weight, Role::FirstMoment, Role::SecondMoment];
        let before = roles.map(|role| device.read(role));
        let mut spoilt = gradients(1);
        spoilt[4][4000] = bad;
        device.step(1, &spoilt);
        assert_eq!(before, roles.map(|role| device.read(role)), "a gradient of {bad} changed something");
    }
}
