//! Whatever id a user has: it becomes one token of a subject and comes back the same, and no two tokens mean one
//! user.

#![no_main]

use libfuzzer_sys::fuzz_target;
use rivulet_protocol::subject::{EVERYONE_TOKEN, UserId};

fuzz_target!(|text: &str| {
    if let Ok(user) = UserId::parse(text) {
        assert_eq!(user.as_str(), text);
        let token = user.escaped();
        assert!(!token.is_empty() && token.len() <= 3 * text.len());
        assert!(
            token
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"_-=".contains(&byte)),
            "{token}"
        );
        assert_ne!(token, EVERYONE_TOKEN);
        assert_eq!(UserId::unescape(&token), Ok(user));
    }
    if let Ok(user) = UserId::unescape(text) {
        assert_eq!(user.escaped(), text, "another spelling was read");
    }
});
