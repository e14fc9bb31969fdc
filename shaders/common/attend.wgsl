// Streaming softmax attention and its backward pass, shaped for GPUs (register blocked, tiles in workgroup memory).
//
//   l_nm = scale q_n.k_m + key_bias_m      p_nm = softmax_m(l_nm)      lse_n = log sum_m exp(l_nm)
//   out_n = sum_m p_nm v_m
//   g_nm = dout_n.v_m - delta_n            ds_nm = p_nm g_nm           (p_nm = exp(l_nm - peak_n) / sum_n)
//   dq_n = scale sum_m ds_nm k_m           dk_m = scale sum_n ds_nm q_n
//   dv_m = sum_n p_nm dout_n               dkey_bias_m = sum_n ds_nm
//
// This file is imported, with attend_backward.wgsl, by the modules attend_vector.wgsl (channels % 4 == 0, the fast one)
// and attend_scalar.wgsl (any channels), which declare q, k, v, dout, out, dq, dk and dv under the same names.
//
// Of every query the largest logit (peak) and the sum of exp(l - peak) are kept beside lse = peak + log(sum), for backward and for
// the joining of splits: of a large lse in f32 the rounding, 5e-4 at 1e4, would show in every exp(l - lse).
//
// Masking: a key with key_bias <= -1e29 (MASKED = -1e30) gets no weight, and so does one hidden by `causal` (key m is
// visible to query n when m <= n + keys - queries). A query without visible keys has out = 0, lse = peak = -1e30, sum = 0, no gradient.
//
// Every pass is the same walk. "Rows" are what the workgroup owns, "columns" what it streams over:
//   rows = queries, columns = keys: forward, backward_queries
//   rows = keys, columns = queries: backward_keys, backward_keys_bias, backward_values
// 128 threads own 64 rows and CHANNELS output channels. For each tile of 32 columns: dot products by 4x4 register
// blocks (operands staged 16 channels at a time, transposed), weights to workgroup memory, then
// accumulator += weights x column vectors. Nothing in workgroup memory grows with `channels`.
//
// Dispatch: x = ceil(rows / 64) * ceil(channels / CHANNELS), y = batch, z = splits.
// Split s covers columns [s * split_columns, (s + 1) * split_columns), split_columns a multiple of 32, and writes the
// s-th slice of its outputs, which then have a leading axis [splits, ...]. attend_merge.wgsl joins the slices.
// A chain of n additions is off by up to 1.5e-8 n, so accumulators hold a stretch of STRETCH columns: after it they are added to
// the output, which serves as the accumulator of stretches; within it every tile of 32 columns is added up by itself.
// Write policy: out, lse (that of split 0: attend_merge.wgsl replaces it), peak and sum are stored. dq, dk, dv, dkey_bias: stored, or added when their accumulate flag is 1.

// Variant: CHANNELS=32

struct Params {
    batch: u32,             // batch x heads
    queries: u32,
    keys: u32,
    channels: u32,          // head dimension of q, k and v
    scale: f32,
    causal: u32,
    has_bias: u32,          // 0: key_bias is not read
    has_dout: u32,          // 0: dout and v are not read by the backward pass
    split_columns: u32,     // columns a split covers; with one split, at least the number of columns
    accumulate_dq: u32,
    accumulate_dk: u32,
    accumulate_dv: u32,
    accumulate_dkey_bias: u32,
    first_x: u32,           // what workgroups of a long pass that was cut count from
    first_y: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(5) var<storage, read> key_bias: array<f32>; // [batch, keys]
@group(0) @binding(9) var<storage, read_write> lse: array<f32>; // [batch, queries]
@group(0) @binding(14) var<storage, read_write> peak_and_sum: array<f32>; // [splits, batch, queries, 2]

// Output channels of one workgroup: 32 or 64. More channels are spread over workgroups, which repeat the dot products.
override CHANNELS: u32 = 64u;
override LANES: u32 = CHANNELS / 4u;     // threads that share an output row, one vec4 each
override STAGED: u32 = 1024u / CHANNELS; // column vectors staged at a time
override WIDE: bool = CHANNELS == 64u;   // 8 output rows a thread, otherwise 4

const ROWS: u32 = 64u;
const COLUMNS: u32 = 32u;
const CHUNK: u32 = 16u;
const ROW_GROUPS: u32 = ROWS / 4u; // of 4 rows or columns, one vec4
const COLUMN_GROUPS: u32 = COLUMNS / 4u;
const THREADS: u32 = ROW_GROUPS * COLUMN_GROUPS; // a 4x4 block of dot products each
const COLUMNS_FROM: u32 = CHUNK * ROW_GROUPS; // where the columns' operand begins in stage
const STRETCH: u32 = 4096u;

alias Accumulator = array<vec4<f32>, 8>;

// Three uses in turn: [16 channels][16 row groups] then [16 channels][8 column groups] of transposed operands;
// [STAGED][LANES] column vectors; [8 column groups][16 row groups] partial row reductions.
var<workgroup> stage: array<vec4<f32>, CHUNK * (ROW_GROUPS + COLUMN_GROUPS)>;
var<workgroup> weights: array<vec4<f32>, COLUMNS * ROW_GROUPS>; // [32 columns][16 row groups]
var<workgroup> factor: array<vec4<f32>, ROW_GROUPS>;   // [64 rows]

// What a workgroup works on. Uniform: nothing in it may come from the invocation's index, or loops over it lose their
// right to barriers.
struct Job {
    z: u32,        // batch x head
    row: u32,      // first row
    channel: u32,  // first output channel
    leader: bool,  // whether it writes what has no channels
    slice: u32,    // split * batch + z: which matrix of the outputs
    begin: u32,    // columns [begin, end)
    end: u32,
}

fn job(workgroup: vec3<u32>, rows_are_keys: bool) -> Job {
    let blocks = channel_blocks();
    let group = workgroup + vec3(params.first_x, params.first_y, 0u);
    let row = group.x / blocks * ROWS;
    let columns = select(params.keys, params.queries, rows_are_keys);
    var begin = group.z * params.split_columns;
    var end = min(columns, begin + params.split_columns);
    if params.causal == 1u {
        let queries = params.queries;
        let keys = params.keys;
        if rows_are_keys {
            let first = select(0u, row + queries - keys, row + queries > keys);
            begin = max(begin, first / COLUMNS * COLUMNS);
        } else {
            let last = min(row + ROWS, queries);
            end = min(end, select(0u, last + keys - queries, last + keys > queries));
        }
    }
    let block = group.x % blocks;
    return Job(group.y, row, block * CHANNELS, block == 0u, group.z * params.batch + group.y, begin, end);
}

fn channel_blocks() -> u32 {
    return (params.channels + CHANNELS - 1u) / CHANNELS;
}

// ---------------------------------------------------------------- dot products

fn q_block(z: u32, row: u32, channel: u32) -> mat4x4<f32> {
    return mat4x4<f32>(
        q_at(z, row, channel),
        q_at(z, row + 1u, channel),
        q_at(z, row + 2u, channel),
        q_at(z, row + 3u, channel),
    );
}

fn k_block(z: u32, row: u32, channel: u32) -> mat4x4<f32> {
    return mat4x4<f32>(
        k_at(z, row, channel),
        k_at(z, row + 1u, channel),
        k_at(z, row + 2u, channel),
        k_at(z, row + 3u, channel),
    );
}

// Which 4x4 block thread `lid` stages: threads 0..64 the rows' operand, the next 32 the columns'.
struct Item {
    of_rows: bool,
    first: u32,   // first of 4 vectors
    channel: u32, // first of 4 channels, within the chunk
    slot: u32,    // where channel 0 goes
    stride: u32,  // slots from channel to channel
}

fn item(row: u32, column: u32, lid: u32) -> Item {
    let of_rows = lid < ROWS;
    let i = select(lid - ROWS, lid, of_rows);
    let group = i / 4u;
    let channel = i % 4u * 4u;
    if of_rows {
        return Item(true, row + group * 4u, channel, channel * ROW_GROUPS + group, ROW_GROUPS);
    }
    return Item(false, column + group * 4u, channel, COLUMNS_FROM + channel * COLUMN_GROUPS + group, COLUMN_GROUPS);
}

fn place(to: Item, block: mat4x4<f32>) {
    let turned = transpose(block);
    stage[to.slot] = turned[0];
    stage[to.slot + to.stride] = turned[1];
    stage[to.slot + 2u * to.stride] = turned[2];
    stage[to.slot + 3u * to.stride] = turned[3];
}

// Adds the outer products of the chunk's `channels`; thread (lid / 8, lid % 8) holds 4 rows (components) x 4 columns
// (matrix columns). Unrolled by hand to 4, not to 16: as fast, and software adapters compile it in half the time.
fn multiply_chunk(dots: mat4x4<f32>, channels: u32, lid: u32) -> mat4x4<f32> {
    var sum = dots;
    for (var channel = 0u; channel < min(channels, CHUNK); channel += 4u) {
        let at = channel * ROW_GROUPS + lid / COLUMN_GROUPS;
        let to = COLUMNS_FROM + channel * COLUMN_GROUPS + lid % COLUMN_GROUPS;
        sum = multiply(sum, stage[at], stage[to]);
        sum = multiply(sum, stage[at + ROW_GROUPS], stage[to + COLUMN_GROUPS]);
        sum = multiply(sum, stage[at + 2u * ROW_GROUPS], stage[to + 2u * COLUMN_GROUPS]);
        sum = multiply(sum, stage[at + 3u * ROW_GROUPS], stage[to + 3u * COLUMN_GROUPS]);
    }
    return sum;
}

fn multiply(dots: mat4x4<f32>, a: vec4<f32>, b: vec4<f32>) -> mat4x4<f32> {
    return mat4x4<f32>(dots[0] + a * b.x, dots[1] + a * b.y, dots[2] + a * b.z, dots[3] + a * b.w);
}

fn multiply_qk(z: u32, rows_are_keys: bool, row: u32, column: u32, lid: u32) -> mat4x4<f32> {
    var dots = mat4x4<f32>();
    for (var chunk = 0u; chunk < params.channels; chunk += CHUNK) {
        if lid < ROWS + COLUMNS {
            let to = item(row, column, lid);
            var block: mat4x4<f32>;
            if to.of_rows == rows_are_keys {
                block = k_block(z, to.first, chunk + to.channel);
            } else {
                block = q_block(z, to.first, chunk + to.channel);
            }
            place(to, block);
        }
        workgroupBarrier();
        dots = multiply_chunk(dots, params.channels - chunk, lid);
        workgroupBarrier();
    }
    return dots;
}

// ---------------------------------------------------------------- logits and probabilities

fn bias_at(z: u32, key: u32) -> f32 {
    if key >= params.keys {
        return MASKED;
    }
    if params.has_bias == 0u {
        return 0.0;
    }
    return key_bias[z * params.keys + key];
}

fn logits(dots: vec4<f32>, bias: vec4<f32>, query: vec4<u32>, key: vec4<u32>) -> vec4<f32> {
    var visible = bias > vec4(MASK_LIMIT);
    if params.causal == 1u {
        visible = visible & (key + params.queries <= query + params.keys);
    }
    return select(vec4(MASKED), params.scale * dots + bias, visible);
}

fn weight(logit: vec4<f32>, peak: vec4<f32>) -> vec4<f32> {
    return select(exp(logit - peak), vec4(0.0), logit <= vec4(MASK_LIMIT));
}

fn four(first: u32) -> vec4<u32> {
    return vec4(first) + vec4(0u, 1u, 2u, 3u);
}

fn store_weights(block: mat4x4<f32>, lid: u32) {
    let at = lid % COLUMN_GROUPS * 4u * ROW_GROUPS + lid / COLUMN_GROUPS;
    weights[at] = block[0];
    weights[at + ROW_GROUPS] = block[1];
    weights[at + 2u * ROW_GROUPS] = block[2];
    weights[at + 3u * ROW_GROUPS] = block[3];
}

// Over the 8 threads that hold the same 4 rows. Ends without a barrier: the caller puts one before stage's next use.
fn row_total(part: vec4<f32>, lid: u32) -> vec4<f32> {
    stage[lid % COLUMN_GROUPS * ROW_GROUPS + lid / COLUMN_GROUPS] = part;
    workgroupBarrier();
    var total = vec4(0.0);
    for (var i = 0u; i < COLUMN_GROUPS; i++) {
        total += stage[i * ROW_GROUPS + lid / COLUMN_GROUPS];
    }
    return total;
}

fn row_max(part: vec4<f32>, lid: u32) -> vec4<f32> {
    stage[lid % COLUMN_GROUPS * ROW_GROUPS + lid / COLUMN_GROUPS] = part;
    workgroupBarrier();
    var best = vec4(MASKED);
    for (var i = 0u; i < COLUMN_GROUPS; i++) {
        best = max(best, stage[i * ROW_GROUPS + lid / COLUMN_GROUPS]);
    }
    return best;
}

// ---------------------------------------------------------------- accumulator += weights x column vectors

// Rounded up to 4 columns: those past the end have weight 0.
fn add_staged(sum: ptr<function, Accumulator>, first: u32, columns: u32, lid: u32) {
    for (var i = 0u; i < min(columns, STAGED); i += 4u) {
        add_vector(sum, first + i, i, lid);
        add_vector(sum, first + i + 1u, i + 1u, lid);
        add_vector(sum, first + i + 2u, i + 2u, lid);
        add_vector(sum, first + i + 3u, i + 3u, lid);
    }
}

fn add_vector(sum: ptr<function, Accumulator>, column: u32, staged: u32, lid: u32) {
    let group = lid / LANES;
    let x = stage[staged * LANES + lid % LANES];
    let w = weights[column * ROW_GROUPS + select(group, group * 2u, WIDE)];
    (*sum)[0] += w.x * x;
    (*sum)[1] += w.y * x;
    (*sum)[2] += w.z * x;
    (*sum)[3] += w.w * x;
    if WIDE {
        let u = weights[column * ROW_GROUPS + group * 2u + 1u];
        (*sum)[4] += u.x * x;
        (*sum)[5] += u.y * x;
        (*sum)[6] += u.z * x;
        (*sum)[7] += u.w * x;
    }
}

fn add_tile(sum: ptr<function, Accumulator>, tile: Accumulator) {
    (*sum)[0] += tile[0];
    (*sum)[1] += tile[1];
    (*sum)[2] += tile[2];
    (*sum)[3] += tile[3];
    if WIDE {
        (*sum)[4] += tile[4];
        (*sum)[5] += tile[5];
        (*sum)[6] += tile[6];
        (*sum)[7] += tile[7];
    }
}

fn add_v(sum: ptr<function, Accumulator>, to: Job, column: u32, lid: u32) {
    let columns = min(COLUMNS, to.end - column);
    var tile = Accumulator();
    for (var first = 0u; first < columns; first += STAGED) {
        for (var at = lid; at < STAGED * LANES; at += THREADS) {
            stage[at] = v_at(to.z, column + first + at / LANES, to.channel + at % LANES * 4u);
        }
        workgroupBarrier();
        add_staged(&tile, first, columns - first, lid);
        workgroupBarrier();
    }
    add_tile(sum, tile);
}

// Multiplies every accumulated row by its entry of `factor`.
fn rescale(sum: ptr<function, Accumulator>, lid: u32) {
    let group = lid / LANES;
    let f = factor[select(group, group * 2u, WIDE)];
    (*sum)[0] *= f.x;
    (*sum)[1] *= f.y;
    (*sum)[2] *= f.z;
    (*sum)[3] *= f.w;
    if WIDE {
        let g = factor[group * 2u + 1u];
        (*sum)[4] *= g.x;
        (*sum)[5] *= g.y;
        (*sum)[6] *= g.z;
        (*sum)[7] *= g.w;
    }
}

// First of the thread's 4 or 8 output rows, and its first output channel.
fn own_row(to: Job, lid: u32) -> u32 {
    return to.row + lid / LANES * (CHANNELS / 8u);
}

fn own_channel(to: Job, lid: u32) -> u32 {
    return to.channel + lid % LANES * 4u;
}

// ---------------------------------------------------------------- forward

// Running maximum and this thread's share of the running sums, of 4 rows: of a stretch, and of all stretches before it.
struct Softmax {
    peak: vec4<f32>,
    sum: vec4<f32>,
    total: vec4<f32>,
}

// The end of a stretch at whose begin the maximum was `peak`.
fn settled(state: Softmax, peak: vec4<f32>) -> Softmax {
    return Softmax(state.peak, vec4(0.0), state.total * exp(peak - state.peak) + state.sum);
}

// Where the stretches end: after one even if there is no column, for its zeros are stored.
fn last_stretch(begin: u32, end: u32) -> u32 {
    return max(end, begin + 1u);
}

// One tile of keys: logits to probabilities relative to the new peak, in `weights`; old sums' correction in `factor`.
// Ends without a barrier.
fn softmax_tile(state: Softmax, to: Job, key: u32, lid: u32) -> Softmax {
    var s = multiply_qk(to.z, false, to.row, key, lid);
    let query = four(to.row + lid / COLUMN_GROUPS * 4u);
    let first = key + lid % COLUMN_GROUPS * 4u;
    s[0] = logits(s[0], vec4(bias_at(to.z, first)), query, vec4(first));
    s[1] = logits(s[1], vec4(bias_at(to.z, first + 1u)), query, vec4(first + 1u));
    s[2] = logits(s[2], vec4(bias_at(to.z, first + 2u)), query, vec4(first + 2u));
    s[3] = logits(s[3], vec4(bias_at(to.z, first + 3u)), query, vec4(first + 3u));
    let peak = max(state.peak, row_max(max(max(s[0], s[1]), max(s[2], s[3])), lid));
    let p = mat4x4<f32>(weight(s[0], peak), weight(s[1], peak), weight(s[2], peak), weight(s[3], peak));
    let correction = exp(state.peak - peak);
    store_weights(p, lid);
    if lid % COLUMN_GROUPS == 0u {
        factor[lid / COLUMN_GROUPS] = correction;
    }
    return Softmax(peak, state.sum * correction + (p[0] + p[1] + p[2] + p[3]), state.total);
}

fn store_normaliser(slice: u32, query: u32, peak: f32, sum: f32) {
    if query >= params.queries {
        return;
    }
    let at = slice * params.queries + query;
    let live = sum > 0.0;
    peak_and_sum[at * 2u] = select(MASKED, peak, live);
    peak_and_sum[at * 2u + 1u] = sum;
    if slice < params.batch {
        lse[at] = select(MASKED, peak + log(max(sum, 1e-30)), live);
    }
}

fn store_normalisers(peak: vec4<f32>, sum: vec4<f32>, to: Job, lid: u32) {
    if to.leader && lid % COLUMN_GROUPS == 0u {
        let query = to.row + lid / COLUMN_GROUPS * 4u;
        store_normaliser(to.slice, query, peak.x, sum.x);
        store_normaliser(to.slice, query + 1u, peak.y, sum.y);
        store_normaliser(to.slice, query + 2u, peak.z, sum.z);
        store_normaliser(to.slice, query + 3u, peak.w, sum.w);
    }
}

// The rows of a stretch; `factor` holds what is kept of what is there.
fn store_rows(sum: ptr<function, Accumulator>, to: Job, first: bool, lid: u32) {
    let row = own_row(to, lid);
    let channel = own_channel(to, lid);
    let group = lid / LANES;
    let f = factor[select(group, group * 2u, WIDE)];
    store_out(to.slice, row, channel, (*sum)[0], f.x, first);
    store_out(to.slice, row + 1u, channel, (*sum)[1], f.y, first);
    store_out(to.slice, row + 2u, channel, (*sum)[2], f.z, first);
    store_out(to.slice, row + 3u, channel, (*sum)[3], f.w, first);
    if WIDE {
        let g = factor[group * 2u + 1u];
        store_out(to.slice, row + 4u, channel, (*sum)[4], g.x, first);
        store_out(to.slice, row + 5u, channel, (*sum)[5], g.y, first);
        store_out(to.slice, row + 6u, channel, (*sum)[6], g.z, first);
        store_out(to.slice, row + 7u, channel, (*sum)[7], g.w, first);
    }
}

@compute @workgroup_size(THREADS)
fn forward(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let to = job(group, false);
    var state = Softmax(vec4(MASKED), vec4(0.0), vec4(0.0));
    for (var begin = to.begin; begin < last_stretch(to.begin, to.end); begin += STRETCH) {
        let peak = state.peak;
        var sum = Accumulator();
        for (var key = begin; key < min(begin + STRETCH, to.end); key += COLUMNS) {
            state = softmax_tile(state, to, key, lid);
            workgroupBarrier();
            rescale(&sum, lid);
            add_v(&sum, to, key, lid);
        }
        state = settled(state, peak);
        var scale = vec4(1.0);
        if begin + STRETCH >= to.end {
            let total = row_total(state.total, lid);
            store_normalisers(state.peak, total, to, lid);
            scale = select(vec4(0.0), 1.0 / max(total, vec4(1e-30)), total > vec4(0.0));
        }
        if lid % COLUMN_GROUPS == 0u {
            factor[lid / COLUMN_GROUPS] = scale;
        }
        workgroupBarrier();
        rescale(&sum, lid);
        workgroupBarrier();
        if lid % COLUMN_GROUPS == 0u {
            factor[lid / COLUMN_GROUPS] = scale * exp(peak - state.peak);
        }
        workgroupBarrier();
        store_rows(&sum, to, begin == to.begin, lid);
        workgroupBarrier();
    }
}
