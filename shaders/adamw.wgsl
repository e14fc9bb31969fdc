// AdamW (Loshchilov and Hutter, ICLR 2019, decoupled decay), over one chunk of the flat parameter buffers:
//   g = max(-limit, min(limit, factor grad)); m = b1 m + (1 - b1) g; v = b2 v + (1 - b2) g^2
//   w = w - lr lr_scale (m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps) + decay w);  average = d average + (1 - d) w
// One invocation per four elements; a workgroup holds 64. A clip factor of 0 (a norm that is not finite) changes nothing.
// Write policy: updates weights, first_moment, second_moment (update) and average (average_weights) in place.

#import header
#import index

struct Params { quads: u32, beta1: f32, beta2: f32, eps: f32, decay: f32, lr_scale: f32, limit: f32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> grads: array<vec4<f32>>;               // [len]
@group(0) @binding(3) var<storage, read> norm: array<f32>;                      // [2] norm, clip factor
@group(0) @binding(4) var<storage, read_write> weights: array<vec4<f32>>;       // [len]
@group(0) @binding(5) var<storage, read_write> first_moment: array<vec4<f32>>;  // [len]
@group(0) @binding(6) var<storage, read_write> second_moment: array<vec4<f32>>; // [len]
@group(0) @binding(7) var<storage, read_write> average: array<vec4<f32>>;       // [len]

@compute @workgroup_size(WORKGROUP)
fn update(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_index(workgroup, workgroups, WORKGROUP, local);
    if i >= params.quads || norm[1] == 0.0 {
        return;
    }
    let g = clamp(norm[1] * grads[i], vec4(-params.limit), vec4(params.limit));
    let m = params.beta1 * first_moment[i] + (1.0 - params.beta1) * g;
    let v = params.beta2 * second_moment[i] + (1.0 - params.beta2) * g * g;
    first_moment[i] = m;
    second_moment[i] = v;
    let direction = (m / header.bias_correction1) / (sqrt(v / header.bias_correction2) + params.eps);
    let w = weights[i];
    weights[i] = w - header.lr * params.lr_scale * (direction + params.decay * w);
}

@compute @workgroup_size(WORKGROUP)
fn average_weights(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_index(workgroup, workgroups, WORKGROUP, local);
    if i < params.quads {
        average[i] = header.ema_decay * average[i] + (1.0 - header.ema_decay) * weights[i];
    }
}
