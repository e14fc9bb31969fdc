//! Where the real tokens of each sample are, found on the device: what must not depend on a sample's padding asks here.

use lara_shaders::REAL_TOKENS;

use super::{Landmarks, Pooling};
use crate::{Error, Recorder, Tensor};

/// The real tokens of a batch.
#[derive(Clone, Copy, Debug)]
pub struct RealTokens {
    /// Real tokens before each token [batch, tokens + 1]; the last number of a sample is how many it has.
    pub ranks: Tensor,
}

impl RealTokens {
    /// Records the ranks for a mask [batch, tokens], 1 = padding.
    pub fn record(rec: &mut Recorder, mask: Tensor, [batch, tokens]: [usize; 2]) -> Self {
        if mask.len() != batch * tokens {
            let given = mask.shape();
            rec.fail(Error::Shape(format!(
                "a padding mask {given} does not fit {batch} samples of {tokens} tokens; it is [batch, tokens]"
            )));
            return RealTokens { ranks: rec.scratch("ranks", [batch, tokens + 1]) };
        }
        let ranks = rec.scratch("ranks", [batch, tokens + 1]);
        rec.step(&REAL_TOKENS, "ranks_of")
            .bind("padding", mask)
            .bind("ranks", ranks)
            .uint("batch", batch)
            .uint("tokens", tokens)
            .uint("prefix", 0)
            .uint("frames", 1)
            .uint("grid_height", 1)
            .uint("grid_width", tokens)
            .uint("landmarks", 0)
            .flag("segments", true)
            .dispatch_groups(batch);
        RealTokens { ranks }
    }

    fn batch(&self) -> usize {
        self.ranks.dims()[0]
    }

    /// What the landmarks of a pooling are cut over [batch, 8]: see the shader.
    pub fn extent(&self, rec: &mut Recorder, prefix: usize, pooling: &Pooling) -> Tensor {
        let extent = rec.scratch("extent", [self.batch(), 8]);
        let [frames, height, width] = pooling.grid();
        rec.step(&REAL_TOKENS, "extent_of")
            .bind("known", self.ranks)
            .bind("extent", extent)
            .uint("batch", self.batch())
            .uint("tokens", self.ranks.last() - 1)
            .uint("prefix", prefix)
            .uint("frames", frames)
            .uint("grid_height", height)
            .uint("grid_width", width)
            .uint("landmarks", pooling.landmarks())
            .flag("segments", pooling.is_segments())
            .dispatch_groups(self.batch());
        extent
    }
}

/// The landmarks of a batch's queries and keys, as if there were no padding.
#[derive(Clone, Copy, Debug)]
pub struct RealLandmarks {
    /// Inputs of [`Landmarks`] for queries and for keys: ranks, extent and kept segments.
    pub sides: [[Tensor; 3]; 2],
    /// 1 where the proposal of a landmark is missing, on either side [batch, C].
    pub missing: Tensor,
    /// The same twice over [batch, 2 C].
    pub missing_twice: Tensor,
}

impl RealLandmarks {
    /// Records what is found out about the tokens of queries and keys, each with its pooling; both have as many landmarks.
    pub fn record(rec: &mut Recorder, prefix: usize, tokens: [RealTokens; 2], poolings: [Pooling; 2]) -> Self {
        let [queries, keys] = tokens;
        let batch = queries.batch();
        let of_queries = queries.extent(rec, prefix, &poolings[0]);
        let same = queries.ranks == keys.ranks && poolings[0] == poolings[1];
        let of_keys = if same { of_queries } else { keys.extent(rec, prefix, &poolings[1]) };
        let landmarks = poolings[0].landmarks();
        let kept = rec.scratch("kept landmarks", [batch]);
        rec.step(&REAL_TOKENS, "kept_of")
            .bind("of_queries", of_queries)
            .bind("of_keys", of_keys)
            .bind("kept", kept)
            .uint("batch", batch)
            .uint("tokens", 0)
            .uint("prefix", 0)
            .uint("frames", 1)
            .uint("grid_height", 1)
            .uint("grid_width", 1)
            .uint("landmarks", landmarks)
            .flag("segments", poolings.iter().all(Pooling::is_segments))
            .dispatch_items(batch);
        let sides = [[queries.ranks, of_queries, kept], [keys.ranks, of_keys, kept]];
        let [missing, missing_twice] = [1, 2].map(|copies| {
            let lost = rec.scratch("missing landmarks", [batch, copies * landmarks]);
            for (at, (side, pooling)) in sides.iter().zip(poolings).enumerate() {
                Landmarks { prefix, pooling }.missing(rec, *side, lost, at > 0);
            }
            lost
        });
        RealLandmarks { sides, missing, missing_twice }
    }

    /// Which of `proposals` are missing: of C, or of 2 C where each landmark has two.
    pub fn missing_of(&self, proposals: Tensor) -> Tensor {
        if proposals.dims()[2] == self.missing.last() { self.missing } else { self.missing_twice }
    }
}
