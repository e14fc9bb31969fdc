// The windows of a convolution as rows, so that the convolution is a matmul. For a window o and a place k inside it
// (frame, row and column each), cell = o stride + k - padding:
//   y[b, o, (c KF KH + kf KH + ky) KW + kx] = x[b, cell, c], and 0 where the cell lies outside of the grid.
// The order inside a row is that of a convolution's weight [out, channels, KF, KH, KW]; a plane has one frame.
// Gradient: dx[b, cell, c] = sum over the windows o that hold the cell of dy[b, o, (c, cell + padding - o stride)]: a
// gather, so that no two invocations write one place.
// x has its channels last (tokens) or first (images): where a cell and a channel lie is said by two strides.
// forward   one invocation per window and channel, channels fastest; it stores the channel's places one after the other
// backward  one invocation per element of x; both 64 a workgroup
// Write policy: forward stores y; backward stores dx, or adds to it when params.accumulate == 1.

#import index

struct Params {
    items: u32,          // invocations that have something to do
    channels: u32,
    cell_stride: u32,    // floats of x from a cell to the next, and from a channel to the next
    channel_stride: u32,
    frames: u32,         // the grid of cells
    height: u32,
    width: u32,
    out_frames: u32,     // the grid of windows
    out_height: u32,
    out_width: u32,
    kernel_frames: u32,
    kernel_height: u32,
    kernel_width: u32,
    stride_frames: u32,
    stride_height: u32,
    stride_width: u32,
    padding_frames: u32,
    padding_height: u32,
    padding_width: u32,
    accumulate: u32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> x: array<f32>;        // [batch, cells, channels] or [batch, channels, cells]
@group(0) @binding(3) var<storage, read_write> y: array<f32>;  // [batch, windows, channels kernel]
@group(0) @binding(4) var<storage, read> dy: array<f32>;       // [batch, windows, channels kernel]
@group(0) @binding(5) var<storage, read_write> dx: array<f32>; // [batch, cells, channels] or [batch, channels, cells]

@compute @workgroup_size(WORKGROUP)
fn forward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_index(workgroup, workgroups, WORKGROUP, local);
    if i >= params.items {
        return;
    }
    let window = i / params.channels;
    let line = window / params.out_width;
    let plane = line / params.out_height;
    let b = plane / params.out_frames;
    // A place before the first cell wraps to a number that is larger than any.
    let left = (window % params.out_width) * params.stride_width - params.padding_width;
    let top = (line % params.out_height) * params.stride_height - params.padding_height;
    let front = (plane % params.out_frames) * params.stride_frames - params.padding_frames;
    let cells = params.frames * params.height * params.width;
    let origin = b * cells * params.channels + (i % params.channels) * params.channel_stride;
    var at = i * params.kernel_frames * params.kernel_height * params.kernel_width;
    for (var kf = 0u; kf < params.kernel_frames; kf++) {
        for (var ky = 0u; ky < params.kernel_height; ky++) {
            let inside = front + kf < params.frames && top + ky < params.height;
            let first = ((front + kf) * params.height + top + ky) * params.width;
            for (var kx = 0u; kx < params.kernel_width; kx++) {
                var value = 0.0;
                if inside && left + kx < params.width {
                    value = x[origin + (first + left + kx) * params.cell_stride];
                }
                y[at] = value;
                at++;
            }
        }
    }
}

// The windows that hold a place, counted from the padding's begin: first, and the one after the last.
fn windows_of(place: u32, kernel: u32, stride: u32, windows: u32) -> vec2<u32> {
    return vec2(select(0u, (place - kernel) / stride + 1u, place >= kernel), min(place / stride + 1u, windows));
}

@compute @workgroup_size(WORKGROUP)
fn backward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_index(workgroup, workgroups, WORKGROUP, local);
    if i >= params.items {
        return;
    }
    let cells = params.frames * params.height * params.width;
    let b = i / (cells * params.channels);
    let cell = i / params.cell_stride % cells;
    let c = i / params.channel_stride % params.channels;
    let column = cell % params.width + params.padding_width;
    let row = cell / params.width % params.height + params.padding_height;
    let frame = cell / params.width / params.height + params.padding_frames;
    let across = windows_of(column, params.kernel_width, params.stride_width, params.out_width);
    let down = windows_of(row, params.kernel_height, params.stride_height, params.out_height);
    let along = windows_of(frame, params.kernel_frames, params.stride_frames, params.out_frames);
    var sum = 0.0;
    for (var oz = along.x; oz < along.y; oz++) {
        for (var oy = down.x; oy < down.y; oy++) {
            let line = (b * params.out_frames + oz) * params.out_height + oy;
            let kf = frame - oz * params.stride_frames;
            let taps = (kf * params.kernel_height + row - oy * params.stride_height) * params.kernel_width;
            let kernel = params.kernel_frames * params.kernel_height * params.kernel_width;
            // Line by line, so that no chain of additions is long.
            var part = 0.0;
            for (var ox = across.x; ox < across.y; ox++) {
                let window = line * params.out_width + ox;
                part += dy[(window * params.channels + c) * kernel + taps + column - ox * params.stride_width];
            }
            sum += part;
        }
    }
    if params.accumulate == 1u {
        sum += dx[i];
    }
    dx[i] = sum;
}
