// Log-sum-exp down the columns of each matrix: y_c = LSE_n x_nc = peak_c + log(sum_c) with peak_c = max_n x_nc and
// sum_c = sum_n exp(x_nc - peak_c), and its gradient dx_nc = exp(x_nc - peak_c) / sum_c dy_c. Peak and sum are kept beside y:
// nothing is exp(x - y), in which the rounding of a large y, 5e-4 at 1e4, would show.
// LARA normalises its query-specific weights over the queries with it (spec 1.4).
// partial   one invocation per column, 64 a workgroup in x; a block of params.block rows in y; a matrix in z
// combine   one invocation per column of every matrix, 64 a workgroup: for few blocks
// combine_many  eight invocations per column of every matrix, 64 a workgroup: for many blocks
// backward  one invocation per element; a workgroup holds 64
// A chain of n additions is off by up to 1.5e-8 n: a block is added up in four chains side by side, in stretches, blocks in eight.
// Write policy: y, peak and sum are stored; dx is added to when params.accumulate == 1.

#import index
#import mask

const STRETCH = 512u; // rows: longer blocks are rare

struct Params { batch: u32, rows: u32, cols: u32, block: u32, blocks: u32, accumulate: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> x: array<f32>;               // [batch, rows, cols]
@group(0) @binding(3) var<storage, read_write> parts: array<f32>;     // [batch, blocks, 2, cols] largest, sum
@group(0) @binding(4) var<storage, read_write> y: array<f32>;         // [batch, cols]
@group(0) @binding(5) var<storage, read> saved: array<f32>;           // [batch, cols, 2] peak and sum, read
@group(0) @binding(6) var<storage, read> dy: array<f32>;              // [batch, cols]
@group(0) @binding(7) var<storage, read_write> dx: array<f32>;        // [batch, rows, cols]
@group(0) @binding(8) var<storage, read_write> peak_and_sum: array<f32>; // [batch, cols, 2]

@compute @workgroup_size(WORKGROUP)
fn partial(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let c = workgroup.x * WORKGROUP + local;
    if c >= params.cols {
        return;
    }
    let begin = workgroup.y * params.block;
    let end = min(begin + params.block, params.rows);
    let at = workgroup.z * params.rows * params.cols + c;
    let cols = params.cols;
    let whole = end - (end - begin) % 4u;
    var tops = vec4(MASKED);
    for (var n = begin; n < whole; n += 4u) {
        let i = at + n * cols;
        tops = max(tops, vec4(x[i], x[i + cols], x[i + 2u * cols], x[i + 3u * cols]));
    }
    for (var n = whole; n < end; n++) {
        tops.x = max(tops.x, x[at + n * cols]);
    }
    let largest = max(max(tops.x, tops.y), max(tops.z, tops.w));
    var sums = vec4(0.0);
    for (var first = begin; first < whole; first += STRETCH) {
        var stretch = vec4(0.0);
        for (var n = first; n < min(first + STRETCH, whole); n += 4u) {
            let i = at + n * cols;
            stretch += exp(vec4(x[i], x[i + cols], x[i + 2u * cols], x[i + 3u * cols]) - largest);
        }
        sums += stretch;
    }
    for (var n = whole; n < end; n++) {
        sums.x += exp(x[at + n * cols] - largest);
    }
    let sum = (sums.x + sums.y) + (sums.z + sums.w);
    let to = (workgroup.z * params.blocks + workgroup.y) * 2u * params.cols + c;
    parts[to] = largest;
    parts[to + params.cols] = sum;
}

// Largest and sum of every stride-th block of column i of all, from block `first` on.
fn gather(i: u32, first: u32, stride: u32) -> vec2<f32> {
    let at = (i / params.cols) * params.blocks * 2u * params.cols + i % params.cols;
    var largest = MASKED;
    for (var block = first; block < params.blocks; block += stride) {
        largest = max(largest, parts[at + block * 2u * params.cols]);
    }
    var sum = 0.0;
    for (var block = first; block < params.blocks; block += stride) {
        let source = at + block * 2u * params.cols;
        sum += parts[source + params.cols] * exp(parts[source] - largest);
    }
    return vec2(largest, sum);
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
    store(i, gather(i, 0u, 1u));
}

fn store(i: u32, all: vec2<f32>) {
    y[i] = all.x + log(all.y);
    peak_and_sum[i * 2u] = all.x;
    peak_and_sum[i * 2u + 1u] = all.y;
}

const SHARERS = 8u; // invocations that share a column
const COLUMNS = WORKGROUP / SHARERS;
var<workgroup> shares: array<vec2<f32>, WORKGROUP>;

// Neighbouring invocations have neighbouring columns.
@compute @workgroup_size(WORKGROUP)
fn combine_many(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_index(workgroup, workgroups, COLUMNS, local % COLUMNS);
    let inside = i < params.batch * params.cols;
    var own = vec2(MASKED, 0.0);
    if inside {
        own = gather(i, local / COLUMNS, SHARERS);
    }
    shares[local] = own;
    workgroupBarrier();
    if !inside || local >= COLUMNS {
        return;
    }
    var largest = own.x;
    for (var other = local + COLUMNS; other < WORKGROUP; other += COLUMNS) {
        largest = max(largest, shares[other].x);
    }
    var sum = 0.0;
    for (var other = local; other < WORKGROUP; other += COLUMNS) {
        sum += shares[other].y * exp(shares[other].x - largest);
    }
    store(i, vec2(largest, sum));
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
    var d = exp(x[i] - saved[c * 2u]) / saved[c * 2u + 1u] * dy[c];
    if params.accumulate == 1u {
        d += dx[i];
    }
    dx[i] = d;
}
