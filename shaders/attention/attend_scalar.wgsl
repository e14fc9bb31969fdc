// Accessors of attend.wgsl and attend_backward.wgsl for any number of channels: the same names as attend_vector.wgsl,
// one float at a time. Reads past the last row give that row (nothing uses them), reads past the last channel give
// zero, writes past the end do nothing; all but those of the first stretch of columns add to what is there.

@group(0) @binding(2) var<storage, read> q: array<f32>; // [batch, queries, channels]
@group(0) @binding(3) var<storage, read> k: array<f32>; // [batch, keys, channels]
@group(0) @binding(4) var<storage, read> v: array<f32>; // [batch, keys, channels]
@group(0) @binding(7) var<storage, read> dout: array<f32>; // [batch, queries, channels]
@group(0) @binding(8) var<storage, read_write> out: array<f32>; // [splits, batch, queries, channels]
@group(0) @binding(10) var<storage, read_write> dq: array<f32>; // [splits, batch, queries, channels]
@group(0) @binding(11) var<storage, read_write> dk: array<f32>; // [splits, batch, keys, channels]
@group(0) @binding(12) var<storage, read_write> dv: array<f32>; // [splits, batch, keys, channels]

// Which of the 4 channels from `channel` on exist.
fn present(channel: u32) -> vec4<bool> {
    return vec4(channel) + vec4(0u, 1u, 2u, 3u) < vec4(params.channels);
}

// Where the 4 channels from `channel` on are, in row `row` of matrix `z`, which has `rows` rows. In place of channels
// that do not exist, the last one.
fn places_of(z: u32, row: u32, rows: u32, channel: u32) -> vec4<u32> {
    let first = (z * rows + min(row, rows - 1u)) * params.channels;
    return first + min(vec4(channel) + vec4(0u, 1u, 2u, 3u), vec4(params.channels - 1u));
}

fn q_at(z: u32, query: u32, channel: u32) -> vec4<f32> {
    let at = places_of(z, query, params.queries, channel);
    return select(vec4(0.0), vec4(q[at.x], q[at.y], q[at.z], q[at.w]), present(channel));
}

fn k_at(z: u32, key: u32, channel: u32) -> vec4<f32> {
    let at = places_of(z, key, params.keys, channel);
    return select(vec4(0.0), vec4(k[at.x], k[at.y], k[at.z], k[at.w]), present(channel));
}

fn v_at(z: u32, key: u32, channel: u32) -> vec4<f32> {
    let at = places_of(z, key, params.keys, channel);
    return select(vec4(0.0), vec4(v[at.x], v[at.y], v[at.z], v[at.w]), present(channel));
}

fn dout_at(z: u32, query: u32, channel: u32) -> vec4<f32> {
    let at = places_of(z, query, params.queries, channel);
    return select(vec4(0.0), vec4(dout[at.x], dout[at.y], dout[at.z], dout[at.w]), present(channel));
}

fn store_out(slice: u32, query: u32, channel: u32, value: vec4<f32>, kept: f32, first: bool) {
    if query >= params.queries || channel >= params.channels {
        return;
    }
    let at = (slice * params.queries + query) * params.channels + channel;
    let count = min(4u, params.channels - channel);
    for (var i = 0u; i < count; i++) {
        if first {
            out[at + i] = value[i];
        } else {
            out[at + i] = kept * out[at + i] + value[i];
        }
    }
}

fn store_dq(slice: u32, query: u32, channel: u32, value: vec4<f32>, first: bool) {
    if query >= params.queries || channel >= params.channels {
        return;
    }
    let at = (slice * params.queries + query) * params.channels + channel;
    let count = min(4u, params.channels - channel);
    for (var i = 0u; i < count; i++) {
        if params.accumulate_dq == 1u || !first {
            dq[at + i] += value[i];
        } else {
            dq[at + i] = value[i];
        }
    }
}

fn store_dk(slice: u32, key: u32, channel: u32, value: vec4<f32>, first: bool) {
    if key >= params.keys || channel >= params.channels {
        return;
    }
    let at = (slice * params.keys + key) * params.channels + channel;
    let count = min(4u, params.channels - channel);
    for (var i = 0u; i < count; i++) {
        if params.accumulate_dk == 1u || !first {
            dk[at + i] += value[i];
        } else {
            dk[at + i] = value[i];
        }
    }
}

fn store_dv(slice: u32, key: u32, channel: u32, value: vec4<f32>, first: bool) {
    if key >= params.keys || channel >= params.channels {
        return;
    }
    let at = (slice * params.keys + key) * params.channels + channel;
    let count = min(4u, params.channels - channel);
    for (var i = 0u; i < count; i++) {
        if params.accumulate_dv == 1u || !first {
            dv[at + i] += value[i];
        } else {
            dv[at + i] = value[i];
        }
    }
}

#import mask
#import attend
#import attend_backward
