// The normal distribution function and density, four at a time (Abramowitz and Stegun 7.1.26, error below 1.5e-7 of 1).
struct Normal {
    cdf: vec4<f32>,
    density: vec4<f32>,
}

fn normal(x: vec4<f32>) -> Normal {
    let gauss = exp(-0.5 * x * x);
    let t = 1.0 / (1.0 + 0.23164190 * abs(x)); // 0.3275911 / sqrt(2)
    let tail = 0.5 * gauss * t
        * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
    return Normal(select(1.0 - tail, tail, x < vec4(0.0)), 0.39894228 * gauss);
}
