// Row softmax with an additive key term, in place over a slab of logits: the middle of softmax attention by slabs.
//   forward:  p_nm = exp(l_nm + key_bias_m - peak_n) / sum_n,  peak_n = max_m(l_nm + key_bias_m),
//             sum_n = sum_m exp(l_nm + key_bias_m - peak_n),  lse_n = peak_n + log(sum_n)
//   backward: p as above from the saved peak and sum; ds_nm = p_nm (dp_nm - delta_n), delta_n = sum_d dout_nd out_nd - dlse_n
// Probabilities are nowhere exp(l - lse): of a large lse in f32 the rounding, 5e-4 at 1e4, would show in all of them.
// A key whose bias is <= -1e29 is masked; a row whose keys are all masked gives p = 0, lse = peak = -1e30 and sum = 0.
//
// forward       one workgroup of 64 per row (GPUs); rows spread over x and y
// forward_rows  one invocation per row, 8 a workgroup (CPU-like adapters: no barriers); largest and sum in one walk
// forward_rows4 the same where keys is a multiple of 4, without the division: exp(l_nm + key_bias_m - largest_n), and 1 / their sum
//               (0 without a visible key) in scales. Loads count on such adapters, so the largest has a walk of its own.
// divide_rows   out_nd = out_nd scales_n, the division left over, where it is cheaper: one invocation per quad of an output row, 64
//               a workgroup; keys is then the number of channels, a multiple of 4
// backward      one invocation per up to four neighbouring keys of a row, 64 a workgroup in x; rows in y and z
// HAS_BIAS: whether there is a key term; CAUSAL: whether key m is hidden from query n unless m <= n + keys - queries
// (constants, since a branch for every key would be felt).
// Write policy: forward turns logits into probabilities in place and stores lse, peak and sum (forward_rows4 scales, too); backward turns logits into
// probabilities and dp into ds, both in place.

// Variant: HAS_BIAS=1
// Variant: CAUSAL=1

#import index
#import mask
#import reduce

const STRETCH = 256u; // a chain of n additions is off by up to 1.5e-8 n: sums are made in stretches

override HAS_BIAS: bool = false;
override CAUSAL: bool = false;

struct Params { rows: u32, queries: u32, keys: u32, first: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read_write> logits: array<f32>;  // [rows, keys]
@group(0) @binding(3) var<storage, read> key_bias: array<f32>;      // [all rows / queries, keys]
@group(0) @binding(4) var<storage, read_write> lse: array<f32>;     // [all rows]
@group(0) @binding(5) var<storage, read> stats: array<f32>;         // [all rows, 3] peak, 1 / sum, delta (attend_merge)
@group(0) @binding(6) var<storage, read_write> dp: array<f32>;      // [rows, keys]
@group(0) @binding(7) var<storage, read_write> peak_and_sum: array<f32>; // [all rows, 2]
// The same places for forward_rows4 and divide_rows.
@group(0) @binding(2) var<storage, read_write> logit_quads: array<vec4<f32>>; // [rows, keys / 4]
@group(0) @binding(3) var<storage, read> bias_quads: array<vec4<f32>>;        // [all rows / queries, keys / 4]
@group(0) @binding(5) var<storage, read_write> scales: array<f32>;            // [rows]
@group(0) @binding(6) var<storage, read_write> out_quads: array<vec4<f32>>;   // [all rows, channels / 4]

// Row `row` of the slab is row params.first + row of all rows; its keys' terms start here.
fn bias_row(row: u32) -> u32 {
    return ((params.first + row) / params.queries) * params.keys;
}

// Number of keys that a row sees: all, or those up to its query.
fn visible(row: u32) -> u32 {
    if CAUSAL {
        let end = (params.first + row) % params.queries + 1u + params.keys;
        return min(max(end, params.queries) - params.queries, params.keys);
    }
    return params.keys;
}

fn logit(at: u32, bias_at: u32, m: u32, seen: u32) -> f32 {
    var l = logits[at + m];
    if HAS_BIAS {
        l = max(l + key_bias[bias_at + m], MASKED);
    }
    if CAUSAL {
        l = select(MASKED, l, m < seen);
    }
    return l;
}

fn store_normaliser(row: u32, peak: f32, sum: f32) {
    let at = params.first + row;
    let live = !is_masked(peak);
    lse[at] = select(MASKED, peak + log(sum), live);
    peak_and_sum[at * 2u] = select(MASKED, peak, live);
    peak_and_sum[at * 2u + 1u] = select(0.0, sum, live);
}

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
    let at = row * params.keys;
    let bias_at = bias_row(row);
    let seen = visible(row);
    var largest = MASKED;
    for (var m = local; m < params.keys; m += WORKGROUP) {
        largest = max(largest, logit(at, bias_at, m, seen));
    }
    largest = largest_of(largest, local);
    let live = !is_masked(largest);
    var sum = 0.0;
    for (var first = 0u; first < params.keys; first += STRETCH * WORKGROUP) {
        var stretch = 0.0;
        for (var m = first + local; m < min(first + STRETCH * WORKGROUP, params.keys); m += WORKGROUP) {
            stretch += exp(logit(at, bias_at, m, seen) - largest);
        }
        sum += stretch;
    }
    sum = sum_of(sum, local);
    let scale = select(0.0, 1.0 / sum, live);
    for (var m = local; m < params.keys; m += WORKGROUP) {
        logits[at + m] = scale * exp(logit(at, bias_at, m, seen) - largest);
    }
    if local == 0u {
        store_normaliser(row, largest, sum);
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
    let at = row * params.keys;
    let bias_at = bias_row(row);
    let seen = visible(row);
    var largest = MASKED;
    var sum = 0.0;
    let whole = params.keys - params.keys % 4u;
    for (var first = 0u; first < whole; first += STRETCH * 4u) {
        let before = largest;
        var stretch = 0.0;
        for (var m = first; m < min(first + STRETCH * 4u, whole); m += 4u) {
            let l = vec4(logit(at, bias_at, m, seen), logit(at, bias_at, m + 1u, seen), logit(at, bias_at, m + 2u, seen), logit(at, bias_at, m + 3u, seen));
            let top = max(max(l.x, l.y), max(l.z, l.w));
            if top > largest {
                stretch *= exp(largest - top);
                largest = top;
            }
            stretch += dot(exp(l - largest), vec4(1.0));
        }
        sum = sum * exp(before - largest) + stretch;
    }
    for (var m = whole; m < params.keys; m++) {
        let l = logit(at, bias_at, m, seen);
        let top = max(l, largest);
        sum = sum * exp(largest - top) + exp(l - top);
        largest = top;
    }
    let live = !is_masked(largest);
    let scale = select(0.0, 1.0 / sum, live);
    for (var m = 0u; m < params.keys; m++) {
        logits[at + m] = scale * exp(logit(at, bias_at, m, seen) - largest);
    }
    store_normaliser(row, largest, sum);
}

fn four_logits(at: u32, bias_at: u32, quad: u32, seen: u32) -> vec4<f32> {
    var l = logit_quads[at + quad];
    if HAS_BIAS {
        l = max(l + bias_quads[bias_at + quad], vec4(MASKED));
    }
    if CAUSAL {
        l = select(vec4(MASKED), l, vec4(quad * 4u) + vec4(0u, 1u, 2u, 3u) < vec4(seen));
    }
    return l;
}

@compute @workgroup_size(VECTOR)
fn forward_rows4(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let row = flat_index(workgroup, workgroups, VECTOR, local);
    if row >= params.rows {
        return;
    }
    let quads = params.keys / 4u;
    let at = row * quads;
    let bias_at = bias_row(row) / 4u;
    let seen = visible(row);
    var tops = vec4(MASKED);
    for (var m = 0u; m < quads; m++) {
        tops = max(tops, four_logits(at, bias_at, m, seen));
    }
    let largest = max(max(tops.x, tops.y), max(tops.z, tops.w));
    var sums = vec4(0.0);
    for (var first = 0u; first < quads; first += STRETCH) {
        var stretch = vec4(0.0);
        for (var m = first; m < min(first + STRETCH, quads); m++) {
            let p = exp(four_logits(at, bias_at, m, seen) - largest);
            stretch += p;
            logit_quads[at + m] = p;
        }
        sums += stretch;
    }
    let sum = (sums.x + sums.y) + (sums.z + sums.w);
    let live = !is_masked(largest);
    scales[row] = select(0.0, 1.0 / sum, live);
    store_normaliser(row, largest, sum);
}

@compute @workgroup_size(WORKGROUP)
fn divide_rows(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_index(workgroup, workgroups, WORKGROUP, local);
    let quads = params.keys / 4u;
    if i >= params.rows * quads {
        return;
    }
    out_quads[params.first * quads + i] *= scales[i / quads];
}

@compute @workgroup_size(WORKGROUP)
fn backward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let row = workgroup.y + workgroup.z * workgroups.y;
    let begin = (workgroup.x * WORKGROUP + local) * 4u;
    if row >= params.rows || begin >= params.keys {
        return;
    }
    let at = row * params.keys;
    let bias_at = bias_row(row);
    let seen = visible(row);
    let peak = stats[(params.first + row) * 3u];
    let scale = stats[(params.first + row) * 3u + 1u];
    let delta = stats[(params.first + row) * 3u + 2u];
    for (var m = begin; m < min(begin + 4u, params.keys); m++) {
        // A row that sees nothing has a sum of zero, and its biases may lie above the peak that stands for it.
        let p = select(0.0, scale * exp(logit(at, bias_at, m, seen) - peak), scale > 0.0);
        logits[at + m] = p;
        dp[at + m] = p * (dp[at + m] - delta);
    }
}
