//! `[drift]`, `[feedback]`, `[reports]`, `[smtp]` and `[retrain]`.

use std::collections::BTreeMap;
use std::time::Duration;

use super::checked::parse_topic;
use super::reader::{Ledger, Section};
use super::settings::{
    Config, DriftSettings, FeedbackSettings, ReportSettings, RetrainSettings, Schedule, SmtpSettings, SmtpTls,
    StoreKind,
};
use super::tree::Node;
use super::volumes::read_secret;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const WEEKDAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

pub(super) fn read_drift(section: &mut Section<'_>) -> DriftSettings {
    DriftSettings {
        window: section.count("window", 200..=10_000_000),
        label_shift: section.share("label_shift"),
        confidence_drop: section.share("confidence_drop"),
        topic: section.parsed("topic", String::new(), parse_topic),
        cooldown: section.duration("cooldown", SECOND..=168 * HOUR),
    }
}

pub(super) fn read_feedback(section: &mut Section<'_>) -> FeedbackSettings {
    FeedbackSettings {
        topic: section.parsed("topic", String::new(), parse_topic),
        unknown_queues: section.flag("unknown_queues"),
        claim_lease: section.duration("claim_lease", 10 * SECOND..=24 * HOUR),
        send_deadline: section.duration("send_deadline", SECOND..=60 * SECOND),
    }
}

pub(super) fn read_reports(section: &mut Section<'_>) -> ReportSettings {
    let mut email_to: Vec<String> = Vec::new();
    for (_, address) in section.list("email_to") {
        match parse_address(&address) {
            Ok(address) => email_to.push(address),
            Err(rule) => section.fault("email_to", format!("{address:?}: {rule}")),
        }
    }
    let stand_in = Schedule { weekday: None, minute: 0 };
    ReportSettings { email_to, schedule: section.parsed("schedule", stand_in, parse_schedule) }
}

pub(super) fn read_smtp(section: &mut Section<'_>, environment: &BTreeMap<String, String>) -> SmtpSettings {
    SmtpSettings {
        server: section.parsed("server", String::new(), parse_host),
        port: section.count("port", 1..=65_535) as u16,
        tls: section.choice("tls", &[("starttls", SmtpTls::StartTls), ("tls", SmtpTls::Tls), ("none", SmtpTls::None)]),
        user: section.parsed("user", String::new(), |text| Ok(text.trim().to_owned())),
        password: read_secret(section, "password", environment),
        from: section.parsed("from", String::new(), |text| match text.trim() {
            "" => Ok(String::new()),
            text => parse_address(text),
        }),
    }
}

pub(super) fn read_retrain(section: &mut Section<'_>) -> RetrainSettings {
    let path = |node: Node| match node.as_text()?.trim() {
        "" => Ok(None),
        text => Ok(Some(node.origin.resolve(text))),
    };
    RetrainSettings {
        schedule: section.parsed("schedule", None, |text| match text.trim() {
            "" => Ok(None),
            text => parse_schedule(text).map(Some),
        }),
        ticket: section.read("ticket", None, path),
        log: section.read("log", None, path),
        since: section.duration("since", HOUR..=36_500 * 24 * HOUR),
        time_budget: section.duration("time_budget", Duration::ZERO..=24 * HOUR),
    }
}

/// A version that nobody follows would be trained for nothing.
pub(super) fn check_retrain(config: &Config, ledger: &mut Ledger) {
    let (retrain, model) = (&config.retrain, &config.model);
    if retrain.schedule.is_none() {
        return;
    }
    let schedule = "retrain.schedule";
    if retrain.ticket.is_none() && retrain.log.is_none() {
        ledger.fault(schedule, "needs retrain.ticket or retrain.log, the labelled rows that feedback is added to");
    }
    for (kind, rows, spec) in [("ticket", &retrain.ticket, &model.ticket), ("log", &retrain.log, &model.log)] {
        let is_name = |spec: &str| spec.strip_prefix("registry:").is_some_and(|name| !name.contains('@'));
        let follows = spec.as_deref().is_some_and(is_name) && model.registry.is_some();
        if rows.is_some() && !follows {
            let rule =
                format!("needs model.registry and model.{kind} = \"registry:NAME\", which takes up what is promoted");
            ledger.fault(&format!("retrain.{kind}"), rule);
        }
    }
    if config.volumes.store == StoreKind::Memory {
        ledger.fault(schedule, "needs volumes.store = \"clickhouse\", where the feedback lies");
    }
}

/// Mail that nobody could send would only be noticed when the first report is missing.
pub(super) fn check_mail(config: &Config, ledger: &mut Ledger) {
    let (smtp, reports) = (&config.smtp, &config.reports);
    if !smtp.server.is_empty() && smtp.from.is_empty() {
        ledger.conflict(
            ("smtp.server", "needs smtp.from, the address of the sender".to_owned()),
            ("smtp.from", "must not be empty when smtp.server is set".to_owned()),
        );
    }
    if !reports.email_to.is_empty() && smtp.server.is_empty() {
        ledger.conflict(
            ("reports.email_to", "needs smtp.server".to_owned()),
            ("smtp.server", "must not be empty when reports.email_to is set".to_owned()),
        );
    }
}

/// `daily 07:00` or `weekly mon 07:00`, UTC.
fn parse_schedule(text: &str) -> Result<Schedule, String> {
    let rule = || "expected \"daily 07:00\" or \"weekly mon 07:00\" (UTC)".to_owned();
    let words: Vec<&str> = text.split_whitespace().collect();
    let (weekday, time) = match words[..] {
        ["daily", time] => (None, time),
        ["weekly", day, time] => {
            let day = WEEKDAYS.iter().position(|known| day.eq_ignore_ascii_case(known)).ok_or_else(rule)?;
            (Some(day as u8), time)
        }
        _ => return Err(rule()),
    };
    let (hours, minutes) = time.split_once(':').ok_or_else(rule)?;
    let number = |digits: &str, below: u16| {
        let valid = digits.len() == 2 && digits.bytes().all(|byte| byte.is_ascii_digit());
        digits.parse::<u16>().ok().filter(|number| valid && *number < below).ok_or_else(rule)
    };
    Ok(Schedule { weekday, minute: number(hours, 24)? * 60 + number(minutes, 60)? })
}

/// A first look only: the mail library reads the address when a report is sent. What could end a header is refused.
pub(super) fn parse_address(text: &str) -> Result<String, String> {
    let text = text.trim();
    let valid = text.split_once('@').is_some_and(|(user, host)| !user.is_empty() && !host.is_empty());
    match valid && text.chars().all(|c| c.is_ascii_graphic() && !"<>,;\"()".contains(c)) {
        true => Ok(text.to_owned()),
        false => Err("expected an address such as \"soc@example.org\"".to_owned()),
    }
}

fn parse_host(text: &str) -> Result<String, String> {
    let text = text.trim();
    match text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':')) {
        true => Ok(text.to_owned()),
        false => Err("expected a host name or an address; the port stands in smtp.port".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_are_days_or_weeks() {
        assert_eq!(parse_schedule("weekly mon 07:00"), Ok(Schedule { weekday: Some(0), minute: 420 }));
        assert_eq!(parse_schedule("daily 23:59"), Ok(Schedule { weekday: None, minute: 1439 }));
        for wrong in ["", "weekly 07:00", "weekly noday 07:00", "daily 24:00", "daily 7:00", "hourly", "daily +7:00"] {
            assert!(parse_schedule(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_schedule_of_trainings_needs_rows_a_registry_and_a_name_that_follows_it() {
        let faults = |text: &str| Config::from_toml(text).expect_err("this configuration is wrong").to_string();
        let schedule = "[retrain]\nschedule = \"weekly sun 03:00\"\n";
        assert!(
            faults(schedule).contains("retrain.schedule = \"weekly sun 03:00\": needs retrain.ticket or retrain.log")
        );
        let rows = format!("{schedule}ticket = \"rows.jsonl\"\n");
        assert!(faults(&rows).contains("retrain.ticket = \"rows.jsonl\": needs model.registry and model.ticket"));
        let whole = format!("{rows}[model]\nregistry = \"models\"\nticket = \"registry:tickets\"\n");
        assert!(Config::from_toml(&whole).expect("right").retrain.schedule.is_some());
        assert!(faults(&format!("{whole}[volumes]\nstore = \"memory\"\n")).contains("needs volumes.store"));
        assert!(Config::from_toml("").expect("right").retrain.schedule.is_none());
    }

    #[test]
    fn mail_needs_a_server_and_a_sender() {
        let faults = |text: &str| Config::from_toml(text).expect_err("this configuration is wrong").to_string();
        assert!(faults("[reports]\nemail_to = [\"a@b\"]").contains("reports.email_to = [...]: needs smtp.server"));
        assert!(faults("[smtp]\nserver = \"mx\"").contains("smtp.server = \"mx\": needs smtp.from"));
        assert!(faults("[smtp]\npassword = \"hunter2\"").contains("smtp.password: is confidential"));
        assert!(faults("[smtp]\nfrom = \"a@b\\r\\nBcc: c@d\"").contains("smtp.from"));
        let text = "[smtp]\nserver = \"mx\"\nfrom = \"a@b\"\n[reports]\nemail_to = [\"c@d\"]";
        assert_eq!(Config::from_toml(text).expect("right").reports.email_to, ["c@d"]);
    }
}
