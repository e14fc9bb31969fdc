//! What a mechanism reads besides queries, keys and values, answered before anything is recorded.

use super::{AttentionConfig, FeatureMap, MechanismKind, Projection, ProposalGen, SampleScheme};

/// How a mechanism comes by one of its [`Extra`]s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Taken from the [`Context`](super::Context) if it is there; the mechanism does without it, or draws it.
    Optional,
    /// Must be in the context.
    Required,
    /// A parameter of that name, which is trained: not in the context.
    Learned,
}

/// A tensor that a mechanism reads besides queries, keys and values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extra {
    /// The field of the context, or the parameter.
    pub name: &'static str,
    /// How the mechanism comes by it.
    pub need: Need,
    /// Its sizes; `None` where they follow from landmarks on a grid, or from the parameter.
    pub shape: Option<Vec<usize>>,
    /// What the sizes stand for.
    pub axes: &'static str,
}

impl AttentionConfig {
    /// Everything of the [`Context`](super::Context) that this mechanism reads with queries [batch, heads, N, D] and so
    /// many keys M, and the projection if it is learned. Other learned weights (those of landmarks and feature maps) are
    /// declared when the mechanism is recorded.
    pub fn extras(&self, [batch, heads, queries, dim]: [usize; 4], keys: usize) -> Vec<Extra> {
        let extra = |name, need, shape: &[usize], axes| Extra { name, need, shape: Some(shape.to_vec()), axes };
        let mut extras = vec![extra("key_padding_mask", Need::Optional, &[batch, keys], "[batch, M]")];
        let draws = queries.saturating_mul(usize::try_from(self.num_samples).unwrap_or(1).max(1));
        match self.mechanism {
            MechanismKind::Softmax => {}
            MechanismKind::Lara => {
                let axes = "[batch, heads, C, D]";
                extras.push(Extra { name: "noise", need: Need::Optional, shape: None, axes });
            }
            MechanismKind::Ra => {
                let axes = "[batch, heads, N x num_samples, D]";
                extras.push(extra("noise", Need::Optional, &[batch, heads, draws, dim], axes));
                if self.num_samples > 0 {
                    let axes = "[batch, heads, N x num_samples]";
                    extras.push(extra("index", Need::Optional, &[batch, heads, draws], axes));
                }
            }
            MechanismKind::Rfa | MechanismKind::Performer => {
                let axes = "[heads, features, D]";
                if self.learns_projection() {
                    extras.push(Extra { name: "projection", need: Need::Learned, shape: None, axes });
                } else if self.projects() && self.projection == Projection::Given {
                    extras.push(extra("projection", Need::Required, &[heads, self.features, dim], axes));
                }
            }
        }
        extras
    }

    /// Whether the weights depend on the values, too. Where they do not, attending to unit vectors gives their columns.
    pub fn weighs_by_values(&self) -> bool {
        self.mechanism == MechanismKind::Lara && self.proposal_gen == ProposalGen::PoolVmixed
    }

    /// Whether tokens are multiplied with random directions that can be given.
    fn projects(&self) -> bool {
        let random = matches!(self.kernel, FeatureMap::Favorp | FeatureMap::Fourier | FeatureMap::Relu);
        self.mechanism == MechanismKind::Rfa || (self.mechanism == MechanismKind::Performer && random)
    }

    fn learns_projection(&self) -> bool {
        let waves = self.mechanism == MechanismKind::Performer && self.kernel == FeatureMap::MlpFourier;
        let learnable = self.sample_scheme == SampleScheme::Learnable && self.projection != Projection::Given;
        waves || (learnable && self.projects())
    }
}
