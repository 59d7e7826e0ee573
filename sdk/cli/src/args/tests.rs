use clap::CommandFactory as _;

use super::*;

#[test]
fn the_command_line_holds_together() {
    Args::command().debug_assert();
}

#[test]
fn no_option_of_a_command_hides_one_of_all_commands() {
    let command = Args::command();
    let of_all: Vec<_> = command.get_arguments().filter(|it| it.is_global_set()).collect();
    assert!(of_all.len() > 8, "{of_all:?}");
    for below in command.get_subcommands() {
        let own = below.get_arguments().find(|own| of_all.iter().any(|it| it.get_id() == own.get_id()));
        assert!(own.is_none(), "{}: {own:?}", below.get_name());
    }
}

#[test]
fn no_option_takes_a_secret() {
    for command in Args::command().get_subcommands() {
        for argument in command.get_arguments() {
            let id = argument.get_id().as_str();
            assert!(!matches!(id, "token" | "id_token" | "password" | "proof"), "{id}");
        }
    }
}

#[test]
fn what_is_malformed_is_refused_before_anybody_is_asked() {
    let parse = |line: &str| Args::try_parse_from(line.split_whitespace());
    for good in [
        "daypass get post-invoices --ttl 15m --resource eu/* --action invoice:write",
        "daypass --profile dev get ledger-db --out /tmp/x",
        "daypass log --follow --kind credential.issued --since 2h",
        "daypass log verify file --checkpoint f --key x+0+y",
        "daypass log checkpoint",
        "daypass rotate ca --compromised k --reason stolen --dry-run",
        "daypass revoke --identity prod/x --reason superseded --dry-run",
        "daypass revoke --token-file f --reason key-compromise --comment x",
        "daypass revoke --identity prod/x --reason superseded --cert c --key k",
        "daypass revoke --key-id 0D-t8BGNBa1eMXB7K59SLjE-xcXkZFY1E6BL3wL07v0 --reason key-compromise --key k",
        "daypass suspend identity=prod/x --reason x",
        "daypass suspend --identity prod/x --reason x --cert c --key k",
        "daypass error",
        "daypass completions zsh",
        "daypass man log verify",
    ] {
        assert!(parse(good).is_ok(), "{good}");
    }
    for bad in [
        "daypass get",
        "daypass get Post_Invoices",
        "daypass get t --ttl 1.5s",
        "daypass get t --ttl 100ms",
        "daypass get t --resource eu/../us",
        "daypass log --since yesterday",
        "daypass get t --format xml",
        "daypass rotate evidence",
        "daypass completions",
        "daypass completions csh",
        "daypass revoke --reason superseded",
        "daypass revoke --identity prod/x",
        "daypass revoke --identity prod/x --task t --reason superseded",
        "daypass revoke --identity prod/x --reason because",
        "daypass suspend --reason x",
        "daypass suspend everything --identity prod/x --reason x",
    ] {
        assert!(parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn every_command_of_the_way_from_a_static_key_exists() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/migrate.md");
    let page = std::fs::read_to_string(page).unwrap();
    let shown: Vec<&str> = page.lines().filter(|line| line.starts_with("daypass ")).collect();
    assert!(shown.len() > 6, "{shown:?}");
    for line in shown {
        let (line, _) = line.split_once(" > ").unwrap_or((line, ""));
        let parsed = Args::try_parse_from(line.split_whitespace());
        assert!(parsed.is_ok(), "{line}: {}", parsed.err().map(|it| it.to_string()).unwrap_or_default());
    }
}
