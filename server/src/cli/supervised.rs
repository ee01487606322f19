//! What the router runs to have a nats-server that ends with it.

use std::{ffi::OsString, path::PathBuf};

use clap::Args;
use rivulet_router::bus::local_server::become_server;

use super::Failure;

#[derive(Args)]
pub(crate) struct Supervised {
    parent: u32,
    program: PathBuf,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

impl Supervised {
    pub(crate) fn run(self) -> Result<(), Failure> {
        Err(become_server(self.parent, &self.program, &self.arguments).into())
    }
}
