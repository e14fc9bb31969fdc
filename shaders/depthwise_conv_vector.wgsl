// Depthwise convolution where channels are whole vec4s: formula, dispatch contract and write policy are those of
// common/depthwise_conv.wgsl, a number being a vec4 of channels. `arranged` is depthwise_conv_scalar.arrange's.

#import index
#import depthwise_conv

@group(0) @binding(2) var<storage, read> x: array<vec4<f32>>;        // [batch, height, width, channels/4]
@group(0) @binding(3) var<storage, read> arranged: array<vec4<f32>>; // [places, channels/4]
@group(0) @binding(4) var<storage, read> bias: array<vec4<f32>>;     // [channels/4]
@group(0) @binding(5) var<storage, read_write> y: array<vec4<f32>>;  // [batch, height, width, channels/4]
@group(0) @binding(6) var<storage, read> dy: array<vec4<f32>>;       // [batch, height, width, channels/4]
@group(0) @binding(7) var<storage, read_write> parts: array<f32>;    // [blocks, channels, places]

const ZERO: vec4<f32> = vec4(0.0);

fn value_at(start: u32, column: u32, c: u32) -> vec4<f32> {
    if column < params.width {
        return x[(start + column) * params.depth + c];
    }
    return ZERO;
}

fn store(at: u32, c: u32, value: vec4<f32>) {
    var sum = value;
    if params.has_bias == 1u {
        sum += bias[c];
    }
    if params.accumulate == 1u {
        sum += y[at];
    }
    y[at] = sum;
}

fn store_tap(block: u32, c: u32, tap: u32, value: vec4<f32>) {
    let places = params.side * params.side;
    let at = (block * params.depth + c) * 4u * places + tap;
    parts[at] = value.x;
    parts[at + places] = value.y;
    parts[at + 2u * places] = value.z;
    parts[at + 3u * places] = value.w;
}
