//! Is there a compiler for wasm32-unknown-unknown: the toolchain in use where it has that target, or Debian's packages?

use std::path::{Path, PathBuf};

use crate::Result;
use crate::setup::{System, as_root};
use crate::shell::Task;

pub(super) const TARGET: &str = "wasm32-unknown-unknown";

/// Debian's compiler for the web carries no built standard library, so that comes as source, and a linker for wasm.
const PACKAGES: [&str; 4] = ["rustc-web", "cargo-web", "rust-web-src", "lld-19"];

/// Whether something here compiles for the browser.
pub(crate) fn is_there() -> bool {
    has_target() || debian().is_some()
}

/// On Debian without a compiler for the browser its packages are installed; elsewhere a sentence says what to do.
pub(crate) fn install_if_missing() -> Result<()> {
    if is_there() {
        return Ok(());
    }
    let advice = format!(
        "Rust cannot compile for {TARGET} here: run `rustup target add {TARGET}` (or install that target from where Rust \
         was installed from), then run this again."
    );
    if !System::read().debian_like() {
        return Err(advice);
    }
    println!("web: Rust cannot compile for {TARGET} here; installing Debian's packages: {}", PACKAGES.join(" "));
    as_root("apt-get", &PACKAGES)?.words("update").run()?;
    as_root("apt-get", &PACKAGES)?.words("install -y --no-install-recommends").args(PACKAGES).run()?;
    let hold_none = || format!("the packages are installed, yet they hold no compiler for {TARGET}. {advice}");
    debian().map(|_| ()).ok_or_else(hold_none)
}

/// Whether the compiler in use has a standard library for the target.
pub(super) fn has_target() -> bool {
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    let libraries = Task::new(rustc).words("--print target-libdir --target").words(TARGET).quiet();
    let entries = libraries.and_then(|folder| std::fs::read_dir(folder.trim()).ok());
    entries.is_some_and(|mut all| {
        all.any(|entry| entry.is_ok_and(|e| e.file_name().to_string_lossy().starts_with("libstd")))
    })
}

/// Debian's rustc, cargo and linker, if its packages are installed.
pub(super) fn debian() -> Option<[PathBuf; 3]> {
    let listed = |package: &str, file: &str| {
        let list = Task::new("dpkg").words("-L").words(package).quiet()?;
        let found = |path: &&str| path.ends_with(&format!("/{file}")) && Path::new(path).is_file();
        list.lines().find(found).map(PathBuf::from)
    };
    // Packages of these names hold the files; `rust-web-src` only has to be there.
    listed("rust-web-src", "library/std/Cargo.toml")?;
    let rustc = listed("rustc-web", "bin/rustc").or_else(|| listed("rustc", "bin/rustc"))?;
    let cargo = listed("cargo-web", "bin/cargo").or_else(|| listed("cargo", "bin/cargo"))?;
    let linker = listed("lld-19", "bin/wasm-ld-19").or_else(|| listed("lld-19", "bin/wasm-ld"))?;
    Some([rustc, cargo, linker])
}
