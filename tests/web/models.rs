//! The small models of other libraries in `tests/golden/models`, opened from their bytes: a page has no files.

use std::path::Path;

use lara_models::Model;
use lara_models::import::{self, Imported};
use lara_models::train::checkpoint::TrainedModel;
use lara_models::weights::TensorFile;
use lara_runtime::{Gpu, Tune};
use lara_tests::relative_error;

/// A folder as a hub lays it out, with the images and logits of the library that it comes from.
pub(crate) struct GoldenModel {
    pub(crate) name: &'static str,
    config: &'static [u8],
    weights: &'static [u8],
    images_and_logits: &'static [u8],
    /// What its images ask for.
    settings: &'static [&'static str],
}

macro_rules! golden_models {
    ($($name:literal $(with $set:literal)?,)*) => {
        &[$(GoldenModel {
            name: $name,
            config: include_bytes!(concat!("../golden/models/", $name, "/config.json")),
            weights: include_bytes!(concat!("../golden/models/", $name, "/model.safetensors")),
            images_and_logits: include_bytes!(concat!("../golden/models/", $name, "/io.safetensors")),
            settings: &[$($set)?],
        }),*]
    };
}

/// All of them.
pub(crate) const GOLDEN_MODELS: &[GoldenModel] = golden_models! {
    "timm_vit_token",
    "timm_vit_cls_avg",
    "timm_vit_avg_fc_norm",
    "timm_vit_layer_scale_registers",
    "timm_vit_qk_norm_no_bias",
    "timm_vit_resized" with "model.image_size=48",
    "timm_deit_distilled",
    "timm_pvt_v2",
    "timm_pvt_v2_linear",
    "hf_vit",
    "hf_deit_teacher",
    "hf_dinov2",
    "hkunlp_evit_softmax",
    "hkunlp_evit_lara",
    "hkunlp_evit_lara_mixed",
    "hkunlp_evit_ra_mean",
    "hkunlp_evit_ra_softmax_mean",
    "hkunlp_evit_performer",
    "hkunlp_pvt_softmax",
    "hkunlp_pvt_lara_dense",
    "hkunlp_pvt_lara_light",
};

impl GoldenModel {
    /// The largest difference of its logits, relative to the largest of the library's.
    ///
    /// # Errors
    /// What opening, compiling or running it fails with.
    pub(crate) async fn error(&self, gpu: &Gpu, tune: &Tune) -> lara_models::Result<f64> {
        let file =
            |part: &str, bytes: &[u8]| TensorFile::from_bytes(format!("{} of {}", part, self.name), bytes.to_vec());
        let original = file("model.safetensors", self.weights)?;
        let config_json = (Path::new("config.json"), self.config);
        let Imported { library, mut config, classes, weights, resampling } =
            import::import(&original, config_json, None)?;
        let trained = TrainedModel { weights, config: Some(config.clone()), classes, library, resampling };
        self.settings.iter().try_for_each(|set| config.set(set))?;
        let model = Model::with_config(self.name, trained, config)?;
        let io = file("io.safetensors", self.images_and_logits)?;
        let (shape, images) = io.numbers("input.images")?;
        let (_, expected) = io.numbers("output.logits")?;
        let predictor = model.predictor(gpu, tune, shape[0]).await?;
        let [expected, found] = [expected, predictor.logits(&images).await?.concat()]
            .map(|values| values.into_iter().map(f64::from).collect::<Vec<_>>());
        Ok(relative_error(&expected, &found))
    }
}

#[cfg(test)]
mod tests {
    use super::{GOLDEN_MODELS, TensorFile};

    #[test]
    fn no_golden_model_of_pictures_is_forgotten() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/golden/models");
        let mut there: Vec<String> = std::fs::read_dir(folder)
            .expect("the golden models are there")
            .map(|entry| entry.expect("an entry").path())
            .filter(|path| {
                let io = TensorFile::open(path.join("io.safetensors")).expect("inputs and outputs");
                io.names().any(|name| name == "input.images")
            })
            .map(|path| path.file_name().unwrap_or_default().to_string_lossy().into_owned())
            .collect();
        there.sort();
        let mut known: Vec<&str> = GOLDEN_MODELS.iter().map(|model| model.name).collect();
        known.sort_unstable();
        assert_eq!(known, there);
    }
}
