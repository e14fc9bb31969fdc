//! Pyramids of other libraries: what PVTv2's authors, those of the paper, and timm call their tensors and settings.

use std::collections::BTreeMap;

use lara_runtime::attention::{MechanismKind, ProposalGen};
use serde_json::{Value, json};
use toml::Table;

use super::has_no;
use super::json::Object;
use super::pictures;
use crate::attention::LayerAttention;
use crate::config::TrainConfig;
use crate::error::Result;
use crate::image_size::ImageSize;
use crate::pvt::PvtConfig;
use crate::registry::ModelConfig;
use crate::weights::{Stored, TensorFile};

/// The list of a number for each stage under a key, if it is there.
fn stages<T, const N: usize>(json: &Object<'_>, key: &str, list: Option<Vec<T>>) -> Result<Option<[T; N]>> {
    let Some(list) = list else { return Ok(None) };
    let len = list.len();
    let stages = list.try_into().map_err(|_| json.problem(key, &format!("of {len} numbers, where {N} stages are")));
    stages.map(Some)
}

/// What the arguments of the paper's authors say of a PVTv2. Their `sr_ratios` reduces nothing: where it is above 1 the
/// configured attention is used, elsewhere softmax.
pub(super) fn model(json: &Object<'_>, num_classes: usize) -> Result<PvtConfig> {
    let plain = PvtConfig::default();
    let counts = |key: &str| -> Result<Option<[usize; 4]>> { stages(json, key, json.counts(key)?) };
    let attention = |ratio: &usize| match ratio {
        0 | 1 => LayerAttention::Mechanism(MechanismKind::Softmax),
        _ => LayerAttention::Settings(Table::new()),
    };
    Ok(PvtConfig {
        image_size: json.count("img_size")?.map_or(plain.image_size, ImageSize::square),
        in_chans: json.count("in_chans")?.unwrap_or(plain.in_chans),
        embed_dims: counts("embed_dims")?.unwrap_or(plain.embed_dims),
        depths: counts("depths")?.unwrap_or(plain.depths),
        num_heads: counts("num_heads")?.unwrap_or(plain.num_heads),
        mlp_ratios: stages(json, "mlp_ratios", json.numbers("mlp_ratios")?)?.unwrap_or(plain.mlp_ratios),
        qkv_bias: json.flag("qkv_bias")?.unwrap_or(plain.qkv_bias),
        attention_layers: counts("sr_ratios")?.unwrap_or([8, 4, 2, 1]).iter().map(attention).collect(),
        num_classes,
        ..plain
    })
}

fn pvt<'c>(config: &'c TrainConfig, library: &str) -> Result<&'c PvtConfig> {
    match &config.model {
        ModelConfig::Pvt(pvt) => Ok(pvt),
        other => Err(has_no(library, &format!("model.name = \"{}\"", other.name()))),
    }
}

/// The arguments of the authors' constructor, without those of attention.
///
/// # Errors
/// A setting that their models do not have.
pub(super) fn write(config: &TrainConfig) -> Result<Value> {
    let pvt = pvt(config, "the authors' code")?;
    let plain = PvtConfig::default();
    let ImageSize { height, width } = pvt.image_size;
    let same = pvt.sr_ratios == plain.sr_ratios && pvt.attention_layers == plain.attention_layers;
    if !same || pvt.linear || height != width {
        return Err(has_no(
            "the authors' code",
            "reduced keys, attention of single blocks (but for softmax in the last stage), or images that are not square",
        ));
    }
    Ok(json!({
        "img_size": height,
        "in_chans": pvt.in_chans,
        "embed_dims": pvt.embed_dims,
        "depths": pvt.depths,
        "num_heads": pvt.num_heads,
        "mlp_ratios": pvt.mlp_ratios,
        "qkv_bias": pvt.qkv_bias,
    }))
}

/// The config.json that timm would have written.
///
/// # Errors
/// A setting that no model of timm has.
pub(super) fn write_timm(config: &TrainConfig, classes: &[String]) -> Result<Value> {
    let pvt = pvt(config, "timm")?;
    super::only_softmax(config, "timm")?;
    let mut config_json = json!({
        "architecture": if pvt.linear { "pvt_v2_b2_li" } else { "pvt_v2_b0" },
        "num_classes": pvt.num_classes,
        "num_features": pvt.embed_dims[3],
        "model_args": {
            "embed_dims": pvt.embed_dims,
            "depths": pvt.depths,
            "num_heads": pvt.num_heads,
            "mlp_ratios": pvt.mlp_ratios,
            "sr_ratios": pvt.sr_ratios,
            "qkv_bias": pvt.qkv_bias,
            "linear": pvt.linear,
        },
        "pretrained_cfg": pictures::pretrained_cfg(config)?,
    });
    if !classes.is_empty() {
        config_json["label_names"] = json!(classes);
    }
    Ok(config_json)
}

/// Parts of names that differ within a block: ours, and the authors'.
fn within(config: &TrainConfig) -> [(&'static str, &'static str); 7] {
    let adaptive = config.attention.proposal_gen == ProposalGen::Adaptive1d;
    let of = |pooled, first| if adaptive { first } else { pooled };
    [
        (".mlp.dwconv.", ".mlp.dwconv.dwconv."),
        (".attn.projection", ".attn.random_proj"),
        (".attn.q_landmarks.linear.", of(".attn.q_bar_gen.2.", ".attn.q_bar_gen.0.")),
        (".attn.q_landmarks.norm.", of(".attn.q_bar_gen.3.", ".attn.q_bar_gen.1.")),
        (".attn.k_landmarks.linear.", of(".attn.k_bar_gen.2.", ".attn.k_bar_gen.0.")),
        (".attn.k_landmarks.norm.", of(".attn.k_bar_gen.3.", ".attn.k_bar_gen.1.")),
        // Last: what stands above is written without it.
        (".attn.", ".attn.attn_fn."),
    ]
}

/// Our name for one of theirs; a name of ours is its own.
fn ours(name: &str, config: &TrainConfig) -> String {
    let mut name = name.to_owned();
    for stage in 1..=4 {
        let at = stage - 1;
        let embed = if stage == 1 { "patch_embed.".to_owned() } else { format!("stages.{at}.downsample.") };
        for (theirs, ours) in [
            (format!("patch_embed{stage}."), embed),
            (format!("block{stage}."), format!("stages.{at}.blocks.")),
            (format!("norm{stage}."), format!("stages.{at}.norm.")),
        ] {
            if let Some(rest) = name.strip_prefix(&theirs) {
                name = ours + rest;
            }
        }
    }
    within(config).iter().rev().fold(name, |name, (ours, theirs)| name.replace(theirs, ours))
}

/// The authors' name for one of ours.
fn theirs(name: &str, config: &TrainConfig) -> String {
    let mut name = within(config).iter().fold(name.to_owned(), |name, (ours, theirs)| name.replace(ours, theirs));
    if let Some(rest) = name.strip_prefix("patch_embed.") {
        name = format!("patch_embed1.{rest}");
    }
    for stage in 1..=4 {
        let at = stage - 1;
        for (ours, theirs) in [
            (format!("stages.{at}.downsample."), format!("patch_embed{stage}.")),
            (format!("stages.{at}.blocks."), format!("block{stage}.")),
            (format!("stages.{at}.norm."), format!("norm{stage}.")),
        ] {
            if let Some(rest) = name.strip_prefix(&ours) {
                name = theirs + rest;
            }
        }
    }
    name
}

/// A file of timm, of PVTv2's authors or of the paper's under our names. The paper's keeps queries, keys and values in one.
///
/// # Errors
/// A tensor that comes twice, under the names of two libraries, or cannot be cut into queries, keys and values.
pub(super) fn import(file: &TensorFile, config: &TrainConfig) -> Result<TensorFile> {
    let mut tensors = BTreeMap::new();
    let mut insert = |name: String, stored: Stored| match tensors.insert(name.clone(), stored) {
        None => Ok(()),
        Some(_) => Err(file.problem(format!("has {name} twice, under the names of two libraries"))),
    };
    for (name, stored) in file.clone().into_tensors() {
        let name = ours(&name, config);
        let Some((block, leaf)) = name.split_once(".attn.qkv.") else {
            insert(name, stored)?;
            continue;
        };
        let rows = stored.shape().first().copied().unwrap_or(0);
        if !rows.is_multiple_of(3) {
            let what = format!("has {name} with {rows} rows, which are not queries, keys and values of one width");
            return Err(file.problem(what));
        }
        insert(format!("{block}.attn.q.{leaf}"), stored.rows(0..rows / 3))?;
        insert(format!("{block}.attn.kv.{leaf}"), stored.rows(rows / 3..rows))?;
    }
    Ok(file.with_tensors(tensors))
}

/// A file of ours under the names of the paper's authors.
///
/// # Errors
/// Queries without keys and values, or of another type.
pub(super) fn export(file: &TensorFile, config: &TrainConfig) -> Result<TensorFile> {
    let mut tensors = file.clone().into_tensors();
    let queries: Vec<String> = tensors.keys().filter(|name| name.contains(".attn.q.")).cloned().collect();
    for name in queries {
        let packed = name.replace(".attn.q.", ".attn.qkv.");
        let parts: Vec<Stored> = [name.clone(), name.replace(".attn.q.", ".attn.kv.")]
            .iter()
            .filter_map(|part| tensors.remove(part))
            .collect();
        let whole = Stored::stacked(&parts).filter(|_| parts.len() == 2);
        let whole = whole.ok_or_else(|| file.problem(format!("has {name} without keys and values that go with it")))?;
        tensors.insert(packed, whole);
    }
    let renamed = tensors.into_iter().map(|(name, stored)| (theirs(&name, config), stored)).collect();
    Ok(file.with_tensors(renamed))
}
