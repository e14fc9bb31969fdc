// LARA's mixing weights of the C proposals for every query (mis-opt; paper section 4.2, spec 1.4 and 1.10):
//   t_nc = exp(r_nc - tpeak_c) / tsum_c,  a_nc = max(balance_c + alpha (t_nc - mean_c t_nc), 1e-8)
//   y_n. = softmax_c( log a_nc + x_nc + lse_c - log_q_c ),   x = s q w^T,  r = s q qbar^T
//        = a_nc sum_c exp(x_nc + (peak_c - log_q_c) - largest) over its sum
// where the log-sum-exps tlse and lse are given as peak + log(sum): in f32 a large one is rounded (by 5e-4 at 1e4), and every
// exp of it would be off by as much. (-(s / 2) |q_n|^2 is the same for all c and left out.) Gradients:
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
const STRETCH = 128u; // a chain of n additions is off by up to 1.5e-8 n: sums are made in stretches

struct Params { rows: u32, queries: u32, landmarks: u32, alpha: f32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> x: array<f32>;           // [rows, landmarks], rows = batch heads queries
@group(0) @binding(3) var<storage, read> r: array<f32>;           // [rows, landmarks]
@group(0) @binding(4) var<storage, read> over_queries: array<f32>; // [batch heads, landmarks, 2] tpeak and tsum
@group(0) @binding(5) var<storage, read> balance: array<f32>;     // [batch heads, landmarks]
@group(0) @binding(6) var<storage, read> over_keys: array<f32>;   // [batch heads, landmarks, 2] peak and sum
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
    let t = exp(r[at + c] - over_queries[(base + c) * 2u]) / over_queries[(base + c) * 2u + 1u];
    if HAS_MISSING {
        return select(0.0, t, is_there(base + c));
    }
    return t;
}

// log of what is mixed but for a and sum, which are factors.
fn exponent(at: u32, base: u32, c: u32) -> f32 {
    let e = x[at + c] + (over_keys[(base + c) * 2u] - log_q[base + c]);
    if HAS_MISSING {
        return select(MASKED, e, is_there(base + c));
    }
    return e;
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
    // t waits in y for its mean, and the products for their sum.
    var mean = 0.0;
    var largest = MASKED;
    for (var first = 0u; first < params.landmarks; first += STRETCH) {
        var stretch = 0.0;
        for (var c = first; c < min(first + STRETCH, params.landmarks); c++) {
            let t = share_of(at, base, c);
            y[at + c] = t;
            stretch += t;
            largest = max(largest, exponent(at, base, c));
        }
        mean += stretch;
    }
    mean /= count_of(base);
    var sum = 0.0;
    for (var first = 0u; first < params.landmarks; first += STRETCH) {
        var stretch = 0.0;
        for (var c = first; c < min(first + STRETCH, params.landmarks); c++) {
            let a = max(balance[base + c] + params.alpha * (y[at + c] - mean), SMALLEST);
            let p = a * over_keys[(base + c) * 2u + 1u] * exp(exponent(at, base, c) - largest);
            y[at + c] = p;
            stretch += p;
        }
        sum += stretch;
    }
    // Every key masked: every peak is the sentinel and every sum 0, and the query attends to nothing.
    let scale = select(1.0 / sum, 0.0, is_masked(largest));
    for (var c = 0u; c < params.landmarks; c++) {
        y[at + c] *= scale;
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
    // t waits in dr.
    var sums = vec2(0.0); // of t, and of y dy
    for (var first = 0u; first < params.landmarks; first += STRETCH) {
        var stretch = vec2(0.0);
        for (var c = first; c < min(first + STRETCH, params.landmarks); c++) {
            let t = share_of(at, base, c);
            dr[at + c] = t;
            stretch += vec2(t, saved[at + c] * dy[at + c]);
        }
        sums += stretch;
    }
    let count = count_of(base);
    let mean = sums.x / count;
    var mean_da = 0.0;
    for (var first = 0u; first < params.landmarks; first += STRETCH) {
        var stretch = 0.0;
        for (var c = first; c < min(first + STRETCH, params.landmarks); c++) {
            let a = balance[base + c] + params.alpha * (dr[at + c] - mean);
            let dl = saved[at + c] * (dy[at + c] - sums.y);
            let d = select(0.0, dl / max(a, SMALLEST), a > SMALLEST && is_there(base + c));
            da[at + c] = d;
            stretch += d;
            dx[at + c] = dl;
        }
        mean_da += stretch;
    }
    mean_da /= count;
    for (var c = 0u; c < params.landmarks; c++) {
        dr[at + c] *= params.alpha * (da[at + c] - mean_da);
    }
}
