// Cross-entropy with index targets, mixtures of two classes and label smoothing. A row's target is t = (1 - s) e_a + s e_b for
// classes a and b and the share s of b, smoothed: t' = (1 - e) t + e / K. A row with a < 0 does not count; R rows do.
// loss = 1/R sum over rows of (LSE(x) - sum_k t'_k x_k); dx = dloss (softmax(x) - t') / R.
// A row's largest logit (peak) and its sum of exp(x - peak) are kept apart: of a large log-sum-exp in f32 the rounding, 5e-4 at 1e4,
// would show in every exp(x - LSE). A chain of n additions is off by up to 1.5e-8 n: classes are added up four at a time, in stretches,
// and these in parts.
//
// forward    one invocation per row, 64 a workgroup: row loss, and 1 if the largest logit is that of the larger share
// summarize  one workgroup of 64: R, means over the rows into loss [1] and statistics [3] (loss, accuracy, R)
//            under gradient accumulation the statistics are over all rows of the micro-steps so far
// backward   one invocation per row, 64 a workgroup
// Write policy: all stored; dx is added to when params.accumulate == 1. statistics is read where micro_step > 0.

#import header
#import index
#import reduce

const STRETCH = 128u; // rows that an invocation of summarize adds up by themselves
const CLASSES = 256u; // classes of a stretch
const PART = 64u;     // stretches of a part

struct Params { rows: u32, classes: u32, smoothing: f32, accumulate: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> x: array<f32>;                 // [rows, classes] logits
@group(0) @binding(3) var<storage, read> targets: array<f32>;           // [rows, 3] a, b, share of b
@group(0) @binding(4) var<storage, read_write> per_row: array<f32>;     // [rows, 4] loss, correct, peak, sum
@group(0) @binding(5) var<storage, read_write> loss: array<f32>;        // [1]
@group(0) @binding(6) var<storage, read_write> statistics: array<f32>;  // [3] mean loss, accuracy, rows that count
@group(0) @binding(7) var<storage, read> dloss: array<f32>;             // [1]
@group(0) @binding(8) var<storage, read_write> dx: array<f32>;          // [rows, classes]
@group(0) @binding(9) var<storage, read_write> counted: array<f32>;     // [1] rows that count

struct Mixture { first: u32, second: u32, share: f32 }

// Whether a row counts.
fn counts(row: u32) -> bool {
    return targets[3u * row] >= 0.0;
}

// What a row should be; a negative number has no u32.
fn mixture(row: u32) -> Mixture {
    let classes = max(vec2(targets[3u * row], targets[3u * row + 1u]), vec2(0.0));
    return Mixture(u32(classes.x), u32(classes.y), targets[3u * row + 2u]);
}

// The smoothed target of class k.
fn smoothed(wanted: Mixture, k: u32) -> f32 {
    let t = select(0.0, 1.0 - wanted.share, k == wanted.first) + select(0.0, wanted.share, k == wanted.second);
    return (1.0 - params.smoothing) * t + params.smoothing / f32(params.classes);
}

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
    if !counts(row) {
        for (var part = 0u; part < 4u; part++) {
            per_row[row * 4u + part] = 0.0;
        }
        return;
    }
    let wanted = mixture(row);
    let at = row * params.classes;
    var largest = x[at];
    var predicted = 0u;
    for (var k = 1u; k < params.classes; k++) {
        if x[at + k] > largest {
            largest = x[at + k];
            predicted = k;
        }
    }
    let sums = over_classes(at, largest);
    let labels = (1.0 - wanted.share) * shifted(at, wanted.first, largest) + wanted.share * shifted(at, wanted.second, largest);
    let product = (1.0 - params.smoothing) * labels + params.smoothing * sums.y / f32(params.classes);
    let likeliest = select(wanted.first, wanted.second, wanted.share > 0.5);
    per_row[row * 4u] = log(sums.x) - product;
    per_row[row * 4u + 1u] = select(0.0, 1.0, predicted == likeliest);
    per_row[row * 4u + 2u] = largest;
    per_row[row * 4u + 3u] = sums.x;
}

// x_k - largest, of a class that there is.
fn shifted(at: u32, k: u32, largest: f32) -> f32 {
    return select(0.0, x[at + min(k, params.classes - 1u)] - largest, k < params.classes);
}

// Over all classes: sum of exp(x - largest), and of x - largest.
fn over_classes(at: u32, largest: f32) -> vec2<f32> {
    let whole = params.classes - params.classes % 4u;
    var sums = vec4(0.0);
    var shifts = vec4(0.0);
    for (var part = 0u; part < whole; part += CLASSES * PART) {
        var part_sums = vec4(0.0);
        var part_shifts = vec4(0.0);
        for (var first = part; first < min(part + CLASSES * PART, whole); first += CLASSES) {
            var stretch_sums = vec4(0.0);
            var stretch_shifts = vec4(0.0);
            for (var k = first; k < min(first + CLASSES, whole); k += 4u) {
                let i = at + k;
                let four = vec4(x[i], x[i + 1u], x[i + 2u], x[i + 3u]) - largest;
                stretch_sums += exp(four);
                stretch_shifts += four;
            }
            part_sums += stretch_sums;
            part_shifts += stretch_shifts;
        }
        sums += part_sums;
        shifts += part_shifts;
    }
    for (var k = whole; k < params.classes; k++) {
        sums.x += exp(x[at + k] - largest);
        shifts.x += x[at + k] - largest;
    }
    return vec2((sums.x + sums.y) + (sums.z + sums.w), (shifts.x + shifts.y) + (shifts.z + shifts.w));
}

// Losses, correct rows and rows of every WORKGROUP-th row from `first` on: in stretches, since a chain of n additions is off by up to
// 1.5e-8 n.
fn gather(first: u32) -> vec4<f32> {
    var all = vec4(0.0);
    for (var begin = first; begin < params.rows; begin += STRETCH * WORKGROUP) {
        var stretch = vec4(0.0);
        for (var row = begin; row < min(begin + STRETCH * WORKGROUP, params.rows); row += WORKGROUP) {
            stretch += vec4(per_row[row * 4u], per_row[row * 4u + 1u], f32(u32(counts(row))), 0.0);
        }
        all += stretch;
    }
    return all;
}

@compute @workgroup_size(WORKGROUP)
fn summarize(@builtin(local_invocation_index) local: u32) {
    let sums = sum_of_four(gather(local), local);
    if local > 0u {
        return;
    }
    let rows = u32(sums.z);
    let mean = sums.xy / f32(max(rows, 1u));
    loss[0] = mean.x;
    counted[0] = f32(max(rows, 1u));
    var before = vec2(0.0);
    var rows_before = 0.0;
    if header.micro_step > 0u {
        before = vec2(statistics[0], statistics[1]);
        rows_before = statistics[2];
    }
    let all = rows_before + f32(rows);
    var running = before;
    if rows > 0u {
        running += (mean - before) / (all / f32(rows));
    }
    statistics[0] = running.x;
    statistics[1] = running.y;
    statistics[2] = all;
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
    let is_counted = counts(row);
    let wanted = mixture(row);
    let scale = dloss[0] / counted[0];
    let peak = per_row[row * 4u + 2u];
    let sum = per_row[row * 4u + 3u];
    for (var k = 0u; k < params.classes; k++) {
        var d = 0.0;
        if is_counted {
            d = scale * (exp(x[at + k] - peak) / sum - smoothed(wanted, k));
        }
        if params.accumulate == 1u {
            d += dx[at + k];
        }
        dx[at + k] = d;
    }
}
