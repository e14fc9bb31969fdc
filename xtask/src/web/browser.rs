//! A browser without a window, driven through the DevTools protocol: JSON over one websocket.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tungstenite::{Message, WebSocket};

use crate::Result;

/// WebGPU on the software adapter that comes with the browser, and nothing that a test does not need. Without the two
/// that put the rest of the browser's graphics on that adapter as well, compute works, but a canvas has no textures and
/// its device is lost at the first frame.
const FLAGS: [&str; 16] = [
    "--headless",
    "--no-sandbox",
    "--enable-unsafe-webgpu",
    "--use-webgpu-adapter=swiftshader",
    "--enable-features=Vulkan",
    "--use-vulkan=swiftshader",
    "--use-angle=swiftshader",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--remote-debugging-port=0",
    "--window-size=1280,800",
    "--hide-scrollbars",
];

/// How long one answer of the browser may take: a page that compiles shaders is silent for a while.
const ANSWER: Duration = Duration::from_secs(120);

/// The process and its profile, which both end with it.
struct Process {
    child: Child,
    profile: PathBuf,
}

impl Drop for Process {
    fn drop(&mut self) {
        // It was asked to close; what is left after that is ended.
        let deadline = Instant::now() + Duration::from_secs(5);
        while Instant::now() < deadline && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.profile);
    }
}

/// A page in a browser of its own.
pub(crate) struct Page {
    socket: WebSocket<TcpStream>,
    session: Option<String>,
    next: u64,
    /// Errors on the console, uncaught exceptions and failed loads since the last [`Page::open`].
    pub(crate) errors: Vec<String>,
    _process: Process,
}

impl Page {
    /// Starts a browser with an empty profile and an empty page.
    pub(crate) fn start(browser: &Path) -> Result<Page> {
        let profile = std::env::temp_dir().join(format!("lara-web-test-{}", std::process::id()));
        std::fs::create_dir_all(&profile).map_err(|e| format!("cannot create {}: {e}", profile.display()))?;
        let child = Command::new(browser)
            .args(FLAGS)
            .arg(format!("--user-data-dir={}", profile.display()))
            .arg("about:blank")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|e| format!("{} could not be started: {e}", browser.display()))?;
        let mut process = Process { child, profile };
        let address = devtools(&mut process)?;
        let host = address.trim_start_matches("ws://").split('/').next().unwrap_or_default();
        let stream = TcpStream::connect(host).map_err(|e| format!("the browser does not answer on {host}: {e}"))?;
        stream.set_read_timeout(Some(ANSWER)).map_err(|e| format!("cannot limit the wait for the browser: {e}"))?;
        let (socket, _) =
            tungstenite::client(&address, stream).map_err(|e| format!("the browser refused {address}: {e}"))?;
        let mut page = Page { socket, session: None, next: 0, errors: Vec::new(), _process: process };
        let target = page.call("Target.createTarget", json!({ "url": "about:blank" }))?;
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = page.call("Target.attachToTarget", attach)?;
        page.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log"] {
            page.call(&format!("{domain}.enable"), json!({}))?;
        }
        Ok(page)
    }

    /// Goes to an address and forgets the errors of the page before.
    pub(crate) fn open(&mut self, url: &str) -> Result<()> {
        self.errors.clear();
        let answer = self.call("Page.navigate", json!({ "url": url }))?;
        match answer["errorText"].as_str() {
            Some(error) => Err(format!("the browser could not open {url}: {error}")),
            None => Ok(()),
        }
    }

    /// Runs a script before those of every page that is opened from now on.
    pub(crate) fn prepend(&mut self, script: &str) -> Result<()> {
        self.call("Page.addScriptToEvaluateOnNewDocument", json!({ "source": script })).map(|_| ())
    }

    /// The value of an expression of JavaScript.
    pub(crate) fn evaluate(&mut self, expression: &str) -> Result<Value> {
        let answer = self.call("Runtime.evaluate", json!({ "expression": expression, "returnByValue": true }))?;
        match answer.get("exceptionDetails") {
            Some(details) => Err(format!("`{expression}` failed in the page: {details}")),
            None => Ok(answer["result"]["value"].clone()),
        }
    }

    /// Asks for the value until `is_done` says yes, for at most `limit`; `what` is what was waited for.
    pub(crate) fn wait(
        &mut self,
        what: &str,
        expression: &str,
        limit: Duration,
        is_done: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let start = Instant::now();
        loop {
            let value = self.evaluate(expression)?;
            if is_done(&value) {
                return Ok(value);
            }
            if start.elapsed() > limit {
                let errors = self.errors.join("\n");
                return Err(format!(
                    "{what} did not come within {} s: `{expression}` is {value}\n{errors}",
                    limit.as_secs()
                ));
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Moves the mouse to a point of the page, in its pixels.
    pub(crate) fn move_mouse(&mut self, x: u32, y: u32) -> Result<()> {
        self.call("Input.dispatchMouseEvent", json!({ "type": "mouseMoved", "x": x, "y": y })).map(|_| ())
    }

    /// What is seen, as PNG.
    pub(crate) fn screenshot(&mut self) -> Result<Vec<u8>> {
        let answer = self.call("Page.captureScreenshot", json!({ "format": "png" }))?;
        let text = answer["data"].as_str().unwrap_or_default();
        data_encoding::BASE64.decode(text.as_bytes()).map_err(|e| format!("the screenshot is not base64: {e}"))
    }

    /// Asks the browser to end.
    pub(crate) fn close(mut self) {
        self.session = None;
        // It may be gone before it answers.
        let _ = self.call("Browser.close", json!({}));
    }

    fn call(&mut self, method: &str, params: Value) -> Result<Value> {
        self.next += 1;
        let id = self.next;
        let mut message = json!({ "id": id, "method": method, "params": params });
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        let lost = |e: tungstenite::Error| format!("the browser went away during {method}: {e}");
        self.socket.send(Message::text(message.to_string())).map_err(lost)?;
        loop {
            let Message::Text(text) = self.socket.read().map_err(lost)? else { continue };
            let answer: Value = serde_json::from_str(&text).map_err(|e| format!("the browser sent no JSON: {e}"))?;
            if answer["id"] == json!(id) {
                return match answer.get("error") {
                    Some(error) => Err(format!("the browser refused {method}: {error}")),
                    None => Ok(answer["result"].clone()),
                };
            }
            self.errors.extend(complaint(&answer));
        }
    }
}

/// The error that an event of the browser tells of, if it does.
fn complaint(event: &Value) -> Option<String> {
    let params = &event["params"];
    match event["method"].as_str()? {
        "Runtime.exceptionThrown" => {
            let details = &params["exceptionDetails"];
            let text = details["exception"]["description"].as_str().or_else(|| details["text"].as_str());
            Some(format!("exception: {}", text.unwrap_or("without a text")))
        }
        "Runtime.consoleAPICalled" if params["type"] == "error" || params["type"] == "assert" => {
            let words = params["args"].as_array()?.iter();
            let text: Vec<&str> =
                words.filter_map(|a| a["value"].as_str().or_else(|| a["description"].as_str())).collect();
            Some(format!("console: {}", text.join(" ")))
        }
        "Log.entryAdded" if params["entry"]["level"] == "error" => {
            let entry = &params["entry"];
            let [text, url] = ["text", "url"].map(|key| entry[key].as_str().unwrap_or_default());
            Some(format!("log: {text} {url}"))
        }
        _ => None,
    }
}

/// The address that the browser writes into its profile when it listens.
fn devtools(process: &mut Process) -> Result<String> {
    let file = process.profile.join("DevToolsActivePort");
    let deadline = Instant::now() + Duration::from_secs(60);
    while Instant::now() < deadline {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        let mut lines = text.lines();
        if let (Some(port), Some(path)) = (lines.next(), lines.next()) {
            return Ok(format!("ws://127.0.0.1:{port}{path}"));
        }
        if let Ok(Some(status)) = process.child.try_wait() {
            return Err(format!("the browser ended at once ({status})"));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Err("the browser did not say within 60 s where it listens".into())
}

#[cfg(test)]
mod tests {
    use super::complaint;
    use serde_json::json;

    #[test]
    fn errors_are_heard_and_the_rest_is_not() {
        let call = |kind: &str| {
            json!({ "method": "Runtime.consoleAPICalled",
                    "params": { "type": kind, "args": [{ "value": "no such buffer" }, { "description": "Error" }] } })
        };
        assert_eq!(complaint(&call("error")).as_deref(), Some("console: no such buffer Error"));
        assert_eq!(complaint(&call("warning")), None);
        let thrown = json!({ "method": "Runtime.exceptionThrown",
            "params": { "exceptionDetails": { "text": "Uncaught", "exception": { "description": "unreachable" } } } });
        assert_eq!(complaint(&thrown).as_deref(), Some("exception: unreachable"));
        assert_eq!(complaint(&json!({ "id": 1, "result": {} })), None);
    }
}
