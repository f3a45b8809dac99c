//! TLS, and callers who show a certificate.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::server::Api;
use crate::peers::daemon::triaged;

/// Writes `NAME.pem` and `NAME.key`, signed by an authority that is written as `AUTHORITY.pem`.
fn write_certificates(folder: &Path, authority: &str, names: &[&str]) {
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key");
    let issuer = CertifiedIssuer::self_signed(params, key).expect("an authority");
    let write = |file: String, text: String| std::fs::write(folder.join(file), text).expect("it can be written");
    write(format!("{authority}.pem"), issuer.pem());
    for name in names {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
        let certificate = params.signed_by(&key, &issuer).expect("it signs");
        write(format!("{name}.pem"), certificate.pem());
        write(format!("{name}.key"), key.serialize_pem());
    }
}

/// GET over TLS, trusting `ca.pem`, with the certificate of `client` if there is one; the whole answer.
fn get(api: &Api, path: &str, client: Option<&str>) -> std::io::Result<String> {
    let file = |name: &str| api.folder.path().join(name);
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(file("ca.pem")).expect("it was written")).expect("an authority");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.expect("the provider knows them").with_root_certificates(roots);
    let config = match client {
        None => builder.with_no_client_auth(),
        Some(name) => {
            let chain = vec![CertificateDer::from_pem_file(file(&format!("{name}.pem"))).expect("it was written")];
            let key = PrivateKeyDer::from_pem_file(file(&format!("{name}.key"))).expect("it was written");
            builder.with_client_auth_cert(chain, key).expect("they belong together")
        }
    };
    let name = ServerName::try_from("localhost").expect("a name");
    let connection = ClientConnection::new(Arc::new(config), name).expect("a configuration");
    let mut stream = StreamOwned::new(connection, TcpStream::connect(api.address)?);
    write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn settings(folder: &Path, client_ca: &str) -> String {
    let file = |name: &str| folder.join(name);
    let ca = if client_ca.is_empty() { String::new() } else { format!("client_ca = {:?}\n", file(client_ca)) };
    format!("[api.tls]\ncertificate = {:?}\nkey = {:?}\n{ca}", file("server.pem"), file("server.key"))
}

#[test]
fn it_speaks_tls_and_nothing_else() {
    let api = Api::start_with(|folder| {
        write_certificates(folder, "ca", &["server"]);
        settings(folder, "")
    });
    let answer = get(&api, "/v1/models", None).expect("it answers");
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("tickets@"), "{answer}");
    let mut plain = TcpStream::connect(api.address).expect("it listens");
    plain.write_all(b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\n\r\n").expect("it is sent");
    let mut answer = Vec::new();
    plain.read_to_end(&mut answer).ok();
    assert!(!String::from_utf8_lossy(&answer).contains("HTTP/1.1 200"), "{answer:?}");
}

#[test]
fn with_a_client_ca_only_its_clients_are_let_in() {
    let api = Api::start_with(|folder| {
        write_certificates(folder, "ca", &["server"]);
        write_certificates(folder, "clients", &["known"]);
        write_certificates(folder, "others", &["unknown"]);
        settings(folder, "clients.pem")
    });
    let answer = get(&api, "/v1/models", Some("known")).expect("it answers");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    for client in [None, Some("unknown")] {
        assert!(get(&api, "/v1/models", client).is_err(), "{client:?} is let in");
    }
}

#[test]
fn a_certificate_that_cannot_be_used_stops_the_start_with_its_place() {
    let folder = tempfile::tempdir().expect("the system has a temporary folder");
    let config = folder.path().join("triaged.toml");
    let text = "[kafka]\nbrokers = \"127.0.0.1:1\"\n[ops]\nlisten = \"127.0.0.1:0\"\n[api]\nlisten = \"127.0.0.1:0\"\n\
                [api.tls]\ncertificate = \"server.pem\"\nkey = \"server.key\"\n";
    std::fs::write(&config, text).expect("it can be written");
    let output = triaged(&["run", "--role", "classify", "--config", config.to_str().expect("a plain path")]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.code() == Some(1) && said.contains("server.pem") && said.contains("api.tls.certificate"),
        "{said}"
    );
}

#[test]
fn others_are_not_let_in_before_there_is_a_key() {
    let folder = tempfile::tempdir().expect("the system has a temporary folder");
    let config = folder.path().join("triaged.toml");
    let run = |text: &str| {
        let text = format!(
            "[kafka]\nbrokers = \"127.0.0.1:1\"\n[ops]\nlisten = \"127.0.0.1:0\"\n[api]\nlisten = \"0.0.0.0:0\"\n{text}"
        );
        std::fs::write(&config, text).expect("it can be written");
        let output = triaged(&["run", "--role", "classify", "--config", config.to_str().expect("a plain path")]);
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for (text, code) in [("", 2), ("keys_file = \"keys.json\"\n", 1)] {
        let (found, said) = run(text);
        assert_eq!(found, Some(code), "{said}");
        assert!(said.contains("triaged keys create --role admin"), "{said}");
    }
}
