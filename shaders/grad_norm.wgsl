// Global gradient norm and the factor min(1, max_norm / norm) that clips it.
// squares  one workgroup of 64 per 4,096 consecutive numbers of a chunk, spread over x and y; stores one partial sum at
//          `offset`, or -1 if a number is not finite
// finish   one workgroup of 64: norm = sqrt(sum of params.partials partial sums), factor
// A number of 2^47 (1.4e14) or more in size counts as not finite: so no sum of up to 2^32 squares can overflow.
// Write policy: stores. Where a number is not finite, the norm is params.not_finite and the factor 0, so that no weight is
// spoilt before the host stops.

#import finite
#import index
#import reduce

const PART = 4096u;   // numbers of a partial sum
const STRETCH = 128u; // partial sums that an invocation adds up by themselves

struct Params { len: u32, offset: u32, partials: u32, max_norm: f32, not_finite: f32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> grads: array<f32>;          // [len]
@group(0) @binding(3) var<storage, read_write> partial: array<f32>;  // [partials]
@group(0) @binding(4) var<storage, read_write> norm: array<f32>;     // [2] norm, factor

@compute @workgroup_size(WORKGROUP)
fn squares(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let at = workgroup.x + workgroup.y * workgroups.x;
    let begin = at * PART;
    if begin >= params.len {
        return;
    }
    var sum = 0.0;
    var spoilt = 0.0;
    for (var i = begin + local; i < min(begin + PART, params.len); i += WORKGROUP) {
        let g = grads[i];
        sum += g * g;
        spoilt = select(1.0, spoilt, is_finite_below(g, 47u));
    }
    sum = sum_of(sum, local);
    spoilt = largest_of(spoilt, local);
    if local == 0u {
        partial[params.offset + at] = select(sum, -1.0, spoilt == 1.0);
    }
}

@compute @workgroup_size(WORKGROUP)
fn finish(@builtin(local_invocation_index) local: u32) {
    var sum = 0.0;
    var spoilt = 0.0;
    // In stretches, since a chain of n additions is off by up to 1.5e-8 n.
    for (var first = local; first < params.partials; first += STRETCH * WORKGROUP) {
        var stretch = 0.0;
        for (var i = first; i < min(first + STRETCH * WORKGROUP, params.partials); i += WORKGROUP) {
            let part = partial[i];
            stretch += part;
            spoilt = select(spoilt, 1.0, part < 0.0);
        }
        sum += stretch;
    }
    sum = sum_of(sum, local);
    spoilt = largest_of(spoilt, local);
    if local == 0u {
        let length = sqrt(max(sum, 0.0));
        var factor = 1.0;
        if length > params.max_norm {
            factor = params.max_norm / length;
        }
        norm[0] = select(length, params.not_finite, spoilt == 1.0);
        norm[1] = select(factor, 0.0, spoilt == 1.0);
    }
}
