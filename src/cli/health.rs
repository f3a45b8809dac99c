//! `triaged health`: asks the daemon on this machine how it is. For health checks of containers that hold no other
//! program.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;

use crate::config::parse_duration;

use super::{Globals, UsageError};

/// The answer names each role with its reason; more than this is not the daemon's.
const LARGEST_ANSWER: u64 = 1 << 20;

/// Ask the running daemon how it is
///
/// Requests /health/ready from ops.listen and writes the answer, which names each role that is not ready with its
/// reason. Exits with 0 when all are ready.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
                             triaged health\n  \
                             docker run --health-cmd 'triaged health --live' ...")]
pub(super) struct Arguments {
    /// Ask only whether the process answers, not whether its roles are ready
    #[arg(long)]
    live: bool,

    /// Give up after this time
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = parse_duration)]
    timeout: Duration,
}

pub(super) fn run(arguments: Arguments, globals: &Globals) -> anyhow::Result<()> {
    globals.log_warnings();
    let config = globals.load_config_without_properties()?;
    let listen = config
        .ops
        .listen
        .filter(|listen| listen.port() != 0)
        .ok_or_else(|| UsageError("ops.listen names no port, so there is nobody to ask".to_owned()))?;
    let address = SocketAddr::new(reachable(listen.ip()), listen.port());
    let path = if arguments.live { "/health/live" } else { "/health/ready" };
    let answer = get(address, path, arguments.timeout).with_context(|| format!("no answer from {address}"))?;
    let (head, body) = answer.split_once("\r\n\r\n").context("the answer is not HTTP")?;
    writeln!(io::stdout().lock(), "{body}")?;
    let status = head.split(' ').nth(1).unwrap_or_default();
    if status != "200" {
        bail!("{path} answers {status}");
    }
    Ok(())
}

/// Whoever listens on every address is asked on the loopback.
fn reachable(listens_on: IpAddr) -> IpAddr {
    match listens_on {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    }
}

fn get(address: SocketAddr, path: &str, timeout: Duration) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(LARGEST_ANSWER).read_to_string(&mut answer)?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_is_asked_on_the_loopback() {
        let ask = |address: &str| reachable(address.parse().expect("an address")).to_string();
        assert_eq!(ask("0.0.0.0"), "127.0.0.1");
        assert_eq!(ask("::"), "::1");
        assert_eq!(ask("192.0.2.7"), "192.0.2.7");
    }
}
