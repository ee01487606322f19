//! `rivulet tail --rejected`: what routers reject, read from NATS.

use rivulet_protocol::pattern::Pattern;
use rivulet_router::{
    bus::{Rejected, Rejections},
    config::Config,
};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

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
    while let Some(rejected) = rejections.next().await.map_err(Failure::other)? {
        if patterns.iter().any(|pattern| pattern.matches(&rejected.subject))
            && printer.line(&line(&rejected, &printer))?
        {
            return Ok(());
        }
    }
    Err(Failure::other("the connection to NATS is closed"))
}

/// A rejected event as one JSON object.
#[derive(Serialize)]
struct Line<'a> {
    subject: &'a str,
    seq: Option<u64>,
    size: usize,
    rule: &'a str,
    pointer: &'a str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<&'a str>,
    payload: &'a RawValue,
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
        traceparent,
    } = rejected;
    let payload = String::from_utf8_lossy(payload);
    let raw: Option<&RawValue> = serde_json::from_str(&payload).ok();
    if printer.format == Format::Json {
        // JSON as the bytes that it is but for line breaks, which JSON has between its tokens alone; anything else as
        // text.
        let flat = payload.replace(['\n', '\r'], " ");
        let raw: Option<&RawValue> = serde_json::from_str(&flat).ok();
        let text;
        let payload = match raw {
            Some(raw) => raw,
            None => {
                text = to_raw_value(&payload).expect("a text");
                &text
            }
        };
        let line = Line {
            subject,
            seq: *seq,
            size: *size,
            rule,
            pointer,
            message,
            traceparent: traceparent.as_deref(),
            payload,
        };
        return serde_json::to_string(&line).expect("texts, numbers and JSON");
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
