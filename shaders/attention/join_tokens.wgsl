// One part of a concatenation along the tokens: rows of x go behind the `offset` elements that earlier parts take up in
// each matrix of y. The gradient takes the same rows of dy.
// One invocation per element of the part; a workgroup holds 64.
// Write policy: forward stores the part of y; backward stores dx, or adds to it when params.accumulate == 1.

#import index

struct Params { len: u32, part: u32, whole: u32, offset: u32, accumulate: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> x: array<f32>;        // [batch heads, part], part = tokens of the part * width
@group(0) @binding(3) var<storage, read_write> y: array<f32>;  // [batch heads, whole]
@group(0) @binding(4) var<storage, read> dy: array<f32>;       // [batch heads, whole]
@group(0) @binding(5) var<storage, read_write> dx: array<f32>; // [batch heads, part]

fn place(i: u32) -> u32 {
    return i / params.part * params.whole + params.offset + i % params.part;
}

@compute @workgroup_size(WORKGROUP)
fn forward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_index(workgroup, workgroups, WORKGROUP, local);
    if i < params.len {
        y[place(i)] = x[i];
    }
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
    var d = dy[place(i)];
    if params.accumulate == 1u {
        d += dx[i];
    }
    dx[i] = d;
}
