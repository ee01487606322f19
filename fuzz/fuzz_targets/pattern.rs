//! Whatever is written as a pattern: what is read prints as it was written, and what lies within another pattern
//! matches nothing that the other doesn't.
//!
//! The input is two patterns and the name of an event type, in a line each.

#![no_main]

use libfuzzer_sys::fuzz_target;
use rivulet_protocol::{event::EventType, pattern::Pattern};

fuzz_target!(|text: &str| {
    let mut lines = text.split('\n');
    let [narrow, wide, name] = [(); 3].map(|()| lines.next().unwrap_or_default());
    let patterns = [narrow, wide].map(|text| text.parse::<Pattern>().ok());
    for (pattern, text) in patterns.iter().zip([narrow, wide]) {
        let Some(pattern) = pattern else { continue };
        assert_eq!(pattern.to_string(), text);
        let json = serde_json::to_string(pattern).unwrap();
        assert_eq!(&serde_json::from_str::<Pattern>(&json).unwrap(), pattern);
        assert!(
            pattern.matches(text) || text.contains(['*', '>']),
            "a name matches itself"
        );
        assert!(pattern.within(pattern) && pattern.within(&Pattern::all()));
        // Whatever the name is.
        pattern.matches(name);
    }
    let [Some(narrow), Some(wide)] = &patterns else {
        return;
    };
    if let Ok(name) = EventType::parse(name) {
        let name = name.as_str();
        assert!(Pattern::all().matches(name));
        if narrow.within(wide) && narrow.matches(name) {
            assert!(
                wide.matches(name),
                "{narrow} lies within {wide}, and {name} only in the first"
            );
        }
    }
});
