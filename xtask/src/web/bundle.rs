//! From crates to a folder that a server can hand out: cargo, wasm-bindgen, and the pages beside them.

use std::path::Path;

use wasm_bindgen_cli_support::Bindgen;

use super::compiler;
use crate::Result;

/// Where the pages lie.
pub(crate) const FOLDER: &str = "target/web";

/// Builds the viewer's page and, with `golden`, that of the golden cases.
pub(crate) fn build(fast: bool, golden: bool) -> Result<()> {
    let profile = if fast { "web-test" } else { "web" };
    let mut task = compiler::build(profile)?.words("-p lara-viewer --lib");
    if golden {
        task = task.words("-p lara-tests --bin golden");
    }
    task.run()?;
    // What an older build left would be served, too.
    if Path::new(FOLDER).exists() {
        std::fs::remove_dir_all(FOLDER).map_err(|e| format!("cannot empty {FOLDER}: {e}"))?;
    }
    std::fs::create_dir_all(FOLDER).map_err(|e| format!("cannot create {FOLDER}: {e}"))?;
    let pages: &[(&str, &str)] = if golden {
        &[("lara_viewer", "index.html"), ("golden", "golden.html")]
    } else {
        &[("lara_viewer", "index.html")]
    };
    for (program, page) in pages {
        bind(&compiler::folder(profile).join(format!("{program}.wasm")), fast)?;
        let source = Path::new("viewer/web").join(page);
        std::fs::copy(&source, Path::new(FOLDER).join(page))
            .map_err(|e| format!("cannot copy {} to {FOLDER}: {e}", source.display()))?;
        println!("web: {FOLDER}/{page}, {program}_bg.wasm of {:.1} MB", megabytes(program));
    }
    Ok(())
}

/// Writes the glue between a page and the program. wasm-bindgen's two halves must be of one version; Cargo.lock holds both.
fn bind(wasm: &Path, with_names: bool) -> Result<()> {
    let failed = |e| format!("wasm-bindgen failed on {}: {e:#}", wasm.display());
    let mut bindgen = Bindgen::new();
    // The names of functions are for reading stacks: a fifth of the size.
    bindgen.input_path(wasm).typescript(false).remove_name_section(!with_names).remove_producers_section(true);
    bindgen.web(true).and_then(|bindgen| bindgen.generate(FOLDER)).map_err(failed)
}

fn megabytes(program: &str) -> f64 {
    let path = Path::new(FOLDER).join(format!("{program}_bg.wasm"));
    std::fs::metadata(path).map_or(0.0, |data| data.len() as f64 / 1e6)
}
