//! Log lines: what the applications write, how often, in which format, and which category is right.

use super::words::Words;

/// How an application writes its lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Json,
    Plain,
    Rfc3164,
    Rfc5424,
    Cef,
}

/// One kind of line.
#[derive(Debug)]
pub(super) struct Line {
    /// The category that is right; `None` where nobody could tell.
    pub(super) category: Option<&'static str>,
    /// Syslog severity, 0 to 7.
    pub(super) severity: u8,
    pub(super) phrase: &'static str,
}

/// A program that logs.
#[derive(Debug)]
pub(super) struct Application {
    pub(super) name: &'static str,
    pub(super) shape: Shape,
    /// How often it writes, in proportion to the others.
    weight: u32,
    lines: &'static [Line],
}

const fn line(category: &'static str, severity: u8, phrase: &'static str) -> Line {
    Line { category: Some(category), severity, phrase }
}

const fn noise(severity: u8, phrase: &'static str) -> Line {
    Line { category: None, severity, phrase }
}

const HTTP: &str = "HTTP Status";
const SECURITY: &str = "Security Alert";
const SYSTEM: &str = "System Notification";
const ERROR: &str = "Error";
const CRITICAL: &str = "Critical Error";
const RESOURCE: &str = "Resource Usage";
const USER: &str = "User Action";
const WORKFLOW: &str = "Workflow Error";
const DEPRECATION: &str = "Deprecation Warning";

/// Business applications: JSON lines, mixed.
const BUSINESS: &[Line] = &[
    line(
        HTTP,
        6,
        "nova.osapi_compute.wsgi.server [req-{uuid} {hex32} {hex32} - - -] {ip} \"GET /v2/{hex32}/servers/detail HTTP/1.1\" status: {ok} len: {bytes} time: {seconds}",
    ),
    line(HTTP, 6, "{ip} \"{method} {url_path} HTTP/1.1\" status: {ok} len: {bytes} time: {seconds}"),
    line(HTTP, 4, "{ip} \"{method} {url_path} HTTP/1.1\" Return code: {failed} len: {bytes} time: {seconds}"),
    line(HTTP, 6, "{service} answered \"{method} {url_path}\" with HTTP status code {ok} in {ms} ms"),
    line(SYSTEM, 6, "Backup started at 2025-0{digit}-1{digit} 0{digit}:2{digit}:1{digit}."),
    line(SYSTEM, 6, "Backup ended at 2025-0{digit}-1{digit} 0{digit}:2{digit}:1{digit}."),
    line(SYSTEM, 6, "Backup completed successfully."),
    line(SYSTEM, 6, "System updated to version {version}."),
    line(SYSTEM, 6, "File {file} uploaded successfully by user {user}."),
    line(SYSTEM, 6, "Disk cleanup completed successfully."),
    line(SYSTEM, 5, "System reboot initiated by user {user}."),
    line(USER, 6, "User {user} logged in."),
    line(USER, 6, "User {user} logged out."),
    line(USER, 5, "Account with ID {id} created by {user}."),
    line(
        RESOURCE,
        6,
        "nova.compute.claims [req-{uuid} {hex32} {hex32} - - -] [instance: {uuid}] memory limit: {id}.00 MB, free: {id}.00 MB",
    ),
    line(
        RESOURCE,
        6,
        "nova.compute.claims [req-{uuid} {hex32} {hex32} - - -] [instance: {uuid}] Total disk: {n} GB, used: {n}.00 GB",
    ),
    line(RESOURCE, 4, "Memory usage of {service} at {percent} percent, {n} GB of {id} GB used"),
    line(SECURITY, 4, "Multiple failed login attempts detected for user {id}"),
    line(SECURITY, 3, "Unauthorized access to restricted data was attempted by user {id}"),
    line(SECURITY, 3, "Privilege escalation detected for user {id} on server {n}"),
    line(SECURITY, 4, "Suspicious traffic from IP {ip} flagged for review"),
    line(ERROR, 3, "Data replication to shard {n} failed after {digit} attempts"),
    line(ERROR, 3, "Server {n} restarted unexpectedly during data migration"),
    line(ERROR, 3, "Input of module {service} was rejected: invalid format in field {digit}"),
    line(CRITICAL, 2, "Multiple disk failures detected in RAID array {digit}"),
    line(CRITICAL, 1, "Critical system component failed: component ID Component{n}"),
    line(CRITICAL, 2, "Email service is down: sending failed for all recipients"),
];

const LEGACY: &[Line] = &[
    line(WORKFLOW, 3, "Lead conversion failed for prospect ID {id} because contact information is missing."),
    line(WORKFLOW, 3, "Escalation rule could not be executed for ticket ID {id} - undefined escalation level."),
    line(WORKFLOW, 4, "Task assignment for case {id} did not complete: no agent available."),
    line(DEPRECATION, 4, "API endpoint 'getCustomer{digit}' is deprecated and will be removed in version {version}."),
    line(DEPRECATION, 4, "The 'BulkEmailSender' feature will be discontinued. Use 'EmailCampaignManager' instead."),
];

const SSH: &[Line] = &[
    line(SECURITY, 4, "Failed password for invalid user {login} from {ip} port {port} ssh2"),
    line(SECURITY, 4, "Failed password for root from {ip} port {port} ssh2"),
    line(
        SECURITY,
        4,
        "pam_unix(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh ruser= rhost={ip}  user=root",
    ),
    line(USER, 6, "Accepted publickey for {login} from {ip} port {port} ssh2: ED25519 SHA256:{hex32}"),
    line(USER, 6, "pam_unix(sshd:session): session opened for user {login}(uid={id}) by (uid=0)"),
    line(USER, 6, "Disconnected from user {login} {ip} port {port}"),
];

const SUDO: &[Line] = &[
    line(
        USER,
        5,
        "{login} : TTY=pts/{digit} ; PWD=/home/{login} ; USER=root ; COMMAND=/usr/bin/systemctl restart {service}",
    ),
    line(
        SECURITY,
        1,
        "{login} : 3 incorrect password attempts ; TTY=pts/{digit} ; PWD=/home/{login} ; USER=root ; COMMAND=/bin/bash",
    ),
    line(
        SECURITY,
        1,
        "{login} : user NOT in sudoers ; TTY=pts/{digit} ; PWD=/tmp ; USER=root ; COMMAND=/usr/bin/cat /etc/shadow",
    ),
];

const WEB: &[Line] = &[
    line(
        HTTP,
        6,
        "{ip} - - \"{method} {url_path} HTTP/1.1\" {ok} {bytes} \"-\" \"Mozilla/5.0 (X11; Linux x86_64)\" {seconds}",
    ),
    line(HTTP, 6, "{ip} - {login} \"{method} {url_path} HTTP/2.0\" {ok} {bytes} \"-\" \"curl/8.{n}\" {seconds}"),
    line(
        HTTP,
        4,
        "{ip} - - \"{method} {url_path} HTTP/1.1\" {failed} {bytes} \"-\" \"Mozilla/5.0 (Windows NT 10.0)\" {seconds}",
    ),
];

const KERNEL: &[Line] = &[
    line(CRITICAL, 2, "EXT4-fs error (device sda{digit}): ext4_find_entry: reading directory inode #{id}: offset {n}"),
    line(RESOURCE, 4, "Out of memory: killed process {pid} ({service}) total-vm:{big}kB, anon-rss:{bytes}kB"),
    line(RESOURCE, 4, "disk usage on /dev/sda{digit} is {percent} percent, {n} GB free"),
    noise(6, "usb {digit}-{digit}: new high-speed USB device number {n} using xhci_hcd"),
];

const STORAGE: &[Line] = &[
    noise(6, "INFO dfs.DataNode$PacketResponder: PacketResponder {digit} for block {block} terminating"),
    noise(
        6,
        "INFO dfs.FSNamesystem: BLOCK* NameSystem.addStoredBlock: blockMap updated: {ip}:50010 is added to {block} size {bytes}",
    ),
    noise(6, "INFO dfs.DataNode$DataXceiver: Receiving block {block} src: /{ip}:{port} dest: /{ip}:50010"),
    noise(4, "WARN dfs.DataNode$DataXceiver: {ip}:50010:Got exception while serving {block} to /{ip}:"),
];

const COMPUTE: &[Line] = &[
    noise(
        6,
        "INFO executor.Executor: Finished task {n}.0 in stage {n}.0 (TID {id}). {bytes} bytes result sent to driver",
    ),
    noise(
        6,
        "INFO storage.MemoryStore: Block broadcast_{n} stored as values in memory (estimated size {n}.{digit} KB, free {n}.{digit} MB)",
    ),
    noise(6, "INFO spark.MapOutputTrackerWorker: Doing the fetch; tracker endpoint = NettyRpcEndpointRef({ip}:{port})"),
    line(
        ERROR,
        3,
        "ERROR executor.Executor: Exception in task {n}.0 in stage {n}.0 (TID {id}): java.io.IOException: connection reset",
    ),
];

/// CEF: the signature, the name, and the extension, separated by `|`.
const SENSOR: &[Line] = &[
    line(
        SECURITY,
        2,
        "100|Malware detected|src={ip} dst={ip} fname={file} fileHash={sha256} act=quarantined msg=Malware {malware} found in {path}",
    ),
    line(
        SECURITY,
        3,
        "210|Port scan detected|src={ip} dst={ip} dpt={port} proto=TCP act=blocked msg=Scan of {id} ports within {n} seconds",
    ),
    line(
        SECURITY,
        4,
        "305|Brute force login|src={ip} dhost={host} duser={login} outcome=failure msg=Multiple failed login attempts detected for user {login}",
    ),
    line(
        SECURITY,
        4,
        "410|Connection to known command and control server|src={ip} dst=203.0.113.{n} dpt=443 act=blocked",
    ),
];

/// Devices that no model has seen.
pub(super) const UNKNOWN: &[Line] = &[
    noise(6, "espresso unit {digit}: descaling due in {n} cups, bean hopper at {percent}"),
    noise(6, "turbine {n} yaw {n} deg, pitch {digit} deg, wind {digit}.{digit} m/s"),
    noise(6, "Kammer {digit}: Ventil {n} geschlossen, Druck {id} hPa"),
    noise(5, "aquarium pH {digit}.{digit} nitrate {n} ppm feeding skipped"),
    noise(6, "move {n}: rook takes on file {digit}, evaluation +0.{n}, depth {n}"),
    noise(6, "lift {digit} door obstructed at floor {digit}, retry {digit}"),
];

pub(super) const APPLICATIONS: &[Application] = &[
    Application { name: "ModernCRM", shape: Shape::Json, weight: 9, lines: BUSINESS },
    Application { name: "BillingSystem", shape: Shape::Json, weight: 9, lines: BUSINESS },
    Application { name: "AnalyticsEngine", shape: Shape::Json, weight: 9, lines: BUSINESS },
    Application { name: "ModernHR", shape: Shape::Json, weight: 9, lines: BUSINESS },
    Application { name: "ThirdPartyAPI", shape: Shape::Json, weight: 9, lines: BUSINESS },
    Application { name: "LegacyCRM", shape: Shape::Json, weight: 1, lines: LEGACY },
    Application { name: "nginx", shape: Shape::Rfc5424, weight: 15, lines: WEB },
    Application { name: "sshd", shape: Shape::Rfc3164, weight: 12, lines: SSH },
    Application { name: "sudo", shape: Shape::Rfc3164, weight: 3, lines: SUDO },
    Application { name: "kernel", shape: Shape::Rfc3164, weight: 4, lines: KERNEL },
    Application { name: "hdfs", shape: Shape::Plain, weight: 8, lines: STORAGE },
    Application { name: "spark", shape: Shape::Plain, weight: 7, lines: COMPUTE },
    Application { name: "Gatewatch", shape: Shape::Cef, weight: 5, lines: SENSOR },
];

/// Which application writes next, in proportion to the weights.
pub(super) fn pick(words: &mut Words) -> (&'static Application, &'static Line) {
    const TOTAL: u32 = {
        let (mut total, mut index) = (0, 0);
        while index < APPLICATIONS.len() {
            total += APPLICATIONS[index].weight;
            index += 1;
        }
        total
    };
    let mut left = words.below(TOTAL);
    let application = APPLICATIONS
        .iter()
        .find(|application| {
            let hit = left < application.weight;
            left = left.saturating_sub(application.weight);
            hit
        })
        .expect("the weights add up to the total");
    (application, &application.lines[words.index(application.lines.len())])
}
