//! `rivulet bench`: load a router with users and events, and measure what comes of it.
//!
//! [`crowd`] says who connects, [`plan`] which event is whose. [`lane`] threads read the [`session`]s, each of which
//! [`dial`]s, takes [`wire`] frames apart into the router's [`frame`]s, and [`check`]s them against the plan, into a
//! [`tally`]. [`publish`] makes the load out of [`payload`]s on [`address`]es, [`probe`] tries the whole way before,
//! [`course`] leads through it, [`usage`] tells what it cost, [`report`] what it came to.

mod address;
mod check;
mod course;
mod crowd;
mod dial;
mod figures;
mod frame;
mod lane;
mod payload;
mod plan;
mod probe;
mod progress;
mod publish;
mod report;
mod run;
mod sample;
mod session;
mod tally;
mod usage;
mod wire;

use std::{
    io::{self, IsTerminal as _},
    path::PathBuf,
    thread::available_parallelism,
    time::Duration,
};

use clap::Args;
use rivulet_protocol::{event::EventType, pattern::Pattern};
use rivulet_router::config::{self, Config, Purpose};

use self::{course::Course, crowd::Crowd, payload::LEAST, plan::Plan, publish::Pace, usage::Process};
use super::{
    Failure, Settings, block_on,
    colour::{self, Palette},
    print,
};
use crate::logging;

/// The longest run, and the longest warm-up.
const LONGEST: Duration = Duration::from_secs(7 * 86_400);

#[derive(Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Bench {
    /// The router; may be repeated: sessions go to all of them in turn [env: RIVULET_URL; default: ws:// and the key
    /// `listen`]
    #[arg(long, help_heading = "Who connects")]
    url: Vec<String>,
    /// Users, named `user-0` and on [default: 100, or all of --tokens]
    #[arg(long, value_name = "NUMBER", help_heading = "Who connects", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    users: Option<u32>,
    /// Sessions of each user
    #[arg(long, value_name = "NUMBER", help_heading = "Who connects", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    sessions_per_user: u32,
    /// Connections a second
    #[arg(long, value_name = "RATE", help_heading = "Who connects", default_value = "200", value_parser = rate)]
    ramp: f64,
    /// The users' tokens, one a line [default: minted by `jwt_secret`; without one as a router in development takes
    /// them]
    #[arg(long, value_name = "FILE", help_heading = "Who connects")]
    tokens: Option<PathBuf>,
    /// What sessions subscribe to, with commas between
    #[arg(
        long,
        help_heading = "Who connects",
        value_delimiter = ',',
        default_value = "*"
    )]
    patterns: Vec<Pattern>,
    /// Be plain clients: no `rivulet.v1`, no arrays
    #[arg(long, help_heading = "Who connects")]
    plain: bool,
    /// Offer permessage-deflate
    #[arg(long, help_heading = "Who connects")]
    compress: bool,
    /// The sessions' devices are NAME-0 and on [default: of this run alone]
    #[arg(long, value_name = "NAME", help_heading = "Who connects")]
    device: Option<String>,
    /// Drop so many connections a second, without a word, and resume them
    #[arg(long, value_name = "RATE", help_heading = "Who connects", value_parser = rate)]
    reconnect: Option<f64>,
    /// Events a second, in all
    #[arg(long, help_heading = "What is published", default_value = "100", value_parser = rate)]
    rate: f64,
    /// Bytes of data in an event
    #[arg(
        long,
        value_name = "BYTES",
        help_heading = "What is published",
        default_value_t = 200
    )]
    size: usize,
    /// Whom events are for: `user` (each for one, in turn), `everyone`, or how many of a hundred are for everyone, as
    /// in `5%`
    #[arg(long, value_name = "WHOM", help_heading = "What is published", default_value = "user", value_parser = to_everyone)]
    to: u64,
    /// The events' type
    #[arg(long = "type", value_name = "TYPE", help_heading = "What is published", default_value = "blob.bench", value_parser = EventType::parse)]
    event_type: EventType,
    /// How many types: of several, each has its number at its end
    #[arg(long, value_name = "NUMBER", help_heading = "What is published", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    types: u32,
    /// For how long events are measured
    #[arg(long, help_heading = "What is published", default_value = "10s", value_parser = span)]
    duration: Duration,
    /// For how long events come before they are measured; they are checked too
    #[arg(long, value_name = "DURATION", help_heading = "What is published", default_value = "2s", value_parser = warm_up)]
    warm_up: Duration,
    /// Publish by core NATS, which acknowledges nothing
    #[arg(long, help_heading = "What is published", conflicts_with = "in_flight")]
    core: bool,
    /// Events that may wait for the stream's acknowledgement
    #[arg(long, value_name = "NUMBER", help_heading = "What is published", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=4_000))]
    in_flight: u32,
    /// Tell what this process on this machine takes too, such as the router; may be repeated
    #[arg(long, value_name = "NUMBER", help_heading = "What is told")]
    pid: Vec<u32>,
    /// Threads that read [default: as many as there are cores]
    #[arg(long, value_name = "NUMBER", help_heading = "What is told", value_parser = clap::value_parser!(u32).range(1..=1_024))]
    threads: Option<u32>,
    /// Write one JSON object in place of the table
    #[arg(long, help_heading = "What is told")]
    json: bool,
    #[command(flatten)]
    settings: Settings,
}

const AFTER_HELP: &str = "\
Every session is checked: exactly the events that are due to it, once, in order. Anything lost, doubled or out of order \
makes the run void, which exits with 1. Ctrl-C ends it early, with what was measured. The result goes to standard \
output, everything else to standard error.

Examples:
  A router in development mode on this machine, 100 users, 100 events a second:
    rivulet bench
  1,000 users with 2 sessions each, 5,000 events a second of 1 kB, one in a hundred to everyone:
    rivulet bench --users 1000 --sessions-per-user 2 --rate 5000 --size 1000 --to 1%
  Two nodes that check tokens, and what they take:
    RIVULET_JWT_SECRET=… rivulet bench --url ws://a:8010 --url ws://b:8010 --nats-url nats://n:4222
  Reconnecting clients, for a script:
    rivulet bench --reconnect 50 --json | jq .checks
  What a router on this machine takes:
    rivulet bench --to everyone --pid $(pgrep -f 'rivulet serve')";

impl Bench {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let config = Config::load(&self.settings.inputs()?, Purpose::Tool)?;
        logging::start_for_a_tool();
        let course = self.course(config)?;
        let report = block_on(course.run())??;
        if self.json {
            print(serde_json::to_string(&report).map_err(Failure::other)?)?;
        } else {
            let palette = Palette(colour::wanted(io::stdout().is_terminal()));
            print(report.table(palette).trim_end())?;
        }
        match report.checks.why_void() {
            None => Ok(()),
            Some(why) => Err(Failure::other(format_args!(
                "the run is void: {why}{}",
                figures::some(report.checks.first.as_ref(), |first| format!("; first: {first}"))
            ))),
        }
    }

    /// What is to be done, as far as it can be checked without asking anybody.
    fn course(&self, config: Config) -> Result<Course, Failure> {
        if self.size < LEAST {
            return Err(Failure::Usage(format!(
                "--size {}: allowed is {LEAST} and more, for a number and a time",
                self.size
            )));
        }
        let urls = match &self.url[..] {
            [] => vec![super::url::router(None, &config)?],
            urls => urls
                .iter()
                .map(|url| super::url::router(Some(url), &config))
                .collect::<Result<_, _>>()?,
        };
        let types = self.all_types()?;
        let wanted: Vec<_> = types
            .iter()
            .map(|event_type| {
                let matches = |pattern: &Pattern| pattern.is_all() || pattern.matches(event_type.as_str());
                self.patterns.iter().any(matches)
            })
            .collect();
        if !wanted.contains(&true) {
            return Err(Failure::Usage(format!(
                "--patterns matches no event: they are of the type `{}`",
                types[0]
            )));
        }
        let processes = self.pid.iter().copied().map(Process::find);
        let processes = processes.collect::<Result<_, _>>().map_err(Failure::Usage)?;
        let connecting = |users: usize| {
            let sessions = users as f64 * f64::from(self.sessions_per_user);
            Duration::from_secs_f64(sessions / self.ramp)
        };
        let crowd = match &self.tokens {
            Some(file) => Crowd::of_file(
                file,
                self.users.map(|users| users as usize),
                &config.auth.user_claim,
            )?,
            None => {
                let users = self.users.unwrap_or(100) as usize;
                self.make_room(users)?;
                // Far longer than it can take.
                let hour = Duration::from_secs(3600);
                let lifetime = connecting(users) + self.warm_up + self.duration + hour;
                Crowd::named(users, &config, lifetime)?
            }
        };
        let sessions = self.make_room(crowd.len())?;
        let cores = available_parallelism().map_or(1, usize::from);
        let patterns: Vec<_> = self.patterns.iter().map(Pattern::as_str).collect();
        Ok(Course {
            plan: Plan::new(crowd.len() as u64, self.to, wanted),
            crowd,
            urls,
            types,
            patterns: patterns.join(","),
            sessions_per_user: self.sessions_per_user as usize,
            plain: self.plain,
            compress: self.compress,
            device: self.device.clone(),
            ramp: self.ramp,
            reconnect: self.reconnect.unwrap_or_default(),
            size: self.size,
            to_everyone: self.to,
            pace: Pace {
                rate: self.rate,
                warm_up: self.warm_up,
                duration: self.duration,
                in_flight: (!self.core).then_some(self.in_flight as usize),
            },
            processes,
            cores,
            threads: self
                .threads
                .map_or(cores, |threads| threads as usize)
                .min(sessions),
            config,
        })
    }

    /// Makes room for the sessions of so many users, and says how many these are.
    fn make_room(&self, users: usize) -> Result<usize, Failure> {
        let sessions = users * self.sessions_per_user as usize;
        usage::make_room(sessions as u64).map_err(Failure::other)?;
        Ok(sessions)
    }

    fn all_types(&self) -> Result<Vec<EventType>, Failure> {
        if self.types == 1 {
            return Ok(vec![self.event_type.clone()]);
        }
        let numbered =
            (0..self.types).map(|number| EventType::parse(&format!("{}{number}", self.event_type)));
        let numbered: Result<_, _> = numbered.collect();
        numbered.map_err(|error| Failure::Usage(format!("--types {}: {error}", self.types)))
    }
}

/// Something a second, more than none.
fn rate(text: &str) -> Result<f64, String> {
    let rate = text
        .parse()
        .ok()
        .filter(|rate| (0.001..=10_000_000.0).contains(rate));
    rate.ok_or_else(|| "allowed is a number from 0.001 to 10000000, so many a second".to_owned())
}

fn span(text: &str) -> Result<Duration, String> {
    let span = warm_up(text)?;
    let none = "allowed is a duration such as 30s or 5m".to_owned();
    (!span.is_zero()).then_some(span).ok_or(none)
}

fn warm_up(text: &str) -> Result<Duration, String> {
    let span = config::duration(text).filter(|span| *span <= LONGEST);
    span.ok_or_else(|| "allowed is a duration such as 500ms, 30s or 5m, of 7d at most".to_owned())
}

/// Of a hundred events, how many are to everyone.
fn to_everyone(text: &str) -> Result<u64, String> {
    let percent = match text {
        "user" => Some(0),
        "everyone" => Some(100),
        _ => text.strip_suffix('%').and_then(|percent| percent.parse().ok()),
    };
    let percent = percent.filter(|percent| *percent <= 100);
    percent.ok_or_else(|| "allowed is `user`, `everyone`, or a share to everyone such as 5%".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whom_events_are_for() {
        assert_eq!(to_everyone("user"), Ok(0));
        assert_eq!(to_everyone("everyone"), Ok(100));
        assert_eq!(to_everyone("5%"), Ok(5));
        for text in ["", "all", "5", "101%", "-1%", "1.5%"] {
            assert!(to_everyone(text).is_err(), "{text}");
        }
    }

    #[test]
    fn rates_are_more_than_none() {
        assert_eq!(rate("0.5"), Ok(0.5));
        for text in ["0", "-1", "NaN", "inf", "", "1e9", "x"] {
            assert!(rate(text).is_err(), "{text}");
        }
    }
}
