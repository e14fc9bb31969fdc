//! What is declared, what is trained, what is only kept, and what cannot be written or read.

use lara_runtime::ops::{AdamW, Clip, grad_norm};
use lara_runtime::{Error, Header, Init, Keep, Mode, Parameters, Plan, Recorder, Role, Shape, Tape};
use lara_shaders::RESIDUAL;
use lara_tests::{adapter, tune};
use pollster::block_on;

#[test]
fn parameters_have_one_shape() {
    let mut parameters = Parameters::new(adapter());
    let mut declare = |name: &str, shape: Shape, keep| parameters.declare(name, shape, Init::Zeros, keep);
    assert_eq!(declare("head.weight", [10, 64].into(), Keep::Decayed).expect("new"), 0);
    assert_eq!(declare("head.bias", [10].into(), Keep::Decayed).expect("new"), 1);
    assert_eq!(declare("head.mean", [10].into(), Keep::Buffer).expect("new"), 2);
    assert_eq!(declare("head.weight", [10, 64].into(), Keep::Decayed).expect("the same again"), 0);
    assert_eq!(declare("head.bias", [10].into(), Keep::Plain).expect("one dimension is never decayed"), 1);
    let error = declare("head.weight", [64, 10].into(), Keep::Decayed).expect_err("another shape").to_string();
    assert_eq!(error, "parameter head.weight was declared as [10, 64] and now as [64, 10]");
    let error = declare("head.mean", [10].into(), Keep::Plain).expect_err("trained and not").to_string();
    assert_eq!(error, "parameter head.mean was declared as Buffer and now as Plain");
    assert_eq!(parameters.count(), 650, "state is not trained");
}

#[test]
fn a_parameter_declared_too_late_or_too_large_is_refused() {
    let mut parameters = Parameters::new(adapter());
    let len = (adapter().max_binding_bytes() / 4) as usize + 1;
    let mut declare = |name: &str, len: usize| parameters.declare(name, [len].into(), Init::Zeros, Keep::Plain);
    let error = declare("pos_embed", len).expect_err("too large").to_string();
    let allowed = adapter().max_binding_bytes();
    assert!(error.starts_with(&format!("parameter pos_embed [{len}] needs ")), "{error}");
    assert!(error.contains(&format!("the adapter allows {allowed} bytes; lower the embedding")), "{error}");
    declare("a", 4).expect("fits");
    parameters.allocate_blocking(adapter(), &[Role::Weight]).unwrap();
    let error = parameters.declare("b", [4].into(), Init::Zeros, Keep::Plain).expect_err("too late").to_string();
    assert_eq!(error, "parameter b is new to a model whose weights are already on the GPU");
}

#[test]
fn what_cannot_be_written_copied_or_read_is_said() {
    let gpu = adapter();
    let mut parameters = Parameters::new(gpu);
    parameters.declare("head.weight", [2, 3].into(), Init::Ones, Keep::Decayed).unwrap();
    parameters.declare("norm.running_mean", [3].into(), Init::Zeros, Keep::Buffer).unwrap();
    let told = |result: Result<(), Error>| {
        let error = result.expect_err("this cannot be done");
        assert!(error.is_bad_input());
        error.to_string()
    };
    let nothing = "allocate Role::Weight before";
    assert_eq!(
        told(parameters.initialize(gpu, 1)),
        format!("parameter head.weight has no weight on the GPU; {nothing}")
    );
    let unread = block_on(parameters.read(gpu, Role::Weight)).map(drop);
    assert_eq!(told(unread), format!("the parameters have no weight on the GPU; {nothing}"));
    parameters.allocate_blocking(gpu, &[Role::Weight, Role::Grad]).unwrap();
    parameters.initialize(gpu, 1).unwrap();
    for (given, values) in [[0.5; 5].as_slice(), &[0.5; 7]].into_iter().map(|values| (values.len(), values)) {
        let said = told(parameters.write(gpu, Role::Weight, 0, values));
        assert_eq!(said, format!("parameter head.weight [2, 3] takes 6 values, not {given}"));
    }
    let said = told(parameters.write(gpu, Role::Weight, 2, &[]));
    assert_eq!(said, "there is no parameter number 2; the model has 2");
    let said = told(parameters.write(gpu, Role::FirstMoment, 0, &[0.5; 6]));
    assert_eq!(said, "parameter head.weight has no first moment on the GPU; allocate Role::FirstMoment before");
    let said = told(parameters.write(gpu, Role::Grad, 1, &[0.5; 3]));
    assert_eq!(said, "norm.running_mean is not trained: it has no gradient");
    let said = told(parameters.copy(gpu, Role::Weight, Role::Ema));
    assert_eq!(said, "the parameters have no average on the GPU; allocate Role::Ema before");
    let weights = block_on(parameters.read(gpu, Role::Weight)).unwrap();
    assert_eq!(weights, [vec![1.0; 6], vec![0.0; 3]], "nothing was written");
}

#[test]
fn a_run_clears_no_gradients_that_are_not_there_and_knows_its_asides() {
    let gpu = adapter();
    let mut parameters = Parameters::new(gpu);
    let mut tape = Tape::new(&mut parameters, &tune(&[]), Mode::Eval);
    tape.parameter("weight", [4], Init::Ones);
    let aside = tape.aside(|_| ());
    tape.finish().unwrap();
    parameters.allocate_blocking(gpu, &[Role::Weight]).unwrap();
    let plan = Plan::compile_blocking(gpu, Recorder::new(tune(&[])), &parameters).unwrap();
    let said = plan.run().clear_gradients(&parameters).submit().map(drop).expect_err("no gradients").to_string();
    assert_eq!(said, "the parameters have no gradient on the GPU; allocate Role::Grad before");
    let said = plan.run().aside(aside).submit().map(drop).expect_err("another recording's").to_string();
    assert_eq!(said, "there is no aside number 0 in this plan, which has 0");
}

/// State takes no part in a step: the gradient norm, weights and moments are what they are without it, whatever it holds.
/// Steps may write it, and the average of the weights sees it as it is.
#[test]
fn state_is_neither_trained_nor_averaged() {
    let gpu = adapter();
    let run = |with_state: bool| {
        let mut parameters = Parameters::new(gpu);
        let mut tape = Tape::new(&mut parameters, &tune(&[]), Mode::Train { accumulate: false });
        let [x, seed] = [tape.input("x", [8]), tape.input("seed", [4, 2])];
        let state = with_state.then(|| tape.buffer("state", [8], Init::Ones));
        let weight = tape.parameter("weight", [4, 2], Init::TruncNormal(0.5));
        let bias = tape.parameter_without_decay("bias", [4, 2], Init::Zeros);
        let sum = tape.apply(lara_runtime::ops::Residual, &[weight, bias]);
        if let Some(state) = state {
            // Nothing flows back into it.
            tape.apply(lara_runtime::ops::Residual, &[sum, state.reshape([4, 2])]);
            let step = tape.rec.step(&RESIDUAL, "backward").bind("dy", x).bind("dx", state);
            step.uint("quads", 2).flag("accumulate", true).dispatch_items(2);
        }
        tape.backward(&[(sum, seed)]);
        assert_eq!(state.and_then(|state| tape.gradient(state)), None);
        let rec = tape.finish().unwrap();
        let roles = [Role::Weight, Role::Grad, Role::FirstMoment, Role::SecondMoment, Role::Ema];
        parameters.allocate_blocking(gpu, &roles).unwrap();
        parameters.initialize(gpu, 5).unwrap();
        parameters.copy(gpu, Role::Weight, Role::Ema).unwrap();
        let plan = Plan::compile_blocking(gpu, rec, &parameters).unwrap();
        let adamw = AdamW { betas: [0.9, 0.99], eps: 1e-8, weight_decay: 0.5, clip: Clip::Norm(0.1), ema: true };
        let mut rec = Recorder::new(tune(&[]));
        let norm = adamw.record(&mut rec, &parameters);
        let optimizer = Plan::compile_blocking(gpu, rec, &parameters).unwrap();
        let x_values: Vec<f32> = (0..8).map(|i| 0.5 * i as f32).collect();
        plan.write(x, &x_values).unwrap();
        plan.write(seed, &[1.0; 8]).unwrap();
        let header =
            Header { lr: 0.1, bias_correction1: 0.1, bias_correction2: 0.01, ema_decay: 0.5, ..Header::default() };
        for _ in 0..3 {
            plan.run().header(header).steps().then(&optimizer, header).submit().unwrap();
        }
        let read = |parameters: &Parameters, role| block_on(parameters.read(gpu, role)).unwrap();
        let mut kept = roles.map(|role| read(&parameters, role));
        let averaged = read(&parameters.averaged(), Role::Weight);
        assert_eq!(averaged, kept[4]);
        if with_state {
            let after: Vec<f32> = x_values.iter().map(|x| 1.0 + 3.0 * x).collect();
            assert_eq!([&kept[0].remove(0), &kept[4].remove(0)], [&after; 2], "three runs wrote it");
            let names = |role| parameters.entries_of(role).map(|e| e.name.as_str()).collect::<Vec<_>>();
            assert_eq!(names(Role::Grad), ["weight", "bias"]);
            assert_eq!(names(Role::Ema), ["state", "weight", "bias"]);
        }
        (kept, optimizer.read_blocking(norm).unwrap(), parameters.count())
    };
    let (without, norm, count) = run(false);
    assert_eq!(run(true), (without, norm.clone(), count));
    assert!(norm[0] > 1.0 && norm[1] < 0.1, "{norm:?}");
}

#[test]
fn a_model_that_is_only_state_has_no_gradient() {
    let gpu = adapter();
    let mut parameters = Parameters::new(gpu);
    parameters.declare("cache", [16, 4].into(), Init::Ones, Keep::Buffer).unwrap();
    parameters.allocate_blocking(gpu, &[Role::Weight, Role::Grad]).unwrap();
    assert_eq!((parameters.count(), parameters.bytes(Role::Weight), parameters.bytes(Role::Grad)), (0, 256, 0));
    let mut rec = Recorder::new(tune(&[]));
    let norm = grad_norm(&mut rec, &parameters, 1.0);
    let plan = Plan::compile_blocking(gpu, rec, &parameters).unwrap();
    plan.run().steps().submit().unwrap();
    assert_eq!(plan.read_blocking(norm).unwrap()[0], 0.0);
}
