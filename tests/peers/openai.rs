//! An OpenAI-compatible server inside the test's own process, on a free port: it answers as it is told, keeps what it
//! was asked, and makes the faults that real servers make. Stopped when its value is dropped.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

/// Between the bytes of a trickle.
const TRICKLE: Duration = Duration::from_millis(10);

/// What the server does with a request.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    /// A good answer with this label and confidence.
    Answer(&'static str, f64),
    /// An answer in which the model wrote this.
    Content(String),
    /// A model that believes all that a text says: takes the last known label that the text names, with certainty.
    Gullible,
    /// Status 200 with this body.
    Body(String),
    Status {
        status: u16,
        headers: Vec<(&'static str, String)>,
        body: String,
    },
    /// Waits for `release`, then answers with this label.
    Held(&'static str),
    /// Never answers.
    Hang,
    /// A whole response whose JSON ends in its middle.
    Truncated,
    /// Closes the connection within the body.
    CloseMidBody,
    /// Closes the connection without a word.
    CloseAtOnce,
    /// Blanks for ever, one at a time: valid JSON so far.
    Trickle,
    /// More than anybody should read.
    Huge,
}

impl Reply {
    pub(crate) fn status(status: u16) -> Reply {
        Reply::Status { status, headers: vec![], body: r#"{"error":{"message":"secret ticket words"}}"#.to_owned() }
    }

    pub(crate) fn rate_limited(header: &'static str, value: &str) -> Reply {
        let body = r#"{"error":{"message":"Rate limit","type":"requests","code":"rate_limit_exceeded"}}"#.to_owned();
        Reply::Status { status: 429, headers: vec![(header, value.to_owned())], body }
    }

    pub(crate) fn out_of_quota() -> Reply {
        let body = json!({ "error": { "message": "You exceeded your current quota", "type": "insufficient_quota" } });
        Reply::Status { status: 429, headers: vec![], body: body.to_string() }
    }
}

/// What the server was asked.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    /// With the query.
    pub(crate) path: String,
    /// Names in small letters.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Value,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// What stands between the markers of the last user message.
    pub(crate) fn data(&self) -> String {
        let messages = self.body["messages"].as_array().expect("a request has messages");
        let last = messages.last().and_then(|message| message["content"].as_str()).expect("a message has a text");
        let (marker, rest) = last.split_once('\n').expect("the marker is a line");
        let (data, _) = rest.rsplit_once(&format!("\n{marker}\n")).expect("the marker stands there twice");
        data.to_owned()
    }

    fn labels(&self) -> Vec<String> {
        let names = &self.body["response_format"]["json_schema"]["schema"]["properties"]["label"]["enum"];
        names.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    }
}

#[derive(Default)]
struct State {
    next: Mutex<VecDeque<Reply>>,
    always: Mutex<Option<Reply>>,
    requests: Mutex<Vec<Request>>,
    connections: Mutex<Vec<TcpStream>>,
    released: Mutex<bool>,
    release: Condvar,
    in_flight: AtomicUsize,
    most_in_flight: AtomicUsize,
    stopping: AtomicBool,
}

pub(crate) struct OpenAi {
    address: SocketAddr,
    state: Arc<State>,
}

impl OpenAi {
    /// A server that answers in this way where `next` says nothing else.
    pub(crate) fn start(always: Reply) -> OpenAi {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let state = Arc::new(State { always: Mutex::new(Some(always)), ..State::default() });
        let accepting = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming() {
                if accepting.stopping.load(Ordering::SeqCst) {
                    break;
                }
                let Ok(stream) = stream else { continue };
                if let Ok(copy) = stream.try_clone() {
                    lock(&accepting.connections).push(copy);
                }
                let state = Arc::clone(&accepting);
                thread::spawn(move || serve(stream, &state));
            }
        });
        OpenAi { address, state }
    }

    /// What a plain server's base URL is.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    pub(crate) fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The next requests are answered so, one each.
    pub(crate) fn next(&self, replies: impl IntoIterator<Item = Reply>) {
        lock(&self.state.next).extend(replies);
    }

    /// All other requests are answered so from now on.
    pub(crate) fn always(&self, reply: Reply) {
        *lock(&self.state.always) = Some(reply);
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        lock(&self.state.requests).clone()
    }

    pub(crate) fn asked(&self) -> usize {
        lock(&self.state.requests).len()
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.state.in_flight.load(Ordering::SeqCst)
    }

    pub(crate) fn most_in_flight(&self) -> usize {
        self.state.most_in_flight.load(Ordering::SeqCst)
    }

    /// Lets all held answers go, and those to come.
    pub(crate) fn release(&self) {
        *lock(&self.state.released) = true;
        self.state.release.notify_all();
    }
}

impl Drop for OpenAi {
    fn drop(&mut self) {
        self.state.stopping.store(true, Ordering::SeqCst);
        self.release();
        for connection in lock(&self.state.connections).drain(..) {
            connection.shutdown(Shutdown::Both).ok();
        }
        // Wakes the thread that accepts.
        TcpStream::connect(self.address).ok();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Answers requests of one connection until either side closes it.
fn serve(stream: TcpStream, state: &State) {
    let mut writer = stream.try_clone().expect("a connection can be copied");
    let mut reader = BufReader::new(stream);
    while let Some(request) = read_request(&mut reader) {
        let now = state.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
        state.most_in_flight.fetch_max(now, Ordering::SeqCst);
        lock(&state.requests).push(request.clone());
        let reply = lock(&state.next).pop_front().or_else(|| lock(&state.always).clone()).expect("there is one");
        let goes_on = answer(&reply, &request, state, &mut reader, &mut writer);
        state.in_flight.fetch_sub(1, Ordering::SeqCst);
        if !goes_on {
            break;
        }
    }
    writer.shutdown(Shutdown::Both).ok();
}

fn read_request(reader: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let path = line.split(' ').nth(1)?.to_owned();
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.push((name.to_lowercase(), value.trim().to_owned()));
    }
    let length = headers.iter().find(|(name, _)| name == "content-length")?.1.parse().ok()?;
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Request { path, headers, body: serde_json::from_slice(&body).expect("a request is JSON") })
}

/// Whether the connection stays open.
fn answer(
    reply: &Reply,
    request: &Request,
    state: &State,
    reader: &mut BufReader<TcpStream>,
    writer: &mut TcpStream,
) -> bool {
    let answer = |label: &str, confidence: f64| {
        let content = json!({ "reason": "because", "label": label, "confidence": confidence });
        completion(&content.to_string())
    };
    match reply {
        Reply::Answer(label, confidence) => respond(writer, 200, &[], &answer(label, *confidence)),
        Reply::Content(content) => respond(writer, 200, &[], &completion(content)),
        Reply::Gullible => respond(writer, 200, &[], &completion(&obey(request))),
        Reply::Body(body) => respond(writer, 200, &[], body),
        Reply::Status { status, headers, body } => respond(writer, *status, headers, body),
        Reply::Held(label) => {
            let held = lock(&state.released);
            let held = state.release.wait_while(held, |released| !*released);
            drop(held);
            respond(writer, 200, &[], &answer(label, 0.9))
        }
        // Until the other side gives up.
        Reply::Hang => reader.read(&mut [0]).is_ok_and(|_| false),
        Reply::Truncated => {
            let whole = answer("VPN", 0.9);
            respond(writer, 200, &[], &whole[..whole.len() / 2])
        }
        Reply::CloseMidBody => {
            let whole = answer("VPN", 0.9);
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", whole.len());
            writer.write_all(format!("{head}{}", &whole[..whole.len() / 2]).as_bytes()).is_ok_and(|()| false)
        }
        Reply::CloseAtOnce => false,
        Reply::Trickle => {
            let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
            let mut open = writer.write_all(head.as_bytes()).is_ok();
            while open && !state.stopping.load(Ordering::SeqCst) {
                thread::sleep(TRICKLE);
                open = writer.write_all(b"1\r\n \r\n").is_ok();
            }
            false
        }
        Reply::Huge => {
            let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
            let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x10000));
            let mut open = writer.write_all(head.as_bytes()).is_ok();
            while open && !state.stopping.load(Ordering::SeqCst) {
                open = writer.write_all(chunk.as_bytes()).is_ok();
            }
            false
        }
    }
}

fn respond(writer: &mut TcpStream, status: u16, headers: &[(&str, String)], body: &str) -> bool {
    let mut head =
        format!("HTTP/1.1 {status} Because\r\ncontent-type: application/json\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    writer.write_all(format!("{head}\r\n{body}").as_bytes()).is_ok()
}

fn completion(content: &str) -> String {
    json!({
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "choices": [{ "index": 0, "finish_reason": "stop", "message": { "role": "assistant", "content": content } }],
        "usage": { "prompt_tokens": 200, "completion_tokens": 20, "total_tokens": 220 },
    })
    .to_string()
}

/// What a model writes that obeys whatever the data say.
fn obey(request: &Request) -> String {
    let data = request.data().to_lowercase();
    if data.contains("system prompt") {
        return request.body["messages"][0]["content"].as_str().unwrap_or_default().to_owned();
    }
    let mut named = request.labels();
    named.push("root-access".to_owned());
    let last = named.iter().filter_map(|label| data.rfind(&label.to_lowercase()).map(|at| (at, label))).max();
    let label = last.map_or(named[0].as_str(), |(_, label)| label);
    json!({ "reason": "as I was told", "label": label, "confidence": 1.0 }).to_string()
}
