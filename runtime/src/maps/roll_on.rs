//! One layer of a rollout, in linear memory.

use lara_shaders::ROLL_ON;

use crate::{Error, Recorder, Tensor};

/// Records select[r, n] = (select[r, n] + rows[r, heads, n]) / 2, in place, for rows [R, heads + 1, N] that
/// [`super::collect_rows`] worked out for select [R, N].
///
/// These rows are select times the layer's implied attention matrix (averaged over the heads, behind them), so this is
/// select (A + I) / 2. Begun with the selection of a query and done for the layers from the last to the first, it leaves
/// that query's row of the rollout (Abnar and Zuidema, 2020; [`super::rollout`] with the heads' mean and nothing
/// discarded), and no N x N numbers were held. Shapes that do not fit are the recording's error.
pub fn roll_on(rec: &mut Recorder, rows: Tensor, select: Tensor) {
    let (&[count, maps, keys], &[chosen, tokens]) = (rows.dims(), select.dims()) else {
        return rec.fail(refused(rows, select));
    };
    if count != chosen || keys != tokens || maps < 2 {
        return rec.fail(refused(rows, select));
    }
    rec.step(&ROLL_ON, "forward")
        .bind("rows", rows)
        .bind("chosen", select)
        .uint("rows", count)
        .uint("heads", maps - 1)
        .uint("tokens", tokens)
        .dispatch_items(count * tokens);
}

fn refused(rows: Tensor, select: Tensor) -> Error {
    let (rows, select) = (rows.shape(), select.shape());
    Error::Shape(format!(
        "a selection {select} cannot be rolled on with rows {rows}; it is [R, N] for rows [R, heads + 1, N]"
    ))
}
