//! `lara export-maps`: files for every image, and values that are the model's.

use std::fs;
use std::path::Path;

use lara_models::Predictor;
use lara_models::data::{Augment, ImageShape, picture};
use lara_models::random::{Draws, Purpose};
use lara_models::train::checkpoint::{BEST, Checkpoint};
use lara_models::train::names_and_shapes;
use lara_runtime::{Parameters, Role, Tune};
use lara_tests::adapter;
use lara_viewer::export::compute::{Asked, Heads, Pick, Selection, rows};
use pollster::block_on;

use crate::cli::{assert_says, json, lara, output, refusal, trained};

/// Test images in a folder `name` below `dir`, as the command for it printed them.
fn pictures(dir: &Path, count: usize) -> Vec<String> {
    let count = format!("--count={count}");
    let exported = output(trained(), &["data", "digits", &count, "--export", dir.to_str().unwrap()]);
    exported.lines().map(str::to_owned).collect()
}

/// Rows of `maps.npy`, which has `tokens` columns.
fn array(file: &Path, tokens: usize) -> Vec<Vec<f32>> {
    let bytes = fs::read(file).unwrap();
    let data = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let values: Vec<f32> = bytes[data..].chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    values.chunks(tokens).map(<[f32]>::to_vec).collect()
}

/// What the library says of the checkpoint's own attention.
fn expected(checkpoint: &Path, image: &str, selection: &Selection) -> Vec<Vec<f32>> {
    let checkpoint = Checkpoint::load(checkpoint).unwrap();
    let (config, mut parameters) = (checkpoint.config().unwrap(), Parameters::new(adapter()));
    let tune = Tune::fixed(&["rows"]);
    let predictor = block_on(Predictor::new(adapter(), &tune, &config, &mut parameters, 1, true)).unwrap();
    for (index, values) in checkpoint.weights(&names_and_shapes(&parameters)).unwrap().iter().enumerate() {
        parameters.write(adapter(), Role::Weight, index, values);
    }
    let shape = ImageShape { channels: 1, height: 8, width: 8 };
    let (pixels, mut input) = (picture::load(image, shape, 1.0).unwrap(), [0.0; 64]);
    Augment::eval(&config.data).apply(&pixels, shape, &mut Draws::new(0, Purpose::Augment, 0, 0), &mut input);
    block_on(predictor.logits(&input)).unwrap();
    let maps = block_on(rows(&predictor, &config, None, selection)).unwrap();
    maps.into_iter().map(|map| map.values).collect()
}

#[test]
fn maps_of_several_mechanisms_are_exported_for_every_image() {
    let (folder, temp) = (trained(), tempfile::tempdir().unwrap());
    let pictures = pictures(temp.path(), 2);
    let out = temp.path().join("out");
    let mut arguments = vec!["export-maps", "run", &pictures[0], &pictures[1], "--out", out.to_str().unwrap()];
    arguments.extend(["--mechanism=lara,softmax", "--head=all", "--query=mean", "--query=1,0", "--json"]);
    arguments.push("--format=png,svg,npy,safetensors,html");
    let report = json(folder, &arguments);
    assert_eq!(report.as_array().map(Vec::len), Some(2));
    let selection =
        Selection { layers: Pick::All, heads: Heads::Each(Pick::All), queries: vec![Asked::Mean, Asked::At(1, 0)] };
    for (image, picture) in report.as_array().unwrap().iter().zip(&pictures) {
        assert_eq!(image["image"].as_str(), Some(picture.as_str()));
        let files: Vec<&str> = image["files"].as_array().unwrap().iter().map(|file| file.as_str().unwrap()).collect();
        // Two mechanisms, one block, two heads, two queries: eight pictures of either kind.
        assert_eq!((files.len(), image["maps"].as_array().map(Vec::len)), (20, Some(8)));
        assert!(files.iter().all(|file| Path::new(file).is_file()));
        let name = Path::new(picture).file_stem().unwrap().to_str().unwrap();
        let own = out.join(name);
        assert!(own.join("softmax-layer0-head1-patch_1_0.svg").is_file(), "{files:?}");
        let values = array(&own.join("maps.npy"), 4);
        assert_eq!(values.len(), 8);
        for (row, title) in values.iter().zip(image["maps"].as_array().unwrap()) {
            assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-4, "{title} sums to {}", row.iter().sum::<f32>());
        }
        let expected = expected(&folder.join("run").join(BEST), picture, &selection);
        for (row, expected) in values.iter().zip(&expected) {
            assert!(row.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-4), "{row:?}, not {expected:?}");
        }
        assert_ne!(values[..4], values[4..], "the mechanisms do not differ");
        assert_eq!(image["predictions"].as_array().map(Vec::len), Some(2));
        assert_eq!(image["predictions"][1]["mechanism"], "softmax");
    }
    // Settings of one mechanism tell it from another of its kind.
    let two = ["export-maps", "run", &pictures[0], "--mechanism=lara:num_landmarks=1,lara:num_landmarks=4", "--out"];
    let text = output(folder, &[&two[..], &[temp.path().join("two").to_str().unwrap()]].concat());
    let names: Vec<&str> = text.lines().filter_map(|line| Path::new(line).file_name()?.to_str()).collect();
    let name = |landmarks: usize| format!("lara-num_landmarks-{landmarks}-layer0-allheads-mean.png");
    assert_eq!(names, [name(1), name(4)]);
}

#[test]
fn what_cannot_be_exported_is_refused() {
    let (folder, temp) = (trained(), tempfile::tempdir().unwrap());
    let pictures = pictures(temp.path(), 1);
    let out = temp.path().join("out");
    let with = |more: &[&'static str]| {
        let all = [&["export-maps", "run", &pictures[0], "--out", out.to_str().unwrap()], more].concat();
        all.into_iter().map(str::to_owned).collect::<Vec<String>>()
    };
    let refused = |more: &[&'static str]| {
        let arguments = with(more);
        refusal(folder, &arguments.iter().map(String::as_str).collect::<Vec<_>>())
    };
    assert_says(&refused(&["--layer=3"]), &["no layer 3", "has 1"]);
    assert_says(&refused(&["--query=class"]), &["no class token"]);
    assert_says(&refused(&["--query=2,0"]), &["row 2, column 0", "2 x 2"]);
    assert_says(&refused(&["--mechanism=larra"]), &["larra", "did you mean \"lara\"?"]);
    assert_says(&refused(&["--opacity=1.5"]), &["--opacity is 1.5"]);
    assert!(!out.exists(), "a refused command left a folder");
    fs::write(&out, "in the way").unwrap();
    assert_says(&refused(&[]), &["cannot create the folder", "out"]);
    for (option, words) in [("--format=gif", "png, svg, npy"), ("--colormap=jet", "viridis"), ("--head=x", "`mean`")] {
        let arguments = with(&[option]);
        let assert = lara(folder, &arguments.iter().map(String::as_str).collect::<Vec<_>>()).assert().code(2);
        assert_says(&String::from_utf8_lossy(&assert.get_output().stderr), &[words]);
    }
}
