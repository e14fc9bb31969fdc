// Row softmax with an additive key term, in place over a slab of logits: the middle of softmax attention by slabs.
//   forward:  p_nm = exp(l_nm + key_bias_m - lse_n),  lse_n = LSE_m(l_nm + key_bias_m)
//   backward: p as above from the saved lse; ds_nm = p_nm (dp_nm - sum_m p_nm dp_nm + dlse_n)
// A key whose bias is <= -1e29 is masked; a row whose keys are all masked gives p = 0 and lse = -1e30.
//
// forward, backward            one workgroup of 64 per row (GPUs); rows spread over x and y
// forward_rows, backward_rows  one invocation per row, 8 a workgroup (CPU-like adapters: no barriers)
// Write policy: forward turns logits into probabilities in place and stores lse; backward turns logits into
// probabilities and dp into ds, both in place.

#import index

const MASKED = -1e30;

struct Params { rows: u32, queries: u32, keys: u32, first: u32, has_bias: u32, has_dlse: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read_write> logits: array<f32>;  // [rows, keys]
@group(0) @binding(3) var<storage, read> key_bias: array<f32>;      // [all rows / queries, keys]
@group(0) @binding(4) var<storage, read_write> lse: array<f32>;     // [all rows]
@group(0) @binding(5) var<storage, read> saved_lse: array<f32>;     // [all rows]
@group(0) @binding(6) var<storage, read> dlse: array<f32>;          // [all rows]
@group(0) @binding(7) var<storage, read_write> dp: array<f32>;      // [rows, keys]

var<workgroup> scratch: array<f32, 64>;

fn largest_of(value: f32, local: u32) -> f32 {
    workgroupBarrier();
    scratch[local] = value;
    workgroupBarrier();
    for (var half = 32u; half > 0u; half /= 2u) {
        if local < half {
            scratch[local] = max(scratch[local], scratch[local + half]);
        }
        workgroupBarrier();
    }
    return scratch[0];
}

fn sum_of(value: f32, local: u32) -> f32 {
    workgroupBarrier();
    scratch[local] = value;
    workgroupBarrier();
    for (var half = 32u; half > 0u; half /= 2u) {
        if local < half {
            scratch[local] += scratch[local + half];
        }
        workgroupBarrier();
    }
    return scratch[0];
}

// Row `row` of the slab is row params.first + row of all rows; its keys' terms start here.
fn bias_row(row: u32) -> u32 {
    return ((params.first + row) / params.queries) * params.keys;
}

fn logit(at: u32, bias_at: u32, m: u32) -> f32 {
    if params.has_bias == 1u {
        return max(logits[at + m] + key_bias[bias_at + m], MASKED);
    }
    return logits[at + m];
}

@compute @workgroup_size(64)
fn forward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let row = workgroup.x + workgroup.y * workgroups.x;
    if row >= params.rows {
        return;
    }
    let at = row * params.keys;
    let bias_at = bias_row(row);
    var largest = MASKED;
    for (var m = local; m < params.keys; m += 64u) {
        largest = max(largest, logit(at, bias_at, m));
    }
    largest = largest_of(largest, local);
    let live = largest > -1e29;
    var sum = 0.0;
    for (var m = local; m < params.keys; m += 64u) {
        sum += exp(logit(at, bias_at, m) - largest);
    }
    sum = sum_of(sum, local);
    let scale = select(0.0, 1.0 / sum, live);
    for (var m = local; m < params.keys; m += 64u) {
        logits[at + m] = scale * exp(logit(at, bias_at, m) - largest);
    }
    if local == 0u {
        lse[params.first + row] = select(MASKED, largest + log(sum), live);
    }
}

@compute @workgroup_size(64)
fn backward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let row = workgroup.x + workgroup.y * workgroups.x;
    if row >= params.rows {
        return;
    }
    let at = row * params.keys;
    let bias_at = bias_row(row);
    let total = saved_lse[params.first + row];
    let live = total > -1e29;
    var product = 0.0;
    for (var m = local; m < params.keys; m += 64u) {
        let p = select(0.0, exp(logit(at, bias_at, m) - total), live);
        logits[at + m] = p;
        product += p * dp[at + m];
    }
    var delta = sum_of(product, local);
    if params.has_dlse == 1u {
        delta -= dlse[params.first + row];
    }
    for (var m = local; m < params.keys; m += 64u) {
        dp[at + m] = logits[at + m] * (dp[at + m] - delta);
    }
}

@compute @workgroup_size(8)
fn forward_rows(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let row = flat_index(workgroup, workgroups, 8u, local);
    if row >= params.rows {
        return;
    }
    let at = row * params.keys;
    let bias_at = bias_row(row);
    var largest = MASKED;
    for (var m = 0u; m < params.keys; m++) {
        largest = max(largest, logit(at, bias_at, m));
    }
    let live = largest > -1e29;
    var sum = 0.0;
    for (var m = 0u; m < params.keys; m++) {
        sum += exp(logit(at, bias_at, m) - largest);
    }
    // Not exp(logit - lse): the rounding of a large lse would show in every probability.
    let scale = select(0.0, 1.0 / sum, live);
    for (var m = 0u; m < params.keys; m++) {
        logits[at + m] = scale * exp(logit(at, bias_at, m) - largest);
    }
    lse[params.first + row] = select(MASKED, largest + log(sum), live);
}

@compute @workgroup_size(8)
fn backward_rows(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let row = flat_index(workgroup, workgroups, 8u, local);
    if row >= params.rows {
        return;
    }
    let at = row * params.keys;
    let bias_at = bias_row(row);
    let total = saved_lse[params.first + row];
    let live = total > -1e29;
    var delta = 0.0;
    for (var m = 0u; m < params.keys; m++) {
        let p = select(0.0, exp(logit(at, bias_at, m) - total), live);
        logits[at + m] = p;
        delta += p * dp[at + m];
    }
    if params.has_dlse == 1u {
        delta -= dlse[params.first + row];
    }
    for (var m = 0u; m < params.keys; m++) {
        dp[at + m] = logits[at + m] * (dp[at + m] - delta);
    }
}
