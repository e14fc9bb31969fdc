//! Files that come in: dropped on the window, picked in a dialog, or handed over.

#[cfg(not(target_arch = "wasm32"))]
use std::path::{Path, PathBuf};

use egui::Ui;
use lara_models::Model;
use lara_models::data::picture::EXTENSIONS;

use crate::context::Context;
use crate::error::Error;
use crate::job::Job;
#[cfg(not(target_arch = "wasm32"))]
use crate::job::Stage;
#[cfg(not(target_arch = "wasm32"))]
use crate::pictures::Gallery;

/// What is on its way in.
#[derive(Default)]
pub(crate) struct Incoming {
    #[cfg(not(target_arch = "wasm32"))]
    picked: Stage<Option<PathBuf>>,
    #[cfg(target_arch = "wasm32")]
    drops: Vec<Job<(String, Vec<u8>)>>,
}

#[cfg(not(target_arch = "wasm32"))]
impl Incoming {
    /// Opens what was dropped on the window and what was picked.
    pub(crate) fn take(&mut self, cx: &mut Context, ui: &Ui) {
        for file in ui.input(|input| input.raw.dropped_files.clone()) {
            open_path(cx, file.path());
        }
        let settled = self.picked.settle();
        cx.messages.keep(settled);
        if let Some(Some(file)) = self.picked.take_ready() {
            open_path(cx, &file);
        }
    }

    /// Asks for a checkpoint or an image.
    pub(crate) fn pick(&mut self, cx: &Context) {
        let pick = || async {
            let dialog = rfd::AsyncFileDialog::new()
                .add_filter("checkpoints and images", &[&["safetensors"], &EXTENSIONS[..]].concat())
                .set_title("Open a checkpoint or an image");
            Ok::<_, Error>(dialog.pick_file().await.map(|file| file.path().to_path_buf()))
        };
        self.picked = Stage::Coming(Job::spawn(cx.repaint.clone(), pick));
    }
}

#[cfg(target_arch = "wasm32")]
impl Incoming {
    /// Opens what was dropped on the page: a browser reads files while the program goes on.
    pub(crate) fn take(&mut self, cx: &mut Context, ui: &Ui) {
        for file in ui.input(|input| input.raw.dropped_files.clone()) {
            let name = file.path().display().to_string();
            let read = move || async move {
                let bytes = file.bytes_async().await.map_err(Error::bad_input)?;
                Ok::<_, Error>((name, bytes))
            };
            self.drops.push(Job::spawn(cx.repaint.clone(), read));
        }
        let mut arrived = Vec::new();
        self.drops.retain(|job| match job.poll() {
            None => true,
            Some(read) => {
                arrived.push(read);
                false
            }
        });
        for read in arrived {
            if let Some((name, bytes)) = cx.messages.keep(read) {
                open_bytes(cx, &name, bytes);
            }
        }
    }
}

/// Opens a model (safetensors) or an image, told by the name.
pub(crate) fn open_bytes(cx: &mut Context, name: &str, bytes: Vec<u8>) {
    if name.to_lowercase().ends_with(".safetensors") {
        return cx.open(Model::from_bytes(name, bytes));
    }
    let added = cx.subject.preprocess().map_err(Into::into).and_then(|how| cx.gallery.add(name, &bytes, &how));
    if let Some(index) = cx.messages.keep(added) {
        cx.choose(index);
    }
}

/// Opens a checkpoint, a run's folder, an image, or a folder of images.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) fn open_path(cx: &mut Context, path: &Path) {
    let is_model = path.extension().is_some_and(|e| e == "safetensors");
    let subject = (is_model || path.is_dir()).then(|| Model::open(path));
    if let Some(subject) = subject.filter(|subject| is_model || subject.is_ok()) {
        return cx.open(subject);
    }
    match cx.subject.preprocess().map_err(Into::into).and_then(|how| Gallery::open(path, &how)) {
        Ok(mut gallery) if gallery.entries.len() == 1 => {
            cx.gallery.entries.append(&mut gallery.entries);
            cx.choose(cx.gallery.entries.len() - 1);
        }
        opened => cx.open_gallery(opened),
    }
}
