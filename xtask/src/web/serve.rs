//! A server for target/web on this machine: WebGPU exists on https and on localhost, not for files.

use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use tiny_http::{Header, Method, Request, Response, StatusCode};

use super::bundle::FOLDER;
use crate::Result;

/// Serves until it is dropped.
pub(crate) struct Server {
    http: Arc<tiny_http::Server>,
    thread: Option<JoinHandle<()>>,
    port: u16,
}

impl Server {
    /// Listens on a port of this machine alone; 0 takes a free one.
    pub(crate) fn start(port: u16) -> Result<Server> {
        let http = tiny_http::Server::http(("127.0.0.1", port)).map_err(|e| {
            format!("cannot serve on port {port}: {e}; choose another with --port, or 0 for a free one")
        })?;
        let port = http.server_addr().to_ip().map_or(port, |address| address.port());
        let http = Arc::new(http);
        let shared = Arc::clone(&http);
        let thread = std::thread::spawn(move || shared.incoming_requests().for_each(answer));
        Ok(Server { http, thread: Some(thread), port })
    }

    /// The port it listens on.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Serves until the program is ended.
    pub(crate) fn wait(mut self) {
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed there.
            let _ = thread.join();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.http.unblock();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn answer(request: Request) {
    // A browser that went away meanwhile needs no answer.
    let _ = match (request.method(), file(request.url())) {
        (Method::Get | Method::Head, Some(path)) => match std::fs::read(&path) {
            Ok(bytes) => {
                let mut response = Response::from_data(bytes);
                for (name, value) in [("Content-Type", kind(&path)), ("Cache-Control", "no-store")] {
                    if let Ok(header) = Header::from_bytes(name, value) {
                        response.add_header(header);
                    }
                }
                request.respond(response)
            }
            Err(_) => request.respond(Response::from_string("not here").with_status_code(StatusCode(404))),
        },
        _ => request.respond(Response::from_string("not here").with_status_code(StatusCode(404))),
    };
}

/// The file that an address means, if it lies in the folder.
fn file(url: &str) -> Option<PathBuf> {
    let path = url.split(['?', '#']).next().unwrap_or("").trim_start_matches('/');
    let path = Path::new(if path.is_empty() { "index.html" } else { path });
    path.components().all(|part| matches!(part, Component::Normal(_))).then(|| Path::new(FOLDER).join(path))
}

/// Browsers compile wasm while it arrives only if it is called by its type.
fn kind(path: &Path) -> &'static str {
    match path.extension().and_then(|e| e.to_str()).unwrap_or("") {
        "html" => "text/html; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "wasm" => "application/wasm",
        "json" => "application/json",
        "png" => "image/png",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::{FOLDER, file, kind};
    use std::path::Path;

    #[test]
    fn addresses_stay_in_the_folder() {
        let inside = |name: &str| Some(Path::new(FOLDER).join(name));
        assert_eq!(file("/"), inside("index.html"));
        assert_eq!(file("/?train=5"), inside("index.html"));
        assert_eq!(file("/golden_bg.wasm#top"), inside("golden_bg.wasm"));
        assert_eq!(file("/../Cargo.toml"), None);
        assert_eq!(file("/a/../../Cargo.toml"), None);
        assert_eq!(kind(Path::new("golden_bg.wasm")), "application/wasm");
    }
}
