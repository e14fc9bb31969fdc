//! The gradient of an attention output that asks for rows of the implied attention matrix.

use lara_shaders::SELECT_ROWS;

use crate::{Error, Recorder, Tensor};

/// Records dout [1, heads, N, D] from select [R, N] (an input of the plan): dout[0, h, n, c] = select[c, n] for c < R and
/// 0 for the other channels, the same for every head.
///
/// Given as the gradient of an attention output it asks for R rows of the implied attention matrix A: the gradient of the
/// values is sum over n of select[r, n] A[h, n, m] in channel r. A row of `select` that is 1 at one query and 0 elsewhere
/// asks for that query's row, one of 1 / N everywhere for the mean over the queries. Shapes that do not fit, and more rows
/// than channels, are the recording's error.
pub fn select_rows(rec: &mut Recorder, select: Tensor, dout: Tensor) {
    let (&[rows, tokens], &[1, heads, queries, channels]) = (select.dims(), dout.dims()) else {
        return rec.fail(refused(select, dout));
    };
    if tokens != queries || rows > channels {
        return rec.fail(refused(select, dout));
    }
    rec.step(&SELECT_ROWS, "forward")
        .bind("chosen", select)
        .bind("dout", dout)
        .uint("rows", rows)
        .uint("heads", heads)
        .uint("tokens", tokens)
        .uint("channels", channels)
        .dispatch_items(tokens * channels);
}

fn refused(select: Tensor, dout: Tensor) -> Error {
    let (select, dout) = (select.shape(), dout.shape());
    Error::Shape(format!(
        "a selection {select} does not fit an output {dout}; it is [R, N] for an output [1, heads, N, D], with at most D rows \
         at once"
    ))
}
