//! Rows of attention matrices: which one, and over which heads and queries they are averaged.

use lara_viewer::export::compute::{Asked, Heads, Pick, Selection, pick};
use lara_viewer::{Map, Query};

/// Two blocks of two heads on 1 x 2 patches behind a class token: entry (l, h, n, m) is l + h / 10 + n / 100 + m / 1000.
fn blocks() -> Vec<(Vec<usize>, Vec<f32>)> {
    let entry = |l: usize, i: usize| {
        let (h, n, m) = (i / 9, i / 3 % 3, i % 3);
        l as f32 + h as f32 / 10.0 + n as f32 / 100.0 + m as f32 / 1000.0
    };
    (0..2).map(|l| (vec![1, 2, 3, 3], (0..18).map(|i| entry(l, i)).collect())).collect()
}

fn picked(layers: &str, heads: &str, queries: &[&str]) -> Result<Vec<Map>, String> {
    let text = |error: lara_viewer::Error| error.to_string();
    let queries = queries.iter().map(|query| query.parse()).collect::<Result<_, _>>().map_err(text)?;
    let (layers, heads) = (layers.parse().map_err(text)?, heads.parse().map_err(text)?);
    let mechanisms = ["softmax".to_owned(), "lara".to_owned()];
    pick(&blocks(), &mechanisms, [1, 2], 1, &Selection { layers, heads, queries }).map_err(text)
}

fn near(map: &Map, row: f32) {
    let expected = [row, row + 0.001, row + 0.002];
    assert!(map.values.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{:?}, not {expected:?}", map.values);
}

#[test]
fn a_row_is_that_of_its_block_head_and_query() {
    let maps = picked("1", "1,0", &["class", "0,1", "mean", "center"]).unwrap();
    assert_eq!(maps.len(), 8);
    let queries = [Query::Class, Query::Patch(1), Query::Mean, Query::Patch(1)];
    for (at, (map, row)) in maps.iter().zip([0.1, 0.12, 0.11, 0.12, 0.0, 0.02, 0.01, 0.02]).enumerate() {
        assert_eq!((map.mechanism.as_str(), map.layer, map.head), ("lara", Some(1), Some(1 - at / 4)));
        assert_eq!((map.query, map.prefix, map.grid), (queries[at % 4], 1, [1, 2]));
        near(map, 1.0 + row);
    }
    let maps = picked("all", "mean", &["class"]).unwrap();
    assert_eq!((maps.len(), maps[0].head, maps[0].mechanism.as_str()), (2, None, "softmax"));
    near(&maps[0], 0.05);
    near(&maps[1], 1.05);
    assert_eq!(picked("all", "all", &["mean", "class"]).unwrap().len(), 8);
}

#[test]
fn what_is_not_there_is_told() {
    let cases: [(&str, &str, &str, &[&str]); 7] = [
        ("2", "mean", "mean", &["no layer 2", "has 2"]),
        ("all", "0,5", "mean", &["no head 5", "has 2"]),
        ("all", "mean", "1,0", &["row 1, column 0", "1 x 2"]),
        ("x", "mean", "mean", &["`x`", "`all`"]),
        ("0,", "mean", "mean", &["`0,`"]),
        ("all", "some", "mean", &["`some`", "`mean`"]),
        ("all", "all", "left", &["`left`", "ROW,COLUMN"]),
    ];
    for (layers, heads, query, words) in cases {
        let said = picked(layers, heads, &[query]).unwrap_err();
        assert!(words.iter().all(|word| said.contains(word)), "{said}");
    }
    let of = |blocks: &[(Vec<usize>, Vec<f32>)], prefix, query| {
        let selection = Selection { layers: Pick::All, heads: Heads::Mean, queries: vec![query] };
        pick(blocks, &["softmax".into()], [1, 2], prefix, &selection).unwrap_err().to_string()
    };
    assert!(of(&[(vec![1, 1, 2, 2], vec![0.5; 4])], 0, Asked::Class).contains("no class token"));
    assert!(of(&[(vec![1, 1, 2, 2], vec![0.5; 4])], 1, Asked::Mean).contains("[1, 1, 2, 2], not [1, heads, 3, 3]"));
    assert!(of(&[(vec![1, 1, 3, 3], vec![0.5; 4])], 1, Asked::Mean).contains("layer 0"));
}
