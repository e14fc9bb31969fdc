//! What the runtime does with a device that is small, that goes away, and that others poll.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lara_runtime::ops::{Gelu, fill};
use lara_runtime::{
    Error, Gpu, GpuOptions, Init, Keep, Op, Parameters, Plan, Recorder, Ring, Role, Shape, Speed, Tensor,
};
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
    parameters.declare("weight", Shape::from([1024]), Init::Zeros, Keep::Decayed).unwrap();
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
    parameters.initialize(&gpu, 1).unwrap();
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
    parameters.declare("weight", Shape::from([300_000]), Init::Zeros, Keep::Decayed).unwrap();
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
    lost(plan.run().steps().send(&mut ring, &[(&plan, y)], 2).submit().expect_err("the third is the last"));
    lost(plan.run().steps().submit().expect_err("it stays lost"));
    lost(plan.read_blocking(y).expect_err("nothing can be read"));
    lost(ring.drain_blocking(&gpu).expect_err("nothing more arrives"));
    let (rec, ..) = recording(64);
    lost(Plan::compile_blocking(&gpu, rec, &Parameters::new(&gpu)).err().expect("nothing can be compiled"));
    let mut parameters = Parameters::new(&gpu);
    parameters.declare("weight", Shape::from([64]), Init::Zeros, Keep::Decayed).unwrap();
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

#[test]
fn an_error_is_told_to_the_thread_that_caused_it() {
    let gpu = open(None, None);
    let cause = |label: &str| drop(gpu.buffer(label, 16, wgpu::BufferUsages::empty()));
    let rejected = |label: &str| {
        let error = gpu.check().expect_err("the driver complained");
        assert!(matches!(error, Error::Rejected { .. }) && error.to_string().contains(label), "{error}");
        gpu.check().expect("an error is told once");
    };
    cause("of the first thread");
    std::thread::scope(|scope| {
        let second = scope.spawn(|| {
            gpu.check().expect("what the first thread did is not for the second");
            cause("of the second thread");
            cause("after that");
            rejected("of the second thread");
        });
        second.join().expect("the second thread hears its own");
        rejected("of the first thread");
        scope.spawn(|| cause("of a thread that is gone")).join().expect("it asks for nothing");
    });
    rejected("of a thread that is gone");
}

struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A device that is thought to be slow gets the same work in more submits.
#[test]
fn a_run_is_cut_into_submits_with_the_same_results() {
    let run = |speed: Option<Speed>| {
        let adapter = std::env::var("LARA_ADAPTER").ok();
        // The device is lost with the fourth submit, so that submits can be counted.
        let options = GpuOptions { adapter, speed, ..GpuOptions::default() };
        let count = |lose_after| Gpu::open_blocking(&GpuOptions { lose_after, ..options.clone() }).expect("it opens");
        let on = |gpu: &Gpu| {
            let mut rec = Recorder::new(tune(&[]));
            let x = rec.pinned("x", [1 << 16]);
            let mut y = x;
            for _ in 0..8 {
                y = Gelu.forward(&mut rec, &[y]).y[0];
            }
            rec.pin(y);
            let plan = Plan::compile_blocking(gpu, rec, &Parameters::new(gpu)).unwrap();
            let values: Vec<f32> = (0..1 << 16).map(|i| i as f32 / 1e4).collect();
            let submitted = plan.run().write(x, &values).steps().submit();
            (submitted.is_ok(), plan.to_string(), plan.read_blocking(y).unwrap_or_default())
        };
        let (_, listing, values) = on(&count(None));
        let survives = |submits| on(&count(Some(submits))).0;
        let submits = (1..10).find(|&submits| !survives(submits)).unwrap_or_default();
        let last = (1..10).rev().find(|&submits| !survives(submits)).unwrap_or_default();
        assert_eq!(submits, 1, "the first submit is part of the run");
        (last, listing, values)
    };
    let (whole, listing, expected) = run(None);
    assert_eq!(whole, 1);
    assert!(listing.ends_with("8 dispatches in 1 submits, 0.000 GFLOP, 0.004 GB bound\n"), "{listing}");
    // 512 KiB a step take a fifth of a second.
    let slow = Speed { flops: 1e9, bytes: 2.5 * f64::from(1 << 20) };
    let (cut, listing, values) = run(Some(slow));
    assert_eq!(cut, 4);
    assert!(listing.contains("8 dispatches in 4 submits"), "{listing}");
    assert_eq!(values, expected);
}

#[test]
fn what_cannot_be_written_copied_or_sent_is_said() {
    let gpu = open(None, None);
    let mut rec = Recorder::new(tune(&[]));
    let [x, other] = [rec.pinned("x", [4]), rec.pinned("other", [6])];
    let (y, unused) = (Gelu.forward(&mut rec, &[x]).y[0], rec.scratch("unused", [4]));
    let plan = Plan::compile_blocking(&gpu, rec, &Parameters::new(&gpu)).unwrap();
    let mut ring = Ring::new(&gpu, 1, 5);
    let told = |result: Result<_, Error>| result.map(drop).expect_err("this cannot be done").to_string();
    assert_eq!(told(plan.write(x, &[0.0; 5])), "5 values do not fit a tensor [4]");
    assert_eq!(told(plan.run().write(x, &[0.0; 5]).submit().map(drop)), "5 values do not fit a tensor [4]");
    let missing = "has no buffer in this plan; pin it before compiling";
    assert!(told(plan.write(unused, &[0.0; 4])).ends_with(missing));
    assert!(told(plan.run().send(&mut ring, &[(&plan, unused)], 0).submit().map(drop)).ends_with(missing));
    let copied = plan.run().copy((&plan, x), other).submit().map(drop);
    assert_eq!(told(copied), "[4] cannot be copied over [6]: their lengths differ");
    let sent = plan.run().send(&mut ring, &[(&plan, other)], 0).submit().map(drop);
    assert_eq!(told(sent), "6 numbers do not fit a ring whose slots hold 5");
    // A run that was refused leaves its ring as it was.
    let refused = plan.run().send(&mut ring, &[(&plan, x)], 1).write(x, &[0.0; 5]).submit().map(drop);
    assert_eq!(told(refused), "5 values do not fit a tensor [4]");
    plan.run().write(x, &[0.5; 4]).steps().send(&mut ring, &[(&plan, x)], 2).submit().unwrap();
    assert_eq!(ring.drain_blocking(&gpu).unwrap()[0].1[..4], [0.5; 4]);
    assert!(plan.read_blocking(y).is_ok());
}

#[test]
fn sizes_whose_product_has_no_number_are_refused() {
    for shape in [[usize::MAX, 2, 1], [1 << 40, 1 << 40, 1 << 40], [1 << 16, 1 << 16, 1], [65_535, 65_537, 1]] {
        let mut rec = Recorder::new(tune(&[]));
        let x = rec.scratch("x", shape);
        assert!(x.len() >= u32::MAX as usize && x.bytes() >= 4 * u64::from(u32::MAX), "{} {}", x.len(), x.bytes());
        let said = rec.finish().expect_err("no kernel can count through it").to_string();
        assert!(
            said.starts_with("x [") && said.contains("but the adapter allows 16.0 GiB in one buffer; lower"),
            "{said}"
        );
    }
}
