//! A `.creds` file: a user's JWT and the seed that signs for it, each between its lines of dashes.
//!
//! It is read at every connect, as what renews it does so without asking: the client library would keep what it read
//! at the start.

use std::{fs, path::Path};

use async_nats::Auth;
use nkeys::KeyPair;

/// The user that a file makes us.
pub(super) struct UserCredentials {
    jwt: String,
    key: KeyPair,
}

/// Reads a file.
///
/// # Errors
/// What is wrong with it, without what stands in it.
pub(super) fn read(path: &Path) -> Result<UserCredentials, String> {
    let text = fs::read_to_string(path).map_err(|fault| fault.to_string())?;
    let jwt = part(&text, "BEGIN NATS USER JWT").ok_or("it has no user's JWT")?;
    let seed = part(&text, "BEGIN USER NKEY SEED").ok_or("it has no user's seed")?;
    let key = KeyPair::from_seed(seed).map_err(|_| "its seed is none")?;
    Ok(UserCredentials {
        jwt: jwt.to_owned(),
        key,
    })
}

impl UserCredentials {
    /// The answer to the server's `nonce`.
    ///
    /// # Errors
    /// If the key can't sign.
    pub(super) fn sign(&self, nonce: &[u8]) -> Result<Auth, String> {
        let mut auth = Auth::new();
        auth.jwt = Some(self.jwt.clone());
        auth.signature = Some(self.key.sign(nonce).map_err(|_| "its seed does not sign")?);
        Ok(auth)
    }
}

/// The line that follows the one with this title.
fn part<'text>(text: &'text str, title: &str) -> Option<&'text str> {
    let mut lines = text.lines().map(str::trim);
    lines.find(|line| line.starts_with("---") && line.contains(title))?;
    lines
        .next()
        .filter(|line| !line.is_empty() && !line.starts_with("---"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_its_parts_is_named_for_what_it_lacks() {
        let directory = tempfile::tempdir().unwrap();
        let fault = |text: &str| {
            let path = directory.path().join("a.creds");
            fs::write(&path, text).unwrap();
            read(&path).err().unwrap()
        };
        assert_eq!(fault(""), "it has no user's JWT");
        let jwt = "-----BEGIN NATS USER JWT-----\r\nabc\r\n------END NATS USER JWT------\r\n";
        assert_eq!(fault(jwt), "it has no user's seed");
        let seed = format!("{jwt}\n-----BEGIN USER NKEY SEED-----\nSUA\n------END USER NKEY SEED------\n");
        assert_eq!(fault(&seed), "its seed is none");
    }
}
