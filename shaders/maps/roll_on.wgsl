// chosen_rn = (chosen_rn + rows_rHn) / 2: one layer of a rollout without a matrix. Where rows are what the layer's implied
//   attention matrices A_h make of chosen, rows_rhn = sum over k of chosen_rk A_hkn and rows_rHn its mean over the H heads,
//   chosen becomes chosen (A + I) / 2 with A the mean of the heads: attention and the residual connection in equal parts.
// One invocation per row and token; a workgroup holds 64.
// Write policy: chosen is replaced, each element by the invocation that reads it.

#import index

struct Params { rows: u32, heads: u32, tokens: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> rows: array<f32>;         // [rows, heads + 1, tokens]
@group(0) @binding(3) var<storage, read_write> chosen: array<f32>; // [rows, tokens]

@compute @workgroup_size(WORKGROUP)
fn forward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_index(workgroup, workgroups, WORKGROUP, local);
    if i >= params.rows * params.tokens {
        return;
    }
    let row = i / params.tokens;
    let mean = rows[(row * (params.heads + 1u) + params.heads) * params.tokens + i % params.tokens];
    chosen[i] = 0.5 * (chosen[i] + mean);
}
