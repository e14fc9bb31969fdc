//! How far maps are from reference maps.

use lara_shaders::MAP_DISTANCE;

use crate::ops::Difference;
use crate::{Error, Op, Recorder, Tensor, Variant};

/// One workgroup a map where workgroups are cheap to synchronise, one invocation a map where they are not.
const VARIANTS: [Variant; 2] = [Variant::FORWARD, Variant::FORWARD_ROWS];

/// Records four distances [K, 4] of each of the maps a [.., M] from its reference b [.., M], where K is the number of
/// maps:
///
/// 0. the relative error |a - b| / |b| with Euclidean norms (|b| counts as at least 1e-12);
/// 1. KL(b || a) = sum of b log(b / a) in nats, over the entries with b > 0; a counts as at least 1e-12, so a map that
///    misses what the reference sees gives a large number, not infinity. For maps that do not sum to 1 it may be negative;
/// 2. the total variation (1/2) sum of |a - b|;
/// 3. the largest |a - b|.
///
/// Shapes that differ are the recording's error.
pub fn map_distance(rec: &mut Recorder, maps: Tensor, reference: Tensor) -> Tensor {
    let distance = rec.scratch("distance", [maps.rows(), 4]);
    if !fits(rec, maps, reference) {
        return distance;
    }
    let (rows, cols) = (maps.rows().min(16_384), maps.last());
    let key = format!("map_distance {} {}", rows.next_power_of_two(), cols.next_power_of_two());
    let variant = rec.choose(&key, &VARIANTS, &|rec, variant| {
        let [a, b] = ["a", "b"].map(|label| rec.scratch(label, [rows, cols]));
        let distance = rec.scratch("distance", [rows, 4]);
        record(rec, variant, [a, b, distance]);
    });
    record(rec, variant, [maps, reference, distance]);
    distance
}

/// Records maps - reference, entry by entry, of their shape. Shapes that differ are the recording's error.
pub fn map_difference(rec: &mut Recorder, maps: Tensor, reference: Tensor) -> Tensor {
    if !fits(rec, maps, reference) {
        return maps;
    }
    Difference.forward(rec, &[maps, reference]).y[0]
}

fn fits(rec: &mut Recorder, maps: Tensor, reference: Tensor) -> bool {
    let fits = maps.shape() == reference.shape();
    if !fits {
        let (maps, reference) = (maps.shape(), reference.shape());
        rec.fail(Error::Shape(format!(
            "maps {maps} cannot be compared with {reference}; their shapes must be the same"
        )));
    }
    fits
}

fn record(rec: &mut Recorder, variant: Variant, [a, b, distance]: [Tensor; 3]) {
    rec.step(&MAP_DISTANCE, variant.name())
        .bind("a", a)
        .bind("b", b)
        .bind("distances", distance)
        .uint("rows", a.rows())
        .uint("cols", a.last())
        .dispatch_rows(a.rows());
}
