//! Who connects: users, and the token of each.

use std::{collections::HashMap, fs, path::Path, time::Duration};

use anyhow::Context as _;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use rivulet_protocol::subject::UserId;
use rivulet_router::config::Config;

use crate::cli::{
    Failure,
    token::{Minter, Permissions},
};

/// The users of a run; a user's place is its number in the plan.
pub(super) struct Crowd {
    users: Vec<UserId>,
    tokens: Vec<String>,
}

impl Crowd {
    /// Nobody.
    pub(super) fn none() -> Self {
        Self {
            users: Vec::new(),
            tokens: Vec::new(),
        }
    }

    /// `user-0` and on: with tokens signed by `jwt_secret`, or their ids as tokens, as a router in development mode
    /// takes them.
    pub(super) fn named(count: usize, config: &Config, lifetime: Duration) -> Result<Self, Failure> {
        let minter = Minter::of(config);
        let (mut users, mut tokens) = (Vec::with_capacity(count), Vec::with_capacity(count));
        for number in 0..count {
            let user = UserId::parse(&format!("user-{number}")).expect("a short name");
            tokens.push(match &minter {
                Some(minter) => minter.mint(&user, lifetime, &Permissions::default())?,
                None => user.as_str().to_owned(),
            });
            users.push(user);
        }
        Ok(Self { users, tokens })
    }

    /// Those of a file with a token a line: the first `count`, or all. Whose a token is it says itself; one that is
    /// no JWT is a user's id.
    pub(super) fn of_file(path: &Path, count: Option<usize>, claim: &str) -> Result<Self, Failure> {
        let text = fs::read_to_string(path).with_context(|| format!("--tokens {}", path.display()))?;
        let crowd = Self::of_lines(&text, count, claim);
        crowd.map_err(|why| Failure::Usage(format!("--tokens {}: {why}", path.display())))
    }

    fn of_lines(text: &str, count: Option<usize>, claim: &str) -> Result<Self, String> {
        let mut lines_of = HashMap::new();
        let mut crowd = Self {
            users: Vec::new(),
            tokens: Vec::new(),
        };
        let lines = text.lines().map(str::trim).enumerate();
        let tokens = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        for (line, token) in tokens.take(count.unwrap_or(usize::MAX)) {
            let line = line + 1;
            // Not the token itself: it is a secret.
            let user = user_of(token, claim).ok_or_else(|| {
                format!("line {line} is neither a JWT with the claim `{claim}` nor the id of a user")
            })?;
            if let Some(other) = lines_of.insert(user.clone(), line) {
                return Err(format!(
                    "lines {other} and {line} are of the same user; `--sessions-per-user` gives a user several sessions"
                ));
            }
            crowd.users.push(user);
            crowd.tokens.push(token.to_owned());
        }
        match (crowd.users.len(), count) {
            (0, _) => Err("there is no token in it".to_owned()),
            (there, Some(count)) if there < count => {
                Err(format!("it has {there} tokens, and --users wants {count}"))
            }
            _ => Ok(crowd),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.users.len()
    }

    pub(super) fn user(&self, place: usize) -> &UserId {
        &self.users[place]
    }

    pub(super) fn token(&self, place: usize) -> &str {
        &self.tokens[place]
    }
}

/// Whose token it is, unverified: the router verifies.
fn user_of(token: &str, claim: &str) -> Option<UserId> {
    if token.chars().any(|character| !character.is_ascii_graphic()) {
        return None;
    }
    let [_, claims, _] = token.split('.').collect::<Vec<_>>()[..] else {
        return UserId::parse(token).ok();
    };
    let claims = URL_SAFE_NO_PAD.decode(claims).ok()?;
    let claims: serde_json::Value = serde_json::from_slice(&claims).ok()?;
    UserId::parse(claims[claim].as_str()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users(text: &str, count: Option<usize>) -> Result<Vec<String>, String> {
        let crowd = Crowd::of_lines(text, count, "sub")?;
        Ok(crowd.users.iter().map(|user| user.as_str().to_owned()).collect())
    }

    #[test]
    fn a_token_says_whose_it_is() {
        let ada = format!("h.{}.s", URL_SAFE_NO_PAD.encode(r#"{"sub":"ada","exp":1}"#));
        let text = format!("# tokens\n{ada}\n\n  bob  \n");
        assert_eq!(users(&text, None).unwrap(), ["ada", "bob"]);
        assert_eq!(users(&text, Some(1)).unwrap(), ["ada"]);
        assert!(users(&text, Some(3)).unwrap_err().contains("it has 2 tokens"));
        let twice = format!("{text}{ada}");
        assert!(users(&twice, None).unwrap_err().contains("lines 2 and 5"));
    }

    #[test]
    fn a_line_that_is_none_is_named_and_not_shown() {
        let without = format!("h.{}.s", URL_SAFE_NO_PAD.encode(r#"{"name":"ada"}"#));
        for line in [&without, "h.!!!.s", "two words"] {
            let why = users(line, None).unwrap_err();
            assert!(why.contains("line 1") && !why.contains(line), "{why}");
        }
        assert!(users("\n# none\n", None).is_err());
    }
}
