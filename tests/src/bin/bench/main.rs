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
//! - [`run`]: one run of it; [`figures`], [`goals`]: what came of it; [`table`], [`record`], [`chart`]: what is
//!   shown and kept;
//! - [`curves`]: what a delivery costs as the work grows; [`feed`]: what a node pays for the events of others.

#![allow(clippy::print_stdout, reason = "a bench is there to print its figures")]

mod chart;
mod client;
mod contestant;
mod curves;
mod event;
mod feed;
mod figures;
mod floor;
mod goals;
mod publish;
mod record;
mod router;
mod rows;
mod run;
mod scene;
mod server;
mod table;

use std::{path::PathBuf, process::ExitCode};

use anyhow::ensure;
use clap::{Parser, Subcommand};

use self::{record::Circumstances, rows::Bench, run::Run};

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
    /// The cost curves in place of the matrix
    #[arg(long, conflicts_with_all = ["row", "only"])]
    curves: bool,
    /// Keep the results here [default: a whole run's in tests/load/results, its chart in docs/images; nothing of a part]
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Name the rows
    #[arg(long)]
    list: bool,
}

#[derive(Subcommand)]
enum Part {
    /// What a node pays for the events of others, by feed
    Feed(feed::Feeds),
    /// The bare server; the bench starts it itself
    #[command(hide = true)]
    Floor(floor::Floor),
}

impl Arguments {
    /// Where the results are kept.
    fn folder(&self) -> Option<PathBuf> {
        let whole = self.row.is_empty() && self.only.is_empty() && !self.quick;
        let kept = record::root().join("tests/load/results");
        self.out.clone().or(whole.then_some(kept))
    }
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    match &arguments.part {
        Some(Part::Floor(floor)) => {
            floor::serve(floor)?;
            return Ok(ExitCode::SUCCESS);
        }
        Some(Part::Feed(feeds)) => {
            tokio::runtime::Runtime::new()?.block_on(feed::measure(feeds))?;
            return Ok(ExitCode::SUCCESS);
        }
        None => {}
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
    let run = Run {
        bench: Bench {
            // The publisher and what asks the router whether it is ready.
            runtime: tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()?,
            quick: arguments.quick,
        },
        repeat: if arguments.quick { 1 } else { arguments.repeat },
        circumstances: Circumstances::look(),
    };
    let (runs, void) = match arguments.curves {
        true => run.curves(arguments)?,
        false => run.matrix(arguments)?,
    };
    println!("{} passed, {void} failed", runs - void);
    Ok(ExitCode::from(u8::from(void > 0)))
}
