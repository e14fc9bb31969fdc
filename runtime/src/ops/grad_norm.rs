//! Global gradient norm and clipping factor.

use lara_shaders::GRAD_NORM;

use crate::{Parameters, Place, Recorder, Role, Tensor};

/// Numbers of a partial sum.
const PART: usize = 4096;

/// Records norm `[2]`: the Euclidean norm of all parameter gradients and the factor that clips it to `max_norm`
/// (infinite for no clipping). If a gradient is not finite, or 2^47 or more in size, the norm is NaN and the factor 0.
pub fn grad_norm(rec: &mut Recorder, parameters: &Parameters, max_norm: f32) -> Tensor {
    let total: usize = parameters.trained_chunks().map(|(_, chunk)| chunk.len.div_ceil(PART)).sum();
    let partial = rec.scratch("squared gradients", [total]);
    let norm = rec.pinned("gradient norm", [2]);
    let max_norm = max_norm.min(f32::MAX);
    let mut offset = 0;
    for (index, chunk) in parameters.trained_chunks() {
        let (len, count) = (chunk.len, chunk.len.div_ceil(PART));
        let grads = rec.tensor("gradients", [len].into(), Place::Chunk { index, role: Role::Grad });
        rec.step(&GRAD_NORM, "squares")
            .bind("grads", grads)
            .bind("partial", partial)
            .uint("len", len)
            .uint("offset", offset)
            .uint("partials", total)
            .float("max_norm", max_norm)
            .float("not_finite", f32::NAN)
            .dispatch_groups(count);
        offset += count;
    }
    rec.step(&GRAD_NORM, "finish")
        .bind("partial", partial)
        .bind("norm", norm)
        .uint("len", 0)
        .uint("offset", 0)
        .uint("partials", total)
        .float("max_norm", max_norm)
        .float("not_finite", f32::NAN)
        .dispatch([1, 1, 1]);
    norm
}
