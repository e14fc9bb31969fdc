//! The program in a window that exists only in memory, on the device of the tests.

use std::time::{Duration, Instant};

use egui_kittest::kittest::Queryable;
use egui_kittest::wgpu::WgpuTestRenderer;
use egui_kittest::{Harness, SnapshotOptions};
use lara_models::Model;
use lara_runtime::{Gpu, Tune, Variant};
use lara_viewer::pictures::Gallery;
use lara_viewer::settings::Settings;
use lara_viewer::{App, Launch};

/// What kittest's renderer draws into.
const FORMAT: lara_viewer::TextureFormat = lara_viewer::TextureFormat::Rgba8Unorm;

/// A window and the program in it, which is made in the first frame.
pub(crate) type Window = Harness<'static, Option<App>>;

/// The device of the tests.
pub(crate) fn gpu() -> &'static Gpu {
    lara_tests::adapter()
}

/// Opens the program with the smaller bundled model and digits, and with kernels that do not depend on what was measured:
/// pictures and numbers are the same in every run.
pub(crate) fn open(size: [f32; 2], scale: f32, settings: Settings) -> Window {
    open_with(size, scale, settings, || launch(lara_explain::bundled_digits().expect("the bundled model is whole")))
}

/// A model and the pictures that come with the program for it.
pub(crate) fn launch(subject: Model) -> Launch {
    let mut gallery = Gallery::bundled(&subject).expect("the model takes pictures");
    gallery.entries.truncate(30);
    let tune = Tune::fixed(&[Variant::SLABS, Variant::ROWS4, Variant::ROWS, Variant::FORWARD_ROWS]);
    Launch { subject, gallery, training: None, notes: Vec::new(), tune: Some(tune) }
}

/// Opens the program with what `launch` makes.
pub(crate) fn open_with(
    size: [f32; 2],
    scale: f32,
    settings: Settings,
    launch: impl Fn() -> Launch + 'static,
) -> Window {
    let gpu = gpu();
    let frame = move |ui: &mut egui::Ui, app: &mut Option<App>| {
        app.get_or_insert_with(|| App::new(gpu, FORMAT, ui.ctx(), launch(), settings.clone())).frame(ui);
    };
    let mut window = Harness::builder()
        .with_size(egui::Vec2::from(size))
        .with_pixels_per_point(scale)
        .renderer(WgpuTestRenderer::from_setup(lara_viewer::wgpu_setup(gpu)))
        .build_ui_state(frame, None);
    wait(&mut window, "the first map", |app| app.status().ready && app.inspector().is_some_and(|i| !i.is_waiting()));
    window
}

/// The program.
pub(crate) fn app(window: &mut Window) -> &mut App {
    window.state_mut().as_mut().expect("the program is made in the first frame")
}

/// Paints frames until something is so.
pub(crate) fn wait(window: &mut Window, what: &str, mut is_so: impl FnMut(&mut App) -> bool) {
    let start = Instant::now();
    loop {
        window.step();
        if is_so(app(window)) {
            return;
        }
        let messages = app(window).status().errors.join("; ");
        assert!(start.elapsed() < Duration::from_secs(120), "{what} did not come; messages: {messages}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Compares the last frame with the stored picture of this name (`UPDATE_SNAPSHOTS=1` stores it anew), times apart. Other
/// adapters than lavapipe draw letters and edges a little differently: there the frame is only painted.
pub(crate) fn snapshot(window: &mut Window, name: &str) {
    picture(window, name);
    if !gpu().report().name.contains("llvmpipe") {
        return;
    }
    let times: Vec<egui::Rect> = window.query_all_by_label_contains(" ms").map(|node| node.rect()).collect();
    // As large whatever the number of digits.
    times.into_iter().for_each(|rect| window.mask(egui::Rect::from_min_size(rect.min, egui::vec2(130.0, 18.0))));
    // Another processor may round a last digit differently, and letters are some dozens of pixels; a patch of a map of another
    // colour is a thousand or more.
    let options = SnapshotOptions::new().output_path("../tests/viewer/snapshots").max_failed_pixels(600);
    window.snapshot_options(name, &options);
}

/// Paints the last frame into memory; with LARA_SCREENSHOTS=FOLDER also into a file, for a person's eye.
pub(crate) fn picture(window: &mut Window, name: &str) -> image::RgbaImage {
    let image = window.render().expect("the window can be painted");
    if let Some(folder) = std::env::var_os("LARA_SCREENSHOTS") {
        let folder = std::path::PathBuf::from(folder);
        std::fs::create_dir_all(&folder).expect("the folder for screenshots can be made");
        image.save(folder.join(format!("{name}.png"))).expect("a screenshot can be written");
    }
    image
}
