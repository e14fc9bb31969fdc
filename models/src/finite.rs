//! Where numbers stopped being finite: which weight, which image, which block.

use lara_runtime::{Entry, Gpu, Mode, Parameters, Role, Tensor, Tune};

use crate::compile::compile;
use crate::config::TrainConfig;
use crate::error::{Error, Result};

/// The first number that is not finite, in words: how many there are, where and what it is.
pub(crate) fn trouble(values: &[f32]) -> Option<String> {
    let at = values.iter().position(|value| !value.is_finite())?;
    let count = values.iter().filter(|value| !value.is_finite()).count();
    Some(format!("{count} of its {} values are not finite, first number {at}, which is {}", values.len(), values[at]))
}

/// The first tensor of `values`, in the order of `entries`, that is not finite, in words.
pub(crate) fn first_tensor<'a>(entries: impl Iterator<Item = &'a Entry>, values: &[Vec<f32>]) -> Option<String> {
    entries.zip(values).find_map(|(entry, values)| Some(format!("{}: {}", entry.name, trouble(values)?)))
}

/// Says where a model's output for `images` (normalised, [n, channels, height, width]) stops being finite: in a weight,
/// in the images, or in the first block in whose attention it shows. Runs the model once more, with its blocks' queries,
/// keys, values and outputs kept.
///
/// # Errors
/// What the runtime fails with: a lost device, not enough memory for what is kept.
pub async fn where_not_finite(
    gpu: &Gpu,
    tune: &Tune,
    config: &TrainConfig,
    parameters: &Parameters,
    images: &[f32],
) -> Result<String> {
    let weights = parameters.read(gpu, Role::Weight).await?;
    if let Some(tensor) = first_tensor(parameters.entries_of(Role::Weight), &weights) {
        return Ok(format!("the weight {tensor}"));
    }
    let shape = config.model.image_shape();
    for (index, image) in images.chunks(shape.len()).enumerate() {
        if let Some(trouble) = trouble(image) {
            return Ok(format!("image {index} of the batch: {trouble}"));
        }
    }
    let mut kept: Vec<(String, Tensor)> = Vec::new();
    let mut parameters = parameters.clone();
    let compiled = compile(gpu, tune, &mut parameters, Mode::Eval, &[Role::Weight], |tape| {
        let inputs = config.model.declare(tape, images.len() / shape.len());
        config.build()?.forward_hooked(tape, &inputs, &mut |_, site| {
            let parts =
                [("queries", site.qkv.q), ("keys", site.qkv.k), ("values", site.qkv.v), ("output", site.output)];
            let named = |(what, tensor)| (format!("the {what} of attention in block {}", site.layer), tensor);
            kept.extend(parts.map(named));
        });
        kept.iter().for_each(|(_, tensor)| tape.rec.pin(*tensor));
        Ok::<_, Error>(inputs[0])
    });
    let (plan, input) = compiled.await?;
    plan.run().write(input, images).steps().submit()?;
    for (what, tensor) in kept {
        if let Some(trouble) = trouble(&plan.read(tensor).await?) {
            return Ok(format!("weights and images are; the first that are not are {what}: {trouble}"));
        }
    }
    Ok("weights, images and every block's attention are; what comes after the last attention is not".to_owned())
}
