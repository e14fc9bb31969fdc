//! PVTv2: sizes of the models it stands for, and that it learns. `library.rs` compares outputs with those of other libraries.

use lara_models::data::{Batch, Position};
use lara_models::train::{Session, TrainConfig};
use lara_models::{ImageSize, ModelConfig, PvtConfig};
use lara_runtime::attention::MechanismKind;
use lara_runtime::{Mode, Parameters, Tape, Tune, Variant};
use lara_tests::adapter;
use pollster::block_on;

/// The same variants everywhere: no measurement decides what these tests run.
fn tune() -> Tune {
    Tune::fixed(&[Variant::ROWS4, Variant::ROWS, Variant::FORWARD_ROWS, Variant::SLABS])
}

fn configure(model: lara_models::Result<ModelConfig>, sets: &[&str]) -> TrainConfig {
    let model = model.unwrap_or_else(|e| panic!("{e}"));
    let mut config = TrainConfig { model, ..TrainConfig::default() };
    sets.iter().for_each(|set| config.set(set).unwrap_or_else(|e| panic!("{e}")));
    config.validate().unwrap_or_else(|e| panic!("{e}"));
    config
}

/// The parameters of a model, declared but not on the device.
fn declared(config: &TrainConfig) -> Parameters {
    let mut parameters = Parameters::new(adapter());
    let mut tape = Tape::new(&mut parameters, &tune(), Mode::Eval);
    let inputs = config.model.declare(&mut tape, 1);
    config.build().unwrap_or_else(|e| panic!("{e}")).forward(&mut tape, &inputs);
    tape.finish().unwrap_or_else(|e| panic!("{e}"));
    parameters
}

#[test]
fn models_have_the_published_numbers_of_parameters() {
    for (name, count) in [
        ("pvt_v2_b0", 3_666_760),
        ("pvt_v2_b1", 14_009_000),
        ("pvt_v2_b2", 25_362_856),
        ("pvt_v2_b2_li", 22_553_512),
        ("pvt_v2_b3", 45_238_696),
        ("pvt_v2_b4", 62_556_072),
        ("pvt_v2_b5", 81_956_008),
    ] {
        let config = configure(ModelConfig::named(name), &["attention.mechanism=softmax"]);
        assert_eq!(declared(&config).count(), count, "{name}");
    }
    let said = ModelConfig::named("pvt_v2_b6").expect_err("there is none").to_string();
    assert!(said.ends_with("; did you mean \"pvt_v2_b5\"?"), "{said}");
}

/// The model of the LARA paper (spec of its release): no reduction, exact attention in the last stage.
#[test]
fn the_model_of_the_paper_has_its_numbers_of_parameters() {
    for (sets, count) in [
        (&["attention.mechanism=softmax"][..], 36_011_496),
        (&["attention.mechanism=performer"], 36_011_496),
        (&["attention.mechanism=lara", "attention.pool_module_type=dense"], 39_892_328),
        (&["attention.mechanism=lara", "attention.pool_module_type=light"], 36_067_496),
    ] {
        let config = configure(Ok(ModelConfig::Pvt(PvtConfig::default())), sets);
        assert_eq!(declared(&config).count(), count, "{sets:?}");
        let kinds: Vec<MechanismKind> = (0..28).map(|layer| config.attention_of(layer).unwrap().mechanism).collect();
        assert!(kinds[..25].iter().all(|kind| *kind == config.attention.mechanism), "{kinds:?}");
        assert!(kinds[25..].iter().all(|kind| *kind == MechanismKind::Softmax), "{kinds:?}");
    }
}

#[test]
fn every_stage_has_a_grid_of_its_own() {
    let config = PvtConfig { image_size: ImageSize { height: 230, width: 193 }, ..PvtConfig::default() };
    let config = configure(Ok(ModelConfig::Pvt(config)), &["attention.mechanism=softmax"]);
    let shapes = [0, 2, 3, 7, 24, 27].map(|layer| {
        let shape = config.model.layer(layer);
        (shape.grid, shape.heads, shape.head_dim)
    });
    let expected = [([58, 49], 2), ([58, 49], 2), ([29, 25], 4), ([15, 13], 10), ([15, 13], 10), ([8, 7], 16)];
    assert_eq!(shapes, expected.map(|(grid, heads)| (grid, heads, 32)));
}

/// One block a stage, 32x32 pixels: grids of 8, 4, 2 and 1.
fn tiny() -> PvtConfig {
    PvtConfig {
        image_size: ImageSize::square(32),
        in_chans: 1,
        embed_dims: [8, 16, 24, 32],
        depths: [1; 4],
        num_heads: [1, 2, 3, 4],
        mlp_ratios: [2.0; 4],
        num_classes: 10,
        ..PvtConfig::default()
    }
}

const TRAINING: &[&str] = &[
    "attention.num_landmarks=4",
    "attention.alpha_coeff=2",
    "data.mean=[0.3]",
    "data.std=[0.4]",
    "train.batch_size=8",
    "train.warmup_epochs=0",
    "train.smoothing=0",
    "train.lr=4e-3",
];

#[test]
fn eight_samples_are_learnt_by_heart() {
    let reduced = PvtConfig { sr_ratios: [4, 2, 1, 1], ..tiny() };
    let pooled = PvtConfig { linear: true, ..tiny() };
    let (softmax, lara) = ("attention.mechanism=softmax", "attention.mechanism=lara");
    for (name, model, mechanism) in
        [("plain", tiny(), softmax), ("lara", tiny(), lara), ("reduced", reduced, softmax), ("li", pooled, softmax)]
    {
        let config =
            configure(Ok(ModelConfig::Pvt(model)), &[TRAINING, &[mechanism, "model.drop_path_rate=0.1"]].concat());
        let session = block_on(Session::new(adapter(), &tune(), &config, config.schedule(1000)));
        let mut session = session.unwrap_or_else(|e| panic!("{e}"));
        let images: Vec<f32> =
            (0..8 * 1024).map(|i| (0.37 * i as f32).sin() + (0.00011 * (i * i) as f32).cos()).collect();
        let mut losses = Vec::new();
        for step in 0..40 {
            let batch = Batch {
                images: images.clone(),
                labels: (0..8).collect(),
                mixed: vec![],
                indices: (0..8).collect(),
                position: Position::default(),
            };
            session.step(step, &[batch]).unwrap_or_else(|e| panic!("{e}"));
            losses.extend(session.finish().unwrap_or_else(|e| panic!("{e}")).into_iter().map(|result| result.loss));
        }
        let last = losses[30..].iter().sum::<f64>() / 10.0;
        assert!((losses[0] - 10f64.ln()).abs() < 0.3, "{name}: first loss {}", losses[0]);
        assert!(last < 0.3 * losses[0], "{name}: the loss went from {} to {last}: {losses:.3?}", losses[0]);
    }
}

#[test]
fn what_does_not_fit_is_refused_with_its_numbers() {
    for (set, said) in [
        (
            "model.embed_dims=[8, 16, 25, 32]",
            "model.embed_dims[2] = 25 cannot be split into model.num_heads[2] = 3 heads",
        ),
        ("model.depths=[1, 0, 1, 1]", "model.depths[1] is 0"),
        (
            "model.sr_ratios=[16, 1, 1, 1]",
            "model.sr_ratios[0] = 16 leaves no keys of that stage's 8 x 8 tokens; choose at most 8",
        ),
        ("model.mlp_ratios=[2.0, 2.0, 0.0, 2.0]", "model.mlp_ratios[2] = 0 gives the MLP no usable hidden width"),
        (
            "model.attention_layers=[\"softmax\", \"lara\"]",
            "model.attention_layers has 2 entries for 4 stages and 4 blocks",
        ),
        ("attention.num_landmarks=17", "attention.num_landmarks is 17; with 16 patches it must be between 1 and 16"),
        ("model.image_size=60000", "an image [1, 60000, 60000] would have 3600000000 numbers"),
        (
            "model.attention_layers=[{}, {}, {}, { num_landmark = 3 }]",
            "unknown key `num_landmark` in model.attention_layers[3]; did you mean `num_landmarks`?",
        ),
    ] {
        let mut config = TrainConfig { model: ModelConfig::Pvt(tiny()), ..TrainConfig::default() };
        config.attention.num_landmarks = 4;
        config.model.clear_attention_layers();
        config.set(set).unwrap_or_else(|e| panic!("{e}"));
        if set.starts_with("attention.") {
            config
                .set("model.attention_layers=[\"softmax\", {}, \"softmax\", \"softmax\"]")
                .unwrap_or_else(|e| panic!("{e}"));
        }
        if !set.contains("num_landmark") {
            config.set("attention.mechanism=softmax").unwrap_or_else(|e| panic!("{e}"));
        }
        let error = config.validate().expect_err(set).to_string();
        assert!(error.contains(said), "{set}: {error}");
    }
}

#[test]
fn a_configuration_survives_its_file() {
    let text = "[model]\nname = \"pvt\"\ndepths = [2, 2, 2, 2]\nattention_layers = [{}, \"lara\", {}, \"softmax\"]\n";
    let config = TrainConfig::from_toml(text, "run.toml").unwrap_or_else(|e| panic!("{e}"));
    let ModelConfig::Pvt(model) = &config.model else { panic!("{:?}", config.model.name()) };
    assert_eq!((model.depths, model.embed_dims), ([2; 4], [64, 128, 320, 512]));
    let written = toml::to_string(&config).unwrap_or_else(|e| panic!("{e}"));
    let read: TrainConfig = toml::from_str(&written).unwrap_or_else(|e| panic!("{e}\n{written}"));
    assert_eq!(read, config);
}
