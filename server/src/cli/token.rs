//! `rivulet token`: mint a development token.

use std::time::{Duration, SystemTime};

use clap::Args;
use jsonwebtoken::{EncodingKey, Header};
use rivulet_protocol::{pattern::Pattern, subject::UserId};
use rivulet_router::config::{self, Config, Key};
use serde_json::{Map, Value, json};

use super::{Failure, Settings, print};

#[derive(Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Token {
    /// Whose token it is
    #[arg(long, value_name = "ID", value_parser = UserId::parse)]
    user: UserId,
    /// For how long it counts
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = lifetime)]
    ttl: Duration,
    #[command(flatten)]
    permissions: Permissions,
    #[command(flatten)]
    settings: Settings,
}

/// What the token says of its user's permissions; what it leaves out is its role's.
#[derive(Args, Default)]
pub(crate) struct Permissions {
    /// Permit these event types, with commas between, as in `blob.*,processor.>`
    #[arg(long, value_name = "PATTERNS", value_delimiter = ',')]
    events: Option<Vec<Pattern>>,
    /// Permit these commands, with commas between
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    commands: Option<Vec<String>>,
    /// Subscribe to these patterns from the start
    #[arg(long, value_name = "PATTERNS", value_delimiter = ',')]
    subscribe: Option<Vec<Pattern>>,
    /// Be of this role
    #[arg(long, value_name = "NAME")]
    role: Option<String>,
}

const AFTER_HELP: &str = "\
The token is signed with the router's own shared secret (`jwt_secret`, RIVULET_JWT_SECRET): for development and \
scripts. In production the application's backend signs tokens, where it knows who somebody is.

Examples:
  rivulet token --user u1
  rivulet token --user u1 --ttl 5m --events 'blob.*,processor.*' --commands create_blob
  RIVULET_TOKEN=$(rivulet token --user u1) rivulet tail 'blob.*'

A router in development mode (`rivulet serve --dev`) needs none of it: there any user id is a token.";

impl Token {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let config = self.settings.load()?;
        let Some(minter) = Minter::of(&config) else {
            return Err(Failure::Usage(
                "there is no secret to sign with: set `jwt_secret` (RIVULET_JWT_SECRET) to the router's. A \
                 router in development mode needs no token: its clients name a user, as in \
                 `rivulet tail --user u1`"
                    .to_owned(),
            ));
        };
        if let Some(role) = self
            .permissions
            .role
            .as_ref()
            .filter(|role| !config.roles.contains_key(*role))
        {
            let names: Vec<_> = config.roles.keys().map(String::as_str).collect();
            let names = names.join(", ");
            return Err(Failure::Usage(format!("--role {role}: the roles are: {names}")));
        }
        print(minter.mint(&self.user, self.ttl, &self.permissions)?)?;
        Ok(())
    }
}

/// What tokens are made with.
pub(crate) struct Minter {
    header: Header,
    key: EncodingKey,
    user_claim: String,
    issuer: Option<String>,
    audience: Option<String>,
}

impl Minter {
    /// With the first shared secret of the configuration.
    pub(crate) fn of(config: &Config) -> Option<Self> {
        config.auth.keys.iter().find_map(|key| match key {
            Key::Secret { secret, algorithms } => Some(Self {
                header: Header::new(*algorithms.first()?),
                key: EncodingKey::from_secret(secret.0.as_bytes()),
                user_claim: config.auth.user_claim.clone(),
                issuer: config.auth.issuers.first().cloned(),
                audience: config.auth.audiences.first().cloned(),
            }),
            Key::Pem { .. } => None,
        })
    }

    /// A token of this user that ends after `lifetime`.
    pub(crate) fn mint(
        &self,
        user: &UserId,
        lifetime: Duration,
        permissions: &Permissions,
    ) -> anyhow::Result<String> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
        let mut claims = Map::new();
        claims.insert(self.user_claim.clone(), user.as_str().into());
        claims.insert("iat".to_owned(), now.as_secs().into());
        // A claim in whole seconds: rounded up, so that a short token lives at all.
        let ends = (now + lifetime + Duration::from_millis(999)).as_secs();
        claims.insert("exp".to_owned(), ends.into());
        claims.extend(
            self.issuer
                .as_ref()
                .map(|issuer| ("iss".to_owned(), issuer.as_str().into())),
        );
        claims.extend(
            self.audience
                .as_ref()
                .map(|audience| ("aud".to_owned(), audience.as_str().into())),
        );
        claims.extend(permissions.claim().map(|claim| ("rivulet".to_owned(), claim)));
        Ok(jsonwebtoken::encode(&self.header, &claims, &self.key)?)
    }
}

impl Permissions {
    /// The claim `rivulet`, if there is anything to claim.
    fn claim(&self) -> Option<Value> {
        let claim: Map<_, _> = [
            ("events", self.events.as_ref().map(|events| json!(events))),
            ("commands", self.commands.as_ref().map(|commands| json!(commands))),
            (
                "subscribe",
                self.subscribe.as_ref().map(|subscribe| json!(subscribe)),
            ),
            ("role", self.role.as_ref().map(|role| json!(role))),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)))
        .collect();
        (!claim.is_empty()).then_some(Value::Object(claim))
    }
}

fn lifetime(text: &str) -> Result<Duration, String> {
    let lifetime = config::duration(text).filter(|lifetime| !lifetime.is_zero());
    lifetime.ok_or_else(|| "a duration such as 30s, 15m, 1h, 7d is wanted".to_owned())
}
