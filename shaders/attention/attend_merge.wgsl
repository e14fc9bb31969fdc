// What surrounds the streaming attention of attend.wgsl: joining its splits, and preparing its backward pass.
//
//   forward_combine   out = sum_s w_s out_s / sum,  sum = sum_s w_s,  w_s = sum_s exp(peak_s - peak),  peak = max_s peak_s,
//                     lse = peak + log(sum). One thread per element of out.
//   backward_prepare  stats_n = (peak_n, 1 / sum_n, delta_n),  delta_n = sum_c dout_nc out_nc - dlse_n
//                     8 threads per query: ceil(rows / 8) workgroups.
//   backward_reduce   total_i = sum_s parts_si   (dq, dk, dv or dkey_bias from splits). One thread per element.
//
// Dispatch: workgroups of 64 threads, spread over x and y.
// A query whose splits are all masked (peak <= -1e29) has out = 0, lse = peak = -1e30, sum = 0.
// Write policy: stores; backward_reduce adds when params.accumulate == 1.

#import index
#import mask

struct Params {
    rows: u32,        // batch x queries; for backward_reduce the number of elements of `total`
    channels: u32,    // for backward_reduce 1
    splits: u32,
    has_dout: u32,    // 0: dout and out are not read
    has_dlse: u32,    // 0: dlse is not read
    accumulate: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> out_parts: array<f32>;    // [splits, rows, channels]
@group(0) @binding(3) var<storage, read> peak_and_sum_parts: array<f32>; // [splits, rows, 2]
@group(0) @binding(4) var<storage, read_write> out_joined: array<f32>; // [rows, channels]
@group(0) @binding(5) var<storage, read_write> lse_joined: array<f32>; // [rows]
@group(0) @binding(6) var<storage, read> out: array<f32>;          // [rows, channels]
@group(0) @binding(7) var<storage, read> saved: array<f32>;        // [rows, 2] peak and sum
@group(0) @binding(8) var<storage, read> dout: array<f32>;         // [rows, channels]
@group(0) @binding(9) var<storage, read> dlse: array<f32>;         // [rows]
@group(0) @binding(10) var<storage, read_write> stats: array<f32>; // [rows, 3]
@group(0) @binding(11) var<storage, read> parts: array<f32>;       // [splits, rows]
@group(0) @binding(12) var<storage, read_write> total: array<f32>; // [rows]
@group(0) @binding(13) var<storage, read_write> peak_and_sum: array<f32>; // [rows, 2]

const SHARERS: u32 = 8u; // threads of a query in backward_prepare

var<workgroup> shares: array<f32, WORKGROUP>;

fn peak_of(row: u32) -> f32 {
    var peak = MASKED;
    for (var split = 0u; split < params.splits; split++) {
        peak = max(peak, peak_and_sum_parts[(split * params.rows + row) * 2u]);
    }
    return peak;
}

@compute @workgroup_size(WORKGROUP)
fn forward_combine(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
) {
    let at = flat_index(group, groups, WORKGROUP, lid);
    let count = params.rows * params.channels;
    if at >= count {
        return;
    }
    let row = at / params.channels;
    let peak = peak_of(row);
    var sum = 0.0;
    var weights = 0.0;
    // Of a split without a visible key the sum is 0.
    for (var split = 0u; split < params.splits; split++) {
        let part = (split * params.rows + row) * 2u;
        let weight = peak_and_sum_parts[part + 1u] * exp(peak_and_sum_parts[part] - peak);
        weights += weight;
        sum += weight * out_parts[split * count + at];
    }
    let live = !is_masked(peak);
    out_joined[at] = select(0.0, sum / weights, live);
    if at % params.channels == 0u {
        lse_joined[row] = select(MASKED, peak + log(max(weights, 1e-30)), live);
        peak_and_sum[row * 2u] = peak;
        peak_and_sum[row * 2u + 1u] = weights;
    }
}

@compute @workgroup_size(WORKGROUP)
fn backward_prepare(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
) {
    let row = flat_index(group, groups, WORKGROUP / SHARERS, lid / SHARERS);
    let inside = row < params.rows;
    var sum = 0.0;
    if inside && params.has_dout == 1u {
        for (var channel = lid % SHARERS; channel < params.channels; channel += SHARERS) {
            sum += dout[row * params.channels + channel] * out[row * params.channels + channel];
        }
    }
    shares[lid] = sum;
    workgroupBarrier();
    if inside && lid % SHARERS == 0u {
        var delta = 0.0;
        for (var i = 0u; i < SHARERS; i++) {
            delta += shares[lid + i];
        }
        if params.has_dlse == 1u {
            delta -= dlse[row];
        }
        let sum = saved[row * 2u + 1u];
        stats[row * 3u] = saved[row * 2u];
        stats[row * 3u + 1u] = select(0.0, 1.0 / sum, sum > 0.0);
        stats[row * 3u + 2u] = delta;
    }
}

@compute @workgroup_size(WORKGROUP)
fn backward_reduce(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
) {
    let at = flat_index(group, groups, WORKGROUP, lid);
    if at >= params.rows {
        return;
    }
    var sum = 0.0;
    if params.accumulate == 1u {
        sum = total[at];
    }
    for (var split = 0u; split < params.splits; split++) {
        sum += parts[split * params.rows + at];
    }
    total[at] = sum;
}
