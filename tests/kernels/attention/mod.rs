mod add_token;
pub(crate) mod attend;
mod broadcast;
mod column_lse;
mod divide;
mod draw_keys;
mod exact_padding;
mod gather_keys;
mod heads;
mod join_tokens;
mod key_norms;
mod landmarks;
mod lara;
mod lara_invariants;
mod lara_mix;
mod lara_reference;
mod lara_weights;
mod mask;
mod noise;
mod padding;
mod performer;
mod performer_features;
mod projection;
mod ra;
mod ra_statistics;
mod real_tokens;
mod relative_lse;
mod rfa;
mod rfa_statistics;
mod softmax;
mod value_norms;

use lara_tests::Real;

/// log sum exp
fn lse<R: Real>(values: &[R]) -> R {
    let largest = values.iter().map(|x| x.value()).fold(f64::NEG_INFINITY, f64::max);
    let sum = values.iter().fold(R::of(0.0), |sum, &x| sum + (x - R::of(largest)).exp());
    sum.ln() + R::of(largest)
}
