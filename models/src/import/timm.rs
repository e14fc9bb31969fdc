//! timm's models (PyTorch Image Models): `architecture` with `model_args` over it, and `pretrained_cfg`. Our names of tensors
//! are timm's, so what is left is what old files call otherwise.

use serde_json::{Value, json};

use super::Model;
use super::json::Object;
use super::names;
use super::pictures;
use super::positions::Resampling;
use super::pyramids;
use crate::config::TrainConfig;
use crate::data::Preprocess;
use crate::error::{Error, Result};
use crate::image_size::ImageSize;
use crate::layers::{ActLayer, MlpLayer};
use crate::registry::ModelConfig;
use crate::vit::{GlobalPool, VitConfig};
use crate::weights::TensorFile;

/// timm's arguments of models that have another name here.
const ARGUMENTS: [(&str, &str); 1] = [("img_size", "image_size")];

/// Arguments that change nothing here: training, or how the same is computed.
const PASSED_OVER: [&str; 7] =
    ["dynamic_img_size", "dynamic_img_pad", "weight_init", "drop_rate", "drop_path_rate", "proj_drop_rate", "fix_init"];

/// What a config.json of timm says.
pub(super) fn model(json: &Object<'_>, file: &TensorFile) -> Result<Model> {
    let architecture = json.text("architecture")?.unwrap_or_default();
    let unknown = |error| Error::Config(format!("{}: {error}", json.place("architecture")));
    let mut config =
        TrainConfig { model: ModelConfig::named(architecture).map_err(unknown)?, ..TrainConfig::default() };
    let mut set = |key: &str, value: &Value, place: &str| -> Result<()> {
        let value = toml::Value::try_from(value)
            .map_err(|_| Error::Config(format!("{place} is {value}, which is no setting of a model")))?;
        config = config.with("model", key, value, place)?;
        Ok(())
    };
    // Old files have the members of pretrained_cfg at the top.
    let nested = json.object("pretrained_cfg")?;
    let pretrained = if json.has("pretrained_cfg") { &nested } else { json };
    let arguments = json.object("model_args")?;
    if let (Some(size), false) = (pretrained.counts("input_size")?, arguments.has("img_size")) {
        let &[channels, height, width] = &size[..] else {
            return Err(pretrained.problem("input_size", "that is not [channels, height, width]"));
        };
        let place = pretrained.place("input_size");
        set("in_chans", &channels.into(), &place)?;
        set("image_size", &if height == width { height.into() } else { vec![height, width].into() }, &place)?;
    }
    if [json, &arguments].iter().any(|part| part.get("global_pool").is_some_and(|pool| pool == "map")) {
        return Err(json.problem(
            "global_pool",
            "= \"map\", pooling by an attention of its own (SigLIP), which is not computed here; \"token\" and \"avg\" are",
        ));
    }
    // Pyramids have one pooling, the mean.
    let pools = architecture.starts_with("pvt");
    if let Some(pool) = json.get("global_pool").filter(|_| !arguments.has("global_pool") && !pools) {
        set("global_pool", pool, &json.place("global_pool"))?;
    }
    for (key, value) in arguments.members().filter(|(key, _)| !PASSED_OVER.contains(key)) {
        let ours = ARGUMENTS.iter().find(|(theirs, _)| *theirs == key).map_or(key, |(_, ours)| ours);
        set(ours, value, &arguments.place(key))?;
    }
    let head = file.shape("head.weight").and_then(|shape| shape.first().copied());
    super::same_classes(json, "num_classes", json.count("num_classes")?, head, file)?;
    set("num_classes", &head.unwrap_or(0).into(), &json.place("num_classes"))?;
    if let ModelConfig::Vit(vit) = &mut config.model {
        // The mean over patches is normalised after it, unless it is said otherwise.
        vit.fc_norm = arguments.flag("fc_norm")?.unwrap_or(vit.global_pool == GlobalPool::Avg);
        vit.head_dist &= head.is_some();
    }
    super::check(&config, json)?;
    if let ModelConfig::Vit(vit) = &mut config.model {
        vit.mlp_ratio = super::ratio_of_theirs(vit.embed_dim, vit.mlp_ratio);
    }
    let shape = config.model.image_shape();
    let fit = Preprocess::from_timm(&pretrained.value(), Some(shape))?;
    config.data.fit_as(&fit, &json.path().display().to_string())?;
    let classes = match json.texts("label_names")? {
        Some(names) => {
            super::same_classes(json, "label_names", Some(names.len()), head, file)?;
            descriptions(json, names)?
        }
        None => Vec::new(),
    };
    Ok(Model { config, classes, seen: None, resampling: Resampling::Antialiased })
}

/// What classes are called in words, where their names are keys ("n01440764").
fn descriptions(json: &Object<'_>, names: Vec<String>) -> Result<Vec<String>> {
    let words = json.object("label_descriptions")?;
    names.into_iter().map(|name| Ok(words.text(&name)?.map_or(name, str::to_owned))).collect()
}

/// The config.json that timm would have written: an architecture with all arguments over it.
///
/// # Errors
/// A setting that no model of timm has.
pub(super) fn write(config: &TrainConfig, classes: &[String]) -> Result<Value> {
    let ModelConfig::Vit(vit) = &config.model else { return pyramids::write_timm(config, classes) };
    super::only_softmax(config, "timm")?;
    let ImageSize { height, width } = vit.image_size;
    let pool = match vit.global_pool {
        GlobalPool::Token => "token",
        GlobalPool::Avg => "avg",
        GlobalPool::TokenAvg => return Err(super::has_no("timm", "model.global_pool = \"token-avg\"")),
    };
    if vit.norm_eps != VitConfig::default().norm_eps {
        return Err(super::has_no("timm", &format!("model.norm_eps = {}", vit.norm_eps)));
    }
    if vit.dist_token != vit.head_dist {
        return Err(super::has_no("timm", "a distillation token without a classifier of its own"));
    }
    let mut arguments = json!({
        "img_size": if height == width { json!(height) } else { json!([height, width]) },
        "patch_size": vit.patch_size,
        "embed_dim": vit.embed_dim,
        "depth": vit.depth,
        "num_heads": vit.num_heads,
        "mlp_ratio": super::ratio_for_theirs(vit.embed_dim, vit.mlp_ratio, vit.mlp_hidden()),
        "qkv_bias": vit.qkv_bias,
        "qk_norm": vit.qk_norm,
        "global_pool": pool,
        "fc_norm": vit.fc_norm,
        "pre_norm": vit.pre_norm,
        "no_embed_class": vit.no_embed_class,
        "reg_tokens": vit.reg_tokens,
        "class_token": vit.class_token,
    });
    if vit.init_values > 0.0 {
        arguments["init_values"] = json!(vit.init_values);
    }
    if vit.act_layer != ActLayer::Gelu {
        arguments["act_layer"] = json!(vit.act_layer);
    }
    // What no argument says comes with the architecture.
    let architecture = match vit {
        _ if vit.dist_token => "deit_tiny_distilled_patch16_224",
        _ if vit.mlp_layer == MlpLayer::SwigluPacked => "vit_giant_patch14_dinov2",
        _ => "vit_tiny_patch16_224",
    };
    let mut config_json = json!({
        "architecture": architecture,
        "num_classes": vit.num_classes,
        "num_features": vit.num_features(),
        "global_pool": pool,
        "model_args": arguments,
        "pretrained_cfg": pictures::pretrained_cfg(config)?,
    });
    if !classes.is_empty() {
        config_json["label_names"] = json!(classes);
    }
    Ok(config_json)
}

/// Names of old files, brought to what timm calls them now.
///
/// # Errors
/// A tensor that comes twice, under its old name and its new one.
pub(super) fn import(file: &TensorFile) -> Result<TensorFile> {
    names::renamed(file, current)
}

fn current(name: &str) -> String {
    let name = name.strip_prefix("backbone.").unwrap_or(name);
    match name {
        "register_tokens" => "reg_token".to_owned(),
        _ => name.replace(".gamma_1", ".ls1.gamma").replace(".gamma_2", ".ls2.gamma"),
    }
}
