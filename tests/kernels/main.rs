//! Every kernel against its float64 reference, forward and backward.

mod adamw;
mod attention;
mod column_sum;
mod cross_entropy;
mod dropout;
mod embedding;
mod gelu;
mod grad_norm;
mod layernorm;
mod matmul;
mod patchify;
mod pooling;
mod residual;
