//! The lowest entries of maps, set to 0.

use lara_shaders::DISCARD;

use crate::{Error, Recorder, Tensor};

/// Records maps [.., N, M] without their lowest entries: of each map of N M entries those below its (k + 1)-lowest become
/// 0, where k = floor(ratio N M) and `ratio` `[1]` is an input of the plan, so that it can change from run to run (below 0
/// it counts as 0, above 1 as 1). Found exactly, on the device.
///
/// Entries that equal the (k + 1)-lowest are kept: at most k entries are discarded, and of a map of equal numbers none. A
/// ratio of 1 discards all. The first `prefix` columns, what is attended to in the class token, are kept as they are,
/// though their entries count for k. (vit-explain means to keep the class token, too, but keeps the first entry of the
/// first row only.) Shapes that do not fit are the recording's error.
pub fn discard(rec: &mut Recorder, maps: Tensor, ratio: Tensor, prefix: usize) -> Tensor {
    let kept = rec.scratch("kept", maps.shape());
    let &[.., rows, cols] = maps.dims() else {
        rec.fail(Error::Shape(format!("maps {} are no matrices; they are [.., N, M]", maps.shape())));
        return kept;
    };
    if maps.is_empty() || ratio.len() != 1 {
        let (maps, ratio) = (maps.shape(), ratio.shape());
        rec.fail(Error::Shape(format!("maps {maps} cannot be thinned by a ratio {ratio}; it is one number, [1]")));
        return kept;
    }
    let entries = rows * cols;
    let count = maps.len() / entries;
    let lowest = rec.scratch("lowest kept", [count]);
    rec.step(&DISCARD, "threshold")
        .bind("x", maps)
        .bind("ratio", ratio)
        .bind("lowest", lowest)
        .uint("maps", count)
        .uint("entries", entries)
        .uint("cols", cols)
        .uint("kept", prefix)
        .dispatch([count, 1, 1]);
    rec.step(&DISCARD, "forward")
        .bind("x", maps)
        .bind("limits", lowest)
        .bind("y", kept)
        .uint("maps", count)
        .uint("entries", entries)
        .uint("cols", cols)
        .uint("kept", prefix)
        .dispatch_items(maps.len());
    kept
}
