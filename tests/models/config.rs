//! Configuration: presets, files, `--set`, and one clear sentence for every mistake.

use std::fs;

use lara_models::ModelConfig;
use lara_models::config::source::PRESETS;
use lara_models::data::DatasetKind;
use lara_models::train::{Schedule, TrainConfig};
use lara_models::vit::GlobalPool;
use lara_runtime::attention::MechanismKind;

const NONE: &[&str] = &[];

fn sentence<T>(result: lara_models::Result<T>) -> String {
    let error = result.err().expect("this must be refused");
    assert!(error.is_bad_input(), "{error}");
    error.to_string()
}

fn refuse_file(text: &str) -> String {
    sentence(TrainConfig::from_toml(text, "run.toml"))
}

fn refuse_set(assignment: &str) -> String {
    sentence(TrainConfig::load("digits", &[assignment]))
}

#[test]
fn presets_are_valid_and_survive_being_written_out() {
    for (name, text) in PRESETS {
        let config = TrainConfig::load(name, NONE).unwrap();
        assert_eq!(TrainConfig::from_toml(&config.to_toml().unwrap(), "copy").unwrap(), config);
        assert!(text.starts_with("# "), "preset {name} opens with what it is");
    }
    let digits = TrainConfig::load("digits", NONE).unwrap();
    assert_eq!((digits.model.image_shape().to_string(), digits.model.num_classes()), ("1x8x8".into(), 10));
    assert_eq!((digits.attention.mechanism, digits.attention.num_landmarks), (MechanismKind::Lara, 4));
    assert_eq!(digits.attention.alpha_coeff, 2.0);
    let mnist = TrainConfig::load("mnist", NONE).unwrap();
    let ModelConfig::Vit(m) = &mnist.model else { panic!("it is a ViT") };
    assert_eq!((m.num_patches(), m.embed_dim, m.depth, m.num_heads, m.mlp_hidden()), (49, 64, 4, 2, 256));
    // The reference ViT's parameters, counted by hand: patch embedding, positions, blocks, norm, head.
    let (d, hidden, patch) = (m.embed_dim, m.mlp_hidden(), m.patch_size * m.patch_size * m.in_chans);
    let block = 2 * 2 * d + (3 * d * d + 3 * d) + (d * d + d) + (d * hidden + hidden) + (hidden * d + d);
    let total = (patch * d + d) + m.num_patches() * d + m.depth * block + 2 * d + (d * m.num_classes + m.num_classes);
    assert_eq!(total, 204_938);
    assert_eq!(mnist.attention_of(3).expect("no list"), mnist.attention);
}

#[test]
fn a_file_lays_its_values_over_the_defaults() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("run.toml");
    let text = "[model]\nimage_size = 32\npatch_size = 4\nclass_token = true\nglobal_pool = \"token\"\n\
                [train]\nlr = 1\nbetas = [0.8, 0.95]\nmin_lr = 0\n[data]\ndataset = \"folder\"\npath = \"pictures\"\n\
                [attention]\nmechanism = \"softmax\"\n";
    fs::write(&path, text).unwrap();
    let config = TrainConfig::load(path.to_str().unwrap(), &["train.epochs=7", "mechanism=lara"]).unwrap();
    let ModelConfig::Vit(model) = &config.model else { panic!("it is a ViT") };
    assert_eq!((model.global_pool, model.depth), (GlobalPool::Token, 12));
    assert_eq!((config.train.lr, config.train.betas, config.train.epochs), (1.0, [0.8, 0.95], 7));
    assert_eq!((config.data.dataset, config.data.path.to_str()), (DatasetKind::Folder, Some("pictures")));
    assert_eq!(config.attention.mechanism, MechanismKind::Lara);
}

#[test]
fn set_takes_paths_bare_keys_and_plain_texts() {
    let config = TrainConfig::load(
        "digits",
        &[
            "train.lr=1e-3",
            "seed = 42",
            "attention.mechanism=softmax",
            "data.path=2024",
            "output.dir=\"my runs/one\"",
            "mean=[0.1]",
            "model_ema=true",
            "attention.noise=exact",
            "lr=2e-3",
        ],
    )
    .unwrap();
    assert_eq!((config.train.lr, config.train.seed, config.train.model_ema), (2e-3, 42, true));
    assert_eq!(config.attention.mechanism, MechanismKind::Softmax);
    assert_eq!((config.data.path.to_str(), config.output.dir.to_str()), (Some("2024"), Some("my runs/one")));
    assert_eq!(config.data.mean, [0.1]);
}

#[test]
fn unknown_names_are_refused_with_the_nearest_known_one() {
    for (text, expected) in [
        (
            "[train]\nlr = 1e-3\n\nwarmup_epoch = 3\n",
            "unknown key `train.warmup_epoch` (run.toml, line 4); did you mean `train.warmup_epochs`?",
        ),
        (
            "[train]\nnum_heads = 3\n",
            "unknown key `train.num_heads` (run.toml, line 2); did you mean `model.num_heads`?",
        ),
        (
            "[output]\nqqq = 3\n",
            "unknown key `output.qqq` (run.toml, line 2); keys of [output] are checkpoint_hist, checkpoint_interval, dir, \
             eval_interval, log_interval, tensorboard",
        ),
        (
            "[attention]\nnum_landmark = 3\n",
            "unknown key `attention.num_landmark` (run.toml, line 2); did you mean `attention.num_landmarks`?",
        ),
        ("\n[trian]\nlr = 3\n", "unknown section [trian] (run.toml, line 2); did you mean [train]?"),
        (
            "[x]\nlr = 3\n",
            "unknown section [x] (run.toml, line 1); sections are attention, augment, data, distill, model, output, train",
        ),
        ("lr = 1e-3\n", "`lr` (run.toml, line 1) stands outside its section; it belongs below [train]"),
        ("train = 3\n", "`train` (run.toml, line 1) is a section; write [train] and its keys below"),
        ("epoch = 3\n", "unknown key `epoch` (run.toml, line 1); did you mean `train.epochs`?"),
    ] {
        assert_eq!(refuse_file(text), expected);
    }
    assert_eq!(
        refuse_set("train.epoch=3"),
        "unknown key `train.epoch` (--set train.epoch=3); did you mean `train.epochs`?"
    );
    assert_eq!(refuse_set("epoch=3"), "unknown key `epoch` (--set epoch=3); did you mean `train.epochs`?");
    assert_eq!(refuse_set("trian.lr=3"), "unknown section [trian] (--set trian.lr=3); did you mean [train]?");
    assert_eq!(refuse_set("lr"), "--set lr has no value; write --set KEY=VALUE, such as --set train.lr=1e-3");
    assert_eq!(
        sentence(TrainConfig::load("digit", NONE)),
        "there is no preset and no file `digit`; presets are digits, mnist, emoji, deit_tiny_p16, \
         deit_tiny_p8, deit_small_p16, deit_small_p8, pvt_v2_b3; did you mean `digits`?"
    );
    assert!(sentence(TrainConfig::load("no/such/run.toml", NONE)).starts_with("cannot read no/such/run.toml: "));
}

#[test]
fn values_of_the_wrong_kind_are_refused_with_their_line() {
    for (text, expected) in [
        ("[train]\n\nlr = \"fast\"\n", "`train.lr` (run.toml, line 3) is \"fast\", but must be a number"),
        (
            "[train]\nepochs = 2.5\n",
            "`train.epochs` (run.toml, line 2) is 2.5, but must be a whole number of 0 or more",
        ),
        ("[train]\nepochs = -2\n", "`train.epochs` (run.toml, line 2) is -2, but must be a whole number of 0 or more"),
        ("[train]\nbetas = [0.9]\n", "`train.betas` (run.toml, line 2) is [0.9], but must be a list of 2 numbers"),
        ("[data]\nmean = 0.5\n", "`data.mean` (run.toml, line 2) is 0.5, but must be a list of numbers"),
        ("[model]\nqkv_bias = 1\n", "`model.qkv_bias` (run.toml, line 2) is 1, but must be true or false"),
        ("[output]\ndir = 3\n", "`output.dir` (run.toml, line 2) is 3, but must be a text"),
        (
            "[attention]\nmechanism = \"sofmax\"\n",
            "`attention.mechanism` (run.toml, line 2) is \"sofmax\", but must be one of softmax, ra, rfa, performer, lara; did you mean \"softmax\"?",
        ),
        (
            "[data]\ndataset = \"cifar\"\n",
            "`data.dataset` (run.toml, line 2) is \"cifar\", but must be one of digits, mnist, folder, shards, cifar10, cifar100, emoji; did you mean \"cifar10\"?",
        ),
    ] {
        assert_eq!(refuse_file(text), expected);
    }
    assert_eq!(refuse_set("lr=fast"), "`train.lr` (--set lr=fast) is \"fast\", but must be a number");
    let syntax = refuse_file("[train]\nlr = 1e-3\nepochs = = 3\n");
    assert!(syntax.starts_with("run.toml, line 3, is not valid TOML: "), "{syntax}");
    let twice = refuse_file("[train]\nlr = 1e-3\nlr = 2e-3\n");
    assert!(twice.starts_with("run.toml, line 3, is not valid TOML: "), "{twice}");
    // The first mistake of the file is the one named, whatever the order of the alphabet.
    assert!(refuse_file("[train]\nseeed = 3\n[data]\nmeen = 3\n").contains("train.seeed"));
}

#[test]
fn values_that_make_no_sense_are_refused_with_the_numbers() {
    for (set, expected) in [
        (
            "patch_size=3",
            "model.image_size = 8 is not a multiple of model.patch_size = 3; choose a patch size that divides it",
        ),
        (
            "num_heads=3",
            "model.embed_dim = 64 cannot be split into model.num_heads = 3 heads; choose a number that divides it",
        ),
        ("embed_dim=1024", "a head of model.embed_dim / model.num_heads = 512 is wider than 256; use at least 4 heads"),
        ("depth=0", "model.depth is 0; it must be between 1 and 1024"),
        ("image_size=9223372036854775807", "model.image_size is 9223372036854775807; it must be between 1 and 65536"),
        ("in_chans=2", "model.in_chans is 2; images are grey (1) or RGB (3)"),
        ("mlp_ratio=-4", "model.mlp_ratio = -4 gives the MLP no usable hidden width; 4 is usual"),
        ("global_pool=token", "model.global_pool = \"token\" needs model.class_token = true; without one use \"avg\""),
        ("drop_rate=1", "model.drop_rate is 1; it must be at least 0 and below 1"),
        ("num_landmarks=17", "attention.num_landmarks is 17; with 16 patches it must be between 1 and 16"),
        ("alpha_coeff=nan", "attention.alpha_coeff is NaN; it must be a finite number (2.0 is usual)"),
        ("mean=[0.1, 0.2]", "data.mean has 2 numbers; give one, or one for each of 1 channels"),
        ("std=[0]", "data.std = [0.0] must hold finite numbers, and only such above 0"),
        ("crop_pct=0", "data.crop_pct is 0; it must be above 0 and at most 1"),
        ("crop_padding=9", "data.crop_padding = 9 is more than the image itself (8 pixels)"),
        ("hflip=1.5", "data.hflip is 1.5; it is a probability, 0 to 1 (0.5 is usual)"),
        ("workers=1000", "data.workers is 1000; at most 256 loader threads make sense"),
        ("batch_size=0", "train.batch_size is 0; it must be between 1 and 1048576"),
        ("lr=inf", "train.lr is inf; it must be above 0"),
        ("min_lr=1", "train.min_lr is 1; it must be between 0 and train.lr = 0.002"),
        ("warmup_epochs=1000", "train.warmup_epochs is 1000; it must be between 0 and train.epochs = EPOCHS"),
        ("clip_grad=-1", "train.clip_grad is -1; it must be 0 or more"),
        ("eps=0", "train.eps is 0; it must be above 0"),
        ("betas=[0.9, 1.0]", "train.betas[1] is 1; it must be at least 0 and below 1"),
        ("smoothing=1.0", "train.smoothing is 1; it must be at least 0 and below 1"),
        ("log_interval=0", "output.log_interval is 0; it must be at least 1"),
        ("output.dir=", "output.dir is empty; name a folder for the run"),
    ] {
        let epochs = TrainConfig::load("digits", NONE).unwrap().train.epochs.to_string();
        assert_eq!(
            sentence(TrainConfig::load("digits", &["lr=2e-3", set])),
            expected.replace("EPOCHS", &epochs),
            "{set}"
        );
    }
    // Softmax has no landmarks, so their number is free.
    assert!(TrainConfig::load("digits", &["mechanism=softmax", "num_landmarks=17"]).is_ok());
    // Extremes that pass do not overflow on the way.
    let largest = TrainConfig::load("digits", &["epochs=9223372036854775807", "warmup_epochs=0"]).unwrap();
    assert_eq!(largest.schedule(1000).total_steps, u64::MAX);
}

#[test]
fn the_learning_rate_warms_up_and_falls_by_a_cosine() {
    let schedule = Schedule { lr: 1.0, min_lr: 0.1, warmup_lr: 0.2, warmup_steps: 4, total_steps: 24, timm: None };
    let at = |step| (schedule.at(step) * 1e6).round() / 1e6;
    assert_eq!([0, 1, 2, 3, 4].map(at), [0.2, 0.4, 0.6, 0.8, 1.0]);
    assert_eq!(at(14), 0.55);
    assert_eq!(at(9), (1e6 * (0.1 + 0.45 * (1.0 + 0.5f64.sqrt()))).round() / 1e6);
    assert_eq!([24, 25, u64::MAX].map(at), [0.1, 0.1, 0.1]);
    assert!((4..24).all(|step| schedule.at(step) > schedule.at(step + 1)));
    let config = TrainConfig::load(
        "digits",
        &["epochs=10", "warmup_epochs=1.5", "grad_accum_steps=2", "lr=1e-3", "min_lr=0", "warmup_lr=0"],
    )
    .unwrap();
    let steps = config.steps_per_epoch(23);
    assert_eq!(steps, 11);
    let schedule = config.schedule(steps);
    assert_eq!((schedule.warmup_steps, schedule.total_steps), (17, 110));
    assert_eq!(Schedule { warmup_steps: 0, total_steps: 0, ..schedule }.at(0), 1e-3);
}

#[test]
fn blocks_may_differ_in_their_attention() {
    let text =
        "attention = [\"softmax\", { mechanism = \"lara\", num_landmarks = 4 }, \"ra\", \"rfa\"]\n[train]\nlr = 1e-3\n";
    let config = TrainConfig::from_toml(text, "run.toml").expect("valid TOML");
    let kinds: Vec<&str> = (0..4).map(|layer| config.attention_of(layer).expect("valid").mechanism.name()).collect();
    assert_eq!(kinds, ["softmax", "lara", "ra", "rfa"]);
    assert_eq!(config.attention_of(1).expect("valid").num_landmarks, 4);
    let written = config.to_toml().expect("can be written");
    assert_eq!(TrainConfig::from_toml(&written, "written").expect("valid"), config);

    let set = |sets: &[&str]| TrainConfig::load("digits", sets).map_err(|error| error.to_string());
    let short = set(&["attention=softmax"]).expect("a mechanism");
    assert_eq!(short.attention.mechanism.name(), "softmax");
    let listed = set(&["attention=[\"softmax\", \"lara\", \"lara\", \"softmax\"]", "attention.num_landmarks=9"]);
    let depth = TrainConfig::load("digits", &[] as &[&str]).expect("preset").model.depth();
    match listed {
        Ok(config) => assert_eq!((depth, config.attention_of(1).expect("valid").num_landmarks), (4, 9)),
        Err(error) => assert!(depth != 4 && error.contains("attention_layers has 4 entries"), "{error}"),
    }
    let list = vec!["{ num_landmarkz = 3 }"; depth].join(", ");
    let error = set(&[&format!("attention=[{list}]")]).expect_err("an unknown key");
    let said = "unknown key `num_landmarkz` in model.attention_layers[0]; did you mean `num_landmarks`?";
    assert_eq!(error, said);
    let error = set(&["attention=[\"softmax\"]", "model.depth=2"]).expect_err("one for two");
    assert_eq!(error, "model.attention_layers has 1 entries for model.depth = 2 blocks; give one for each");
    let error = set(&["attention.mechanism=rfa", "attention.causal=true"]).expect_err("not causal");
    assert!(error.starts_with("attention.causal is true, but rfa has no causal form"), "{error}");
}

#[test]
fn the_name_chooses_the_model_and_files_without_one_are_vits() {
    let unnamed = TrainConfig::from_toml("[model]\ndepth = 3\n", "run.toml").expect("as before there were names");
    assert_eq!((unnamed.model.name(), unnamed.model.depth()), ("vit", 3));
    // The name is read first, wherever it stands.
    let named = TrainConfig::from_toml("[model]\ndepth = 3\nname = \"vit\"\n", "run.toml").expect("a model");
    assert_eq!(named, unnamed);
    assert!(named.to_toml().expect("can be written").contains("name = \"vit\""));
    assert_eq!(
        refuse_file("[model]\ndepth = 3\nname = \"vitt\"\n"),
        "`model.name` (run.toml, line 3): there is no model \"vitt\", but vit, pvt, and architectures such as \
         deit_tiny_patch16_224; did you mean \"vit\"?"
    );
    assert_eq!(
        refuse_set("model.name=resnet"),
        "`model.name` (--set model.name=resnet): there is no model \"resnet\", but vit, pvt, and architectures such as \
         deit_tiny_patch16_224"
    );
    assert_eq!(
        refuse_set("model.dept=3"),
        "unknown key `model.dept` (--set model.dept=3); did you mean `model.depth`?"
    );
}
