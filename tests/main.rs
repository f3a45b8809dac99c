//! The integration tests, in one binary: the daemon as a process of its own against a real broker and ClickHouse's own
//! engine, and against a mock cluster that makes faults on demand.
//!
//! A test waits for a condition with a deadline and never sleeps for a guess. Random choices come from a seed that is
//! printed; `TRIAGED_TEST_SEED=N` repeats them.

#![allow(clippy::print_stderr, reason = "a failed test prints what the daemon logged, and the seed it used")]

mod api;
mod broker;
mod commands;
// The programs that these run against are fetched for this system only.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod dashboards;
mod delivery;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod deployment;
mod drift;
mod escalation;
mod faults;
mod feedback;
mod fetch;
mod forecasts;
mod incidents;
mod live;
mod llm;
mod operation;
mod outcomes;
mod peers;
mod reports;
mod retrain;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod review;
mod setup;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod siem;
mod tools;
mod upgrade;
mod volumes;
mod whole_path;
mod workload;
