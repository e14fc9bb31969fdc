// Sums down the columns of each matrix: y_c = scale sum_n x_nc (bias gradients, shared terms of a batch).
// partial  one invocation per column, 64 a workgroup in x; a block of params.block rows in y; a matrix in z
// combine  one invocation per column of every matrix, 64 a workgroup: for few blocks
// combine_many  eight invocations per column of every matrix, 64 a workgroup: for many blocks
// A chain of n additions is off by up to 1.5e-8 n: a block is added up in four chains side by side, in stretches, blocks in eight.
// Write policy: partial stores; the others store y from params.offset on, or add to it when params.accumulate == 1.

#import index

const STRETCH = 512u; // rows: longer blocks are rare

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
    var sums = vec4(0.0);
    let whole = end - (end - begin) % 4u;
    for (var first = begin; first < whole; first += STRETCH) {
        var stretch = vec4(0.0);
        for (var n = first; n < min(first + STRETCH, whole); n += 4u) {
            let i = at + n * params.cols;
            stretch += vec4(x[i], x[i + params.cols], x[i + 2u * params.cols], x[i + 3u * params.cols]);
        }
        sums += stretch;
    }
    for (var n = whole; n < end; n++) {
        sums.x += x[at + n * params.cols];
    }
    let sum = (sums.x + sums.y) + (sums.z + sums.w);
    parts[(workgroup.z * params.blocks + workgroup.y) * params.cols + c] = sum;
}

fn store(i: u32, sum: f32) {
    var value = params.scale * sum;
    if params.accumulate == 1u {
        value += y[params.offset + i];
    }
    y[params.offset + i] = value;
}

// Where the first block's part of column i of all is.
fn first_part(i: u32) -> u32 {
    return (i / params.cols) * params.blocks * params.cols + i % params.cols;
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
    let at = first_part(i);
    var sum = 0.0;
    for (var block = 0u; block < params.blocks; block++) {
        sum += parts[at + block * params.cols];
    }
    store(i, sum);
}

const SHARERS = 8u; // invocations that share a column
const COLUMNS = WORKGROUP / SHARERS;
var<workgroup> shares: array<f32, WORKGROUP>;

// Neighbouring invocations have neighbouring columns.
@compute @workgroup_size(WORKGROUP)
fn combine_many(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_index(workgroup, workgroups, COLUMNS, local % COLUMNS);
    let inside = i < params.batch * params.cols;
    let at = first_part(i);
    var sum = 0.0;
    for (var block = local / COLUMNS; block < select(0u, params.blocks, inside); block += SHARERS) {
        sum += parts[at + block * params.cols];
    }
    shares[local] = sum;
    workgroupBarrier();
    if !inside || local >= COLUMNS {
        return;
    }
    for (var other = local + COLUMNS; other < WORKGROUP; other += COLUMNS) {
        sum += shares[other];
    }
    store(i, sum);
}
