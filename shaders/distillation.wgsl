// What a student loses against a teacher's logits, mixed with its other loss b. With s and t a row of the student's and the teacher's
// logits, R rows of K classes, p = softmax(t / T), q = softmax(s / T) and m the first class of the largest t (T = 1 where hard):
//   soft: d = T^2 / (R K) sum over rows and k of p_k (log p_k - log q_k)      hard: d = 1/R sum over rows of (LSE(s) - s_m)
// loss = (1 - a) b + a d; ds = dloss slope (q - p), or dloss slope (q - e_m); db = (1 - a) dloss. No gradient for the teacher.
// params.scale is the factor of d's sum, params.slope a T / (R K) or a / R.
//
// forward         one invocation per row, 64 a workgroup
// summarize       one workgroup of 64: loss [1] and statistics [3], those of b with this loss in front
//                 under gradient accumulation the mean over the micro-steps so far, which have equally many rows
// backward        one invocation per row, 64 a workgroup: ds
// backward_other  one invocation: db
// Write policy: all stored; dx and dother are added to when params.accumulate == 1. statistics is read where micro_step > 0.

#import header
#import index
#import reduce

const STRETCH = 128u; // rows that an invocation of summarize adds up by themselves

struct Params { rows: u32, classes: u32, hard: u32, tau: f32, alpha: f32, scale: f32, slope: f32, accumulate: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> x: array<f32>;                 // [rows, classes] the student's logits
@group(0) @binding(3) var<storage, read> teacher: array<f32>;           // [rows, classes] logits
@group(0) @binding(4) var<storage, read_write> per_row: array<f32>;     // [rows, 4] term, LSE(s / T), LSE(t / T), m
@group(0) @binding(5) var<storage, read> other: array<f32>;             // [1] b
@group(0) @binding(6) var<storage, read> others: array<f32>;            // [3] statistics of b
@group(0) @binding(7) var<storage, read_write> loss: array<f32>;        // [1]
@group(0) @binding(8) var<storage, read_write> statistics: array<f32>;  // [3] mean loss, and what stands behind it in those of b
@group(0) @binding(9) var<storage, read> dloss: array<f32>;             // [1]
@group(0) @binding(10) var<storage, read_write> dx: array<f32>;         // [rows, classes]
@group(0) @binding(11) var<storage, read_write> dother: array<f32>;     // [1]

@compute @workgroup_size(WORKGROUP)
fn forward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let row = flat_index(workgroup, workgroups, WORKGROUP, local);
    if row >= params.rows {
        return;
    }
    let at = row * params.classes;
    var largest = vec2(x[at], teacher[at]);
    var taught = 0u;
    for (var k = 1u; k < params.classes; k++) {
        if teacher[at + k] > largest.y {
            taught = k;
        }
        largest = max(largest, vec2(x[at + k], teacher[at + k]));
    }
    var sums = vec2(0.0);
    var product = 0.0;
    for (var k = 0u; k < params.classes; k++) {
        let shifted = (vec2(x[at + k], teacher[at + k]) - largest) / params.tau;
        let weights = exp(shifted);
        sums += weights;
        product += weights.y * (shifted.y - shifted.x);
    }
    let logs = log(sums);
    var term = product / sums.y + logs.x - logs.y;
    if params.hard == 1u {
        term = logs.x - (x[at + taught] - largest.x);
    }
    let all = largest / params.tau + logs;
    per_row[row * 4u] = term;
    per_row[row * 4u + 1u] = all.x;
    per_row[row * 4u + 2u] = all.y;
    per_row[row * 4u + 3u] = f32(taught);
}

// The terms of every WORKGROUP-th row from `first` on: in stretches, since a chain of n additions is off by up to 1.5e-8 n.
fn gather(first: u32) -> f32 {
    var all = 0.0;
    for (var begin = first; begin < params.rows; begin += STRETCH * WORKGROUP) {
        var stretch = 0.0;
        for (var row = begin; row < min(begin + STRETCH * WORKGROUP, params.rows); row += WORKGROUP) {
            stretch += per_row[row * 4u];
        }
        all += stretch;
    }
    return all;
}

@compute @workgroup_size(WORKGROUP)
fn summarize(@builtin(local_invocation_index) local: u32) {
    let distilled = sum_of(gather(local), local) * params.scale;
    if local > 0u {
        return;
    }
    let all = (1.0 - params.alpha) * other[0] + params.alpha * distilled;
    loss[0] = all;
    var mean = all;
    if header.micro_step > 0u {
        let before = statistics[0];
        mean = before + (all - before) / f32(header.micro_step + 1u);
    }
    statistics[0] = mean;
    statistics[1] = others[1];
    statistics[2] = others[2];
}

@compute @workgroup_size(WORKGROUP)
fn backward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let row = flat_index(workgroup, workgroups, WORKGROUP, local);
    if row >= params.rows {
        return;
    }
    let at = row * params.classes;
    let taught = u32(per_row[row * 4u + 3u]);
    let slope = dloss[0] * params.slope;
    for (var k = 0u; k < params.classes; k++) {
        let q = exp(x[at + k] / params.tau - per_row[row * 4u + 1u]);
        var p = select(0.0, 1.0, k == taught);
        if params.hard == 0u {
            p = exp(teacher[at + k] / params.tau - per_row[row * 4u + 2u]);
        }
        var d = slope * (q - p);
        if params.accumulate == 1u {
            d += dx[at + k];
        }
        dx[at + k] = d;
    }
}

@compute @workgroup_size(WORKGROUP)
fn backward_other(@builtin(local_invocation_index) local: u32) {
    if local > 0u {
        return;
    }
    var d = (1.0 - params.alpha) * dloss[0];
    if params.accumulate == 1u {
        d += dother[0];
    }
    dother[0] = d;
}
