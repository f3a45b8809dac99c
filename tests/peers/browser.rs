//! A real Chromium without a window, driven through its WebDriver: pages, keys, scripts of the test's own, what the page
//! asked of the network, what the browser complained about, and pictures.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use data_encoding::BASE64;
use serde_json::{Value, json};

use super::program::Program;
use super::{fetch, free_port, wait_until};

const REQUEST: Duration = Duration::from_secs(60);
const PATIENCE: Duration = Duration::from_secs(60);
const LIBRARIES: [&str; 3] =
    ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu/pulseaudio"];
/// Kept before any script of a page runs: what the page's policy refused.
const WATCH: &str = "window.refused = [];
    addEventListener('securitypolicyviolation', (event) => refused.push(`${event.violatedDirective} ${event.blockedURI}`));
    addEventListener('error', (event) => refused.push(String(event.message)));
    addEventListener('unhandledrejection', (event) => refused.push(String(event.reason)));";
/// Foreground and background of every piece of text that is shown, as WCAG 2 compares them; those below its level AA.
const UNREADABLE: &str = r#"
    const rgb = (text) => text.match(/[\d.]+/g).map(Number);
    const light = (colour) => {
        const [r, g, b] = colour.map((value) => value / 255).map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const behind = (element) => {
        for (let at = element; at; at = at.parentElement) {
            const colour = rgb(getComputedStyle(at).backgroundColor);
            if (colour.length === 3 || colour[3] === 1) return colour.slice(0, 3);
        }
        return matchMedia('(prefers-color-scheme: dark)').matches ? [18, 18, 18] : [255, 255, 255];
    };
    const found = [];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        const element = walker.currentNode.parentElement;
        const text = walker.currentNode.textContent.trim();
        if (!text || !element.checkVisibility() || element.closest(':disabled')) continue;
        const style = getComputedStyle(element);
        const ink = rgb(element instanceof SVGElement ? style.fill : style.color);
        const [a, b] = [light(ink), light(behind(element))].sort((x, y) => y - x);
        const ratio = (a + 0.05) / (b + 0.05);
        if (ratio < 4.5) found.push(`${ratio.toFixed(2)} ${text.slice(0, 40)}`);
    }
    return found;"#;

pub(crate) const ENTER: char = '\u{e007}';
pub(crate) const ESCAPE: char = '\u{e00c}';
pub(crate) const TAB: char = '\u{e004}';

pub(crate) struct Browser {
    session: String,
    client: ureq::Agent,
    /// Stopped, with the browser, after the session is over.
    _driver: Program,
}

impl Browser {
    pub(crate) fn start() -> Browser {
        let root = fetch::chromium();
        let mut driver = Program::new("Chromium's WebDriver");
        let fonts = driver.write("fonts.conf", &font_settings(&root.join("usr/share/fonts"), driver.folder()));
        let libraries: Vec<String> = LIBRARIES.iter().map(|folder| root.join(folder).display().to_string()).collect();
        let port = free_port();
        driver.start(
            Command::new(root.join("usr/bin/chromedriver"))
                .arg(format!("--port={port}"))
                .env("LD_LIBRARY_PATH", libraries.join(":"))
                .env("FONTCONFIG_FILE", fonts)
                // Profiles and sockets lie where they are taken away again.
                .env("TMPDIR", driver.folder())
                .env("HOME", driver.folder())
                .env("TZ", "UTC"),
        );
        let client =
            ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(REQUEST)).build().into();
        let client: ureq::Agent = client;
        let base = format!("http://127.0.0.1:{port}");
        driver.wait_until("it answers", || {
            client.get(format!("{base}/status")).call().is_ok_and(|answer| answer.status() == 200)
        });
        let capabilities = json!({"capabilities": {"alwaysMatch": {
            "goog:chromeOptions": {
                "binary": root.join("usr/lib/chromium/chromium-headless-shell"),
                // Its sandbox needs rights that a test does not have.
                "args": ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1280,900"],
            },
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
            // A dialog stays open, to be found.
            "unhandledPromptBehavior": "ignore",
        }}});
        let answer = send(client.post(format!("{base}/session")).send_json(capabilities));
        let id = answer["sessionId"].as_str().expect("a session").to_owned();
        let browser = Browser { session: format!("{base}/session/{id}"), client, _driver: driver };
        browser.devtools("Page.addScriptToEvaluateOnNewDocument", json!({ "source": WATCH }));
        browser
    }

    pub(crate) fn open(&self, url: &str) {
        self.post("url", json!({ "url": url }));
    }

    /// The value of a script, given as the body of a function.
    #[track_caller]
    pub(crate) fn value(&self, script: &str) -> Value {
        self.post("execute/sync", json!({"script": script, "args": []}))
    }

    /// The text of the element with this id, hidden or not.
    #[track_caller]
    pub(crate) fn text(&self, id: &str) -> String {
        let text = self.value(&format!("return document.getElementById('{id}').textContent"));
        text.as_str().expect("an element has text").to_owned()
    }

    /// Waits until the expression is true in the page.
    #[track_caller]
    pub(crate) fn wait(&self, expression: &str) {
        wait_until(expression, PATIENCE, || self.value(&format!("return Boolean({expression})")) == true);
    }

    /// Types on the keyboard, wherever the page has its focus.
    pub(crate) fn keys(&self, keys: &str) {
        let strokes = keys.chars().flat_map(|key| [("keyDown", key), ("keyUp", key)]);
        let actions: Vec<Value> =
            strokes.map(|(event, key)| json!({"type": event, "value": key.to_string()})).collect();
        self.post("actions", json!({"actions": [{"type": "key", "id": "keyboard", "actions": actions}]}));
    }

    /// What the reader prefers: `dark` or `light`.
    pub(crate) fn prefer(&self, scheme: &str) {
        let feature = json!({"name": "prefers-color-scheme", "value": scheme});
        self.devtools("Emulation.setEmulatedMedia", json!({ "features": [feature] }));
    }

    /// The screen: a phone's is touched and has a viewport of its own.
    pub(crate) fn screen(&self, (width, height): (u32, u32), phone: bool) {
        let scale = if phone { 2 } else { 1 };
        let metrics = json!({"width": width, "height": height, "deviceScaleFactor": scale, "mobile": phone});
        self.devtools("Emulation.setDeviceMetricsOverride", metrics);
    }

    /// Pieces of text with less contrast than they need, and how far the page is wider than the screen.
    pub(crate) fn unreadable(&self) -> (Value, Value) {
        let wider = self.value("const page = document.documentElement; return page.scrollWidth - page.clientWidth");
        (self.value(UNREADABLE), wider)
    }

    /// What the page's policy refused and which errors it met, since it was opened.
    pub(crate) fn refused(&self) -> Value {
        self.value("return window.refused")
    }

    /// Whether a dialog is open.
    pub(crate) fn has_dialog(&self) -> bool {
        let answer = self.client.get(format!("{}/alert/text", self.session)).call();
        answer.expect("the driver answers").status() == 200
    }

    /// All that was asked of the network since this was called last.
    pub(crate) fn requests(&self) -> Vec<String> {
        let entries = self.log("performance");
        let messages = entries.iter().filter_map(|entry| serde_json::from_str(entry["message"].as_str()?).ok());
        let sent = messages.filter(|one: &Value| one["message"]["method"] == "Network.requestWillBeSent");
        sent.filter_map(|one| Some(one["message"]["params"]["request"]["url"].as_str()?.to_owned())).collect()
    }

    /// What the browser complained about since this was called last.
    pub(crate) fn complaints(&self) -> Vec<String> {
        self.log("browser").iter().filter_map(|entry| Some(entry["message"].as_str()?.to_owned())).collect()
    }

    /// A picture of the screen as `NAME.png` in the folder `TRIAGED_TEST_SCREENSHOTS`; none without it.
    pub(crate) fn picture(&self, name: &str) {
        let Some(folder) = std::env::var_os("TRIAGED_TEST_SCREENSHOTS") else { return };
        let answer = send(self.client.get(format!("{}/screenshot", self.session)).call());
        let picture = BASE64.decode(answer.as_str().expect("a picture").as_bytes()).expect("base 64");
        fs::write(PathBuf::from(folder).join(format!("{name}.png")), picture).expect("the folder can be written");
    }

    fn log(&self, name: &str) -> Vec<Value> {
        self.post("se/log", json!({ "type": name })).as_array().expect("a log").clone()
    }

    fn devtools(&self, command: &str, parameters: Value) {
        self.post("goog/cdp/execute", json!({"cmd": command, "params": parameters}));
    }

    #[track_caller]
    fn post(&self, command: &str, body: Value) -> Value {
        send(self.client.post(format!("{}/{command}", self.session)).send_json(body))
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The driver's end would leave the browser behind.
        self.client.delete(&self.session).call().ok();
    }
}

/// The value of a WebDriver answer. Panics with the driver's own words when it is an error.
#[track_caller]
fn send(answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Value {
    let mut response = answer.expect("the driver answers");
    let body: Value = response.body_mut().with_config().limit(1 << 28).read_json().expect("the answer is JSON");
    assert_eq!(response.status(), 200, "{}", body["value"]["message"]);
    body["value"].clone()
}

fn font_settings(fonts: &std::path::Path, folder: &std::path::Path) -> String {
    format!(
        "<?xml version=\"1.0\"?><!DOCTYPE fontconfig SYSTEM \"fonts.dtd\"><fontconfig><dir>{}</dir><cachedir>{}</cachedir>\
         </fontconfig>",
        fonts.display(),
        folder.join("fonts").display()
    )
}
