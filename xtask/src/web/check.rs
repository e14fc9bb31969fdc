//! What `cargo xtask test --web` looks at: the golden cases and the viewer, both in a browser.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::browser::Page;
use super::bundle::FOLDER;
use super::serve::Server;
use crate::Result;

/// The software adapter compiles every kernel anew, on two cores that other tests may use as well.
const GOLDEN: Duration = Duration::from_secs(900);
const FIRST_MAP: Duration = Duration::from_secs(300);
const TRAINING: Duration = Duration::from_secs(300);
const HOVER: Duration = Duration::from_secs(120);
const STEPS: u64 = 5;
/// How many moves are made on the page Compare, each of which compiles a mechanism anew, unless this variable of the
/// environment asks for another number.
const FEW: usize = 10;
const MOVES: &str = "LARA_WEB_MOVES";
const MOVING: Duration = Duration::from_secs(3600);
/// The window's size in pixels, as the browser is started.
const WIDTH: u32 = 1280;
const HEIGHT: u32 = 720;

/// Runs both pages; each says what it found even if the other failed.
pub(crate) fn run(browser: &Path) -> Result<()> {
    let server = Server::start(0)?;
    let address = format!("http://localhost:{}", server.port());
    let mut page = Page::start(browser)?;
    let outcomes = [
        ("the golden cases in the browser", golden(&mut page, &address)),
        ("the viewer in the browser", viewer(&mut page, &address).map_err(|why| last_seen(&mut page, &why))),
        ("a dropped image", drop_image(&mut page).map_err(|why| last_seen(&mut page, &why))),
        ("the page Compare", other(&mut page, &address, "compare").map_err(|why| last_seen(&mut page, &why))),
        ("moves on the page Compare", moves(&mut page, &address).map_err(|why| last_seen(&mut page, &why))),
        ("the page Rollout", other(&mut page, &address, "rollout").map_err(|why| last_seen(&mut page, &why))),
        // The last, because what it hides stays hidden.
        ("a browser without WebGPU", without_webgpu(&mut page, &address)),
    ];
    page.close();
    let failed: Vec<String> =
        outcomes.into_iter().filter_map(|(what, o)| Some(format!("{what}: {}", o.err()?))).collect();
    if failed.is_empty() { Ok(()) } else { Err(failed.join("\n")) }
}

fn golden(page: &mut Page, address: &str) -> Result<()> {
    let start = Instant::now();
    page.open(&format!("{address}/golden.html"))?;
    let expression = "window.lara_report || window.lara_failure || null";
    let text = page.wait("the report of the golden cases", expression, GOLDEN, Value::is_string)?;
    let text = text.as_str().unwrap_or_default();
    let report: Value = serde_json::from_str(text).map_err(|_| format!("the page failed: {text}"))?;
    let _ = std::fs::write(Path::new(FOLDER).join("golden.json"), text);
    let cases: &[Value] = report["cases"].as_array().map_or(&[], Vec::as_slice);
    let models: &[Value] = report["models"].as_array().map_or(&[], Vec::as_slice);
    let worst = |all: &[Value]| all.iter().filter_map(|one| one["error"].as_f64()).fold(0.0, f64::max);
    println!("web: {} golden runs on {}, largest error {:.1e}", cases.len(), report["adapter"], worst(cases));
    println!("web: {} models of other libraries, largest error {:.1e}", models.len(), worst(models));
    println!("web: losses of {} training steps: {}", report["losses"].as_array().map_or(0, Vec::len), report["losses"]);
    println!("web: {:.0} s", start.elapsed().as_secs_f64());
    let failures: Vec<&str> = report["failures"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if !failures.is_empty() {
        return Err(format!("{} failures\n    {}", failures.len(), failures.join("\n    ")));
    }
    if cases.is_empty() || models.is_empty() {
        return Err("the page reported no cases, or no models".into());
    }
    quiet(page)
}

fn viewer(page: &mut Page, address: &str) -> Result<()> {
    let start = Instant::now();
    page.open(&format!("{address}/index.html?train={STEPS}"))?;
    let maps = |value: &Value| value.as_u64().unwrap_or(0);
    let ready =
        page.wait("the first frame", &field("ready"), FIRST_MAP, |v| v == &Value::Bool(true) || v.is_object())?;
    refuse_errors(&ready)?;
    let drawn = page.wait("the first map", &field("maps"), FIRST_MAP, |v| maps(v) > 0 || v.is_object())?;
    refuse_errors(&drawn)?;
    println!("web: first map after {:.1} s", start.elapsed().as_secs_f64());
    let steps = page.wait("training", &field("train_steps"), TRAINING, |v| maps(v) >= STEPS || v.is_object())?;
    refuse_errors(&steps)?;
    println!("web: {STEPS} training steps after {:.1} s", start.elapsed().as_secs_f64());
    hover(page, &field("maps"))?;
    let picture = page.screenshot()?;
    let path = Path::new(FOLDER).join("screenshot.png");
    std::fs::write(&path, &picture).map_err(|e| format!("cannot write {}: {e}", path.display()))?;
    println!("web: {} after {:.1} s", path.display(), start.elapsed().as_secs_f64());
    refuse_blank(&picture)?;
    let status = page.evaluate("window.lara_status")?;
    refuse_errors(&status)?;
    println!("web: {status}");
    quiet(page)
}

/// What an expression says of the viewer's status; the status itself, an object, if there are errors: it ends every wait.
fn field(name: &str) -> String {
    format!("window.lara_status && (lara_status.errors.length ? lara_status : lara_status.{name})")
}

/// Drops a small picture, drawn by the page itself, on the viewer that is open: its map has to follow.
fn drop_image(page: &mut Page) -> Result<()> {
    let maps = |value: &Value| value.as_u64().unwrap_or(0);
    let before = maps(&page.evaluate(&field("maps"))?);
    page.evaluate(
        "(() => { const picture = document.createElement('canvas'); picture.width = picture.height = 16;
            const pen = picture.getContext('2d'); pen.fillStyle = 'white'; pen.fillRect(4, 2, 5, 12);
            picture.toBlob((blob) => { const carried = new DataTransfer();
                carried.items.add(new File([blob], 'one.png', { type: 'image/png' }));
                document.getElementById('lara').dispatchEvent(
                    new DragEvent('drop', { dataTransfer: carried, bubbles: true, cancelable: true })); });
            return true; })()",
    )?;
    let after =
        page.wait("the map of a dropped image", &field("maps"), HOVER, |v| maps(v) > before || v.is_object())?;
    refuse_errors(&after)?;
    println!("web: a dropped image is looked at");
    quiet(page)
}

/// Opens the viewer on another page and waits until everything on it is compiled and drawn.
fn other(page: &mut Page, address: &str, name: &str) -> Result<()> {
    let start = Instant::now();
    page.open(&format!("{address}/index.html?page={name}"))?;
    let settled = field("ready && !lara_status.busy");
    let done = page.wait(name, &settled, FIRST_MAP, |v| v == &Value::Bool(true) || v.is_object())?;
    refuse_errors(&done)?;
    let picture = page.screenshot()?;
    let path = Path::new(FOLDER).join(format!("{name}.png"));
    std::fs::write(&path, &picture).map_err(|e| format!("cannot write {}: {e}", path.display()))?;
    refuse_blank(&picture)?;
    println!("web: {} after {:.1} s", path.display(), start.elapsed().as_secs_f64());
    quiet(page)
}

/// Moves a mechanism's settings again and again, up and down by turns: what is on the device has to stay the same, since no
/// garbage collector knows of it.
fn moves(page: &mut Page, address: &str) -> Result<()> {
    let wanted = match std::env::var(MOVES) {
        Ok(count) => count.parse().map_err(|_| format!("{MOVES}={count} is no number of moves; write {MOVES}=200"))?,
        Err(_) => FEW,
    };
    let start = Instant::now();
    page.open(&format!("{address}/index.html?page=compare&moves={wanted}"))?;
    let all = |value: &Value| value.as_array().is_some_and(|moves| moves.len() > wanted) || value.is_object();
    let bytes = page.wait("moves on the page Compare", &field("moves"), MOVING, all)?;
    refuse_errors(&bytes)?;
    let bytes: Vec<u64> = bytes.as_array().into_iter().flatten().filter_map(Value::as_u64).collect();
    refuse_growth(&bytes)?;
    let (first, seconds) = (bytes.first().copied().unwrap_or(0), start.elapsed().as_secs_f64());
    println!("web: {wanted} moves on the page Compare with {first} bytes on the device, {seconds:.1} s");
    quiet(page)
}

/// The same place has the same memory every time: every second number is the same.
fn refuse_growth(bytes: &[u64]) -> Result<()> {
    let moved = bytes.iter().zip(bytes.iter().skip(2)).position(|(before, after)| before != after);
    match moved {
        Some(at) => Err(format!(
            "memory of the device went from {} bytes to {} in two moves, after {at}",
            bytes[at],
            bytes[at + 2]
        )),
        None if bytes.first().is_none_or(|bytes| *bytes == 0) => Err("the page counts no memory".into()),
        None => Ok(()),
    }
}

/// A browser without WebGPU gets a page that says so, and what to do.
fn without_webgpu(page: &mut Page, address: &str) -> Result<()> {
    page.prepend("Object.defineProperty(Navigator.prototype, 'gpu', { get: () => undefined })")?;
    page.open(&format!("{address}/index.html"))?;
    let text = "document.getElementById('message') && document.getElementById('message').innerText";
    let says =
        |value: &Value| value.as_str().is_some_and(|text| text.contains("needs WebGPU") && text.contains("Firefox"));
    page.wait("the page for browsers without WebGPU", text, Duration::from_secs(30), says)?;
    println!("web: a browser without WebGPU is told so");
    quiet(page)
}

/// What went wrong, and what the page showed then.
fn last_seen(page: &mut Page, why: &str) -> String {
    let status = page.evaluate("window.lara_status").unwrap_or_default();
    let path = Path::new(FOLDER).join("failure.png");
    let picture = page.screenshot().and_then(|png| std::fs::write(&path, png).map_err(|e| e.to_string()));
    let picture = picture.map_or_else(|e| format!("no screenshot: {e}"), |()| format!("see {}", path.display()));
    format!("{why}\n    the page's status: {status}; {picture}")
}

/// Moves the mouse over the page, row by row, until a map follows it: where the images are is the viewer's affair.
fn hover(page: &mut Page, maps: &str) -> Result<()> {
    let before = page.evaluate(maps)?.as_u64().unwrap_or(0);
    let start = Instant::now();
    while start.elapsed() < HOVER {
        for (row, column) in (1..10).flat_map(|row| (1..16).map(move |column| (row, column))) {
            page.move_mouse(WIDTH * column / 16, HEIGHT * row / 10)?;
            std::thread::sleep(Duration::from_millis(150));
            let now = page.evaluate(maps)?;
            refuse_errors(&now)?;
            if now.as_u64().unwrap_or(0) > before {
                println!("web: the map follows the mouse at ({}, {})", WIDTH * column / 16, HEIGHT * row / 10);
                return Ok(());
            }
        }
    }
    Err(format!("no map was drawn in {} s of moving the mouse over the page; there were {before}", HOVER.as_secs()))
}

fn refuse_errors(status: &Value) -> Result<()> {
    match status.get("errors").and_then(Value::as_array) {
        Some(errors) if !errors.is_empty() => Err(format!("the viewer reports {}", Value::from(errors.clone()))),
        _ => Ok(()),
    }
}

fn quiet(page: &Page) -> Result<()> {
    if page.errors.is_empty() {
        return Ok(());
    }
    Err(format!("{} errors on the console\n    {}", page.errors.len(), page.errors.join("\n    ")))
}

/// A page that shows something has many colours (letters have soft edges) and no one colour nearly everywhere.
fn refuse_blank(png: &[u8]) -> Result<()> {
    let picture = image::load_from_memory(png).map_err(|e| format!("the screenshot is no picture: {e}"))?.to_rgb8();
    let mut counts: HashMap<[u8; 3], usize> = HashMap::new();
    picture.pixels().for_each(|pixel| *counts.entry(pixel.0).or_default() += 1);
    let most = counts.values().copied().max().unwrap_or(0) as f64 / picture.pixels().len().max(1) as f64;
    if counts.len() < 64 || most > 0.99 {
        return Err(format!("the screenshot is blank: {} colours, one of them on {:.1} %", counts.len(), most * 100.0));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{refuse_blank, refuse_errors, refuse_growth};
    use serde_json::json;

    fn png(color: impl Fn(u32, u32) -> [u8; 3]) -> Vec<u8> {
        let picture = image::RgbImage::from_fn(40, 30, |x, y| image::Rgb(color(x, y)));
        let mut bytes = std::io::Cursor::new(Vec::new());
        picture.write_to(&mut bytes, image::ImageFormat::Png).expect("a picture in memory");
        bytes.into_inner()
    }

    #[test]
    fn a_blank_screenshot_is_refused() {
        assert!(refuse_blank(&png(|_, _| [27; 3])).unwrap_err().contains("blank"));
        assert!(refuse_blank(&png(|x, _| [if x < 20 { 27 } else { 200 }; 3])).unwrap_err().contains("2 colours"));
        assert!(refuse_blank(b"nothing").unwrap_err().contains("no picture"));
        refuse_blank(&png(|x, y| [x as u8, y as u8, 0])).expect("many colours");
    }

    #[test]
    fn memory_that_grows_is_refused() {
        refuse_growth(&[7, 9, 7, 9, 7]).expect("up and down");
        assert!(refuse_growth(&[7, 9, 7, 9, 8]).unwrap_err().contains("from 7 bytes to 8"));
        assert!(refuse_growth(&[]).unwrap_err().contains("no memory"));
    }

    #[test]
    fn errors_of_the_viewer_end_a_wait() {
        assert!(refuse_errors(&json!({ "errors": ["the device was lost"] })).unwrap_err().contains("lost"));
        refuse_errors(&json!({ "errors": [] })).expect("none");
        refuse_errors(&json!(3)).expect("a number is no status");
    }
}
