// y = (x - mean) / sqrt(var + eps) * gain + bias over each row; mean and 1/sqrt(var + eps) are kept for the backward:
// with h = (x - mean) rstd and g = dy gain:  dx = rstd (g - mean(g) - h mean(g h)), dgain = sum dy h, dbias = sum dy.
//
// forward, backward            one workgroup of 64 per row (GPUs); rows are spread over workgroups in x and y
// forward_rows, backward_rows  one invocation per row, 8 a workgroup (CPU-like adapters: no barriers)
// backward_params              one invocation per column, 64 a workgroup in x, one block of params.block rows in y;
//                              partial sums go to dgain, dbias [blocks, cols], which column_sum adds up
// A chain of n additions is off by up to 1.5e-8 n: sums are made in stretches.
// Write policy: y, statistics and partial sums are stored; dx is stored, or added to when params.accumulate == 1.

#import index
#import reduce

const STRETCH = 256u; // numbers that an invocation adds up by themselves

struct Params { rows: u32, cols: u32, block: u32, eps: f32, accumulate: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> x: array<f32>;                // [rows, cols]
@group(0) @binding(3) var<storage, read> gain: array<f32>;             // [cols]
@group(0) @binding(4) var<storage, read> bias: array<f32>;             // [cols]
@group(0) @binding(5) var<storage, read_write> y: array<f32>;          // [rows, cols]
@group(0) @binding(6) var<storage, read_write> statistics: array<f32>; // [rows, 2] mean and rstd
@group(0) @binding(7) var<storage, read> saved: array<f32>;            // [rows, 2] the same, read
@group(0) @binding(8) var<storage, read> dy: array<f32>;               // [rows, cols]
@group(0) @binding(9) var<storage, read_write> dx: array<f32>;         // [rows, cols]
@group(0) @binding(10) var<storage, read_write> dgain: array<f32>;     // [blocks, cols]
@group(0) @binding(11) var<storage, read_write> dbias: array<f32>;     // [blocks, cols]

@compute @workgroup_size(WORKGROUP)
fn forward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let row = workgroup.x + workgroup.y * workgroups.x;
    if row >= params.rows {
        return;
    }
    let at = row * params.cols;
    var sum = 0.0;
    for (var first = local; first < params.cols; first += STRETCH * WORKGROUP) {
        var stretch = 0.0;
        for (var i = first; i < min(first + STRETCH * WORKGROUP, params.cols); i += WORKGROUP) {
            stretch += x[at + i];
        }
        sum += stretch;
    }
    let mean = sum_of(sum, local) / f32(params.cols);
    var square = 0.0;
    for (var first = local; first < params.cols; first += STRETCH * WORKGROUP) {
        var stretch = 0.0;
        for (var i = first; i < min(first + STRETCH * WORKGROUP, params.cols); i += WORKGROUP) {
            let d = x[at + i] - mean;
            stretch += d * d;
        }
        square += stretch;
    }
    let rstd = inverseSqrt(sum_of(square, local) / f32(params.cols) + params.eps);
    for (var i = local; i < params.cols; i += WORKGROUP) {
        y[at + i] = (x[at + i] - mean) * rstd * gain[i] + bias[i];
    }
    if local == 0u {
        statistics[row * 2u] = mean;
        statistics[row * 2u + 1u] = rstd;
    }
}

@compute @workgroup_size(WORKGROUP)
fn backward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let row = workgroup.x + workgroup.y * workgroups.x;
    if row >= params.rows {
        return;
    }
    let at = row * params.cols;
    let mean = saved[row * 2u];
    let rstd = saved[row * 2u + 1u];
    var sums = vec2(0.0); // of g, and of g h
    for (var first = local; first < params.cols; first += STRETCH * WORKGROUP) {
        var stretch = vec2(0.0);
        for (var i = first; i < min(first + STRETCH * WORKGROUP, params.cols); i += WORKGROUP) {
            let g = dy[at + i] * gain[i];
            stretch += vec2(g, g * (x[at + i] - mean) * rstd);
        }
        sums += stretch;
    }
    let means = sum_of_two(sums, local) / f32(params.cols);
    for (var i = local; i < params.cols; i += WORKGROUP) {
        let h = (x[at + i] - mean) * rstd;
        var d = rstd * (dy[at + i] * gain[i] - means.x - h * means.y);
        if params.accumulate == 1u {
            d += dx[at + i];
        }
        dx[at + i] = d;
    }
}

@compute @workgroup_size(VECTOR)
fn forward_rows(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let row = flat_index(workgroup, workgroups, VECTOR, local);
    if row >= params.rows {
        return;
    }
    let at = row * params.cols;
    var sum = 0.0;
    for (var first = 0u; first < params.cols; first += STRETCH) {
        var stretch = 0.0;
        for (var i = first; i < min(first + STRETCH, params.cols); i++) {
            stretch += x[at + i];
        }
        sum += stretch;
    }
    let mean = sum / f32(params.cols);
    var square = 0.0;
    for (var first = 0u; first < params.cols; first += STRETCH) {
        var stretch = 0.0;
        for (var i = first; i < min(first + STRETCH, params.cols); i++) {
            let d = x[at + i] - mean;
            stretch += d * d;
        }
        square += stretch;
    }
    let rstd = inverseSqrt(square / f32(params.cols) + params.eps);
    for (var i = 0u; i < params.cols; i++) {
        y[at + i] = (x[at + i] - mean) * rstd * gain[i] + bias[i];
    }
    statistics[row * 2u] = mean;
    statistics[row * 2u + 1u] = rstd;
}

@compute @workgroup_size(VECTOR)
fn backward_rows(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let row = flat_index(workgroup, workgroups, VECTOR, local);
    if row >= params.rows {
        return;
    }
    let at = row * params.cols;
    let mean = saved[row * 2u];
    let rstd = saved[row * 2u + 1u];
    var sums = vec2(0.0); // of g, and of g h
    for (var first = 0u; first < params.cols; first += STRETCH) {
        var stretch = vec2(0.0);
        for (var i = first; i < min(first + STRETCH, params.cols); i++) {
            let g = dy[at + i] * gain[i];
            stretch += vec2(g, g * (x[at + i] - mean) * rstd);
        }
        sums += stretch;
    }
    let means = sums / f32(params.cols);
    for (var i = 0u; i < params.cols; i++) {
        let h = (x[at + i] - mean) * rstd;
        var d = rstd * (dy[at + i] * gain[i] - means.x - h * means.y);
        if params.accumulate == 1u {
            d += dx[at + i];
        }
        dx[at + i] = d;
    }
}

@compute @workgroup_size(WORKGROUP)
fn backward_params(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = workgroup.x * WORKGROUP + local;
    if i >= params.cols {
        return;
    }
    let begin = workgroup.y * params.block;
    let end = min(begin + params.block, params.rows);
    var sums = vec2(0.0); // of dy h, and of dy
    for (var first = begin; first < end; first += STRETCH) {
        var stretch = vec2(0.0);
        for (var row = first; row < min(first + STRETCH, end); row++) {
            let g = dy[row * params.cols + i];
            stretch += vec2(g * (x[row * params.cols + i] - saved[row * 2u]) * saved[row * 2u + 1u], g);
        }
        sums += stretch;
    }
    dgain[workgroup.y * params.cols + i] = sums.x;
    dbias[workgroup.y * params.cols + i] = sums.y;
}
