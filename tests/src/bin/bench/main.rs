//! The bench matrix: what a delivery, a session, a resume and an accept cost, beside a bare server and the
//! peers, each row against its target.
//!
//! All serve the same clients the same events, one after the other in one run, and that several times; what
//! counts is the ratio within a repetition, as machines are shared and noisy. CPU is the server process's own,
//! read from the operating system. A run in which an event is lost, doubled or out of order is void and fails.
//!
//! - [`rows`]: the matrix, a file a row; most are one [`scene`];
//! - [`contestant`]: who takes part: [`router`], [`floor`], and the peers of `tests/load/peers/`;
//! - [`client`]: the clients of all of them; [`publish`]: the events;
//! - [`figures`], [`goals`], [`table`]: what came of it.

#![allow(clippy::print_stdout, reason = "a bench is there to print its figures")]

mod client;
mod contestant;
mod event;
mod figures;
mod floor;
mod goals;
mod publish;
mod router;
mod rows;
mod scene;
mod server;
mod table;

use std::process::ExitCode;

use anyhow::{Context as _, ensure};
use clap::{Parser, Subcommand};

use self::{
    figures::Results,
    rows::{Bench, Row},
};

#[derive(Parser)]
#[command(
    about = "What a delivery, a session, a resume and an accept cost, beside a bare server and the peers"
)]
struct Arguments {
    #[command(subcommand)]
    part: Option<Part>,
    /// Only these rows, by letter [default: all]
    #[arg(long, value_name = "LETTER", value_delimiter = ',')]
    row: Vec<char>,
    /// Only these of those who take part in a row, with commas between
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    only: Vec<String>,
    /// How often each is measured, in turn
    #[arg(long, default_value_t = 3)]
    repeat: usize,
    /// Tiny sizes, once: whether all of it works, not how fast it is
    #[arg(long)]
    quick: bool,
    /// Name the rows
    #[arg(long)]
    list: bool,
}

#[derive(Subcommand)]
enum Part {
    /// The bare server; the bench starts it itself
    #[command(hide = true)]
    Floor(floor::Floor),
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    if let Some(Part::Floor(floor)) = &arguments.part {
        floor::serve(floor)?;
        return Ok(ExitCode::SUCCESS);
    }
    if arguments.list {
        for row in rows::ALL {
            println!(
                "{}  {}\n   {}",
                row.letter(),
                row.title(),
                row.contestants().join(", ")
            );
        }
        return Ok(ExitCode::SUCCESS);
    }
    measure(&arguments)
}

fn measure(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    for letter in &arguments.row {
        ensure!(
            rows::ALL.iter().any(|row| row.letter() == *letter),
            "no row is called `{letter}`; see --list"
        );
    }
    let bench = Bench {
        // The publisher and what asks the router whether it is ready.
        runtime: tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?,
        quick: arguments.quick,
    };
    let repeat = if arguments.quick { 1 } else { arguments.repeat };
    let mut measured = Vec::new();
    for row in rows::ALL {
        if arguments.row.is_empty() || arguments.row.contains(&row.letter()) {
            measured.push((row, repetitions(&bench, row, repeat, &arguments.only)?));
        }
    }
    let mut verdicts = Vec::new();
    let mut void = false;
    println!();
    for (row, results) in &measured {
        println!("{}", table::of_row(*row, results));
        verdicts.extend(row.goals().iter().filter_map(|goal| goal.verdict(results)));
        void |= !results.void().is_empty();
    }
    println!("{}", table::of_goals(&verdicts));
    Ok(ExitCode::from(u8::from(void)))
}

/// Measures a row so many times, everyone in turn within each.
fn repetitions(bench: &Bench, row: &dyn Row, repeat: usize, only: &[String]) -> anyhow::Result<Results> {
    println!("{}: {}", row.letter(), row.title());
    let mut results = Results {
        contestants: row
            .contestants()
            .iter()
            .filter(|name| only.is_empty() || only.iter().any(|one| one == *name))
            .map(|name| ((*name).to_owned(), Vec::new()))
            .collect(),
    };
    for _ in 0..repeat {
        for (contestant, repetitions) in &mut results.contestants {
            let figures = row
                .measure(bench, contestant)
                .with_context(|| format!("row {}, {contestant}", row.letter()))?;
            println!("   {}", table::line(row, contestant, &figures));
            repetitions.push(figures);
        }
    }
    Ok(results)
}
