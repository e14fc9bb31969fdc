// The backward pass of streaming attention: entry points that use the tile machinery of attend.wgsl, which has the
// formulas, the dispatch contract and the write policy. Probabilities are recomputed from peak and sum; no atomics.
//
//   backward_queries    dq                rows = queries, columns = keys
//   backward_keys       dk                rows = keys, columns = queries
//   backward_keys_bias  dk, dkey_bias     the same, when the key bias wants a gradient too
//   backward_values     dv                rows = keys, columns = queries
//
// dk and dv are separate passes: one pass would save a seventh of the arithmetic and double the accumulators (to more
// registers than some GPUs have), and with dkey_bias it would bind 9 storage buffers, where WebGPU grants 8.
// `stats` comes from backward_prepare in attend_merge.wgsl. With has_dout = 0, dq, dk and dkey_bias get lse's gradient
// alone and dv is zero.

@group(0) @binding(6) var<storage, read> stats: array<f32>; // [batch, queries, 3]: peak, 1 / sum, delta
@group(0) @binding(13) var<storage, read_write> dkey_bias: array<f32>; // [splits, batch, keys]

fn v_block(z: u32, row: u32, channel: u32) -> mat4x4<f32> {
    return mat4x4<f32>(
        v_at(z, row, channel),
        v_at(z, row + 1u, channel),
        v_at(z, row + 2u, channel),
        v_at(z, row + 3u, channel),
    );
}

fn dout_block(z: u32, row: u32, channel: u32) -> mat4x4<f32> {
    return mat4x4<f32>(
        dout_at(z, row, channel),
        dout_at(z, row + 1u, channel),
        dout_at(z, row + 2u, channel),
        dout_at(z, row + 3u, channel),
    );
}

fn block_of(of_qk: bool, of_keys: bool, z: u32, row: u32, channel: u32) -> mat4x4<f32> {
    if of_qk {
        if of_keys {
            return k_block(z, row, channel);
        }
        return q_block(z, row, channel);
    }
    if of_keys {
        return v_block(z, row, channel);
    }
    return dout_block(z, row, channel);
}

fn add_q(sum: ptr<function, Accumulator>, to: Job, column: u32, lid: u32) {
    let columns = min(COLUMNS, to.end - column);
    var tile = Accumulator();
    for (var first = 0u; first < columns; first += STAGED) {
        for (var at = lid; at < STAGED * LANES; at += THREADS) {
            stage[at] = q_at(to.z, column + first + at / LANES, to.channel + at % LANES * 4u);
        }
        workgroupBarrier();
        add_staged(&tile, first, columns - first, lid);
        workgroupBarrier();
    }
    add_tile(sum, tile);
}

fn add_k(sum: ptr<function, Accumulator>, to: Job, column: u32, lid: u32) {
    let columns = min(COLUMNS, to.end - column);
    var tile = Accumulator();
    for (var first = 0u; first < columns; first += STAGED) {
        for (var at = lid; at < STAGED * LANES; at += THREADS) {
            stage[at] = k_at(to.z, column + first + at / LANES, to.channel + at % LANES * 4u);
        }
        workgroupBarrier();
        add_staged(&tile, first, columns - first, lid);
        workgroupBarrier();
    }
    add_tile(sum, tile);
}

fn add_dout(sum: ptr<function, Accumulator>, to: Job, column: u32, lid: u32) {
    let columns = min(COLUMNS, to.end - column);
    var tile = Accumulator();
    for (var first = 0u; first < columns; first += STAGED) {
        for (var at = lid; at < STAGED * LANES; at += THREADS) {
            stage[at] = dout_at(to.z, column + first + at / LANES, to.channel + at % LANES * 4u);
        }
        workgroupBarrier();
        add_staged(&tile, first, columns - first, lid);
        workgroupBarrier();
    }
    add_tile(sum, tile);
}

// Peak and 1 / sum of a query; one past the end gets those that make all its probabilities zero.
fn normaliser_at(z: u32, query: u32) -> vec2<f32> {
    if query >= params.queries {
        return vec2(-MASKED, 0.0);
    }
    let at = (z * params.queries + query) * 3u;
    return vec2(stats[at], stats[at + 1u]);
}

fn delta_at(z: u32, query: u32) -> f32 {
    return stats[(z * params.queries + min(query, params.queries - 1u)) * 3u + 2u];
}

// p of four keys for a query.
fn probability(logit: vec4<f32>, z: u32, query: u32) -> vec4<f32> {
    let normaliser = normaliser_at(z, query);
    return normaliser.y * weight(logit, vec4(normaliser.x));
}

// p of one tile, rows as components and columns as matrix columns, in either orientation.
fn probabilities(qk: mat4x4<f32>, to: Job, rows_are_keys: bool, column: u32, lid: u32) -> mat4x4<f32> {
    var s = qk;
    let rows = four(to.row + lid / COLUMN_GROUPS * 4u);
    let first = column + lid % COLUMN_GROUPS * 4u;
    if rows_are_keys {
        let bias = vec4(bias_at(to.z, rows.x), bias_at(to.z, rows.y), bias_at(to.z, rows.z), bias_at(to.z, rows.w));
        s[0] = probability(logits(s[0], bias, vec4(first), rows), to.z, first);
        s[1] = probability(logits(s[1], bias, vec4(first + 1u), rows), to.z, first + 1u);
        s[2] = probability(logits(s[2], bias, vec4(first + 2u), rows), to.z, first + 2u);
        s[3] = probability(logits(s[3], bias, vec4(first + 3u), rows), to.z, first + 3u);
    } else {
        let x = normaliser_at(to.z, rows.x);
        let y = normaliser_at(to.z, rows.y);
        let z = normaliser_at(to.z, rows.z);
        let w = normaliser_at(to.z, rows.w);
        let peak = vec4(x.x, y.x, z.x, w.x);
        let scale = vec4(x.y, y.y, z.y, w.y);
        s[0] = scale * weight(logits(s[0], vec4(bias_at(to.z, first)), rows, vec4(first)), peak);
        s[1] = scale * weight(logits(s[1], vec4(bias_at(to.z, first + 1u)), rows, vec4(first + 1u)), peak);
        s[2] = scale * weight(logits(s[2], vec4(bias_at(to.z, first + 2u)), rows, vec4(first + 2u)), peak);
        s[3] = scale * weight(logits(s[3], vec4(bias_at(to.z, first + 3u)), rows, vec4(first + 3u)), peak);
    }
    return s;
}

// ds of one tile: first p from q.k, then its product with dout.v - delta. One loop body for both dot products: half the
// code of two, which software adapters take seconds to compile.
fn logit_gradients(to: Job, rows_are_keys: bool, column: u32, lid: u32) -> mat4x4<f32> {
    var ds: mat4x4<f32>;
    for (var side = 0u; side < 2u; side++) {
        var dots = mat4x4<f32>();
        let channels = select(params.channels, 0u, side == 1u && params.has_dout == 0u);
        for (var chunk = 0u; chunk < channels; chunk += CHUNK) {
            if lid < ROWS + COLUMNS {
                let put = item(to.row, column, lid);
                place(put, block_of(side == 0u, put.of_rows == rows_are_keys, to.z, put.first, chunk + put.channel));
            }
            workgroupBarrier();
            dots = multiply_chunk(dots, channels - chunk, lid);
            workgroupBarrier();
        }
        if side == 0u {
            ds = probabilities(dots, to, rows_are_keys, column, lid);
        } else {
            ds = times_gradients(ds, dots, to, rows_are_keys, column, lid);
        }
    }
    return ds;
}

// p o (g - delta)
fn times_gradients(
    p: mat4x4<f32>,
    g: mat4x4<f32>,
    to: Job,
    rows_are_keys: bool,
    column: u32,
    lid: u32,
) -> mat4x4<f32> {
    if rows_are_keys {
        let first = column + lid % COLUMN_GROUPS * 4u;
        return mat4x4<f32>(
            p[0] * (g[0] - delta_at(to.z, first)),
            p[1] * (g[1] - delta_at(to.z, first + 1u)),
            p[2] * (g[2] - delta_at(to.z, first + 2u)),
            p[3] * (g[3] - delta_at(to.z, first + 3u)),
        );
    }
    let row = to.row + lid / COLUMN_GROUPS * 4u;
    let delta = vec4(
        delta_at(to.z, row),
        delta_at(to.z, row + 1u),
        delta_at(to.z, row + 2u),
        delta_at(to.z, row + 3u),
    );
    return mat4x4<f32>(p[0] * (g[0] - delta), p[1] * (g[1] - delta), p[2] * (g[2] - delta), p[3] * (g[3] - delta));
}

@compute @workgroup_size(THREADS)
fn backward_queries(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let to = job(group, false);
    for (var begin = to.begin; begin < last_stretch(to.begin, to.end); begin += STRETCH) {
        var sum = Accumulator();
        for (var key = begin; key < min(begin + STRETCH, to.end); key += COLUMNS) {
            store_weights(logit_gradients(to, false, key, lid), lid);
            workgroupBarrier();
            add_k(&sum, to, key, lid);
        }
        let row = own_row(to, lid);
        let channel = own_channel(to, lid);
        let first = begin == to.begin;
        store_dq(to.slice, row, channel, params.scale * sum[0], first);
        store_dq(to.slice, row + 1u, channel, params.scale * sum[1], first);
        store_dq(to.slice, row + 2u, channel, params.scale * sum[2], first);
        store_dq(to.slice, row + 3u, channel, params.scale * sum[3], first);
        if WIDE {
            store_dq(to.slice, row + 4u, channel, params.scale * sum[4], first);
            store_dq(to.slice, row + 5u, channel, params.scale * sum[5], first);
            store_dq(to.slice, row + 6u, channel, params.scale * sum[6], first);
            store_dq(to.slice, row + 7u, channel, params.scale * sum[7], first);
        }
    }
}

// Writes dk; returns this thread's share of its 4 rows' sums of ds.
fn key_gradients(to: Job, lid: u32) -> vec4<f32> {
    var bias = vec4(0.0);
    for (var begin = to.begin; begin < last_stretch(to.begin, to.end); begin += STRETCH) {
        var sum = Accumulator();
        var stretch = vec4(0.0);
        for (var query = begin; query < min(begin + STRETCH, to.end); query += COLUMNS) {
            let ds = logit_gradients(to, true, query, lid);
            stretch += ds[0] + ds[1] + ds[2] + ds[3];
            store_weights(ds, lid);
            workgroupBarrier();
            add_q(&sum, to, query, lid);
        }
        bias += stretch;
        let row = own_row(to, lid);
        let channel = own_channel(to, lid);
        let first = begin == to.begin;
        store_dk(to.slice, row, channel, params.scale * sum[0], first);
        store_dk(to.slice, row + 1u, channel, params.scale * sum[1], first);
        store_dk(to.slice, row + 2u, channel, params.scale * sum[2], first);
        store_dk(to.slice, row + 3u, channel, params.scale * sum[3], first);
        if WIDE {
            store_dk(to.slice, row + 4u, channel, params.scale * sum[4], first);
            store_dk(to.slice, row + 5u, channel, params.scale * sum[5], first);
            store_dk(to.slice, row + 6u, channel, params.scale * sum[6], first);
            store_dk(to.slice, row + 7u, channel, params.scale * sum[7], first);
        }
    }
    return bias;
}

@compute @workgroup_size(THREADS)
fn backward_keys(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    key_gradients(job(group, true), lid);
}

fn store_dkey_bias(slice: u32, key: u32, value: f32) {
    if key < params.keys {
        let at = slice * params.keys + key;
        if params.accumulate_dkey_bias == 1u {
            dkey_bias[at] += value;
        } else {
            dkey_bias[at] = value;
        }
    }
}

@compute @workgroup_size(THREADS)
fn backward_keys_bias(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let to = job(group, true);
    let total = row_total(key_gradients(to, lid), lid);
    if to.leader && lid % COLUMN_GROUPS == 0u {
        let key = to.row + lid / COLUMN_GROUPS * 4u;
        store_dkey_bias(to.slice, key, total.x);
        store_dkey_bias(to.slice, key + 1u, total.y);
        store_dkey_bias(to.slice, key + 2u, total.z);
        store_dkey_bias(to.slice, key + 3u, total.w);
    }
}

@compute @workgroup_size(THREADS)
fn backward_values(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let to = job(group, true);
    let end = select(to.begin, to.end, params.has_dout == 1u);
    for (var begin = to.begin; begin < last_stretch(to.begin, end); begin += STRETCH) {
        var sum = Accumulator();
        for (var query = begin; query < min(begin + STRETCH, end); query += COLUMNS) {
            store_weights(probabilities(multiply_qk(to.z, true, to.row, query, lid), to, true, query, lid), lid);
            workgroupBarrier();
            add_dout(&sum, to, query, lid);
        }
        let row = own_row(to, lid);
        let channel = own_channel(to, lid);
        let first = begin == to.begin;
        store_dv(to.slice, row, channel, sum[0], first);
        store_dv(to.slice, row + 1u, channel, sum[1], first);
        store_dv(to.slice, row + 2u, channel, sum[2], first);
        store_dv(to.slice, row + 3u, channel, sum[3], first);
        if WIDE {
            store_dv(to.slice, row + 4u, channel, sum[4], first);
            store_dv(to.slice, row + 5u, channel, sum[5], first);
            store_dv(to.slice, row + 6u, channel, sum[6], first);
            store_dv(to.slice, row + 7u, channel, sum[7], first);
        }
    }
}
