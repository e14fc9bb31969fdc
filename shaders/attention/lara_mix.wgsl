// LARA's mixing weights of the C proposals for every query (mis-opt; paper section 4.2, spec 1.4 and 1.10):
//   t_nc = exp(r_nc - tlse_c),  a_nc = max(balance_c + alpha (t_nc - mean_c t_nc), 1e-8)
//   y_n. = softmax_c( log a_nc + x_nc + lse_c - log_q_c ),   x = s q w^T,  r = s q qbar^T
// (-(s / 2) |q_n|^2 is the same for all c and left out.) Gradients:
//   dL = y (dy - sum_c y dy); dx = dL; da = dL / a where a was not clamped; dt = alpha (da - mean_c da); dr = t dt
//   dlse_c = sum_n dL = -dlog_q_c, dbalance_c = sum_n da, dtlse_c = -sum_n t dt
// HAS_MISSING: a landmark of negative balance is missing (padding): it stands in no mean and no sum, and y, dx, dr and da
// are 0 there.
// One invocation per query, 64 a workgroup.
// Write policy: all stored (dlse, dlog_q, dbalance and dtlse are column sums of dx, -dx, da and -dr).

// Variant: HAS_MISSING=1

#import index
#import mask

override HAS_MISSING: bool = false;

const SMALLEST = 1e-8;

struct Params { rows: u32, queries: u32, landmarks: u32, alpha: f32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> x: array<f32>;           // [rows, landmarks], rows = batch heads queries
@group(0) @binding(3) var<storage, read> r: array<f32>;           // [rows, landmarks]
@group(0) @binding(4) var<storage, read> tlse: array<f32>;        // [batch heads, landmarks]
@group(0) @binding(5) var<storage, read> balance: array<f32>;     // [batch heads, landmarks]
@group(0) @binding(6) var<storage, read> lse: array<f32>;         // [batch heads, landmarks]
@group(0) @binding(7) var<storage, read> log_q: array<f32>;       // [batch heads, landmarks]
@group(0) @binding(8) var<storage, read_write> y: array<f32>;     // [rows, landmarks]
@group(0) @binding(9) var<storage, read> saved: array<f32>;       // [rows, landmarks] y, read
@group(0) @binding(10) var<storage, read> dy: array<f32>;         // [rows, landmarks]
@group(0) @binding(11) var<storage, read_write> dx: array<f32>;   // [rows, landmarks]
@group(0) @binding(12) var<storage, read_write> dr: array<f32>;   // [rows, landmarks]
@group(0) @binding(13) var<storage, read_write> da: array<f32>;   // [rows, landmarks]

fn is_there(c: u32) -> bool {
    return !HAS_MISSING || balance[c] >= 0.0;
}

// How many landmarks of a head are there, at least 1.
fn count_of(base: u32) -> f32 {
    if !HAS_MISSING {
        return f32(params.landmarks);
    }
    var count = 0u;
    for (var c = 0u; c < params.landmarks; c++) {
        count += select(0u, 1u, is_there(base + c));
    }
    return f32(max(count, 1u));
}

// t_nc, 0 where landmark c is missing.
fn share_of(at: u32, base: u32, c: u32) -> f32 {
    let t = exp(r[at + c] - tlse[base + c]);
    if HAS_MISSING {
        return select(0.0, t, is_there(base + c));
    }
    return t;
}

fn mean_t(at: u32, base: u32) -> f32 {
    var sum = 0.0;
    for (var c = 0u; c < params.landmarks; c++) {
        sum += share_of(at, base, c);
    }
    return sum / count_of(base);
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
    let at = row * params.landmarks;
    let base = (row / params.queries) * params.landmarks;
    // A load costs more than anything else here: t waits in y for its mean, largest and sum are found in one walk.
    var mean = 0.0;
    for (var c = 0u; c < params.landmarks; c++) {
        let t = share_of(at, base, c);
        y[at + c] = t;
        mean += t;
    }
    mean /= count_of(base);
    var largest = MASKED;
    var sum = 0.0;
    for (var c = 0u; c < params.landmarks; c++) {
        let a = max(balance[base + c] + params.alpha * (y[at + c] - mean), SMALLEST);
        var logit = log(a) + x[at + c] + lse[base + c] - log_q[base + c];
        if HAS_MISSING {
            logit = select(MASKED, logit, is_there(base + c));
        }
        y[at + c] = logit;
        if logit > largest {
            sum *= exp(largest - logit);
            largest = logit;
        }
        sum += exp(logit - largest);
    }
    // Every key masked: every lse is the sentinel, and the query attends to nothing.
    let scale = select(1.0 / sum, 0.0, is_masked(largest));
    for (var c = 0u; c < params.landmarks; c++) {
        y[at + c] = scale * exp(y[at + c] - largest);
    }
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
    let base = (row / params.queries) * params.landmarks;
    let mean = mean_t(at, base);
    var product = 0.0;
    for (var c = 0u; c < params.landmarks; c++) {
        product += saved[at + c] * dy[at + c];
    }
    var mean_da = 0.0;
    for (var c = 0u; c < params.landmarks; c++) {
        let a = balance[base + c] + params.alpha * (share_of(at, base, c) - mean);
        let dl = saved[at + c] * (dy[at + c] - product);
        let d = select(0.0, dl / max(a, SMALLEST), a > SMALLEST && is_there(base + c));
        da[at + c] = d;
        mean_da += d;
        dx[at + c] = dl;
    }
    mean_da /= count_of(base);
    for (var c = 0u; c < params.landmarks; c++) {
        dr[at + c] = share_of(at, base, c) * params.alpha * (da[at + c] - mean_da);
    }
}
