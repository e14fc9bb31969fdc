//! `lara attend`: golden values, maps, gradients, number types, and what it says of bad input.

use std::fs;
use std::path::Path;

use lara_models::train::TrainConfig;
use lara_models::weights::{Metadata, TensorFile, TensorView, write};
use lara_runtime::attention::{AttentionConfig, FeatureMap, MechanismKind};
use lara_tests::{Golden, assert_close, golden_inputs, random};
use serde_json::Value;

use crate::cli::{assert_says, json, lara, output, refusal};

/// batch, heads and D of the golden cases.
const B: usize = 2;
const H: usize = 2;
const D: usize = 8;
const N: usize = 16;

pub(crate) type Named<'a> = (&'a str, Vec<usize>, Vec<f32>);

fn to_f32(values: &[f64]) -> Vec<f32> {
    values.iter().map(|&x| x as f32).collect()
}

pub(crate) fn save(path: &Path, tensors: &[Named<'_>]) {
    let views: Vec<TensorView<'_>> =
        tensors.iter().map(|(name, shape, data)| TensorView { name: (*name).into(), shape, data }).collect();
    write(&mut fs::File::create(path).unwrap(), &views, &Metadata::new()).unwrap();
}

/// q, k and v of the golden cases, 16 tokens.
fn golden() -> Vec<Named<'static>> {
    let tensors = ["q", "k", "v"].into_iter().zip(golden_inputs(N));
    tensors.map(|(name, values)| (name, vec![B, H, N, D], to_f32(&values))).collect()
}

/// The learned landmark weights of the golden cases.
fn landmark_weights() -> Vec<Named<'static>> {
    let mut all = Vec::new();
    let names = [
        ["q_landmarks.linear.weight", "q_landmarks.linear.bias", "q_landmarks.norm.weight", "q_landmarks.norm.bias"],
        ["k_landmarks.linear.weight", "k_landmarks.linear.bias", "k_landmarks.norm.weight", "k_landmarks.norm.bias"],
    ];
    for ([weight, bias, gain, shift], phase) in names.into_iter().zip([0.0, 0.6]) {
        let vector = |f: &dyn Fn(f64) -> f64| -> Vec<f32> { (0..D).map(|j| f(j as f64) as f32).collect() };
        let linear = |i: usize| {
            let (o, i) = (i / D, i % D);
            let delta = f64::from(u8::from(o == i));
            (delta + 0.1 * (0.9 * o as f64 + 0.4 * i as f64 + phase).sin()) as f32
        };
        all.push((weight, vec![D, D], (0..D * D).map(linear).collect()));
        all.push((bias, vec![D], vector(&|j| 0.05 * (j + phase).cos())));
        all.push((gain, vec![D], vector(&|j| 1.0 + 0.1 * (j + phase).sin())));
        all.push((shift, vec![D], vector(&|j| 0.02 * j - 0.05)));
    }
    all
}

fn read(path: &Path, name: &str) -> Vec<f64> {
    let file = TensorFile::open(path).unwrap();
    file.numbers(name).unwrap().1.into_iter().map(f64::from).collect()
}

/// [B, H, N, D] as the golden file has it: [B, N, H D].
fn joined(values: &[f64]) -> Vec<f64> {
    let at = |b: usize, n: usize, h: usize, d: usize| values[((b * H + h) * N + n) * D + d];
    let mut all = Vec::new();
    for (b, n) in (0..B).flat_map(|b| (0..N).map(move |n| (b, n))) {
        all.extend((0..H * D).map(|channel| at(b, n, channel / D, channel % D)));
    }
    all
}

const FILES: [&str; 5] = ["attend", "--input", "in.safetensors", "--output", "out.safetensors"];

fn with<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&FILES[..], more].concat()
}

/// Fails unless rows of `weights` sum to 1 and its product with `v` is `out`.
fn assert_map_explains_out(dir: &Path, v: &[f32]) {
    for row in read(&dir.join("out.safetensors"), "weights").chunks(N) {
        assert!((row.iter().sum::<f64>() - 1.0).abs() < 1e-5, "{row:?}");
    }
    assert_map_gives_out(dir, v);
}

/// Fails unless the product of `weights` with `v` is `out`.
fn assert_map_gives_out(dir: &Path, v: &[f32]) {
    let path = dir.join("out.safetensors");
    let (map, out) = (read(&path, "weights"), read(&path, "out"));
    for (head, (map, out)) in map.chunks(N * N).zip(out.chunks(N * D)).enumerate() {
        for (map, out) in map.chunks(N).zip(out.chunks(D)) {
            let seen = |d: usize| (0..N).map(|m| map[m] * f64::from(v[(head * N + m) * D + d])).sum::<f64>();
            assert_close("map x v", out, &(0..D).map(seen).collect::<Vec<_>>(), 1e-4);
        }
    }
}

#[test]
fn golden_values_come_out_with_maps_and_gradients() {
    let temp = tempfile::tempdir().unwrap();
    let mut tensors = golden();
    tensors.extend(landmark_weights());
    let dout = random(5, B * H * N * D);
    tensors.push(("dout", vec![B, H, N, D], to_f32(&dout)));
    save(&temp.path().join("in.safetensors"), &tensors);
    let settings =
        ["--grid=4x4", "--set=num_landmarks=4", "--set=attention.alpha_coeff=2.0", "--map", "--grad", "--json"];
    let report = json(temp.path(), &with(&settings));
    let path = temp.path().join("out.safetensors");
    let out = read(&path, "out");
    assert_close("lara", Golden::load().case("lara2d_mis-opt_pool_a2.0_eval"), &joined(&out), 2e-5);
    assert_map_explains_out(temp.path(), &tensors[2].2);
    // The output is linear in v: <dv, v> = <dout, out>.
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let v: Vec<f64> = tensors[2].2.iter().copied().map(f64::from).collect();
    assert!((dot(&read(&path, "dv"), &v) - dot(&dout, &out)).abs() < 1e-4);
    let file = TensorFile::open(&path).unwrap();
    for (name, shape, _) in tensors.iter().filter(|(name, ..)| *name != "dout") {
        let gradient = format!("d{name}");
        assert_eq!(file.shape(&gradient), Some(&shape[..]), "{gradient}");
        assert!(read(&path, &gradient).iter().any(|x| x.abs() > 1e-6), "{gradient} is nothing");
    }
    assert_eq!(report["attention"]["alpha_coeff"], 2.0);
    let error = report["relative_error"].as_f64().unwrap();
    assert!(error > 0.01 && error < 2.0 && report["mean_kl"].as_f64() > Some(1e-3), "{report}");
    assert_eq!(report["tensors"].as_array().map(Vec::len), Some(5 + 8));
}

#[test]
fn softmax_is_softmax_in_every_number_type() {
    let temp = tempfile::tempdir().unwrap();
    let (input, output_file) = (temp.path().join("in.safetensors"), temp.path().join("out.safetensors"));
    let [q, k, v] = golden_inputs(N);
    let doubles = |values: &[f64]| values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
    let shape = vec![B, H, N, D];
    let tensors = ["q", "k", "v"].into_iter().zip([&q, &k, &v]).map(|(n, x)| (n, "F64", shape.clone(), doubles(x)));
    save_raw(&input, &tensors.collect::<Vec<_>>());
    let said = output(temp.path(), &with(&["--mechanism=softmax", "--map"]));
    assert_says(
        &said,
        &["softmax (eval)", "relative error 0.000e0", "KL", "out [2, 2, 16, 8]", "weights [2, 2, 16, 16]"],
    );
    assert_close("softmax", Golden::load().case("softmax"), &joined(&read(&output_file, "out")), 2e-5);
    // bf16 keeps the upper half of an f32; the mask is of truth values and hides the last keys of the first sample.
    let halves = |values: &[f64]| -> Vec<u8> {
        values.iter().flat_map(|&x| ((x as f32).to_bits() >> 16).to_le_bytes()[..2].to_vec()).collect()
    };
    let mut tensors: Vec<_> =
        ["q", "k", "v"].into_iter().zip([&q, &k, &v]).map(|(n, x)| (n, "BF16", shape.clone(), halves(x))).collect();
    let mask: Vec<u8> = (0..B * N).map(|i| u8::from((11..N).contains(&i))).collect();
    tensors.push(("key_padding_mask", "BOOL", vec![B, N], mask));
    save_raw(&input, &tensors);
    output(temp.path(), &with(&["--mechanism=softmax", "--map", "--no-compare"]));
    let map = read(&output_file, "weights");
    for (row, weights) in map.chunks(N).enumerate() {
        let padded: f64 = weights[11..].iter().sum();
        assert!(if row < H * N { padded == 0.0 } else { padded > 0.01 }, "row {row}: {weights:?}");
    }
}

/// A safetensors file of any number types.
fn save_raw(path: &Path, tensors: &[(&str, &str, Vec<usize>, Vec<u8>)]) {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, dtype, shape, bytes) in tensors {
        let offsets = [data.len(), data.len() + bytes.len()];
        data.extend(bytes);
        let info = serde_json::json!({ "dtype": dtype, "shape": shape, "data_offsets": offsets });
        header.insert((*name).to_owned(), info);
    }
    let header = Value::Object(header).to_string();
    let file = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat();
    fs::write(path, file).unwrap();
}

#[test]
fn draws_of_training_follow_the_seed_and_the_map_sees_the_same() {
    let temp = tempfile::tempdir().unwrap();
    let tensors = golden();
    save(&temp.path().join("in.safetensors"), &tensors);
    let run = |more: &[&str]| {
        let settings = ["--set=proposal_gen=no-param-pool", "--set=num_landmarks=4", "--no-compare", "--json"];
        json(temp.path(), &with(&[&settings, more].concat()));
        read(&temp.path().join("out.safetensors"), "out")
    };
    let [eval, again] = [run(&["--seed=1"]), run(&["--seed=2"])];
    assert_eq!(eval, again, "evaluation drew something");
    let train = run(&["--mode=train", "--noise=exact", "--seed=1", "--map"]);
    assert_map_explains_out(temp.path(), &tensors[2].2);
    assert_eq!(train, run(&["--mode=train", "--noise=exact", "--seed=1"]));
    assert_ne!(train, run(&["--mode=train", "--noise=exact", "--seed=2"]));
    assert_eq!(eval, run(&["--mode=train", "--noise=none", "--seed=2"]));
}

#[test]
fn given_keys_and_noise_of_ra_and_drawn_ones() {
    let temp = tempfile::tempdir().unwrap();
    let input = temp.path().join("in.safetensors");
    let mut tensors = golden();
    let (count, len) = (B * H * N, B * H * N * D);
    let index = (0..count).map(|i| ((5 * i + 3) % 16) as f32).collect();
    let noise = (0..len).map(|i| (2f64.sqrt() * (2.399 * i as f64 + 0.3).sin()) as f32).collect();
    tensors.push(("index", vec![B, H, N], index));
    tensors.push(("noise", vec![B, H, N, D], noise));
    save(&input, &tensors);
    output(temp.path(), &with(&["--mechanism=ra", "--mode=train", "--map", "--no-compare"]));
    let out = read(&temp.path().join("out.safetensors"), "out");
    assert_close("ra", Golden::load().case("ra_ns1_train_idx"), &joined(&out), 2e-5);
    assert_map_explains_out(temp.path(), &tensors[2].2);
    tensors[3].2[5] = 16.0;
    save(&input, &tensors);
    let said = refusal(temp.path(), &with(&["--mechanism=ra"]));
    assert_says(&said, &["index is 16 at [0, 0, 5]", "from 0 to 15"]);
    tensors.truncate(3);
    save(&input, &tensors);
    let drawn = |seed: &str| {
        let more = ["--mechanism=ra", "--set=num_samples=3", "--noise=exact", "--mode=train", "--map", seed];
        output(temp.path(), &with(&more));
        assert_map_explains_out(temp.path(), &tensors[2].2);
        read(&temp.path().join("out.safetensors"), "out")
    };
    assert_eq!(drawn("--seed=1"), drawn("--seed=1"));
    assert_ne!(drawn("--seed=1"), drawn("--seed=2"));
}

#[test]
fn projections_are_drawn_given_or_learned() {
    let temp = tempfile::tempdir().unwrap();
    let input = temp.path().join("in.safetensors");
    let mut tensors = golden();
    save(&input, &tensors);
    let run = |more: &[&str]| {
        let settings = ["--mechanism=rfa", "--set=approx_attn_dim=4", "--map", "--no-compare", "--json"];
        let report = json(temp.path(), &with(&[&settings, more].concat()));
        assert_map_explains_out(temp.path(), &golden()[2].2);
        (report, read(&temp.path().join("out.safetensors"), "out"))
    };
    let (_, drawn) = run(&[]);
    assert_ne!(drawn, run(&["--set=projection=iid"]).1);
    assert_ne!(drawn, run(&["--mode=train", "--seed=3"]).1, "no projection of its own while training");
    tensors.push(("projection", vec![H, 4, D], to_f32(&random(9, H * 4 * D))));
    tensors.push(("dout", vec![B, H, N, D], to_f32(&random(5, B * H * N * D))));
    save(&input, &tensors);
    let (report, given) = run(&[]);
    assert_eq!(report["attention"]["projection"], "given");
    assert_ne!(drawn, given);
    // The same numbers as a weight: the same output, and a gradient.
    let (_, learned) = run(&["--set=sample_scheme=learnable", "--grad"]);
    assert_close("learned", &given, &learned, 1e-6);
    assert!(read(&temp.path().join("out.safetensors"), "dprojection").iter().any(|x| x.abs() > 1e-6));
    tensors[3].1 = vec![H, 8, D / 2];
    save(&input, &tensors);
    let said = refusal(temp.path(), &with(&["--mechanism=rfa", "--set=features=4"]));
    assert_says(&said, &["projection has shape [2, 8, 4]", "[2, 4, 8]"]);
}

#[test]
fn performer_takes_every_kernel() {
    let temp = tempfile::tempdir().unwrap();
    let input = temp.path().join("in.safetensors");
    let mut tensors = golden();
    save(&input, &tensors);
    let settings = ["--mechanism=performer", "--set=features=16", "--map", "--json"];
    let run = |more: &[&str]| {
        json(temp.path(), &with(&[&settings, more].concat()));
        read(&temp.path().join("out.safetensors"), "out")
    };
    let outputs = ["favorp", "relu", "relu-only", "sigmoid-only", "dpfp"].map(|kernel| {
        let out = run(&[&format!("--set=kernel={kernel}")]);
        // The released code keeps normalisers from being small, and then rows sum to less than 1.
        assert_map_gives_out(temp.path(), &golden()[2].2);
        out
    });
    for (at, out) in outputs.iter().enumerate() {
        assert!(!outputs[..at].contains(out), "two kernels gave the same");
    }
    let learned = ["--mechanism=performer", "--set=features=16", "--set=proj_method=mlp-fourier", "--grad"];
    tensors.push(("dout", vec![B, H, N, D], to_f32(&random(5, B * H * N * D))));
    save(&input, &tensors);
    let said = refusal(temp.path(), &with(&learned));
    assert_says(&said, &["lacks projection [2, 8, 8]", "features.weight [16, 16]", "features.bias [16]"]);
    tensors.push(("projection", vec![H, 8, D], to_f32(&random(6, H * 8 * D))));
    tensors.push(("features.weight", vec![16, 16], to_f32(&random(7, 256))));
    tensors.push(("features.bias", vec![16], to_f32(&random(8, 16))));
    save(&input, &tensors);
    output(temp.path(), &with(&learned));
    let path = temp.path().join("out.safetensors");
    for name in ["dprojection", "dfeatures.weight", "dfeatures.bias"] {
        assert!(read(&path, name).iter().any(|x| x.abs() > 1e-6), "{name} is nothing");
    }
}

#[test]
fn queries_and_keys_may_differ_in_number() {
    let temp = tempfile::tempdir().unwrap();
    let (queries, keys) = (6, 20);
    let tensor = |name, tokens: usize, seed| (name, vec![1, H, tokens, D], to_f32(&random(seed, H * tokens * D)));
    let mut tensors = vec![tensor("q", queries, 1), tensor("k", keys, 2), tensor("v", keys, 3)];
    tensors.push(("key_padding_mask", vec![1, keys], (0..keys).map(|m| f32::from(u8::from(m > 17))).collect()));
    save(&temp.path().join("in.safetensors"), &tensors);
    let plain = "--set=proposal_gen=no-param-pool";
    for settings in [
        &["--mechanism=softmax"][..],
        &["--mechanism=ra"],
        &["--mechanism=rfa"],
        &["--mechanism=lara", plain, "--set=num_landmarks=4"],
        &["--mechanism=lara", plain, "--set=num_landmarks=4", "--grid=2x3", "--key-grid=4x5"],
        &["--mechanism=lara", plain, "--set=num_landmarks=8", "--grid=1x2x3", "--key-grid=2x2x5"],
    ] {
        let report = json(temp.path(), &with(&[settings, &["--map", "--json"]].concat()));
        assert!(report["mean_kl"].as_f64() < Some(3.0), "{report}");
        let map = read(&temp.path().join("out.safetensors"), "weights");
        for row in map.chunks(keys) {
            let (seen, padded): (f64, f64) = (row[..18].iter().sum(), row[18..].iter().sum());
            assert!((seen - 1.0).abs() < 1e-5 && padded.abs() < 1e-7, "{settings:?}: {row:?}");
        }
    }
    let said = refusal(temp.path(), &with(&["--grid=2x3", "--key-grid=4x4"]));
    assert_says(&said, &["--key-grid has 16 cells", "20 keys"]);
}

#[test]
fn what_is_not_used_is_told() {
    let temp = tempfile::tempdir().unwrap();
    let mut tensors = golden();
    tensors.push(("noise", vec![1], vec![0.0]));
    tensors.push(("dout", vec![1], vec![0.0]));
    tensors.extend(landmark_weights().into_iter().take(1));
    save(&temp.path().join("in.safetensors"), &tensors);
    let assert = lara(temp.path(), &with(&["--mechanism=softmax", "--no-compare"])).assert().success();
    let said = String::from_utf8(assert.get_output().stderr.clone()).unwrap();
    assert_says(&said, &["noise in in.safetensors is not used", "--grad", "q_landmarks.linear.weight is not used"]);
}

#[test]
fn what_is_not_used_may_be_anything() {
    let temp = tempfile::tempdir().unwrap();
    let bytes = |values: &[f32]| values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
    let mut tensors: Vec<_> =
        golden().into_iter().map(|(name, shape, values)| (name, "F32", shape, bytes(&values))).collect();
    tensors.push(("noise", "F32", vec![2], bytes(&[f32::NAN, f32::INFINITY])));
    tensors.push(("dout", "F32", vec![1], bytes(&[f32::NAN])));
    tensors.push(("q_landmarks.linear.weight", "F32", vec![1], bytes(&[f32::NAN])));
    tensors.push(("ids", "I64", vec![1], vec![255; 8]));
    save_raw(&temp.path().join("in.safetensors"), &tensors);
    let said = output(temp.path(), &with(&["--mechanism=softmax"]));
    assert_says(&said, &["relative error 0.000e0"]);
    // A learned weight that is used has to be finite.
    let mut tensors = [golden(), landmark_weights()].concat();
    tensors[3].2[9] = f32::NAN;
    save(&temp.path().join("in.safetensors"), &tensors);
    let said = refusal(temp.path(), &with(&["--grid=4x4", "--set=num_landmarks=4"]));
    assert_says(&said, &["q_landmarks.linear.weight in in.safetensors is NaN at [1, 1]"]);
}

#[test]
fn too_few_features_are_bad_input_here_and_in_training() {
    let temp = tempfile::tempdir().unwrap();
    save(&temp.path().join("in.safetensors"), &golden());
    let words = ["dpfp", "features of at least 16", "not 4"];
    let settings = ["--mechanism=performer", "--set=kernel=dpfp", "--set=features=4"];
    assert_says(&refusal(temp.path(), &with(&settings)), &words);
    let train = ["train", "--preset=digits", "--attention=performer", "--set=attention.kernel=dpfp"];
    let sizes = ["--set=model.embed_dim=32", "--set=model.num_heads=4", "--set=attention.features=4"];
    assert_says(&refusal(temp.path(), &[&train[..], &sizes, &["--output-dir=run"]].concat()), &words);
}

#[test]
fn settings_take_the_released_names_too() {
    let sets = ["approx_attn_dim=8", "attention.proj_method=relu", " mechanism = performer", "features=9"];
    let config = TrainConfig::attention_from(&AttentionConfig::default(), &sets).unwrap();
    let expected = AttentionConfig {
        mechanism: MechanismKind::Performer,
        kernel: FeatureMap::Relu,
        features: 9,
        ..AttentionConfig::default()
    };
    assert_eq!(config, expected);
    let mut config = TrainConfig::default();
    config.set("attention.approx_attn_dim=8").unwrap();
    assert_eq!(config.attention.features, 8);
}

#[test]
fn bad_input_gets_one_sentence() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    let input = dir.join("in.safetensors");
    let says = |tensors: &[Named<'_>], more: &[&str], words: &[&str]| {
        save(&input, tensors);
        assert_says(&refusal(dir, &with(more)), words);
        assert!(!dir.join("out.safetensors").exists(), "{more:?} left an output");
    };
    let good = golden();
    let changed = |at: usize, shape: &[usize], value: f32| {
        let mut tensors = golden();
        tensors[at].1 = shape.to_vec();
        tensors[at].2 = vec![value; shape.iter().product()];
        tensors
    };
    let extra = |name: &'static str, shape: &[usize], value: f32| {
        [golden(), vec![(name, shape.to_vec(), vec![value; shape.iter().product()])]].concat()
    };
    let softmax = &["--mechanism=softmax"][..];
    says(&good[..2], softmax, &["in.safetensors", "no tensor v", "k, q"]);
    says(&changed(0, &[2, 2, 128], 1.0), softmax, &["q has shape [2, 2, 128]", "[batch, heads, tokens, D]"]);
    says(&changed(1, &[2, 2, 16, 9], 1.0), softmax, &["q [2, 2, 16, 8]", "k [2, 2, 16, 9]"]);
    says(&changed(2, &[2, 2, 15, 8], 1.0), softmax, &["k [2, 2, 16, 8]", "v [2, 2, 15, 8]"]);
    says(&changed(2, &[2, 2, 16, 8], f32::NAN), softmax, &["v in in.safetensors is NaN at [0, 0, 0, 0]", "finite"]);
    says(&extra("key_padding_mask", &[2, 15], 0.0), softmax, &["key_padding_mask", "[2, 15]", "[2, 16]"]);
    says(
        &extra("key_padding_mask", &[2, 16], -1e9),
        softmax,
        &["key_padding_mask is -1000000000 at [0, 0]", "padding"],
    );
    says(&good, &["--mechanism=softmax", "--grad"], &["--grad", "dout"]);
    says(
        &extra("dout", &[2, 2, 16, 7], 0.0),
        &["--mechanism=softmax", "--grad"],
        &["dout", "[2, 2, 16, 7]", "[2, 2, 16, 8]"],
    );
    says(&good, &["--mechanism=sofmax"], &["sofmax", "did you mean \"softmax\"?"]);
    says(&good, &["--set=num_landmark=4"], &["num_landmark", "did you mean `num_landmarks`?"]);
    says(&good, &["--set=train.lr=4"], &["attention has no setting `train.lr`"]);
    says(&good, &["--set=causal=true"], &["lara", "causal"]);
    says(&good, &["--set=num_landmarks=0"], &["num_landmarks is 0"]);
    says(&good, &["--grid=4x5"], &["--grid has 20 cells", "16 queries"]);
    says(&good, &["--prefix=16"], &["--prefix is 16", "16 queries"]);
    let learned = ["--grid=4x4", "--set=num_landmarks=4"];
    says(&good, &learned, &["lacks q_landmarks.linear.weight [8, 8]", "k_landmarks.norm.bias [8]"]);
    let mut weights = [golden(), landmark_weights()].concat();
    weights[3].1 = vec![4, 16];
    says(&weights, &learned, &["q_landmarks.linear.weight has shape [4, 16]", "[8, 8]"]);
    let noisy = ["--grid=4x4", "--set=num_landmarks=4", "--set=proposal_gen=no-param-pool"];
    says(&extra("noise", &[2, 2, 9, 8], 0.0), &noisy, &["noise", "[2, 2, 9, 8]", "[2, 2, 4, 8]"]);
    save(&input, &good);
    let to = |file: &'static str| ["attend", "--mechanism=softmax", "--input=in.safetensors", "--output", file];
    assert_says(&refusal(dir, &to("no/such/out.safetensors")), &["no/such/out.safetensors", "does not exist"]);
    assert_says(&refusal(dir, &to("in.safetensors")), &["in.safetensors", "input itself"]);
    lara(dir, &with(&["--grid=4by4"])).assert().code(2);
    fs::write(&input, "nothing").unwrap();
    assert_says(&refusal(dir, &with(softmax)), &["in.safetensors"]);
}
