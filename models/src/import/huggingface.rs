//! The ViT, DeiT and DINOv2 of Hugging Face's transformers: `model_type` and its settings; queries, keys and values apart.

use super::Model;
use serde_json::{Value, json};

use super::json::Object;
use super::names::{Names, Pair};
use super::positions::Resampling;
use crate::config::TrainConfig;
use crate::data::{ImageShape, Preprocess};
use crate::error::{Error, Result, nearest};
use crate::image_size::ImageSize;
use crate::layers::{ActLayer, MlpLayer};
use crate::registry::ModelConfig;
use crate::vit::{GlobalPool, VitConfig};
use crate::weights::{Stored, TensorFile};

/// The models that can be read.
const TYPES: [&str; 4] = ["vit", "deit", "dinov2", "dinov2_with_registers"];

/// What all of them have, and more.
macro_rules! pairs {
    ($($more:expr),* $(,)?) => {
        &[
            ("cls_token", &["embeddings.cls_token"]),
            ("dist_token", &["embeddings.distillation_token"]),
            ("pos_embed", &["embeddings.position_embeddings"]),
            ("patch_embed.proj", &["embeddings.patch_embeddings.projection"]),
            (
                "blocks.#.attn.qkv",
                &[
                    "encoder.layer.#.attention.attention.query",
                    "encoder.layer.#.attention.attention.key",
                    "encoder.layer.#.attention.attention.value",
                ],
            ),
            ("blocks.#.attn.proj", &["encoder.layer.#.attention.output.dense"]),
            ("norm", &["layernorm"]),
            $($more),*
        ]
    };
}

const VIT: &[Pair] = pairs![
    ("blocks.#.norm1", &["encoder.layer.#.layernorm_before"]),
    ("blocks.#.norm2", &["encoder.layer.#.layernorm_after"]),
    ("blocks.#.mlp.fc1", &["encoder.layer.#.intermediate.dense"]),
    ("blocks.#.mlp.fc2", &["encoder.layer.#.output.dense"]),
    ("head", &["classifier"]),
];

const TEACHER: &[Pair] = pairs![
    ("blocks.#.norm1", &["encoder.layer.#.layernorm_before"]),
    ("blocks.#.norm2", &["encoder.layer.#.layernorm_after"]),
    ("blocks.#.mlp.fc1", &["encoder.layer.#.intermediate.dense"]),
    ("blocks.#.mlp.fc2", &["encoder.layer.#.output.dense"]),
    ("head", &["cls_classifier"]),
    ("head_dist", &["distillation_classifier"]),
];

const DINOV2: &[Pair] = pairs![
    ("blocks.#.norm1", &["encoder.layer.#.norm1"]),
    ("blocks.#.norm2", &["encoder.layer.#.norm2"]),
    ("blocks.#.mlp.fc1", &["encoder.layer.#.mlp.fc1"]),
    ("blocks.#.mlp.fc2", &["encoder.layer.#.mlp.fc2"]),
    ("blocks.#.ls1.gamma", &["encoder.layer.#.layer_scale1.lambda1"]),
    ("blocks.#.ls2.gamma", &["encoder.layer.#.layer_scale2.lambda1"]),
    ("mask_token", &["embeddings.mask_token"]),
    ("reg_token", &["embeddings.register_tokens"]),
    ("head", &["classifier"]),
];

/// DINOv2 with a gated MLP.
const DINOV2_GATED: &[Pair] = pairs![
    ("blocks.#.norm1", &["encoder.layer.#.norm1"]),
    ("blocks.#.norm2", &["encoder.layer.#.norm2"]),
    ("blocks.#.mlp.fc1", &["encoder.layer.#.mlp.weights_in"]),
    ("blocks.#.mlp.fc2", &["encoder.layer.#.mlp.weights_out"]),
    ("blocks.#.ls1.gamma", &["encoder.layer.#.layer_scale1.lambda1"]),
    ("blocks.#.ls2.gamma", &["encoder.layer.#.layer_scale2.lambda1"]),
    ("mask_token", &["embeddings.mask_token"]),
    ("reg_token", &["embeddings.register_tokens"]),
    ("head", &["classifier"]),
];

/// The names of a model with these settings.
pub(super) fn names(vit: &VitConfig) -> Names {
    let dinov2 = if vit.reg_tokens > 0 { "dinov2_with_registers." } else { "dinov2." };
    let (prefix, pairs) = match vit {
        _ if vit.init_values > 0.0 && vit.mlp_layer == MlpLayer::SwigluPacked => (dinov2, DINOV2_GATED),
        _ if vit.init_values > 0.0 => (dinov2, DINOV2),
        _ if vit.head_dist => ("deit.", TEACHER),
        _ if vit.dist_token => ("deit.", VIT),
        _ => ("vit.", VIT),
    };
    Names {
        prefixes: &["vit.", "deit.", "dinov2.", "dinov2_with_registers."],
        // A model without a classifier is saved without the name of what has one.
        prefix: if vit.num_classes == 0 { "" } else { prefix },
        // Classifiers stand beside the model, not in it.
        bare: &["head", "head_dist"],
        pairs,
    }
}

/// What a config.json of transformers says, and the preprocessor_config.json beside it.
pub(super) fn model(json: &Object<'_>, preprocessor: Option<&Object<'_>>, file: &TensorFile) -> Result<Model> {
    let kind = json.text("model_type")?.unwrap_or_default();
    if !TYPES.contains(&kind) {
        let near = nearest(kind, TYPES).map(|near| format!("; did you mean \"{near}\"?")).unwrap_or_default();
        let place = json.place("model_type");
        return Err(Error::Config(format!("{place} is \"{kind}\", and there are only {}{near}", TYPES.join(", "))));
    }
    let act_layer = match json.text("hidden_act")?.unwrap_or("gelu") {
        "gelu" | "gelu_python" => ActLayer::Gelu,
        "gelu_pytorch_tanh" | "gelu_new" | "gelu_fast" => ActLayer::GeluTanh,
        act => {
            let what = format!("= \"{act}\", and only \"gelu\" and \"gelu_pytorch_tanh\" can be computed here");
            return Err(json.problem("hidden_act", &what));
        }
    };
    let rows = |name: &str| file.shape(&format!("{name}.weight")).and_then(|shape| shape.first().copied());
    let (teacher, plain) = (rows("cls_classifier"), rows("classifier"));
    let vit = match kind {
        "vit" | "deit" => vit(json, kind == "deit", teacher.is_some())?,
        _ => dinov2(json, plain.is_some(), kind == "dinov2_with_registers")?,
    };
    let vit = VitConfig { num_classes: teacher.or(plain).unwrap_or(0), act_layer, ..vit };
    let (count, patch) = (vit.num_classes, vit.patch_size);
    // Of these alone the library resamples positions as timm does.
    let resampling = if vit.reg_tokens > 0 { Resampling::Antialiased } else { Resampling::Plain };
    let mut config = TrainConfig { model: ModelConfig::Vit(vit), ..TrainConfig::default() };
    super::check(&config, json)?;
    let labelled = json.object("id2label")?.members().count();
    super::same_classes(json, "id2label", (labelled > 0).then_some(labelled), teacher.or(plain), file)?;
    let classes = labels(json, count)?;
    // Where the file is missing, the published ones of these models.
    let usual = match kind {
        "vit" => json!({"image_processor_type": "ViTImageProcessor"}),
        "deit" => {
            json!({"image_processor_type": "DeiTImageProcessor", "image_mean": IMAGENET_MEAN, "image_std": IMAGENET_STD})
        }
        _ => json!({
            "image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 256}, "image_mean": IMAGENET_MEAN,
            "image_std": IMAGENET_STD
        }),
    };
    let (settings, place) = match preprocessor {
        Some(preprocessor) => (preprocessor.value(), preprocessor.path()),
        None => (usual, json.path()),
    };
    let mut shape = config.model.image_shape();
    let seen = preprocessor.map(|preprocessor| seen(preprocessor, shape, patch)).transpose()?.flatten();
    if let Some(ImageSize { height, width }) = seen {
        shape = ImageShape { height, width, ..shape };
    }
    let fit = Preprocess::from_hugging_face(&settings, Some(shape))?;
    config.data.fit_as(&fit, &place.display().to_string())?;
    Ok(Model { config, classes, seen, resampling })
}

/// The size that the processor cuts pictures to, where it says one and it is another than that of the position table.
fn seen(preprocessor: &Object<'_>, table: ImageShape, patch: usize) -> Result<Option<ImageSize>> {
    let key = match ["crop_size", "size"].into_iter().find(|key| preprocessor.has(key)) {
        Some(key) => key,
        None => return Ok(None),
    };
    let ImageShape { height, width, .. } = Preprocess::from_hugging_face(&preprocessor.value(), None)?.shape;
    if [height, width] == [table.height, table.width] {
        return Ok(None);
    }
    if !height.is_multiple_of(patch) || !width.is_multiple_of(patch) {
        return Err(preprocessor.problem(
            key,
            &format!(
                "for images of {height}x{width}, which patches of {patch} do not divide; the model beside it is for {}x{}",
                table.height, table.width
            ),
        ));
    }
    Ok(Some(ImageSize { height, width }))
}

pub(super) const IMAGENET_MEAN: [f64; 3] = [0.485, 0.456, 0.406];
pub(super) const IMAGENET_STD: [f64; 3] = [0.229, 0.224, 0.225];

/// What all of them share, with the library's defaults, which its files may leave out.
fn common(json: &Object<'_>, patch: usize, eps: f64) -> Result<VitConfig> {
    let image_size = match json.get("image_size") {
        Some(size) if size.is_array() => match json.counts("image_size")?.as_deref() {
            Some(&[height, width]) => ImageSize { height, width },
            _ => return Err(json.problem("image_size", "that is not [height, width]")),
        },
        _ => ImageSize::square(json.count("image_size")?.unwrap_or(224)),
    };
    Ok(VitConfig {
        image_size,
        in_chans: json.count("num_channels")?.unwrap_or(3),
        patch_size: json.count("patch_size")?.unwrap_or(patch),
        embed_dim: json.count("hidden_size")?.unwrap_or(768),
        depth: json.count("num_hidden_layers")?.unwrap_or(12),
        num_heads: json.count("num_attention_heads")?.unwrap_or(12),
        norm_eps: json.number("layer_norm_eps")?.unwrap_or(eps),
        qkv_bias: json.flag("qkv_bias")?.unwrap_or(true),
        class_token: true,
        global_pool: GlobalPool::Token,
        ..VitConfig::default()
    })
}

fn vit(json: &Object<'_>, distilled: bool, two_heads: bool) -> Result<VitConfig> {
    let plain = common(json, 16, 1e-12)?;
    let hidden = json.count("intermediate_size")?.unwrap_or(3072);
    let mlp_ratio = hidden as f64 / plain.embed_dim.max(1) as f64;
    Ok(VitConfig { mlp_ratio, dist_token: distilled, head_dist: distilled && two_heads, ..plain })
}

fn dinov2(json: &Object<'_>, classifies: bool, registers: bool) -> Result<VitConfig> {
    let plain = common(json, 14, 1e-6)?;
    let (dim, mlp_ratio) = (plain.embed_dim, json.number("mlp_ratio")?.unwrap_or(4.0));
    let gated = json.flag("use_swiglu_ffn")?.unwrap_or(false);
    let packed = 2 * gated_hidden(dim, mlp_ratio);
    let reg_tokens = if registers { json.count("num_register_tokens")?.unwrap_or(4) } else { 0 };
    Ok(VitConfig {
        mlp_ratio: if gated { packed as f64 / dim.max(1) as f64 } else { super::ratio_of_theirs(dim, mlp_ratio) },
        mlp_layer: if gated { MlpLayer::SwigluPacked } else { MlpLayer::Mlp },
        init_values: json.number("layerscale_value")?.unwrap_or(1.0),
        global_pool: if classifies { GlobalPool::TokenAvg } else { GlobalPool::Token },
        reg_tokens,
        no_embed_class: registers,
        ..plain
    })
}

/// The width between the layers of a gated MLP: two thirds of what the ratio gives an ungated one, in multiples of 8.
fn gated_hidden(dim: usize, ratio: f64) -> usize {
    let plain = (dim as f64 * ratio) as usize;
    (plain / 3 * 2 + plain % 3 * 2 / 3).min(1 << 29).next_multiple_of(8)
}

/// A ratio that gives a gated MLP this width, a whole number if there is one.
fn gated_ratio(dim: usize, hidden: usize) -> Option<f64> {
    let whole = (1..=16).map(f64::from);
    // Two thirds of it are hidden, or just above.
    let exact = (3 * hidden).div_ceil(2) as f64 / dim.max(1) as f64;
    whole.chain([exact, exact.next_up()]).find(|ratio| gated_hidden(dim, *ratio) == hidden)
}

/// Names of the classes, unless they are the library's "LABEL_0", ..
fn labels(json: &Object<'_>, classes: usize) -> Result<Vec<String>> {
    let labels = json.object("id2label")?;
    let label = |at: usize| labels.text(&at.to_string());
    let names: Vec<Option<&str>> = (0..classes).map(label).collect::<Result<_>>()?;
    let names: Option<Vec<String>> = names.into_iter().map(|name| name.map(str::to_owned)).collect();
    let numbered = |names: &Vec<String>| names.iter().enumerate().all(|(at, name)| *name == format!("LABEL_{at}"));
    Ok(names.filter(|names| !numbered(names)).unwrap_or_default())
}

/// The config.json that transformers would have written.
///
/// # Errors
/// A setting that its models do not have.
pub(super) fn write(config: &TrainConfig, classes: &[String]) -> Result<Value> {
    let ModelConfig::Vit(vit) = &config.model else {
        return Err(super::has_no("what is written for transformers", "model.name = \"pvt\""));
    };
    super::only_softmax(config, "transformers")?;
    let scaled = vit.init_values > 0.0;
    let pool = if scaled && vit.num_classes > 0 { GlobalPool::TokenAvg } else { GlobalPool::Token };
    let plain = VitConfig { qk_norm: false, pre_norm: false, fc_norm: false, ..vit.clone() };
    if plain != *vit || vit.global_pool != pool || (scaled && vit.dist_token) {
        return Err(super::has_no(
            "transformers",
            "qk_norm, pre_norm, fc_norm or another pooling than the class token's (DINOv2's classifiers: token-avg)",
        ));
    }
    let registers = vit.reg_tokens > 0;
    let gated = vit.mlp_layer == MlpLayer::SwigluPacked;
    if registers != vit.no_embed_class || ((registers || gated) && !scaled) || !vit.head_bias {
        return Err(super::has_no(
            "what is written for transformers",
            "model.no_embed_class without model.reg_tokens or the other way round, registers or a gated MLP without layer \
             scale, or a classifier without a bias",
        ));
    }
    let ImageSize { height, width } = vit.image_size;
    let kind = match (registers, scaled, vit.dist_token) {
        (true, ..) => "dinov2_with_registers",
        (_, true, _) => "dinov2",
        (.., true) => "deit",
        _ => "vit",
    };
    let mut json = json!({
        "model_type": kind,
        "hidden_size": vit.embed_dim,
        "num_hidden_layers": vit.depth,
        "num_attention_heads": vit.num_heads,
        "hidden_act": if vit.act_layer == ActLayer::Gelu { "gelu" } else { "gelu_pytorch_tanh" },
        "layer_norm_eps": vit.norm_eps,
        "image_size": if height == width { json!(height) } else { json!([height, width]) },
        "patch_size": vit.patch_size,
        "num_channels": vit.in_chans,
        "qkv_bias": vit.qkv_bias,
    });
    if registers {
        json["num_register_tokens"] = json!(vit.reg_tokens);
    }
    if scaled {
        json["layerscale_value"] = json!(vit.init_values);
        json["use_swiglu_ffn"] = json!(gated);
        json["mlp_ratio"] = json!(written_ratio(vit)?);
    } else {
        json["intermediate_size"] = json!(vit.mlp_hidden());
    }
    if !classes.is_empty() {
        let labels = classes.iter().enumerate().map(|(at, name)| (at.to_string(), json!(name)));
        json["id2label"] = Value::Object(labels.collect());
        json["label2id"] =
            Value::Object(classes.iter().enumerate().map(|(at, name)| (name.clone(), json!(at))).collect());
    }
    Ok(json)
}

/// The ratio from which transformers works out the width that an MLP has.
fn written_ratio(vit: &VitConfig) -> Result<f64> {
    let (dim, hidden) = (vit.embed_dim, vit.mlp_hidden());
    if vit.mlp_layer == MlpLayer::Mlp {
        return Ok(super::ratio_for_theirs(dim, vit.mlp_ratio, hidden));
    }
    gated_ratio(dim, hidden / 2).ok_or_else(|| {
        super::has_no("transformers", &format!("a gated MLP of a hidden width of {}, no multiple of 8", hidden / 2))
    })
}

/// A file of ours under the library's names. With registers the library has a place for the class token, which here is part
/// of the token: it adds nothing.
///
/// # Errors
/// A tensor that cannot be cut into as many parts as they have.
pub(super) fn export(file: &TensorFile, vit: &VitConfig) -> Result<TensorFile> {
    let mut tensors = file.clone().into_tensors();
    if vit.reg_tokens > 0
        && vit.no_embed_class
        && let Some(table) = tensors.get_mut("pos_embed")
        && let &[1, places, dim] = table.shape()
    {
        // In the table's own type of numbers.
        let rows = table.clone().reshaped(vec![places, dim]);
        let whole = Stored::stacked(&[rows.zeros(1), rows]);
        *table = whole.map_or(table.clone(), |whole| whole.reshaped(vec![1, places + 1, dim]));
    }
    names(vit).export(&file.with_tensors(tensors))
}
