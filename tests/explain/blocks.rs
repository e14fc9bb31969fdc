//! Blocks that differ: in heads, and with queries and keys on grids of their own, as pyramids and translators have them.

use lara_explain::export::compute::{Asked, Heads, Pick, Selection, rows};
use lara_explain::{Head, Inspector, Query, Sizes};
use lara_models::train::TrainConfig;
use lara_models::{Hook, Model, Network, Outputs, Site};
use lara_runtime::attention::{AttentionConfig, Context, Grid, MechanismKind, Qkv, mechanism};
use lara_runtime::ops::Gelu;
use lara_runtime::{Init, Parameters, Role, Tape, Tensor, Tune};
use pollster::block_on;

use crate::gpu;
use crate::inspector::random;

/// Two blocks over 64 pixels: 16 learned queries on 4 x 4 places look at 4 keys on 2 x 2; then two heads of 8 tokens on
/// 2 x 4 look at each other.
#[derive(Debug)]
struct Pyramid;

impl Network for Pyramid {
    fn forward_hooked(&self, tape: &mut Tape<'_>, inputs: &[Tensor], hook: &mut Hook<'_>) -> Outputs {
        let images = inputs[0];
        let softmax = mechanism(&AttentionConfig { mechanism: MechanismKind::Softmax, ..AttentionConfig::default() });
        let softmax = softmax.expect("softmax has no settings that contradict each other");
        let queries = tape.parameter("queries", [1, 1, 16, 16], Init::Zeros);
        let coarse = Context { grid: Grid::Plane([4, 4]), key_grid: Some(Grid::Plane([2, 2])), ..Context::default() };
        let own = Context { grid: Grid::Plane([2, 4]), ..Context::default() };
        let (few, many) = (images.reshape([1, 1, 4, 16]), images.reshape([1, 2, 8, 4]));
        for (layer, (q, k, context)) in [(queries, few, coarse), (many, many, own)].into_iter().enumerate() {
            let v = tape.apply(Gelu, &[images]).reshape(k.shape());
            tape.watch(v);
            let qkv = Qkv { q, k, v };
            let output = softmax.attend(tape, qkv, &context);
            hook(tape, &Site { layer, mechanism: &*softmax, qkv, context: &context, output });
        }
        let logits = tape.parameter("logits", [1, 10], Init::Zeros);
        Outputs::of("logits", tape.apply(Gelu, &[logits]))
    }
}

/// An inspector that has run, with what it ran on: learned queries and the image.
fn ran() -> (Inspector, Vec<f32>, Vec<f32>) {
    let config = TrainConfig::load("digits", &[""; 0]).expect("a preset");
    let (mut parameters, tune) = (Parameters::new(gpu()), Tune::fixed(&[]));
    let compiled = Inspector::over(gpu(), &tune, &mut parameters, &config, &Pyramid, false);
    let mut inspector = block_on(compiled).expect("it compiles");
    let (queries, image) = (random(1, 256), random(2, 64));
    parameters.write(gpu(), Role::Weight, 0, &queries).unwrap();
    inspector.run(&image, 0).expect("it runs");
    (inspector, queries, image)
}

/// Softmax of q k^T / sqrt(d), for one query.
fn row(q: &[f32], keys: &[f32]) -> Vec<f64> {
    let dot = |k: &[f32]| q.iter().zip(k).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum::<f64>();
    let logits: Vec<f64> = keys.chunks(q.len()).map(|k| dot(k) / (q.len() as f64).sqrt()).collect();
    let sum: f64 = logits.iter().map(|x| x.exp()).sum();
    logits.iter().map(|x| x.exp() / sum).collect()
}

fn assert_near(found: &[f32], wanted: &[f64]) {
    assert_eq!(found.len(), wanted.len());
    assert!(found.iter().zip(wanted).all(|(f, w)| (f64::from(*f) - w).abs() < 1e-5), "{found:?}, not {wanted:?}");
}

#[test]
fn sizes_are_those_of_what_goes_in() {
    let (inspector, ..) = ran();
    let sizes = Sizes { query_grid: [4, 4], grid: [2, 2], prefix: 0, heads: 1, layers: 2, slots: 4 };
    assert_eq!(inspector.block(0), Some(sizes));
    assert_eq!(inspector.block(1), Some(Sizes { query_grid: [2, 4], grid: [2, 4], heads: 2, ..sizes }));
    assert_eq!((inspector.sizes(), inspector.block(2)), (sizes, None));
}

#[test]
fn every_block_shows_its_own_rows() {
    let (mut inspector, queries, image) = ran();
    // Patch (3, 1) of 4 x 4 is patch (1, 1) of 2 x 4: number 13 is number 5.
    inspector.look(&[Query::Patch(13), Query::Mean], &[0, 1], Some(1)).expect("it can be looked at");
    let maps =
        block_on(inspector.read_maps("", &[0, 1], &[Head::One(1), Head::One(0), Head::Mean])).expect("they come back");
    let shown: Vec<_> = maps.iter().map(|map| (map.layer, map.head, map.query, map.query_grid, map.grid)).collect();
    let first = |head, query| (Some(0), head, query, [4, 4], [2, 2]);
    let second = |head, query| (Some(1), head, query, [2, 4], [2, 4]);
    let (far, near, mean) = (Query::Patch(13), Query::Patch(5), Query::Mean);
    let wanted = [
        first(Some(0), far),
        first(None, far),
        first(Some(0), mean),
        first(None, mean),
        second(Some(1), near),
        second(Some(0), near),
        second(None, near),
        second(Some(1), mean),
        second(Some(0), mean),
        second(None, mean),
    ];
    assert_eq!(shown, wanted);
    let coarse = |n: usize| row(&queries[16 * n..][..16], &image);
    assert_near(&maps[0].values, &coarse(13));
    let all: Vec<Vec<f64>> = (0..16).map(coarse).collect();
    assert_near(&maps[3].values, &(0..4).map(|m| all.iter().map(|row| row[m]).sum::<f64>() / 16.0).collect::<Vec<_>>());
    let own = |head: usize, n: usize| row(&image[32 * head + 4 * n..][..4], &image[32 * head..][..32]);
    assert_near(&maps[4].values, &own(1, 5));
    assert_near(&maps[5].values, &own(0, 5));
    let both: Vec<f64> = own(0, 5).iter().zip(own(1, 5)).map(|(a, b)| (a + b) / 2.0).collect();
    assert_near(&maps[6].values, &both);
}

/// A small PVTv2 of timm and one of the authors' with LARA: stages of 16 x 16 to 2 x 2 tokens, the former with keys on 2 x 2.
#[test]
fn every_stage_of_a_pyramid_has_its_own_grids() {
    let sides = [16, 8, 8, 4, 2];
    for (folder, reduced) in [("timm_pvt_v2", true), ("hkunlp_pvt_lara_dense", false)] {
        let path = format!("{}/../tests/golden/models/{folder}", env!("CARGO_MANIFEST_DIR"));
        let model = Model::open(path).unwrap_or_else(|e| panic!("{e}"));
        let inspector = block_on(Inspector::new(gpu(), &Tune::fixed(&[]), &model, &model.config, false));
        let mut inspector = inspector.unwrap_or_else(|e| panic!("{e}"));
        let image: Vec<f32> = random(3, 3 * 64 * 64);
        inspector.run(&image, 0).expect("it runs");
        // Row 13, column 6 of 16.
        inspector.look(&[Query::Patch(13 * 16 + 6)], &[0, 1, 2, 3, 4], None).expect("it can be looked at");
        let maps =
            block_on(inspector.read_maps("", &[0, 1, 2, 3, 4], &[Head::One(0), Head::Mean])).expect("they come back");
        for (at, (pair, side)) in maps.chunks(2).zip(sides).enumerate() {
            let keys = if reduced { 2 } else { side };
            for map in pair {
                assert_eq!((map.query_grid, map.grid), ([side; 2], [keys; 2]), "{folder}, block {at}");
                let query = Query::Patch((2 * 13 + 1) * side / 32 * side + (2 * 6 + 1) * side / 32);
                assert_eq!(map.query, query, "{folder}, block {at}");
                let sum = map.values.iter().map(|&x| f64::from(x)).sum::<f64>();
                assert!((sum - 1.0).abs() < 1e-4, "{folder}, block {at}: a row sums to {sum}");
            }
        }
        assert_eq!(maps.len(), 10, "{folder}");
        assert_eq!(Sizes::stages(&inspector.blocks()), [0..1, 1..3, 3..4, 4..5], "{folder}");
        assert!(!inspector.rolls(), "{folder}");
    }
}

#[test]
fn selections_are_by_block_and_rollouts_are_refused() {
    let (mut inspector, ..) = ran();
    let selection =
        |heads| Selection { layers: Pick::All, heads: Heads::Each(heads), queries: vec![Asked::At(3, 3), Asked::Mean] };
    let maps = block_on(rows(&mut inspector, Some("it"), &selection(Pick::All))).expect("all of it is there");
    let shown: Vec<_> = maps.iter().map(|map| (map.layer, map.head)).collect();
    let wanted = [(0, 0), (0, 0), (1, 0), (1, 0), (1, 1), (1, 1)].map(|(layer, head)| (Some(layer), Some(head)));
    assert_eq!(shown, wanted);
    let said = block_on(rows(&mut inspector, None, &selection(Pick::These(vec![1])))).unwrap_err().to_string();
    assert!(said.contains("no head 1") && said.contains("has 1"), "{said}");
    assert!(!inspector.rolls());
    let said = inspector.roll_out(&[Query::Mean]).unwrap_err().to_string();
    assert!(said.contains("same tokens in every block"), "{said}");
    assert!(inspector.rolled(0).is_none() && block_on(inspector.read_rolled()).is_err());
}
