//! `cargo xtask setup`: an adapter for wgpu, or a sentence that says how to get one.

use std::path::Path;

use clap::Args;

use crate::Result;
use crate::adapters::{self, Vulkan};
use crate::debian::{self, Entry};
use crate::shell::{self, Task};

/// From this version on lavapipe runs these kernels at a useful speed: 512^3 matmul 8-11 GFLOP/s, 1.5-1.8 with 22.3.
const FAST_MESA: u32 = 25;

const PACKAGES: [&str; 4] = ["mesa-vulkan-drivers", "libgl1-mesa-dri", "libegl1", "libegl-mesa0"];

/// Options of `setup`.
#[derive(Args, Clone, Default)]
pub(crate) struct Options {
    /// Also replaces a software driver that is slow (Mesa before 25), and adds OpenGL, which only the tests use.
    #[arg(long)]
    upgrade: bool,
}

/// Returns when an adapter is there; changes nothing if it was there already.
pub(crate) fn run(options: &Options) -> Result<()> {
    match std::env::consts::OS {
        "linux" => linux(options),
        "macos" => say("Metal is part of macOS: nothing to install."),
        "windows" => say(
            "DirectX 12 is part of Windows, with a software adapter (WARP) for machines without a GPU: nothing to install.",
        ),
        other => Err(format!(
            "do not know how to set up {other}: install a Vulkan loader and driver (Mesa's lavapipe needs no GPU)"
        )),
    }
}

fn say(sentence: &str) -> Result<()> {
    println!("setup: {sentence}");
    Ok(())
}

fn linux(options: &Options) -> Result<()> {
    let found = Vulkan::look();
    let system = System::read();
    let old = system.installed_mesa().filter(|major| *major < FAST_MESA);
    if found.usable() {
        let slow = if found.hardware.is_empty() { old } else { None };
        let no_gl = adapters::library("libEGL.so.1").is_none();
        if !options.upgrade || (slow.is_none() && !no_gl) {
            describe(&found);
            if let Some(major) = slow {
                println!(
                    "setup: Mesa {major} runs these kernels five times slower than {FAST_MESA}: cargo xtask setup --upgrade"
                );
            }
            return Ok(());
        }
        let what = slow.map_or("libEGL is missing".into(), |major| format!("Mesa {major} is slow"));
        println!("setup: there is a Vulkan driver, but {what}; upgrading.");
    } else {
        println!("setup: no usable Vulkan driver ({}).", missing(&found));
    }
    if !system.debian_like() || shell::find("apt-get").is_none() {
        return Err(format!("{} Then run this again.", system.advice()));
    }
    install(&system)?;
    let found = Vulkan::look();
    if !found.usable() {
        return Err(format!("the packages are installed, yet there is no usable Vulkan driver ({})", missing(&found)));
    }
    describe(&found);
    Ok(())
}

fn missing(found: &Vulkan) -> &'static str {
    if found.loader.is_none() { "libvulkan.so.1 is missing" } else { "the loader has no driver to load" }
}

fn describe(found: &Vulkan) {
    for manifest in found.hardware.iter().chain(&found.lavapipe) {
        let software = Some(manifest) == found.lavapipe.as_ref();
        let kind = if software { "software Vulkan driver (Mesa lavapipe)" } else { "GPU Vulkan driver" };
        println!("setup: {kind}: {}", manifest.display());
    }
    if adapters::library("libEGL.so.1").is_none() {
        println!("setup: no libEGL.so.1, so wgpu's OpenGL backend finds nothing; Vulkan does not need it.");
    }
}

fn install(system: &System) -> Result<()> {
    println!("setup: installing Mesa's software Vulkan driver: {}", PACKAGES.join(" "));
    if system.backports() {
        match install_from_backports(&system.codename) {
            Ok(()) => return Ok(()),
            Err(why) => println!("setup: {why}\nsetup: taking the release's own packages instead, which are slower."),
        }
    } else {
        as_root("apt-get", &PACKAGES)?.words("update").run()?;
    }
    as_root("apt-get", &PACKAGES)?.words("install -y --no-install-recommends").args(PACKAGES).run()
}

fn install_from_backports(codename: &str) -> Result<()> {
    let suite = format!("{codename}-backports");
    if let Some(entry) = debian::backports_entry(codename)? {
        println!("setup: from {suite}, which is added as {}", entry.file.display());
        add(&entry)?;
    }
    as_root("apt-get", &PACKAGES)?.words("update").run()?;
    as_root("apt-get", &PACKAGES)?
        .words("install -y --no-install-recommends -t")
        .args([suite.as_str()])
        .args(PACKAGES)
        .run()
}

fn add(entry: &Entry) -> Result<()> {
    if is_root() {
        let cannot = |e| format!("cannot write {}: {e}", entry.file.display());
        return std::fs::write(&entry.file, &entry.text).map_err(cannot);
    }
    let draft = std::env::temp_dir().join("lara-backports");
    std::fs::write(&draft, &entry.text).map_err(|e| format!("cannot write {}: {e}", draft.display()))?;
    let paths = [draft.as_path(), entry.file.as_path()].map(|path: &Path| path.to_string_lossy().into_owned());
    as_root("install", &PACKAGES)?.words("-m 644").args(paths).run()
}

/// `program` with the rights to install `packages`: ours if we are root, sudo's otherwise.
pub(crate) fn as_root(program: &str, packages: &[&str]) -> Result<Task> {
    let quiet = ("DEBIAN_FRONTEND", "noninteractive");
    if is_root() {
        return Ok(Task::new(program).env(quiet.0, quiet.1));
    }
    shell::find("sudo").ok_or_else(|| {
        format!(
            "installing needs root and there is no sudo: run this as root, or `apt-get install {}`",
            packages.join(" ")
        )
    })?;
    // sudo drops the environment, so the variable goes on its line.
    Ok(Task::new("sudo").args([format!("{}={}", quiet.0, quiet.1), program.into()]))
}

fn is_root() -> bool {
    Task::new("id").words("-u").quiet().is_some_and(|id| id.trim() == "0")
}

/// The distribution, as /etc/os-release names it.
pub(crate) struct System {
    names: String,
    codename: String,
}

impl System {
    pub(crate) fn read() -> System {
        let text = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            line.unwrap_or_default().trim_matches('"').to_owned()
        };
        System { names: format!("{} {}", field("ID"), field("ID_LIKE")), codename: field("VERSION_CODENAME") }
    }

    fn is(&self, name: &str) -> bool {
        self.names.split_whitespace().any(|word| word == name)
    }

    pub(crate) fn debian_like(&self) -> bool {
        self.is("debian") || self.is("ubuntu")
    }

    /// Debian 12 itself carries the slow Mesa 22.3; later releases need no backport.
    fn backports(&self) -> bool {
        self.codename == "bookworm" && self.names.starts_with("debian")
    }

    fn installed_mesa(&self) -> Option<u32> {
        if !self.debian_like() {
            return None;
        }
        let query = Task::new("dpkg-query").args(["-W", "-f", "${db:Status-Status} ${Version}", "mesa-vulkan-drivers"]);
        let version = query.quiet()?.strip_prefix("installed ")?.to_owned();
        version.rsplit(':').next()?.split('.').next()?.parse().ok()
    }

    fn advice(&self) -> &'static str {
        if self.is("fedora") || self.is("rhel") {
            "Install Mesa's Vulkan drivers: `sudo dnf install vulkan-loader mesa-vulkan-drivers`."
        } else if self.is("arch") {
            "Install a Vulkan driver: `sudo pacman -S vulkan-icd-loader vulkan-swrast` (or your GPU's, such as vulkan-radeon)."
        } else if self.is("suse") || self.is("opensuse") {
            "Install Mesa's Vulkan drivers: `sudo zypper install libvulkan1 libvulkan_lvp Mesa-vulkan-device-select`."
        } else if self.is("alpine") {
            "Install Mesa's Vulkan drivers: `apk add vulkan-loader mesa-vulkan-swrast`."
        } else {
            "Install a Vulkan loader (libvulkan.so.1) and a driver for it; Mesa's lavapipe is one that needs no GPU."
        }
    }
}
