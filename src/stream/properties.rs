//! The user's librdkafka properties, held against the library itself before any client is made.
//!
//! The library's own error for a wrong property repeats the value, which may be a password under a mistyped name; the
//! faults here never do that.

use std::fmt;

use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaConfRes;

use crate::config::KafkaSettings;

/// One property that librdkafka does not take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PropertyFault {
    pub name: String,
    pub problem: String,
}

/// All properties that librdkafka does not take; never empty.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct PropertyFaults(pub Vec<PropertyFault>);

impl fmt::Display for PropertyFaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("librdkafka refuses some of kafka.properties")?;
        for PropertyFault { name, problem } in &self.0 {
            write!(f, "\n  {name}: {problem}")?;
        }
        Ok(())
    }
}

/// Sets each property on its own in a configuration of the library, without making a client.
///
/// # Errors
/// Every property that the library does not know, was not built for, or whose value it does not take.
pub fn check_properties(kafka: &KafkaSettings) -> Result<(), PropertyFaults> {
    let faults: Vec<PropertyFault> = kafka
        .properties
        .iter()
        .filter_map(|(name, value)| {
            let error = ClientConfig::new().set(name, value.reveal()).create_native_config().err()?;
            Some(PropertyFault { name: name.clone(), problem: problem(&error) })
        })
        .collect();
    if faults.is_empty() { Ok(()) } else { Err(PropertyFaults(faults)) }
}

fn problem(error: &KafkaError) -> String {
    match error {
        KafkaError::ClientConfig(RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN, ..) => {
            "librdkafka has no such property".to_owned()
        }
        // The library's text tells the allowed range, and mostly the value too.
        KafkaError::ClientConfig(_, text, _, value) if value.is_empty() || !text.contains(value.as_str()) => {
            text.clone()
        }
        _ => "librdkafka does not take this value".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn faults(properties: &str) -> Vec<(String, String)> {
        let config = Config::from_toml(&format!("[kafka.properties]\n{properties}")).expect("the settings are right");
        match check_properties(&config.kafka) {
            Ok(()) => Vec::new(),
            Err(PropertyFaults(faults)) => faults.into_iter().map(|fault| (fault.name, fault.problem)).collect(),
        }
    }

    #[test]
    fn what_this_program_is_built_for_is_taken() {
        let secure = "\"security.protocol\" = \"SASL_SSL\"\n\"sasl.mechanisms\" = \"SCRAM-SHA-512\"\n\
                      \"sasl.username\" = \"x\"\n\"ssl.ca.location\" = \"/ca.pem\"\n\"compression.type\" = \"zstd\"\n\
                      \"session.timeout.ms\" = 6000";
        assert_eq!(faults(secure), []);
        for mechanism in ["PLAIN", "SCRAM-SHA-256", "OAUTHBEARER"] {
            assert_eq!(faults(&format!("\"sasl.mechanism\" = \"{mechanism}\"")), []);
        }
    }

    #[test]
    fn every_fault_is_found_and_no_value_is_repeated() {
        let found = faults("\"sasl.pasword\" = \"hunter2\"\n\"linger.ms\" = \"soon\"\n\"session.timeout.ms\" = -7");
        let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["linger.ms", "sasl.pasword", "session.timeout.ms"]);
        for (_, problem) in &found {
            assert!(!problem.contains("hunter2") && !problem.contains("soon") && !problem.contains("-7"), "{problem}");
        }
    }
}
