//! Rows of the implied attention matrix, out of the gradient of the values.

use lara_shaders::COLLECT_ROWS;

use crate::{Error, Recorder, Tensor};

/// Records rows [R, heads + 1, M] from the gradient of the values dv [1, heads, M, D] that [`super::select_rows`] with R
/// rows led to: rows[r, h, m] = dv[0, h, m, r], and rows[r, heads, m] is the mean over the heads. Shapes that do not fit
/// are the recording's error.
pub fn collect_rows(rec: &mut Recorder, dv: Tensor, rows: Tensor) {
    let (&[1, heads, keys, channels], &[count, maps, width]) = (dv.dims(), rows.dims()) else {
        return rec.fail(refused(dv, rows));
    };
    if count > channels || maps != heads + 1 || width != keys {
        return rec.fail(refused(dv, rows));
    }
    rec.step(&COLLECT_ROWS, "forward")
        .bind("dv", dv)
        .bind("rows", rows)
        .uint("rows", count)
        .uint("heads", heads)
        .uint("keys", keys)
        .uint("channels", channels)
        .dispatch_items(count * keys);
}

fn refused(dv: Tensor, rows: Tensor) -> Error {
    let (dv, rows) = (dv.shape(), rows.shape());
    Error::Shape(format!(
        "rows {rows} cannot be read from a gradient of values {dv}; they are [R, heads + 1, M] for [1, heads, M, D], with R \
         at most D"
    ))
}
