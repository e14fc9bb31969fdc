//! Which sizes and tokens of a Vision Transformer are possible together.

use super::{GlobalPool, VitConfig};
use crate::check::{ensure, tensor};
use crate::error::Result;

/// A square of 2,048 patches; attention over more is a matter of days.
const MAX_PATCHES: u64 = 1 << 22;

/// 4 GiB of f32: more than an adapter binds at once.
const MAX_TENSOR: u64 = 1 << 30;

impl VitConfig {
    /// Checks that every tensor of one image and all weights can be counted where `address_space` bytes can: products are
    /// taken in 64 bits, for programs of 32, too. The single sizes were checked before.
    ///
    /// # Errors
    /// The first that cannot, and what to lower.
    pub fn check_sizes(&self, address_space: u64) -> Result<()> {
        let [height, width, patch, channels, dim, depth, classes, hidden, prefix] = [
            self.image_size.height,
            self.image_size.width,
            self.patch_size,
            self.in_chans,
            self.embed_dim,
            self.depth,
            self.num_classes,
            self.mlp_hidden(),
            self.num_prefix_tokens(),
        ]
        .map(|size| size as u64);
        let patches = (height / patch) * (width / patch);
        ensure(patches <= MAX_PATCHES, || {
            format!(
                "model.image_size = {} in patches of {patch} has {patches} patches; at most {MAX_PATCHES} are possible: choose \
                 a larger model.patch_size",
                self.image_size
            )
        })?;
        let (tokens, lower) = (patches + prefix, "model.embed_dim or model.image_size");
        for (what, sizes, lower) in [
            ("an image", &[channels, height, width][..], "model.image_size"),
            ("the patch embedding", &[dim, channels, patch, patch], "model.patch_size or model.embed_dim"),
            ("the queries, keys and values", &[tokens, 3, dim], lower),
            ("the MLP's hidden layer", &[tokens, hidden], lower),
            ("a weight of the MLP", &[hidden, dim], "model.embed_dim or model.mlp_ratio"),
            ("the projection to queries, keys and values", &[3, dim, dim], "model.embed_dim"),
            ("the classifier", &[classes, 2, dim], "model.embed_dim or model.num_classes"),
        ] {
            tensor(what, sizes, MAX_TENSOR, lower)?;
        }
        let block = dim * (4 * dim + 2 * hidden);
        let weights = dim * (channels * patch * patch + tokens + 2 * classes) + depth * block;
        // Weights, gradients and both moments of AdamW, 4 bytes each.
        ensure(weights <= address_space / 16, || {
            format!(
                "the model would have {weights} weights, and this program can address {address_space} bytes, 16 of which \
                 each needs: lower model.embed_dim or model.depth"
            )
        })
    }

    /// Checks which tokens there are against what is made of them.
    pub(super) fn check_tokens(&self) -> Result<()> {
        ensure(self.class_token || self.global_pool == GlobalPool::Avg, || {
            let pool = if self.global_pool == GlobalPool::Token { "token" } else { "token-avg" };
            format!("model.global_pool = \"{pool}\" needs model.class_token = true; without one use \"avg\"")
        })?;
        ensure(self.class_token || !self.dist_token, || {
            "model.dist_token = true needs model.class_token = true: a distillation token stands behind a class token"
                .into()
        })?;
        let two_heads = self.dist_token && self.global_pool == GlobalPool::Token && self.num_classes > 0;
        ensure(two_heads || !self.head_dist, || {
            "model.head_dist = true needs model.dist_token = true, model.global_pool = \"token\" and model.num_classes above \
             0: it is the distillation token's classifier"
                .into()
        })
    }
}
