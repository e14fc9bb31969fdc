// y[b, n, :] = token(b, n) + position[n, :], where the first params.prefix tokens are those that every sample has (a class
// token, say) and the others are x[b, :, :] in order.
// One invocation per element of y (forward), of x (backward), of position (backward_position), of the tokens that every
// sample has (backward_shared); 64 a group.
// Write policy: forward stores y; gradients are stored, or added to when params.accumulate == 1.

#import index

struct Params { batch: u32, tokens: u32, dim: u32, prefix: u32, accumulate: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> x: array<f32>;               // [batch, tokens - prefix, dim]
@group(0) @binding(3) var<storage, read> position: array<f32>;        // [tokens, dim]
@group(0) @binding(4) var<storage, read> shared_tokens: array<f32>;   // [prefix, dim]; not read if there is none
@group(0) @binding(5) var<storage, read_write> y: array<f32>;         // [batch, tokens, dim]
@group(0) @binding(6) var<storage, read> dy: array<f32>;              // [batch, tokens, dim]
@group(0) @binding(7) var<storage, read_write> dx: array<f32>;        // [batch, tokens - prefix, dim]
@group(0) @binding(8) var<storage, read_write> dposition: array<f32>; // [tokens, dim]
@group(0) @binding(9) var<storage, read_write> dshared: array<f32>;   // [prefix, dim]

@compute @workgroup_size(WORKGROUP)
fn forward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_index(workgroup, workgroups, WORKGROUP, local);
    let size = params.tokens * params.dim;
    if i >= params.batch * size {
        return;
    }
    let inner = i % size;
    let skipped = params.prefix * params.dim;
    if inner < skipped {
        y[i] = shared_tokens[inner] + position[inner];
    } else {
        y[i] = x[(i / size) * (size - skipped) + inner - skipped] + position[inner];
    }
}

@compute @workgroup_size(WORKGROUP)
fn backward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_index(workgroup, workgroups, WORKGROUP, local);
    let skipped = params.prefix * params.dim;
    let size = params.tokens * params.dim - skipped;
    if i >= params.batch * size {
        return;
    }
    var d = dy[(i / size) * (size + skipped) + skipped + i % size];
    if params.accumulate == 1u {
        d += dx[i];
    }
    dx[i] = d;
}

// In stretches of 256, and parts of 64 stretches: a chain of n additions is off by up to 1.5e-8 n.
fn over_batch(i: u32) -> f32 {
    var sum = 0.0;
    var part = 0.0;
    for (var first = 0u; first < params.batch; first += 256u) {
        var stretch = 0.0;
        for (var b = first; b < min(first + 256u, params.batch); b++) {
            stretch += dy[b * params.tokens * params.dim + i];
        }
        part += stretch;
        if first / 256u % 64u == 63u {
            sum += part;
            part = 0.0;
        }
    }
    return sum + part;
}

@compute @workgroup_size(WORKGROUP)
fn backward_position(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_index(workgroup, workgroups, WORKGROUP, local);
    if i >= params.tokens * params.dim {
        return;
    }
    var d = over_batch(i);
    if params.accumulate == 1u {
        d += dposition[i];
    }
    dposition[i] = d;
}

@compute @workgroup_size(WORKGROUP)
fn backward_shared(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_index(workgroup, workgroups, WORKGROUP, local);
    if i >= params.prefix * params.dim {
        return;
    }
    var d = over_batch(i);
    if params.accumulate == 1u {
        d += dshared[i];
    }
    dshared[i] = d;
}
