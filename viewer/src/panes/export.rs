//! The dialog that saves maps, and the one that opens files.

use egui::{ComboBox, Ui, Window};
use lara_explain::Head;
use lara_explain::export::{File, Format, Picture, Sheet, Style, files};

use crate::app::{App, Stage};
use crate::error::{Error, Result};
use crate::job::Job;
use crate::messages::Level;

/// What the dialog is set to.
pub(crate) struct Export {
    pub(crate) open: bool,
    formats: Vec<Format>,
    all_layers: bool,
    all_heads: bool,
    compared: bool,
    folder: String,
    coming: Stage<Vec<File>>,
    #[cfg(not(target_arch = "wasm32"))]
    picked: Stage<Option<std::path::PathBuf>>,
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
            picked: Stage::Empty,
            #[cfg(not(target_arch = "wasm32"))]
            chosen: Stage::Empty,
        }
    }
}

/// Draws the dialog if it is open, and finishes what it began.
pub(crate) fn show(app: &mut App, ui: &mut Ui) {
    take(app);
    let mut open = app.export.open;
    Window::new("Export maps").open(&mut open).collapsible(false).resizable(false).default_width(300.0).show(
        ui.ctx(),
        |ui| {
            what(app, ui);
            ui.separator();
            place(app, ui);
        },
    );
    app.export.open &= open;
}

fn what(app: &mut App, ui: &mut Ui) {
    ui.label("The maps of the current and the pinned queries:");
    let export = &mut app.export;
    let layer = app.settings.layer;
    ComboBox::from_label("layers")
        .selected_text(if export.all_layers { "all".into() } else { format!("layer {layer}") })
        .show_ui(ui, |ui| {
            ui.selectable_value(&mut export.all_layers, false, format!("layer {layer}"));
            ui.selectable_value(&mut export.all_layers, true, "all");
        });
    ComboBox::from_label("heads")
        .selected_text(if export.all_heads { "all and their mean" } else { "the chosen one" })
        .show_ui(ui, |ui| {
            ui.selectable_value(&mut export.all_heads, false, "the chosen one");
            ui.selectable_value(&mut export.all_heads, true, "all and their mean");
        });
    ui.checkbox(&mut export.compared, "also of the mechanisms on the page Compare");
    ui.horizontal_wrapped(|ui| {
        for format in Format::ALL {
            let mut wanted = export.formats.contains(&format);
            if ui.checkbox(&mut wanted, format.name()).changed() {
                export.formats.retain(|known| *known != format);
                if wanted {
                    export.formats.push(format);
                }
            }
        }
    });
}

fn place(app: &mut App, ui: &mut Ui) {
    #[cfg(not(target_arch = "wasm32"))]
    ui.horizontal(|ui| {
        let name = ui.label("folder");
        ui.add(egui::TextEdit::singleline(&mut app.export.folder).desired_width(150.0)).labelled_by(name.id);
        if ui.button("Choose…").clicked() {
            let pick = || async {
                Ok::<_, Error>(rfd::AsyncFileDialog::new().pick_folder().await.map(|f| f.path().to_path_buf()))
            };
            app.export.chosen = Stage::Coming(Job::spawn(app.repaint.clone(), pick));
        }
    });
    let can = !app.export.formats.is_empty() && app.inspector().is_some() && !app.export.coming.is_coming();
    let name = if cfg!(target_arch = "wasm32") { "Download" } else { "Save" };
    if ui.add_enabled(can, egui::Button::new(name)).clicked() {
        start(app);
    }
    if app.export.coming.is_coming() {
        ui.spinner();
    }
}

/// Begins to read the maps back and to make files of them.
fn start(app: &mut App) {
    let Some(entry) = app.gallery.entries.get(app.picture).cloned() else {
        return app.messages.problem("there is no image to export maps of; open or drop one first");
    };
    let shape = app.gallery.shape;
    let picture = Picture::from_planes(shape.channels, shape.height, shape.width, &entry.pixels);
    let Some(picture) = app.messages.keep(picture) else { return };
    let Some(inspector) = app.inspector() else { return };
    let sizes = inspector.sizes();
    let layers = if app.export.all_layers { (0..sizes.layers).collect() } else { vec![app.settings.layer] };
    let heads: Vec<Head> = match app.export.all_heads {
        true => (0..sizes.heads).map(Head::One).chain([Head::Mean]).collect(),
        false => vec![app.settings.head],
    };
    let name = app.subject.config.attention.mechanism.name();
    let own = inspector.read_maps(name, &layers, &heads);
    let compared = if app.export.compared { app.compare.read_maps(app.settings.layer, &heads) } else { Vec::new() };
    let settings = &app.settings;
    let style = Style {
        colormap: settings.colormap,
        opacity: settings.opacity,
        log_scale: settings.log_scale,
        ..Style::default()
    };
    let notes = notes(app);
    let title = format!("Attention of {}", app.subject.name);
    let formats = app.export.formats.clone();
    let image_name = entry.name;
    let work = move || async move {
        let mut maps = own.await?;
        for read in compared {
            maps.extend(read.await?);
        }
        files(&Sheet { title, image_name, picture, maps, style, notes }, &formats)
    };
    app.export.coming = Stage::Coming(Job::spawn(app.repaint.clone(), work));
}

fn notes(app: &App) -> Vec<(String, String)> {
    let report = app.gpu.report();
    let mut notes = vec![
        ("checkpoint".to_owned(), app.subject.name.clone()),
        ("adapter".to_owned(), format!("{} ({})", report.name, report.backend)),
    ];
    let best = app.probabilities.as_deref().and_then(|p| lara_models::top(p, 1).first().copied());
    if let Some((class, probability)) = best {
        let name = app.subject.classes.get(class).cloned().unwrap_or_else(|| class.to_string());
        notes.push(("prediction".into(), format!("{name}, {:.1} %", 100.0 * probability)));
    }
    notes
}

fn take(app: &mut App) {
    let settled = app.export.coming.settle();
    app.messages.keep(settled);
    if let Some(files) = app.export.coming.take_ready() {
        let saved = save(&app.export.folder, &files);
        if let Some(sentence) = app.messages.keep(saved) {
            app.messages.add(Level::Note, sentence);
            app.export.open = false;
        }
    }
    #[cfg(not(target_arch = "wasm32"))]
    take_dialogs(app);
}

#[cfg(not(target_arch = "wasm32"))]
fn take_dialogs(app: &mut App) {
    let settled = app.export.chosen.settle();
    app.messages.keep(settled);
    if let Some(Some(folder)) = app.export.chosen.take_ready() {
        app.export.folder = folder.display().to_string();
    }
    let settled = app.export.picked.settle();
    app.messages.keep(settled);
    if let Some(Some(file)) = app.export.picked.take_ready() {
        app.open_path(&file);
    }
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
        crate::web::download(&file.name, &file.bytes).map_err(Error::bad_input)?;
    }
    Ok(format!("downloaded {} files", files.len()))
}

/// Asks for a checkpoint or an image.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) fn pick_file(app: &mut App) {
    let pick = || async {
        let dialog = rfd::AsyncFileDialog::new()
            .add_filter("checkpoints and images", &["safetensors", "png", "jpg", "jpeg"])
            .set_title("Open a checkpoint or an image");
        Ok::<_, Error>(dialog.pick_file().await.map(|file| file.path().to_path_buf()))
    };
    app.export.picked = Stage::Coming(Job::spawn(app.repaint.clone(), pick));
}
