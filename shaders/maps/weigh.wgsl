// y = max(0, a b): attention weighted with its gradient, what speaks against the class left out.
// One invocation per four elements; a workgroup holds 64. Lengths are padded to whole vec4s.
// Write policy: y is stored.

#import index

struct Params { quads: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> a: array<vec4<f32>>;       // [len]
@group(0) @binding(3) var<storage, read> b: array<vec4<f32>>;       // [len]
@group(0) @binding(4) var<storage, read_write> y: array<vec4<f32>>; // [len]

@compute @workgroup_size(WORKGROUP)
fn forward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_index(workgroup, workgroups, WORKGROUP, local);
    if i < params.quads {
        y[i] = max(vec4(0.0), a[i] * b[i]);
    }
}
