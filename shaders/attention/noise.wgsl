// y = x + std e with e standard normal: one sample from each proposal N(mu, std^2 I) (paper section 4.1). The noise
// depends on (seed, stream, step, element) alone, so it is the same on every adapter; dx = dy.
// forward_ranked numbers the elements of a matrix of `rows` rows as if the padded ones among them were not there: row
// n samples + s by the rank of token n, so that a sample gets the noise that it would get without its padding.
// One invocation per four elements (forward_ranked: one element); a workgroup holds 64. Lengths are padded to whole vec4s.
// Write policy: forward stores y; backward stores dx, or adds to it when params.accumulate == 1.

#import header
#import index
#import philox

struct Params {
    quads: u32, stream: u32, deviation: f32, accumulate: u32, heads: u32, rows: u32, dim: u32, samples: u32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> x: array<vec4<f32>>;        // [len]
@group(0) @binding(3) var<storage, read_write> y: array<vec4<f32>>;  // [len]
@group(0) @binding(4) var<storage, read> dy: array<vec4<f32>>;       // [len]
@group(0) @binding(5) var<storage, read_write> dx: array<vec4<f32>>; // [len]
@group(0) @binding(6) var<storage, read> mu: array<f32>;             // [batch, heads, rows, dim] x, one by one
@group(0) @binding(7) var<storage, read> ranks: array<f32>;          // [batch, rows / samples + 1] real ones before each
@group(0) @binding(8) var<storage, read_write> w: array<f32>;        // [batch, heads, rows, dim] y, one by one

@compute @workgroup_size(WORKGROUP)
fn forward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_index(workgroup, workgroups, WORKGROUP, local);
    if i >= params.quads {
        return;
    }
    let counter = vec4(i, header.micro_step, header.step, params.stream);
    let bits = philox(counter, vec2(header.seed_low, header.seed_high));
    y[i] = x[i] + params.deviation * vec4(normal_pair(bits.xy), normal_pair(bits.zw));
}

@compute @workgroup_size(WORKGROUP)
fn forward_ranked(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_index(workgroup, workgroups, WORKGROUP, local);
    if i >= arrayLength(&w) || i >= 4u * params.quads {
        return;
    }
    let row = i / params.dim;
    let matrix = row / params.rows;
    let b = matrix / params.heads;
    let tokens = params.rows / params.samples;
    let at = b * (tokens + 1u);
    let token = row % params.rows / params.samples;
    let place = matrix % params.heads * u32(ranks[at + tokens]) + u32(ranks[at + token]);
    let number = (place * params.samples + row % params.samples) * params.dim + i % params.dim;
    let counter = vec4(number / 4u, header.micro_step + (b << 16u), header.step, params.stream);
    let bits = philox(counter, vec2(header.seed_low, header.seed_high));
    let pair = select(normal_pair(bits.xy), normal_pair(bits.zw), number % 4u >= 2u);
    w[i] = mu[i] + params.deviation * select(pair.x, pair.y, number % 2u == 1u);
}

@compute @workgroup_size(WORKGROUP)
fn backward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_index(workgroup, workgroups, WORKGROUP, local);
    if i < params.quads {
        if params.accumulate == 1u {
            dx[i] += dy[i];
        } else {
            dx[i] = dy[i];
        }
    }
}
