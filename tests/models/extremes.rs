//! No number in a configuration panics or wraps, alone or in products: it is taken, or refused with a sentence.

use std::panic::catch_unwind;

use lara_models::{ModelConfig, TrainConfig};
use toml::{Table, Value};

const NONE: &[&str] = &[];

/// Values at which arithmetic ends: of f32, f64, 32 and 64 bits, and of what is allowed.
const EXTREMES: &[&str] = &[
    "0",
    "1",
    "-1",
    "2",
    "1024",
    "65535",
    "65536",
    "1048576",
    "4294967295",
    "4294967296",
    "9000000000000000000",
    "9223372036854775807",
    "-9223372036854775808",
    "nan",
    "inf",
    "-inf",
    "0.5",
    "0.99999999",
    "-0.0",
    "1e-46",
    "1e-38",
    "1e-9",
    "1e300",
    "1e308",
    "-1e308",
    "5e-324",
];

/// Paths of all keys that hold a number, and of the lists of numbers.
fn numeric_keys() -> Vec<(String, usize)> {
    let table: Table = toml::from_str(&TrainConfig::default().to_toml().unwrap()).unwrap();
    let mut keys = Vec::new();
    for (section, inner) in &table {
        for (key, value) in inner.as_table().expect("sections of keys") {
            let count = match value {
                Value::Integer(_) | Value::Float(_) => 0,
                Value::Array(items) if items.first().is_some_and(|item| item.is_float()) => items.len(),
                _ => continue,
            };
            keys.push((format!("{section}.{key}"), count));
        }
    }
    assert!(keys.len() >= 40, "{keys:?}");
    keys
}

fn assignment((key, count): &(String, usize), value: &str) -> String {
    if *count == 0 { format!("{key}={value}") } else { format!("{key}=[{}]", vec![value; *count].join(", ")) }
}

/// Whether the settings are taken. Everything that follows from them without a device is worked out.
fn is_taken(preset: &str, sets: &[String]) -> bool {
    let outcome = catch_unwind(|| {
        let config = match TrainConfig::load(preset, sets) {
            Ok(config) => config,
            Err(error) => {
                let said = error.to_string();
                assert!(error.is_bad_input() && said.len() > 20, "{said}");
                return false;
            }
        };
        let shape = config.model.image_shape();
        let layer = config.model.layer(config.model.depth() - 1);
        // What a 32-bit program could not count would have wrapped.
        assert!(shape.len() > 0 && layer.tokens() >= layer.places() && layer.places() > 0);
        config.build().expect("settings that were checked");
        for steps in [1, 45, 1 << 40] {
            let schedule = config.schedule(steps);
            assert!([0, steps, u64::MAX].iter().all(|&step| schedule.at(step).is_finite()), "{schedule:?}");
        }
        assert!(config.steps_per_epoch(u64::MAX) > 0);
        let again = TrainConfig::from_toml(&config.to_toml().unwrap(), "copy").unwrap();
        assert_eq!(again, config);
        true
    });
    outcome.unwrap_or_else(|_| panic!("{preset} with {sets:?} panicked"))
}

#[test]
fn every_number_at_its_extremes_is_taken_or_refused() {
    let (mut taken, mut refused) = (0, 0);
    for key in numeric_keys() {
        for value in EXTREMES {
            let is_taken = is_taken("digits", &[assignment(&key, value)]);
            *(if is_taken { &mut taken } else { &mut refused }) += 1;
        }
    }
    assert!(taken > 200 && refused > 500, "{taken} taken, {refused} refused");
}

#[test]
fn products_of_two_sizes_are_taken_or_refused() {
    let sizes = ["image_size", "patch_size", "embed_dim", "depth", "num_heads", "num_classes", "mlp_ratio"];
    for (at, first) in sizes.iter().enumerate() {
        for second in &sizes[at + 1..] {
            for (a, b) in [("65536", "1"), ("65536", "65536"), ("1", "65536"), ("32768", "2"), ("1024", "1024")] {
                for mechanism in ["softmax", "lara"] {
                    is_taken(
                        "digits",
                        &[
                            format!("model.{first}={a}"),
                            format!("model.{second}={b}"),
                            format!("attention.mechanism={mechanism}"),
                        ],
                    );
                }
            }
        }
    }
    let refuse = |sets: &[&str]| TrainConfig::load("digits", sets).expect_err("too large").to_string();
    assert_eq!(
        refuse(&["image_size=65536", "patch_size=1"]),
        "model.image_size = 65536 in patches of 1 has 4294967296 patches; at most 4194304 are possible: \
         choose a larger model.patch_size"
    );
    assert_eq!(
        refuse(&["embed_dim=65536", "num_heads=256", "mlp_ratio=16"]),
        "a weight of the MLP [1048576, 65536] would have 68719476736 numbers; a tensor holds at most 1073741824: \
         lower model.embed_dim or model.mlp_ratio"
    );
}

#[test]
fn sizes_that_32_bits_cannot_count_are_refused_there() {
    let config = |sets: &[&str]| TrainConfig::load("digits", sets).expect("a 64-bit program takes it");
    let check = |config: &TrainConfig, bits: u32| {
        let ModelConfig::Vit(vit) = &config.model else { panic!("it is a ViT") };
        vit.check_sizes(1 << bits).map_err(|error| error.to_string())
    };
    let small = config(NONE);
    assert_eq!(check(&small, 32), Ok(()));
    let large = config(&["embed_dim=8192", "num_heads=64", "depth=24"]);
    assert_eq!(check(&large, 48), Ok(()));
    let said = check(&large, 32).expect_err("77 GB of weights");
    assert!(
        said.starts_with("the model would have 19") && said.ends_with("lower model.embed_dim or model.depth"),
        "{said}"
    );
}

#[test]
fn numbers_of_the_optimizer_are_checked_as_the_f32_that_they_become() {
    let refuse = |set: &str| {
        let error = TrainConfig::load("digits", &[set]).err().unwrap_or_else(|| panic!("{set} must be refused"));
        error.to_string()
    };
    let range = "the kernels' f32 holds numbers from 1.1754944e-38 to 3.4028235e38 only";
    for (key, value) in [("train.clip_grad", "1e-46"), ("train.eps", "1e-46"), ("train.weight_decay", "1e300")] {
        assert_eq!(refuse(&format!("{key}={value}")), format!("{key} is {value}; {range}"));
    }
    assert_eq!(refuse("data.std=[1e-46]"), format!("data.std is 1e-46; {range}"));
    assert_eq!(refuse("data.mean=[1e300]"), format!("data.mean is 1e300; {range}"));
    for key in ["train.smoothing", "train.model_ema_decay", "model.drop_rate", "model.drop_path_rate"] {
        assert_eq!(
            refuse(&format!("{key}=0.99999999")),
            format!("{key} is 0.99999999; it must be at most 0.99999994, since the kernels' f32 takes it for 1")
        );
    }
    assert_eq!(
        refuse("train.betas=[0.9, 0.99999999]"),
        "train.betas[1] is 0.99999999; it must be at most 0.99999994, since the kernels' f32 takes it for 1"
    );
    for key in ["augment.mixup", "augment.cutmix"] {
        assert_eq!(
            refuse(&format!("{key}=1e-310")),
            format!("{key} is 1e-310; it must be 0 (off) or 0.000001 to 1000")
        );
    }
    for (set, said) in [
        (
            "train.batch_size=9000000000000000000",
            "train.batch_size is 9000000000000000000; it must be between 1 and 1048576",
        ),
        (
            "attention.num_landmarks=9000000000000000000",
            "attention.num_landmarks is 9000000000000000000; it must be between 1 and 1048576 (49 is usual)",
        ),
    ] {
        assert_eq!(refuse(set), said);
    }
    // Below the smallest learning rate none is too small to be meant.
    let error = TrainConfig::load("digits", &["min_lr=0", "warmup_lr=0", "train.lr=1e-46"]).expect_err("no f32");
    assert_eq!(error.to_string(), format!("train.lr is 1e-46; {range}"));
}
