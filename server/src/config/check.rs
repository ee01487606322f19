//! From what is written to what the rooms take: every check that one value or its kind can't make by itself.
//!
//! A value that is refused is reported and something harmless stands in for it, so that all problems are found
//! in one go. No stand-in is ever used: with a problem there is no [`Config`].

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use ipnet::IpNet;
use jsonwebtoken::Algorithm;
use rivulet_protocol::{event::EventType, pattern::Pattern};
use url::Url;

use super::{
    AudienceFrom, Auth, Commands, Config, DataFrom, Drain, Edge, Feed, FeedKind, History, Key, Limits, Log,
    Nats, NatsCredentials, NatsTls, Origin, Problem, Problems, Rate, Role, Secret, Sessions, Shape, Source,
    Stream, TypeFrom, key, key_file,
    load::{Found, shown},
    raw,
    scalar::Size,
    subject,
};

/// A drain's lame-duck time where clients come through somebody who asks for readiness: a probe a second, and one late.
const LAME_DUCK: Duration = Duration::from_secs(2);
/// The least bytes in a shared secret (RFC 7518, section 3.2, for HS256).
const MIN_SECRET_BYTES: usize = 32;
/// Subjects that are the router's or NATS's own: no source may overlap them.
pub(super) const RESERVED_SUBJECTS: [&str; 3] = ["command.>", "rivulet.>", "_INBOX.>"];

/// What a configuration is read for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To run a router: keys to check tokens with must be there.
    Router,
    /// To reach a router or its NATS: what only a router needs may be missing.
    Tool,
}

pub(super) fn check(found: Found, purpose: Purpose) -> Result<Config, Problems> {
    let Found {
        raw,
        origins,
        faulty,
        problems,
    } = found;
    let mut checker = Checker {
        origins,
        faulty,
        problems,
    };
    let config = checker.config(raw, purpose);
    let mut problems = checker.problems;
    // As one mends them: down the file, then the rest.
    problems.sort_by_key(|problem| match problem.origin {
        Origin::File { line, .. } => line,
        _ => usize::MAX,
    });
    if problems.is_empty() {
        Ok(config)
    } else {
        Err(Problems(problems))
    }
}

pub(super) struct Checker {
    origins: super::load::Origins,
    faulty: std::collections::BTreeSet<String>,
    problems: Vec<Problem>,
}

impl Checker {
    fn config(&mut self, mut raw: raw::Raw, purpose: Purpose) -> Config {
        let dev = raw.dev;
        let listen = self.address("listen", &raw.listen);
        let admin_listen = match raw.admin_listen.as_str() {
            "off" => None,
            address => Some(self.address("admin_listen", address)),
        };
        if dev && purpose == Purpose::Router {
            self.loopback("listen", Some(listen));
            self.loopback("admin_listen", admin_listen);
        }
        let data_dir = PathBuf::from(&raw.data_dir);
        if data_dir.exists() && !data_dir.is_dir() {
            self.refuse("data_dir", raw.data_dir.as_str(), "this is no directory");
        }
        let allowed_origins = self.each("allowed_origins", &raw.allowed_origins, origin);
        let limits = limits(&raw.limits, dev);
        let roles = raw
            .roles
            .iter()
            .map(|(name, role)| (name.clone(), self.role(name, role, dev)))
            .collect();
        if !raw.roles.contains_key(&raw.default_role) {
            let names: Vec<_> = raw.roles.keys().map(String::as_str).collect();
            self.refuse(
                "default_role",
                raw.default_role.as_str(),
                &format!("the roles are: {}", names.join(", ")),
            );
        }
        let catalog = self.catalog(raw.families.as_ref());
        if !self.origins.has("sources") {
            let more = self.sources_of_families(&catalog, &raw.sources);
            raw.sources.extend(more);
        }
        let sources = self.sources(&raw.sources, &raw.stream.republish_prefix);
        let feed = self.feed(raw.stream.feed, &sources);
        Config {
            dev,
            listen,
            admin_listen,
            data_dir,
            catalog,
            nats: self.nats(&raw),
            stream: self.stream(&raw.stream, feed),
            sources,
            auth: self.auth(&raw, purpose),
            roles,
            default_role: raw.default_role,
            edge: self.edge(&raw.edge, allowed_origins, dev),
            limits,
            sessions: self.sessions(&raw.sessions),
            history: History {
                max_bytes: bytes(raw.history.max_bytes),
                replays: whole(raw.history.replays),
                replay_deadline: raw.history.replay_deadline.duration(),
            },
            commands: self.commands(&raw.commands),
            drain: Drain {
                lame_duck: match raw.drain.lame_duck {
                    Some(lame_duck) => lame_duck.duration(),
                    None if dev => Duration::ZERO,
                    None => LAME_DUCK,
                },
                spread: raw.drain.spread.duration(),
                grace: raw.drain.grace.duration(),
            },
            log: self.log(raw.log),
        }
    }

    /// Reports a value, with what its key allows and what is wrong with this one.
    fn refuse(&mut self, path: &str, value: impl Into<serde_json::Value>, why: &str) {
        let field = field(path);
        let allowed = match &field.kind {
            key::Kind::List(item) => item.to_string(),
            kind => kind.to_string(),
        };
        let value = shown(&value.into(), field.secret);
        let message = match why {
            "" => format!("allowed is {allowed}"),
            why => format!("allowed is {allowed}; {why}"),
        };
        self.problems.push(Problem {
            key: path.to_owned(),
            value: Some(value),
            origin: self.origins.of(path),
            message,
        });
    }

    /// Reports what several values don't make together.
    pub(super) fn contradiction(&mut self, path: &str, value: Option<String>, message: String) {
        let origin = self.origins.of(path);
        self.problems.push(Problem {
            key: path.to_owned(),
            value,
            origin,
            message,
        });
    }

    /// Whether what stands under this key is what was written, not a default in place of something unreadable.
    fn sound(&self, path: &str) -> bool {
        !self.faulty.contains(path)
    }

    /// Reads a text, or reports it.
    fn text<T>(&mut self, path: &str, text: &str, read: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        let value = read(text);
        if value.is_none() {
            self.refuse(path, text, "");
        }
        value
    }

    /// Reads every item of a list, and reports those that are not as allowed.
    fn each<T>(&mut self, path: &str, items: &[String], read: impl Fn(&str) -> Option<T>) -> Vec<T> {
        let indexed = items.iter().enumerate();
        indexed
            .filter_map(|(index, item)| self.text(&format!("{path}[{index}]"), item, &read))
            .collect()
    }

    fn patterns(&mut self, path: &str, items: &[String]) -> Vec<Pattern> {
        let mut patterns = Vec::new();
        for (index, item) in items.iter().enumerate() {
            match item.parse::<Pattern>() {
                Ok(pattern) => patterns.push(pattern),
                Err(error) => self.refuse(&format!("{path}[{index}]"), item.as_str(), &error.to_string()),
            }
        }
        patterns
    }

    fn address(&mut self, path: &str, text: &str) -> SocketAddr {
        let address = self.text(path, text, |text| text.parse().ok());
        address.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    fn loopback(&mut self, path: &str, address: Option<SocketAddr>) {
        if let Some(address) = address.filter(|address| !address.ip().is_loopback()) {
            let message = "with `dev` anyone who can connect is whoever they say: allowed is a loopback \
                           address, such as 127.0.0.1:8010"
                .to_owned();
            self.contradiction(path, Some(format!("\"{address}\"")), message);
        }
    }

    fn file(&mut self, path: &str, file: Option<&String>) -> Option<PathBuf> {
        let file = file?;
        match fs::File::open(file).and_then(|opened| opened.metadata()) {
            Ok(metadata) if metadata.is_file() => {}
            Ok(_) => self.refuse(path, file.as_str(), "this is no file"),
            Err(error) => self.refuse(path, file.as_str(), &error.to_string()),
        }
        Some(PathBuf::from(file))
    }

    /// Two values that are given together or not at all.
    fn pair<'a, T>(&mut self, first: (&str, &'a Option<T>), second: (&str, &'a Option<T>)) -> bool {
        match (first.1, second.1) {
            (Some(_), None) => {
                self.contradiction(first.0, None, format!("needs `{}` beside it", second.0));
                false
            }
            (None, Some(_)) => {
                self.contradiction(second.0, None, format!("needs `{}` beside it", first.0));
                false
            }
            (first, _) => first.is_some(),
        }
    }

    fn nats(&mut self, raw: &raw::Raw) -> Nats {
        let nats = &raw.nats;
        let (urls, from_url) = self.nats_urls(&raw.nats_url);

        let mut credentials = vec![];
        if let Some(file) = self.file("nats.creds_file", nats.creds_file.as_ref()) {
            credentials.push(("nats.creds_file", NatsCredentials::File(file)));
        }
        if let Some(seed) = &nats.nkey_seed {
            let is_seed = seed.len() == 58
                && seed.starts_with("SU")
                && seed
                    .bytes()
                    .all(|byte| byte.is_ascii_uppercase() || matches!(byte, b'2'..=b'7'));
            if !is_seed {
                self.refuse("nats.nkey_seed", seed.as_str(), "");
            }
            credentials.push(("nats.nkey_seed", NatsCredentials::Nkey(Secret(seed.clone()))));
        }
        if self.pair(("nats.user", &nats.user), ("nats.password", &nats.password))
            && let (Some(user), Some(password)) = (&nats.user, &nats.password)
        {
            let password = Secret(password.clone());
            credentials.push((
                "nats.user",
                NatsCredentials::Password {
                    user: user.clone(),
                    password,
                },
            ));
        }
        if let Some(token) = &nats.token {
            credentials.push(("nats.token", NatsCredentials::Token(Secret(token.clone()))));
        }
        if let Some(from_url) = from_url {
            credentials.push(("nats_url", from_url));
        }
        if let [(_, _), (second, _), ..] = &credentials[..] {
            let names: Vec<_> = credentials.iter().map(|(name, _)| format!("`{name}`")).collect();
            let message = format!(
                "one way to say who the router is: allowed is one of {}",
                names.join(", ")
            );
            self.contradiction(second, None, message);
        }

        self.pair(
            ("nats.tls_cert_file", &nats.tls_cert_file),
            ("nats.tls_key_file", &nats.tls_key_file),
        );
        let certificate = self.file("nats.tls_cert_file", nats.tls_cert_file.as_ref());
        let certificate_key = self.file("nats.tls_key_file", nats.tls_key_file.as_ref());
        if let Some(domain) = &nats.jetstream_domain {
            let is_token = |text: &str| !text.contains(['.', '*', '>']) && subject::is_subject(text);
            self.text("nats.jetstream_domain", domain, |text| {
                is_token(text).then_some(())
            });
        }
        if raw.nats_url.is_empty() && self.sound("nats_url") {
            // All of these are about somebody else's servers; in silence they would do nothing.
            for key in [
                "creds_file",
                "nkey_seed",
                "user",
                "token",
                "tls_required",
                "tls_ca_file",
                "tls_cert_file",
                "jetstream_domain",
            ] {
                let path = format!("nats.{key}");
                if self.origins.has(&path) && self.sound(&path) {
                    let message = "needs `nats_url`: without it the router starts a nats-server of its own";
                    self.contradiction(&path, None, message.to_owned());
                }
            }
        }
        Nats {
            urls,
            credentials: credentials
                .into_iter()
                .next()
                .map_or(NatsCredentials::None, |(_, chosen)| chosen),
            tls: NatsTls {
                required: nats.tls_required,
                ca_file: self.file("nats.tls_ca_file", nats.tls_ca_file.as_ref()),
                client: certificate.zip(certificate_key),
            },
            jetstream_domain: nats.jetstream_domain.clone(),
            server_binary: self.file("nats.server_binary", nats.server_binary.as_ref()),
            leader_grace: nats.leader_grace.duration(),
        }
    }

    /// The servers without what stands before their hosts, and that.
    fn nats_urls(&mut self, texts: &[String]) -> (Vec<String>, Option<NatsCredentials>) {
        // A password with a comma in it falls apart into items of which not every one has its `@`.
        let masked = texts.iter().any(|text| text.contains('@'));
        let mut urls = Vec::new();
        let mut users = Vec::new();
        for (index, text) in texts.iter().enumerate() {
            let path = format!("nats_url[{index}]");
            let url = Url::parse(text).ok().filter(|url| {
                matches!(url.scheme(), "nats" | "tls")
                    && url.has_host()
                    && matches!(url.path(), "" | "/")
                    && url.query().is_none()
                    && url.fragment().is_none()
            });
            let Some(mut url) = url else {
                self.refuse(&path, if masked { "***" } else { text }, "");
                continue;
            };
            let user = (!url.username().is_empty()).then(|| {
                let decoded = |text: &str| {
                    percent_encoding::percent_decode_str(text)
                        .decode_utf8_lossy()
                        .into_owned()
                };
                (decoded(url.username()), url.password().map(decoded))
            });
            if index > 0 && users.first() != Some(&user) {
                let message = "allowed is the same user and password, or token, in every URL".to_owned();
                self.contradiction(&path, None, message);
            }
            users.push(user);
            // Both only fail for URLs without a host.
            let _ = url.set_username("");
            let _ = url.set_password(None);
            urls.push(url.to_string());
        }
        let credentials = users
            .into_iter()
            .next()
            .flatten()
            .map(|(user, password)| match password {
                Some(password) => NatsCredentials::Password {
                    user,
                    password: Secret(password),
                },
                None => NatsCredentials::Token(Secret(user)),
            });
        (urls, credentials)
    }

    fn stream(&mut self, raw: &raw::Stream, feed: Feed) -> Stream {
        let named = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        self.text("stream.name", &raw.name, |name| {
            (name.len() <= 64 && name.bytes().all(named)).then_some(())
        });
        self.text("stream.republish_prefix", &raw.republish_prefix, |prefix| {
            (subject::is_subject(prefix) && !prefix.contains(['*', '>'])).then_some(())
        });
        if raw.duplicate_window > raw.max_age && self.sound("stream.duplicate_window") {
            self.refuse(
                "stream.duplicate_window",
                raw.duplicate_window.to_string(),
                &format!("no more than `stream.max_age`, {}", raw.max_age),
            );
        }
        if raw.take_over && !raw.manage && self.sound("stream.manage") {
            let message = "needs `stream.manage` beside it: without it no stream is altered";
            self.contradiction("stream.take_over", None, message.to_owned());
        }
        Stream {
            name: raw.name.clone(),
            replicas: raw.replicas.map(whole),
            max_age: raw.max_age.duration(),
            max_bytes: raw.max_bytes.map(|size| size.0),
            duplicate_window: raw.duplicate_window.duration(),
            manage: raw.manage,
            take_over: raw.take_over,
            republish_prefix: raw.republish_prefix.clone(),
            feed,
        }
    }

    /// The feed by user, if every durable source lets a stream republish by user: it has one mapping for all.
    fn feed(&mut self, kind: FeedKind, sources: &[Source]) -> Feed {
        if kind == FeedKind::Whole {
            return Feed::Whole;
        }
        let mut first: Option<(usize, Shape)> = None;
        for (index, source) in sources.iter().enumerate().filter(|(_, source)| source.durable) {
            let subject = &source.subject;
            let shape = match source.audience {
                _ if subject.split('.').any(|token| token == ">") => {
                    Err("has any number of tokens: write `*` for each in place of `>`".to_owned())
                }
                AudienceFrom::Token(user) => Ok(Shape {
                    tokens: subject.split('.').count(),
                    user,
                }),
                _ => Err("does not name its user: set its `audience` to `token:N`, where N is the place of the user in the subject, counted from 0".to_owned()),
            };
            let shape = shape.and_then(|shape| match first {
                Some((other, others)) if others != shape => Err(format!(
                    "has {} tokens with the user at {}, and `{}` of sources[{other}] has {} with the user at {}: give them the same shape",
                    shape.tokens, shape.user, sources[other].subject, others.tokens, others.user
                )),
                _ => Ok(shape),
            });
            match shape {
                Ok(shape) => first = first.or(Some((index, shape))),
                Err(why) => {
                    let message = format!(
                        "`{subject}` of sources[{index}] {why}; or make it a core source (`durable = false`), or leave `stream.feed` at `whole`"
                    );
                    self.contradiction("stream.feed", Some("\"by_user\"".to_owned()), message);
                    return Feed::Whole;
                }
            }
        }
        // Without a durable source there is no stream.
        first.map_or(Feed::Whole, |(_, shape)| Feed::ByUser(shape))
    }

    fn sources(&mut self, raw: &[raw::Source], republish_prefix: &str) -> Vec<Source> {
        if raw.is_empty() {
            let message = "allowed is at least one source: without any no event ever comes".to_owned();
            self.contradiction("sources", Some("[]".to_owned()), message);
        }
        let republished = format!("{republish_prefix}.>");
        let mut sources: Vec<Source> = Vec::new();
        for (index, source) in raw.iter().enumerate() {
            let path = |key: &str| format!("sources[{index}].{key}");
            let subject = source.subject.as_str();
            if subject::is_subject(subject) {
                let reserved = RESERVED_SUBJECTS
                    .into_iter()
                    .chain([republished.as_str()])
                    .find(|reserved| subject::overlap(subject, reserved));
                let earlier = sources
                    .iter()
                    .position(|other| subject::overlap(subject, &other.subject));
                if subject.starts_with('$') {
                    self.refuse(&path("subject"), subject, "subjects from `$` on are NATS's own");
                } else if let Some(reserved) = reserved {
                    self.refuse(&path("subject"), subject, &format!("this overlaps `{reserved}`"));
                } else if let Some(earlier) = earlier {
                    let other = &sources[earlier].subject;
                    let why = format!("this overlaps `{other}` of sources[{earlier}]");
                    self.refuse(&path("subject"), subject, &why);
                }
            } else {
                self.refuse(&path("subject"), subject, "");
            }
            let event_type = self.event_type(&path("type"), &source.event_type, subject);
            let audience = self.audience(&path("audience"), &source.audience, subject, &event_type);
            let type_prefix = source.type_prefix.as_deref().and_then(|prefix| {
                self.text(&path("type_prefix"), prefix, |prefix| {
                    EventType::parse(prefix)
                        .ok()
                        .filter(|_| prefix.split('.').count() < 8)
                })
            });
            let data = self.text(&path("data"), &source.data, |data| match data.split_once(':') {
                None if data == "payload" => Some(DataFrom::Payload),
                Some(("field", name)) if !name.is_empty() => Some(DataFrom::Field(name.to_owned())),
                _ => None,
            });
            let data = data.unwrap_or(DataFrom::Payload);
            if let Some((field, holds)) = one_field_twice(&audience, &event_type, &data) {
                let why = format!("the field `{field}` is where the event's {holds} stands");
                self.refuse(&path("audience"), source.audience.as_str(), &why);
            }
            sources.push(Source {
                subject: source.subject.clone(),
                durable: source.durable,
                event_type,
                type_prefix,
                data,
                audience,
                validate: source.validate,
            });
        }
        sources
    }

    fn event_type(&mut self, path: &str, text: &str, subject: &str) -> TypeFrom {
        let (form, argument) = text.split_once(':').unwrap_or((text, ""));
        match (form, argument) {
            ("subject", tokens) if (1..=8).contains(&tokens.parse().unwrap_or(0)) => {
                let tokens = tokens.parse().unwrap_or(1);
                let least = subject.split('.').count();
                if tokens > least {
                    let why = format!("tokens in the shortest subject of `{subject}`: {least}");
                    self.refuse(path, text, &why);
                }
                TypeFrom::Subject { tokens }
            }
            ("header", name) if is_header_name(name) => TypeFrom::Header(name.to_owned()),
            ("field", name) if !name.is_empty() => TypeFrom::Field(name.to_owned()),
            _ => {
                self.refuse(path, text, "");
                TypeFrom::Header(String::new())
            }
        }
    }

    fn audience(&mut self, path: &str, text: &str, subject: &str, event_type: &TypeFrom) -> AudienceFrom {
        if let Some(name) = text.strip_prefix("payload:").filter(|name| !name.is_empty()) {
            return AudienceFrom::Field(name.to_owned());
        }
        match text
            .split_once(':')
            .map(|(form, index)| (form, index.parse::<usize>()))
        {
            None if text == "auto" => AudienceFrom::Auto,
            None if text == "header" => AudienceFrom::Header,
            None if text == "payload" => AudienceFrom::Payload,
            None if text == "everyone" => AudienceFrom::Everyone,
            Some(("token", Ok(index))) => {
                match subject.split('.').nth(index) {
                    // NATS takes subjects of any number of tokens; nobody has 32.
                    None if !subject.ends_with('>') || index >= 32 => {
                        let why = format!("`{subject}` has no token {index}, counted from 0");
                        self.refuse(path, text, &why);
                    }
                    Some(literal) if !matches!(literal, "*" | ">") => {
                        let why = format!("token {index} of `{subject}` is always `{literal}`, never a user");
                        self.refuse(path, text, &why);
                    }
                    _ => {}
                }
                if let TypeFrom::Subject { tokens } = event_type
                    && index < *tokens
                {
                    let why = format!("token {index} is one of the {tokens} that are the event's type");
                    self.refuse(path, text, &why);
                }
                AudienceFrom::Token(index)
            }
            _ => {
                self.refuse(path, text, "");
                AudienceFrom::Auto
            }
        }
    }

    fn auth(&mut self, raw: &raw::Raw, purpose: Purpose) -> Auth {
        let auth = &raw.auth;
        let mut keys = Vec::new();
        if let Some(secret) = &raw.jwt_secret {
            let algorithms = auth.secret_algorithms.clone();
            keys.extend(self.secret("jwt_secret", secret, algorithms));
        }
        for (index, key) in auth.keys.iter().enumerate() {
            keys.extend(self.key(&format!("auth.keys[{index}]"), key));
        }
        let jwks_url = raw
            .jwks_url
            .as_ref()
            .and_then(|text| self.text("jwks_url", text, jwks_url));
        for (key, given, path, algorithms) in [
            (
                "jwt_secret",
                raw.jwt_secret.is_some(),
                "auth.secret_algorithms",
                &auth.secret_algorithms,
            ),
            (
                "jwks_url",
                raw.jwks_url.is_some(),
                "auth.jwks_algorithms",
                &auth.jwks_algorithms,
            ),
        ] {
            if given && algorithms.is_empty() {
                let message = format!("allowed is at least one algorithm beside `{key}`");
                self.contradiction(path, Some("[]".to_owned()), message);
            }
        }
        let none_given = raw.jwt_secret.is_none() && auth.keys.is_empty() && raw.jwks_url.is_none();
        let all_sound = ["jwt_secret", "jwks_url", "auth.keys", "dev"]
            .iter()
            .all(|key| self.sound(key));
        if none_given && all_sound && !raw.dev && purpose == Purpose::Router {
            let message = "there is no key to check tokens with: set this (RIVULET_JWT_SECRET), or \
                           `jwks_url` (RIVULET_JWKS_URL), or `auth.keys`; or try it out with `--dev`"
                .to_owned();
            self.contradiction("jwt_secret", None, message);
        }
        Auth {
            keys,
            jwks_url,
            jwks_algorithms: auth.jwks_algorithms.clone(),
            jwks_refresh: auth.jwks_refresh.duration(),
            issuers: auth.issuers.clone(),
            audiences: auth.audiences.clone(),
            user_claim: auth.user_claim.clone(),
            expiry_leeway: auth.expiry_leeway.duration(),
            not_before_leeway: auth.not_before_leeway.duration(),
        }
    }

    /// The algorithms, all of those that fit.
    fn algorithms(&mut self, path: &str, written: &[Algorithm], fitting: &[Algorithm]) -> Vec<Algorithm> {
        for (index, algorithm) in written.iter().enumerate() {
            if !fitting.contains(algorithm) {
                let path = format!("{path}[{index}]");
                let message = format!("allowed is one of {}, which fit the key", names(fitting));
                self.contradiction(&path, Some(format!("\"{algorithm:?}\"")), message);
            }
        }
        written.to_vec()
    }

    fn secret(&mut self, path: &str, secret: &str, algorithms: Vec<Algorithm>) -> Option<Key> {
        if secret.len() < MIN_SECRET_BYTES {
            let message = format!(
                "allowed is a text of at least {MIN_SECRET_BYTES} bytes; this has {}. \
                 `openssl rand -base64 33` makes one",
                secret.len()
            );
            self.contradiction(path, Some("***".to_owned()), message);
            return None;
        }
        Some(Key::Secret {
            secret: Secret(secret.to_owned()),
            algorithms,
        })
    }

    fn key(&mut self, path: &str, key: &raw::Key) -> Option<Key> {
        let given = [&key.secret, &key.secret_file, &key.pem, &key.pem_file];
        if given.iter().filter(|given| given.is_some()).count() != 1 {
            let message = "allowed is exactly one of `secret`, `secret_file`, `pem`, `pem_file`".to_owned();
            self.contradiction(path, None, message);
            return None;
        }
        let algorithms_path = format!("{path}.algorithms");
        if let Some((place, secret)) =
            self.given_or_read(path, ("secret", &key.secret), ("secret_file", &key.secret_file))
        {
            let written = if key.algorithms.is_empty() {
                key_file::SECRET
            } else {
                key.algorithms.as_slice()
            };
            let algorithms = self.algorithms(&algorithms_path, written, key_file::SECRET);
            return self.secret(&place, secret.trim_end_matches(['\r', '\n']), algorithms);
        }
        let (place, pem) = self.given_or_read(path, ("pem", &key.pem), ("pem_file", &key.pem_file))?;
        let fitting = match key_file::algorithms_of_pem(&pem) {
            Ok(fitting) => fitting,
            Err(why) => {
                let value = key.pem_file.as_deref().unwrap_or("…");
                self.refuse(&place, value, why);
                return None;
            }
        };
        let written = if key.algorithms.is_empty() {
            fitting
        } else {
            key.algorithms.as_slice()
        };
        let algorithms = self.algorithms(&algorithms_path, written, fitting);
        Some(Key::Pem { pem, algorithms })
    }

    /// A text that stands in the configuration or in a file, and under which key.
    fn given_or_read(
        &mut self,
        path: &str,
        (key, text): (&str, &Option<String>),
        (file_key, file): (&str, &Option<String>),
    ) -> Option<(String, String)> {
        if let Some(text) = text {
            return Some((format!("{path}.{key}"), text.clone()));
        }
        let (place, file) = (format!("{path}.{file_key}"), file.as_ref()?);
        match fs::read_to_string(Path::new(file)) {
            Ok(text) => Some((place, text)),
            Err(error) => {
                self.refuse(&place, file.as_str(), &error.to_string());
                None
            }
        }
    }

    fn role(&mut self, name: &str, raw: &raw::Role, dev: bool) -> Role {
        let events = self.patterns(&format!("roles.{name}.events"), &raw.events);
        let is_command = |command: &str| {
            let named = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
            (command == "*" || (!command.is_empty() && command.bytes().all(named)))
                .then(|| command.to_owned())
        };
        let commands = self.each(&format!("roles.{name}.commands"), &raw.commands, is_command);
        Role {
            events,
            commands,
            devices_per_user: if dev {
                Some(0)
            } else {
                raw.devices_per_user.map(whole)
            },
        }
    }

    fn edge(&mut self, raw: &raw::Edge, allowed_origins: Vec<String>, dev: bool) -> Edge {
        let network = |text: &str| {
            text.parse::<IpNet>()
                .ok()
                .or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
        };
        Edge {
            allowed_origins,
            trusted_proxies: self.each("edge.trusted_proxies", &raw.trusted_proxies, network),
            header_timeout: raw.header_timeout.duration(),
            max_header_bytes: bytes(raw.max_header_bytes),
            max_pending_handshakes: whole(raw.max_pending_handshakes),
            max_pending_handshakes_per_address: match raw.max_pending_handshakes_per_address {
                _ if dev => 0,
                Some(most) => whole(most),
                None => whole(raw.max_pending_handshakes / 10).max(1),
            },
            max_connections: whole(raw.max_connections),
        }
    }

    fn sessions(&mut self, raw: &raw::Sessions) -> Sessions {
        let quarter = raw.outbox_bytes.0 / 4;
        let sound = self.sound("sessions.max_event_bytes") && self.sound("sessions.outbox_bytes");
        if raw.max_event_bytes.0 > quarter && sound {
            self.refuse(
                "sessions.max_event_bytes",
                raw.max_event_bytes.to_string(),
                &format!(
                    "no more than a quarter of `sessions.outbox_bytes`, {}",
                    Size(quarter)
                ),
            );
        }
        Sessions {
            heartbeat: raw.heartbeat.duration(),
            default_patterns: self.patterns("sessions.default_patterns", &raw.default_patterns),
            outbox_events: whole(raw.outbox_events),
            outbox_bytes: bytes(raw.outbox_bytes),
            max_event_bytes: bytes(raw.max_event_bytes),
            linger: raw.linger.duration(),
            write_deadline: raw.write_deadline.duration(),
            compression: raw.compression,
            compression_threshold: bytes(raw.compression_threshold),
            compression_level: raw.compression_level,
        }
    }

    fn commands(&mut self, raw: &raw::Commands) -> Commands {
        let sound = self.sound("commands.remember") && self.sound("commands.deadline");
        if raw.remember < raw.deadline && sound {
            self.refuse(
                "commands.remember",
                raw.remember.to_string(),
                &format!("no less than `commands.deadline`, {}", raw.deadline),
            );
        }
        Commands {
            deadline: raw.deadline.duration(),
            in_flight: whole(raw.in_flight),
            remember: raw.remember.duration(),
        }
    }

    fn log(&mut self, raw: raw::Log) -> Log {
        if tracing_subscriber::EnvFilter::try_new(&raw.filter).is_err() {
            self.refuse("log.filter", raw.filter.as_str(), "");
        }
        Log {
            filter: raw.filter,
            format: raw.format,
        }
    }
}

/// In development nobody is counted: a page that is reloaded all day by one address is the use of it.
fn limits(raw: &raw::Limits, dev: bool) -> Limits {
    let rate = |rate: &raw::Rate| Rate {
        burst: rate.burst,
        per_second: rate.per_second,
    };
    Limits {
        devices_per_user: if dev { 0 } else { whole(raw.devices_per_user) },
        connections_per_address: if dev {
            0
        } else {
            whole(raw.connections_per_address)
        },
        handshakes_per_address: if dev { 0 } else { raw.handshakes_per_address },
        max_patterns: whole(raw.max_patterns),
        max_message_bytes: bytes(raw.max_message_bytes),
        bad_messages_per_minute: raw.bad_messages_per_minute,
        ping: rate(&raw.ping),
        subscribe: rate(&raw.subscribe),
        other: rate(&raw.other),
    }
}

/// The field of a path such as `sources[0].type`, `roles.viewer.events[1]` or `limits.ping.burst`.
fn field(path: &str) -> &'static key::Field {
    let mut fields = key::description();
    let mut found = None;
    for name in path
        .split('.')
        .map(|segment| segment.split('[').next().unwrap_or_default())
    {
        let Some(field) = fields.iter().find(|field| field.name == name) else {
            continue; // The name of a role.
        };
        found = Some(field);
        fields = match &field.kind {
            key::Kind::Table(inner) | key::Kind::Named(inner) => inner,
            key::Kind::List(item) => match &**item {
                key::Kind::Table(inner) => inner,
                _ => &[],
            },
            _ => &[],
        };
    }
    found.expect("a checked path begins with a key")
}

/// As a browser writes an `Origin` (RFC 6454, section 6.1): lower case, no default port, no path.
fn origin(text: &str) -> Option<String> {
    let url = Url::parse(text).ok()?;
    let host = url
        .host_str()
        .filter(|host| !host.is_empty() && !host.contains('*'))?
        .to_lowercase();
    let bare = matches!(url.path(), "" | "/")
        && !text.ends_with('/')
        && url.query().is_none()
        && url.fragment().is_none()
        && url.username().is_empty()
        && url.password().is_none();
    let port = url.port().map_or_else(String::new, |port| format!(":{port}"));
    bare.then(|| format!("{}://{host}{port}", url.scheme()))
}

/// Keys that somebody on the way could exchange would check nothing: TLS, or the same machine.
fn jwks_url(text: &str) -> Option<String> {
    let url = Url::parse(text).ok()?;
    let local = match url.host()? {
        url::Host::Domain(name) => name == "localhost",
        url::Host::Ipv4(address) => address.is_loopback(),
        url::Host::Ipv6(address) => address.is_loopback(),
    };
    let anonymous = url.username().is_empty() && url.password().is_none();
    (anonymous && (url.scheme() == "https" || (url.scheme() == "http" && local))).then(|| text.to_owned())
}

/// RFC 9110, section 5.6.2: a token.
/// The field of the payload that would be the audience and also the type or the data, and which of these.
fn one_field_twice<'a>(
    audience: &'a AudienceFrom,
    event_type: &TypeFrom,
    data: &DataFrom,
) -> Option<(&'a str, &'static str)> {
    let user = match audience {
        AudienceFrom::Field(name) => name.as_str(),
        AudienceFrom::Payload | AudienceFrom::Auto => "user_id",
        AudienceFrom::Token(_) | AudienceFrom::Header | AudienceFrom::Everyone => return None,
    };
    if matches!(event_type, TypeFrom::Field(name) if name == user) {
        return Some((user, "type"));
    }
    matches!(data, DataFrom::Field(name) if name == user).then_some((user, "data"))
}

fn is_header_name(name: &str) -> bool {
    http::HeaderName::from_bytes(name.as_bytes()).is_ok()
}

fn names(algorithms: &[Algorithm]) -> String {
    algorithms
        .iter()
        .map(|algorithm| format!("{algorithm:?}"))
        .collect::<Vec<_>>()
        .join(", ")
}

fn bytes(size: Size) -> usize {
    whole(size.0)
}

/// A number whose bound is far below what the machine counts.
fn whole(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
