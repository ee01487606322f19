//! Whatever is written in the configuration's file: it is a configuration, or every problem has its key and its
//! line.

#![no_main]

use std::{path::PathBuf, sync::LazyLock};

use libfuzzer_sys::fuzz_target;
use rivulet_router::config::{Config, Inputs, Origin, Purpose};

/// One for each process; libFuzzer may run several.
static FILE: LazyLock<PathBuf> =
    LazyLock::new(|| std::env::temp_dir().join(format!("rivulet-fuzz-{}.toml", std::process::id())));

fuzz_target!(|text: &[u8]| {
    std::fs::write(&*FILE, text).expect("the temporary directory can be written");
    let inputs = Inputs {
        file: Some(FILE.clone()),
        ..Inputs::default()
    };
    let lines = text.iter().filter(|&&byte| byte == b'\n').count() + 1;
    if let Err(problems) = Config::load(&inputs, Purpose::Router) {
        assert!(!problems.0.is_empty());
        for problem in &problems.0 {
            if let Origin::File { line, .. } = &problem.origin {
                assert!((1..=lines).contains(line), "{problem:?}");
            }
        }
        assert!(!problems.to_string().is_empty());
    }
});
