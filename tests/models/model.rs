//! A model with its weights: what it takes and gives has names, and whoever compiles it computes with its weights.

use lara_models::train::names_and_shapes;
use lara_models::{Error, Model, Outputs, Predictor, Weights};
use lara_runtime::{Mode, Parameters, Role, Tensor, Tune};
use lara_tests::{adapter, random};
use pollster::block_on;

static DIGITS: &[u8] = include_bytes!("../../explain/data/digits.safetensors");

fn digits() -> Model {
    Model::from_bytes("digits.safetensors", DIGITS.to_vec()).unwrap_or_else(|e| panic!("{e}"))
}

fn tune() -> Tune {
    Tune::fixed(&[])
}

/// Every output of a model for what is fed under the names of its inputs.
fn outputs(model: &Model, batch: usize, feed: impl Fn(&str, &Tensor) -> Vec<f32>) -> Vec<(&'static str, Vec<f32>)> {
    let tune = tune();
    let compiled = model.compile(adapter(), &tune, &model.config, Mode::Eval, |tape| {
        let inputs = model.config.model.declare(tape, batch);
        let outputs = model.config.build()?.forward(tape, &inputs);
        outputs.iter().for_each(|(_, tensor)| tape.rec.pin(tensor));
        Ok::<_, Error>((inputs, outputs))
    });
    let (plan, (inputs, outputs)): (_, (Vec<Tensor>, Outputs)) = block_on(compiled).unwrap_or_else(|e| panic!("{e}"));
    let mut run = plan.run();
    for (input, tensor) in model.config.model.inputs(batch).iter().zip(&inputs) {
        assert_eq!(tensor.shape(), input.shape);
        run = run.write(*tensor, &feed(input.name, tensor));
    }
    run.steps().submit().unwrap();
    outputs.iter().map(|(name, tensor)| (name, plan.read_blocking(tensor).unwrap())).collect()
}

fn images(name: &str, tensor: &Tensor) -> Vec<f32> {
    assert_eq!(name, "images");
    random(4, tensor.len()).into_iter().map(|value| value as f32).collect()
}

#[test]
fn inputs_and_outputs_have_names() {
    let model = digits();
    assert_eq!(model.classes.len(), 10);
    let inputs: Vec<_> = model.config.model.inputs(3).into_iter().map(|i| (i.name, i.shape.dims().to_vec())).collect();
    assert_eq!(inputs, [("images", vec![3, 1, 8, 8])]);
    let outputs = outputs(&model, 3, images);
    let names: Vec<_> = outputs.iter().map(|(name, values)| (*name, values.len())).collect();
    let shape = model.config.model.layer(0);
    assert_eq!(names, [("logits", 30), ("features", 3 * shape.tokens() * shape.heads * shape.head_dim)]);
    // The same as whoever asks for the classes alone.
    let predictor = block_on(model.predictor(adapter(), &tune(), 3)).unwrap();
    let given: Vec<f32> = random(4, 3 * 64).into_iter().map(|value| value as f32).collect();
    assert_eq!(block_on(predictor.logits(&given)).unwrap().concat(), outputs[0].1);
    assert_eq!(
        predictor.parameters().count(),
        names_and_shapes(predictor.parameters()).iter().map(|(_, s)| s.iter().product::<usize>()).sum::<usize>()
    );
}

#[test]
fn a_live_model_computes_with_the_weights_that_are_there_now() {
    let stored = digits();
    let Weights::Stored(file) = &stored.weights else { panic!("a file's weights") };
    let mut parameters = Parameters::new(adapter());
    block_on(Predictor::new(adapter(), &tune(), &stored.config, &mut parameters, 1, false)).unwrap();
    let live = Model::live(stored.config.clone(), stored.classes.clone(), parameters.clone());
    let logits = |model: &Model| outputs(model, 1, images)[0].1.clone();
    assert_ne!(logits(&live), logits(&stored));
    let wanted = names_and_shapes(&parameters);
    for (index, values) in file.get_all(&wanted).unwrap().iter().enumerate() {
        parameters.write(adapter(), Role::Weight, index, values).unwrap();
    }
    assert_eq!(logits(&live), logits(&stored));
    assert!(live.file().is_none() && stored.file().is_some());
}

#[test]
fn a_file_without_configuration_needs_one() {
    let mut bytes = Vec::new();
    lara_models::weights::write(&mut bytes, &[], &Default::default()).unwrap();
    let said = Model::from_bytes("empty.safetensors", bytes).map(|_| ()).unwrap_err();
    assert!(
        said.is_bad_input() && said.to_string().starts_with("empty.safetensors carries no configuration"),
        "{said}"
    );
}
