//! How pictures are brought to a model, in the words of the library that it is written for.

use serde_json::{Value, json};

use super::has_no;
use crate::config::TrainConfig;
use crate::data::Preprocess;
use crate::data::picture::{Interpolation, Scale};
use crate::error::Result;

/// timm's `pretrained_cfg` of a model: what it is shown, and how pictures are brought to it.
pub(super) fn pretrained_cfg(config: &TrainConfig) -> Result<Value> {
    let (shape, fit) = (config.model.image_shape(), config.preprocess()?);
    Ok(json!({
        "input_size": [shape.channels, shape.height, shape.width],
        "num_classes": config.model.num_classes(),
        "mean": each_channel(&fit.mean, shape.channels),
        "std": each_channel(&fit.std, shape.channels),
        "crop_pct": config.data.crop_share(),
        "crop_mode": config.data.crop_mode,
        "interpolation": config.data.interpolation,
    }))
}

/// Numbers of which one may stand for all channels.
fn each_channel(values: &[f64], channels: usize) -> Vec<f64> {
    if let [value] = values { vec![*value; channels] } else { values.to_vec() }
}

/// The preprocessor_config.json that transformers would have written.
///
/// # Errors
/// A way to fit pictures that its processors do not have.
pub(super) fn preprocessor_config(fit: &Preprocess) -> Result<Value> {
    let (shape, crop) = (fit.shape, json!({"height": fit.shape.height, "width": fit.shape.width}));
    let (processor, size, crops) = match fit.scale {
        Scale::Shorter(side) => ("BitImageProcessor", json!({"shortest_edge": side}), true),
        Scale::Exactly([height, width]) => {
            let crops = [height, width] != [shape.height, shape.width].map(|side| side as u64);
            let processor = if crops { "DeiTImageProcessor" } else { "ViTImageProcessor" };
            (processor, json!({"height": height, "width": width}), crops)
        }
        Scale::Cover(_) | Scale::Inside(_) | Scale::Keep => {
            return Err(has_no(
                "transformers",
                &format!(
                    "pictures resized so ({:?}, for images of {shape}); data.crop_mode = \"squash\" it has",
                    fit.scale
                ),
            ));
        }
    };
    let resample = Interpolation::ALL.iter().position(|interpolation| *interpolation == fit.interpolation);
    let mut json = json!({
        "image_processor_type": processor,
        "do_resize": true,
        "size": size,
        "resample": resample,
        "do_center_crop": crops,
        "do_rescale": true,
        "rescale_factor": 1.0 / 255.0,
        "do_normalize": true,
        "image_mean": each_channel(&fit.mean, shape.channels),
        "image_std": each_channel(&fit.std, shape.channels),
    });
    if crops {
        json["crop_size"] = crop;
    }
    Ok(json)
}
