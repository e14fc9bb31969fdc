// y = num / max(den, smallest), one denominator for a row: the normaliser of linear attention (spec 1.8).
// Gradient: dnum = dy / max(den, smallest); dden = -(sum_c dy_c y_c) / den where den was not raised, otherwise 0.
// forward, backward_num: one invocation per element; backward_den: one per row; a workgroup holds 64.
// Write policy: forward stores y; the others store their gradient, or add to it when params.accumulate == 1.

#import index

struct Params { rows: u32, dim: u32, smallest: f32, accumulate: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> num: array<f32>;        // [rows, dim]
@group(0) @binding(3) var<storage, read> den: array<f32>;        // [rows]
@group(0) @binding(4) var<storage, read_write> y: array<f32>;    // [rows, dim]
@group(0) @binding(5) var<storage, read> dy: array<f32>;         // [rows, dim]
@group(0) @binding(6) var<storage, read_write> dnum: array<f32>; // [rows, dim]
@group(0) @binding(7) var<storage, read_write> dden: array<f32>; // [rows]

@compute @workgroup_size(WORKGROUP)
fn forward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_index(workgroup, workgroups, WORKGROUP, local);
    if i >= params.rows * params.dim {
        return;
    }
    y[i] = num[i] / max(den[i / params.dim], params.smallest);
}

@compute @workgroup_size(WORKGROUP)
fn backward_num(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_index(workgroup, workgroups, WORKGROUP, local);
    if i >= params.rows * params.dim {
        return;
    }
    var d = dy[i] / max(den[i / params.dim], params.smallest);
    if params.accumulate == 1u {
        d += dnum[i];
    }
    dnum[i] = d;
}

@compute @workgroup_size(WORKGROUP)
fn backward_den(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let row = flat_index(workgroup, workgroups, WORKGROUP, local);
    if row >= params.rows {
        return;
    }
    var d = 0.0;
    if den[row] > params.smallest {
        for (var c = 0u; c < params.dim; c++) {
            let i = row * params.dim + c;
            d -= dy[i] * num[i];
        }
        d /= den[row] * den[row];
    }
    if params.accumulate == 1u {
        d += dden[row];
    }
    dden[row] = d;
}
