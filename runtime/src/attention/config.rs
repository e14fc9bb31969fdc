//! What a user may ask of an attention mechanism, in the words of the released code (HKUNLP/efficient-attention).

use serde::{Deserialize, Serialize};

use crate::Error;

/// Which estimator of softmax attention a layer uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MechanismKind {
    /// Exact softmax attention, O(N M) time and O(N + M) memory.
    Softmax,
    /// Randomized attention (paper, section 3): unbiased, O(S N M) time and O(S N + M) memory.
    Ra,
    /// Random feature attention in log form (paper, section 2.2), O(S (N + M)) time.
    Rfa,
    /// Performer and its relatives as the authors released them, epsilons and clamps included (spec 1.8).
    Performer,
    /// Linear randomized attention (Zheng, Wang and Kong, ICML 2022, section 4), O((N + M) C) time.
    #[default]
    Lara,
}

impl MechanismKind {
    /// All of them, exact first.
    pub const ALL: [MechanismKind; 5] =
        [MechanismKind::Softmax, MechanismKind::Ra, MechanismKind::Rfa, MechanismKind::Performer, MechanismKind::Lara];

    /// The name used in configurations.
    pub fn name(self) -> &'static str {
        match self {
            MechanismKind::Softmax => "softmax",
            MechanismKind::Ra => "ra",
            MechanismKind::Rfa => "rfa",
            MechanismKind::Performer => "performer",
            MechanismKind::Lara => "lara",
        }
    }
}

/// How the proposals of LARA are weighted (multiple importance sampling; paper, section 4.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MisType {
    /// Balance heuristic plus a query-specific correction, the paper's choice.
    #[default]
    MisOpt,
    /// Balance heuristic.
    MisBh,
    /// Query-specific weights exp(s mu_c.q_n) over the mixture's density; biased.
    MisBiased,
}

/// Where the landmarks that centre the proposals come from (spec 1.5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProposalGen {
    /// Average pooling, then a learned Linear and LayerNorm, for queries and for keys; plain means on a sequence.
    #[default]
    Pool,
    /// As `pool`, and the key landmarks attend to each other.
    PoolMixed,
    /// As `pool-mixed`, with the logarithm of the value landmarks' norms added to the logits.
    PoolVmixed,
    /// Average pooling alone: nothing is learned, so it can replace softmax in a trained model.
    NoParamPool,
    /// As `no-param-pool`, and the key landmarks attend to each other.
    NoParamPoolMixed,
    /// A learned Linear and LayerNorm on every token, then segment means: for sequences.
    #[serde(rename = "adaptive-1d")]
    Adaptive1d,
}

/// Whether the learned part of a landmark generator is one for all heads or spans them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PoolModule {
    /// One Linear(head dim) shared by the heads.
    #[default]
    Light,
    /// One Linear(heads x head dim) across the heads.
    Dense,
}

/// Standard deviation of the noise around each proposal's mean while training. At evaluation there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NoiseScale {
    /// 1.0, as in the authors' code; slightly biased but stable.
    #[default]
    Released,
    /// d^(1/4) for head dimension d, as the derivation asks.
    Exact,
    /// 0: the proposals' means are used while training, too.
    None,
}

/// Where the random features' projection comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Projection {
    /// Independent standard normal rows.
    Iid,
    /// Orthogonal rows in blocks of d, each as long as an independent Gaussian vector (Choromanski et al., 2021).
    #[default]
    Orthogonal,
    /// The one in the context.
    Given,
}

/// When a projection is drawn anew (spec 1.8).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SampleScheme {
    /// While training every `redraw_interval` steps; at evaluation one that never changes.
    #[default]
    Default,
    /// One that never changes, in training and at evaluation.
    Fixed,
    /// A parameter that is trained.
    Learnable,
}

/// Feature map of the `performer` mechanism (released name: `proj_method`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FeatureMap {
    /// FAVOR+: positive random features with the released epsilon and maxima.
    #[default]
    Favorp,
    /// Random Fourier features.
    Fourier,
    /// Rectified random projections.
    Relu,
    /// Rectified channels, no projection.
    ReluOnly,
    /// Sigmoid of the channels, no projection.
    SigmoidOnly,
    /// Deterministic parameter-free projection (Schlag et al., 2021).
    Dpfp,
    /// Random Fourier features through a learned Linear and a rectifier.
    MlpFourier,
}

/// What padded tokens do to LARA, RA, RFA and Performer (spec 1.9). Keys are masked either way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Padding {
    /// Nothing: a sample's real tokens get what they would get without the others, wherever these lie: landmarks, random
    /// draws, maxima and places count real tokens only. Padded queries get zeros.
    #[default]
    Exact,
    /// LARA: they count as zero vectors; Performer: they count for the keys' maximum; as in the authors' code.
    Released,
}

/// Attention settings of one layer. Fields that a mechanism does not have are ignored by it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AttentionConfig {
    /// The estimator.
    pub mechanism: MechanismKind,
    /// Hide key m from query n unless m <= n + M - N; softmax only.
    pub causal: bool,
    /// LARA: number of proposals C asked for; on a grid it is rounded down to a square (in a video to a cube).
    pub num_landmarks: usize,
    /// LARA: landmark generator.
    pub proposal_gen: ProposalGen,
    /// LARA: the learned part of the landmark generator, per head or across heads.
    pub pool_module_type: PoolModule,
    /// LARA: weighting of the proposals.
    pub mis_type: MisType,
    /// LARA: strength of the query-specific weight under `mis-opt` (2.0 in the published vision runs).
    pub alpha_coeff: f32,
    /// LARA, while training: a second sample mirrored at the mean for every proposal.
    pub use_antithetics: bool,
    /// LARA, while training: a second independent sample for every proposal; wins over `use_antithetics`.
    pub use_multisample: bool,
    /// LARA and RA: noise while training.
    pub noise: NoiseScale,
    /// What padded tokens do; softmax hides padded keys and needs no more.
    pub padding: Padding,
    /// RA: 0 centres on the keys' mean, -1 on their softmax mean, S >= 1 on S drawn keys.
    pub num_samples: i32,
    /// RFA and Performer: number of random features S (released name: `approx_attn_dim`).
    #[serde(alias = "approx_attn_dim")]
    pub features: usize,
    /// RFA and Performer: distribution of the projection.
    pub projection: Projection,
    /// RFA and Performer: when the projection is drawn.
    pub sample_scheme: SampleScheme,
    /// RFA and Performer: optimizer steps from one draw to the next under `default`.
    pub redraw_interval: usize,
    /// RFA and Performer: seed of the projections that never change.
    pub projection_seed: u32,
    /// Performer: feature map (released name: `proj_method`).
    #[serde(alias = "proj_method")]
    pub kernel: FeatureMap,
    /// Performer: multiply features by cos and sin of (pi / 2) i / N (cosFormer).
    pub cos_weighting: bool,
}

impl Default for AttentionConfig {
    fn default() -> Self {
        Self {
            mechanism: MechanismKind::default(),
            causal: false,
            num_landmarks: 49,
            proposal_gen: ProposalGen::default(),
            pool_module_type: PoolModule::default(),
            mis_type: MisType::default(),
            alpha_coeff: 1.0,
            use_antithetics: false,
            use_multisample: false,
            noise: NoiseScale::default(),
            padding: Padding::default(),
            num_samples: 1,
            features: 64,
            projection: Projection::default(),
            sample_scheme: SampleScheme::default(),
            redraw_interval: 1,
            projection_seed: 0,
            kernel: FeatureMap::default(),
            cos_weighting: false,
        }
    }
}

/// Most landmarks: LARA's point is that they are few.
const MOST_LANDMARKS: usize = 1 << 20;

/// Most random features and drawn keys: beyond this exact attention is cheaper.
const MOST_SAMPLES: usize = 65_536;

impl AttentionConfig {
    /// The standard deviation of proposal noise for head dimension `dim`.
    pub(super) fn noise_std(&self, training: bool, dim: usize) -> f32 {
        match self.noise {
            _ if !training => 0.0,
            NoiseScale::Released => 1.0,
            NoiseScale::Exact => (dim as f32).powf(0.25),
            NoiseScale::None => 0.0,
        }
    }

    /// Whether the settings make sense together.
    ///
    /// # Errors
    /// Names the first setting that does not, its value and what it may be.
    pub fn check(&self) -> Result<(), Error> {
        let complaint = if self.causal && self.mechanism != MechanismKind::Softmax {
            super::no_causal_form("causal is true", self.mechanism)
        } else if self.num_landmarks == 0 || self.num_landmarks > MOST_LANDMARKS {
            let landmarks = self.num_landmarks;
            format!("num_landmarks is {landmarks}; it must be between 1 and {MOST_LANDMARKS} (49 is usual)")
        } else if self.proposal_gen == ProposalGen::Adaptive1d && self.pool_module_type == PoolModule::Dense {
            "proposal_gen = adaptive-1d projects head by head; it needs pool_module_type = light".to_owned()
        } else if self.features == 0 || self.features > MOST_SAMPLES {
            format!("features is {}; it must be between 1 and {MOST_SAMPLES} (64 is usual)", self.features)
        } else if self.num_samples < -1 || self.num_samples > MOST_SAMPLES as i32 {
            let s = self.num_samples;
            format!(
                "num_samples is {s}; it must be -1 (softmax mean), 0 (plain mean) or 1 to {MOST_SAMPLES} drawn keys"
            )
        } else if self.redraw_interval == 0 {
            "redraw_interval is 0; it must be at least 1 step (sample_scheme = \"fixed\" never redraws)".to_owned()
        } else if !self.alpha_coeff.is_finite() {
            format!("alpha_coeff is {}; it must be a finite number (2.0 is usual)", self.alpha_coeff)
        } else {
            return Ok(());
        };
        Err(Error::Setting(complaint))
    }
}
