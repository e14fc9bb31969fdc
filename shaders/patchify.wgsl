// Cuts images into non-overlapping p x p patches: y[b, gy gw + gx, (c p + py) p + px] = x[b, c, gy p + py, gx p + px].
// The order inside a patch is that of a convolution's weight [embed, c, p, p], so that the patch embedding is a matmul.
// One invocation per element; a workgroup holds 64.
// Write policy: forward stores y; backward stores dx, or adds to it when params.accumulate == 1.

#import index

struct Params { len: u32, channels: u32, height: u32, width: u32, side: u32, accumulate: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> x: array<f32>;        // [batch, channels, height, width]
@group(0) @binding(3) var<storage, read_write> y: array<f32>;  // [batch, patches, channels patch^2]
@group(0) @binding(4) var<storage, read> dy: array<f32>;       // [batch, patches, channels patch^2]
@group(0) @binding(5) var<storage, read_write> dx: array<f32>; // [batch, channels, height, width]

// Where element i of the patches lies in the images.
fn source(i: u32) -> u32 {
    let p = params.side;
    let size = params.channels * p * p;
    let columns = params.width / p;
    let patches = (params.height / p) * columns;
    let inner = i % size;
    let token = (i / size) % patches;
    let batch = i / (size * patches);
    let row = (token / columns) * p + (inner / p) % p;
    let column = (token % columns) * p + inner % p;
    return ((batch * params.channels + inner / (p * p)) * params.height + row) * params.width + column;
}

@compute @workgroup_size(WORKGROUP)
fn forward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_index(workgroup, workgroups, WORKGROUP, local);
    if i < params.len {
        y[i] = x[source(i)];
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
        let at = source(i);
        var d = dy[i];
        if params.accumulate == 1u {
            d += dx[at];
        }
        dx[at] = d;
    }
}
