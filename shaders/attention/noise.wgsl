// y = x + std e with e standard normal: one sample from each proposal N(mu, std^2 I) (paper section 4.1). The noise
// depends on (seed, stream, step, element) alone, so it is the same on every adapter; dx = dy.
// One invocation per four elements; a workgroup holds 64. Lengths are padded to whole vec4s.
// Write policy: forward stores y; backward stores dx, or adds to it when params.accumulate == 1.

#import header
#import index
#import philox

struct Params { quads: u32, stream: u32, deviation: f32, accumulate: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> x: array<vec4<f32>>;        // [len]
@group(0) @binding(3) var<storage, read_write> y: array<vec4<f32>>;  // [len]
@group(0) @binding(4) var<storage, read> dy: array<vec4<f32>>;       // [len]
@group(0) @binding(5) var<storage, read_write> dx: array<vec4<f32>>; // [len]

@compute @workgroup_size(64)
fn forward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_index(workgroup, workgroups, 64u, local);
    if i >= params.quads {
        return;
    }
    let counter = vec4(i, header.micro_step, header.step, params.stream);
    let bits = philox(counter, vec2(header.seed_low, header.seed_high));
    y[i] = x[i] + params.deviation * vec4(normal_pair(bits.xy), normal_pair(bits.zw));
}

@compute @workgroup_size(64)
fn backward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_index(workgroup, workgroups, 64u, local);
    if i < params.quads {
        if params.accumulate == 1u {
            dx[i] += dy[i];
        } else {
            dx[i] = dy[i];
        }
    }
}
