//! Tickets as the mailbox of a CERT gets them: seven queues, each with its own openings, details and requests.

use super::words::Words;

/// What the tickets of one queue are composed of.
#[derive(Debug)]
pub(super) struct Queue {
    pub(super) name: &'static str,
    /// How often it occurs, in proportion to the others.
    weight: u32,
    addressee: &'static str,
    titles: &'static [&'static str],
    openings: &'static [&'static str],
    details: &'static [&'static str],
    requests: &'static [&'static str],
}

const QUEUES: &[Queue] = &[
    Queue {
        name: "CTI",
        weight: 15,
        addressee: "Dear CTI team",
        titles: &[
            "New indicators linked to {actor} activity",
            "Sharing threat intelligence on {malware} infrastructure",
            "Request for attribution: campaign against {institution}",
            "{actor} phishing kit observed, IOCs attached (TLP:AMBER)",
            "Overlap between {malware} samples and earlier {actor} operations",
            "Threat landscape question: is {actor} targeting our sector?",
        ],
        openings: &[
            "our analysts have been following infrastructure that we attribute with moderate confidence to {actor}.",
            "we would like to share intelligence on a campaign that distributes {malware} in our sector.",
            "a partner gave us indicators that overlap with your last report on {actor}.",
            "during routine threat hunting we came across command and control servers of {malware}.",
        ],
        details: &[
            "The servers answer on {bad_ip} and {bad_ip}; the domains {domain} and {domain} resolve to them.",
            "The behaviour maps to MITRE ATT&CK {technique} and {technique}.",
            "The loader has the SHA-256 {sha256} and was compiled last {weekday}.",
            "According to our MISP instance the same certificate was used against two other agencies.",
            "Initial access probably came through {cve} in {product}.",
            "Confidence is moderate; the information is TLP:AMBER and may be shared with your constituents.",
        ],
        requests: &[
            "Could you enrich these indicators and tell us whether you see the same actor elsewhere?",
            "We would be grateful for any further intelligence, YARA rules or context on this campaign.",
            "Please add the indicators to your feeds and let us know about overlaps.",
        ],
    },
    Queue {
        name: "DFIR::incidents",
        weight: 17,
        addressee: "Dear incident response team",
        titles: &[
            "URGENT: suspected compromise of {host}",
            "Ransomware note found on file server {host}",
            "Unusual logins and lateral movement from {host}",
            "{malware} beacon detected on a workstation, containment under way",
            "Possible data exfiltration from {host} to {bad_ip}",
            "Web shell on our {product} server",
        ],
        openings: &[
            "our monitoring raised an alert of high severity for {host} this morning and we believe that it is compromised.",
            "we are dealing with an active security incident and need forensic support.",
            "the EDR on {host} reported {malware} shortly after an administrator had logged in.",
            "several accounts were used at night from addresses that we do not know.",
        ],
        details: &[
            "The host connects to {bad_ip} every {n} seconds over TCP {port}.",
            "A process dump shows credential access ({technique}) by the account {login}.",
            "We isolated the machine from the network and kept memory and disk images.",
            "Event logs were cleared at {digit}:4{digit} on {weekday}; the backups seem to be intact.",
            "The file {file} (SHA-256 {sha256}) was dropped into {path}.",
            "The attacker moved on to {host} and {host} by remote desktop.",
            "About {n} GB left the network towards {bad_ip} according to the proxy.",
        ],
        requests: &[
            "Please advise on containment and tell us where to upload the forensic images.",
            "We need your help with the analysis as soon as possible; we can be reached at any time.",
            "Could an incident handler call us back today?",
        ],
    },
    Queue {
        name: "DFIR::phishing",
        weight: 20,
        addressee: "Dear colleagues",
        titles: &[
            "Suspicious e-mail asking to verify my mailbox",
            "Phishing campaign imitating our HR department",
            "User clicked on a link and entered the password",
            "Fake invoice with an attachment named {file}",
            "Report of a phishing mail: \"Your account will be closed\"",
            "Spoofed message from our director asking for gift cards",
        ],
        openings: &[
            "several of our staff received an e-mail that pretends to come from the service desk.",
            "I am forwarding a message that looks like phishing to me.",
            "since {weekday} we see a wave of mails with the subject \"Mailbox quota exceeded\".",
            "one of our users opened the link of a fraudulent message and typed in the password.",
        ],
        details: &[
            "The link leads to {url}, a copy of our webmail login page.",
            "The sender is support@{domain}; the headers show {bad_ip} as the relay and SPF fails.",
            "The attachment {file} contains a macro that fetches {url}.",
            "At least {n} mailboxes got it, and {digit} people clicked.",
            "We reset the password of the user and deleted the message from all mailboxes.",
            "The page sends what is typed to {domain}.",
        ],
        requests: &[
            "Could you have the site taken down and block the domain?",
            "Please confirm that this is phishing and tell us what to do next.",
            "The original message is attached as .eml for your analysis.",
        ],
    },
    Queue {
        name: "OFFSEC::CVD",
        weight: 14,
        addressee: "Dear vulnerability disclosure team",
        titles: &[
            "Vulnerability report: stored XSS in the public portal",
            "Coordinated disclosure: SQL injection in a search form",
            "IDOR lets anybody read other applicants' documents",
            "Responsible disclosure of a flaw in {product}",
            "Open redirect and missing rate limit on the login page",
            "Exposed .git folder on a public web server",
        ],
        openings: &[
            "I am a security researcher and would like to report a vulnerability in one of your public web sites.",
            "following your disclosure policy I report a flaw that I found in the portal of {institution}.",
            "while using your service I noticed that it is affected by {cve}.",
        ],
        details: &[
            "The parameter `id` of {url_path} is not validated, so that a crafted request returns the records of others.",
            "Steps to reproduce: log in, open {url_path}, change the number in the address, and see the other file.",
            "The payload is stored and runs in the browser of every administrator who opens the page.",
            "I estimate a CVSS score of {digit}.{digit}; a proof of concept is attached.",
            "I did not read more data than needed to confirm the problem and have told nobody else.",
            "The version in use is {version}; the vendor fixed the flaw in a later release ({cve}).",
        ],
        requests: &[
            "Please confirm the receipt and tell me your timeline for the fix; I plan to publish after 90 days.",
            "I would be glad to be named in your hall of fame once it is fixed.",
            "Could you forward this to the owner of the application and request a CVE identifier?",
        ],
    },
    Queue {
        name: "OFFSEC::Pentesting",
        weight: 12,
        addressee: "Dear pentesting team",
        titles: &[
            "Request for a penetration test of our new portal",
            "Scope and dates of the red team exercise",
            "Question on findings of the penetration test report",
            "Test accounts and addresses for the upcoming pentest",
            "Retest after fixing the findings of engagement PT-{id}",
        ],
        openings: &[
            "we are going live with a new application next quarter and would like to have it tested.",
            "thank you for the report of the penetration test; we have questions on some findings.",
            "we are preparing the engagement PT-{id} and need to agree on the scope.",
        ],
        details: &[
            "In scope are the web front end, the API under {url_path} and the mobile client; production data are out of scope.",
            "The staging environment runs on {ip} and is reachable over the VPN.",
            "We propose to test in week {n}, outside of office hours.",
            "The rules of engagement and the authorisation letter are signed and attached.",
            "Finding {digit} was rated high; we believe that the web application firewall mitigates it.",
            "Credentials for {digit} test users will follow by a separate channel.",
        ],
        requests: &[
            "Please let us know when your testers are available.",
            "Could you confirm the source addresses of your testers so that we can allow them?",
            "We would appreciate a retest and an updated report.",
        ],
    },
    Queue {
        name: "SMS",
        weight: 12,
        addressee: "Dear administration team",
        titles: &[
            "Invoice for the awareness training, purchase order {id}",
            "Room booking and visitor badges for the {weekday} workshop",
            "Renewal of our service level agreement",
            "Question on the onboarding of a new trainee",
            "Missing signature on the procurement form",
        ],
        openings: &[
            "I am writing about an administrative matter on behalf of our unit.",
            "we are organising the annual meeting and need some information from your secretariat.",
            "the contract with our supplier ends soon and we would like to renew it.",
        ],
        details: &[
            "The purchase order has the number {id}; the invoice over {id} euro is attached.",
            "There will be {n} participants, {digit} of them from outside, who need badges.",
            "The form was sent back to us because a signature is missing on page {digit}.",
            "The new colleague starts on {weekday} and needs an access card and a laptop.",
            "Travel costs should be charged to the budget line {id}.",
        ],
        requests: &[
            "Could you tell us which documents are still missing?",
            "Please confirm the date and the room.",
            "Thank you for forwarding this to the person in charge.",
        ],
    },
    Queue {
        name: "Trash",
        weight: 10,
        addressee: "Hello",
        titles: &[
            "Best offer for your web site!!!",
            "Grandma's apple cake",
            "Is this the address of the flower shop?",
            "Re: Re: Fwd: holiday photos",
            "You have won a voucher",
        ],
        openings: &[
            "I hope that this is the right address.",
            "we can bring your web site to the first page of every search engine.",
            "could you please send me the recipe for the apple cake again?",
        ],
        details: &[
            "The oven gets too hot and the cake burns after {n} minutes.",
            "My order of {digit} pots of geraniums has not arrived yet.",
            "For only {n} euro a month you get {id} visitors a day.",
            "The cat sends her regards and the garden looks lovely.",
            "Our special price ends on {weekday}.",
        ],
        requests: &[
            "Thanks a lot and see you soon!",
            "Reply now to get your discount.",
            "Please call me back, I am at home all day.",
        ],
    },
];

/// Messages that belong nowhere, so that a model should be unsure.
const UNKNOWN: &[(&str, &str)] = &[
    ("Frage zur Heizung", "Im Büro {n} ist die Heizung seit {weekday} kalt. Wer ist dafür zuständig?"),
    ("test", "test {id}"),
    ("(no subject)", "see attachment"),
    ("Lost umbrella", "A green umbrella was left in lift {digit} on {weekday}. It can be collected at the reception."),
    (
        "Minutes of the chess club",
        "Present: {name}, {name}. Board {digit} was drawn after {n} moves. Next round on {weekday}.",
    ),
    ("Traduction", "Pourriez-vous relire la page {digit} du rapport annuel avant {weekday} ?"),
    ("Weather balloon {id}", "Altitude {id} m, pressure {n} hPa, drifting north. Recovery team informed."),
];

/// A composed ticket.
#[derive(Debug)]
pub(super) struct Draft {
    /// The queue that is right; `None` where nobody could tell.
    pub(super) queue: Option<&'static str>,
    pub(super) title: String,
    pub(super) content: String,
    pub(super) email_address: String,
}

pub(super) fn compose(words: &mut Words) -> Draft {
    let total: u32 = QUEUES.iter().map(|queue| queue.weight).sum();
    let mut left = words.below(total);
    let mut chosen = &QUEUES[0];
    for queue in QUEUES {
        if left < queue.weight {
            chosen = queue;
            break;
        }
        left -= queue.weight;
    }
    let mut draft = signed(words, Some(chosen.name));
    words.fill_one(chosen.titles, &mut draft.title);
    let mut content = format!("{},\n\n", chosen.addressee);
    words.fill_one(chosen.openings, &mut content);
    let count = 2 + words.index(3);
    for detail in words.several(chosen.details, count) {
        content.push_str(if words.chance(0.3) { "\n\n" } else { " " });
        words.fill(detail, &mut content);
    }
    content.push_str("\n\n");
    words.fill_one(chosen.requests, &mut content);
    content.push_str(&draft.content);
    draft.content = content;
    draft
}

pub(super) fn compose_unknown(words: &mut Words) -> Draft {
    let mut draft = signed(words, None);
    draft.content.clear();
    let (title, content) = UNKNOWN[words.index(UNKNOWN.len())];
    words.fill(title, &mut draft.title);
    words.fill(content, &mut draft.content);
    draft
}

/// A draft without title whose content is the signature.
fn signed(words: &mut Words, queue: Option<&'static str>) -> Draft {
    let (first, last) = words.person();
    let (institution, domain) = words.institution();
    Draft {
        queue,
        title: String::new(),
        content: format!("\n\nKind regards,\n{first} {last}\n{}, {institution}\n", words.role()),
        email_address: format!("{}.{}@{domain}.example", first.to_lowercase(), last.to_lowercase()),
    }
}
