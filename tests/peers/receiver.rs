//! Who is told of incidents: an HTTP server and a mail server inside the test's own process, each on a free port. They keep
//! what they were sent; the HTTP server answers as it is told. They end with the process.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Post {
    pub(crate) path: String,
    /// Names in small letters.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Post {
    #[track_caller]
    pub(crate) fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| &**value).unwrap_or_else(|| panic!("{name} is missing in {:?}", self.headers))
    }

    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

/// Takes webhooks.
pub(crate) struct WebhookReceiver {
    port: u16,
    posts: Arc<Mutex<Vec<Post>>>,
}

impl WebhookReceiver {
    /// Answers with these statuses and further headers first, then with 200.
    pub(crate) fn start(first: &[(u16, &'static str)]) -> WebhookReceiver {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let posts = Arc::new(Mutex::new(Vec::new()));
        let (kept, mut answers) = (Arc::clone(&posts), VecDeque::from(first.to_vec()));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let answer = answers.pop_front().unwrap_or((200, ""));
                if let Ok(Some(post)) = receive(&stream, answer) {
                    kept.lock().unwrap_or_else(PoisonError::into_inner).push(post);
                }
            }
        });
        WebhookReceiver { port, posts }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// What has come so far.
    pub(crate) fn posts(&self) -> Vec<Post> {
        self.posts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// One request, after which the connection is closed.
fn receive(mut stream: &TcpStream, (status, header): (u16, &str)) -> std::io::Result<Option<Post>> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let Some(path) = line.split(' ').nth(1).map(str::to_owned) else { return Ok(None) };
    let mut headers = Vec::new();
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 || line.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':') {
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    let length = headers.iter().find(|(name, _)| name == "content-length").and_then(|(_, value)| value.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body)?;
    write!(stream, "HTTP/1.1 {status} x\r\n{header}content-length: 0\r\nconnection: close\r\n\r\n")?;
    Ok(Some(Post { path, headers, body: String::from_utf8_lossy(&body).into_owned() }))
}

/// Takes mail in the clear; each message comes out of the channel, the envelope before it.
pub(crate) fn smtp_server() -> (u16, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("it is bound").port();
    let (mail_tx, mail_rx) = channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mail = stream.and_then(|stream| take_mail(&stream));
            if let Ok(mail) = mail
                && mail_tx.send(mail).is_err()
            {
                return;
            }
        }
    });
    (port, mail_rx)
}

/// One conversation (RFC 5321), as far as a client needs it.
fn take_mail(mut stream: &TcpStream) -> std::io::Result<String> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let mut mail = String::new();
    let mut say = |text: &str| stream.write_all(format!("{text}\r\n").as_bytes());
    say("220 test")?;
    while let Some(line) = lines.next().transpose()? {
        let verb = line.get(..4).unwrap_or_default().to_ascii_uppercase();
        match verb.as_str() {
            "EHLO" => say("250-test\r\n250 8BITMIME")?,
            "DATA" => {
                say("354 go on")?;
                for line in lines.by_ref() {
                    match line? {
                        line if line == "." => break,
                        line => mail.push_str(&(line + "\n")),
                    }
                }
                say("250 taken")?;
            }
            "QUIT" => {
                say("221 bye")?;
                break;
            }
            _ => {
                mail.push_str(&(line + "\n"));
                say("250 ok")?;
            }
        }
    }
    Ok(mail)
}
