use lara_runtime::attention::{Pooling, RealLandmarks, RealTokens};
use lara_runtime::{Mode, Parameters, Tape, Tensor};
use lara_tests::{Case, adapter, run, tune};

/// 1 = padding.
fn mask(rows: &[&str]) -> Vec<f64> {
    rows.concat().chars().map(|c| f64::from(u8::from(c == '.'))).collect()
}

#[test]
fn ranks_count_the_real_tokens_before_each() {
    for tokens in [1, 2, 7, 64, 65, 300] {
        let padding: Vec<f64> =
            (0..3 * tokens).map(|i| f64::from(u8::from(i / tokens == 1 || i * i % 7 == 2))).collect();
        let build =
            |tape: &mut Tape<'_>, x: &[Tensor]| vec![RealTokens::record(&mut tape.rec, x[0], [3, tokens]).ranks];
        let case = Case::new(format!("{tokens} tokens"), &build).constant([3, tokens], padding.clone());
        let before = |sample: &[f64], n: usize| sample[..n].iter().filter(|p| **p == 0.0).count() as f64;
        let want: Vec<f64> =
            padding.chunks(tokens).flat_map(|s| (0..=tokens).map(|n| before(s, n)).collect::<Vec<_>>()).collect();
        assert_eq!(run(&case, &[], 1).outputs[0], want, "{tokens} tokens");
    }
}

/// Extent, kept segments and missing landmarks of queries and keys.
fn landmarks(masks: [Vec<f64>; 2], prefix: usize, poolings: [Pooling; 2]) -> [Vec<f64>; 4] {
    let lengths = poolings.map(|pooling| prefix + pooling.tokens());
    let build = |tape: &mut Tape<'_>, x: &[Tensor]| {
        let [q, k] = [0, 1].map(|i| RealTokens::record(&mut tape.rec, x[i], [x[i].dims()[0], lengths[i]]));
        let real = RealLandmarks::record(&mut tape.rec, prefix, [q, k], poolings);
        vec![real.sides[0][1], real.sides[0][2], real.missing, real.missing_twice]
    };
    let mut case = Case::new("landmarks", &build);
    for (mask, tokens) in masks.into_iter().zip(lengths) {
        case = case.constant([mask.len() / tokens, tokens], mask);
    }
    let outputs = run(&case, &[], 1).outputs;
    [0, 1, 2, 3].map(|i| outputs[i].clone())
}

#[test]
fn the_box_of_the_real_cells_and_the_bins_without_one() {
    let grid = Pooling::Grid { grid: [3, 4], side: 2 };
    // A class token, then two samples: cells in a corner with a hole, and none.
    let padding = [mask(&["#", "....", "..##", "...."]), mask(&["#", "....", "....", "...."])].concat();
    let [extent, kept, missing, twice] = landmarks([padding.clone(), padding], 1, [grid; 2]);
    assert_eq!(extent, [[0.0, 1.0, 1.0, 1.0, 2.0, 2.0, 0.0, 0.0], [0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0]].concat());
    assert_eq!((kept, missing), (vec![4.0; 2], vec![0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0]));
    assert_eq!(twice, [[0.0; 8], [1.0; 8]].concat());
    let padding = mask(&["#..#", "....", "..##"]);
    let [extent, _, missing, _] =
        landmarks([padding.clone(), padding], 0, [Pooling::Grid { grid: [3, 4], side: 3 }; 2]);
    assert_eq!(extent, [0.0, 1.0, 0.0, 3.0, 0.0, 4.0, 0.0, 0.0]);
    assert_eq!(missing, [0.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0]);
}

#[test]
fn as_many_segments_as_the_shorter_side_has_real_tokens() {
    let [queries, keys] = [6, 5].map(|tokens| Pooling::Segments { tokens, landmarks: 4 });
    let padding = [mask(&["######", "#.####", "..##..", "######"]), mask(&["#####", "###..", "#####", "....."])];
    let [extent, kept, missing, _] = landmarks(padding, 0, [queries, keys]);
    assert_eq!(extent.chunks(8).map(|e| e[5]).collect::<Vec<_>>(), [6.0, 5.0, 2.0, 6.0]);
    assert_eq!(kept, [4.0, 3.0, 2.0, 0.0]);
    let want = [[0.0; 4], [0.0, 0.0, 0.0, 1.0], [0.0, 0.0, 1.0, 1.0], [1.0; 4]];
    assert_eq!(missing, want.concat());
}

#[test]
fn refuses_a_mask_of_another_length() {
    let mut parameters = Parameters::new(adapter());
    let mut tape = Tape::new(&mut parameters, &tune(&[]), Mode::Eval);
    let mask = tape.input("mask", [2, 4]);
    RealTokens::record(&mut tape.rec, mask, [2, 5]);
    let said = tape.finish().expect_err("four are not five").to_string();
    assert_eq!(said, "a padding mask [2, 4] does not fit 2 samples of 5 tokens; it is [batch, tokens]");
}
