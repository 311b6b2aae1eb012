//! `reimagined sandbox`: the stand-in for the API on loopback, in the foreground.

use tokio::net::TcpListener;

use crate::sandbox::{Fault, Options, serve};
use crate::service::logging;

use super::args::{Global, Sandbox};
use super::exit::Failure;
use super::{run, term};

/// Serves until Ctrl-C or SIGTERM.
pub fn run(global: &Global, args: &Sandbox) -> Result<(), Failure> {
    logging::init(global.logging(None)).map_err(|e| Failure::usage(e.to_string()))?;
    let options = options(args)?;
    run::runtime()?.block_on(async {
        let mut signals = crate::service::signals::Signals::new()?;
        let listener = TcpListener::bind(args.listen)
            .await
            .map_err(|e| Failure::usage(format!("{} can't be listened on: {e}; choose another with --listen", args.listen)))?;
        let address = listener.local_addr()?;
        let key = match &args.key {
            Some(key) => format!("Only this key will do: SEGMIND_API_KEY={key}"),
            None => "Any key will do: SEGMIND_API_KEY=sandbox".to_owned(),
        };
        term::print(&format!(
            "The sandbox listens on http://{address}. In the configuration:\n\n[api]\nbase_url = \"http://{address}\"\nupload_url = \"http://{address}/upload-asset\"\n\n{key}. Ctrl-C ends it.\n"
        ))?;
        let end = async move {
            while let Some(signal) = signals.next().await {
                use crate::service::signals::Signal;
                if matches!(signal, Signal::Terminate | Signal::Interrupt) {
                    return;
                }
            }
        };
        serve(listener, options, end).await?;
        Ok(())
    })
}

fn options(args: &Sandbox) -> Result<Options, Failure> {
    let usage = |e: &dyn std::fmt::Display| Failure::usage(e.to_string());
    let mut options = Options { key: args.key.clone(), latency: args.latency, ..Options::default() };
    options.credits = args.credits.unwrap_or(options.credits);
    options.requests_per_minute = args.requests_per_minute.unwrap_or(options.requests_per_minute);
    if let Some(reply) = &args.reply {
        options.reply = reply.parse().map_err(|e| usage(&e))?;
    }
    if let Some(reply) = &args.upload_reply {
        options.upload_reply = reply.parse().map_err(|e| usage(&e))?;
    }
    for words in &args.faults {
        options.faults.push(words.parse::<Fault>().map_err(|e| usage(&e))?);
    }
    Ok(options)
}
