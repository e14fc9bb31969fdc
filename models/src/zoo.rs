//! Architectures by their names in timm, and the paper's.

use crate::image_size::ImageSize;
use crate::layers::MlpLayer;
use crate::pvt::PvtConfig;
use crate::vit::{GlobalPool, VitConfig};

/// Width, depth and heads by a word in the name.
const SIZES: [(&str, usize, usize, usize); 7] = [
    ("tiny", 192, 12, 3),
    ("small", 384, 12, 6),
    ("medium", 512, 12, 8),
    ("base", 768, 12, 12),
    ("large", 1024, 24, 16),
    ("huge", 1280, 32, 16),
    ("giant", 1536, 40, 24),
];

/// How many numbers a classifier has where nothing else is said: those of ImageNet-1k.
const CLASSES: usize = 1000;

/// A Vision Transformer by name, if there is one of it: `vit_base_patch16_224`, `deit_tiny_distilled_patch16_224`,
/// `deit3_small_patch16_384`, `vit_small_patch14_reg4_dinov2`, `evit_tiny_p8`. What stands behind a dot (timm's tag of the
/// weights) does not count.
pub(crate) fn vit(name: &str) -> Option<VitConfig> {
    let name = name.split('.').next().unwrap_or(name);
    vits().into_iter().find(|(known, _)| known == name).map(|(_, config)| config)
}

/// A Pyramid Vision Transformer by name, if there is one of it: `pvt_v2_b0` to `pvt_v2_b5`, `pvt_v2_b2_li`, and the paper's
/// `pvt_medium2`, with exact attention in its last stage.
pub(crate) fn pvt(name: &str) -> Option<PvtConfig> {
    let name = name.split('.').next().unwrap_or(name);
    pvts().into_iter().find(|(known, _)| *known == name).map(|(_, config)| config)
}

/// The names of all architectures that are in here, in families.
pub fn names() -> Vec<String> {
    let vits = vits().into_iter().map(|(name, _)| name);
    vits.chain(pvts().into_iter().map(|(name, _)| name.to_owned())).collect()
}

fn pvts() -> Vec<(&'static str, PvtConfig)> {
    let paper = PvtConfig::default();
    let reduced = PvtConfig {
        num_heads: [1, 2, 5, 8],
        sr_ratios: [8, 4, 2, 1],
        attention_layers: Vec::new(),
        ..PvtConfig::default()
    };
    let of = |depths| PvtConfig { depths, ..reduced.clone() };
    vec![
        ("pvt_v2_b0", PvtConfig { embed_dims: [32, 64, 160, 256], ..of([2, 2, 2, 2]) }),
        ("pvt_v2_b1", of([2, 2, 2, 2])),
        ("pvt_v2_b2", of([3, 4, 6, 3])),
        ("pvt_v2_b2_li", PvtConfig { linear: true, ..of([3, 4, 6, 3]) }),
        ("pvt_v2_b3", of([3, 4, 18, 3])),
        ("pvt_v2_b4", of([3, 8, 27, 3])),
        ("pvt_v2_b5", PvtConfig { mlp_ratios: [4.0; 4], ..of([3, 6, 40, 3]) }),
        ("pvt_medium2", paper),
    ]
}

/// All of them with their settings.
fn vits() -> Vec<(String, VitConfig)> {
    let mut all = Vec::new();
    for size in ["tiny", "small", "base", "large", "huge"] {
        for patch in [8, 14, 16, 32] {
            all.extend([224, 384].map(|image| (format!("vit_{size}_patch{patch}_{image}"), token(size, patch, image))));
        }
    }
    for size in ["tiny", "small", "base"] {
        for image in [224, 384] {
            all.push((format!("deit_{size}_patch16_{image}"), token(size, 16, image)));
            let distilled = VitConfig { dist_token: true, head_dist: true, ..token(size, 16, image) };
            all.push((format!("deit_{size}_distilled_patch16_{image}"), distilled));
        }
    }
    for (size, patch) in [("small", 16), ("medium", 16), ("base", 16), ("large", 16), ("huge", 14)] {
        for image in [224, 384] {
            let scaled = VitConfig { no_embed_class: true, init_values: 1e-6, ..token(size, patch, image) };
            all.push((format!("deit3_{size}_patch{patch}_{image}"), scaled));
        }
    }
    for size in ["small", "base", "large", "giant"] {
        let plain = dinov2(size);
        let registers = VitConfig { reg_tokens: 4, no_embed_class: true, ..plain.clone() };
        all.push((format!("vit_{size}_patch14_dinov2"), plain));
        all.push((format!("vit_{size}_patch14_reg4_dinov2"), registers));
    }
    for size in ["tiny", "small", "base"] {
        all.extend([16, 8, 4].map(|patch| (format!("evit_{size}_p{patch}"), sized(size, patch, 224))));
    }
    all.retain(|(_, config)| config.image_size.height.is_multiple_of(config.patch_size));
    all
}

/// The paper's form: no class token, a norm, the mean of the patches.
fn sized(size: &str, patch_size: usize, image: usize) -> VitConfig {
    let (_, embed_dim, depth, num_heads) =
        SIZES.into_iter().find(|(name, ..)| *name == size).unwrap_or((size, 192, 12, 3));
    let image_size = ImageSize::square(image);
    VitConfig { image_size, patch_size, embed_dim, depth, num_heads, num_classes: CLASSES, ..VitConfig::default() }
}

/// The form of ViT and DeiT: a class token, which is classified.
fn token(size: &str, patch_size: usize, image: usize) -> VitConfig {
    VitConfig { class_token: true, global_pool: GlobalPool::Token, ..sized(size, patch_size, image) }
}

/// DINOv2 (Oquab et al. 2024): no classifier, layer scale; the largest has a gated MLP.
fn dinov2(size: &str) -> VitConfig {
    let plain = VitConfig { init_values: 1e-5, num_classes: 0, ..token(size, 14, 518) };
    match size {
        "giant" => VitConfig { mlp_layer: MlpLayer::SwigluPacked, mlp_ratio: 2.0 * 2.66667, ..plain },
        _ => plain,
    }
}
