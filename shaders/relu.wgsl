// y = max(x, 0); dx = dy where y > 0, else 0.
// One invocation per four elements; a workgroup holds 64 (256 elements). Lengths are padded to whole vec4s.
// Write policy: forward stores y; backward stores dx, or adds to it when params.accumulate == 1.

#import index

struct Params { quads: u32, accumulate: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> x: array<vec4<f32>>;        // [len]
@group(0) @binding(3) var<storage, read_write> y: array<vec4<f32>>;  // [len]
@group(0) @binding(4) var<storage, read> dy: array<vec4<f32>>;       // [len]
@group(0) @binding(5) var<storage, read_write> dx: array<vec4<f32>>; // [len]

@compute @workgroup_size(WORKGROUP)
fn forward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_index(workgroup, workgroups, WORKGROUP, local);
    if i < params.quads {
        // Not max, which may hide a NaN.
        y[i] = select(x[i], vec4(0.0), x[i] <= vec4(0.0));
    }
}

@compute @workgroup_size(WORKGROUP)
fn backward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_index(workgroup, workgroups, WORKGROUP, local);
    if i < params.quads {
        var d = select(dy[i], vec4(0.0), x[i] <= vec4(0.0));
        if params.accumulate == 1u {
            d += dx[i];
        }
        dx[i] = d;
    }
}
