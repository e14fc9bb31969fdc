// What a student loses against a teacher's logits, mixed with its other loss b. With s and t a row of the student's and the teacher's
// logits, R rows of K classes, p = softmax(t / T), q = softmax(s / T) and m the first class of the largest t (T = 1 where hard):
//   soft: d = T^2 / (R K) sum over rows and k of p_k (log p_k - log q_k)      hard: d = 1/R sum over rows of (LSE(s) - s_m)
// loss = (1 - a) b + a d; ds = dloss slope (q - p), or dloss slope (q - e_m); db = (1 - a) dloss. No gradient for the teacher.
// params.scale is the factor of d's sum, params.slope a T / (R K) or a / R. A row's largest logit (peak) and its sum of
// exp((x - peak) / T) are kept apart, as in cross_entropy; classes are added up in stretches, and these in parts: a chain of n
// additions is off by up to 1.5e-8 n.
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
const CLASSES = 256u; // classes of a stretch
const PART = 64u;     // stretches of a part
const KEPT = 6u;      // numbers of a row in per_row

struct Params { rows: u32, classes: u32, hard: u32, tau: f32, alpha: f32, scale: f32, slope: f32, accumulate: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> x: array<f32>;                 // [rows, classes] the student's logits
@group(0) @binding(3) var<storage, read> teacher: array<f32>;           // [rows, classes] logits
@group(0) @binding(4) var<storage, read_write> per_row: array<f32>;     // [rows, 6] term, m, peaks of s and t, sums of s and t
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
    let sums = over_classes(at, largest);
    let logs = log(sums.xy);
    var term = sums.z / sums.y + logs.x - logs.y;
    if params.hard == 1u {
        term = logs.x - (x[at + taught] - largest.x);
    }
    let kept = row * KEPT;
    per_row[kept] = term;
    per_row[kept + 1u] = f32(taught);
    per_row[kept + 2u] = largest.x;
    per_row[kept + 3u] = largest.y;
    per_row[kept + 4u] = sums.x;
    per_row[kept + 5u] = sums.y;
}

// Over all classes: sums of exp((x - largest) / T), the student's and the teacher's, and of the teacher's times the difference of
// their exponents.
fn over_classes(at: u32, largest: vec2<f32>) -> vec3<f32> {
    var sums = vec3(0.0);
    for (var part = 0u; part < params.classes; part += CLASSES * PART) {
        var part_sums = vec3(0.0);
        for (var first = part; first < min(part + CLASSES * PART, params.classes); first += CLASSES) {
            var stretch = vec3(0.0);
            for (var k = first; k < min(first + CLASSES, params.classes); k++) {
                let shifted = (vec2(x[at + k], teacher[at + k]) - largest) / params.tau;
                let weights = exp(shifted);
                stretch += vec3(weights, weights.y * (shifted.y - shifted.x));
            }
            part_sums += stretch;
        }
        sums += part_sums;
    }
    return sums;
}

// The terms of every WORKGROUP-th row from `first` on: in stretches, since a chain of n additions is off by up to 1.5e-8 n.
fn gather(first: u32) -> f32 {
    var all = 0.0;
    for (var begin = first; begin < params.rows; begin += STRETCH * WORKGROUP) {
        var stretch = 0.0;
        for (var row = begin; row < min(begin + STRETCH * WORKGROUP, params.rows); row += WORKGROUP) {
            stretch += per_row[row * KEPT];
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
    let kept = row * KEPT;
    let taught = u32(per_row[kept + 1u]);
    let peaks = vec2(per_row[kept + 2u], per_row[kept + 3u]);
    let sums = vec2(per_row[kept + 4u], per_row[kept + 5u]);
    let slope = dloss[0] * params.slope;
    for (var k = 0u; k < params.classes; k++) {
        let q = exp((x[at + k] - peaks.x) / params.tau) / sums.x;
        var p = select(0.0, 1.0, k == taught);
        if params.hard == 0u {
            p = exp((teacher[at + k] - peaks.y) / params.tau) / sums.y;
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
