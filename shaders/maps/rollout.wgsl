// Attention with the residual connection (Abnar and Zuidema 2020): y = (x + I) / 2 with rows normalised to sum 1,
//   y_nm = (x_nm + [n = m]) / (1 + sum over j of x_nj).
// A row whose sum is at most 1e-6 (weights may be negative) passes its own token on: y_nm = [n = m].
// forward       one workgroup of 64 per row (GPUs); rows are spread over workgroups in x and y
// forward_rows  one invocation per row, 8 a workgroup (CPU-like adapters: no barriers)
// Write policy: y is stored in full.

#import index
#import reduce

const SMALLEST = 1e-6;

struct Params { rows: u32, tokens: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> x: array<f32>;       // [rows, tokens], rows a multiple of tokens
@group(0) @binding(3) var<storage, read_write> y: array<f32>; // [rows, tokens]

fn mixed(row: u32, m: u32, sum: f32) -> f32 {
    let own = select(0.0, 1.0, m == row % params.tokens);
    if sum > SMALLEST {
        return (x[row * params.tokens + m] + own) / sum;
    }
    return own;
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
    var own = 0.0;
    for (var m = local; m < params.tokens; m += WORKGROUP) {
        own += x[row * params.tokens + m];
    }
    let sum = 1.0 + sum_of(own, local);
    for (var m = local; m < params.tokens; m += WORKGROUP) {
        y[row * params.tokens + m] = mixed(row, m, sum);
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
    var sum = 1.0;
    for (var m = 0u; m < params.tokens; m++) {
        sum += x[row * params.tokens + m];
    }
    for (var m = 0u; m < params.tokens; m++) {
        y[row * params.tokens + m] = mixed(row, m, sum);
    }
}
