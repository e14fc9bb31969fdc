// Weights of LARA's proposals against each other (mis-opt; paper section 4.2, spec 1.4). With M_cj = phi(mu_j, w_c) =
// g_cj + norm_j, where g = s w mu^T and norm_j = -(s / 2) |mu_j|^2:
//   log_q_c = M_cc,   balance_c = exp(M_cc - peak_c) / sum_c,   peak_c = max_j M_cj,  sum_c = sum_j exp(M_cj - peak_c)
// (not exp(M - LSE): of a large LSE in f32 the rounding, 5e-4 at 1e4, would show).
// Gradient: dM_cj = -(dbalance_c balance_c) softmax_j(M_c.), plus dbalance_c balance_c + dlog_q_c on the diagonal.
// A landmark whose norm is the sentinel -1e30 is missing (padding): it stands in no sum, its balance is -1 for lara_mix to
// see, its log_q 0, its gradients 0.
// One invocation per row c, 64 a workgroup.
// Write policy: all stored (dnorm is the column sum of dg).

#import index
#import mask

struct Params { rows: u32, landmarks: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> g: array<f32>;               // [rows, landmarks], rows = batch heads landmarks
@group(0) @binding(3) var<storage, read> norm: array<f32>;            // [rows]
@group(0) @binding(4) var<storage, read_write> balance: array<f32>;   // [rows]
@group(0) @binding(5) var<storage, read_write> log_q: array<f32>;     // [rows]
@group(0) @binding(6) var<storage, read> dbalance: array<f32>;        // [rows]
@group(0) @binding(7) var<storage, read> dlog_q: array<f32>;          // [rows]
@group(0) @binding(8) var<storage, read_write> dg: array<f32>;        // [rows, landmarks]

const STRETCH = 128u; // a chain of n additions is off by up to 1.5e-8 n

// Largest M_cj and the sum of exp(M_cj - largest).
fn peak_and_sum(row: u32) -> vec2<f32> {
    let at = row * params.landmarks;
    let base = (row / params.landmarks) * params.landmarks;
    var largest = g[at] + norm[base];
    for (var j = 1u; j < params.landmarks; j++) {
        largest = max(largest, g[at + j] + norm[base + j]);
    }
    var sum = 0.0;
    for (var first = 0u; first < params.landmarks; first += STRETCH) {
        var stretch = 0.0;
        for (var j = first; j < min(first + STRETCH, params.landmarks); j++) {
            stretch += exp(g[at + j] + norm[base + j] - largest);
        }
        sum += stretch;
    }
    return vec2(largest, sum);
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
    if is_masked(norm[row]) {
        balance[row] = -1.0;
        log_q[row] = 0.0;
        return;
    }
    let diagonal = g[row * params.landmarks + row % params.landmarks] + norm[row];
    let all = peak_and_sum(row);
    balance[row] = exp(diagonal - all.x) / all.y;
    log_q[row] = diagonal;
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
    let at = row * params.landmarks;
    let c = row % params.landmarks;
    let base = row - c;
    let is_missing = is_masked(norm[row]);
    let all = peak_and_sum(row);
    let weighted = dbalance[row] * exp(g[at + c] + norm[row] - all.x) / all.y;
    for (var j = 0u; j < params.landmarks; j++) {
        var d = -weighted * exp(g[at + j] + norm[base + j] - all.x) / all.y;
        if j == c {
            d += weighted + dlog_q[row];
        }
        d = select(d, 0.0, is_missing);
        dg[at + j] = d;
    }
}
