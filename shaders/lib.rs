//! The WGSL kernels of lara: arithmetic and nothing else.
//!
//! One [`Module`] per `.wgsl` file, named by its path without the ending. A line `#import name` is replaced by the file
//! `common/name.wgsl`; imports are flat (imported files import nothing).

/// One WGSL file.
#[derive(Debug, PartialEq, Eq)]
pub struct Module {
    /// Path below `shaders/` without `.wgsl`, for instance `attention/attend_merge`.
    pub name: &'static str,
    text: &'static str,
}

impl Module {
    /// The file's text with its imports resolved.
    ///
    /// An unknown import is left in place, where the WGSL front end names it and its line.
    pub fn source(&self) -> String {
        let mut resolved = String::with_capacity(self.text.len() + 4096);
        for line in self.text.lines() {
            let import = line.strip_prefix("#import ").and_then(|name| COMMON.iter().find(|c| c.0 == name.trim()));
            resolved.push_str(import.map_or(line, |c| c.1));
            resolved.push('\n');
        }
        resolved
    }

    /// Whether it needs subgroups, and these of exactly 8 lanes. Core WebGPU has none, so it is a variant of something else.
    pub fn has_subgroups(&self) -> bool {
        self.text.contains("subgroup_invocation_id")
    }

    /// The last part of the name, which the operation and the test share.
    pub fn basename(&self) -> &'static str {
        self.name.rsplit('/').next().unwrap_or(self.name)
    }
}

const COMMON: &[(&str, &str)] = &[
    ("header", include_str!("common/header.wgsl")),
    ("philox", include_str!("common/philox.wgsl")),
    ("index", include_str!("common/index.wgsl")),
    ("erf", include_str!("common/erf.wgsl")),
    ("finite", include_str!("common/finite.wgsl")),
    ("mask", include_str!("common/mask.wgsl")),
    ("matmul", include_str!("common/matmul.wgsl")),
    ("reduce", include_str!("common/reduce.wgsl")),
    ("sums", include_str!("common/sums.wgsl")),
    ("depthwise_conv", include_str!("common/depthwise_conv.wgsl")),
    ("attend", include_str!("common/attend.wgsl")),
    ("attend_backward", include_str!("common/attend_backward.wgsl")),
];

macro_rules! modules {
    ($($constant:ident = $name:literal;)*) => {
        $(
            #[doc = concat!("`", $name, ".wgsl`")]
            pub const $constant: Module = Module { name: $name, text: include_str!(concat!($name, ".wgsl")) };
        )*
        /// Every module, in the order of registration.
        pub const MODULES: &[&Module] = &[$(&$constant),*];
    };
}

modules! {
    MATMUL_TILES = "matmul_tiles";
    MATMUL_ROWS = "matmul_rows";
    MATMUL_ROWS4 = "matmul_rows4";
    MATMUL_LANES = "matmul_lanes";
    RESIDUAL = "residual";
    GELU = "gelu";
    GELU_TANH = "gelu_tanh";
    SWIGLU = "swiglu";
    LAYER_SCALE = "layer_scale";
    RELU = "relu";
    DROPOUT = "dropout";
    LAYERNORM = "layernorm";
    PATCHIFY = "patchify";
    UNFOLD = "unfold";
    DEPTHWISE_CONV_VECTOR = "depthwise_conv_vector";
    DEPTHWISE_CONV_SCALAR = "depthwise_conv_scalar";
    POSITION_EMBEDDING = "position_embedding";
    POOLING = "pooling";
    COLUMN_SUM = "column_sum";
    CROSS_ENTROPY = "cross_entropy";
    DISTILLATION = "distillation";
    GRAD_NORM = "grad_norm";
    ADAMW = "adamw";
    AGC = "agc";
    PEAK = "peak";
    FILL = "fill";
    DIFFERENCE = "difference";
    HEADS = "attention/heads";
    ATTEND_VECTOR = "attention/attend_vector";
    ATTEND_SCALAR = "attention/attend_scalar";
    ATTEND_MERGE = "attention/attend_merge";
    SOFTMAX = "attention/softmax";
    KEY_NORMS = "attention/key_norms";
    JOIN_TOKENS = "attention/join_tokens";
    VALUE_NORMS = "attention/value_norms";
    MASK = "attention/mask";
    LANDMARKS = "attention/landmarks";
    REAL_TOKENS = "attention/real_tokens";
    DIVIDE = "attention/divide";
    PERFORMER_FEATURES = "attention/performer_features";
    BROADCAST = "attention/broadcast";
    PROJECTION = "attention/projection";
    NOISE = "attention/noise";
    DRAW_KEYS = "attention/draw_keys";
    GATHER_KEYS = "attention/gather_keys";
    ADD_TOKEN = "attention/add_token";
    COLUMN_LSE = "attention/column_lse";
    LARA_WEIGHTS = "attention/lara_weights";
    LARA_MIX = "attention/lara_mix";
    RELATIVE_LSE = "attention/relative_lse";
    SELECT_ROWS = "maps/select_rows";
    COLLECT_ROWS = "maps/collect_rows";
    MAP_RANGE = "maps/map_range";
    MAP_DISTANCE = "maps/map_distance";
    MOMENTS = "maps/moments";
    FUSE_HEADS = "maps/fuse_heads";
    DISCARD = "maps/discard";
    ROLLOUT = "maps/rollout";
    RELEVANCE = "maps/relevance";
    ROLL_ON = "maps/roll_on";
    WEIGH = "maps/weigh";
}
