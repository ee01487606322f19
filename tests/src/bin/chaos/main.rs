//! Runs the scenarios of the chaos rig; each prints one line. Exit code 1 where one is red, 2 where one came
//! to no verdict.

#![allow(clippy::print_stdout, reason = "the rig is there to print its lines")]

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::Parser;
use rivulet_tests::chaos::{
    node::Program,
    outcome::Outcome,
    plant::Plant,
    scenario::{ALL, Scenario},
    stage::Options,
};

#[derive(Parser)]
#[command(about = "What the promises say, under every fault that can be made here")]
struct Arguments {
    /// Which scenarios, one after the other [default: all]
    #[arg(long, value_name = "NAME")]
    scenario: Vec<String>,
    /// What all chances are drawn from [default: another each time]
    #[arg(long)]
    seed: Option<u64>,
    /// How many faults [default: each scenario's own]
    #[arg(long)]
    faults: Option<u64>,
    /// How many clients [default: each scenario's own]
    #[arg(long)]
    clients: Option<usize>,
    /// Events a second [default: each scenario's own]
    #[arg(long)]
    rate: Option<u32>,
    /// How many nodes [default: each scenario's own]
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..))]
    nodes: Option<u8>,
    /// A router with a fault: drop, swap or leak, each with one event in how many (`drop:500`); `none` is the
    /// faulty router without a fault
    #[arg(long, value_name = "FAULT")]
    plant: Option<Plant>,
    /// What nodes take of the stream. `by_user`: not for `poison`, whose messages are of no user's subject
    #[arg(long, value_name = "FEED", default_value = "whole", value_parser = ["whole", "by_user"])]
    feed: String,
    /// Write the figures here as JSON, one object a line
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Don't hold it against a run how long something took: for machines that do other things meanwhile
    #[arg(long)]
    untimed: bool,
    /// Say nothing but the lines
    #[arg(long)]
    quiet: bool,
    /// Name the scenarios
    #[arg(long)]
    list: bool,
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    if arguments.list {
        for scenario in ALL {
            println!("{:<6} {}", scenario.name, scenario.about);
        }
        return Ok(ExitCode::SUCCESS);
    }
    tokio::runtime::Runtime::new()?.block_on(run(&arguments))
}

async fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let named = arguments.scenario.iter().map(|name| {
        Scenario::named(name).with_context(|| format!("no scenario is called `{name}`; see --list"))
    });
    let mut scenarios: Vec<Scenario> = named.collect::<anyhow::Result<_>>()?;
    if scenarios.is_empty() {
        scenarios = ALL.to_vec();
    }
    let mut options = Options {
        seed: 0,
        faults: arguments.faults,
        clients: arguments.clients,
        rate: arguments.rate,
        nodes: arguments.nodes.map(usize::from),
        program: Program::find(arguments.plant, arguments.feed == "by_user")?,
        plant: arguments.plant.map(|plant| plant.to_string()),
        timed: !arguments.untimed,
        progress: !arguments.quiet,
    };
    let mut outcomes: Vec<Outcome> = Vec::new();
    let mut broken = false;
    for scenario in scenarios {
        options.seed = arguments.seed.unwrap_or_else(rand::random);
        match scenario.run(&options).await {
            Ok(outcome) => {
                println!("{outcome}");
                outcomes.push(outcome);
            }
            Err(error) => {
                println!("{}: seed {} | BROKEN: {error:#}", scenario.name, options.seed);
                broken = true;
            }
        }
    }
    if let Some(file) = &arguments.json {
        let lines: Vec<String> = outcomes
            .iter()
            .map(|outcome| format!("{}\n", outcome.json()))
            .collect();
        std::fs::write(file, lines.concat()).with_context(|| format!("can't write {}", file.display()))?;
    }
    let red = outcomes.iter().any(Outcome::is_red);
    Ok(ExitCode::from(match (broken, red) {
        (true, _) => 2,
        (false, true) => 1,
        (false, false) => 0,
    }))
}
