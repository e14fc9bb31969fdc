//! Models of other libraries, opened as their hub lays them out, against what the libraries computed.

use std::path::{Path, PathBuf};

use lara_models::Model;
use lara_models::train::TrainConfig;
use lara_models::train::checkpoint::TrainedModel;
use lara_models::weights::TensorFile;
use lara_runtime::{Tune, Variant};
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
fn a_position_table_is_resampled_as_timm_does_it() {
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

#[test]
fn the_authors_vits_compute_what_they_computed_there() {
    for name in ["softmax", "lara", "lara_mixed", "ra_mean", "ra_softmax_mean", "performer"] {
        agrees(&format!("hkunlp_evit_{name}"), &[]);
    }
}
