// Cross-entropy with soft targets and label smoothing: t' = (1 - e) t + e / K for targets t (rows sum to 1),
// loss = mean over rows of (LSE(x) - sum_k t'_k x_k); dx = dloss (softmax(x) - t') / rows.
//
// forward    one invocation per row, 64 a workgroup: row loss, and 1 if the largest logit is the largest target
// summarize  one workgroup of one invocation: means over rows into loss [1] and statistics [2] (loss, accuracy)
//            under gradient accumulation the statistics are the mean over the micro-steps so far
// backward   one invocation per row, 64 a workgroup
// Write policy: all stored; dx is added to when params.accumulate == 1. statistics is read where micro_step > 0.

#import header
#import index

struct Params { rows: u32, classes: u32, smoothing: f32, accumulate: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> x: array<f32>;                 // [rows, classes] logits
@group(0) @binding(3) var<storage, read> targets: array<f32>;           // [rows, classes]
@group(0) @binding(4) var<storage, read_write> per_row: array<f32>;     // [rows, 3] loss, correct, log-sum-exp
@group(0) @binding(5) var<storage, read_write> loss: array<f32>;        // [1]
@group(0) @binding(6) var<storage, read_write> statistics: array<f32>;  // [2] mean loss, accuracy
@group(0) @binding(7) var<storage, read> dloss: array<f32>;             // [1]
@group(0) @binding(8) var<storage, read_write> dx: array<f32>;          // [rows, classes]

@compute @workgroup_size(64)
fn forward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let row = flat_index(workgroup, workgroups, 64u, local);
    if row >= params.rows {
        return;
    }
    let at = row * params.classes;
    var largest = x[at];
    var likeliest = targets[at];
    var predicted = 0u;
    var wanted = 0u;
    for (var k = 1u; k < params.classes; k++) {
        if x[at + k] > largest {
            largest = x[at + k];
            predicted = k;
        }
        if targets[at + k] > likeliest {
            likeliest = targets[at + k];
            wanted = k;
        }
    }
    var sum = 0.0;
    var product = 0.0;
    for (var k = 0u; k < params.classes; k++) {
        let shifted = x[at + k] - largest;
        sum += exp(shifted);
        product += ((1.0 - params.smoothing) * targets[at + k] + params.smoothing / f32(params.classes)) * shifted;
    }
    per_row[row * 3u] = log(sum) - product;
    per_row[row * 3u + 1u] = select(0.0, 1.0, predicted == wanted);
    per_row[row * 3u + 2u] = largest + log(sum);
}

@compute @workgroup_size(1)
fn summarize() {
    var sum = 0.0;
    var correct = 0.0;
    for (var row = 0u; row < params.rows; row++) {
        sum += per_row[row * 3u];
        correct += per_row[row * 3u + 1u];
    }
    let mean = vec2(sum, correct) / f32(params.rows);
    loss[0] = mean.x;
    var before = vec2(0.0);
    if header.micro_step > 0u {
        before = vec2(statistics[0], statistics[1]);
    }
    let running = before + (mean - before) / f32(header.micro_step + 1u);
    statistics[0] = running.x;
    statistics[1] = running.y;
}

@compute @workgroup_size(64)
fn backward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let row = flat_index(workgroup, workgroups, 64u, local);
    if row >= params.rows {
        return;
    }
    let at = row * params.classes;
    let scale = dloss[0] / f32(params.rows);
    for (var k = 0u; k < params.classes; k++) {
        let target_k = (1.0 - params.smoothing) * targets[at + k] + params.smoothing / f32(params.classes);
        var d = scale * (exp(x[at + k] - per_row[row * 3u + 2u]) - target_k);
        if params.accumulate == 1u {
            d += dx[at + k];
        }
        dx[at + k] = d;
    }
}
