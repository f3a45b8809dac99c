//! When a report is due. All times are UTC, in seconds since 1970-01-01.

use crate::config::Schedule;

const MINUTE: i64 = 60;
const DAY: i64 = 86_400;
const WEEK: i64 = 7 * DAY;
/// 1970-01-01 was a Thursday; 0 is Monday.
const FIRST_WEEKDAY: i64 = 3;

/// Seconds from one report to the next, which is also what a report covers.
pub fn period_seconds(schedule: Schedule) -> i64 {
    if schedule.weekday.is_some() { WEEK } else { DAY }
}

/// The newest time at or before `now` at which a report is due.
pub fn slot_before(schedule: Schedule, now: i64) -> i64 {
    let period = period_seconds(schedule);
    let days = schedule.weekday.map_or(0, |weekday| (i64::from(weekday) - FIRST_WEEKDAY).rem_euclid(7));
    let first = days * DAY + i64::from(schedule.minute) * MINUTE;
    now - (now - first).rem_euclid(period)
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, Datelike, Timelike};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn mondays_at_seven() {
        let schedule = Schedule { weekday: Some(0), minute: 7 * 60 };
        // 2026-01-05 was a Monday.
        let monday = DateTime::parse_from_rfc3339("2026-01-05T07:00:00Z").expect("a time").timestamp();
        assert_eq!(slot_before(schedule, monday), monday);
        assert_eq!(slot_before(schedule, monday - 1), monday - WEEK);
        assert_eq!(slot_before(schedule, monday + 3 * DAY), monday);
    }

    proptest! {
        #[test]
        fn a_slot_is_the_newest_of_its_weekday_and_time(
            weekday in prop::option::of(0u8..7),
            minute in 0u16..1440,
            now in 0i64..4_000_000_000,
        ) {
            let schedule = Schedule { weekday, minute };
            let slot = slot_before(schedule, now);
            prop_assert!(slot <= now && now < slot + period_seconds(schedule));
            let time = DateTime::from_timestamp(slot, 0).expect("in range");
            prop_assert_eq!(time.hour() * 60 + time.minute(), u32::from(minute));
            if let Some(weekday) = weekday {
                prop_assert_eq!(time.weekday().num_days_from_monday(), u32::from(weekday));
            }
        }
    }
}
