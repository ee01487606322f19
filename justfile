# The project's recipes. `./just` lists them; `./just NAME` runs one and sets up what it needs, once.

set positional-arguments

export PATH := justfile_directory() / ".tools/bin:" + env("PATH")

[private]
default:
    @"{{ just_executable() }}" --justfile "{{ justfile() }}" --list --unsorted

# Build all, start the router, a backend and a page to watch; Ctrl-C ends it (--check: look once and leave)
[group('see it')]
[no-exit-message]
demo *arguments: (_need "rust" "python" "nats")
    @exec .tools/python/bin/python examples/demo "$@"

# Run the router from this tree in development mode, with its own NATS; arguments go to `rivulet serve`
[group('see it')]
run *arguments: (_need "rust" "python" "nats")
    cargo run --locked --bin rivulet -- serve --dev "$@"

# Run the test suites (all, or those named); `./just test --list` names them
[group('work on it')]
[no-exit-message]
test *suites: (_need "python3")
    @tests/run test "$@"

# Format, lint, types, generated files fresh, licences (all, or those named)
[group('work on it')]
[no-exit-message]
check *checks: (_need "python3")
    @tests/run check "$@"

# Format the Rust, Python and TypeScript sources in place
[group('work on it')]
format: (_need "rust" "python" "node")
    cargo fmt --all
    ruff format --quiet
    ruff check --quiet --fix
    node_modules/.bin/biome check --write --log-level=warn

# Write what is generated from the types: schemas, both SDKs' types, reference pages
[group('work on it')]
gen *arguments: (_need "rust")
    cargo run --locked --quiet --bin rivulet -- codegen "$@"

# Install all that is published from its packed form into empty environments, and run it
[group('work on it')]
[no-exit-message]
packages: (_need "python3")
    tests/run test sdk-python-package sdk-ts-live
    .tools/python/bin/python tests/crates --install

# The whole-system tests on a real nats-server alone; arguments go to `cargo test`
[group('work on it')]
[no-exit-message]
e2e *arguments: (_need "rust" "python" "nats")
    cargo test --locked --package rivulet-tests "$@"

# The bench matrix beside a bare server and the peers (tests/load/README.md): `--row a`, `--quick`, `--curves`, `--list`
[group('measure it')]
[no-exit-message]
bench *arguments: (_need "rust" "python" "nats" "node" "bun")
    cargo build --locked --release --package rivulet-router --bin rivulet
    cargo build --locked --release --package rivulet-tests --bin bench
    target/release/bench "$@"

# Measure what a connect costs, a session that only waits, and (`--tokens`) the check of a token
[group('measure it')]
bench-connects *arguments: (_need "rust" "python" "nats")
    cargo build --locked --release --package rivulet-router --bin rivulet
    cargo run --locked --release --package rivulet-tests --bin connects -- "$@"

# Count the router's instructions for an event that is read from NATS and routed (needs valgrind)
[group('measure it')]
bench-reading *arguments: (_need "rust" "python" "nats")
    cargo build --locked --release --package rivulet-router --bin rivulet
    .tools/python/bin/python tests/load/reading "$@"

# Measure what the SDKs take of a core, beside bare JSON
[group('measure it')]
bench-sdk: (_need "python" "node" "node24")
    node sdk-ts/build.mjs
    .tools/bin/node24 tests/sdk/ts/bench.ts
    PYTHONPATH=sdk-python/src .tools/python/bin/python tests/sdk/python/bench.py

# Everything that can fail, on purpose, and what it costs; `./just chaos --list` names the scenarios
[group('measure it')]
[no-exit-message]
chaos *arguments: (_need "rust" "python" "nats")
    cargo build --locked --release --package rivulet-router --bin rivulet --package rivulet-tests --bins
    target/release/chaos "$@"

# Fuzz one target (`./just fuzz pattern -max_total_time=300`), or each for a minute, or for so many seconds (`./just fuzz 600`)
[group('measure it')]
[no-exit-message]
fuzz *arguments: (_need "rust" "cargo-fuzz")
    @fuzz/run "$@"

# Run the Autobahn suite against a test-only echo on the router's codec
[group('measure it')]
autobahn *arguments: (_need "rust" "python")
    @tests/autobahn/run "$@"

# Set up parts: rust python3 python node nats node24 bun go chromium typedoc cargo-fuzz
[private]
[no-exit-message]
_need *parts:
    @tests/setup "$@"
