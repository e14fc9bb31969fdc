//! Checkpoints: bit-exact, whole or not at all, and one clear sentence for every way in which one can be wrong.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use lara_models::data::Position;
use lara_models::train::checkpoint::TrainedModel;
use lara_models::train::{Checkpoint, Checkpoints, Snapshot, State, TrainConfig};
use lara_models::weights::{self, Metadata, TensorFile, TensorView};

pub(crate) const SHAPES: [(&str, &[usize]); 4] = [
    ("patch_embed.proj.weight", &[3, 1, 2, 2]),
    ("blocks.0.attn.qkv.weight", &[6, 3]),
    ("blocks.0.attn.qkv.bias", &[6]),
    ("norm.weight", &[]),
];

/// What a run holds in memory.
pub(crate) struct Run {
    pub(crate) state: State,
    pub(crate) weights: Vec<Vec<f32>>,
}

pub(crate) fn run(step: u64) -> Run {
    let state = State {
        step,
        position: Position { epoch: step / 10, batch: step % 10 },
        evaluation_due: false,
        data: None,
        seed: u64::MAX,
        best_metric: Some(0.1 + step as f64),
        best_step: Some(step),
        classes: vec!["zero".into(), "one".into()],
        config: TrainConfig::load("digits", &["lr=3e-4"]).unwrap().to_toml().unwrap(),
        kernels: [("matmul 64x64x64".to_string(), "forward_rows".to_string())].into(),
    };
    // Values that only a bit-exact copy keeps: negative zero, subnormals, NaN with a payload, infinity, and plain ones.
    let odd = [0x8000_0000, 1, 0x7fc0_1234, 0x7f80_0000, 0x3f80_0001].map(f32::from_bits);
    let value = |i: usize| if i < 5 { odd[i] } else { (i as f32).sin() * step as f32 };
    let weights = SHAPES.iter().map(|(_, shape)| (0..shape.iter().product()).map(value).collect()).collect();
    Run { state, weights }
}

pub(crate) fn views<'a>(values: &'a [Vec<f32>]) -> Vec<TensorView<'a>> {
    let view = |((name, shape), data): (&(&'static str, &'static [usize]), &'a Vec<f32>)| TensorView {
        name: Cow::Borrowed(*name),
        shape,
        data,
    };
    SHAPES.iter().zip(values).map(view).collect()
}

fn scaled(values: &[Vec<f32>], factor: f32) -> Vec<Vec<f32>> {
    values.iter().map(|tensor| tensor.iter().map(|value| value * factor).collect()).collect()
}

pub(crate) fn save(checkpoints: &mut Checkpoints, run: &Run, with_ema: bool) -> lara_models::Result<PathBuf> {
    let [exp_avg, exp_avg_sq, ema] = [2.0, 3.0, 4.0].map(|factor| scaled(&run.weights, factor));
    checkpoints.save(&Snapshot {
        state: &run.state,
        weights: views(&run.weights),
        exp_avg: views(&exp_avg),
        exp_avg_sq: views(&exp_avg_sq),
        ema: with_ema.then(|| views(&ema)),
    })
}

pub(crate) fn bits(values: &[Vec<f32>]) -> Vec<Vec<u32>> {
    values.iter().map(|tensor| tensor.iter().map(|value| value.to_bits()).collect()).collect()
}

/// Every file below a folder, with its content.
pub(crate) fn tree(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            found.extend(tree(&path).into_iter().map(|(inner, bytes)| (format!("{name}/{inner}"), bytes)));
        } else {
            found.insert(name, fs::read(&path).unwrap());
        }
    }
    found
}

pub(crate) fn folders(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

pub(crate) fn sentence<T>(result: lara_models::Result<T>, root: &Path) -> String {
    let error = result.err().expect("this must be refused");
    assert!(error.is_bad_input(), "{error}");
    error.to_string().replace(&format!("{}", root.display()), "ROOT").replace('\\', "/")
}

#[test]
fn a_checkpoint_comes_back_bit_for_bit() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("runs/one");
    let mut checkpoints = Checkpoints::open(&dir, 3).unwrap();
    let run = run(123);
    for with_ema in [false, true] {
        let path = save(&mut checkpoints, &run, with_ema).unwrap();
        assert_eq!(path, dir.join("checkpoint-000123"));
        assert_eq!(folders(&dir), ["checkpoint-000123"]);
        assert_eq!(folders(&path), ["model.safetensors", "optimizer.safetensors", "state.json"]);
        for place in [&dir, &path] {
            let loaded = Checkpoint::load(place).unwrap();
            assert_eq!((&loaded.path, &loaded.state), (&path, &run.state));
            assert_eq!(bits(&loaded.weights(&SHAPES).unwrap()), bits(&run.weights));
            let optimizer = loaded.optimizer(&SHAPES).unwrap();
            assert_eq!(bits(&optimizer.exp_avg), bits(&scaled(&run.weights, 2.0)));
            assert_eq!(bits(&optimizer.exp_avg_sq), bits(&scaled(&run.weights, 3.0)));
            assert_eq!(optimizer.ema.map(|ema| bits(&ema)), with_ema.then(|| bits(&scaled(&run.weights, 4.0))));
            assert_eq!(loaded.config().unwrap(), TrainConfig::load("digits", &["lr=3e-4"]).unwrap());
        }
    }
    // The same content gives the same bytes.
    let first = tree(&dir);
    save(&mut checkpoints, &run, true).unwrap();
    assert_eq!(tree(&dir), first);
}

#[test]
fn prediction_finds_the_weights_of_a_file_a_checkpoint_or_a_run() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path();
    let mut checkpoints = Checkpoints::open(dir, 2).unwrap();
    let best = save(&mut checkpoints, &run(1), false).unwrap();
    let last = save(&mut checkpoints, &run(2), false).unwrap();
    let step_of = |path: &Path| {
        let model = TrainedModel::open(path).unwrap();
        assert_eq!(model.config, Some(TrainConfig::load("digits", &["lr=3e-4"]).unwrap()));
        assert_eq!(model.classes, ["zero", "one"]);
        let weights = bits(&model.weights.get_all(&SHAPES).unwrap());
        [1, 2].into_iter().find(|&step| weights == bits(&run(step).weights))
    };
    assert_eq!(step_of(dir), Some(2));
    checkpoints.promote_to_best(&best).unwrap();
    assert_eq!(step_of(dir), Some(1));
    assert_eq!(step_of(&last), Some(2));
    assert_eq!(step_of(&last.join("model.safetensors")), Some(2));
    // A file from elsewhere carries no configuration.
    let plain = dir.join("plain.safetensors");
    weights::write(&mut fs::File::create(&plain).unwrap(), &views(&run(3).weights), &Metadata::new()).unwrap();
    let model = TrainedModel::open(&plain).unwrap();
    assert_eq!((model.config, model.classes.len()), (None, 0));
    assert_eq!(bits(&model.weights.get_all(&SHAPES).unwrap()), bits(&run(3).weights));
    let empty = dir.join("empty");
    fs::create_dir(&empty).unwrap();
    assert_eq!(
        sentence(TrainedModel::open(&empty), dir),
        "ROOT/empty: holds no model: there is no model.safetensors, no best and no checkpoint-NNNNNN"
    );
    assert_eq!(
        sentence(Checkpoint::load(&empty), dir),
        "ROOT/empty: holds no checkpoint: there is neither a state.json nor a folder checkpoint-NNNNNN"
    );
    assert!(sentence(TrainedModel::open(dir.join("none.safetensors")), dir).starts_with("cannot read ROOT/none"));
    assert_eq!(
        sentence(Checkpoint::load(&plain), dir),
        "ROOT/plain.safetensors: is not a folder; name a run's folder or one of its checkpoints"
    );
}

#[test]
fn weights_of_another_model_are_refused_by_name() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("m.safetensors");
    weights::write(&mut fs::File::create(&path).unwrap(), &views(&run(1).weights), &Metadata::new()).unwrap();
    let file = TensorFile::open(&path).unwrap();
    let refuse = |wanted: &[(&str, &[usize])]| sentence(file.get_all(wanted), root.path());
    assert_eq!(
        refuse(&[SHAPES[0], ("blocks.0.attn.qkv.weight", &[9, 3])]),
        "blocks.0.attn.qkv.weight has shape [6, 3] in ROOT/m.safetensors but the model needs [9, 3]; \
         is it a checkpoint of another model?"
    );
    assert_eq!(
        refuse(&[("blocks.1.attn.qkv.bias", &[6])]),
        "ROOT/m.safetensors: has no tensor blocks.1.attn.qkv.bias, which the model needs \
         (its shape is [6]; the nearest name there is blocks.0.attn.qkv.bias)"
    );
    assert_eq!(
        refuse(&SHAPES[..3]),
        "ROOT/m.safetensors: has tensor norm.weight, which the model does not have (its shape is [])"
    );
    assert!(
        refuse(&SHAPES[2..]).contains("has tensor blocks.0.attn.qkv.weight and 1 more, which the model does not have")
    );
    assert_eq!(file.shape("blocks.0.attn.qkv.weight"), Some(&[6, 3][..]));
}

/// A safetensors file with one tensor of any dtype, written by hand.
fn one_tensor(dtype: &str, shape: &[usize], data: &[u8]) -> Vec<u8> {
    let header = format!(r#"{{"w":{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[0,{}]}}}}"#, data.len());
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

#[test]
fn half_precision_is_converted_exactly_and_other_types_are_refused() {
    let read = |dtype: &str, words: &[u16]| {
        let data: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let file = TensorFile::from_bytes("half.safetensors", one_tensor(dtype, &[words.len()], &data)).unwrap();
        file.get("w", &[words.len()]).unwrap()
    };
    let halves = read("F16", &[0x3c00, 0xc000, 0x7bff, 0x0001, 0x03ff, 0x0400, 0x8000, 0x7c00, 0xfc00, 0x3555]);
    let tiny = 2.0f32.powi(-24);
    let expected =
        [1.0, -2.0, 65504.0, tiny, 1023.0 * tiny, 1024.0 * tiny, -0.0, f32::INFINITY, f32::NEG_INFINITY, 0.333_251_95];
    assert_eq!(bits(&[halves]), bits(&[expected.to_vec()]));
    assert!(read("F16", &[0x7e01])[0].is_nan());
    assert_eq!(read("BF16", &[0x3f80, 0xc040, 0x0001]), [1.0, -3.0, f32::from_bits(0x1_0000)]);
    let file = TensorFile::from_bytes("long.safetensors", one_tensor("I64", &[1], &[0; 8])).unwrap();
    assert_eq!(
        sentence(file.get("w", &[1]), Path::new("/")),
        "w has dtype I64 in long.safetensors but the model needs F32 (F16 and BF16 are converted)"
    );
}

#[test]
fn truncated_and_damaged_files_get_a_sentence_wherever_the_damage_is() {
    let mut bytes = Vec::new();
    weights::write(&mut bytes, &views(&run(1).weights), &Metadata::from([("format".into(), "pt".into())])).unwrap();
    let open = |bytes: &[u8]| TensorFile::from_bytes("m.safetensors", bytes.to_vec());
    assert!(open(&bytes).is_ok());
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    assert_eq!(header % 8, 0);
    for length in 0..bytes.len() {
        let message = sentence(open(&bytes[..length]), Path::new("/"));
        assert!(message.starts_with("m.safetensors: is truncated: "), "{length}: {message}");
        assert!(message.contains(&format!("{length} bytes")), "{length}: {message}");
    }
    let longer = [&bytes[..], &[0]].concat();
    assert!(sentence(open(&longer), Path::new("/")).starts_with("m.safetensors: is damaged: its tensors end at byte"));
    assert_eq!(
        sentence(open(b"plain text, and a long one"), Path::new("/")),
        "m.safetensors: is not a safetensors file"
    );
    // Any byte of the header may be hit: what is refused gets a sentence, and nothing panics.
    let mut refused = 0;
    for place in 0..header {
        for flip in [0x01, 0x10, 0x80] {
            let mut damaged = bytes.clone();
            damaged[place] ^= flip;
            let result = open(&damaged).and_then(|file| file.get_all(&SHAPES));
            if let Err(error) = result {
                assert!(error.is_bad_input());
                refused += 1;
            }
        }
    }
    assert!(refused > header, "{refused} of {}", 3 * header);
}

#[test]
fn damaged_state_files_get_a_sentence() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path();
    let path = save(&mut Checkpoints::open(dir, 2).unwrap(), &run(7), true).unwrap();
    let state = path.join("state.json");
    let text = fs::read_to_string(&state).unwrap();
    let refuse = |text: &str| {
        fs::write(&state, text).unwrap();
        sentence(Checkpoint::load(dir), dir)
    };
    for length in [0, 1, text.len() / 2, text.len() - 3] {
        let message = refuse(&text[..length]);
        assert!(message.starts_with("ROOT/checkpoint-000007/state.json: is damaged ("), "{message}");
        assert!(message.ends_with("; use another checkpoint"), "{message}");
    }
    assert!(refuse(&text.replace("\"step\"", "\"stop\"")).contains("is damaged (missing field `step`)"));
    assert_eq!(
        refuse(&text.replace("\"format\": 2", "\"format\": 3")),
        "ROOT/checkpoint-000007/state.json: has format 3, newer than the 2 that this program reads; use a newer lara"
    );
    fs::write(&state, &text).unwrap();
    let model = path.join("model.safetensors");
    let bytes = fs::read(&model).unwrap();
    fs::write(&model, &bytes[..bytes.len() - 1]).unwrap();
    assert!(sentence(Checkpoint::load(dir), dir).contains("model.safetensors: is truncated: "));
    fs::write(&model, bytes).unwrap();
    fs::remove_file(path.join("optimizer.safetensors")).unwrap();
    assert_eq!(
        sentence(Checkpoint::load(dir), dir),
        "ROOT/checkpoint-000007: is no whole checkpoint: it has no optimizer.safetensors"
    );
}

/// Accepts so many bytes, then behaves like a full disk.
struct Full(usize);

impl Write for Full {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(self.0);
        self.0 -= taken;
        if taken == 0 { Err(io::Error::from(io::ErrorKind::StorageFull)) } else { Ok(taken) }
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_writer_that_fails_anywhere_is_reported() {
    let run = run(1);
    let mut whole = Vec::new();
    weights::write(&mut whole, &views(&run.weights), &Metadata::new()).unwrap();
    for room in 0..whole.len() {
        let error = weights::write(&mut Full(room), &views(&run.weights), &Metadata::new()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
    weights::write(&mut Full(whole.len()), &views(&run.weights), &Metadata::new()).unwrap();
    let twice = [views(&run.weights), views(&run.weights)].concat();
    let error = weights::write(&mut Vec::new(), &twice, &Metadata::new()).unwrap_err();
    assert_eq!(error.to_string(), "two tensors are named patch_embed.proj.weight");
    let short = TensorView { name: "w".into(), shape: &[2, 2], data: &[1.0] };
    let error = weights::write(&mut Vec::new(), &[short], &Metadata::new()).unwrap_err();
    assert_eq!(error.to_string(), "w has shape [2, 2] but 1 values");
}
