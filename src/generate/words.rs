//! The random choices: phrases whose `{placeholders}` are filled with users, addresses, numbers, products and the
//! other things that differ from record to record.

use std::fmt::Write;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const FIRST_NAMES: &[&str] = &[
    "Aino", "Anneli", "Bogdan", "Caitlin", "Davide", "Eleni", "Femke", "Giulia", "Hanna", "Ilse", "Jakub", "Kaja",
    "Lucas", "Maeve", "Nikola", "Oriane", "Pilar", "Rasmus", "Silvia", "Tomasz", "Ursula", "Viktor", "Wim", "Yannick",
    "Zsofia",
];
const LAST_NAMES: &[&str] = &[
    "Aalto", "Becker", "Cardoso", "Dubois", "Eriksson", "Ferrari", "Galanis", "Horvath", "Ivanova", "Janssens",
    "Kovacs", "Lindberg", "Moreau", "Nowak", "Olsen", "Petrov", "Quinn", "Rossi", "Schmidt", "Tamm", "Urban", "Vella",
    "Weber", "Zupan",
];
const INSTITUTIONS: &[(&str, &str)] = &[
    ("Harbour Safety Agency", "harbour-safety"),
    ("Directorate for Digital Services", "digital-services"),
    ("Food Standards Authority", "food-standards"),
    ("Regional Development Bank", "development-bank"),
    ("Court of Audit", "court-audit"),
    ("Railway Interoperability Office", "rail-office"),
    ("Institute for Public Health", "public-health"),
    ("Fisheries Control Agency", "fisheries"),
    ("Data Protection Office", "privacy-office"),
    ("Space Programme Agency", "space-programme"),
    ("Parliamentary Research Service", "parl-research"),
    ("Patent Examination Office", "patents"),
];
const ROLES: &[&str] = &[
    "Security Operations Analyst",
    "Local Security Officer",
    "Head of IT Infrastructure",
    "System Administrator",
    "Deputy Head of Unit",
    "Threat Intelligence Analyst",
    "Procurement Assistant",
    "Application Owner",
    "Network Engineer",
    "Data Protection Coordinator",
];
const DOMAINS: &[&str] = &[
    "login-portal-update",
    "secure-docs-share",
    "invoice-centre",
    "webmail-verify",
    "cdn-static-assets",
    "parcel-tracking-eu",
    "teams-meeting-join",
    "account-recover-now",
    "sync-storage-node",
    "office-quota-alert",
];
const TLDS: &[&str] = &["com", "net", "top", "xyz", "info", "site", "online"];
const PRODUCTS: &[&str] = &[
    "FortiGate SSL-VPN",
    "Ivanti Connect Secure",
    "Apache Struts",
    "Confluence",
    "Exchange Server",
    "Citrix NetScaler",
    "GitLab",
    "Jenkins",
    "WordPress",
    "Drupal",
    "Zimbra",
    "MOVEit Transfer",
    "SharePoint",
    "Keycloak",
    "Nextcloud",
    "Moodle",
];
const MALWARE: &[&str] = &[
    "AgentTesla",
    "RedLine Stealer",
    "Emotet",
    "QakBot",
    "Cobalt Strike",
    "LockBit",
    "AsyncRAT",
    "Lumma Stealer",
    "PlugX",
    "FormBook",
    "IcedID",
    "SocGholish",
];
const ACTORS: &[&str] = &[
    "APT28",
    "APT29",
    "Turla",
    "Mustang Panda",
    "Sandworm",
    "Lazarus",
    "TA505",
    "FIN7",
    "Kimsuky",
    "Ghostwriter",
    "TA571",
];
const TECHNIQUES: &[&str] = &[
    "T1566.001 (Spearphishing Attachment)",
    "T1078 (Valid Accounts)",
    "T1059.001 (PowerShell)",
    "T1110.003 (Password Spraying)",
    "T1021.001 (Remote Desktop)",
    "T1547.001 (Run Keys)",
    "T1071.001 (Web Protocols)",
    "T1003.001 (LSASS Memory)",
];
const SERVICES: &[&str] = &[
    "auth-gateway",
    "payment-api",
    "report-builder",
    "mail-relay",
    "search-index",
    "session-store",
    "ldap-sync",
    "file-share",
    "ticket-api",
    "image-proxy",
];
const HOSTS: &[&str] = &["web", "db", "app", "mail", "proxy", "vpn", "dc", "nas", "k8s-node", "build"];
const PATHS: &[&str] = &[
    "/",
    "/login",
    "/api/v1/users",
    "/api/v2/orders/list",
    "/static/app.js",
    "/index.php",
    "/wp-login.php",
    "/health",
    "/admin/config",
    "/search?q=report",
    "/download/annual.pdf",
    "/api/v1/session",
    "/.env",
    "/owa/auth/logon.aspx",
];
const DIRECTORIES: &[&str] =
    &["/var/log", "/srv/data", "/home/backup", "/opt/app/releases", "/tmp", "/etc/nginx", "/mnt/archive"];
const EXTENSIONS: &[&str] = &["csv", "pdf", "xlsx", "docx", "zip", "json", "txt"];

/// A seeded source of choices.
#[derive(Debug)]
pub(super) struct Words {
    rng: StdRng,
}

impl Words {
    pub(super) fn new(seed: u64) -> Self {
        Words { rng: StdRng::seed_from_u64(seed) }
    }

    pub(super) fn below(&mut self, end: u32) -> u32 {
        self.rng.random_range(0..end)
    }

    /// 0 up to, but without, 1.
    pub(super) fn share(&mut self) -> f64 {
        self.rng.random()
    }

    pub(super) fn chance(&mut self, probability: f64) -> bool {
        self.share() < probability
    }

    pub(super) fn pick<'t, T: ?Sized>(&mut self, list: &[&'t T]) -> &'t T {
        list[self.rng.random_range(0..list.len())]
    }

    pub(super) fn index(&mut self, length: usize) -> usize {
        self.rng.random_range(0..length)
    }

    /// Different members of the list in random order.
    pub(super) fn several<'t>(&mut self, list: &[&'t str], count: usize) -> Vec<&'t str> {
        let mut left = list.to_vec();
        (0..count.min(list.len())).map(|_| left.swap_remove(self.rng.random_range(0..left.len()))).collect()
    }

    pub(super) fn person(&mut self) -> (&'static str, &'static str) {
        (self.pick(FIRST_NAMES), self.pick(LAST_NAMES))
    }

    /// An institution and the name of its domain.
    pub(super) fn institution(&mut self) -> (&'static str, &'static str) {
        INSTITUTIONS[self.index(INSTITUTIONS.len())]
    }

    pub(super) fn role(&mut self) -> &'static str {
        self.pick(ROLES)
    }

    pub(super) fn hex(&mut self, digits: usize, out: &mut String) {
        let mut bits = 0_u64;
        for place in 0..digits {
            if place % 16 == 0 {
                bits = self.rng.random();
            }
            out.push(char::from(b"0123456789abcdef"[(bits & 15) as usize]));
            bits >>= 4;
        }
    }

    /// Appends one phrase of the list.
    pub(super) fn fill_one(&mut self, list: &[&str], out: &mut String) {
        let phrase = self.pick(list);
        self.fill(phrase, out);
    }

    /// Appends the phrase with its placeholders filled. An unknown placeholder stays as it is; a test finds it.
    pub(super) fn fill(&mut self, phrase: &str, out: &mut String) {
        let mut rest = phrase;
        while let Some(start) = rest.find('{') {
            out.push_str(&rest[..start]);
            rest = &rest[start..];
            let Some(end) = rest.find('}') else { break };
            if !self.placeholder(&rest[1..end], out) {
                out.push_str(&rest[..=end]);
            }
            rest = &rest[end + 1..];
        }
        out.push_str(rest);
    }

    fn placeholder(&mut self, name: &str, out: &mut String) -> bool {
        match name {
            "digit" => self.number(1, 10, out),
            "n" => self.number(1, 100, out),
            "id" => self.number(1_000, 10_000, out),
            "pid" => self.number(300, 40_000, out),
            "port" => self.number(1_024, 65_000, out),
            "bytes" => self.number(100, 2_000_000, out),
            "big" => self.number(100_000_000, 2_000_000_000, out),
            "percent" => self.number(71, 100, out),
            "ms" => self.number(2, 4_000, out),
            "seconds" => {
                self.number(0, 3, out);
                out.push('.');
                self.number(1_000_000, 9_999_999, out);
            }
            "version" => {
                for place in 0..3 {
                    if place > 0 {
                        out.push('.');
                    }
                    self.number(0, 12, out);
                }
            }
            "ok" => out.push_str(self.pick(&["200", "200", "200", "200", "201", "204", "304"])),
            "failed" => out.push_str(self.pick(&["400", "401", "403", "404", "404", "404", "500", "502", "503"])),
            "method" => out.push_str(self.pick(&["GET", "GET", "GET", "POST", "PUT", "DELETE"])),
            "hex8" => self.hex(8, out),
            "hex16" => self.hex(16, out),
            "hex32" => self.hex(32, out),
            "sha256" => self.hex(64, out),
            "uuid" => {
                for (place, digits) in [8, 4, 4, 4, 12].into_iter().enumerate() {
                    if place > 0 {
                        out.push('-');
                    }
                    self.hex(digits, out);
                }
            }
            "ip" => self.address(false, out),
            "bad_ip" => self.address(true, out),
            "user" => {
                out.push_str("User");
                self.number(1, 1_000, out);
            }
            "login" => {
                let (first, last) = self.person();
                out.extend(first.chars().take(1).chain(last.chars()).map(|letter| letter.to_ascii_lowercase()));
            }
            "name" => {
                let (first, last) = self.person();
                out.extend([first, " ", last]);
            }
            "host" => {
                out.push_str(self.pick(HOSTS));
                self.number(1, 40, out);
            }
            "service" => out.push_str(self.pick(SERVICES)),
            "url_path" => out.push_str(self.pick(PATHS)),
            "file" => {
                out.push_str("data_");
                self.number(1, 10_000, out);
                out.push('.');
                out.push_str(self.pick(EXTENSIONS));
            }
            "path" => {
                out.extend([self.pick(DIRECTORIES), "/"]);
                self.fill("{file}", out);
            }
            "block" => {
                out.push_str("blk_");
                if self.chance(0.5) {
                    out.push('-');
                }
                write!(out, "{}", self.rng.random_range(1_u64 << 60..1 << 62)).expect("writing to memory");
            }
            "cve" => {
                out.push_str("CVE-202");
                self.number(2, 6, out);
                out.push('-');
                self.number(1_000, 49_999, out);
            }
            "domain" => {
                out.push_str(self.pick(DOMAINS));
                out.push('-');
                self.number(1, 100, out);
                out.extend(["[.]", self.pick(TLDS)]);
            }
            "url" => {
                out.push_str(self.pick(&["hxxps://", "hxxp://"]));
                self.fill("{domain}/{hex8}", out);
            }
            "product" => out.push_str(self.pick(PRODUCTS)),
            "malware" => out.push_str(self.pick(MALWARE)),
            "actor" => out.push_str(self.pick(ACTORS)),
            "technique" => out.push_str(self.pick(TECHNIQUES)),
            "institution" => out.push_str(self.institution().0),
            "weekday" => out.push_str(self.pick(&["Monday", "Tuesday", "Wednesday", "Thursday", "Friday"])),
            _ => return false,
        }
        true
    }

    /// A number from `start` up to, but without, `end`.
    fn number(&mut self, start: u32, end: u32, out: &mut String) {
        write!(out, "{}", self.rng.random_range(start..end)).expect("writing to memory");
    }

    /// A private address, or one of the ranges kept for documentation, written as tickets defang them.
    fn address(&mut self, defanged: bool, out: &mut String) {
        let range = if defanged { ["203.0.113[.]", "198.51.100[.]"] } else { ["10.20.3.", "192.168.17."] };
        out.push_str(self.pick(&range));
        self.number(1, 255, out);
    }
}
