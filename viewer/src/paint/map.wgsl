// One attention map as coloured patches, straight from the buffer that holds it.
//   colour = scale[t],  t = value / high (linear) or 1 + ln(value / high) / depth (logarithmic);
//   differences: t = (1 + (value - other) / high) / 2, white where the two agree.
// A triangle that covers the viewport; the patch is found from the pixel's place inside `rect`.
// high is params.high where that is above 0, else the second number of the pair at params.range in `ranges`.

struct Params {
    rect: vec4<f32>,   // left, top, width, height in pixels
    rows: u32,
    columns: u32,
    at: u32,           // first patch in `values`
    other_at: u32,     // first patch in `others`
    range: u32,        // index of a (smallest, largest) pair in `ranges`
    opacity: f32,
    is_log: u32,
    is_difference: u32,
    is_linear: u32,    // whether the target wants linear light instead of sRGB values
    high: f32,         // the value of the highest colour, 0 to take it from `ranges`
    depth: f32,        // ln(high / the value of the lowest colour) of a logarithmic scale
    pad: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> values: array<f32>;  // [.., tokens]
@group(0) @binding(2) var<storage, read> others: array<f32>;  // [.., tokens]; `values` again where there is no difference
@group(0) @binding(3) var<storage, read> ranges: array<f32>;  // [maps, 2]
@group(0) @binding(4) var<uniform> scale: array<vec4<u32>, 64>; // 256 colours, red in the lowest byte

@vertex
fn cover(@builtin(vertex_index) index: u32) -> @builtin(position) vec4<f32> {
    let x = f32(i32(index & 1u) * 4 - 1);
    let y = f32(i32(index >> 1u) * 4 - 1);
    return vec4(x, y, 0.0, 1.0);
}

fn to_linear(c: vec3<f32>) -> vec3<f32> {
    return select(pow((c + 0.055) / 1.055, vec3(2.4)), c / 12.92, c <= vec3(0.04045));
}

fn position_on_scale(patch_index: u32) -> f32 {
    let high = max(select(ranges[params.range * 2u + 1u], params.high, params.high > 0.0), 1e-30);
    let value = values[params.at + patch_index];
    if params.is_difference == 1u {
        return 0.5 + 0.5 * (value - others[params.other_at + patch_index]) / high;
    }
    if params.is_log == 1u {
        return 1.0 + log(max(value / high, 1e-30)) / params.depth;
    }
    return value / high;
}

@fragment
fn colour(@builtin(position) position: vec4<f32>) -> @location(0) vec4<f32> {
    let inside = (position.xy - params.rect.xy) / params.rect.zw;
    let column = min(u32(max(inside.x, 0.0) * f32(params.columns)), params.columns - 1u);
    let row = min(u32(max(inside.y, 0.0) * f32(params.rows)), params.rows - 1u);
    let t = clamp(position_on_scale(row * params.columns + column), 0.0, 1.0);
    let level = u32(t * 255.0 + 0.5);
    var c = unpack4x8unorm(scale[level / 4u][level % 4u]).rgb;
    if params.is_linear == 1u {
        c = to_linear(c);
    }
    return vec4(c * params.opacity, params.opacity);
}
