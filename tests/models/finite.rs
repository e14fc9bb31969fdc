//! What is not finite is never an answer: it is an error that says where it began.

use std::fs::{self, File};
use std::path::Path;

use lara_models::data::{Augment, Split};
use lara_models::train::checkpoint::{MODEL_FILE, TrainedModel};
use lara_models::train::checkpoints::latest;
use lara_models::train::{Control, TrainConfig, evaluate, names_and_shapes};
use lara_models::weights::{self, TensorView};
use lara_models::{Error, Predictor};
use lara_runtime::{Parameters, Role};
use lara_tests::adapter;
use pollster::block_on;

use crate::cli::{assert_says, output, refusal as refused, trained};
use crate::trainer::{configure, done, error, start, tune};

/// A predictor over the initial weights, changed by `change`, which gets each by its name.
fn predictor(config: &TrainConfig, change: impl Fn(&str, &mut Vec<f32>)) -> Predictor {
    let mut parameters = Parameters::new(adapter());
    let predictor = block_on(Predictor::new(adapter(), &tune(), config, &mut parameters, 4, false)).unwrap();
    for (index, entry) in parameters.entries().iter().enumerate() {
        let mut values = entry.initial(1);
        change(&entry.name, &mut values);
        parameters.write(adapter(), Role::Weight, index, &values).unwrap();
    }
    predictor
}

fn refusal(predictor: &Predictor, images: &[f32]) -> String {
    let error = error(block_on(predictor.finite_logits(images)));
    assert!(matches!(error, Error::NotFinite(_)) && error.is_bad_input());
    error.to_string()
}

#[test]
fn an_output_that_is_not_finite_says_where_it_began() {
    let config = configure(Path::new("unused"), &["attention.mechanism=softmax"]);
    let images: Vec<f32> = (0..3 * 64).map(|i| (i % 7) as f32 / 7.0).collect();
    let logits = block_on(predictor(&config, |_, _| {}).finite_logits(&images)).unwrap();
    assert_eq!((logits.len(), logits[0].len()), (3, 10));
    let nan = predictor(&config, |name, values| {
        if name == "blocks.1.mlp.fc1.weight" {
            (values[17], values[20]) = (f32::NAN, f32::INFINITY);
        }
    });
    let said = refusal(&nan, &images);
    let expected =
        "the weight blocks.1.mlp.fc1.weight: 2 of its 2048 values are not finite, first number 17, which is NaN";
    assert!(said.contains(expected), "{said}");
    let mut broken = images.clone();
    broken[64] = f32::NAN;
    let said = refusal(&predictor(&config, |_, _| {}), &broken);
    assert!(said.contains("image 1 of the batch: 1 of its 64 values are not finite, first number 0"), "{said}");
    // Every weight is finite, and their products are not.
    let huge = |part: &'static str| {
        predictor(&config, move |name, values| {
            if name.contains(part) {
                values.iter_mut().for_each(|value| *value = 3e38);
            }
        })
    };
    let said = refusal(&huge("blocks.1.attn.qkv.weight"), &images);
    assert!(said.contains("the first that are not are the queries of attention in block 1"), "{said}");
    let said = refusal(&huge("blocks.0.mlp.fc2.weight"), &images);
    assert!(said.contains("of attention in block 1"), "{said}");
    let said = refusal(&huge("head.weight"), &images);
    assert!(said.contains("what comes after the last attention is not"), "{said}");
}

/// Rewrites a model's file with every weight NaN.
fn spoil(file: &Path) {
    let model = TrainedModel::open(file).unwrap().weights;
    let tensors: Vec<_> = model.names().map(|name| (name, model.shape(name).unwrap().to_vec())).collect();
    let values: Vec<Vec<f32>> = tensors.iter().map(|(_, shape)| vec![f32::NAN; shape.iter().product()]).collect();
    let view = |((name, shape), data): (&(&str, Vec<usize>), &Vec<f32>)| {
        let (shape, data) = (shape.clone().leak(), data.clone().leak());
        TensorView { name: (*name).to_owned().into(), shape, data }
    };
    let views: Vec<TensorView<'_>> = tensors.iter().zip(&values).map(view).collect();
    let metadata = model.metadata().clone();
    weights::write(&mut File::create(file).unwrap(), &views, &metadata).unwrap();
}

#[test]
fn an_evaluation_of_nan_weights_names_the_first() {
    let temp = tempfile::tempdir().unwrap();
    let config = configure(temp.path(), &["train.epochs=1"]);
    let checkpoint = done(start(&config)).checkpoint.unwrap();
    spoil(&checkpoint.join(MODEL_FILE));
    let model = TrainedModel::open(&checkpoint).unwrap();
    let mut parameters = Parameters::new(adapter());
    let predictor = block_on(Predictor::new(adapter(), &tune(), &config, &mut parameters, 64, false)).unwrap();
    for (index, values) in model.weights.get_all(&names_and_shapes(&parameters)).unwrap().iter().enumerate() {
        parameters.write(adapter(), Role::Weight, index, values).unwrap();
    }
    let images = config.open_data(Split::Test).unwrap();
    let failure = error(block_on(evaluate(&predictor, &images, &Augment::eval(&config.data), 1, |_| {})));
    let first = &parameters.entries()[0].name;
    assert!(failure.to_string().contains(&format!("the weight {first}: ")), "{failure}");
}

#[test]
fn commands_of_nan_weights_name_the_first_and_write_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    let best = latest(trained().join("run")).unwrap();
    fs::copy(best.join(MODEL_FILE), dir.join("nan.safetensors")).unwrap();
    spoil(&dir.join("nan.safetensors"));
    let exported = output(trained(), &["data", "digits", "--count=1", "--export", dir.to_str().unwrap()]);
    let picture = exported.trim();
    let export = ["export-maps", "nan.safetensors", picture, "--out=out"];
    let commands = [
        vec!["eval", "nan.safetensors"],
        vec!["predict", "nan.safetensors", picture],
        [&export[..], &["--kind=attention"]].concat(),
        [&export[..], &["--kind=rollout", "--fusion=max"]].concat(),
        [&export[..], &["--kind=gradient", "--class=3"]].concat(),
        [&export[..], &["--mechanism=softmax,rfa", "--overview"]].concat(),
    ];
    for command in commands {
        assert_says(&refused(dir, &command), &["is not finite", "the weight patch_embed.proj.weight: 512 of its 512"]);
        assert!(!dir.join("out").exists(), "{command:?} left something");
    }
}

#[test]
fn weights_that_the_last_step_spoilt_are_not_saved_at_a_stop() {
    let temp = tempfile::tempdir().unwrap();
    // The first step's loss is finite and its update is not; it is stopped before anything else looks at it.
    let sets = ["train.lr=3e38", "train.clip_grad=0", "train.warmup_epochs=0", "train.weight_decay=1000"];
    let trainer = start(&configure(temp.path(), &sets)).unwrap();
    let control = Control::new();
    control.step();
    let stop = control.clone();
    let failure = error(block_on(trainer.run(&control, &mut move |_| stop.stop())));
    let text = failure.to_string();
    assert!(
        matches!(failure, Error::Diverged(_)) && text.contains("after step 1 the weights are not finite"),
        "{text}"
    );
    assert!(text.contains("no checkpoint was written before"), "{text}");
    assert!(fs::read_dir(temp.path()).unwrap().flatten().all(|entry| !entry.path().is_dir()));
}
