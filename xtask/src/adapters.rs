//! Which adapters this machine has, found by looking at files: xtask links no graphics library.
//!
//! The kernel tests choose by environment: `LARA_ADAPTER` (a part of the adapter's name, or its index; the `lara` binary
//! reads `WGPU_ADAPTER_NAME`), `WGPU_BACKEND` and, for one Vulkan driver among several, `VK_DRIVER_FILES`.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::Result;
use crate::shell::{self, Task};

/// Device nodes of a GPU's kernel driver: DRM is looked up apart, these are NVIDIA's, WSL's and Adreno's.
const DEVICE_NODES: [&str; 3] = ["/dev/nvidiactl", "/dev/dxg", "/dev/kgsl-3d0"];

/// Vulkan drivers that need no GPU of this machine, by the beginning of their manifest's name.
const LAVAPIPE: &str = "lvp_icd";
const GUEST_ONLY: &str = "gfxstream";

/// What there is of Vulkan on this Linux machine.
pub(crate) struct Vulkan {
    /// libvulkan.so.1, without which no driver is found.
    pub(crate) loader: Option<PathBuf>,
    /// The software driver's manifest.
    pub(crate) lavapipe: Option<PathBuf>,
    /// Manifests of GPU drivers, if the machine has a GPU at all.
    pub(crate) hardware: Vec<PathBuf>,
}

impl Vulkan {
    pub(crate) fn look() -> Vulkan {
        let mut drivers = manifests();
        drivers.retain(|manifest| driver_exists(manifest));
        let named = |manifest: &Path, start: &str| {
            manifest.file_name().and_then(OsStr::to_str).is_some_and(|name| name.starts_with(start))
        };
        let lavapipe = drivers.iter().find(|manifest| named(manifest, LAVAPIPE)).cloned();
        drivers.retain(|manifest| !named(manifest, LAVAPIPE) && !named(manifest, GUEST_ONLY));
        let hardware = if has_gpu() { drivers } else { Vec::new() };
        Vulkan { loader: library("libvulkan.so.1"), lavapipe, hardware }
    }

    pub(crate) fn usable(&self) -> bool {
        self.loader.is_some() && (self.lavapipe.is_some() || !self.hardware.is_empty())
    }
}

/// An adapter to run the kernel tests on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Adapter {
    /// Mesa's software Vulkan driver.
    Lavapipe,
    /// wgpu's OpenGL backend on whatever EGL finds.
    Gl,
    /// The software Vulkan driver that comes with Chromium.
    SwiftShader,
    /// Whatever has this in its name, or this index.
    Named(String),
}

impl Adapter {
    /// Reads the value of `--adapter`.
    pub(crate) fn parse(text: &str) -> Adapter {
        match text.to_ascii_lowercase().as_str() {
            "lavapipe" | "llvmpipe" => Adapter::Lavapipe,
            "gl" | "opengl" => Adapter::Gl,
            "swiftshader" => Adapter::SwiftShader,
            _ => Adapter::Named(text.into()),
        }
    }

    pub(crate) fn name(&self) -> &str {
        match self {
            Adapter::Lavapipe => "lavapipe",
            Adapter::Gl => "gl",
            Adapter::SwiftShader => "swiftshader",
            Adapter::Named(name) => name,
        }
    }

    /// What a program has to find in its environment to open this adapter; an error says what is missing.
    ///
    /// An empty value stands for a variable that must not be there.
    pub(crate) fn environment(&self) -> Result<Vec<(String, String)>> {
        let (name, mut pairs) = match self {
            Adapter::Lavapipe => {
                let manifest = Vulkan::look().lavapipe.ok_or("Mesa's lavapipe is not installed (cargo xtask setup)")?;
                ("llvmpipe", vulkan(&manifest))
            }
            Adapter::SwiftShader => ("SwiftShader", vulkan(&swiftshader_manifest()?)),
            Adapter::Gl if !cfg!(target_os = "linux") => return Err("OpenGL is only tried on Linux".into()),
            Adapter::Gl => {
                library("libEGL.so.1").ok_or("libEGL.so.1 is not installed (Debian: libegl1)")?;
                // The backend has one adapter, and a name in the environment is a Vulkan adapter's as a rule.
                ("", vec![("WGPU_BACKEND", "gl".into())])
            }
            Adapter::Named(name) => (name.as_str(), Vec::new()),
        };
        pairs.extend([("LARA_ADAPTER", name.into()), ("WGPU_ADAPTER_NAME", name.into())]);
        Ok(pairs.into_iter().map(|(name, value)| (name.into(), value)).collect())
    }
}

fn vulkan(manifest: &Path) -> Vec<(&'static str, String)> {
    vec![("WGPU_BACKEND", "vulkan".into()), ("VK_DRIVER_FILES", manifest.to_string_lossy().into_owned())]
}

/// The manifest of a Vulkan driver by the beginning of its file's name, such as `radeon_icd`.
pub(crate) fn manifest(start: &str) -> Option<PathBuf> {
    let named = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(start));
    manifests().into_iter().find(named)
}

/// Every Vulkan driver manifest that the loader would read.
fn manifests() -> Vec<PathBuf> {
    for name in ["VK_DRIVER_FILES", "VK_ICD_FILENAMES"] {
        if let Some(list) = std::env::var_os(name).filter(|list| !list.is_empty()) {
            return std::env::split_paths(&list).filter(|path| path.is_file()).collect();
        }
    }
    let mut roots: Vec<PathBuf> =
        ["/etc", "/usr/local/etc", "/usr/local/share", "/usr/share", "/run/opengl-driver/share"]
            .map(PathBuf::from)
            .into();
    roots.extend(std::env::var_os("XDG_DATA_DIRS").iter().flat_map(std::env::split_paths));
    roots.extend(std::env::var_os("HOME").map(|home| Path::new(&home).join(".local/share")));
    let mut found: Vec<PathBuf> = roots.iter().flat_map(|root| files(&root.join("vulkan/icd.d"), "json")).collect();
    found.sort();
    found.dedup();
    found
}

/// Files in `folder` that end in `.extension`, sorted; none if there is no such folder.
pub(crate) fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| path.is_file() && path.extension().is_some_and(|e| e == extension));
    paths.sort();
    paths
}

/// Whether the library that the manifest names is there: a removed package can leave its manifest behind.
fn driver_exists(manifest: &Path) -> bool {
    let Ok(text) = std::fs::read_to_string(manifest) else { return false };
    let Some(path) = library_path(&text) else { return false };
    if path.contains('/') {
        manifest.parent().is_some_and(|folder| folder.join(&path).is_file())
    } else {
        library(&path).is_some()
    }
}

/// The value of `"library_path"`. The file has a dozen fixed lines, which is no reason for a JSON parser.
fn library_path(manifest: &str) -> Option<String> {
    let rest = manifest.split_once("\"library_path\"")?.1;
    let value = rest.split_once(':')?.1.trim_start().strip_prefix('"')?;
    Some(value.split_once('"')?.0.replace("\\/", "/"))
}

fn has_gpu() -> bool {
    let render_node = |entry: &std::fs::DirEntry| entry.file_name().to_string_lossy().starts_with("renderD");
    std::fs::read_dir("/dev/dri").is_ok_and(|nodes| nodes.flatten().any(|node| render_node(&node)))
        || DEVICE_NODES.iter().any(|node| Path::new(node).exists())
}

/// A shared library as the dynamic linker would find it.
pub(crate) fn library(name: &str) -> Option<PathBuf> {
    let arch = std::env::consts::ARCH;
    let mut folders: Vec<PathBuf> =
        std::env::var_os("LD_LIBRARY_PATH").iter().flat_map(std::env::split_paths).collect();
    folders.extend([format!("/usr/lib/{arch}-linux-gnu"), format!("/lib/{arch}-linux-gnu")].map(PathBuf::from));
    folders.extend(
        ["/usr/local/lib", "/usr/lib64", "/usr/lib", "/lib64", "/lib", "/run/opengl-driver/lib"].map(PathBuf::from),
    );
    if let Some(path) = folders.into_iter().map(|folder| folder.join(name)).find(|path| path.is_file()) {
        return Some(path);
    }
    // A user's path often lacks sbin.
    let cache =
        ["ldconfig", "/sbin/ldconfig", "/usr/sbin/ldconfig"].iter().find_map(|p| Task::new(*p).words("-p").quiet())?;
    let line = cache.lines().find(|line| line.trim_start().split(' ').next() == Some(name))?;
    line.split_once("=> ").map(|(_, path)| PathBuf::from(path.trim())).filter(|path| path.is_file())
}

/// Chromium's own Vulkan driver, with a manifest written under target/ because the package's names no absolute path.
fn swiftshader_manifest() -> Result<PathBuf> {
    let driver = swiftshader().ok_or("SwiftShader was not found: it comes with Chromium (Debian: chromium)")?;
    let folder = std::env::current_exe().ok().and_then(|exe| exe.parent().map(Path::to_path_buf));
    let manifest = folder.unwrap_or_else(std::env::temp_dir).join("swiftshader_icd.json");
    let path = driver.to_string_lossy().replace('\\', "\\\\").replace('"', "\\\"");
    let text = format!(
        "{{\"file_format_version\": \"1.0.0\", \"ICD\": {{\"library_path\": \"{path}\", \"api_version\": \"1.1.0\"}}}}\n"
    );
    std::fs::write(&manifest, text).map_err(|e| format!("cannot write {}: {e}", manifest.display()))?;
    Ok(manifest)
}

fn swiftshader() -> Option<PathBuf> {
    const NAME: &str = "libvk_swiftshader.so";
    let listed = Task::new("dpkg").words("-L chromium").quiet().unwrap_or_default();
    let mut candidates: Vec<PathBuf> = listed.lines().filter(|l| l.ends_with(NAME)).map(PathBuf::from).collect();
    for browser in ["chromium", "chromium-browser", "google-chrome"] {
        let folder = shell::find(browser).and_then(|path| path.canonicalize().ok()?.parent().map(Path::to_path_buf));
        candidates.extend(folder.map(|folder| folder.join(NAME)));
    }
    let usual = ["/usr/lib/chromium", "/usr/lib/chromium-browser", "/usr/lib64/chromium-browser", "/opt/google/chrome"];
    candidates.extend(usual.map(|folder| Path::new(folder).join(NAME)));
    candidates.into_iter().find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::{Adapter, library_path};

    #[test]
    fn a_manifest_names_its_library() {
        let text = "{\n  \"ICD\": {\n    \"api_version\": \"1.4\",\n    \"library_path\": \"\\/usr\\/lib/libvulkan_lvp.so\"\n }}";
        assert_eq!(library_path(text).as_deref(), Some("/usr/lib/libvulkan_lvp.so"));
        assert_eq!(library_path("{\"ICD\": {}}"), None);
    }

    #[test]
    fn adapters_are_known_by_name_and_anything_else_is_looked_up() {
        assert_eq!(Adapter::parse("SwiftShader"), Adapter::SwiftShader);
        assert_eq!(Adapter::parse("llvmpipe"), Adapter::Lavapipe);
        assert_eq!(Adapter::parse("RTX 4090"), Adapter::Named("RTX 4090".into()));
    }
}
