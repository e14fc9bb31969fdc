// y = x s(z) with s(z) = 1 / (1 + exp(-z)) and z = 2 sqrt(2/pi) (x + 0.044715 x^3): 0.5 x (1 + tanh(z / 2)), GELU's tanh form;
// dx = dy (s + x s (1 - s) z'). Beyond 10 in size x is taken as 10 within z, where s is 0 or 1 to every digit: nothing overflows.
// One invocation per four elements; a workgroup holds 64 (256 elements). Lengths are padded to whole vec4s.
// Write policy: forward stores y; backward stores dx, or adds to it when params.accumulate == 1.

#import index

const SCALE: f32 = 1.5957691; // 2 sqrt(2/pi)
const CUBIC: f32 = 0.044715;
const FLAT: f32 = 10.0;

struct Params { quads: u32, accumulate: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> x: array<vec4<f32>>;        // [len]
@group(0) @binding(3) var<storage, read_write> y: array<vec4<f32>>;  // [len]
@group(0) @binding(4) var<storage, read> dy: array<vec4<f32>>;       // [len]
@group(0) @binding(5) var<storage, read_write> dx: array<vec4<f32>>; // [len]

fn gate(t: vec4<f32>) -> vec4<f32> {
    // The smaller side first: exp never grows.
    let small = exp(-abs(SCALE * t * (1.0 + CUBIC * t * t)));
    return select(vec4(1.0), small, t < vec4(0.0)) / (1.0 + small);
}

@compute @workgroup_size(WORKGROUP)
fn forward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_index(workgroup, workgroups, WORKGROUP, local);
    if i < params.quads {
        y[i] = x[i] * gate(clamp(x[i], vec4(-FLAT), vec4(FLAT)));
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
        let t = clamp(x[i], vec4(-FLAT), vec4(FLAT));
        let s = gate(t);
        let slope = SCALE * (1.0 + 3.0 * CUBIC * t * t);
        var d = dy[i] * s * (1.0 + t * gate(-t) * slope);
        if params.accumulate == 1u {
            d += dx[i];
        }
        dx[i] = d;
    }
}
