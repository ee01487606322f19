//! The least that a router needs to be permitted in NATS.

use std::fmt::Write as _;

use super::{
    connect::{INBOX_PREFIX, NODES, api},
    decided, filter,
    memory::BUCKET,
    rejected,
};
use crate::config::Config;

/// The least NATS permissions of a router with this configuration, as a block of nats-server's own
/// configuration.
pub fn permissions(config: &Config) -> String {
    let stream = &config.stream.name;
    let live = format!("{}.>", config.stream.republish_prefix);
    let api = api(config.nats.jetstream_domain.as_deref());
    let sources = |durable: bool| {
        filter::widest(
            config
                .sources
                .iter()
                .filter(|source| source.durable == durable)
                .map(|source| source.subject.as_str()),
        )
    };
    let nodes = format!("{NODES}.>");
    let bucket = format!("KV_{BUCKET}");

    let mut publish = vec![
        ("command.*".to_owned(), "commands of clients"),
        (format!("{}.>", rejected::PREFIX), "rejected events"),
        (nodes.clone(), "what nodes say to each other, and to themselves"),
        (format!("{api}.STREAM.INFO.{stream}"), "where the stream stands"),
    ];
    if !sources(true).is_empty() {
        publish.extend([
            (format!("{api}.STREAM.CREATE.{stream}"), "only to make the stream"),
            (
                format!("{api}.INFO"),
                "only to make the stream: what the account has left",
            ),
            (
                format!("{api}.STREAM.NAMES"),
                "which other streams take the same subjects",
            ),
            (
                format!("{api}.DIRECT.GET.{stream}"),
                "to read back what was missed, and for clients that resume",
            ),
            (
                format!("{api}.STREAM.MSG.GET.{stream}"),
                "the same, of the stream's leader",
            ),
            (
                format!("{api}.CONSUMER.CREATE.{stream}.>"),
                "only for a stream that does not republish",
            ),
            (
                format!("{api}.CONSUMER.DELETE.{stream}.>"),
                "only for a stream that does not republish",
            ),
            (
                format!("$JS.FC.{stream}.>"),
                "only for a stream that does not republish",
            ),
            (format!("{api}.STREAM.INFO.{bucket}"), "the memory of commands"),
            (
                format!("{api}.STREAM.CREATE.{bucket}"),
                "only to make that memory",
            ),
            (format!("{api}.DIRECT.GET.{bucket}.>"), "to read it"),
            (format!("$KV.{BUCKET}.>"), "to write it"),
        ]);
        let decided = decided::BUCKET;
        publish.extend([
            (
                format!("{api}.STREAM.INFO.KV_{decided}"),
                "the record of what was decided of stored events",
            ),
            (
                format!("{api}.STREAM.CREATE.KV_{decided}"),
                "only to make that record",
            ),
            (format!("{api}.DIRECT.GET.KV_{decided}.>"), "to read it"),
            (format!("$KV.{decided}.>"), "to write it"),
        ]);
        if config.stream.manage || config.stream.max_bytes.is_none() {
            let why = match config.stream.manage {
                true => "`stream.manage`",
                false => "only to make the stream: to leave half of the server's space to others",
            };
            publish.push((format!("{api}.STREAM.UPDATE.{stream}"), why));
        }
        if let Some(domain) = &config.nats.jetstream_domain {
            publish.push((
                format!("$JS.{domain}.API.$KV.{BUCKET}.>"),
                "to write it, across the domain",
            ));
            publish.push((
                format!("$JS.{domain}.API.$KV.{decided}.>"),
                "to write the record of decisions, across the domain",
            ));
        }
    }
    let mut subscribe = vec![
        (format!("{INBOX_PREFIX}.>"), "answers"),
        (nodes.clone(), "what nodes say to each other, and to themselves"),
    ];
    if !sources(true).is_empty() {
        subscribe.push((live.clone(), "durable events"));
        for subject in sources(true) {
            subscribe.push((subject.to_owned(), "only without JetStream"));
        }
    }
    for subject in sources(false) {
        subscribe.push((subject.to_owned(), "events of a core source"));
    }

    let mut text = format!(
        "# The least permissions of a Rivulet router, for its user in nats-server's configuration.\n\
         # Nobody at all but the server may publish on `{live}`, and nobody but routers on `{nodes}`: deny it to\n\
         # every other user.\n\
         permissions {{\n"
    );
    list(&mut text, "publish", &publish);
    list(&mut text, "subscribe", &subscribe);
    text.push_str("}\n");
    text
}

fn list(text: &mut String, action: &str, subjects: &[(String, &str)]) {
    let _ = writeln!(text, "  {action}: {{ allow: [");
    for (subject, why) in subjects {
        let _ = writeln!(text, "    \"{subject}\"  # {why}");
    }
    text.push_str("  ] }\n");
}
