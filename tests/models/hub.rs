//! The hub's cache, read where it lies.

use lara_models::hub::Hub;
use lara_models::train::checkpoint::TrainedModel;

use crate::library::golden;

/// A stretch of the hub's cache, with a link as it makes them.
#[test]
fn the_cache_of_the_hub_is_read_as_it_lies() {
    let temp = tempfile::tempdir().unwrap();
    let repository = temp.path().join("hub/models--timm--vit");
    let commit = "0123456789abcdef0123456789abcdef01234567";
    let snapshot = repository.join("snapshots").join(commit);
    let blobs = repository.join("blobs");
    for folder in [&snapshot, &blobs, &repository.join("refs")] {
        std::fs::create_dir_all(folder).unwrap();
    }
    std::fs::write(repository.join("refs/main"), commit).unwrap();
    let home = temp.path().to_path_buf();
    let hub = Hub::from_env(|name| (name == "HF_HOME").then(|| home.clone())).unwrap();
    let refusal = |name: &str| hub.folder(name).expect_err(name).to_string();
    let said = refusal("hf:timm/vit");
    assert!(said.contains("model.safetensors of timm/vit is not in the hub's cache"), "{said}");
    assert!(said.contains("`hf download timm/vit model.safetensors config.json preprocessor_config.json`"), "{said}");
    let several = snapshot.join("pytorch_model.bin.index.json");
    std::fs::write(&several, "{}").unwrap();
    assert!(refusal("hf:timm/vit").contains("has its weights in several files"));
    std::fs::remove_file(several).unwrap();
    // Weights of PyTorch do; what is missing then is the configuration.
    std::fs::write(snapshot.join("pytorch_model.bin"), "PK").unwrap();
    assert!(refusal("hf:timm/vit").contains("config.json of timm/vit is not in"));
    std::fs::remove_file(snapshot.join("pytorch_model.bin")).unwrap();
    for file in ["model.safetensors", "config.json"] {
        let blob = blobs.join(file);
        std::fs::copy(golden("timm_vit_token").join(file), &blob).unwrap();
        #[cfg(unix)]
        std::os::unix::fs::symlink(format!("../../blobs/{file}"), snapshot.join(file)).unwrap();
        #[cfg(not(unix))]
        std::fs::copy(&blob, snapshot.join(file)).unwrap();
    }
    for name in ["hf:timm/vit", "hf:timm/vit@main", &format!("timm/vit@{commit}")] {
        assert_eq!(hub.folder(name).unwrap_or_else(|e| panic!("{e}")), snapshot);
    }
    assert!(TrainedModel::open(hub.folder("hf:timm/vit").unwrap()).is_ok());
    let said = refusal("hf:timm/vit@v2");
    assert!(said.contains("revision v2 of timm/vit") && said.contains("--revision v2"), "{said}");
    assert!(refusal("hf:timm/vitt").contains("timm/vitt is not in the hub's cache"));
    for name in ["hf:", "hf:a/b/c", "hf:../../etc", "hf:timm/..", "hf:timm/vit@../../x"] {
        assert!(refusal(name).contains("names no model on the hub"), "{name}");
    }
    std::fs::remove_file(blobs.join("config.json")).unwrap();
    if cfg!(unix) {
        assert!(refusal("hf:timm/vit").contains("config.json of timm/vit is not in"), "a link without its blob");
    }
}

#[test]
fn the_hub_is_where_the_environment_says() {
    let root = |set: &[(&str, &str)]| {
        let hub = Hub::from_env(|name| set.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into()));
        hub.map(|hub| hub.folder("a/b").expect_err("nothing there").to_string()).unwrap_or_else(|e| e.to_string())
    };
    let home = ("HOME", "home");
    for (set, expected) in [
        (&[home][..], "home/.cache/huggingface/hub;"),
        (&[home, ("XDG_CACHE_HOME", "xdg")], "xdg/huggingface/hub;"),
        (&[home, ("XDG_CACHE_HOME", "xdg"), ("HF_HOME", "hf")], "hf/hub;"),
        (&[home, ("HF_HOME", "hf"), ("HUGGINGFACE_HUB_CACHE", "old")], "cache old;"),
        (&[("HUGGINGFACE_HUB_CACHE", "old"), ("HF_HUB_CACHE", "new")], "cache new;"),
        (&[("HF_HUB_CACHE", ""), home], "home/.cache/huggingface/hub;"),
        (&[], "set HF_HUB_CACHE"),
    ] {
        let said = root(set).replace('\\', "/");
        assert!(said.contains(expected), "{set:?}: {said}");
    }
}
