// Accessors of attend.wgsl and attend_backward.wgsl for channels % 4 == 0: every tensor is read and written as vec4s.
// `channel` is always a multiple of 4. Reads past the last row or channel give that last one: no branches, and nothing
// uses them, because their weights are zero or they are not stored. Writes past the end do nothing. All but
// those of the first stretch of columns add to what is there (store_out: to `kept` times that).

@group(0) @binding(2) var<storage, read> q: array<vec4<f32>>; // [batch, queries, channels / 4]
@group(0) @binding(3) var<storage, read> k: array<vec4<f32>>; // [batch, keys, channels / 4]
@group(0) @binding(4) var<storage, read> v: array<vec4<f32>>; // [batch, keys, channels / 4]
@group(0) @binding(7) var<storage, read> dout: array<vec4<f32>>; // [batch, queries, channels / 4]
@group(0) @binding(8) var<storage, read_write> out: array<vec4<f32>>; // [splits, batch, queries, channels / 4]
@group(0) @binding(10) var<storage, read_write> dq: array<vec4<f32>>; // [splits, batch, queries, channels / 4]
@group(0) @binding(11) var<storage, read_write> dk: array<vec4<f32>>; // [splits, batch, keys, channels / 4]
@group(0) @binding(12) var<storage, read_write> dv: array<vec4<f32>>; // [splits, batch, keys, channels / 4]

// Index of the vec4 of row `row` of matrix `z`, which has `rows` rows.
fn place_of(z: u32, row: u32, rows: u32, channel: u32) -> u32 {
    return ((z * rows + min(row, rows - 1u)) * params.channels + min(channel, params.channels - 4u)) / 4u;
}

fn q_at(z: u32, query: u32, channel: u32) -> vec4<f32> {
    return q[place_of(z, query, params.queries, channel)];
}

fn k_at(z: u32, key: u32, channel: u32) -> vec4<f32> {
    return k[place_of(z, key, params.keys, channel)];
}

fn v_at(z: u32, key: u32, channel: u32) -> vec4<f32> {
    return v[place_of(z, key, params.keys, channel)];
}

fn dout_at(z: u32, query: u32, channel: u32) -> vec4<f32> {
    return dout[place_of(z, query, params.queries, channel)];
}

fn store_out(slice: u32, query: u32, channel: u32, value: vec4<f32>, kept: f32, first: bool) {
    if query >= params.queries || channel >= params.channels {
        return;
    }
    let at = ((slice * params.queries + query) * params.channels + channel) / 4u;
    if first {
        out[at] = value;
    } else {
        out[at] = kept * out[at] + value;
    }
}

fn store_dq(slice: u32, query: u32, channel: u32, value: vec4<f32>, first: bool) {
    if query >= params.queries || channel >= params.channels {
        return;
    }
    let at = ((slice * params.queries + query) * params.channels + channel) / 4u;
    if params.accumulate_dq == 1u || !first {
        dq[at] += value;
    } else {
        dq[at] = value;
    }
}

fn store_dk(slice: u32, key: u32, channel: u32, value: vec4<f32>, first: bool) {
    if key >= params.keys || channel >= params.channels {
        return;
    }
    let at = ((slice * params.keys + key) * params.channels + channel) / 4u;
    if params.accumulate_dk == 1u || !first {
        dk[at] += value;
    } else {
        dk[at] = value;
    }
}

fn store_dv(slice: u32, key: u32, channel: u32, value: vec4<f32>, first: bool) {
    if key >= params.keys || channel >= params.channels {
        return;
    }
    let at = ((slice * params.keys + key) * params.channels + channel) / 4u;
    if params.accumulate_dv == 1u || !first {
        dv[at] += value;
    } else {
        dv[at] = value;
    }
}

#import mask
#import attend
#import attend_backward
