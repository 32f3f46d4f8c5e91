//! A headless Chromium, spoken to over its DevTools protocol (<https://chromedevtools.github.io/devtools-protocol/>).

use data_encoding::BASE64;
use serde_json::{Value, json};
use std::fs::File;
use std::io::Write;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tungstenite::{Message, WebSocket};

/// How long anything may take: machines that compile at the same time are slow.
const PATIENCE: Duration = Duration::from_secs(30);
const NAMES: [&str; 5] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome"];

/// A browser with one page.
pub struct Browser {
    process: Child,
    folder: TempDir,
    socket: WebSocket<TcpStream>,
    session: Option<String>,
    calls: u64,
    /// Pages loaded so far.
    loads: usize,
    /// Errors and warnings of the page's scripts and of the browser about the page.
    pub complaints: Vec<String>,
    /// Addresses that the page asked for, itself included.
    pub requests: Vec<String>,
}

impl Browser {
    /// The browser of `BIGMAC_BROWSER`, else the first known one on the `PATH`; none where there is none and that is
    /// allowed, which it is not on CI.
    pub fn start() -> Option<Browser> {
        let path = find();
        if path.is_none() {
            let message = "there is no browser for the tests of timelines: install one, as in `apt-get install chromium`, or \
                 set BIGMAC_BROWSER to the path of a Chromium or Chrome";
            let ci = std::env::var_os("CI").is_some_and(|value| !value.is_empty());
            assert!(!ci, "{message}");
            // Printed around the harness, which shows nothing of tests that pass.
            let _ = writeln!(std::io::stderr(), "\nSKIPPED, NOT PASSED: {message}\n");
        }
        Some(Browser::launch(&path?))
    }

    fn launch(path: &Path) -> Browser {
        let folder = tempfile::tempdir().unwrap();
        let log = File::create(folder.path().join("log")).unwrap();
        let process = Command::new(path)
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
            .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
            .args(["--disable-dev-shm-usage", "--hide-scrollbars", "--window-size=1280,900"])
            .args(["--remote-debugging-port=0", "about:blank"])
            .arg(format!("--user-data-dir={}", folder.path().join("profile").display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("could not start the browser {}: {error}", path.display()));
        let (port, address) = listening(&folder, path);
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let (socket, _) = tungstenite::client(format!("ws://127.0.0.1:{port}{address}"), stream).unwrap();
        let mut browser = Browser {
            process,
            folder,
            socket,
            session: None,
            calls: 0,
            loads: 0,
            complaints: Vec::new(),
            requests: Vec::new(),
        };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" }));
        let attached = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = browser.call("Target.attachToTarget", attached);
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        browser
    }

    /// Calls a method of the protocol and returns its result.
    pub fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.calls += 1;
        let mut message = json!({ "id": self.calls, "method": method, "params": parameters });
        if let Some(session) = &self.session {
            message["sessionId"] = session.as_str().into();
        }
        self.socket.send(Message::text(message.to_string())).unwrap();
        loop {
            let mut message = self.receive();
            if message["id"] == self.calls {
                assert!(message["error"].is_null(), "{method}: {}", message["error"]);
                return message["result"].take();
            }
        }
    }

    fn receive(&mut self) -> Value {
        let message = self.socket.read().unwrap_or_else(|error| {
            panic!("the browser did not answer in {PATIENCE:?}: {error}; it said:\n{}", said(&self.folder))
        });
        let event: Value = serde_json::from_str(message.to_text().unwrap()).unwrap_or_default();
        let about = &event["params"];
        match event["method"].as_str().unwrap_or_default() {
            "Page.loadEventFired" => self.loads += 1,
            "Runtime.exceptionThrown" => self.complaints.push(about["exceptionDetails"].to_string()),
            "Runtime.consoleAPICalled" if about["type"] == "error" || about["type"] == "warning" => {
                self.complaints.push(about["args"].to_string());
            }
            "Log.entryAdded" if about["entry"]["level"] != "info" && about["entry"]["level"] != "verbose" => {
                self.complaints.push(about["entry"].to_string());
            }
            "Network.requestWillBeSent" => {
                self.requests.push(about["request"]["url"].as_str().unwrap_or_default().to_owned());
            }
            _ => {}
        }
        event
    }

    /// Opens a file and waits until it is loaded and drawn.
    pub fn open(&mut self, file: &Path) {
        let before = self.loads;
        let opened = self.call("Page.navigate", json!({ "url": format!("file://{}", file.display()) }));
        assert!(opened["errorText"].is_null(), "{opened}");
        while self.loads == before {
            self.receive();
        }
        self.wait("window.bigmac?.drawn().frames > 0");
    }

    /// The value of a JavaScript expression.
    pub fn value(&mut self, expression: &str) -> Value {
        let asked = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let mut answer = self.call("Runtime.evaluate", asked);
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {}", answer["exceptionDetails"]);
        answer["result"]["value"].take()
    }

    /// The value of a JavaScript expression that is a number.
    pub fn number(&mut self, expression: &str) -> f64 {
        let value = self.value(expression);
        value.as_f64().unwrap_or_else(|| panic!("{expression} is {value}"))
    }

    /// Waits until a JavaScript expression is true.
    pub fn wait(&mut self, expression: &str) {
        let begin = Instant::now();
        while self.value(expression) != true {
            assert!(
                begin.elapsed() < PATIENCE,
                "{expression} did not come true; complaints: {:?}",
                self.complaints
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// A mouse event at a point of the window.
    pub fn mouse(&mut self, kind: &str, (x, y): (f64, f64), more: Value) {
        let mut event = json!({ "type": kind, "x": x, "y": y });
        for (key, value) in more.as_object().into_iter().flatten() {
            event[key] = value.clone();
        }
        self.call("Input.dispatchMouseEvent", event);
    }

    /// Presses and releases a key; `shift` with the Shift key held.
    pub fn key(&mut self, key: &str, shift: bool) {
        for kind in ["keyDown", "keyUp"] {
            let event = json!({ "type": kind, "key": key, "modifiers": if shift { 8 } else { 0 } });
            self.call("Input.dispatchKeyEvent", event);
        }
    }

    /// Sets what the page's media queries see.
    pub fn prefer(&mut self, feature: &str, value: &str) {
        let features = json!({ "features": [{ "name": feature, "value": value }] });
        self.call("Emulation.setEmulatedMedia", features);
    }

    /// Writes what the window shows into `BIGMAC_SCREENSHOTS`, if that is set.
    pub fn keep_screenshot(&mut self, name: &str) {
        let Some(folder) = std::env::var_os("BIGMAC_SCREENSHOTS") else { return };
        let answer = self.call("Page.captureScreenshot", json!({ "format": "png" }));
        let text = answer["data"].as_str().unwrap_or_default();
        std::fs::write(
            Path::new(&folder).join(format!("{name}.png")),
            BASE64.decode(text.as_bytes()).unwrap(),
        )
        .unwrap();
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It may be gone already, and the page's own failure is what a test should end with.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn find() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("BIGMAC_BROWSER").filter(|path| !path.is_empty()) {
        return Some(path.into());
    }
    let folders: Vec<PathBuf> = std::env::split_paths(&std::env::var_os("PATH")?).collect();
    NAMES
        .iter()
        .flat_map(|name| folders.iter().map(move |folder| folder.join(name)))
        .find(|path| path.is_file())
}

/// Waits for the file in which the browser says where it listens: a line with the port, a line with the path.
fn listening(folder: &TempDir, browser: &Path) -> (u16, String) {
    let begin = Instant::now();
    loop {
        let text = std::fs::read_to_string(folder.path().join("profile/DevToolsActivePort"));
        if let Some((port, path)) = text.as_deref().ok().and_then(|text| text.split_once('\n')) {
            return (port.parse().unwrap(), path.trim().to_owned());
        }
        let (browser, said) = (browser.display(), said(folder));
        assert!(begin.elapsed() < PATIENCE, "{browser} did not start in {PATIENCE:?}; it said:\n{said}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn said(folder: &TempDir) -> String {
    std::fs::read_to_string(folder.path().join("log")).unwrap_or_default()
}
