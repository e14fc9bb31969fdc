// Masking without infinity, of which fast math may assume that there is none: what is masked has the logit MASKED, or that as an
// additive term, and whatever lies at or below MASK_LIMIT counts as masked, so that terms may be added to it first.
const MASKED: f32 = -1e30;
const MASK_LIMIT: f32 = -1e29;

fn is_masked(logit: f32) -> bool {
    return logit <= MASK_LIMIT;
}
