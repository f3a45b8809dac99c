//! The log lines of the bench: what an estate of servers and applications writes, about 110 bytes each, the same for
//! the same seed.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Each `{u}` becomes a user, `{n}` a number, `{i}` an address, `{h}` a host, `{x}` a hash.
const TEMPLATES: &[&str] = &[
    "nova.osapi_compute.wsgi.server [req-{x}] {i} \"GET /v2/servers/detail HTTP/1.1\" status: 200 len: {n} time: 0.{n}",
    "nova.osapi_compute.wsgi.server [req-{x}] {i} \"POST /v2/os-server-external-events HTTP/1.1\" RCODE 404 len: {n}",
    "sshd[{n}]: Failed password for invalid user {u} from {i} port {n} ssh2; {n} attempts in the last 60 seconds on {h}",
    "sshd[{n}]: Accepted publickey for {u} from {i} port {n} ssh2: RSA SHA256:{x}; session opened on {h} tty {n}",
    "User {u} logged in from workstation {h} at {i}; session {x} opened with two-factor authentication, attempt {n}",
    "Backup completed successfully: volume {x} of host {h} written to archive store in {n} s, {n} MB, no errors found",
    "System reboot initiated by user {u} on host {h} after kernel update {n}; expected downtime below {n} seconds, id {x}",
    "File data_{n}.csv uploaded successfully by user {u} from {i}, {n} bytes, checksum {x}, stored on host {h}",
    "Disk cleanup completed successfully on host {h}: removed {n} files and freed {n} MB below /var/cache/app-{n}/tmp",
    "Account with ID {n} created by {u} in realm staff; mail verification {x} sent, request came from address {i}",
    "kernel: [UFW BLOCK] IN=eth0 OUT= SRC={i} DST={i} LEN={n} TOS=0x00 TTL=54 ID={n} PROTO=TCP SPT={n} DPT=22 WINDOW={n}",
    "Escalation rule execution failed for ticket ID {n} - undefined escalation level; workflow {x} stopped on host {h}",
    "API endpoint 'getCustomerDetails' is deprecated and will be removed in version 3.{n}. Caller {u} from {i} was warned",
    "Memory usage on host {h} is at {n} % of 64 GB; the process app-{n} of user {u} holds the largest part, trend rising",
    "Critical element of the boot sequence was compromised on host {h}: partition table entry {n} failed checksum {x}",
    "Unauthorised access to resource /admin/export/{n} was attempted by user {u} from {i}; request {x} was turned away",
];
const USERS: &[&str] = &["alice", "bob", "carol.dupont", "deploy", "e.muster", "root", "svc-backup", "User482"];

pub(crate) fn mix(seed: u64) -> impl Iterator<Item = String> {
    let mut rng = StdRng::seed_from_u64(seed);
    std::iter::repeat_with(move || line(&mut rng))
}

fn line(rng: &mut StdRng) -> String {
    let mut rest = TEMPLATES[rng.random_range(0..TEMPLATES.len())];
    let mut line = String::with_capacity(160);
    while let Some((text, tail)) = rest.split_once('{') {
        line.push_str(text);
        match tail.as_bytes()[0] {
            b'u' => line.push_str(USERS[rng.random_range(0..USERS.len())]),
            b'i' => {
                let [a, b, c, d]: [u8; 4] = rng.random();
                line.push_str(&format!("{a}.{b}.{c}.{d}"));
            }
            b'h' => line.push_str(&format!("web-{:02}.example.net", rng.random_range(0..40))),
            b'x' => line.push_str(&format!("{:08x}", rng.random::<u32>())),
            _ => line.push_str(&rng.random_range(1..10_000).to_string()),
        }
        rest = &tail[2..];
    }
    line + rest
}
