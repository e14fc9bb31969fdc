//! Models of other libraries, opened as their hub lays them out, against what the libraries computed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use lara_models::estimate::estimate;
use lara_models::import::positions::Resampling;
use lara_models::import::{self, Library};
use lara_models::train::checkpoint::TrainedModel;
use lara_models::train::{Initialized, Session, TrainConfig, initialize};
use lara_models::weights::{self, Metadata, TensorFile, TensorView};
use lara_models::{Model, ModelConfig, Predictor};
use lara_runtime::{Mode, Parameters, Role, Tape, Tune, Variant};
use lara_tests::adapter;
use pollster::block_on;

/// The folder of a golden model.
pub(crate) fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/models").join(name)
}

fn tune() -> Tune {
    Tune::fixed(&[Variant::ROWS4, Variant::ROWS, Variant::FORWARD_ROWS, Variant::SLABS])
}

/// Logits of the golden images by the model of a folder, with settings laid over its own; and those of the library.
fn logits(name: &str, sets: &[&str]) -> (Vec<f32>, Vec<f32>) {
    let trained = TrainedModel::open(golden(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
    let mut config: TrainConfig = trained.config.clone().expect("a configuration");
    sets.iter().for_each(|set| config.set(set).unwrap_or_else(|e| panic!("{name}: {e}")));
    let model = Model::with_config(name, trained, config).unwrap_or_else(|e| panic!("{name}: {e}"));
    let io = TensorFile::open(golden(name).join("io.safetensors")).unwrap();
    let (shape, images) = io.numbers("input.images").unwrap();
    let (_, expected) = io.numbers("output.logits").unwrap();
    let predictor = block_on(model.predictor(adapter(), &tune(), shape[0])).unwrap_or_else(|e| panic!("{name}: {e}"));
    (block_on(predictor.logits(&images)).unwrap().concat(), expected)
}

/// The largest difference, relative to the largest of the expected numbers.
fn relative(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(0f32, |most, x| most.max(x.abs()));
    let difference = found.iter().zip(expected).fold(0f32, |most, (a, b)| {
        assert!(a.is_finite(), "{found:?}");
        most.max((a - b).abs())
    });
    difference / largest
}

#[track_caller]
fn agrees(name: &str, sets: &[&str]) {
    let (found, expected) = logits(name, sets);
    let error = relative(&found, &expected);
    assert!(error <= 2e-5, "{name}: logits differ by {error:.1e} of the largest:\n{found:?}\n{expected:?}");
}

/// The tests named `.._compute_what_..` are those that `cargo xtask test` repeats on other adapters.
#[test]
fn timm_vits_compute_what_timm_computed() {
    for name in [
        "vit_token",
        "vit_cls_avg",
        "vit_avg_fc_norm",
        "vit_layer_scale_registers",
        "vit_qk_norm_no_bias",
        "deit_distilled",
    ] {
        agrees(&format!("timm_{name}"), &[]);
    }
}

/// A table of 4 x 4 positions on images of 6 x 6 patches.
#[test]
fn resized_vits_compute_what_timm_computed() {
    agrees("timm_vit_resized", &["model.image_size=48"]);
}

#[test]
fn transformers_of_hugging_face_compute_what_they_computed_there() {
    for name in ["hf_vit", "hf_deit_teacher", "hf_dinov2"] {
        agrees(name, &[]);
    }
}

#[test]
fn pyramids_compute_what_timm_and_the_authors_computed() {
    for name in
        ["timm_pvt_v2", "timm_pvt_v2_linear", "hkunlp_pvt_softmax", "hkunlp_pvt_lara_dense", "hkunlp_pvt_lara_light"]
    {
        agrees(name, &[]);
    }
}

/// Under the names of the library that it came from a pyramid is what it was, bit by bit, and its settings say the same.
#[test]
fn pyramids_go_back_to_where_they_came_from() {
    for name in
        ["timm_pvt_v2", "timm_pvt_v2_linear", "hkunlp_pvt_softmax", "hkunlp_pvt_lara_dense", "hkunlp_pvt_lara_light"]
    {
        let trained = TrainedModel::open(golden(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        let config = trained.config.expect("a configuration");
        let original = TensorFile::open(golden(name).join("model.safetensors")).unwrap();
        let back = import::export(&trained.weights, trained.library, &config).unwrap_or_else(|e| panic!("{name}: {e}"));
        let all = |file: &TensorFile| {
            file.names().map(|name| (name.to_owned(), file.numbers(name).unwrap())).collect::<BTreeMap<_, _>>()
        };
        assert!(all(&back) == all(&original), "{name}: {:?}, not {:?}", back.names().next(), original.names().next());
        let json = import::config_json(trained.library, &config, &[]).unwrap_or_else(|e| panic!("{name}: {e}"));
        let text = json.expect("a configuration").to_string();
        let again = import::import(&original, (Path::new("config.json"), text.as_bytes()), None);
        assert_eq!(again.unwrap_or_else(|e| panic!("{name}: {e}")).config, config, "{name}");
    }
}

#[test]
fn the_authors_vits_compute_what_they_computed_there() {
    for name in ["softmax", "lara", "lara_mixed", "ra_mean", "ra_softmax_mean", "performer"] {
        agrees(&format!("hkunlp_evit_{name}"), &[]);
    }
}

/// Every golden Vision Transformer, and whose it is.
const ALL: [(&str, Library); 16] = [
    ("timm_vit_token", Library::Timm),
    ("timm_vit_cls_avg", Library::Timm),
    ("timm_vit_avg_fc_norm", Library::Timm),
    ("timm_vit_layer_scale_registers", Library::Timm),
    ("timm_vit_qk_norm_no_bias", Library::Timm),
    ("timm_vit_resized", Library::Timm),
    ("timm_deit_distilled", Library::Timm),
    ("hf_vit", Library::Hf),
    ("hf_deit_teacher", Library::Hf),
    ("hf_dinov2", Library::Hf),
    ("hkunlp_evit_softmax", Library::Hkunlp),
    ("hkunlp_evit_lara", Library::Hkunlp),
    ("hkunlp_evit_lara_mixed", Library::Hkunlp),
    ("hkunlp_evit_ra_mean", Library::Hkunlp),
    ("hkunlp_evit_ra_softmax_mean", Library::Hkunlp),
    ("hkunlp_evit_performer", Library::Hkunlp),
];

/// Names, shapes and bits.
fn contents(file: &TensorFile) -> Vec<(String, Vec<usize>, Vec<u32>)> {
    let tensor = |name: &str| {
        let (shape, values) = file.numbers(name).unwrap();
        (name.to_owned(), shape, values.iter().map(|x| x.to_bits()).collect())
    };
    file.names().map(tensor).collect()
}

/// Writes a model as a library has it, into a folder.
fn write(folder: &Path, trained: &TrainedModel, library: Library) {
    let config = trained.config.as_ref().unwrap();
    std::fs::create_dir_all(folder).unwrap();
    let weights = import::export(&trained.weights, library, config).unwrap_or_else(|e| panic!("{e}"));
    let json = import::config_json(library, config, &trained.classes).unwrap_or_else(|e| panic!("{e}"));
    let mut metadata = Metadata::new();
    match json {
        Some(json) => std::fs::write(folder.join("config.json"), json.to_string()).unwrap(),
        None => {
            metadata.insert("config".into(), config.to_toml().unwrap());
            metadata.insert("classes".into(), serde_json::to_string(&trained.classes).unwrap());
        }
    }
    let mut file = std::fs::File::create(folder.join("model.safetensors")).unwrap();
    weights.write_to(&mut file, &metadata).unwrap();
}

/// From a library to us and back: the same tensors, bit for bit, and settings that mean the same.
#[test]
fn what_is_converted_there_and_back_is_what_it_was() {
    let temp = tempfile::tempdir().unwrap();
    for (name, library) in ALL {
        let first = TrainedModel::open(golden(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(first.library, library, "{name}");
        let [ours, theirs] = ["ours", "theirs"].map(|side| temp.path().join(format!("{name}-{side}")));
        write(&ours, &first, Library::Lara);
        let here = TrainedModel::open(&ours).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(
            (here.library, &here.config, &here.classes),
            (Library::Lara, &first.config, &first.classes),
            "{name}"
        );
        write(&theirs, &here, library);
        let original = TensorFile::open(golden(name).join("model.safetensors")).unwrap();
        let back = TensorFile::open(theirs.join("model.safetensors")).unwrap();
        assert_eq!(contents(&original), contents(&back), "{name}");
        let again = TrainedModel::open(&theirs).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!((again.library, &again.config, &again.classes), (library, &first.config, &first.classes), "{name}");
    }
}

/// Halves stay halves: nothing is rounded on the way.
#[test]
fn a_conversion_keeps_the_type_of_numbers() {
    let temp = tempfile::tempdir().unwrap();
    let first = TrainedModel::open(golden("hf_vit")).unwrap();
    write(&temp.path().join("half"), &first, Library::Hf);
    let path = temp.path().join("half/model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    // The upper half of every word is a BF16; half the bytes, at half the offsets.
    let mut info: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&bytes[8..header]).unwrap();
    for tensor in info.values_mut() {
        tensor["dtype"] = "BF16".into();
        for at in 0..2 {
            tensor["data_offsets"][at] = (tensor["data_offsets"][at].as_u64().unwrap() / 2).into();
        }
    }
    let text = serde_json::to_vec(&info).unwrap();
    let data: Vec<u8> = bytes[header..].chunks(4).flat_map(|word| [word[2], word[3]]).collect();
    std::fs::write(&path, [&(text.len() as u64).to_le_bytes()[..], &text, &data].concat()).unwrap();
    let halves = TrainedModel::open(temp.path().join("half")).unwrap_or_else(|e| panic!("{e}"));
    write(&temp.path().join("back"), &halves, Library::Hf);
    let back = std::fs::read(temp.path().join("back/model.safetensors")).unwrap();
    assert!(back.ends_with(&data), "the numbers are not those that were read");
    assert!(String::from_utf8_lossy(&back[8..400]).contains("BF16"));
}

/// What a broken or unknown model is refused with.
#[test]
fn models_that_are_not_known_are_refused_in_a_sentence() {
    let temp = tempfile::tempdir().unwrap();
    let folder = temp.path();
    std::fs::copy(golden("timm_vit_token").join("model.safetensors"), folder.join("model.safetensors")).unwrap();
    let said = |config: &str| {
        std::fs::write(folder.join("config.json"), config).unwrap();
        TrainedModel::open(folder).expect_err(config).to_string()
    };
    for (config, expected) in [
        (r#"{"architecture": "deit_tinny_patch16_224"}"#, "did you mean \"deit_tiny_patch16_224\"?"),
        (r#"{"model_type": "dinov3"}"#, "did you mean \"dinov2\"?"),
        (
            r#"{"model_type": "vit", "hidden_act": "quick_gelu"}"#,
            "only \"gelu\" and \"gelu_pytorch_tanh\" can be computed here",
        ),
        (r#"{"model_type": "vit", "hidden_size": "wide"}"#, "hidden_size = \"wide\", where a whole number is expected"),
        (
            r#"{"architecture": "vit_tiny_patch16_224", "model_args": {"embed_dimm": 48}}"#,
            "did you mean `model.embed_dim`?",
        ),
        (r#"{"model_type": "vit", "patch_size": 0}"#, "model.patch_size"),
        (r#"{"model_type": "vit", "num_channels": 100000000000000}"#, "model.in_chans"),
        (r#"{"model_type": "vit", "hidden_size": 9223372036854775808}"#, "config.json"),
        (r#"{"model_type": "dinov2", "mlp_ratio": 1e300, "use_swiglu_ffn": true}"#, "model.mlp_ratio"),
        (r#"{"architecture": "vit_tiny_patch16_224", "model_args": {"patch_size": 0}}"#, "model.patch_size"),
        (r#"{"architectures": ["ViT"]}"#, "so it is not known whose model it is"),
        (r#"{"#, "is no valid JSON"),
        (r#"[]"#, "is no JSON object"),
    ] {
        let sentence = said(config);
        assert!(sentence.contains(expected), "{config}: {sentence}");
        assert!(sentence.contains("config.json"), "{config}: {sentence}");
        assert!(!sentence.contains('\n'), "{sentence}");
    }
}

/// A tensor too many or too few is named, with the nearest.
#[test]
fn tensors_that_do_not_fit_are_named() {
    let mut trained = TrainedModel::open(golden("timm_vit_token")).unwrap();
    let config = trained.config.as_mut().unwrap();
    config.set("model.qk_norm=true").unwrap();
    let model = Model::from_trained("model", trained).unwrap();
    let error = block_on(model.predictor(adapter(), &tune(), 1)).err().expect("no norms").to_string();
    assert!(error.contains("has no tensor blocks.0.attn.q_norm.weight") && error.contains("nearest"), "{error}");
    let mut trained = TrainedModel::open(golden("timm_vit_qk_norm_no_bias")).unwrap();
    trained.config.as_mut().unwrap().set("model.qk_norm=false").unwrap();
    let model = Model::from_trained("model", trained).unwrap();
    let error = block_on(model.predictor(adapter(), &tune(), 1)).err().expect("too much").to_string();
    assert!(error.contains("has tensor blocks.0.attn.k_norm.bias and 11 more"), "{error}");
}

/// Names, sizes and numbers of parameters as they were published.
#[test]
fn architectures_have_the_published_numbers_of_parameters() {
    for (name, count) in [
        ("deit_tiny_patch16_224.fb_in1k", 5_717_416),
        ("deit_small_patch16_224", 22_050_664),
        ("deit_base_patch16_224", 86_567_656),
        ("deit_base_patch16_384", 86_859_496),
        ("deit_tiny_distilled_patch16_224", 5_910_800),
        ("deit_small_distilled_patch16_224", 22_436_432),
        ("deit_base_distilled_patch16_224", 87_338_192),
        ("vit_small_patch8_224", 22_055_272),
        ("evit_tiny_p16", 5_717_032),
        ("evit_small_p8", 22_054_504),
        ("evit_base_p16", 86_566_120),
    ] {
        let mut config = TrainConfig::default();
        config.set("attention.mechanism=softmax").unwrap();
        config.set(&format!("model.name={name}")).unwrap_or_else(|e| panic!("{e}"));
        config.validate().unwrap_or_else(|e| panic!("{name}: {e}"));
        let mut parameters = Parameters::new(adapter());
        let mut tape = Tape::new(&mut parameters, &tune(), Mode::Eval);
        let inputs = config.model.declare(&mut tape, 1);
        config.build().unwrap().forward(&mut tape, &inputs);
        tape.finish().unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(parameters.count(), count, "{name}");
    }
}

/// A name stands for settings, and what a file says beside it counts.
#[test]
fn an_architecture_is_a_model_with_its_settings() {
    let text = "[model]\nname = \"deit3_small_patch16_384\"\nnum_classes = 10\n";
    let config = TrainConfig::from_toml(text, "run.toml").unwrap();
    let ModelConfig::Vit(vit) = &config.model else { panic!("a ViT") };
    assert_eq!((vit.embed_dim, vit.num_heads, vit.num_classes, vit.num_patches()), (384, 6, 10, 576));
    assert!(vit.no_embed_class && vit.init_values == 1e-6);
    // What is written has the model's own name, and reads back the same.
    assert_eq!(TrainConfig::from_toml(&config.to_toml().unwrap(), "again").unwrap(), config);
    for name in lara_models::zoo::names() {
        let mut config = TrainConfig::default();
        config.set(&format!("model.name={name}")).unwrap_or_else(|e| panic!("{e}"));
        config.set("attention.mechanism=softmax").unwrap();
        config.validate().unwrap_or_else(|e| panic!("{name}: {e}"));
    }
}

/// A run that begins with another model's weights: what the model does not have begins as in any run.
#[test]
fn a_run_begins_with_the_weights_of_a_model() {
    let mut trained = TrainedModel::open(golden("timm_vit_token")).unwrap();
    let mut config = trained.config.clone().unwrap();
    for set in [
        "model.num_classes=4",
        "model.image_size=48",
        "attention.mechanism=lara",
        "attention.num_landmarks=4",
        "train.model_ema=true",
    ] {
        config.set(set).unwrap_or_else(|e| panic!("{e}"));
    }
    trained.fit(&config).unwrap();
    let session =
        block_on(Session::new(adapter(), &tune(), &config, config.schedule(10))).unwrap_or_else(|e| panic!("{e}"));
    let Initialized { taken, fresh } = initialize(adapter(), &session, &trained).unwrap_or_else(|e| panic!("{e}"));
    assert!(fresh.contains(&"head.weight".to_owned()) && fresh.contains(&"head.bias".to_owned()), "{fresh:?}");
    assert!(fresh.iter().all(|name| name.starts_with("head.") || name.contains("_landmarks.")), "{fresh:?}");
    assert_eq!((fresh.len(), taken), (2 + 3 * 8, trained.weights.names().count() - 2));
    for role in [Role::Weight, Role::Ema] {
        let values = block_on(session.parameters.read(adapter(), role)).unwrap();
        for (entry, values) in session.parameters.entries().iter().zip(&values) {
            let expected = match fresh.contains(&entry.name) {
                true => entry.initial(config.train.seed),
                false => trained.weights.get(&entry.name, entry.shape.dims()).unwrap(),
            };
            assert_eq!(values, &expected, "{} {role:?}", entry.name);
        }
    }
    // A tensor of another shape is no weight of another mechanism.
    config.set("model.mlp_ratio=2").unwrap();
    let session = block_on(Session::new(adapter(), &tune(), &config, config.schedule(10))).unwrap();
    let error = initialize(adapter(), &session, &trained).expect_err("another MLP").to_string();
    assert!(error.contains("blocks.0.mlp.fc1.weight has shape [192, 48]"), "{error}");
}

/// The example in the documentation of `torch.nn.Upsample`, mode "bicubic".
#[test]
fn plain_resampling_is_that_of_pytorch() {
    let found = Resampling::Plain.apply(&[1.0, 2.0, 3.0, 4.0], 1, [2, 2], [4, 4]);
    let expected = [
        0.6836, 1.0156, 1.5625, 1.8945, 1.3477, 1.6797, 2.2266, 2.5586, 2.4414, 2.7734, 3.3203, 3.6523, 3.1055, 3.4375,
        3.9844, 4.3164,
    ];
    assert!(found.iter().zip(expected).all(|(a, b): (&f32, f32)| (a - b).abs() < 1e-4), "{found:?}");
    for how in [Resampling::Plain, Resampling::Antialiased] {
        let table: Vec<f32> = (0..2 * 3 * 5).map(|i| (i as f32).sin()).collect();
        assert_eq!(how.apply(&table, 5, [2, 3], [2, 3]), table, "{how:?}: the same grid");
        let flat = how.apply(&[0.25; 12], 1, [3, 4], [5, 2]);
        assert!(flat.iter().all(|x| (x - 0.25).abs() < 1e-6), "{how:?}: {flat:?}");
    }
}

/// What is predicted is what is compiled, in bytes; multiply-adds are those of the paper's table.
#[test]
fn estimates_are_what_plans_take() {
    for (name, mechanism) in
        [("timm_vit_layer_scale_registers", "softmax"), ("hkunlp_evit_lara", "lara"), ("timm_vit_token", "rfa")]
    {
        let mut config = TrainedModel::open(golden(name)).unwrap().config.unwrap();
        config.set(&format!("attention.mechanism={mechanism}")).unwrap();
        config.set("train.batch_size=3").unwrap();
        let estimate = estimate(adapter(), &tune(), &config, 3).unwrap_or_else(|e| panic!("{name}: {e}"));
        let mut parameters = Parameters::new(adapter());
        let predictor = block_on(Predictor::new(adapter(), &tune(), &config, &mut parameters, 3, false)).unwrap();
        assert_eq!(estimate.inference, predictor.plan().memory(), "{name}: inference");
        assert_eq!(estimate.parameters, parameters.count());
        let session = block_on(Session::new(adapter(), &tune(), &config, config.schedule(10))).unwrap();
        assert_eq!(estimate.training, Some(session.memory()), "{name}: training");
    }
    for (name, mechanism, macs) in [("evit_tiny_p16", "softmax", 1.247e9), ("evit_tiny_p8", "softmax", 7.023e9)] {
        let mut config = TrainConfig::default();
        config.set(&format!("model.name={name}")).unwrap();
        config.set(&format!("attention.mechanism={mechanism}")).unwrap();
        let found = estimate(adapter(), &tune(), &config, 1).unwrap_or_else(|e| panic!("{e}")).macs;
        assert!((found / macs - 1.0).abs() < 0.01, "{name}: {found:e}, not {macs:e}");
    }
}

/// Writes tensors and what stands beside them as a model's folder.
pub(crate) fn write_tensors(folder: &Path, tensors: &[(String, Vec<usize>, Vec<f32>)], metadata: &Metadata) {
    let views: Vec<TensorView<'_>> =
        tensors.iter().map(|(name, shape, data)| TensorView { name: name.into(), shape, data }).collect();
    std::fs::create_dir_all(folder).unwrap();
    let mut file = std::fs::File::create(folder.join("model.safetensors")).unwrap();
    weights::write(&mut file, &views, metadata).unwrap();
}

/// DINOv2 with registers: its table has a place for the class token and none for the registers that follow. The same model
/// has places for all of them, and zeros at those of the registers.
#[test]
fn registers_follow_a_class_token_that_has_a_place() {
    let temp = tempfile::tempdir().unwrap();
    let (with, by_hand) = (temp.path().join("with"), temp.path().join("by-hand"));
    let registers: Vec<f32> = (0..4 * 48).map(|i| (i as f32).sin()).collect();
    let tensors = |file: &TensorFile| -> Vec<(String, Vec<usize>, Vec<f32>)> {
        let tensor = |name: &str| {
            let (shape, values) = file.numbers(name).unwrap();
            (name.to_owned(), shape, values)
        };
        file.names().map(tensor).collect()
    };
    let mut theirs = tensors(&TensorFile::open(golden("hf_dinov2").join("model.safetensors")).unwrap());
    theirs.push(("dinov2.embeddings.register_tokens".into(), vec![1, 4, 48], registers.clone()));
    write_tensors(&with, &theirs, &Metadata::new());
    let config = std::fs::read_to_string(golden("hf_dinov2").join("config.json")).unwrap();
    let config = config.replace("\"model_type\": \"dinov2\"", "\"model_type\": \"dinov2_with_registers\"");
    std::fs::write(with.join("config.json"), config).unwrap();

    let plain = TrainedModel::open(golden("hf_dinov2")).unwrap();
    let mut config = plain.config.clone().unwrap();
    config.set("model.reg_tokens=4").unwrap();
    let mut ours = tensors(&plain.weights);
    for (name, shape, values) in &mut ours {
        if name == "pos_embed" {
            shape[1] += 4;
            values.splice(48..48, [0.0; 4 * 48]);
        }
    }
    ours.push(("reg_token".into(), vec![1, 4, 48], registers));
    write_tensors(&by_hand, &ours, &Metadata::from([("config".into(), config.to_toml().unwrap())]));

    let io = TensorFile::open(golden("hf_dinov2").join("io.safetensors")).unwrap();
    let (shape, images) = io.numbers("input.images").unwrap();
    let [found, expected] = [with, by_hand].map(|folder| {
        let model = Model::open(folder).unwrap_or_else(|e| panic!("{e}"));
        let predictor = block_on(model.predictor(adapter(), &tune(), shape[0])).unwrap_or_else(|e| panic!("{e}"));
        block_on(predictor.logits(&images)).unwrap().concat()
    });
    assert!(relative(&found, &expected) <= 2e-6, "{found:?}\n{expected:?}");
    let (_, without) = io.numbers("output.logits").unwrap();
    assert!(relative(&found, &without) > 1e-2, "registers changed nothing");
}
