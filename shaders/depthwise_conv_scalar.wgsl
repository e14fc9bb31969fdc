// Depthwise convolution of any number of channels: formula, dispatch contract and write policy are those of
// common/depthwise_conv.wgsl, a number being one channel. And, for both files,
// arrange  stores arranged[k, c] = weight[c, k], so that neighbours read neighbours; one invocation per element, 64 a workgroup

#import index
#import depthwise_conv

@group(0) @binding(2) var<storage, read> x: array<f32>;               // [batch, height, width, channels]
@group(0) @binding(3) var<storage, read> arranged: array<f32>;        // [places, channels]
@group(0) @binding(4) var<storage, read> bias: array<f32>;            // [channels]
@group(0) @binding(5) var<storage, read_write> y: array<f32>;         // [batch, height, width, channels]
@group(0) @binding(6) var<storage, read> dy: array<f32>;              // [batch, height, width, channels]
@group(0) @binding(7) var<storage, read_write> parts: array<f32>;     // [blocks, channels, places]
@group(0) @binding(8) var<storage, read> weight: array<f32>;          // [channels, 1, side, side]
@group(0) @binding(9) var<storage, read_write> arrangement: array<f32>; // [places, channels], what becomes `arranged`

const ZERO: f32 = 0.0;

fn value_at(start: u32, column: u32, c: u32) -> f32 {
    if column < params.width {
        return x[(start + column) * params.depth + c];
    }
    return ZERO;
}

fn store(at: u32, c: u32, value: f32) {
    var sum = value;
    if params.has_bias == 1u {
        sum += bias[c];
    }
    if params.accumulate == 1u {
        sum += y[at];
    }
    y[at] = sum;
}

fn store_tap(block: u32, c: u32, tap: u32, value: f32) {
    parts[(block * params.depth + c) * params.side * params.side + tap] = value;
}

@compute @workgroup_size(WORKGROUP)
fn arrange(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_index(workgroup, workgroups, WORKGROUP, local);
    let places = params.side * params.side;
    if i < places * params.depth {
        arrangement[i] = weight[i % params.depth * places + i / params.depth];
    }
}
