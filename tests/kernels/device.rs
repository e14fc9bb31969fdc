//! What the runtime does with a device that is small, that goes away, and that others poll.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lara_runtime::ops::{Gelu, fill};
use lara_runtime::{Error, Gpu, GpuOptions, Init, Op, Parameters, Plan, Recorder, Ring, Role, Shape, Tensor};
use lara_tests::tune;

/// An own device on the tests' adapter.
fn open(memory_limit: Option<u64>, lose_after: Option<u64>) -> Gpu {
    let adapter = std::env::var("LARA_ADAPTER").ok();
    Gpu::open_blocking(&GpuOptions { adapter, memory_limit, lose_after, ..GpuOptions::default() }).expect("it opens")
}

/// y = gelu(x) for `len` numbers.
fn recording(len: usize) -> (Recorder, Tensor, Tensor) {
    let mut rec = Recorder::new(tune(&[]));
    let x = rec.pinned("x", [len]);
    let y = Gelu.forward(&mut rec, &[x]).y[0];
    rec.pin(y);
    (rec, x, y)
}

#[test]
fn memory_is_counted_and_given_back() {
    let gpu = open(None, None);
    let before = gpu.memory_in_use();
    let mut parameters = Parameters::new(&gpu);
    parameters.declare("weight", Shape::from([1024]), Init::Zeros, true).unwrap();
    parameters.allocate_blocking(&gpu, &[Role::Weight]).unwrap();
    let with_parameters = gpu.memory_in_use();
    assert_eq!(with_parameters, before + 4096);
    for _ in 0..20 {
        let (rec, x, y) = recording(10_000);
        let plan = Plan::compile_blocking(&gpu, rec, &parameters).unwrap();
        assert!(gpu.memory_in_use() >= with_parameters + 2 * 40_000, "{} bytes", gpu.memory_in_use());
        plan.run().write(x, &[0.0; 10_000]).steps().submit().unwrap();
        let kept = plan.buffer(y).cloned();
        drop(plan);
        assert_eq!(
            gpu.memory_in_use(),
            with_parameters + kept.map_or(0, |buffer| buffer.size()),
            "a clone keeps its own"
        );
    }
    drop(parameters);
    assert_eq!(gpu.memory_in_use(), before);
}

#[test]
fn a_plan_keeps_the_parameters_it_binds() {
    let gpu = open(None, None);
    let mut parameters = Parameters::new(&gpu);
    let mut tape = lara_runtime::Tape::new(&mut parameters, &tune(&[]), lara_runtime::Mode::Eval);
    let weight = tape.parameter("weight", [64], Init::Ones);
    let y = tape.apply(Gelu, &[weight]);
    tape.rec.pin(y);
    let rec = tape.finish().unwrap();
    parameters.allocate_blocking(&gpu, &[Role::Weight]).unwrap();
    parameters.initialize(&gpu, 1);
    let plan = Plan::compile_blocking(&gpu, rec, &parameters).unwrap();
    drop(parameters);
    plan.run().steps().submit().unwrap();
    let values = plan.read_blocking(y).unwrap();
    assert!((values[0] - 0.841_344_7).abs() < 1e-6, "{}", values[0]);
}

#[test]
fn beyond_the_limit_it_is_out_of_memory_and_the_rest_goes_on() {
    let gpu = open(Some(1 << 20), None);
    let (rec, x, y) = recording(1000);
    let small = Plan::compile_blocking(&gpu, rec, &Parameters::new(&gpu)).unwrap();
    let (rec, ..) = recording(200_000);
    let error = Plan::compile_blocking(&gpu, rec, &Parameters::new(&gpu)).err().expect("1.5 MiB do not fit 1 MiB");
    assert!(matches!(error, Error::OutOfMemory { .. }), "{error}");
    let said = error.to_string();
    for part in ["not enough memory for what a plan computes", "1.5 MiB", "in use", "the limit is 1.0 MiB", "lower"] {
        assert!(said.contains(part), "`{part}` is not in: {said}");
    }
    let mut parameters = Parameters::new(&gpu);
    parameters.declare("weight", Shape::from([300_000]), Init::Zeros, true).unwrap();
    let error = parameters.allocate_blocking(&gpu, &[Role::Weight]).expect_err("1.1 MiB do not fit, either");
    assert!(error.to_string().contains("the parameters of a model (300000 numbers"), "{error}");
    assert_eq!(parameters.bytes(Role::Weight), 0);
    small.run().write(x, &[0.0; 1000]).steps().submit().unwrap();
    assert_eq!(small.read_blocking(y).unwrap(), [0.0; 1000]);
}

#[test]
fn a_lost_device_is_told_at_every_call_and_nothing_hangs() {
    let gpu = open(None, Some(3));
    let (rec, x, y) = recording(64);
    let plan = Plan::compile_blocking(&gpu, rec, &Parameters::new(&gpu)).unwrap();
    let mut ring = Ring::new(&gpu, 4, 64);
    for tag in 0..2 {
        plan.run().write(x, &[0.0; 64]).steps().send(&mut ring, &[(&plan, y)], tag).submit().unwrap();
    }
    let lost = |error: Error| assert!(matches!(error, Error::DeviceLost(_)), "{error}");
    lost(plan.run().steps().send(&mut ring, &[(&plan, y)], 2).submit().err().expect("the third is the last"));
    lost(plan.run().steps().submit().err().expect("it stays lost"));
    lost(plan.read_blocking(y).err().expect("nothing can be read"));
    lost(ring.drain_blocking(&gpu).err().expect("nothing more arrives"));
    let (rec, ..) = recording(64);
    lost(Plan::compile_blocking(&gpu, rec, &Parameters::new(&gpu)).err().expect("nothing can be compiled"));
    let mut parameters = Parameters::new(&gpu);
    parameters.declare("weight", Shape::from([64]), Init::Zeros, true).unwrap();
    lost(parameters.allocate_blocking(&gpu, &[Role::Weight]).expect_err("nothing can be allocated"));
}

/// Another thread that polls takes callbacks off the device, and `drain` must still wait until they were called.
#[test]
fn draining_waits_for_callbacks_that_another_thread_holds() {
    let gpu = open(None, None);
    let mut rec = Recorder::new(tune(&[]));
    let x = rec.pinned("x", [1 << 16]);
    fill(&mut rec, x, 1.0);
    let plan = Plan::compile_blocking(&gpu, rec, &Parameters::new(&gpu)).unwrap();
    let mut ring = Ring::new(&gpu, 8, 1 << 16);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Also when an assertion fails: the scope waits for its threads.
        let _stop = StopAtEnd(&stop);
        for _ in 0..8 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    gpu.poll();
                }
            });
        }
        // Some hundred rounds meet the moment that matters; a busy machine takes fewer.
        let begun = Instant::now();
        for round in (0..1500).take_while(|round| *round < 100 || begun.elapsed() < Duration::from_secs(4)) {
            for tag in 0..8 {
                // The same tag twice: whoever sends may count as it likes.
                plan.run().steps().send(&mut ring, &[(&plan, x)], tag / 2).submit().unwrap();
            }
            let tags: Vec<u64> = ring.drain_blocking(&gpu).unwrap().iter().map(|(tag, _)| *tag).collect();
            assert_eq!(tags, [0, 0, 1, 1, 2, 2, 3, 3], "round {round}");
        }
    });
}

struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
