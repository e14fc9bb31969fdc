//! The program in a window that exists only in memory, on the device of the tests.

use std::time::{Duration, Instant};

use egui_kittest::Harness;
use egui_kittest::wgpu::WgpuTestRenderer;
use lara_runtime::Gpu;
use lara_viewer::inspect::Subject;
use lara_viewer::pictures::Gallery;
use lara_viewer::settings::Settings;
use lara_viewer::{App, Launch};

/// What kittest's renderer draws into.
const FORMAT: lara_viewer::TextureFormat = lara_viewer::TextureFormat::Rgba8Unorm;

/// A window and the program in it, which is made in the first frame.
pub type Window = Harness<'static, Option<App>>;

/// The device of the tests.
pub fn gpu() -> &'static Gpu {
    lara_tests::adapter()
}

/// Opens the program with the bundled model and digits.
pub fn open(size: [f32; 2], scale: f32, settings: Settings) -> Window {
    let launch = || Launch {
        subject: Subject::bundled().expect("the bundled model is whole"),
        gallery: Gallery::digits(30).expect("the digits are in the program"),
        training: None,
        notes: Vec::new(),
    };
    open_with(size, scale, settings, launch)
}

/// Opens the program with what `launch` makes.
pub fn open_with(size: [f32; 2], scale: f32, settings: Settings, launch: impl Fn() -> Launch + 'static) -> Window {
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
pub fn app(window: &mut Window) -> &mut App {
    window.state_mut().as_mut().expect("the program is made in the first frame")
}

/// Paints frames until something is so.
pub fn wait(window: &mut Window, what: &str, mut is_so: impl FnMut(&mut App) -> bool) {
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

/// Paints the last frame into memory; with LARA_SCREENSHOTS=FOLDER also into a file, for a person's eye.
pub fn picture(window: &mut Window, name: &str) -> image::RgbaImage {
    let image = window.render().expect("the window can be painted");
    if let Some(folder) = std::env::var_os("LARA_SCREENSHOTS") {
        let folder = std::path::PathBuf::from(folder);
        std::fs::create_dir_all(&folder).expect("the folder for screenshots can be made");
        image.save(folder.join(format!("{name}.png"))).expect("a screenshot can be written");
    }
    image
}
