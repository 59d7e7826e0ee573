//! `emergency`: orders to the broker on this host, that need nothing but its socket.

use std::io;
use std::path::Path;

use daypass_broker::config::Config;
use daypass_broker::emergency::{lay_marker, marker, order, take_marker};

use super::Failure;
use crate::args::Order;

pub(super) async fn run(config: &Path, ordered: Order, reason: &str) -> Result<(), Failure> {
    let socket = Config::read(config)?.emergency.socket;
    let failed = |error: io::Error| Failure::File(socket.display().to_string(), error);
    match order(&socket, &format!("{} {reason}", ordered.word())).await {
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
            Order::Resume => {
                take_marker(&socket).map_err(failed)?;
                println!("no broker runs here: the next one will issue");
                Ok(())
            }
            Order::ClockOk | Order::Status => Err(failed(error)),
        },
        Err(error) => Err(failed(error)),
    }
}

fn is_nobody(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}
