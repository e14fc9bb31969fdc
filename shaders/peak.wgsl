// What an adapter can do at best, for `lara bench` to measure others against.
// multiply_add  every invocation does params.rounds * 512 multiply-adds in eight independent chains, from registers;
//               the sums are stored so that nothing can be left out. One invocation per four elements; 64 a workgroup.
// copy          y = x, one invocation per four elements; a workgroup holds 64.
// Write policy: stores.

#import index

struct Params { quads: u32, rounds: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> x: array<vec4<f32>>;       // [len]
@group(0) @binding(3) var<storage, read_write> y: array<vec4<f32>>; // [len]

@compute @workgroup_size(WORKGROUP)
fn multiply_add(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_index(workgroup, workgroups, WORKGROUP, local);
    if i >= params.quads {
        return;
    }
    // Eight chains of one float each: enough to hide the latency of a multiply-add; lavapipe, which multiplies and adds
    // in two instructions and has sixteen registers, is half as fast with sixteen.
    let factor = x[i].x;
    let term = x[i].y;
    var a = x[i];
    var b = a + 1.0;
    for (var round = 0u; round < params.rounds; round++) {
        for (var k = 0u; k < 16u; k++) {
            a = fma(a, vec4(factor), vec4(term));
            b = fma(b, vec4(factor), vec4(term));
            a = fma(a, vec4(factor), vec4(term));
            b = fma(b, vec4(factor), vec4(term));
            a = fma(a, vec4(factor), vec4(term));
            b = fma(b, vec4(factor), vec4(term));
            a = fma(a, vec4(factor), vec4(term));
            b = fma(b, vec4(factor), vec4(term));
        }
    }
    y[i] = a + b;
}

@compute @workgroup_size(WORKGROUP)
fn copy(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_index(workgroup, workgroups, WORKGROUP, local);
    if i < params.quads {
        y[i] = x[i];
    }
}
