//! State of a model that is not trained: a run that was stopped and goes on from a checkpoint has it as it was.

use lara_models::train::{Checkpoint, Checkpoints, Learnt, State, TrainConfig};
use lara_models::weights::TensorFile;
use lara_runtime::ops::{AdamW, Clip, Linear, Residual};
use lara_runtime::{Header, Init, Mode, Parameters, Plan, Recorder, Role, Tape, Tensor};
use lara_shaders::RESIDUAL;
use lara_tests::{adapter, random, tune};
use pollster::block_on;

/// y = fc(x + seen), and after each step `seen` has x added to it.
struct Run {
    parameters: Parameters,
    plan: Plan,
    optimizer: Plan,
    x: Tensor,
    dy: Tensor,
}

impl Run {
    fn new(ema: bool) -> Run {
        let gpu = adapter();
        let mut parameters = Parameters::new(gpu);
        let mut tape = Tape::new(&mut parameters, &tune(&[]), Mode::Train { accumulate: false });
        let [x, dy] = [tape.input("x", [2, 4]), tape.input("dy", [2, 3])];
        let (weight, seen) = tape.scope("fc", |tape| {
            let weight = tape.parameter("weight", [3, 4], Init::TruncNormal(0.5));
            (weight, tape.buffer("seen", [2, 4], Init::Zeros))
        });
        let sum = tape.apply(Residual, &[x, seen]);
        let y = tape.apply(Linear, &[sum, weight]);
        tape.backward(&[(y, dy)]);
        let step = tape.rec.step(&RESIDUAL, "backward").bind("dy", x).bind("dx", seen);
        step.uint("quads", 2).flag("accumulate", true).dispatch_items(2);
        let rec = tape.finish().unwrap();
        let roles = [Role::Weight, Role::Grad, Role::FirstMoment, Role::SecondMoment, Role::Ema];
        parameters.allocate_blocking(gpu, &roles[..if ema { 5 } else { 4 }]).unwrap();
        parameters.initialize(gpu, 1).unwrap();
        if ema {
            parameters.copy(gpu, Role::Weight, Role::Ema).unwrap();
        }
        let plan = Plan::compile_blocking(gpu, rec, &parameters).unwrap();
        let mut rec = Recorder::new(tune(&[]));
        AdamW { betas: [0.9, 0.99], eps: 1e-8, weight_decay: 0.05, clip: Clip::Norm(1.0), ema }
            .record(&mut rec, &parameters);
        let optimizer = Plan::compile_blocking(gpu, rec, &parameters).unwrap();
        Run { parameters, plan, optimizer, x, dy }
    }

    fn step(&self, step: u32) {
        let values = |seed, len| random(seed, len).into_iter().map(|x| x as f32).collect::<Vec<f32>>();
        let correction = |beta: f32| 1.0 - beta.powi(step as i32 + 1);
        let header = Header {
            step,
            lr: 0.01,
            bias_correction1: correction(0.9),
            bias_correction2: correction(0.99),
            ema_decay: 0.5,
            ..Header::default()
        };
        let run = self.plan.run().write(self.x, &values(step, 8)).write(self.dy, &values(100 + step, 6));
        run.header(header).steps().then(&self.optimizer, header).submit().unwrap();
    }

    fn learnt(&self) -> Learnt {
        block_on(Learnt::read(adapter(), &self.parameters)).unwrap()
    }
}

fn state(step: u64) -> State {
    State {
        step,
        position: Default::default(),
        evaluation_due: false,
        seed: 1,
        best_metric: None,
        best_step: None,
        classes: vec![],
        data: None,
        config: TrainConfig::default().to_toml().unwrap(),
        kernels: Default::default(),
    }
}

#[test]
fn a_run_goes_on_with_its_state() {
    for ema in [false, true] {
        let root = tempfile::tempdir().unwrap();
        let whole = Run::new(ema);
        (0..3).for_each(|step| whole.step(step));
        let (learnt, saved) = (whole.learnt(), state(3));
        let mut checkpoints = Checkpoints::open(root.path(), 2).unwrap();
        let path = checkpoints.save(&learnt.snapshot(&whole.parameters, &saved)).unwrap();
        // The model is saved with its state, under its name; the optimizer knows nothing of it.
        let model = TensorFile::open(path.join("model.safetensors")).unwrap();
        assert_eq!(model.names().collect::<Vec<_>>(), ["fc.seen", "fc.weight"]);
        let optimizer = TensorFile::open(path.join("optimizer.safetensors")).unwrap();
        assert!(!optimizer.names().any(|name| name.starts_with("exp_avg") && name.ends_with("seen")));
        let seen: Vec<f32> = (0..3)
            .map(|step| random(step, 8))
            .fold(vec![0.0; 8], |sum, x| sum.iter().zip(x).map(|(sum, x)| sum + x as f32).collect());
        assert_eq!(model.get("fc.seen", &[2, 4]).unwrap(), seen);

        (3..6).for_each(|step| whole.step(step));
        let resumed = Run::new(ema);
        Checkpoint::load(root.path()).unwrap().restore(adapter(), &resumed.parameters).unwrap();
        (3..6).for_each(|step| resumed.step(step));
        assert_eq!(resumed.learnt(), whole.learnt(), "to the bit");
        assert_ne!(whole.learnt(), learnt);
    }
}

#[test]
fn a_checkpoint_without_the_state_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let run = Run::new(false);
    let (learnt, saved) = (run.learnt(), state(1));
    let mut snapshot = learnt.snapshot(&run.parameters, &saved);
    snapshot.weights.retain(|tensor| tensor.name != "fc.seen");
    Checkpoints::open(root.path(), 2).unwrap().save(&snapshot).unwrap();
    let checkpoint = Checkpoint::load(root.path()).unwrap();
    let said = checkpoint.restore(adapter(), &run.parameters).unwrap_err().to_string();
    assert!(said.contains("has no tensor fc.seen, which the model needs"), "{said}");
}
