use clap::Parser;

fn main() -> anyhow::Result<()> {
    triaged::cli::Cli::parse().run()
}
