// Global gradient norm and the factor min(1, max_norm / norm) that clips it.
// squares  one invocation per 64 consecutive numbers of a chunk, 64 a workgroup; stores one partial sum each at `offset`
// finish   one workgroup of 64: norm = sqrt(sum of params.partials partial sums), factor
// Write policy: stores. A norm that is not finite gives a factor of 0, so that no weight is spoilt before the host stops.

#import index

struct Params { len: u32, offset: u32, partials: u32, max_norm: f32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> grads: array<f32>;          // [len]
@group(0) @binding(3) var<storage, read_write> partial: array<f32>;  // [partials]
@group(0) @binding(4) var<storage, read_write> norm: array<f32>;     // [2] norm, factor

var<workgroup> sums: array<f32, 64>;

@compute @workgroup_size(64)
fn squares(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let at = flat_index(workgroup, workgroups, 64u, local);
    let begin = at * 64u;
    if begin >= params.len {
        return;
    }
    var sum = 0.0;
    for (var i = begin; i < min(begin + 64u, params.len); i++) {
        sum += grads[i] * grads[i];
    }
    partial[params.offset + at] = sum;
}

@compute @workgroup_size(64)
fn finish(@builtin(local_invocation_index) local: u32) {
    var sum = 0.0;
    for (var i = local; i < params.partials; i += 64u) {
        sum += partial[i];
    }
    sums[local] = sum;
    workgroupBarrier();
    if local == 0u {
        var total = 0.0;
        for (var i = 0u; i < 64u; i++) {
            total += sums[i];
        }
        let length = sqrt(total);
        var factor = 1.0;
        if length > params.max_norm {
            factor = params.max_norm / length;
        }
        norm[0] = length;
        // NaN and overflow both fail this comparison.
        norm[1] = select(0.0, factor, length <= 3.0e38);
    }
}
