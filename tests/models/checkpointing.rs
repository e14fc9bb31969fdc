//! Activation checkpointing: the same bits in less memory; and runs that are made to fit a limit.

use lara_models::fit::{fit, needed};
use lara_models::train::{Checkpointing, Session, TrainConfig};
use lara_runtime::{Gpu, GpuOptions};
use lara_tests::adapter;
use pollster::block_on;

use crate::trainer::{configure, done, interrupted, resume, start, tensors, tune};

/// Ends of short runs with and without, which must agree in every bit; and what a step's activations take.
fn compare(sets: &[&str]) -> [u64; 2] {
    let temp = tempfile::tempdir().unwrap();
    let run = |checkpoint: &str| {
        let dir = temp.path().join(checkpoint);
        let mut config = configure(&dir, &["train.epochs=1"]);
        config.set(&format!("train.checkpoint={checkpoint}")).unwrap();
        sets.iter().for_each(|set| config.set(set).unwrap());
        let trainer = start(&config).unwrap();
        let memory = trainer.session().memory();
        (tensors(&done(Ok(trainer)).checkpoint.unwrap()), memory.activations)
    };
    let ([kept, again], activations) = {
        let (kept, a) = run("none");
        let (again, b) = run("block");
        ([kept, again], [a, b])
    };
    assert!(kept == again, "{sets:?}: computed twice, the weights are others");
    activations
}

#[test]
fn what_is_computed_twice_has_the_same_bits_and_takes_less_memory() {
    let deep = ["model.depth=6", "train.batch_size=128", "train.grad_accum_steps=2"];
    for mechanism in ["softmax", "lara", "rfa"] {
        let mechanism = format!("attention.mechanism={mechanism}");
        let [kept, again] = compare(&[&deep[..], &[&mechanism]].concat());
        assert!(2 * again < kept, "{mechanism}: {again} of {kept} bytes");
    }
}

#[test]
fn pyramids_are_computed_twice_as_well() {
    let sets = [
        "model.name=pvt",
        "model.image_size=32",
        "model.embed_dims=[16,16,16,16]",
        "model.num_heads=[1,1,1,1]",
        "model.mlp_ratios=[2,2,2,2]",
        "model.depths=[2,2,2,2]",
        "model.num_classes=10",
        "data.dataset=digits",
    ];
    let temp = tempfile::tempdir().unwrap();
    let mut config = TrainConfig::default();
    config.output.dir = temp.path().to_path_buf();
    sets.iter().for_each(|set| config.set(set).unwrap_or_else(|error| panic!("{error}")));
    let [kept, again] = ["none", "block"].map(|checkpoint| {
        config.set(&format!("train.checkpoint={checkpoint}")).unwrap();
        needed(adapter(), &tune(), &config).unwrap()
    });
    assert!(again < kept, "{again} of {kept} bytes");
}

/// On a device that may give less than a step which keeps everything takes, and on one without a limit.
#[test]
fn auto_computes_twice_where_the_device_would_not_suffice() {
    let temp = tempfile::tempdir().unwrap();
    let activations = |checkpoint: &str, memory_limit: Option<u64>| {
        let options = GpuOptions { adapter: std::env::var("LARA_ADAPTER").ok(), memory_limit, ..GpuOptions::default() };
        let gpu = Gpu::open_blocking(&options).unwrap();
        let config = configure(temp.path(), &["model.depth=6", &format!("train.checkpoint={checkpoint}")]);
        let session = block_on(Session::new(&gpu, &tune(), &config, config.schedule(22))).unwrap();
        (session.memory().activations, session.memory().peak())
    };
    let [(kept, peak), (again, _)] = ["none", "block"].map(|checkpoint| activations(checkpoint, None));
    assert!(again < kept);
    assert_eq!(activations("auto", None).0, kept);
    assert_eq!(activations("auto", Some(peak - 1)).0, again);
}

#[test]
fn a_run_that_computes_twice_resumes_bit_for_bit() {
    let temp = tempfile::tempdir().unwrap();
    let [whole, broken] = ["whole", "broken"].map(|name| temp.path().join(name));
    let sets = ["train.epochs=2", "train.checkpoint=block"];
    let expected = done(start(&configure(&whole, &sets)));
    interrupted(start(&configure(&broken, &sets)), 10);
    let resumed = done(resume(&broken));
    assert!(tensors(&expected.checkpoint.unwrap()) == tensors(&resumed.checkpoint.unwrap()));
}

#[test]
fn a_limit_chooses_smaller_batches_before_it_chooses_to_compute_twice() {
    let temp = tempfile::tempdir().unwrap();
    let config = configure(temp.path(), &["model.depth=6", "train.batch_size=64"]);
    let plain = needed(adapter(), &tune(), &config).unwrap();
    let choose = |limit: u64| fit(adapter(), &tune(), &config, limit);
    let seen = |limit: u64| {
        let (config, needed) = choose(limit).unwrap();
        assert!(needed <= limit, "{needed} of {limit} bytes");
        (config.train.batch_size, config.train.grad_accum_steps, config.train.checkpoint)
    };
    assert_eq!(seen(plain), (64, 1, Checkpointing::None));
    assert_eq!(seen(plain - 1), (32, 2, Checkpointing::None));
    let (batch_size, passes, checkpoint) = seen(plain / 5);
    assert_eq!((batch_size * passes, checkpoint), (64, Checkpointing::Block));
    let error = choose(1 << 16).unwrap_err();
    assert!(error.is_bad_input() && error.to_string().contains("does not train within 64.0 KiB"), "{error}");
}
