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

// Two independent normal numbers (Box and Muller).
fn normal_pair(bits: vec2<u32>) -> vec2<f32> {
    let radius = sqrt(-2.0 * log(uniform_open(bits.x)));
    let angle = 6.2831853 * uniform_open(bits.y);
    return radius * vec2(cos(angle), sin(angle));
}
