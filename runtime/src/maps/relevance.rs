//! Attention weighted with its gradient, without an N x M matrix.

use lara_shaders::RELEVANCE;

use crate::{Error, Recorder, Tensor};

/// Records the relevance [heads + 1, M] of every key, from the values v [1, heads, M, D] and their gradient dv of the same
/// shape (that of a class logit, say): max(0, sum over d of v dv) for each head, and last max(0, mean over heads of the
/// same sums before they were cut off at 0).
///
/// For every mechanism with output A v these sums are attention weighted with its gradient, sum over the queries n of
/// A\[n, m\] dA\[n, m\], where dA = dout v^T (the shader's header has the derivation), in O(M D) time. `dv` must be the
/// gradient through this attention alone. Shapes that do not fit are the recording's error.
pub fn relevance(rec: &mut Recorder, v: Tensor, dv: Tensor) -> Tensor {
    let (&[1, heads, keys, channels], true) = (v.dims(), v.shape() == dv.shape()) else {
        let (v, dv) = (v.shape(), dv.shape());
        rec.fail(Error::Shape(format!(
            "no relevance of values {v} with a gradient {dv}; both are [1, heads, M, D], of the same shape"
        )));
        return rec.scratch("relevance", [1, 1]);
    };
    let products = rec.scratch("values times gradient", [heads, keys]);
    let y = rec.scratch("relevance", [heads + 1, keys]);
    rec.step(&RELEVANCE, "products")
        .bind("v", v)
        .bind("dv", dv)
        .bind("product", products)
        .uint("heads", heads)
        .uint("keys", keys)
        .uint("channels", channels)
        .dispatch_items(heads * keys);
    rec.step(&RELEVANCE, "forward")
        .bind("s", products)
        .bind("y", y)
        .uint("heads", heads)
        .uint("keys", keys)
        .uint("channels", channels)
        .dispatch_items(keys);
    y
}
