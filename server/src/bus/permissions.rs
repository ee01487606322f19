//! The least that a router needs to be permitted in NATS, and what it needs others to be denied.

use std::fmt::Write as _;

use super::{
    connect::{INBOX_PREFIX, NODES, api},
    decided, filter,
    memory::BUCKET,
    rejected,
};
use crate::config::Config;

/// Subjects that a user of NATS is to have, or not; each with the reason.
#[derive(Debug)]
pub(super) struct Rights {
    pub(super) publish: Vec<(String, &'static str)>,
    pub(super) subscribe: Vec<(String, &'static str)>,
}

impl Rights {
    /// Each with what it is a right to do.
    pub(super) fn each(&self) -> impl Iterator<Item = (&'static str, &str, &'static str)> {
        let subscribe = self.subscribe.iter().map(|right| ("subscribe to", right));
        let publish = self.publish.iter().map(|right| ("publish on", right));
        let all = subscribe.chain(publish);
        all.map(|(action, (subject, why))| (action, subject.as_str(), *why))
    }
}

/// The least NATS permissions of a router with this configuration, as a block of nats-server's own
/// configuration; in a comment behind it, what every other user is denied.
pub fn permissions(config: &Config) -> String {
    let mut text = "# The least permissions of a Rivulet router, for its user in nats-server's configuration.\npermissions {\n"
        .to_owned();
    let needed = needed(config);
    list(&mut text, "publish", "allow", &needed.publish);
    list(&mut text, "subscribe", "allow", &needed.subscribe);
    text.push_str("}\n");
    others(&mut text, &denied(config));
    text
}

/// The least that a router with this configuration needs.
pub(super) fn needed(config: &Config) -> Rights {
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
        (nodes, "what nodes say to each other, and to themselves"),
    ];
    if !sources(true).is_empty() {
        subscribe.push((live, "durable events"));
        for subject in sources(true) {
            subscribe.push((subject.to_owned(), "only without JetStream"));
        }
    }
    for subject in sources(false) {
        subscribe.push((subject.to_owned(), "events of a core source"));
    }

    Rights { publish, subscribe }
}

/// What every other user of the account is denied.
pub(super) fn denied(config: &Config) -> Rights {
    let api = api(config.nats.jetstream_domain.as_deref());
    let durable = config.sources.iter().any(|source| source.durable);
    let live = format!("{}.>", config.stream.republish_prefix);
    let rejected = format!("{}.>", rejected::PREFIX);
    let mut publish = vec![
        (format!("{INBOX_PREFIX}.>"), "forged answers"),
        (format!("{NODES}.>"), "forged words of a router"),
        (
            "command.*".to_owned(),
            "commands in any user's name; only routers send them",
        ),
        (rejected.clone(), "forged rejections; only routers send them"),
    ];
    let mut subscribe = vec![
        (
            format!("{INBOX_PREFIX}.>"),
            "replies to commands, events that are read back",
        ),
        (format!("{NODES}.>"), "who is here, and what events are whose"),
        (
            "command.*".to_owned(),
            "unless it answers them: what clients send",
        ),
        (
            rejected,
            "unless it runs `rivulet tail --rejected`: events of all users",
        ),
    ];
    if durable {
        let decided = decided::BUCKET;
        publish.push((live.clone(), "forged events; only nats-server sends them"));
        publish.push((format!("$KV.{BUCKET}.>"), "forged kept replies"));
        publish.push((format!("$KV.{decided}.>"), "forged decisions on stored events"));
        for (name, why) in [
            (
                config.stream.name.clone(),
                "events of all users, read, altered or removed",
            ),
            (format!("KV_{BUCKET}"), "kept replies, read, altered or removed"),
            (
                format!("KV_{decided}"),
                "decisions on stored events, read, altered or removed",
            ),
        ] {
            publish.extend(
                [
                    "STREAM.*",
                    "STREAM.*.*",
                    "DIRECT.GET",
                    "CONSUMER.*",
                    "CONSUMER.*.*",
                ]
                .map(|call| (format!("{api}.{call}.{name}"), why)),
            );
            publish.extend(
                ["DIRECT.GET", "CONSUMER.*", "CONSUMER.*.*"]
                    .map(|call| (format!("{api}.{call}.{name}.>"), why)),
            );
        }
        publish.push((
            format!("{api}.STREAM.CREATE.>"),
            "unless it makes streams: one can copy these",
        ));
        publish.push((
            format!("{api}.STREAM.UPDATE.>"),
            "unless it makes streams: the same",
        ));
        subscribe.push((live, "events of all users"));
        subscribe.push((format!("$KV.{BUCKET}.>"), "kept replies"));
        subscribe.push((
            format!("$KV.{decided}.>"),
            "which sequences were decided, and how",
        ));
        subscribe.push((format!("{api}.>"), "to which inbox an answer goes"));
    }
    Rights { publish, subscribe }
}

/// The same as a comment: it stands in the blocks of others, not in the router's.
fn others(text: &mut String, rights: &Rights) {
    let mut denied = String::new();
    list(&mut denied, "publish", "deny", &rights.publish);
    list(&mut denied, "subscribe", "deny", &rights.subscribe);
    text.push_str(
        "\n# Every other user of the account is denied this. A backend that answers commands subscribes to its own, as\n\
         # `command.create_blob`, and has `allow_responses: true`: then it may send the answer, and nothing else there.\n\
         # permissions {\n",
    );
    for line in denied.lines() {
        let _ = writeln!(text, "# {line}");
    }
    text.push_str("# }\n");
}

fn list(text: &mut String, action: &str, rule: &str, subjects: &[(String, &str)]) {
    let _ = writeln!(text, "  {action}: {{ {rule}: [");
    for (subject, why) in subjects {
        let _ = writeln!(text, "    \"{subject}\"  # {why}");
    }
    text.push_str("  ] }\n");
}
