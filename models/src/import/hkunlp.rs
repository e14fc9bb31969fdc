//! The vision models of the paper's authors (HKUNLP/efficient-attention): the constructor's arguments, since their released
//! code has no configuration files, and what it calls tensors.

use lara_runtime::attention::ProposalGen;
use serde_json::{Value, json};

use super::Model;
use super::huggingface::{IMAGENET_MEAN, IMAGENET_STD};
use super::json::Object;
use super::names::{Names, Pair};
use super::positions::Resampling;
use super::pyramids;
use crate::config::TrainConfig;
use crate::error::{Error, Result};
use crate::image_size::ImageSize;
use crate::registry::ModelConfig;
use crate::vit::VitConfig;
use crate::weights::TensorFile;

/// Landmark generators pool, project and normalise; what pools has no weights.
const POOLED: &[Pair] = &[
    ("norm", &["norm_before_pooling"]),
    ("blocks.#.attn.q_landmarks.linear", &["blocks.#.attn.q_bar_gen.2"]),
    ("blocks.#.attn.q_landmarks.norm", &["blocks.#.attn.q_bar_gen.3"]),
    ("blocks.#.attn.k_landmarks.linear", &["blocks.#.attn.k_bar_gen.2"]),
    ("blocks.#.attn.k_landmarks.norm", &["blocks.#.attn.k_bar_gen.3"]),
    ("blocks.#.attn.projection", &["blocks.#.attn.random_proj"]),
];

/// Those of sequences project first.
const ADAPTIVE: &[Pair] = &[
    ("norm", &["norm_before_pooling"]),
    ("blocks.#.attn.q_landmarks.linear", &["blocks.#.attn.q_bar_gen.0"]),
    ("blocks.#.attn.q_landmarks.norm", &["blocks.#.attn.q_bar_gen.1"]),
    ("blocks.#.attn.k_landmarks.linear", &["blocks.#.attn.k_bar_gen.0"]),
    ("blocks.#.attn.k_landmarks.norm", &["blocks.#.attn.k_bar_gen.1"]),
];

/// Their arguments that are settings of attention here, under the same names.
const ATTENTION: [&str; 10] = [
    "num_landmarks",
    "proposal_gen",
    "pool_module_type",
    "mis_type",
    "alpha_coeff",
    "use_antithetics",
    "use_multisample",
    "num_samples",
    "approx_attn_dim",
    "cos_weighting",
];

/// The names of a model with these settings.
pub(super) fn names(config: &TrainConfig) -> Names {
    let pairs = if config.attention.proposal_gen == ProposalGen::Adaptive1d { ADAPTIVE } else { POOLED };
    Names { prefixes: &[], prefix: "", bare: &[], pairs }
}

fn vit(json: &Object<'_>, classes: usize) -> Result<VitConfig> {
    Ok(VitConfig {
        image_size: ImageSize::square(json.count("img_size")?.unwrap_or(224)),
        in_chans: json.count("in_chans")?.unwrap_or(3),
        patch_size: json.count("patch_size")?.unwrap_or(16),
        embed_dim: json.needed("embed_dim")?,
        depth: json.needed("depth")?,
        num_heads: json.needed("num_heads")?,
        mlp_ratio: json.number("mlp_ratio")?.unwrap_or(4.0),
        qkv_bias: json.flag("qkv_bias")?.unwrap_or(true),
        num_classes: classes,
        ..VitConfig::default()
    })
}

/// What the arguments of their constructor say.
pub(super) fn model(json: &Object<'_>, file: &TensorFile) -> Result<Model> {
    let classes = file.shape("head.weight").and_then(|shape| shape.first().copied()).unwrap_or(0);
    let model = if json.has("embed_dims") {
        ModelConfig::Pvt(pyramids::model(json, classes)?)
    } else {
        ModelConfig::Vit(vit(json, classes)?)
    };
    let mut config = TrainConfig { model, ..TrainConfig::default() };
    super::check(&config, json)?;
    // Their code normalises with ImageNet's numbers (timm's defaults).
    if config.model.image_shape().channels == IMAGENET_MEAN.len() {
        config.data.mean = IMAGENET_MEAN.to_vec();
        config.data.std = IMAGENET_STD.to_vec();
    }
    let mut set = |key: &str, value: &Value, place: &str| -> Result<()> {
        let value = toml::Value::try_from(value)
            .map_err(|_| Error::Config(format!("{place} is {value}, which is no setting of attention")))?;
        config = config.with("attention", key, value, place)?;
        Ok(())
    };
    if let Some(mechanism) = json.get("attention") {
        set("mechanism", mechanism, &json.place("attention"))?;
    }
    for key in ATTENTION {
        if let Some(value) = json.get(key) {
            set(key, value, &json.place(key))?;
        }
    }
    if let Some(map) = json.get("proj_method") {
        set("kernel", map, &json.place("proj_method"))?;
    }
    // The projection of their Performer is a buffer in the file: it takes the place of the one that would be drawn.
    let stored = file.names().any(|name| name.ends_with(".random_proj"));
    set("sample_scheme", &if stored { "learnable".into() } else { "default".into() }, &json.place("sample_scheme"))?;
    Ok(Model { config, classes: Vec::new(), seen: None, resampling: Resampling::Antialiased })
}

/// The arguments of the authors' constructor.
///
/// # Errors
/// A setting that their models do not have.
pub(super) fn write(config: &TrainConfig) -> Result<Value> {
    let ModelConfig::Vit(vit) = &config.model else {
        return with_attention(pyramids::write(config)?, config);
    };
    let theirs = VitConfig {
        image_size: vit.image_size,
        in_chans: vit.in_chans,
        patch_size: vit.patch_size,
        embed_dim: vit.embed_dim,
        depth: vit.depth,
        num_heads: vit.num_heads,
        mlp_ratio: vit.mlp_ratio,
        qkv_bias: vit.qkv_bias,
        num_classes: vit.num_classes,
        head_bias: vit.head_bias,
        weight_init: vit.weight_init,
        drop_rate: vit.drop_rate,
        drop_path_rate: vit.drop_path_rate,
        ..VitConfig::default()
    };
    if theirs != *vit || vit.image_size.height != vit.image_size.width {
        return Err(super::has_no(
            "the authors' code",
            "tokens in front of the patches, another pooling than the mean, attention of single blocks, images that are not \
             square, or other forms of norms and MLPs",
        ));
    }
    let json = json!({
        "img_size": vit.image_size.height,
        "in_chans": vit.in_chans,
        "patch_size": vit.patch_size,
        "embed_dim": vit.embed_dim,
        "depth": vit.depth,
        "num_heads": vit.num_heads,
        "mlp_ratio": vit.mlp_ratio,
        "qkv_bias": vit.qkv_bias,
    });
    with_attention(json, config)
}

/// The arguments of attention over those of a model.
fn with_attention(mut json: Value, config: &TrainConfig) -> Result<Value> {
    json["attention"] = json!(config.attention.mechanism);
    json["proj_method"] = json!(config.attention.kernel);
    json["approx_attn_dim"] = json!(config.attention.features);
    let attention = serde_json::to_value(&config.attention)
        .map_err(|error| Error::Config(format!("[attention] cannot be written as JSON: {error}")))?;
    for key in ATTENTION.iter().filter(|key| attention.get(**key).is_some()) {
        json[*key] = attention[*key].clone();
    }
    Ok(json)
}
