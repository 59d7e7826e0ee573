//! `emergency`: orders to the broker on this host, that need nothing but its socket.

use std::io;
use std::path::Path;

use daypass_broker::config::Config;
use daypass_broker::emergency::{lay_marker, marker, order, take_marker};

use super::Failure;
use crate::args::Order;

pub(super) async fn run(
    config: &Path,
    ordered: Order,
    what: Option<&str>,
    reason: &str,
) -> Result<(), Failure> {
    if matches!(ordered, Order::Suspend | Order::Stopped) != what.is_some() && ordered != Order::Resume {
        return Err(Failure::Value(match what {
            Some(what) => format!("`{}` takes no `{what}`: say why with --reason", ordered.word()),
            None => format!("`{}` what? see `daypass-broker emergency --help`", ordered.word()),
        }));
    }
    let socket = Config::read(config)?.emergency.socket;
    let failed = |error: io::Error| Failure::File(socket.display().to_string(), error);
    // Why a halt is lifted is not recorded: what follows `resume` is what is resumed.
    let reason = if ordered == Order::Resume && what.is_none() { "" } else { reason };
    match order(&socket, &format!("{} {} {reason}", ordered.word(), what.unwrap_or_default())).await {
        Ok(answer) if answer.starts_with("failed") || answer.starts_with("refused") => {
            Err(Failure::Value(answer.trim().into()))
        }
        Ok(answer) => {
            print!("{answer}");
            Ok(())
        }
        Err(error) if is_nobody(&error) => match ordered {
            Order::Halt => {
                lay_marker(&socket, reason).map_err(failed)?;
                println!("no broker runs here: `{}` keeps the next one halted", marker(&socket).display());
                Ok(())
            }
            Order::Resume if what.is_none() => {
                take_marker(&socket).map_err(failed)?;
                println!("no broker runs here: the next one will issue");
                Ok(())
            }
            _ => Err(failed(error)),
        },
        Err(error) => Err(failed(error)),
    }
}

fn is_nobody(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}
