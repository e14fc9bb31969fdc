// Depthwise convolution of tokens on a grid, stride 1, a side of `side` (odd) with padding side / 2, channels last: the bodies
// that depthwise_conv_vector.wgsl and depthwise_conv_scalar.wgsl share. A pixel holds params.depth numbers of the type of `x`
// (vec4s of channels, or single ones); `ZERO` and `store_tap` are the including file's.
//   y[p, c] = bias[c] + sum over places k of weight[c, k] x[p + k - side/2, c], x = 0 beyond the grid
//   dx: the same of dy, with the places in reverse and no bias     dweight[c, k] = sum over p of dy[p, c] x[p + k - side/2, c]
// convolve         one invocation per 4 neighbouring pixels of a line and one of its numbers (these fastest): a number that is
//                  read serves up to 4 outputs. Workgroups of 64 in x, lines (batch height) in y
// backward_weight  one invocation per number, row of places and 4 places of it (in this order, numbers fastest); workgroups of
//                  64 in x; in y blocks of params.block pieces of lines, each of up to 128 pixels, as parts that column_sum adds
// Both can be cut in y. A chain of n additions is off by up to 1.5e-8 n: a piece and a block are 128 additions each at most.
// Write policy: convolve stores y, or adds to it when params.accumulate == 1; backward_weight stores its parts.

const PIECE: u32 = 128u;

struct Params {
    height: u32,
    width: u32,
    depth: u32,      // numbers of a pixel
    side: u32,
    lines: u32,      // batch height; backward_weight: batch height pieces
    block: u32,
    has_bias: u32,
    reverse: u32,    // places from the last to the first
    accumulate: u32,
    first_y: u32,
}
@group(0) @binding(0) var<uniform> params: Params;

@compute @workgroup_size(WORKGROUP)
fn convolve(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = workgroup.x * WORKGROUP + local;
    let c = i % params.depth;
    let left = i / params.depth * 4u;
    let line = workgroup.y + params.first_y;
    if left >= params.width || line >= params.lines {
        return;
    }
    let reach = params.side / 2u;
    let last = params.side * params.side - 1u;
    let row = line % params.height;
    var y0 = ZERO;
    var y1 = ZERO;
    var y2 = ZERO;
    var y3 = ZERO;
    for (var ky = 0u; ky < params.side; ky++) {
        // A row or column before the first wraps to a number that is larger than any.
        let source = row + ky - reach;
        if source < params.height {
            let start = (line - row + source) * params.width;
            // The weights that the columns just passed were multiplied with: output s wants the one of s columns before.
            var w1 = ZERO;
            var w2 = ZERO;
            var w3 = ZERO;
            for (var j = 0u; j < params.side + 3u; j++) {
                var w0 = ZERO;
                if j < params.side {
                    let tap = ky * params.side + j;
                    w0 = arranged[select(tap, last - tap, params.reverse == 1u) * params.depth + c];
                }
                let column = left + j - reach;
                if column < params.width {
                    let value = x[(start + column) * params.depth + c];
                    y0 += w0 * value;
                    y1 += w1 * value;
                    y2 += w2 * value;
                    y3 += w3 * value;
                }
                w3 = w2;
                w2 = w1;
                w1 = w0;
            }
        }
    }
    let at = (line * params.width + left) * params.depth + c;
    store(at, c, y0);
    if left + 1u < params.width { store(at + params.depth, c, y1); }
    if left + 2u < params.width { store(at + 2u * params.depth, c, y2); }
    if left + 3u < params.width { store(at + 3u * params.depth, c, y3); }
}

@compute @workgroup_size(WORKGROUP)
fn backward_weight(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = workgroup.x * WORKGROUP + local;
    let c = i % params.depth;
    let fours = (params.side + 3u) / 4u;
    let ky = i / params.depth / fours;
    let kx = i / params.depth % fours * 4u;
    if ky >= params.side {
        return;
    }
    let reach = params.side / 2u;
    let pieces = (params.width + PIECE - 1u) / PIECE;
    let block = workgroup.y + params.first_y;
    var t0 = ZERO;
    var t1 = ZERO;
    var t2 = ZERO;
    var t3 = ZERO;
    for (var piece = block * params.block; piece < min((block + 1u) * params.block, params.lines); piece++) {
        let line = piece / pieces;
        let row = line % params.height;
        let source = row + ky - reach;
        if source < params.height {
            let start = (line - row + source) * params.width;
            let begin = piece % pieces * PIECE;
            var v0 = value_at(start, begin + kx - reach, c);
            var v1 = value_at(start, begin + kx + 1u - reach, c);
            var v2 = value_at(start, begin + kx + 2u - reach, c);
            var s0 = ZERO;
            var s1 = ZERO;
            var s2 = ZERO;
            var s3 = ZERO;
            for (var column = begin; column < min(begin + PIECE, params.width); column++) {
                let v3 = value_at(start, column + kx + 3u - reach, c);
                let d = dy[(line * params.width + column) * params.depth + c];
                s0 += d * v0;
                s1 += d * v1;
                s2 += d * v2;
                s3 += d * v3;
                v0 = v1;
                v1 = v2;
                v2 = v3;
            }
            t0 += s0;
            t1 += s1;
            t2 += s2;
            t3 += s3;
        }
    }
    let tap = ky * params.side + kx;
    store_tap(block, c, tap, t0);
    if kx + 1u < params.side { store_tap(block, c, tap + 1u, t1); }
    if kx + 2u < params.side { store_tap(block, c, tap + 2u, t2); }
    if kx + 3u < params.side { store_tap(block, c, tap + 3u, t3); }
}
