//! `lara export-maps`: files for every image, and values that are the model's.

use std::fs;
use std::path::Path;

use lara_models::Predictor;
use lara_models::data::picture::{CropMode, Interpolation, Preprocess};
use lara_models::data::{Augment, ImageShape};
use lara_models::random::{Draws, Purpose};
use lara_models::train::checkpoint::{Checkpoint, MODEL_FILE};
use lara_models::train::checkpoints::BEST;
use lara_models::train::{TrainConfig, names_and_shapes};
use lara_models::weights::{self, Metadata, TensorFile, TensorView};
use lara_runtime::{Parameters, Role, Tune, Variant};
use lara_tests::{adapter, random};
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

/// The checkpoint's own attention: matrices [heads, 4, 4] of its only block.
fn matrices(folder: &Path, image: &str) -> Vec<f32> {
    let checkpoint = Checkpoint::load(folder).unwrap();
    let (config, mut parameters) = (checkpoint.config().unwrap(), Parameters::new(adapter()));
    let tune = Tune::fixed(&[Variant::ROWS]);
    let predictor = block_on(Predictor::new(adapter(), &tune, &config, &mut parameters, 1, true)).unwrap();
    // Not the weights that are trained: their average.
    let model = TensorFile::open(folder.join(MODEL_FILE)).unwrap();
    for (index, values) in model.get_all(&names_and_shapes(&parameters)).unwrap().iter().enumerate() {
        parameters.write(adapter(), Role::Weight, index, values).unwrap();
    }
    let shape = ImageShape { channels: 1, height: 8, width: 8 };
    let fitting = Preprocess::timm(shape, 1.0, CropMode::Center, Interpolation::Bicubic);
    let (pixels, mut input) = (fitting.read(image).unwrap(), [0.0; 64]);
    Augment::eval(&config.data).apply(&pixels, shape, &mut Draws::new(0, Purpose::Augment, 0, 0), &mut input);
    block_on(predictor.logits(&input)).unwrap();
    let (sizes, values) = block_on(predictor.maps()).unwrap().remove(0);
    assert_eq!(sizes, [1, 2, 4, 4]);
    values
}

/// Rows of both heads, each for the mean query and for the patch in row 1, column 0.
fn expected(matrices: &[f32]) -> Vec<Vec<f32>> {
    let of_head = |matrix: &[f32]| {
        let mean = |m: usize| (0..4).map(|n| matrix[n * 4 + m]).sum::<f32>() / 4.0;
        [(0..4).map(mean).collect(), matrix[8..12].to_vec()]
    };
    matrices.chunks(16).flat_map(of_head).collect()
}

fn assert_near(rows: &[Vec<f32>], wanted: &[Vec<f32>], tolerance: f32) {
    assert_eq!(rows.len(), wanted.len());
    for (row, wanted) in rows.iter().zip(wanted) {
        assert!(row.iter().zip(wanted).all(|(a, b)| (a - b).abs() < tolerance), "{row:?}, not {wanted:?}");
    }
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
        let expected = expected(&matrices(&folder.join("run").join(BEST), picture));
        assert_near(&values[..4], &expected, 1e-4);
        assert_ne!(values[..4], values[4..], "the mechanisms do not differ");
        assert_eq!(image["predictions"].as_array().map(Vec::len), Some(2));
        assert_eq!(image["predictions"][1]["mechanism"], "softmax");
    }
    // One picture with everything: a row for each of 2 mechanisms x 1 fused head x 2 queries, image and one layer.
    let all = temp.path().join("all");
    let fixed = ["export-maps", "run", &pictures[0], "--overview", "--format=npy", "--out", all.to_str().unwrap()];
    let text = output(folder, &[&fixed[..], &["--mechanism=lara,softmax", "--query=mean", "--query=1,0"]].concat());
    let overview = image::open(text.lines().last().unwrap()).unwrap();
    assert_eq!((overview.width(), overview.height()), (10 + 2 * 202, 10 + 4 * (192 + 50)));
    // Settings of one mechanism tell it from another of its kind.
    let two = ["export-maps", "run", &pictures[0], "--mechanism=lara:num_landmarks=1,lara:num_landmarks=4", "--out"];
    let text = output(folder, &[&two[..], &[temp.path().join("two").to_str().unwrap()]].concat());
    let names: Vec<&str> = text.lines().filter_map(|line| Path::new(line).file_name()?.to_str()).collect();
    let name = |landmarks: usize| format!("lara-num_landmarks-{landmarks}-layer0-allheads-mean.png");
    assert_eq!(names, [name(1), name(4)]);
}

/// With one block, rollouts follow from the rows of attention: (A + I) / 2, or the larger head with rows made to sum to 1.
#[test]
fn rollouts_and_gradients_are_exported() {
    let (folder, temp) = (trained(), tempfile::tempdir().unwrap());
    let picture = &pictures(temp.path(), 1)[0];
    let stem = Path::new(picture).file_stem().unwrap();
    let export = |name: &str, more: &[&str]| {
        let out = temp.path().join(name);
        let fixed = ["export-maps", "run", picture, "--format=npy,png,html", "--json", "--out", out.to_str().unwrap()];
        let report = json(folder, &[&fixed[..], more].concat()).as_array().unwrap()[0].clone();
        (array(&out.join(stem).join("maps.npy"), 4), report, out.join(stem))
    };
    let queries = ["--query=mean", "--query=1,0", "--head=all"];
    let (maps, report, own) = export("all", &[&["--kind=rollout,attention,gradient"], &queries[..]].concat());
    assert_eq!(maps.len(), 2 + 4 + 2);
    let titles: Vec<&str> = report["maps"].as_array().unwrap().iter().map(|title| title.as_str().unwrap()).collect();
    assert_eq!(titles[0], "lara · rollout · all heads · mean query");
    assert_eq!(titles[1], "lara · rollout · all heads · patch (1, 0)");
    assert_eq!(titles[2], "lara · layer 0 · head 0 · mean query");
    assert_eq!(titles[7], "lara · gradient-weighted · layer 0 · head 1 · mean query");
    assert!(own.join("lara-rollout-allheads-patch_1_0.png").is_file());
    assert!(own.join("lara-gradient-weighted-layer0-head1-mean.png").is_file());
    let (mean, patch) = ([&maps[2], &maps[4]], [&maps[3], &maps[5]]);
    let fused = |of: [&Vec<f32>; 2], m: usize| (of[0][m] + of[1][m]) / 2.0;
    let own_token = |m: usize| f32::from(u8::from(m == 2));
    let wanted: [Vec<f32>; 2] = [
        (0..4).map(|m| (fused(mean, m) + 0.25) / 2.0).collect(),
        (0..4).map(|m| (fused(patch, m) + own_token(m)) / 2.0).collect(),
    ];
    assert_near(&maps[..2], &wanted, 1e-5);
    assert!(maps[6..].iter().flatten().all(|x| *x >= 0.0) && maps[6..].iter().flatten().any(|x| *x > 0.0));
    let (largest, ..) = export("max", &["--kind=rollout", "--fusion=max", "--query=1,0"]);
    let row: Vec<f32> = (0..4).map(|m| patch[0][m].max(patch[1][m]) + own_token(m)).collect();
    let sum: f32 = row.iter().sum();
    assert_near(&largest, &[row.iter().map(|x| x / sum).collect()], 1e-5);
    // All discarded, the residual connection is left.
    let (discarded, ..) = export("discard", &["--kind=rollout", "--discard=1", "--query=1,0"]);
    assert_near(&discarded, &[(0..4).map(own_token).collect()], 1e-6);
    // Without a class it is the predicted one.
    let predicted = report["predictions"][0]["class"].as_str().unwrap();
    let other = if predicted == "3" { "5" } else { "3" };
    let class = |class: &str| export(class, &["--kind=gradient", "--head=all", &format!("--class={class}")]);
    assert_eq!(class(predicted).0, maps[6..]);
    let (others, _, own) = class(other);
    assert_ne!(others, maps[6..]);
    let files = fs::read_dir(own).unwrap().map(|file| file.unwrap().path());
    let page = files.into_iter().find(|file| file.extension().is_some_and(|ending| ending == "html")).unwrap();
    let page = fs::read_to_string(page).unwrap();
    assert_says(&page, &[&format!("for class {other}")]);
}

/// A model of 56 x 56 patches with weights at random, as a file.
fn large(file: &Path) {
    let sets = ["model.image_size=56", "model.patch_size=1", "model.depth=1", "attention.num_landmarks=49"];
    let (config, mut parameters) = (TrainConfig::load("digits", &sets).unwrap(), Parameters::new(adapter()));
    let tune = Tune::fixed(&[]);
    block_on(Predictor::new(adapter(), &tune, &config, &mut parameters, 1, false)).unwrap();
    let wanted = names_and_shapes(&parameters);
    let values: Vec<Vec<f32>> = (0..)
        .zip(&wanted)
        .map(|(seed, (_, shape))| random(seed, shape.iter().product()).iter().map(|x| 0.3 * *x as f32).collect())
        .collect();
    let tensors: Vec<TensorView<'_>> = wanted
        .iter()
        .zip(&values)
        .map(|((name, shape), data)| TensorView { name: name.as_str().into(), shape, data })
        .collect();
    let metadata = Metadata::from([("config".to_owned(), config.to_toml().unwrap())]);
    weights::write(&mut fs::File::create(file).unwrap(), &tensors, &metadata).unwrap();
}

#[test]
fn three_thousand_tokens_are_exported() {
    let temp = tempfile::tempdir().unwrap();
    large(&temp.path().join("large.safetensors"));
    let picture = temp.path().join("a.png");
    image::GrayImage::from_fn(56, 56, |x, y| image::Luma([(4 * x + y / 2) as u8])).save(&picture).unwrap();
    let out = temp.path().join("out");
    let (picture, out) = (picture.to_str().unwrap(), out.to_str().unwrap());
    let command = ["export-maps", "large.safetensors", picture, "--out", out, "--query=9,9", "--query=mean"];
    let kinds = ["--kind=attention,rollout,gradient", "--format=npy", "--json"];
    json(temp.path(), &[&command[..], &kinds].concat());
    let maps = array(&temp.path().join("out/a/maps.npy"), 3136);
    assert_eq!(maps.len(), 2 + 2 + 1);
    for row in &maps[..4] {
        let sum: f64 = row.iter().map(|&x| f64::from(x)).sum();
        assert!((sum - 1.0).abs() < 1e-4, "a row sums to {sum}");
    }
    // The residual connection keeps half of the patch in row 9, column 9.
    let own = 9 * 56 + 9;
    assert!((maps[2][own] - (maps[0][own] + 1.0) / 2.0).abs() < 1e-5, "{} and {}", maps[2][own], maps[0][own]);
    assert!(maps[4].iter().any(|x| *x > 0.0) && maps[4].iter().all(|x| x.is_finite() && *x >= 0.0));
    let said = refusal(temp.path(), &[&command[..], &["--kind=rollout", "--fusion=max"]].concat());
    assert_says(&said, &["N = 3136 tokens", "at most 1024"]);
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
    assert_says(&refused(&["--kind=rollout", "--query=0,2"]), &["row 0, column 2", "2 x 2"]);
    assert_says(&refused(&["--kind=rollout", "--discard=1.5"]), &["--discard is 1.5", "from 0 to 1"]);
    assert_says(&refused(&["--kind=gradient", "--class=cat"]), &["no class `cat`", "has 10: 0, 1"]);
    assert_says(&refused(&["--kind=gradient", "--class=10"]), &["no class `10`"]);
    assert_says(&refused(&["--kind=gradient", "--layer=1"]), &["no layer 1"]);
    for (option, kind) in [("--class=3", "gradient"), ("--fusion=max", "rollout"), ("--discard=0.5", "rollout")] {
        assert_says(&refused(&[option]), &[option.split('=').next().unwrap(), kind, "leave"]);
    }
    assert!(!out.exists(), "a refused command left a folder");
    fs::write(&out, "in the way").unwrap();
    assert_says(&refused(&[]), &["cannot create the folder", "out"]);
    let options = [
        ("--format=gif", "png, svg, npy"),
        ("--colormap=jet", "viridis"),
        ("--head=x", "`mean`"),
        ("--kind=rolout", "attention, rollout and gradient"),
        ("--fusion=median", "mean, max and min"),
        ("--scale=uniform:1", "own, shared and uniform"),
    ];
    for (option, words) in options {
        let arguments = with(&[option]);
        let assert = lara(folder, &arguments.iter().map(String::as_str).collect::<Vec<_>>()).assert().code(2);
        assert_says(&String::from_utf8_lossy(&assert.get_output().stderr), &[words]);
    }
}
