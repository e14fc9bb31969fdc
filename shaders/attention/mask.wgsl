// y = x where a token is real, params.fill where it is padding; dx = dy where it is real, otherwise 0.
// x has `width` neighbouring elements for every token of every head; the mask has one number for every token of a sample
// (1 = padding), shared by its heads.
// One invocation per element; a workgroup holds 64.
// Write policy: forward stores y; backward stores dx, or adds to it when params.accumulate == 1.

#import index

struct Params { len: u32, per_sample: u32, tokens: u32, width: u32, fill: f32, accumulate: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> x: array<f32>;        // [batch, heads, tokens, width]
@group(0) @binding(3) var<storage, read> padding: array<f32>;  // [batch, tokens]
@group(0) @binding(4) var<storage, read_write> y: array<f32>;  // [batch, heads, tokens, width]
@group(0) @binding(5) var<storage, read> dy: array<f32>;       // [batch, heads, tokens, width]
@group(0) @binding(6) var<storage, read_write> dx: array<f32>; // [batch, heads, tokens, width]

fn is_padding(i: u32) -> bool {
    let token = (i / params.width) % params.tokens;
    return padding[i / params.per_sample * params.tokens + token] != 0.0;
}

@compute @workgroup_size(WORKGROUP)
fn forward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_index(workgroup, workgroups, WORKGROUP, local);
    if i >= params.len {
        return;
    }
    y[i] = select(x[i], params.fill, is_padding(i));
}

@compute @workgroup_size(WORKGROUP)
fn backward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_index(workgroup, workgroups, WORKGROUP, local);
    if i >= params.len {
        return;
    }
    var d = select(dy[i], 0.0, is_padding(i));
    if params.accumulate == 1u {
        d += dx[i];
    }
    dx[i] = d;
}
