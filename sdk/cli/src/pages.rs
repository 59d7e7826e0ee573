//! What shells and readers of manuals want to know of the command line, from its one definition.

use clap::{Command, CommandFactory as _};
use clap_complete::Shell;
use clap_mangen::Man;

use crate::args::Args;
use crate::failure::Failure;
use crate::output::Output;

/// The script that completes the command line in `shell`.
pub(crate) fn completions(shell: Shell, out: &Output) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "daypass", &mut script);
    out.bytes(script.trim_ascii_end())
}

/// The manual page of the program, or of the command that `names` lead to.
pub(crate) fn man(names: &[String], out: &Output) -> Result<(), Failure> {
    let mut whole = Args::command();
    whole.build();
    let mut command = &whole;
    for name in names {
        command = command.find_subcommand(name).ok_or_else(|| unknown(name, command))?;
    }
    let mut page = Vec::new();
    Man::new(command.clone()).render(&mut page)?;
    out.bytes(page.trim_ascii_end())
}

fn unknown(name: &str, within: &Command) -> Failure {
    let known: Vec<&str> = within.get_subcommands().map(Command::get_name).collect();
    let expected = match known.as_slice() {
        [] => format!("`{}` has no commands of its own", within.get_name()),
        known => format!("expected one of `{}`", known.join("`, `")),
    };
    Failure::Usage(format!("`{}` is no command: {expected}", name.escape_debug()))
}
