//! `assay serve`: the service.

use std::{io, net::SocketAddr};

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use tracing::info;

use super::{
    Common,
    output::{Blame as _, CliResult, Exit, wrong},
};
use crate::{App, AppConfig, Places, Token};

/// What `assay serve` takes.
#[derive(Args, Debug)]
pub(super) struct Serve {
    /// Address and port; port 0 takes a free one. Other than loopback needs --token-file
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7400")]
    listen: SocketAddr,
    /// Most requests without an answer; more are refused with a time to come back
    #[arg(long, value_name = "N", default_value_t = 8192, value_parser = clap::value_parser!(u32).range(1..))]
    queue: u32,
    /// Reward files that requests may name
    #[arg(long = "reward", value_name = "FILE")]
    rewards: Vec<String>,
}

#[derive(Serialize)]
struct Listening {
    listening: SocketAddr,
}

impl Serve {
    pub(super) async fn run(self, common: &Common) -> CliResult {
        let token = common.token_file.as_deref().map(Token::from_file).transpose().wrong()?;
        if token.is_none() && !self.listen.ip().is_loopback() {
            return Err(wrong(format!(
                "--listen {}: whoever reaches this port can run code here; listen on loopback or \
                 give --token-file",
                self.listen
            )));
        }
        if common.server.is_some() {
            return Err(wrong("`serve` is the service: it takes no --server"));
        }
        let data = common.data.clone().unwrap_or_else(Places::default_data);
        let mut config = AppConfig::new(common.places(), data);
        config.token = token;
        config.queue_capacity = self.queue as usize;
        if let Some(workers) = common.workers {
            config.workers = workers.into();
        }
        config.image.clone_from(&common.image);
        config.pin = common.pin;
        for file in &self.rewards {
            config.rewards.push(super::session::read_spec(file)?);
        }

        let listener = TcpListener::bind(self.listen)
            .await
            .with_context(|| format!("listen on {}", self.listen))
            .not_done()?;
        let listening = listener.local_addr().context("read the port").not_done()?;
        let stop = stop_signal().context("watch for signals").not_done()?;
        let app = App::start(config, Some(listener)).await.not_done()?;
        super::task::report_problems(app.catalog());
        let output = common.output();
        output.object(&Listening { listening })?;
        output.text(format_args!("listening on {listening}"))?;
        let ended = tokio::select! {
            () = stop => Ok(()),
            ended = app.ended() => ended,
        };
        info!("stopping");
        app.stop().await;
        ended.not_done()?;
        Ok(Exit::Done)
    }
}

/// Resolves at SIGTERM or Ctrl-C.
pub(super) fn stop_signal() -> io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
