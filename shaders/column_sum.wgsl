// Sums down the columns of each matrix: y_c = scale sum_n x_nc (bias gradients, shared terms of a batch).
// partial  one invocation per column, 64 a workgroup in x; a block of params.block rows in y; a matrix in z
// combine  one invocation per column of every matrix, 64 a workgroup
// A chain of n additions is off by up to 1.5e-8 n: a block is added up in stretches of 128 rows.
// Write policy: partial stores; combine stores y from params.offset on, or adds to it when params.accumulate == 1.

#import index

struct Params { batch: u32, rows: u32, cols: u32, block: u32, blocks: u32, scale: f32, offset: u32, accumulate: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> x: array<f32>;           // [batch, rows, cols]
@group(0) @binding(3) var<storage, read_write> parts: array<f32>; // [batch, blocks, cols]
@group(0) @binding(4) var<storage, read_write> y: array<f32>;     // [offset + batch cols]

@compute @workgroup_size(WORKGROUP)
fn partial(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let c = workgroup.x * WORKGROUP + local;
    if c >= params.cols {
        return;
    }
    let begin = workgroup.y * params.block;
    let end = min(begin + params.block, params.rows);
    let at = workgroup.z * params.rows * params.cols + c;
    var sum = 0.0;
    for (var first = begin; first < end; first += 128u) {
        var stretch = 0.0;
        for (var n = first; n < min(first + 128u, end); n++) {
            stretch += x[at + n * params.cols];
        }
        sum += stretch;
    }
    parts[(workgroup.z * params.blocks + workgroup.y) * params.cols + c] = sum;
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
    let at = (i / params.cols) * params.blocks * params.cols + i % params.cols;
    var sum = 0.0;
    for (var block = 0u; block < params.blocks; block++) {
        sum += parts[at + block * params.cols];
    }
    sum *= params.scale;
    if params.accumulate == 1u {
        sum += y[params.offset + i];
    }
    y[params.offset + i] = sum;
}
