//! Every kernel against its float64 reference, forward and backward.

mod adamw;
mod agc;
mod attention;
mod column_sum;
mod cross_entropy;
mod device;
mod difference;
mod dropout;
mod fill;
mod gelu;
mod grad_norm;
mod harness;
mod layer_scale;
mod layernorm;
mod long_sums;
mod maps;
mod matmul;
mod patchify;
mod peak;
mod pieces;
mod pooling;
mod position_embedding;
mod residual;
mod runtime;
mod swiglu;
mod tune;
