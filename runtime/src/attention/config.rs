//! What a user may ask of an attention mechanism, in the words of the released code (HKUNLP/efficient-attention).

use serde::{Deserialize, Serialize};

/// Which estimator of softmax attention a layer uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MechanismKind {
    /// Exact softmax attention, O(N M) time and O(N + M) memory.
    Softmax,
    /// Linear randomized attention (Zheng, Wang and Kong, ICML 2022, section 4), O((N + M) C) time.
    #[default]
    Lara,
}

/// How the proposals of LARA are weighted (multiple importance sampling; paper, section 4.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MisType {
    /// Balance heuristic plus a query-specific correction, the paper's choice.
    #[default]
    MisOpt,
}

/// Where the landmarks that centre the proposals come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProposalGen {
    /// Average pooling, then a learned Linear and LayerNorm, for queries and for keys.
    #[default]
    Pool,
    /// Average pooling alone: nothing is learned, so it can replace softmax in a trained model.
    NoParamPool,
}

/// Standard deviation of the noise around each proposal's mean while training. At evaluation there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Noise {
    /// 1.0, as in the authors' code; slightly biased but stable.
    #[default]
    Released,
    /// d^(1/4) for head dimension d, as the derivation asks.
    Exact,
    /// 0: the proposals' means are used while training, too.
    None,
}

/// Attention settings of one layer. Fields that a mechanism does not have are ignored by it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AttentionConfig {
    /// The estimator.
    pub mechanism: MechanismKind,
    /// Number of proposals C asked for; on a grid it is rounded down to a square.
    pub num_landmarks: usize,
    /// Landmark generator.
    pub proposal_gen: ProposalGen,
    /// Weighting of the proposals.
    pub mis_type: MisType,
    /// Strength of the query-specific weight under `mis-opt` (2.0 in the published vision runs).
    pub alpha_coeff: f32,
    /// Noise while training.
    pub noise: Noise,
}

impl Default for AttentionConfig {
    fn default() -> Self {
        Self {
            mechanism: MechanismKind::default(),
            num_landmarks: 49,
            proposal_gen: ProposalGen::default(),
            mis_type: MisType::default(),
            alpha_coeff: 1.0,
            noise: Noise::default(),
        }
    }
}
