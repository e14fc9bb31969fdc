// Log-sum-exp down the columns of each matrix: y_c = LSE_n x_nc, and its gradient dx_nc = exp(x_nc - y_c) dy_c.
// LARA normalises its query-specific weights over the queries with it (spec 1.4).
// partial   one invocation per column, 64 a workgroup in x; a block of params.block rows in y; a matrix in z
// combine   one invocation per column of every matrix, 64 a workgroup
// backward  one invocation per element; a workgroup holds 64
// A chain of n additions is off by up to 1.5e-8 n: a block is added up in stretches of 128 rows.
// Write policy: stores; dx is added to when params.accumulate == 1.

#import index
#import mask

struct Params { batch: u32, rows: u32, cols: u32, block: u32, blocks: u32, accumulate: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> x: array<f32>;               // [batch, rows, cols]
@group(0) @binding(3) var<storage, read_write> parts: array<f32>;     // [batch, blocks, 2, cols] largest, sum
@group(0) @binding(4) var<storage, read_write> y: array<f32>;         // [batch, cols]
@group(0) @binding(5) var<storage, read> saved: array<f32>;           // [batch, cols] y, read
@group(0) @binding(6) var<storage, read> dy: array<f32>;              // [batch, cols]
@group(0) @binding(7) var<storage, read_write> dx: array<f32>;        // [batch, rows, cols]

@compute @workgroup_size(WORKGROUP)
fn partial(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let c = workgroup.x * WORKGROUP + local;
    if c >= params.cols {
        return;
    }
    let begin = workgroup.y * params.block;
    let end = min(begin + params.block, params.rows);
    let at = workgroup.z * params.rows * params.cols + c;
    var largest = MASKED;
    for (var n = begin; n < end; n++) {
        largest = max(largest, x[at + n * params.cols]);
    }
    var sum = 0.0;
    for (var first = begin; first < end; first += 128u) {
        var stretch = 0.0;
        for (var n = first; n < min(first + 128u, end); n++) {
            stretch += exp(x[at + n * params.cols] - largest);
        }
        sum += stretch;
    }
    let to = (workgroup.z * params.blocks + workgroup.y) * 2u * params.cols + c;
    parts[to] = largest;
    parts[to + params.cols] = sum;
}

@compute @workgroup_size(WORKGROUP)
fn combine(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_index(workgroup, workgroups, WORKGROUP, local);
    if i >= params.batch * params.cols {
        return;
    }
    let at = (i / params.cols) * params.blocks * 2u * params.cols + i % params.cols;
    var largest = MASKED;
    for (var block = 0u; block < params.blocks; block++) {
        largest = max(largest, parts[at + block * 2u * params.cols]);
    }
    var sum = 0.0;
    for (var block = 0u; block < params.blocks; block++) {
        let source = at + block * 2u * params.cols;
        sum += parts[source + params.cols] * exp(parts[source] - largest);
    }
    y[i] = largest + log(sum);
}

@compute @workgroup_size(WORKGROUP)
fn backward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_index(workgroup, workgroups, WORKGROUP, local);
    if i >= params.batch * params.rows * params.cols {
        return;
    }
    let c = (i / (params.rows * params.cols)) * params.cols + i % params.cols;
    var d = exp(x[i] - saved[c]) * dy[c];
    if params.accumulate == 1u {
        d += dx[i];
    }
    dx[i] = d;
}
