// Whether a number is finite and smaller in size than 2^exponent (up to 128), by its bits: Metal, for one, compiles with
// fast math, which may assume that no number is NaN or infinite, so that comparisons of floats decide nothing. Ask about
// what was read from memory: about a number that it computed itself, such a compiler may draw the same conclusion here.
fn is_finite_below(x: f32, exponent: u32) -> bool {
    return (bitcast<u32>(x) & 0x7fffffffu) < ((exponent + 127u) << 23u);
}
