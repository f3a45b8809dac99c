//! Syslog headers: RFC 5424, RFC 3164, and the lines without a priority that daemons write to files.
//!
//! Hand-written rather than `syslog_loose`, because the text and the source must be told apart as configured here, a
//! year that is missing must come from Kafka's timestamp, and the machine's own time zone must not be asked.

use super::Fault;
use super::time::{self, Reference};

/// The names of severities 0 to 7, RFC 5424 table 2.
const SEVERITIES: [&str; 8] = ["emergency", "alert", "critical", "error", "warning", "notice", "info", "debug"];

#[derive(Debug, PartialEq)]
pub(super) struct Message<'a> {
    /// The message; in RFC 5424, when it has none, its id and structured data.
    pub(super) text: &'a str,
    /// The application, else the host.
    pub(super) source: Option<&'a str>,
    pub(super) level: Option<&'static str>,
    pub(super) time: Option<i64>,
}

/// Reads a line that has a priority (`<34>`) or starts with an RFC 3164 time.
pub(super) fn parse(line: &str, reference: Reference) -> Result<Message<'_>, Fault> {
    let Some((severity, rest)) = priority(line) else {
        let at_start = line.as_bytes().first().is_some_and(u8::is_ascii_alphabetic);
        return match time::syslog_header(line, reference).filter(|_| at_start) {
            Some((time, length)) => Ok(after_time(&line[length..], None, Some(time))),
            None => Err(Fault { at: 0, rule: "neither a priority such as <34> nor a time such as Oct 11 22:14:15" }),
        };
    };
    let level = Some(SEVERITIES[severity]);
    if let Some(header) = rest.strip_prefix("1 ") {
        return rfc5424(line, header, level, reference);
    }
    let rest = rest.trim_start_matches(' ');
    match time::syslog_header(rest, reference) {
        Some((time, length)) => Ok(after_time(&rest[length..], level, Some(time))),
        // RFC 3164 section 4.3.3: without a time the whole content is the message. Local senders still put a tag.
        None => {
            let (application, text) = tag(rest).unwrap_or((None, rest));
            Ok(Message { text, source: application, level, time: None })
        }
    }
}

/// `<PRI>`: the severity and what follows.
fn priority(line: &str) -> Option<(usize, &str)> {
    let inner = line.strip_prefix('<')?;
    let end = inner.bytes().take(4).position(|byte| byte == b'>')?;
    let (number, rest) = (&inner[..end], &inner[end + 1..]);
    let digits_only = number.bytes().all(|byte| byte.is_ascii_digit());
    let value: usize = number.parse().ok().filter(|&value| digits_only && value <= 191)?;
    Some((value % 8, rest))
}

/// After an RFC 3164 time: ` host tag[pid]: message`, of which host and tag may be missing.
fn after_time<'a>(rest: &'a str, level: Option<&'static str>, time: Option<i64>) -> Message<'a> {
    let rest = rest.strip_prefix(':').unwrap_or(rest).trim_start_matches(' ');
    if let Some((source, text)) = tag(rest) {
        return Message { text, source, level, time };
    }
    let (host, rest) = rest.split_once(' ').unwrap_or(("", rest));
    let host = Some(host.trim_end_matches(':')).filter(|host| !host.is_empty());
    let rest = rest.trim_start_matches(' ');
    let (application, text) = tag(rest).unwrap_or((None, rest));
    Message { text, source: application.or(host), level, time }
}

/// `tag: message` or `tag[pid]: message`. `Some((None, ...))` never occurs without a tag; a CEF message is no tag.
fn tag(rest: &str) -> Option<(Option<&str>, &str)> {
    let end = rest.find(|c: char| c == '[' || c == ':' || c.is_whitespace())?;
    let name = &rest[..end];
    if !name.starts_with(|c: char| c.is_alphabetic() || c == '/' || c == '_') {
        return None;
    }
    let after = match rest.as_bytes()[end] {
        b'[' => {
            let (_, after) = rest[end..].split_once(']')?;
            after.strip_prefix(':').unwrap_or(after)
        }
        b':' => &rest[end + 1..],
        _ => return None,
    };
    (after.is_empty() || after.starts_with(' ')).then(|| (Some(name), after.trim_start_matches(' ')))
}

/// After `<PRI>1 `: `TIME HOST APP PROCID MSGID DATA [MESSAGE]`, each of them `-` when unknown.
fn rfc5424<'a>(
    line: &'a str,
    header: &'a str,
    level: Option<&'static str>,
    reference: Reference,
) -> Result<Message<'a>, Fault> {
    let fault = |rest: &str, rule| Fault { at: line.len() - rest.len(), rule };
    let mut rest = header;
    let mut next = || {
        let (field, tail) = rest.split_once(' ').ok_or_else(|| fault(rest, "RFC 5424 wants seven header fields"))?;
        rest = tail;
        Ok(field)
    };
    let (time, host, application, _process, message_id) = (next()?, next()?, next()?, next()?, next()?);
    let length = structured_data(rest).ok_or_else(|| fault(rest, "structured data that do not end"))?;
    let (data, message) = rest.split_at(length);
    if !(message.is_empty() || message.starts_with(' ')) {
        return Err(fault(message, "expected a space after the structured data"));
    }
    let known = |field: &'a str| Some(field).filter(|field| !matches!(*field, "" | "-"));
    let message = message.trim_start_matches(' ');
    let message = message.strip_prefix('\u{feff}').unwrap_or(message);
    let text = if !message.is_empty() {
        message
    } else if known(message_id).is_some() {
        &line[line.len() - rest.len() - message_id.len() - 1..]
    } else {
        known(data).unwrap_or_default()
    };
    Ok(Message {
        text,
        source: known(application).or(known(host)),
        level,
        time: known(time).and_then(|time| time::parse(time, reference)),
    })
}

/// The length of `-` or of `[id name="value" ...]...`, in which `\` escapes a character of a value.
fn structured_data(rest: &str) -> Option<usize> {
    if rest.starts_with('-') {
        return Some(1);
    }
    let bytes = rest.as_bytes();
    let (mut in_value, mut in_element, mut at) = (false, false, 0);
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'\\' if in_value => at += 1,
            b'"' if in_element => in_value = !in_value,
            b']' if in_element && !in_value => in_element = false,
            b'[' if !in_element => in_element = true,
            _ if !in_element => break,
            _ => {}
        }
        at += 1;
    }
    (at > 0 && !in_element).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2025-01-24T12:00:00Z.
    const NOW: Reference = Reference { now_ms: 1_737_720_000_000, utc_offset: 0 };

    fn read(line: &str) -> (&str, Option<&str>, Option<&str>) {
        let message = parse(line, NOW).unwrap();
        (message.text, message.source, message.level)
    }

    #[test]
    fn rfc3164_in_its_variants() {
        for (line, expected) in [
            (
                "<34>Oct 11 22:14:15 mymachine su: 'su root' failed for lonvick on /dev/pts/8",
                ("'su root' failed for lonvick on /dev/pts/8", Some("su"), Some("critical")),
            ),
            (
                "Dec 10 06:55:46 LabSZ sshd[24200]: Invalid user webmaster from 173.234.31.186",
                ("Invalid user webmaster from 173.234.31.186", Some("sshd"), None),
            ),
            (
                "Jun 14 15:16:01 combo sshd(pam_unix)[19939]: check pass; user unknown",
                ("check pass; user unknown", Some("sshd(pam_unix)"), None),
            ),
            (
                "<13>Jun 14 15:16:01 combo last message repeated 2 times",
                ("last message repeated 2 times", Some("combo"), Some("notice")),
            ),
            ("<13>2025-01-24T09:07:54.1+01:00 web1 nginx[1]: started", ("started", Some("nginx"), Some("notice"))),
            ("<13>cron[7]: job started", ("job started", Some("cron"), Some("notice"))),
            ("<13>use of the system: denied", ("use of the system: denied", None, Some("notice"))),
            (
                "<189>29: *Mar  1 18:48:50.483 UTC: %SYS-5-CONFIG_I: Configured",
                ("29: *Mar  1 18:48:50.483 UTC: %SYS-5-CONFIG_I: Configured", None, Some("notice")),
            ),
            ("Jun 14 15:16:01 kernel: panic", ("panic", Some("kernel"), None)),
            ("<0>Jun 14 15:16:01 host", ("host", None, Some("emergency"))),
        ] {
            assert_eq!(read(line), expected, "{line}");
        }
    }

    #[test]
    fn rfc5424_in_its_variants() {
        let bom = "<165>1 2003-08-24T05:14:15.000003-07:00 192.0.2.1 myproc 8710 - - \u{feff}%% It's time.";
        assert_eq!(read(bom), ("%% It's time.", Some("myproc"), Some("notice")));
        assert_eq!(parse(bom, NOW).unwrap().time, Some(1_061_727_255_000));
        for (line, expected) in [
            (
                r#"<34>1 2003-10-11T22:14:15.003Z host - - ID47 [a@1 k="x ] \" y"][b@2] An event"#,
                ("An event", Some("host"), Some("critical")),
            ),
            (
                r#"<14>1 2003-10-11T22:14:15.003Z fw RT_FLOW - SESSION_CREATE [junos@2636 src="10.0.0.1"]"#,
                (r#"SESSION_CREATE [junos@2636 src="10.0.0.1"]"#, Some("RT_FLOW"), Some("info")),
            ),
            (r#"<14>1 - - - - - [a@1 k="v"]"#, (r#"[a@1 k="v"]"#, None, Some("info"))),
            ("<14>1 - - - - - -", ("", None, Some("info"))),
        ] {
            assert_eq!(read(line), expected, "{line}");
        }
    }

    #[test]
    fn broken_headers_are_placed() {
        for (line, at) in [
            ("plain words", 0),
            ("<192>Oct 11 22:14:15 host a: b", 0),
            ("<>x", 0),
            ("<1", 0),
            ("<34>1 2003-10-11T22:14:15.003Z host", 31),
            ("<34>1 - - - - - [open", 16),
            ("<34>1 - - - - - [a]x", 19),
        ] {
            assert_eq!(parse(line, NOW).unwrap_err().at, at, "{line}");
        }
    }
}
