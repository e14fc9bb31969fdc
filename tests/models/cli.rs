//! The `lara` command as its users meet it: runs that are killed, answers as text and JSON, exit codes and sentences.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command as Process;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use assert_cmd::Command;
use lara_models::data::{Augment, Dataset, Digits, ImageDataset, Split};
use lara_models::random::{Draws, Purpose};
use lara_models::train::checkpoint::{Checkpoint, MODEL_FILE, OPTIMIZER_FILE};
use lara_models::train::checkpoints::{BEST, latest};
use lara_models::train::metrics::METRICS_FILE;
use lara_models::train::{TrainConfig, names_and_shapes};
use lara_models::weights::TensorFile;
use lara_models::{Predictor, softmax};
use lara_runtime::{Parameters, Role, Tune, Variant};
use lara_tests::adapter;
use pollster::block_on;
use serde_json::Value;

/// 352 steps of a few milliseconds each, four checkpoints, two evaluations.
const TRAIN: &[&str] = &[
    "train",
    "--preset=digits",
    "--attention=lara",
    "--output-dir=run",
    "--set=model.patch_size=4",
    "--set=model.embed_dim=32",
    "--set=model.depth=1",
    "--set=model.num_heads=2",
    "--set=model.drop_rate=0.1",
    "--set=attention.num_landmarks=4",
    "--set=train.batch_size=32",
    "--set=train.epochs=8",
    "--set=train.warmup_epochs=1",
    "--set=train.lr=3e-3",
    "--set=train.model_ema=true",
    // What is evaluated is the average; in so few steps it would still be the initial weights without.
    "--set=train.model_ema_warmup=true",
    "--set=output.checkpoint_interval=2",
    "--set=output.eval_interval=4",
    "--set=output.log_interval=1",
];
const STEPS: u64 = 352;

/// The binary beside this test's own, built if it is missing or older than its sources.
fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let test = std::env::current_exe().unwrap();
        let profile = test.parent().and_then(Path::parent).unwrap();
        let binary = profile.join(format!("lara{}", std::env::consts::EXE_SUFFIX));
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let sources =
            ["shaders", "runtime", "models", "explain", "viewer", "cli"].map(|folder| newest(&root.join(folder)));
        let built = fs::metadata(&binary).and_then(|m| m.modified()).ok();
        if built < sources.into_iter().max() {
            let release: &[&str] = if profile.ends_with("release") { &["--release"] } else { &[] };
            let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
            // The whole workspace's features, as the tests are built with: others would build every dependency once more.
            let whole = ["build", "--workspace", "--all-features", "--bin", "lara"];
            let build = Process::new(cargo).args(whole).args(release).current_dir(root).status();
            assert!(build.unwrap().success(), "the lara binary does not build");
        }
        binary
    })
}

/// When a file below `folder` was last changed.
fn newest(folder: &Path) -> SystemTime {
    let entries = fs::read_dir(folder).unwrap().flatten();
    let times = entries.map(|entry| match entry.path() {
        path if path.is_dir() => newest(&path),
        _ => entry.metadata().unwrap().modified().unwrap(),
    });
    times.max().unwrap_or(SystemTime::UNIX_EPOCH)
}

fn cache() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("lara-cache")
}

/// What measuring kernels found is shared by all commands of this file, and by the next run of the tests.
fn in_folder(mut command: Process, dir: &Path, arguments: &[&str]) -> Process {
    command.current_dir(dir).env("LARA_CACHE", cache()).env_remove("RUST_LOG").args(arguments);
    let opens_adapter = matches!(
        arguments.first(),
        Some(&("train" | "eval" | "predict" | "run" | "attend" | "experiment" | "export-maps" | "bench"))
    );
    let is_given = arguments.iter().any(|argument| argument.starts_with("--adapter"));
    if let (true, false, Ok(name)) = (opens_adapter, is_given, std::env::var("LARA_ADAPTER")) {
        command.arg(format!("--adapter={name}"));
    }
    command
}

pub(crate) fn lara(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::from_std(in_folder(Process::new(binary()), dir, arguments));
    command.timeout(Duration::from_secs(300));
    command
}

/// Standard output of a command that succeeds.
pub(crate) fn output(dir: &Path, arguments: &[&str]) -> String {
    let assert = lara(dir, arguments).assert().success();
    String::from_utf8(assert.get_output().stdout.clone()).unwrap()
}

pub(crate) fn json(dir: &Path, arguments: &[&str]) -> Value {
    let text = output(dir, arguments);
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{arguments:?} did not print JSON ({e}):\n{text}"))
}

/// What a command says when it refuses its input: one line, exit code 2, nothing on standard output.
pub(crate) fn refusal(dir: &Path, arguments: &[&str]) -> String {
    let assert = lara(dir, arguments).assert();
    let said = String::from_utf8(assert.get_output().stderr.clone()).unwrap();
    let assert = assert.code(2).stdout("");
    drop(assert);
    let line = said.lines().filter(|line| line.starts_with("lara: ")).collect::<Vec<_>>();
    assert!(line.len() == 1 && !said.contains("panicked"), "{arguments:?} said {said}");
    line[0].to_owned()
}

/// A folder with a finished run in `run/`, to be read only. It is trained once for a build of the command and an adapter:
/// under nextest every test is a process, of which the first trains and the others wait. It lies with what measuring found,
/// which decides on its bits.
pub(crate) fn trained() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let all = cache().join("trained");
        fs::create_dir_all(&all).unwrap();
        let lock = fs::File::create(all.join("lock")).unwrap();
        lock.lock().unwrap();
        let built = fs::metadata(binary()).unwrap().modified().unwrap();
        let chosen = ["LARA_ADAPTER", "WGPU_BACKEND", "VK_DRIVER_FILES", "LARA_CHECKED"].map(std::env::var_os);
        let mut hasher = DefaultHasher::new();
        (built, chosen, TRAIN).hash(&mut hasher);
        let folder = all.join(format!("{:016x}", hasher.finish()));
        if !folder.join("whole").exists() {
            for old in fs::read_dir(&all).unwrap().flatten().filter(|old| old.path().is_dir()) {
                fs::remove_dir_all(old.path()).unwrap();
            }
            fs::create_dir(&folder).unwrap();
            let summary = json(&folder, &[TRAIN, &["--json"]].concat());
            assert_eq!((summary["steps"].as_u64(), summary["interrupted"].as_bool()), (Some(STEPS), Some(false)));
            assert!(summary["evaluation"]["accuracy"].as_f64() > Some(0.7), "{summary}");
            fs::write(folder.join("whole"), "").unwrap();
        }
        folder
    })
}

fn lines_of_metrics(dir: &Path) -> usize {
    fs::read_to_string(dir.join("run").join(METRICS_FILE)).map_or(0, |text| text.lines().count())
}

/// Starts the run of [`trained`] in `dir` and returns once it has taken `steps` steps.
fn train_until(dir: &Path, arguments: &[&str], steps: usize) -> std::process::Child {
    let mut command = in_folder(Process::new(binary()), dir, arguments);
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    while lines_of_metrics(dir) < steps {
        let ended = child.try_wait().unwrap();
        assert!(ended.is_none(), "the run ended ({ended:?}) after {} lines of metrics", lines_of_metrics(dir));
        std::thread::sleep(Duration::from_millis(1));
    }
    child
}

/// Fails unless the newest checkpoints of two runs are the same bytes.
fn assert_same_end(a: &Path, b: &Path) {
    let [a, b] = [a, b].map(|folder| latest(folder.join("run")).unwrap());
    assert_eq!(a.file_name(), b.file_name());
    for file in [MODEL_FILE, OPTIMIZER_FILE] {
        let [a, b] = [&a, &b].map(|checkpoint| fs::read(checkpoint.join(file)).unwrap());
        assert!(a == b, "{file} of the interrupted run is not that of the whole one");
    }
}

#[test]
#[cfg(unix)]
fn a_run_stopped_by_ctrl_c_goes_on_to_the_same_end() {
    let (whole, temp) = (trained(), tempfile::tempdir().unwrap());
    let child = train_until(temp.path(), TRAIN, 100);
    let sent = Process::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(0), "{}", String::from_utf8_lossy(&ended.stderr));
    let (said, warned) = (String::from_utf8(ended.stdout).unwrap(), String::from_utf8(ended.stderr).unwrap());
    let checkpoint = latest(temp.path().join("run")).unwrap();
    let step = Checkpoint::load(&checkpoint).unwrap().state.step;
    assert!((100..STEPS).contains(&step), "stopped at step {step}");
    assert!(warned.contains("stopping after this step and saving"), "{warned}");
    let relative = checkpoint.strip_prefix(temp.path()).unwrap();
    assert!(said.contains(&format!("interrupted after {step} steps")), "{said}");
    // The command that it names is the one that goes on.
    assert!(said.contains(&format!("lara train --resume {}", relative.display())), "{said}");
    let said = output(temp.path(), &["train", "--resume", relative.to_str().unwrap()]);
    assert!(said.contains("352 steps of"), "{said}");
    assert_same_end(whole, temp.path());
    // One line for every step, each step once.
    let text = fs::read_to_string(temp.path().join("run").join(METRICS_FILE)).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let steps: Vec<u64> =
        lines.filter(|l| l.get("train/loss").is_some()).map(|l| l["step"].as_u64().unwrap()).collect();
    assert!(steps.iter().copied().eq(1..=STEPS), "{steps:?}");
}

#[test]
fn a_killed_run_goes_on_from_its_last_checkpoint_to_the_same_end() {
    let (whole, temp) = (trained(), tempfile::tempdir().unwrap());
    // Two epochs of 44 steps make a checkpoint; the run dies between two of them.
    let mut child = train_until(temp.path(), TRAIN, 120);
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().code(), None);
    let checkpoint = latest(temp.path().join("run")).unwrap();
    let step = Checkpoint::load(&checkpoint).unwrap().state.step;
    assert!((88..STEPS).contains(&step) && step.is_multiple_of(88), "the last checkpoint is of step {step}");
    // From inside the checkpoint's parent, as `--resume checkpoint-000088`.
    let name = checkpoint.file_name().unwrap().to_str().unwrap();
    output(&temp.path().join("run"), &["train", "--resume", name]);
    let end = latest(temp.path().join("run")).unwrap();
    assert!(end.ends_with("checkpoint-000352"));
    // The folder's name is in the model file's configuration; the tensors behind it must be the same.
    let whole = latest(whole.join("run")).unwrap();
    assert_eq!(tensors(&whole.join(MODEL_FILE)), tensors(&end.join(MODEL_FILE)));
    assert!(fs::read(whole.join(OPTIMIZER_FILE)).unwrap() == fs::read(end.join(OPTIMIZER_FILE)).unwrap());
}

/// `ulimit -f`, from some moment on: software adapters keep the memory of the device in files, so not from the start.
#[cfg(target_os = "linux")]
#[test]
fn a_file_that_may_not_grow_ends_a_run_with_a_sentence() {
    let (whole, temp) = (trained(), tempfile::tempdir().unwrap());
    let run = temp.path().join("run");
    // Two epochs of 44 steps make a checkpoint, whose model has 54 kB; the metrics until the next one have less.
    let child = train_until(temp.path(), TRAIN, 95);
    let limited = Process::new("prlimit").args(["--fsize=40000", "--pid", &child.id().to_string()]).status().unwrap();
    assert!(limited.success());
    let ended = child.wait_with_output().unwrap();
    let said = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(1), "{said}");
    let last = said.lines().last().unwrap_or_default();
    assert_says(last, &["lara: cannot save run/checkpoint-000176", "File too large", "checkpoint-000088"]);
    assert_eq!(Checkpoint::load(latest(&run).unwrap()).unwrap().state.step, 88);
    output(temp.path(), &["train", "--resume=run"]);
    assert_same_end(whole, temp.path());
}

fn tensors(file: &Path) -> Vec<(String, Vec<u32>)> {
    let file = TensorFile::open(file).unwrap();
    let bits = |name: &str| file.get(name, file.shape(name).unwrap()).unwrap().iter().map(|x| x.to_bits()).collect();
    file.names().map(|name| (name.to_owned(), bits(name))).collect()
}

#[test]
fn eval_prints_what_training_saw() {
    let folder = trained();
    let best = Checkpoint::load(folder.join("run").join(BEST)).unwrap().state;
    let evaluation = json(folder, &["eval", "run", "--json"]);
    assert_eq!(evaluation["images"], 360);
    let accuracy = evaluation["accuracy"].as_f64().unwrap();
    // Another batch size rounds differently: one close call may turn.
    assert!((accuracy - best.best_metric.unwrap()).abs() < 1.5 / 360.0);
    let confusion = evaluation["confusion"].as_array().unwrap();
    let total: u64 = confusion.iter().flat_map(|row| row.as_array().unwrap()).map(|n| n.as_u64().unwrap()).sum();
    assert_eq!((confusion.len(), total), (10, 360));
    let text = output(folder, &["eval", "run/best/model.safetensors", "--batch-size=100"]);
    assert!(text.contains("360 images of digits: accuracy"), "{text}");
}

#[test]
fn predict_classifies_pictures_as_the_model_does() {
    let (folder, temp) = (trained(), tempfile::tempdir().unwrap());
    let exported = output(folder, &["data", "digits", "--count=6", "--export", temp.path().to_str().unwrap()]);
    let pictures: Vec<&str> = exported.lines().collect();
    assert_eq!(pictures.len(), 6);
    let predictions = json(folder, &[&["predict", "run", "--json"], &pictures[..]].concat());
    let expected = probabilities_of_test_images(&folder.join("run").join(BEST), 6);
    for ((prediction, picture), expected) in predictions.as_array().unwrap().iter().zip(&pictures).zip(&expected) {
        assert_eq!(prediction["image"].as_str(), Some(*picture));
        let top5 = prediction["top5"].as_array().unwrap();
        let classes: Vec<usize> = top5.iter().map(|c| c["class"].as_str().unwrap().parse().unwrap()).collect();
        let values: Vec<f64> = top5.iter().map(|c| c["probability"].as_f64().unwrap()).collect();
        assert_eq!(classes.len(), 5);
        assert!(values.is_sorted_by(|a, b| a >= b) && values.iter().sum::<f64>() <= 1.0 + 1e-9, "{values:?}");
        for (class, value) in classes.iter().zip(&values) {
            // A PNG has 256 greys.
            assert!(
                (expected[*class] - value).abs() < 0.02,
                "{picture}: {class} has {value}, not {}",
                expected[*class]
            );
        }
    }
    let text = output(folder, &["predict", "run", pictures[0]]);
    assert_eq!(text.lines().count(), 6, "{text}");
    assert!(text.starts_with(pictures[0]) && text.lines().nth(1).unwrap().contains(" %"), "{text}");
    let said = refusal(folder, &["predict", "run", pictures[0], "--maps", "looks"]);
    assert_says(&said, &["lara export-maps run", "--overview --out looks"]);
    assert!(!folder.join("looks").exists());
}

/// Class probabilities of every sixtieth test image, computed by the library.
fn probabilities_of_test_images(folder: &Path, count: usize) -> Vec<Vec<f64>> {
    let checkpoint = Checkpoint::load(folder).unwrap();
    let (config, mut parameters) = (checkpoint.config().unwrap(), Parameters::new(adapter()));
    let tune = Tune::fixed(&[Variant::ROWS]);
    let predictor = block_on(Predictor::new(adapter(), &tune, &config, &mut parameters, 1, false)).unwrap();
    // Not the weights that are trained: their average.
    let model = TensorFile::open(folder.join(MODEL_FILE)).unwrap();
    for (index, values) in model.get_all(&names_and_shapes(&parameters)).unwrap().iter().enumerate() {
        parameters.write(adapter(), Role::Weight, index, values).unwrap();
    }
    let (digits, augment) = (Digits::new(Split::Test), Augment::eval(&config.data));
    let probabilities = |index: usize| {
        let (sample, mut image) = (digits.get(index * digits.len() / count).unwrap(), [0.0; 64]);
        augment.apply(&sample.pixels, digits.image_shape(), &mut Draws::new(0, Purpose::Augment, 0, 0), &mut image);
        softmax(&block_on(predictor.logits(&image)).unwrap()[0])
    };
    (0..count).map(probabilities).collect()
}

#[test]
fn devices_lists_adapters_as_json() {
    let devices = json(Path::new("."), &["devices", "--json"]);
    let devices = devices.as_array().unwrap();
    for (index, device) in devices.iter().enumerate() {
        assert_eq!(device["index"].as_u64(), Some(index as u64));
        assert!(device["name"].as_str().is_some_and(|name| !name.is_empty()));
        assert!(device["limits"]["max_storage_buffer_binding_size"].as_u64() >= Some(1 << 27));
    }
    let name = adapter().report().name.clone();
    assert!(devices.iter().any(|device| device["name"] == name.as_str()), "{name} is not among {devices:?}");
    let text = output(Path::new("."), &["devices"]);
    assert!(text.contains(&name) && text.contains("features"), "{text}");
}

#[test]
fn help_has_examples_for_every_command() {
    for command in ["", "train", "eval", "predict", "attend", "experiment", "export-maps", "devices", "bench", "data"] {
        let arguments: Vec<&str> = [command, "--help"].into_iter().filter(|a| !a.is_empty()).collect();
        let text = output(Path::new("."), &arguments);
        let examples = text.split_once("Examples:\n").unwrap_or_else(|| panic!("no examples in {text}")).1;
        assert!(examples.starts_with(&format!("  lara {command}")), "{examples}");
    }
    lara(Path::new("."), &[]).assert().code(2);
    lara(Path::new("."), &["train"]).assert().code(2);
    lara(Path::new("."), &["train", "--preset=digits", "--no-such-option"]).assert().code(2);
}

/// What is found only when the model is recorded is the user's to mend, too: `attend` and `train` agree.
#[test]
fn settings_that_do_not_fit_the_heads_are_bad_input_in_training() {
    let temp = tempfile::tempdir().unwrap();
    let sets = ["mechanism=performer", "kernel=dpfp", "features=16"].map(|set| format!("--set=attention.{set}"));
    let mut arguments = vec!["train", "--preset=digits"];
    arguments.extend(sets.iter().map(String::as_str));
    let said = refusal(temp.path(), &arguments);
    assert_says(&said, &["dpfp with heads of dimension 32", "at least 64", "not 16"]);
}

pub(crate) fn assert_says(said: &str, words: &[&str]) {
    words.iter().for_each(|word| assert!(said.contains(word), "no `{word}` in: {said}"));
}

#[test]
fn bad_settings_are_refused_in_one_sentence() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    assert_says(&refusal(dir, &["train", "--preset=digitz"]), &["digitz", "did you mean `digits`?"]);
    let with = |set: &str| refusal(dir, &["train", "--preset=digits", "--set", set]);
    assert_says(&with("train.lrr=1e-3"), &["train.lrr", "did you mean `train.lr`?"]);
    assert_says(&with("attention.mechanism=larra"), &["larra", "did you mean \"lara\"?"]);
    assert_says(&with("train.batch_size=5000"), &["5000", "1437", "train.batch_size"]);
    assert_says(&with("model.num_classes=7"), &["10 classes", "num_classes is 7"]);
    assert_says(&with("model.patch_size=3"), &["model.image_size = 8", "model.patch_size = 3"]);
    fs::write(dir.join("broken.toml"), "[train]\nlr = = 1\n").unwrap();
    assert_says(&refusal(dir, &["train", "--preset=broken.toml"]), &["broken.toml", "line 2"]);
    assert_says(&refusal(dir, &["train", "--preset=missing.toml"]), &["missing.toml"]);
    let said = refusal(dir, &["train", "--preset=digits", "--adapter=no such adapter"]);
    assert_says(&said, &["no such adapter", &format!("0: {}", first_adapter())]);
    assert_eq!(fs::read_dir(dir).unwrap().count(), 1, "a refused command left something behind");
}

fn first_adapter() -> String {
    json(Path::new("."), &["devices", "--json"])[0]["name"].as_str().unwrap().to_owned()
}

#[test]
fn what_does_not_fit_the_adapter_is_refused_before_the_first_step() {
    let temp = tempfile::tempdir().unwrap();
    let small = ["train", "--preset=digits", "--output-dir=run", "--attention=softmax", "--set=model.depth=1"];
    let train = |sets: &[&str]| refusal(temp.path(), &[&small[..], sets, &["--set=model.patch_size=8"]].concat());
    // One weight: 49,152 x 16,384 x 4 bytes, more than wgpu can bind. tests/models/trainer.rs has an activation.
    let said = train(&["--set=model.embed_dim=16384", "--set=model.num_heads=64", "--set=train.batch_size=1"]);
    assert_says(&said, &["blocks.0.attn.qkv.weight [49152, 16384]", "needs", "the adapter allows", "lower"]);
    assert!(!temp.path().join("run").exists(), "a refused run left a folder");
}

#[test]
fn bad_files_are_refused_in_one_sentence() {
    let (folder, temp) = (trained(), tempfile::tempdir().unwrap());
    let dir = temp.path();
    let model = folder.join("run").join(BEST).join(MODEL_FILE);
    let (model, run) = (model.to_str().unwrap(), folder.join("run"));
    let run = run.to_str().unwrap();
    for command in [&["eval", "nowhere"][..], &["predict", "nowhere", "x.png"], &["train", "--resume", "nowhere"]] {
        assert_says(&refusal(dir, command), &["nowhere"]);
    }
    fs::create_dir(dir.join("empty")).unwrap();
    assert_says(&refusal(dir, &["eval", "empty"]), &["empty", "holds no model"]);
    assert_says(&refusal(dir, &["train", "--resume", "empty"]), &["empty", "holds no checkpoint"]);
    let bytes = fs::read(model).unwrap();
    fs::write(dir.join("half.safetensors"), &bytes[..bytes.len() / 2]).unwrap();
    let said = refusal(dir, &["eval", "half.safetensors"]);
    assert_says(&said, &["half.safetensors", "truncated", &bytes.len().to_string(), &(bytes.len() / 2).to_string()]);
    let said = refusal(dir, &["eval", model, "--set=model.embed_dim=64"]);
    assert_says(&said, &["patch_embed.proj.weight", "[32, 1, 4, 4]", "[64, 1, 4, 4]"]);
    let said = refusal(dir, &["eval", model, "--set=model.qkv_bias=false"]);
    assert_says(&said, &["attn.qkv.bias", "which the model does not have"]);
    fs::write(dir.join("text.png"), "not a picture").unwrap();
    assert_says(&refusal(dir, &["predict", run, "text.png"]), &["text.png"]);
    assert_says(&refusal(dir, &["predict", run, "missing.png"]), &["missing.png"]);
    let said = refusal(folder, TRAIN);
    assert_says(&said, &["run already holds a run", "--resume"]);
}

/// Elsewhere than on Linux there is always a screen to ask for.
#[cfg(target_os = "linux")]
#[test]
fn without_a_screen_a_window_is_refused_and_nothing_trained() {
    let temp = tempfile::tempdir().unwrap();
    let mut arguments = TRAIN.to_vec();
    arguments.push("--view");
    let mut command = lara(temp.path(), &arguments);
    for screen in ["DISPLAY", "WAYLAND_DISPLAY", "WAYLAND_SOCKET"] {
        command.env_remove(screen);
    }
    let assert = command.assert().failure().code(1);
    let said = String::from_utf8(assert.get_output().stderr.clone()).unwrap();
    let sentence = said.lines().last().unwrap_or_default();
    assert!(sentence.contains("no window could be opened") && sentence.contains("is there a display?"), "{said}");
    assert_eq!(latest(temp.path().join("run")), None);
}

#[test]
fn print_config_prints_every_setting_and_does_nothing_else() {
    let temp = tempfile::tempdir().unwrap();
    let arguments = ["train", "--preset=deit_tiny_p16", "--set=train.epochs=70", "--print-config"];
    let printed = output(temp.path(), &arguments);
    assert!(
        printed.starts_with("# 1024 images a step, in 16 passes\n# peak learning rate 1e-3; 70 epochs in all\n"),
        "{printed}"
    );
    let expected = TrainConfig::load("deit_tiny_p16", &["train.epochs=70"]).unwrap();
    assert_eq!(TrainConfig::from_toml(&printed, "printed").unwrap(), expected);
    assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 0);
}
