//! The ends of a map's colour scale.

use lara_shaders::MAP_RANGE;

use crate::{Error, Recorder, Shape, Tensor, Variant};

/// One workgroup a map where workgroups are cheap to synchronise, one invocation a map where they are not.
const VARIANTS: [Variant; 2] = [Variant::FORWARD, Variant::FORWARD_ROWS];

/// Records [.., 2], the smallest and the largest value over the last dimension of maps [.., M], of the elements from
/// `skip` on (`skip` class tokens in front are left out). Exact; infinities count as the ends that they are. A `skip`
/// that leaves nothing is the recording's error.
pub fn map_range(rec: &mut Recorder, maps: Tensor, skip: usize) -> Tensor {
    let mut dims = maps.dims().to_vec();
    match dims.last_mut() {
        Some(last) => *last = 2,
        None => dims.push(2),
    }
    let range = rec.scratch("range", Shape::from(&dims[..]));
    if skip >= maps.last() {
        let what = format!(
            "maps {} have no element from {skip} on; skip at most {}",
            maps.shape(),
            maps.last().saturating_sub(1)
        );
        rec.fail(Error::Shape(what));
        return range;
    }
    let (rows, cols) = (maps.rows().min(16_384), maps.last());
    let key = format!("map_range {} {}", rows.next_power_of_two(), cols.next_power_of_two());
    let variant = rec.choose(&key, &VARIANTS, &|rec, variant| {
        let (maps, range) = (rec.scratch("maps", [rows, cols]), rec.scratch("range", [rows, 2]));
        record(rec, variant, [maps, range], skip);
    });
    record(rec, variant, [maps, range], skip);
    range
}

fn record(rec: &mut Recorder, variant: Variant, [maps, range]: [Tensor; 2], skip: usize) {
    rec.step(&MAP_RANGE, variant.name())
        .bind("x", maps)
        .bind("range", range)
        .uint("rows", maps.rows())
        .uint("cols", maps.last())
        .uint("skip", skip)
        .dispatch_rows(maps.rows());
}
