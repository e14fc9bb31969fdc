//! The dialog that saves maps.

use std::pin::Pin;

use egui::{ComboBox, Ui, Window};
use lara_explain::export::{File, Format, Picture, Sheet, Style, files};
use lara_explain::{Head, Map};

use crate::context::Context;
use crate::error::{Error, Result};
use crate::job::{Job, Stage};
use crate::messages::Level;

/// Maps that are read back: of the mechanisms on the page Compare, for one.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) type MapsRead = Pin<Box<dyn Future<Output = lara_explain::Result<Vec<Map>>> + Send>>;
/// Maps that are read back: of the mechanisms on the page Compare, for one.
#[cfg(target_arch = "wasm32")]
pub(crate) type MapsRead = Pin<Box<dyn Future<Output = lara_explain::Result<Vec<Map>>>>>;

/// The dialog and what it is set to.
pub(crate) struct Export {
    open: bool,
    formats: Vec<Format>,
    all_layers: bool,
    all_heads: bool,
    compared: bool,
    folder: String,
    coming: Stage<Vec<File>>,
    #[cfg(not(target_arch = "wasm32"))]
    chosen: Stage<Option<std::path::PathBuf>>,
}

impl Default for Export {
    fn default() -> Self {
        Export {
            open: false,
            formats: vec![Format::Png, Format::Html],
            all_layers: false,
            all_heads: false,
            compared: false,
            folder: "maps".into(),
            coming: Stage::Empty,
            #[cfg(not(target_arch = "wasm32"))]
            chosen: Stage::Empty,
        }
    }
}

impl Export {
    /// Opens the dialog.
    pub(crate) fn open(&mut self) {
        self.open = true;
    }

    /// Draws the dialog if it is open, and finishes what it began. `compared` reads maps of these heads in the layer that
    /// is looked at, of whatever else is shown.
    pub(crate) fn show(&mut self, cx: &mut Context, ui: &mut Ui, compared: &dyn Fn(usize, &[Head]) -> Vec<MapsRead>) {
        self.take(cx);
        let mut open = self.open;
        let window =
            Window::new("Export maps").open(&mut open).collapsible(false).resizable(false).default_width(300.0);
        window.show(ui.ctx(), |ui| {
            self.what(cx, ui);
            ui.separator();
            self.place(cx, ui, compared);
        });
        self.open &= open;
    }

    fn what(&mut self, cx: &Context, ui: &mut Ui) {
        ui.label("The maps of the current and the pinned queries:");
        let layer = cx.settings.layer;
        ComboBox::from_label("layers")
            .selected_text(if self.all_layers { "all".into() } else { format!("layer {layer}") })
            .show_ui(ui, |ui| {
                ui.selectable_value(&mut self.all_layers, false, format!("layer {layer}"));
                ui.selectable_value(&mut self.all_layers, true, "all");
            });
        ComboBox::from_label("heads")
            .selected_text(if self.all_heads { "all and their mean" } else { "the chosen one" })
            .show_ui(ui, |ui| {
                ui.selectable_value(&mut self.all_heads, false, "the chosen one");
                ui.selectable_value(&mut self.all_heads, true, "all and their mean");
            });
        ui.checkbox(&mut self.compared, "also of the mechanisms on the page Compare");
        ui.horizontal_wrapped(|ui| {
            for format in Format::ALL {
                let mut wanted = self.formats.contains(&format);
                if ui.checkbox(&mut wanted, format.name()).changed() {
                    self.formats.retain(|known| *known != format);
                    if wanted {
                        self.formats.push(format);
                    }
                }
            }
        });
    }

    fn place(&mut self, cx: &mut Context, ui: &mut Ui, compared: &dyn Fn(usize, &[Head]) -> Vec<MapsRead>) {
        #[cfg(not(target_arch = "wasm32"))]
        ui.horizontal(|ui| {
            let name = ui.label("folder");
            ui.add(egui::TextEdit::singleline(&mut self.folder).desired_width(150.0)).labelled_by(name.id);
            if ui.button("Choose…").clicked() {
                let pick = || async {
                    let folder = rfd::AsyncFileDialog::new().pick_folder().await;
                    Ok::<_, Error>(folder.map(|folder| folder.path().to_path_buf()))
                };
                self.chosen = Stage::Coming(Job::spawn(cx.repaint.clone(), pick));
            }
        });
        let can = !self.formats.is_empty() && cx.inspector().is_some() && !self.coming.is_coming();
        let name = if cfg!(target_arch = "wasm32") { "Download" } else { "Save" };
        if ui.add_enabled(can, egui::Button::new(name)).clicked() {
            self.start(cx, compared);
        }
        if self.coming.is_coming() {
            ui.spinner();
        }
    }

    /// Begins to read the maps back and to make files of them.
    fn start(&mut self, cx: &mut Context, compared: &dyn Fn(usize, &[Head]) -> Vec<MapsRead>) {
        let Some(entry) = cx.gallery.entries.get(cx.picture).cloned() else {
            return cx.messages.problem("there is no image to export maps of; open or drop one first");
        };
        let shape = cx.gallery.shape;
        let Some(preprocess) = cx.messages.keep(cx.subject.preprocess()) else { return };
        if self.all_layers {
            let shown = cx.looking.catch_up();
            cx.messages.keep(shown);
        }
        let Some(inspector) = cx.inspector() else { return };
        let sizes = inspector.sizes();
        let layers = if self.all_layers { (0..sizes.layers).collect() } else { vec![cx.settings.layer] };
        let heads: Vec<Head> = match self.all_heads {
            true => (0..cx.block().map_or(0, |block| block.heads)).map(Head::One).chain([Head::Mean]).collect(),
            false => vec![cx.settings.head],
        };
        let name = cx.subject.config.attention.mechanism.name();
        let own = inspector.read_maps(name, &layers, &heads);
        let compared = if self.compared { compared(cx.settings.layer, &heads) } else { Vec::new() };
        let settings = &cx.settings;
        let style = Style {
            colormap: settings.colormap,
            opacity: settings.opacity,
            log_scale: settings.log_scale,
            uniform: settings.uniform.then_some(settings.times),
            ..Style::default()
        };
        let (notes, formats) = (notes(cx), self.formats.clone());
        let (title, image_name) = (format!("Attention of {}", cx.subject.name), entry.name.clone());
        let work = move || async move {
            let picture = match &entry.photo {
                Some(photo) => photo.seen(&preprocess)?,
                None => Picture::from_planes(shape.channels, shape.height, shape.width, &entry.pixels)?,
            };
            let mut maps = own.await?;
            for read in compared {
                maps.extend(read.await?);
            }
            Ok::<_, Error>(files(&Sheet { title, image_name, picture, maps, style, notes }, &formats)?)
        };
        self.coming = Stage::Coming(Job::spawn(cx.repaint.clone(), work));
    }

    fn take(&mut self, cx: &mut Context) {
        let settled = self.coming.settle();
        cx.messages.keep(settled);
        if let Some(files) = self.coming.take_ready() {
            let saved = save(&self.folder, &files);
            if let Some(sentence) = cx.messages.keep(saved) {
                cx.messages.add(Level::Note, sentence);
                self.open = false;
            }
        }
        #[cfg(not(target_arch = "wasm32"))]
        {
            let settled = self.chosen.settle();
            cx.messages.keep(settled);
            if let Some(Some(folder)) = self.chosen.take_ready() {
                self.folder = folder.display().to_string();
            }
        }
    }
}

fn notes(cx: &Context) -> Vec<(String, String)> {
    let report = cx.gpu.report();
    let mut notes = vec![
        ("checkpoint".to_owned(), cx.subject.name.clone()),
        ("adapter".to_owned(), format!("{} ({})", report.name, report.backend)),
    ];
    if let Some((class, probability)) = cx.best() {
        notes.push(("prediction".into(), format!("{}, {:.1} %", cx.class_name(class), 100.0 * probability)));
    }
    notes
}

/// Writes the files into a folder; says how many.
#[cfg(not(target_arch = "wasm32"))]
fn save(folder: &str, files: &[File]) -> Result<String> {
    if folder.trim().is_empty() {
        return Err(Error::bad_input("name the folder that the maps are saved to"));
    }
    lara_explain::export::write_files(files, folder)?;
    Ok(format!("saved {} files to {folder}", files.len()))
}

/// Hands the files to the browser, which puts them among the downloads.
#[cfg(target_arch = "wasm32")]
fn save(_: &str, files: &[File]) -> Result<String> {
    for file in files {
        crate::download::download(&file.name, &file.bytes).map_err(Error::bad_input)?;
    }
    Ok(format!("downloaded {} files", files.len()))
}
