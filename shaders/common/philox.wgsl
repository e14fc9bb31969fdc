// Philox4x32-10 (Salmon et al., SC 2011): a counter-based generator, the same numbers on every adapter and on the CPU.
fn mul_hi_lo(a: u32, b: u32) -> vec2<u32> {
    let a_lo = a & 0xffffu;
    let a_hi = a >> 16u;
    let b_lo = b & 0xffffu;
    let b_hi = b >> 16u;
    let lo_lo = a_lo * b_lo;
    let mid = a_hi * b_lo + (lo_lo >> 16u);
    let mid2 = a_lo * b_hi + (mid & 0xffffu);
    return vec2(a_hi * b_hi + (mid >> 16u) + (mid2 >> 16u), a * b);
}

fn philox(counter: vec4<u32>, key: vec2<u32>) -> vec4<u32> {
    var c = counter;
    var k = key;
    for (var round = 0u; round < 10u; round++) {
        let p0 = mul_hi_lo(0xd2511f53u, c.x);
        let p1 = mul_hi_lo(0xcd9e8d57u, c.z);
        c = vec4(p1.x ^ c.y ^ k.x, p1.y, p0.x ^ c.w ^ k.y, p0.y);
        k += vec2(0x9e3779b9u, 0xbb67ae85u);
    }
    return c;
}

// Uniform in (0, 1): the top 23 bits, centred in their interval, so that the largest value stays below 1.
fn uniform_open(bits: u32) -> f32 {
    return (f32(bits >> 9u) + 0.5) * 1.1920929e-7;
}

// log, cos and sin of our own: WGSL leaves drivers so much room (cos may be off by 2^-11) that the numbers would differ
// from adapter to adapter by more than rounding.
fn log_of(u: f32) -> f32 {
    let bits = bitcast<u32>(u);
    var exponent = f32(i32(bits >> 23u) - 127);
    var mantissa = bitcast<f32>((bits & 0x7fffffu) | 0x3f800000u);
    if mantissa > 1.4142135 {
        mantissa *= 0.5;
        exponent += 1.0;
    }
    let s = (mantissa - 1.0) / (mantissa + 1.0);
    let z = s * s;
    let series = 2.0 * s * (1.0 + z * (0.33333333 + z * (0.2 + z * (0.14285714 + z * 0.11111111))));
    return exponent * 0.69314718 + series;
}

// (cos, sin) of 2 pi u for u in (0, 1): the nearest quarter turn is split off exactly, Taylor series do the rest.
fn turn(u: f32) -> vec2<f32> {
    let quarter = floor(4.0 * u + 0.5);
    let x = (4.0 * u - quarter) * 1.5707964;
    let z = x * x;
    let c = 1.0 + z * (-0.5 + z * (0.041666667 + z * (-0.0013888889 + z * 0.000024801587)));
    let s = x * (1.0 + z * (-0.16666667 + z * (0.0083333333 + z * (-0.00019841270 + z * 0.0000027557319))));
    switch u32(quarter) & 3u {
        case 0u: { return vec2(c, s); }
        case 1u: { return vec2(-s, c); }
        case 2u: { return vec2(-c, -s); }
        default: { return vec2(s, -c); }
    }
}

// Two independent normal numbers (Box and Muller).
fn normal_pair(bits: vec2<u32>) -> vec2<f32> {
    return sqrt(-2.0 * log_of(uniform_open(bits.x))) * turn(uniform_open(bits.y));
}
