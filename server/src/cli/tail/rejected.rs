//! `rivulet tail --rejected`: what routers reject, read from NATS.

use rivulet_protocol::pattern::Pattern;
use rivulet_router::{
    bus::{Rejected, Rejections},
    config::Config,
};
use serde_json::{json, value::RawValue};

use super::{
    super::{Failure, within_seconds},
    Format,
    print::{Printer, indented},
};
use crate::logging;

/// Prints rejected events until NATS says no more.
pub(super) async fn watch(
    config: &Config,
    patterns: &[Pattern],
    mut printer: Printer,
) -> Result<(), Failure> {
    logging::start_for_a_tool();
    let mut rejections = within_seconds(Rejections::connect(&config.nats, &config.data_dir)).await?;
    eprintln!("· watching rejected events");
    while let Some(rejected) = rejections.next().await {
        if patterns.iter().any(|pattern| pattern.matches(&rejected.subject))
            && printer.line(&line(&rejected, &printer))?
        {
            return Ok(());
        }
    }
    Err(Failure::other("the connection to NATS is closed"))
}

fn line(rejected: &Rejected, printer: &Printer) -> String {
    let palette = printer.palette;
    let Rejected {
        subject,
        seq,
        size,
        rule,
        pointer,
        message,
        payload,
    } = rejected;
    let payload = String::from_utf8_lossy(payload);
    let raw: Option<&RawValue> = serde_json::from_str(&payload).ok();
    if printer.format == Format::Json {
        let mut line = json!({
            "subject": subject, "seq": seq, "size": size, "rule": rule, "pointer": pointer, "message": message,
        });
        // JSON as JSON, anything else as text.
        line["payload"] = raw
            .and_then(|raw| serde_json::from_str(raw.get()).ok())
            .unwrap_or_else(|| payload.as_ref().into());
        return line.to_string();
    }
    let seq = seq.map_or_else(|| "-".to_owned(), |seq| seq.to_string());
    let place = if pointer.is_empty() {
        String::new()
    } else {
        format!(" at {pointer}")
    };
    let head = format!(
        "{} {} {}{place}: {message}",
        palette.dim(seq),
        palette.bold(subject),
        palette.red(rule),
    );
    match (printer.format, raw) {
        (Format::Compact, _) => format!("{head} {}", payload.escape_debug()),
        (_, Some(raw)) => format!("{head}\n{}", indented(raw.get())),
        (_, None) if payload.is_empty() => format!("{head}\n  ({size} bytes)"),
        (_, None) => format!("{head}\n  {}", payload.escape_debug()),
    }
}
