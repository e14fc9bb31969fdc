//! A compiled attention layer: what it reads, and maps that the device cannot hold in one piece.

use lara_models::attend::{self, Array, Arrays, Layer, Setting, Sizes, Want, shapes};
use lara_runtime::attention::{
    AttentionConfig, FeatureMap, Grid, MechanismKind, MisType, Need, NoiseScale, Projection, ProposalGen, SampleScheme,
};
use lara_runtime::{Gpu, GpuOptions, Mode};
use lara_tests::{adapter, assert_close, random, tune};
use pollster::block_on;

const SHAPE: [usize; 4] = [1, 2, 12, 4];

fn array(seed: u32, shape: &[usize]) -> Array {
    let len = shape.iter().product();
    Array { shape: shape.to_vec(), values: random(seed, len).into_iter().map(|x| x as f32).collect() }
}

fn qkv(queries: usize, keys: usize, dim: usize) -> Arrays {
    let tensor = |name: &str, seed, tokens| (name.to_owned(), array(seed, &[1, 2, tokens, dim]));
    Arrays::from([tensor("q", 1, queries), tensor("k", 2, keys), tensor("v", 3, keys)])
}

fn training(config: AttentionConfig) -> Setting {
    Setting { mode: Mode::Train { accumulate: false }, ..Setting::new(config) }
}

fn values(array: &Array) -> Vec<f64> {
    array.values.iter().copied().map(f64::from).collect()
}

/// Settings of every mechanism that differ in what they read.
fn settings() -> Vec<AttentionConfig> {
    let base = |mechanism| AttentionConfig {
        mechanism,
        num_landmarks: 3,
        proposal_gen: ProposalGen::NoParamPool,
        features: 4,
        ..AttentionConfig::default()
    };
    let performer = |kernel| AttentionConfig { kernel, ..base(MechanismKind::Performer) };
    let given = |config| AttentionConfig { projection: Projection::Given, ..config };
    let rfa = base(MechanismKind::Rfa);
    vec![
        base(MechanismKind::Softmax),
        base(MechanismKind::Lara),
        base(MechanismKind::Ra),
        AttentionConfig { num_samples: 0, ..base(MechanismKind::Ra) },
        given(rfa.clone()),
        AttentionConfig { sample_scheme: SampleScheme::Learnable, ..rfa },
        given(performer(FeatureMap::Favorp)),
        AttentionConfig { features: 8, ..performer(FeatureMap::Dpfp) },
        performer(FeatureMap::ReluOnly),
    ]
}

#[test]
fn a_mechanism_reads_what_it_says_and_nothing_else() {
    let all = [
        ("key_padding_mask", vec![1, 12]),
        ("noise", vec![1, 2, 3, 4]),
        ("index", vec![1, 2, 12]),
        ("projection", vec![2, 4, 4]),
    ];
    for config in settings() {
        let sizes = Sizes::of(&shapes(&qkv(12, 12, 4))).unwrap();
        let extras = config.extras(sizes.output(), sizes.keys);
        let declares = |name: &str| extras.iter().any(|extra| extra.name == name);
        let mut given = qkv(12, 12, 4);
        for (name, shape) in &all {
            let known = extras.iter().find(|extra| extra.name == *name).and_then(|extra| extra.shape.clone());
            given.insert((*name).to_owned(), array(5, &known.unwrap_or_else(|| shape.clone())));
        }
        given.get_mut("key_padding_mask").unwrap().values = (0..12).map(|m| f32::from(m > 9)).collect();
        let index = given.get_mut("index").unwrap();
        index.values = (0..index.values.len()).map(|i| (i % 7) as f32).collect();
        let layer =
            block_on(Layer::compile(adapter(), &tune(&[]), &training(config.clone()), Want::Output, &shapes(&given)));
        let layer = layer.unwrap();
        let run = |given: &Arrays| {
            layer.set_weights(given).unwrap();
            block_on(layer.run(given, 3)).unwrap()
        };
        let out = run(&given);
        for (name, _) in &all {
            let mut changed = given.clone();
            let array = changed.get_mut(*name).unwrap();
            array.values = match *name {
                "key_padding_mask" => (0..12).map(|m| f32::from(m < 3)).collect(),
                "index" => array.values.iter().map(|m| m + 4.0).collect(),
                _ => array.values.iter().map(|x| x + 0.5).collect(),
            };
            assert_eq!(run(&changed) != out, declares(name), "{:?} and {name}", config.mechanism);
        }
    }
}

#[test]
fn what_must_be_given_is_asked_for() {
    let config = AttentionConfig {
        mechanism: MechanismKind::Rfa,
        features: 4,
        projection: Projection::Given,
        ..AttentionConfig::default()
    };
    let extra = config.extras(SHAPE, 12).into_iter().find(|extra| extra.need == Need::Required).unwrap();
    assert_eq!((extra.name, extra.shape.as_deref()), ("projection", Some(&[2, 4, 4][..])));
    let mut given = qkv(12, 12, 4);
    let compile = |given: &Arrays| {
        let setting = Setting::new(config.clone());
        block_on(Layer::compile(adapter(), &tune(&[]), &setting, Want::Output, &shapes(given)))
    };
    let error = compile(&given).err().unwrap();
    assert!(error.is_bad_input() && error.to_string().contains("projection"), "{error}");
    given.insert("projection".into(), array(4, &[2, 4, 4]));
    let layer = compile(&given).unwrap();
    given.remove("projection");
    let error = block_on(layer.run(&given, 0)).unwrap_err();
    assert!(error.is_bad_input() && error.to_string().contains("projection [2, 4, 4] is missing"), "{error}");
}

/// Room for the layers of this test, but not for 2 x 512 x 512 weights (2 MiB).
const LIMIT: u64 = 3 << 19;

#[test]
fn a_map_that_the_device_cannot_hold_is_worked_out_in_columns() {
    let small = Gpu::open_blocking(&GpuOptions { memory_limit: Some(LIMIT), ..GpuOptions::default() }).unwrap();
    let (queries, keys) = (500, 512);
    let given = qkv(queries, keys, 8);
    let lara = |mis_type| AttentionConfig {
        num_landmarks: 4,
        proposal_gen: ProposalGen::NoParamPoolMixed,
        mis_type,
        noise: NoiseScale::Exact,
        ..AttentionConfig::default()
    };
    let of = |mechanism| AttentionConfig { mechanism, features: 8, ..AttentionConfig::default() };
    let softmax = AttentionConfig { causal: true, ..of(MechanismKind::Softmax) };
    for config in [softmax, of(MechanismKind::Rfa), lara(MisType::MisOpt), lara(MisType::MisBiased)] {
        let name = config.mechanism.name();
        let setting = training(config);
        let whole = block_on(attend::map(adapter(), &tune(&[]), &setting, &given, 7)).unwrap();
        let refused = block_on(Layer::compile(&small, &tune(&[]), &setting, Want::Map, &shapes(&given)));
        assert!(refused.is_err(), "{name} has its whole map in {LIMIT} bytes");
        let columns = block_on(attend::map(&small, &tune(&[]), &setting, &given, 7)).unwrap();
        assert_eq!(columns.shape, [1, 2, queries, keys]);
        assert_close(name, &values(&whole), &values(&columns), 1e-5);
    }
}

#[test]
fn weights_that_depend_on_the_values_have_no_columns() {
    let config =
        AttentionConfig { proposal_gen: ProposalGen::PoolVmixed, num_landmarks: 4, ..AttentionConfig::default() };
    assert!(config.weighs_by_values());
    let mut given = qkv(16, 16, 4);
    for (seed, side) in ["q_landmarks", "k_landmarks"].into_iter().enumerate() {
        for (name, shape) in
            [("linear.weight", &[4, 4][..]), ("linear.bias", &[4]), ("norm.weight", &[4]), ("norm.bias", &[4])]
        {
            given.insert(format!("{side}.{name}"), array(seed as u32, shape));
        }
    }
    let setting = Setting { grid: Grid::Plane([4, 4]), ..Setting::new(config) };
    let layer = block_on(Layer::compile(adapter(), &tune(&[]), &setting, Want::Output, &shapes(&given))).unwrap();
    layer.set_weights(&given).unwrap();
    let error = block_on(layer.map_by_columns(&given, 0)).unwrap_err();
    assert!(error.is_bad_input() && error.to_string().contains("pool-mixed"), "{error}");
}
