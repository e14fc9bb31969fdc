//! `lara run` and `lara convert` as their users meet them.

use std::fs;
use std::path::Path;

use lara_models::weights::{Metadata, TensorFile};
use serde_json::Value;

use crate::cli::{json, lara, output, refusal};
use crate::library::{golden, write_tensors};

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// Arguments that run a golden model on its own input and compare what comes out.
fn against(name: &str) -> Vec<String> {
    let io = text(&golden(name).join("io.safetensors"));
    ["run", &text(&golden(name)), "--input", &io, "--output", "out.safetensors", "--against", &io, "--json"]
        .map(str::to_owned)
        .to_vec()
}

fn words(arguments: &[String]) -> Vec<&str> {
    arguments.iter().map(String::as_str).collect()
}

#[test]
fn run_gives_what_the_library_gave() {
    let temp = tempfile::tempdir().unwrap();
    for (name, compared) in [
        // Resampled positions: the size comes with the images.
        ("timm_vit_resized", &["features", "logits"][..]),
        ("timm_vit_layer_scale_registers", &["features", "logits"]),
        ("hf_vit", &["blocks.0.attn.weights", "logits"]),
        ("hkunlp_evit_lara", &["logits"]),
    ] {
        let report = json(temp.path(), &words(&against(name)));
        let names: Vec<&str> =
            report["compared"].as_array().unwrap().iter().map(|d| d["name"].as_str().unwrap()).collect();
        assert_eq!(names, compared, "{name}");
        let all = |d: &Value| d["relative"].as_f64().unwrap() <= 2e-5;
        assert!(report["compared"].as_array().unwrap().iter().all(all), "{name}: {report}");
    }
}

#[test]
fn run_taps_activations_and_notices_differences() {
    let temp = tempfile::tempdir().unwrap();
    let mut arguments = against("timm_vit_token");
    arguments.extend(["--tap", "blocks.1", "--tap", "blocks.2.attn.q", "--tap", "tokens"].map(str::to_owned));
    let report = json(temp.path(), &words(&arguments));
    let shape = |name: &str| {
        let found = report["tensors"].as_array().unwrap().iter().find(|tensor| tensor[0] == name);
        found.unwrap_or_else(|| panic!("{name}: {report}"))[1].clone()
    };
    assert_eq!(shape("blocks.1"), serde_json::json!([2, 17, 48]));
    assert_eq!(shape("blocks.2.attn.q"), serde_json::json!([2, 3, 17, 16]));
    assert_eq!(shape("tokens"), serde_json::json!([2, 17, 48]));
    assert!(temp.path().join("out.safetensors").is_file());
    // Another mechanism on the same weights is another model: exit code 1, and the number.
    let mut other = against("timm_vit_token");
    other.extend(
        ["attention.mechanism=lara", "attention.proposal_gen=no-param-pool", "attention.num_landmarks=4"]
            .iter()
            .flat_map(|set| ["--set".to_owned(), (*set).to_owned()]),
    );
    let assert = lara(temp.path(), &words(&other)).assert().code(1);
    let said = String::from_utf8(assert.get_output().stderr.clone()).unwrap();
    assert!(said.contains("of its largest number, more than --tolerance 2.00e-5"), "{said}");
    other.extend(["--tolerance", "10"].map(str::to_owned));
    output(temp.path(), &words(&other));
}

#[test]
fn run_refuses_what_does_not_fit() {
    let temp = tempfile::tempdir().unwrap();
    let mut tapped = against("timm_vit_token");
    tapped.extend(["--tap", "blocks.7"].map(str::to_owned));
    let said = refusal(temp.path(), &words(&tapped));
    assert!(said.contains("the model has no blocks.7; it has blocks.0"), "{said}");
    let weights = text(&golden("timm_vit_token").join("model.safetensors"));
    let mut wrong = against("timm_vit_token");
    wrong[3] = weights;
    let said = refusal(temp.path(), &words(&wrong));
    assert!(said.contains("has no tensor images, which the model takes"), "{said}");
    let mut grey = against("timm_vit_token");
    grey.extend(["model.in_chans=1", "data.mean=[0.5]", "data.std=[0.5]"].map(|set| format!("--set={set}")));
    let said = refusal(temp.path(), &words(&grey));
    assert!(said.contains("has the shape [2, 3, 32, 32], but the model takes [2, 1, 32, 32]"), "{said}");
    let said = refusal(temp.path(), &["run", "hf:timm/no_such_model", "--input", &tapped[3], "--output", "out"]);
    assert!(said.contains("hf download timm/no_such_model"), "{said}");
}

/// What is read is never written over, and nothing compared is no agreement.
#[test]
fn nothing_is_written_over_what_is_read() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    for file in ["model.safetensors", "config.json", "io.safetensors"] {
        fs::copy(golden("timm_vit_token").join(file), dir.join(file)).unwrap();
    }
    let before = fs::read(dir.join("io.safetensors")).unwrap();
    fs::copy(dir.join("io.safetensors"), dir.join("reference.safetensors")).unwrap();
    let io =
        ["run", ".", "--input=io.safetensors", "--output=reference.safetensors", "--against=reference.safetensors"];
    assert!(refusal(dir, &io).contains("reference.safetensors is the input itself"));
    assert_eq!(fs::read(dir.join("reference.safetensors")).unwrap(), before);
    let weights = fs::read(dir.join("model.safetensors")).unwrap();
    for (source, out) in [(".", "."), ("model.safetensors", "model.safetensors"), (".", "model.safetensors")] {
        let said = refusal(dir, &["convert", source, out, "--to", "timm"]);
        assert!(said.contains("is the model itself; name another place"), "{said}");
    }
    assert_eq!(fs::read(dir.join("model.safetensors")).unwrap(), weights);
    // A file of another name shares its folder's settings.
    fs::copy(dir.join("model.safetensors"), dir.join("other.safetensors")).unwrap();
    fs::remove_file(dir.join("model.safetensors")).unwrap();
    let said = refusal(dir, &["convert", "./other.safetensors", ".", "--to", "timm"]);
    assert!(said.contains("config.json is the model itself"), "{said}");
    fs::rename(dir.join("other.safetensors"), dir.join("model.safetensors")).unwrap();
    let nothing = ["run", ".", "--input=io.safetensors", "--output=out.safetensors", "--against=model.safetensors"];
    let said = refusal(dir, &nothing);
    assert!(said.contains("nothing is compared") || said.contains("the model has no"), "{said}");
}

#[test]
fn a_model_without_classes_names_none() {
    let temp = tempfile::tempdir().unwrap();
    let picture = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/fixtures/orange.jpg");
    let file = TensorFile::open(golden("timm_vit_token").join("model.safetensors")).unwrap();
    let numbers = |name: &str| {
        let shape = file.shape(name).unwrap().to_vec();
        (name.to_owned(), shape.clone(), file.get(name, &shape).unwrap())
    };
    let features: Vec<_> = file.names().filter(|name| !name.starts_with("head.")).map(numbers).collect();
    write_tensors(temp.path(), &features, &Metadata::new());
    fs::copy(golden("timm_vit_token").join("config.json"), temp.path().join("config.json")).unwrap();
    let said = refusal(temp.path(), &["predict", ".", &text(&picture)]);
    assert!(said.contains("has no classifier, so it names no classes"), "{said}");
}

#[test]
fn convert_writes_what_the_other_library_reads() {
    let temp = tempfile::tempdir().unwrap();
    let source = text(&golden("hf_dinov2"));
    output(temp.path(), &["convert", &source, "ours", "--to", "lara"]);
    output(temp.path(), &["convert", "ours", "theirs", "--to", "hf"]);
    let io = text(&golden("hf_dinov2").join("io.safetensors"));
    for model in ["ours", "theirs"] {
        output(temp.path(), &["run", model, "--input", &io, "--output", "out.safetensors", "--against", &io]);
    }
    let said = refusal(temp.path(), &["convert", "ours", "other", "--to", "hkunlp"]);
    assert!(said.contains("the authors' code has no models with tokens in front of the patches"), "{said}");
    assert!(!temp.path().join("other").exists());
}
