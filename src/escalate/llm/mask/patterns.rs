//! One automaton for the beginnings of all that is masked, and what reads on from each.
//!
//! A reader gets the place of a beginning and answers with what is to be masked, or with nothing: then the search goes
//! on behind the first character, or behind a whole run of digits, in which no second reading can begin.

use std::ops::Range;
use std::sync::LazyLock;

use regex_automata::meta::Regex;
use regex_automata::{Input, PatternID};

use super::{Find, Sort, names, numbers, secrets};

type Reader = fn(&str, Range<usize>) -> Vec<Find>;

/// Beginnings in order: of two at the same place the first is read. Every repetition is bounded.
const PATTERNS: [(&str, Reader); 20] = [
    (r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY|PuTTY-User-Key-File-[0-9]", secrets::private_key),
    (TOKEN, secrets::token),
    (r"(?i:(?-u:\b)(?:bearer|basic|digest|negotiate)[ \t]{1,4})[0-9A-Za-z._~+/=-]{8}", secrets::bearer),
    (r"://[^\s/@:?#]{0,100}:[^\s/@]{1,100}@", secrets::in_url),
    (r"(?i:(?-u:\b)(?:set-)?cookie)[ \t]{0,2}:[ \t]{0,2}", secrets::rest_of_line),
    (SECRET_KEY, secrets::value),
    (SECRET_IS, secrets::told_value),
    (SECRET_BARE, secrets::bare_value),
    (USER_KEY, names::user_value),
    (r"(?i:(?-u:\b)(?:for|invalid|illegal|by|of) user )", names::user_value),
    (USER_PATH, names::user_folder),
    (r"(?-u:\b)[A-Z][0-9A-Z-]{1,14}\\{1,2}[a-z][0-9A-Za-z._-]{1,31}", names::domain_user),
    (r"[0-9]{1,3}(?:(?:\.|\[\.\]|\(\.\)|[\[(](?i:dot)[\])])[0-9]{1,3}){3}", numbers::ipv4),
    (r"(?i:(?-u:\b)ip)(?:-[0-9]{1,3}){4}", numbers::ipv4_host),
    (r"[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,9}(?:(?:\.[0-9]{1,3}){3})?", numbers::ipv6_or_mac),
    (r"(?-u:\b)(?:[0-9A-Fa-f]{2}-){5}[0-9A-Fa-f]{2}(?-u:\b)", numbers::mac),
    (r"(?-u:\b)[A-Z]{2}[0-9]{2}(?: ?[0-9A-Z]{4}){2,7}(?: ?[0-9A-Z]{1,4})?", numbers::iban),
    (r"[+(]{0,2}[0-9](?:[ ./()-]{0,3}[0-9]){5,23}", numbers::card_or_phone),
    (r"[0-9A-Za-z+_]{32}", secrets::random_looking),
    (NAME, names::after_phrase),
];

/// Keys that say what they are. `secrets::token` reads on to their end.
const TOKEN: &str = concat!(
    r"(?:AKIA|ASIA|ABIA|ACCA)[0-9A-Z]{16}",
    r"|gh[pousr]_[0-9A-Za-z]{16}|github_pat_[0-9A-Za-z_]{16}|glpat-[0-9A-Za-z_-]{16}",
    r"|xox[a-z]-[0-9A-Za-z-]{8}|xapp-[0-9A-Za-z-]{8}|hooks\.slack\.com/services/[0-9A-Za-z/]{8}",
    r"|AIza[0-9A-Za-z_-]{30}|ya29\.[0-9A-Za-z_-]{10}|[0-9]{8,10}:AA[0-9A-Za-z_-]{32}",
    r"|AGE-SECRET-KEY-1[0-9A-Z]{16}|dop_v1_[0-9a-f]{16}|pypi-[0-9A-Za-z_-]{16}|npm_[0-9A-Za-z]{16}",
    r"|(?-u:\b)(?:sk-[0-9A-Za-z_-]{16}|[sr]k_(?:live|test)_[0-9A-Za-z]{8}|hf_[0-9A-Za-z]{16}|gsk_[0-9A-Za-z]{16})",
    r"|(?-u:\b)(?:hv[sb]\.[0-9A-Za-z_-]{16}|SG\.[0-9A-Za-z_-]{16}|eyJ[0-9A-Za-z_-]{8})",
);

macro_rules! password_words {
    () => {
        concat!(
            r"password|passwd|passwort|passphrase|passcode|kennwort|pwd|contrase(?:ñ|n)a|mot de passe|senha|wachtwoord",
            r"|has(?:ł|l)o|парол[ья]|密码|パスワード",
        )
    };
}

/// `db_password = `, `"api-key": `, `<secret>`, `--token `.
const SECRET_KEY: &str = concat!(
    r"(?i:",
    password_words!(),
    r"|secret|token|(?:api|access|private|signing|encryption|shared|account|license)[ _-]?key|credentials?",
    r"|authorization|session[ _-]?(?:id|key)|(?-u:\b)(?:pass|otp|pin|tan|cvv|cvc|sig)(?-u:\b)",
    r#")[0-9A-Za-z_-]{0,24}(?:[\\"'\])]{0,4}[ \t]{0,3}(?:=>|:=|={1,2}|:|>)[ \t]{0,3})"#,
);

/// `my password is `.
const SECRET_IS: &str = concat!(
    r"(?i:",
    password_words!(),
    r"|pin|passcode)[ \t]{1,3}(?i:is|was|lautet|ist|war|es|est|é|è|це|это)[ \t:]{1,3}"
);

/// `password hunter2`, `--token abc123`, `curl -u jane:abc`.
const SECRET_BARE: &str = concat!(
    r"(?i:",
    password_words!(),
    r"|token|secret|api[_-]?key)[ \t]{1,2}|(?-u:\b)curl [^\n]{0,100}?-u[ \t]{1,2}|(?-u:\b)(?:mysql|mariadb|sshpass)[^\n]{0,60}? -p ?"
);

/// `user=`, `"username": `.
const USER_KEY: &str = concat!(
    r"(?i:(?-u:\b)(?:r|e|l|s|d)?(?:user(?:[ _-]?name|[ _-]?id)?|login(?:[ _-]?name)?|logon(?:[ _-]?name)?|logname|uid",
    r#"|account[ _-]?name|samaccountname|benutzer(?:name)?|kennung))[\\"']{0,3}[ \t]{0,2}[=:][ \t]{0,2}"#,
);

const USER_PATH: &str = r"(?i:/(?:var/)?home/|/users/|[a-z]:\\{1,2}users\\{1,2}|\\documents and settings\\{1,2})";

/// Phrases before a name: greetings, closings, introductions, the heads of e-mails.
const NAME: &str = concat!(
    r"(?i:(?-u:\b)(?:",
    // Greetings.
    r"dear|hi|hello|hey|good (?:morning|afternoon|evening|day)|hallo|liebe[rs]?|sehr geehrte[rn]?|guten (?:tag|morgen|abend)",
    r"|moin|servus|bonjour|bonsoir|cher|chère|salut|hola|estimad[oa]|querid[oa]|ciao|gentile|car[oa]|buongiorno|prezad[oa]",
    r"|olá|beste|geachte|hej|drog[ia]|cześć",
    r")(?:[ ,]{1,3})",
    // Introductions.
    r"|(?-u:\b)(?:my name is|my name's|mein name ist|ich hei(?:ß|ss)e|je m'appelle|me llamo|mi chiamo|meu nome é|mijn naam is",
    r"|(?:first|last|full|display|employee|customer|patient) ?name|surname|vorname|nachname|employee|requester|requestor",
    r"|(?:requested|reported|submitted|created|approved) by|contact(?: person)?|caller|attn|ansprechpartner)[ \t]{0,2}[: \t][ \t]{0,2}",
    // Heads of e-mails.
    r"|(?m:^)[> \t]{0,8}(?:from|to|cc|bcc|von|an|de|para|à|reply-to|sent by)[ \t]{0,2}:[ \t]{0,3}",
    // Closings; the longer first, because the first alternative wins.
    r"|(?m:^)-- ?(?:\n|$)",
    r"|(?:с уважением|з повагою|(?-u:\b)(?:regards|sincerely(?: yours)?|yours (?:sincerely|faithfully|truly)|respectfully|mfg",
    r"|mit (?:freundlichen|besten|lieben|herzlichen) gr(?:ü|ue)(?:ß|ss)en|(?:viele|beste|liebe|schöne|freundliche) gr(?:ü|ue)(?:ß|ss)e",
    r"|cordialement|bien à vous|salutations|saludos|atentamente|un saludo|(?:cordiali|distinti) saluti|atenciosamente",
    r"|met vriendelijke groet(?:en)?|med v(?:ä|e)nlig h(?:ä|i)lsning|vennlig hilsen|pozdrawiam|z poważaniem",
    r"|thanks(?: a lot| in advance| and regards)?|thank you(?: very much| so much| in advance)?|thx|cheers|best(?: wishes)?",
    r"|(?:vielen |besten |lieben )?dank(?:e)?|merci(?: d'avance)?|gracias|grazie|obrigad[oa]|bedankt|tack|lg|vg|br)",
    r")[ \t]{0,3}[,.!;:–—-]{0,3}[ \t]{0,3}(?:\r?\n[> \t*_~–—-]{0,8}){0,3})",
);

static AUTOMATON: LazyLock<Regex> = LazyLock::new(|| {
    let patterns: Vec<&str> = PATTERNS.iter().map(|(pattern, _)| *pattern).collect();
    Regex::builder()
        // The states that a long text visits; with less the automaton is rebuilt again and again.
        .configure(Regex::config().hybrid_cache_capacity(8 << 20).nfa_size_limit(Some(64 << 20)))
        .build_many(&patterns)
        .expect("the patterns are valid, a test compiles them")
});

/// All that the patterns lead to, in order.
pub(super) fn find(text: &str) -> Vec<Find> {
    let mut finds = Vec::new();
    let mut at = 0;
    while at <= text.len() {
        let Some(found) = AUTOMATON.search(&Input::new(text).range(at..)) else { break };
        let start = found.start();
        let read = reader(found.pattern())(text, found.range());
        at = match read.last() {
            Some(last) => last.at.end.max(start + 1),
            None => behind_first(text, start),
        };
        finds.extend(read);
    }
    finds
}

fn reader(pattern: PatternID) -> Reader {
    PATTERNS[pattern.as_usize()].1
}

/// Behind the character at `start`, or behind the figures there.
fn behind_first(text: &str, start: usize) -> usize {
    let rest = &text[start..];
    if rest.starts_with(|c: char| c.is_ascii_digit()) {
        return numbers::behind_digits(text, start);
    }
    start + rest.chars().next().map_or(1, char::len_utf8)
}

/// One find.
pub(super) fn one(at: Range<usize>, sort: Sort) -> Vec<Find> {
    vec![Find { at, sort }]
}
