//! One map out of the maps of all heads.

use lara_shaders::FUSE_HEADS;

use crate::{Error, Recorder, Tensor};

/// How the maps of several heads become one, entry by entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fusion {
    /// Their mean, as Abnar and Zuidema (2020) have it.
    #[default]
    Mean,
    /// Their largest.
    Max,
    /// Their smallest.
    Min,
}

/// Records the map [N, M] that `fusion` makes of maps [1, heads, N, M]. Other shapes are the recording's error.
pub fn fuse_heads(rec: &mut Recorder, maps: Tensor, fusion: Fusion) -> Tensor {
    let &[1, _, rows, cols] = maps.dims() else {
        rec.fail(Error::Shape(format!("maps {} have no heads to be fused; they are [1, heads, N, M]", maps.shape())));
        return maps;
    };
    let fused = rec.scratch("fused", [rows, cols]);
    fuse_heads_at(rec, maps, fusion, (fused, 0));
    fused
}

/// As [`fuse_heads`], into `fused` from an offset on.
pub(super) fn fuse_heads_at(rec: &mut Recorder, maps: Tensor, fusion: Fusion, (fused, offset): (Tensor, usize)) {
    let heads = maps.dims()[1];
    let entries = maps.len() / heads.max(1);
    let mode = match fusion {
        Fusion::Mean => 0,
        Fusion::Max => 1,
        Fusion::Min => 2,
    };
    rec.step(&FUSE_HEADS, "forward")
        .bind("x", maps)
        .bind("y", fused)
        .uint("heads", heads)
        .uint("entries", entries)
        .uint("mode", mode)
        .uint("offset", offset)
        .dispatch_items(entries);
}
