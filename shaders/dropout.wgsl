// y = x m / (1 - p) with m in {0, 1} drawn once for every `group` neighbouring elements: group = 1 is dropout, group =
// the size of a sample is drop-path (stochastic depth). The mask is drawn again in the backward pass, not stored:
// it depends on (seed, stream, step, group index) alone.
// One invocation per element; a workgroup holds 64.
// Write policy: forward stores y; backward stores dx, or adds to it when params.accumulate == 1.

#import header
#import index
#import philox

struct Params { len: u32, group: u32, stream: u32, probability: f32, accumulate: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> x: array<f32>;        // [len]
@group(0) @binding(3) var<storage, read_write> y: array<f32>;  // [len]
@group(0) @binding(4) var<storage, read> dy: array<f32>;       // [len]
@group(0) @binding(5) var<storage, read_write> dx: array<f32>; // [len]

fn factor(i: u32) -> f32 {
    let counter = vec4(i / params.group, header.micro_step, header.step, params.stream);
    let bits = philox(counter, vec2(header.seed_low, header.seed_high));
    return select(1.0 / (1.0 - params.probability), 0.0, uniform_open(bits.x) < params.probability);
}

@compute @workgroup_size(WORKGROUP)
fn forward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_index(workgroup, workgroups, WORKGROUP, local);
    if i < params.len {
        y[i] = x[i] * factor(i);
    }
}

@compute @workgroup_size(WORKGROUP)
fn backward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_index(workgroup, workgroups, WORKGROUP, local);
    if i < params.len {
        var d = dy[i] * factor(i);
        if params.accumulate == 1u {
            d += dx[i];
        }
        dx[i] = d;
    }
}
