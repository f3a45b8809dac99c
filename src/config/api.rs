//! `[api]`: who may call, how often, and over what kind of connection.

use std::path::PathBuf;
use std::time::Duration;

use super::checked::parse_listen;
use super::reader::Section;
use super::settings::{ApiSettings, RateSettings, TlsSettings};

const SECOND: Duration = Duration::from_secs(1);
/// A request that takes longer belongs into an upload, which may take as long as it moves.
const LONGEST_REQUEST: Duration = Duration::from_secs(600);
const MOST_A_SECOND: usize = 1_000_000;

pub(super) fn read_api(section: &mut Section<'_>) -> ApiSettings {
    let settings = ApiSettings {
        listen: section.parsed("listen", None, parse_listen),
        keys_file: read_path(section, "keys_file"),
        key_rate: read_rate(section, "key_rate", "key_burst"),
        address_rate: read_rate(section, "address_rate", "address_burst"),
        connections: section.count("connections", 1..=100_000),
        max_body: section.size("max_body", 1024..=(256 << 20)),
        max_upload: section.size("max_upload", 1024..=(1 << 40)),
        request_timeout: section.duration("request_timeout", SECOND..=LONGEST_REQUEST),
        cors_origins: read_origins(section),
        tls: section.table("tls", read_tls),
    };
    if settings.listen.is_some_and(|address| !address.ip().is_loopback()) && settings.keys_file.is_none() {
        section.ledger().conflict(
            (
                "api.listen",
                "must be a loopback address as long as api.keys_file is empty: anybody could do everything; set it and \
                 run `triaged keys create --role admin`"
                    .to_owned(),
            ),
            ("api.keys_file", "must not be empty when others can reach api.listen".to_owned()),
        );
    }
    settings
}

fn read_rate(section: &mut Section<'_>, per_second: &'static str, burst: &'static str) -> RateSettings {
    RateSettings {
        per_second: section.count(per_second, 0..=MOST_A_SECOND) as u32,
        burst: section.count(burst, 1..=MOST_A_SECOND) as u32,
    }
}

/// A path relative to the file that names it; empty is none.
fn read_path(section: &mut Section<'_>, key: &'static str) -> Option<PathBuf> {
    section.read(key, None, |node| match node.as_text()?.trim() {
        "" => Ok(None),
        path => Ok(Some(node.origin.resolve(path))),
    })
}

fn read_origins(section: &mut Section<'_>) -> Vec<String> {
    let mut origins = Vec::new();
    for (_, text) in section.list("cors_origins") {
        let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).unwrap_or_default();
        if host.is_empty() || !host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte)) {
            section.fault("cors_origins", format!("{text:?}: expected an origin such as \"https://desk.example.org\""));
        }
        origins.push(text);
    }
    origins
}

fn read_tls(section: &mut Section<'_>) -> Option<TlsSettings> {
    let [certificate, key, client_ca] = ["certificate", "key", "client_ca"].map(|key| read_path(section, key));
    match (certificate, key) {
        (Some(certificate), Some(key)) => return Some(TlsSettings { certificate, key, client_ca }),
        (Some(_), None) => section.fault("certificate", "needs api.tls.key as well"),
        (None, Some(_)) => section.fault("key", "needs api.tls.certificate as well"),
        (None, None) if client_ca.is_some() => {
            section.fault("client_ca", "needs api.tls.certificate and api.tls.key as well");
        }
        (None, None) => {}
    }
    None
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    fn faults(text: &str) -> String {
        Config::from_toml(text).expect_err("this configuration is wrong").to_string()
    }

    #[test]
    fn who_opens_it_to_others_needs_keys() {
        for address in ["0.0.0.0:9465", "[::]:9465", "192.0.2.1:80"] {
            let open = format!("[api]\nlisten = \"{address}\"\n");
            assert!(faults(&open).contains("triaged keys create --role admin"), "{address}");
            assert!(Config::from_toml(&format!("{open}keys_file = \"keys.json\"")).is_ok());
        }
        assert!(Config::from_toml("[api]\nlisten = \"[::1]:9465\"").is_ok());
        assert!(Config::from_toml("[api]\nlisten = \"\"").unwrap().api.listen.is_none());
    }

    #[test]
    fn half_of_tls_is_a_fault() {
        assert!(Config::from_toml("").unwrap().api.tls.is_none());
        assert!(faults("[api.tls]\ncertificate = \"a.pem\"").contains("needs api.tls.key as well"));
        assert!(faults("[api.tls]\nclient_ca = \"a.pem\"").contains("needs api.tls.certificate and api.tls.key"));
        let tls = Config::from_toml("[api.tls]\ncertificate = \"a.pem\"\nkey = \"b.pem\"").unwrap().api.tls.unwrap();
        assert_eq!((tls.certificate.to_str(), tls.client_ca), (Some("a.pem"), None));
    }

    #[test]
    fn an_origin_is_a_scheme_and_a_host() {
        assert!(Config::from_toml("[api]\ncors_origins = [\"http://localhost:3000\"]").is_ok());
        for wrong in ["*", "desk.example.org", "https://a.example/path"] {
            assert!(faults(&format!("[api]\ncors_origins = [\"{wrong}\"]")).contains("expected an origin"), "{wrong}");
        }
    }
}
