//! What a plan computes once: when it is computed anew, and that no run sees what belongs to another.

use lara_runtime::attention::{
    AttentionConfig, Broadcast, Context, DrawProjection, MechanismKind, Noise, Qkv, mechanism,
};
use lara_runtime::ops::fill;
use lara_runtime::{Header, Mode, Op, Parameters, Plan, Recorder, Redraw, Tape, Tensor};
use lara_shaders::RESIDUAL;
use lara_tests::{adapter, random, tune};

const SHAPE: [usize; 3] = [2, 5, 4];

fn header(step: u32, seed: u32) -> Header {
    Header { step, seed: [seed, 9], ..Header::default() }
}

fn compile(rec: Recorder) -> Plan {
    Plan::compile_blocking(adapter(), rec, &Parameters::new(adapter())).expect("the recording compiles")
}

/// Twice a projection, among steps whose tensors would like its buffer.
fn recorded(interval: Option<usize>) -> (Recorder, Tensor, Tensor) {
    let mut rec = Recorder::new(tune(&[]));
    let noise = |rec: &mut Recorder| {
        let scratch = rec.scratch("other", SHAPE);
        fill(rec, scratch, 7.0);
        let copy = Broadcast { batch: 1, factor: 1.0 }.forward(rec, &[scratch]).y[0];
        rec.pin(copy);
    };
    noise(&mut rec);
    let w = DrawProjection { orthogonal: true, stream: 3, interval, seed: 5 }.record(&mut rec, SHAPE);
    noise(&mut rec);
    let y = Broadcast { batch: 1, factor: 2.0 }.forward(&mut rec, &[w]).y[0];
    rec.pin(y);
    noise(&mut rec);
    (rec, w, y)
}

/// Whether a run with this header draws; afterwards the projection is made zero, so that the next one shows it.
fn draws(plan: &Plan, [w, y]: [Tensor; 2], header: Header) -> bool {
    plan.run().header(header).steps().submit().expect("it runs");
    let values = plan.read_blocking(y).expect("it is pinned");
    let drawn = values.iter().all(|y| y.is_finite()) && values.iter().any(|&y| y != 0.0);
    plan.write(w, &vec![0.0; w.len()]).expect("it has a buffer of its own");
    drawn
}

#[test]
fn a_projection_that_never_changes_is_drawn_with_the_first_run_alone() {
    let (rec, w, y) = recorded(None);
    let plan = compile(rec);
    let listing = plan.to_string();
    assert_eq!(listing.matches("[2, 5, 4] once\n").count(), 2, "{listing}");
    assert!(
        listing.contains("7 dispatches in 1 submits") && listing.contains("; 2 dispatches not in every run\n"),
        "{listing}"
    );
    assert!(plan.memory().pinned >= w.bytes(), "it has a buffer of its own");
    plan.poison();
    assert!(draws(&plan, [w, y], header(0, 1)));
    for header in [header(0, 1), header(7, 1), header(7, 2)] {
        assert!(!draws(&plan, [w, y], header), "{header:?}");
    }
    plan.poison();
    assert!(draws(&plan, [w, y], header(0, 1)), "nothing is left");
}

#[test]
fn one_with_an_interval_is_drawn_with_every_draw_that_it_counts() {
    let (rec, w, y) = recorded(Some(3));
    let plan = compile(rec);
    assert_eq!(plan.to_string().matches(" once in 3 steps of a seed\n").count(), 2);
    let micro = |step, micro_step| Header { micro_step, ..header(step, 1) };
    for (header, wanted) in [
        (header(0, 1), true),
        (header(1, 1), false),
        (micro(2, 1), false),
        (micro(3, 0), true),
        (micro(3, 1), false),
        (header(4, 2), true),
        (header(4, 1), true),
        (header(2, 1), true),
        (header(2, 1), false),
    ] {
        assert_eq!(draws(&plan, [w, y], header), wanted, "{header:?}");
    }
}

/// What a fresh plan gives for a header.
fn fresh(header: Header) -> Vec<f32> {
    let (rec, _, y) = recorded(Some(1));
    let plan = compile(rec);
    plan.run().header(header).steps().submit().unwrap();
    plan.read_blocking(y).unwrap()
}

#[test]
fn runs_that_are_made_side_by_side_do_not_share_a_draw() {
    let (rec, _, y) = recorded(Some(1));
    let plan = compile(rec);
    plan.poison();
    let [one, two] = [header(1, 1), header(2, 1)].map(fresh);
    assert_ne!(one, two);
    let read = || plan.read_blocking(y).unwrap();
    plan.run().header(header(1, 1)).steps().submit().unwrap();
    // Made when the first draw is there, and submitted when it is gone.
    let late = plan.run().header(header(1, 1)).steps();
    plan.run().header(header(2, 1)).steps().submit().unwrap();
    assert_eq!(read(), two);
    late.submit().unwrap();
    assert_eq!(read(), one);
    // Without a header of its own a run has the last one's.
    plan.run().steps().submit().unwrap();
    assert_eq!(read(), one);
    plan.run().header(header(2, 1)).steps().header(header(1, 1)).steps().submit().unwrap();
    assert_eq!(read(), one);
    plan.run().header(header(1, 1)).steps().header(header(2, 1)).repeat(3).submit().unwrap();
    assert_eq!(read(), two);
}

/// What is computed in front of a run leaves the header that the run's own steps begin with.
#[test]
fn a_draw_in_front_of_a_run_does_not_show_in_its_steps() {
    let recorded = || {
        let mut parameters = Parameters::new(adapter());
        let mut tape = Tape::new(&mut parameters, &tune(&[]), Mode::Eval);
        let x = tape.input("x", SHAPE);
        let noisy = tape.apply(Noise { std: 1.0, stream: 8, ranks: None, samples: 1 }, &[x]);
        let mut drawn = None;
        let aside = tape.aside(|tape| {
            let draw = DrawProjection { orthogonal: true, stream: 3, interval: Some(1), seed: 5 };
            let w = draw.record(&mut tape.rec, SHAPE);
            drawn = Some(tape.apply(Broadcast { batch: 1, factor: 2.0 }, &[w]));
        });
        let read = [noisy, drawn.expect("the aside was recorded")];
        read.iter().for_each(|&t| tape.rec.pin(t));
        let plan = compile(tape.finish().unwrap());
        plan.write(x, &[0.5; 40]).unwrap();
        (plan, aside, read)
    };
    let (plan, aside, read) = recorded();
    let noise = |step| {
        let (plan, _, read) = recorded();
        plan.run().header(header(step, 1)).steps().submit().unwrap();
        plan.read_blocking(read[0]).unwrap()
    };
    plan.run().header(header(1, 1)).steps().aside(aside).submit().unwrap();
    let late = plan.run().steps().header(header(1, 1)).aside(aside);
    plan.run().header(header(2, 1)).aside(aside).submit().unwrap();
    late.submit().unwrap();
    let [noisy, drawn] = read.map(|t| plan.read_blocking(t).unwrap());
    assert_eq!(noisy, noise(2), "the last header that a run before it set");
    assert_ne!(noisy, noise(1));
    assert_eq!(drawn, fresh(header(1, 1)));
}

#[test]
fn a_run_that_is_not_submitted_has_drawn_nothing() {
    let (rec, w, y) = recorded(None);
    let plan = compile(rec);
    plan.poison();
    drop(plan.run().steps());
    let refused = plan.run().steps().write(w, &[0.0; 41]).submit();
    assert!(refused.is_err());
    assert!(draws(&plan, [w, y], header(0, 1)));
}

#[test]
fn plans_that_run_together_and_asides_draw_for_themselves() {
    let (rec, _, first) = recorded(Some(1));
    let plan = compile(rec);
    let (rec, w, second) = recorded(Some(1));
    let other = compile(rec);
    [&plan, &other].into_iter().for_each(Plan::poison);
    for step in [4, 4, 5] {
        let wanted = fresh(header(step, 1));
        plan.run().header(header(step, 1)).steps().then(&other, header(step, 1)).submit().unwrap();
        let read = [plan.read_blocking(first).unwrap(), other.read_blocking(second).unwrap()];
        assert_eq!(read, [wanted.clone(), wanted]);
    }
    other.run().header(header(6, 1)).steps().submit().unwrap();
    let drawn = other.read_blocking(w).unwrap();

    // An aside that reads what the main steps have drawn, and draws another by itself.
    let mut parameters = Parameters::new(adapter());
    let mut tape = Tape::new(&mut parameters, &tune(&[]), Mode::Eval);
    let draw = |stream| DrawProjection { orthogonal: true, stream, interval: Some(1), seed: 5 };
    let main = draw(3).record(&mut tape.rec, SHAPE);
    let mut read = Vec::new();
    let aside = tape.aside(|tape| {
        let own = draw(4).record(&mut tape.rec, SHAPE);
        read.extend([main, own].map(|w| tape.apply(Broadcast { batch: 1, factor: 1.0 }, &[w])));
    });
    read.iter().for_each(|&t| tape.rec.pin(t));
    let plan = compile(tape.finish().unwrap());
    plan.poison();
    for _ in 0..2 {
        plan.run().header(header(6, 1)).steps().aside(aside).aside(aside).submit().unwrap();
        let [main, own] = [0, 1].map(|i| plan.read_blocking(read[i]).unwrap());
        assert_eq!(main, drawn);
        assert!(own != drawn && own.iter().all(|x| x.is_finite()));
    }
}

/// A run that goes on from step 3 with a plan of its own computes what the one that began at step 0 does.
#[test]
fn random_features_in_training_depend_on_the_step_alone() {
    let config = AttentionConfig {
        mechanism: MechanismKind::Rfa,
        features: 6,
        redraw_interval: 2,
        ..AttentionConfig::default()
    };
    let attend = || {
        let mut parameters = Parameters::new(adapter());
        let mut tape = Tape::new(&mut parameters, &tune(&[]), Mode::Train { accumulate: false });
        let [q, k, v] = ["q", "k", "v"].map(|name| tape.variable(name, [2, 2, 9, 8]));
        let out = mechanism(&config).unwrap().attend(&mut tape, Qkv { q, k, v }, &Context::default());
        let dout = tape.input("dout", [2, 2, 9, 8]);
        tape.backward(&[(out, dout)]);
        let read = [Some(out), tape.gradient(q), tape.gradient(k)].map(|t| t.expect("all are variables"));
        read.iter().for_each(|&t| tape.rec.pin(t));
        let plan = compile(tape.finish().unwrap());
        plan.poison();
        for (seed, tensor) in [q, k, v, dout].into_iter().enumerate() {
            let values = random(seed as u32, tensor.len()).into_iter().map(|x| x as f32).collect::<Vec<f32>>();
            plan.write(tensor, &values).unwrap();
        }
        move |step| {
            plan.run().header(header(step, 1)).steps().submit().unwrap();
            read.map(|t| plan.read_blocking(t).unwrap())
        }
    };
    let (whole, resumed) = (attend(), attend());
    let of_whole: Vec<_> = (0..6).map(&whole).collect();
    for step in 3..6 {
        assert!(resumed(step) == of_whole[step as usize], "step {step}");
    }
    assert!(of_whole[2] == of_whole[3] && of_whole[3] != of_whole[4]);
}

#[test]
fn what_is_computed_once_depends_on_nothing_else_and_is_not_written_by_others() {
    let add = |rec: &mut Recorder, from: Tensor, to: Tensor| {
        let step = rec.step(&RESIDUAL, "backward").bind("dy", from).bind("dx", to);
        step.uint("quads", 10).flag("accumulate", true).dispatch_items(10);
    };
    let ones = |rec: &mut Recorder| {
        let ones = rec.scratch("ones", SHAPE);
        fill(rec, ones, 1.0);
        ones
    };
    let mut rec = Recorder::new(tune(&[]));
    let x = rec.pinned("x", SHAPE);
    rec.once(Redraw::Never, |rec| {
        let made = ones(rec);
        add(rec, x, made);
    });
    let said = rec.finish().expect_err("it depends on x").to_string();
    assert_eq!(said, "residual.backward: is computed once, but binds x, which is not");

    let mut rec = Recorder::new(tune(&[]));
    let made = rec.once(Redraw::Never, ones);
    let x = rec.pinned("x", SHAPE);
    add(&mut rec, x, made);
    let said = Plan::compile_blocking(adapter(), rec, &Parameters::new(adapter())).err().expect("it is written");
    assert_eq!(said.to_string(), "residual.backward: writes ones, which is computed once");

    let mut rec = Recorder::new(tune(&[]));
    rec.once(Redraw::Never, |rec| rec.once(Redraw::Every(2), ones));
    let said = rec.finish().expect_err("one is in the other").to_string();
    assert!(said.ends_with("begins what is computed once within another"), "{said}");
}
