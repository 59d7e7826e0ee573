use std::fmt::Write as _;

use super::*;

const SMALLEST: &str = "broker = \"https://b.example:8443\"\nweb = \"https://d.example\"\nca = \"ca.pem\"\n\
                        id_token_file = \"token\"\n[[credential]]\ntask = \"post-invoices\"\nfiles = { dir = \"out\" }\n";

const ENFORCER: &str = "[[enforcer]]\ntarget = \"ledger-db\"\npostgresql = \"";

fn parse(text: &str) -> Result<Config, Vec<Fault>> {
    Config::parse(text, Path::new("/etc/daypass"))
}

fn said(text: &str) -> Vec<String> {
    let faults = parse(text).unwrap_err();
    faults.into_iter().map(|fault| format!("{}: {}", fault.line, fault.message)).collect()
}

#[test]
fn the_smallest_configuration_names_only_what_has_no_default() {
    let config = parse(SMALLEST).unwrap();
    assert_eq!(config.connection.ca, Path::new("/etc/daypass/ca.pem"));
    assert_eq!(config.credentials[0].name.as_str(), "post-invoices");
    assert_eq!(config.credentials[0].files.as_ref().unwrap().directory, Path::new("/etc/daypass/out"));
    assert!(config.sockets.is_empty() && config.exec.is_none());
}

#[test]
fn an_agent_may_be_an_enforcer_and_nothing_else() {
    let (connection, _) = SMALLEST.split_once("[[credential]]").unwrap();
    let config = parse(&format!("{connection}{ENFORCER}host=/run/postgresql user=e\"\n")).unwrap();
    assert_eq!(config.enforcers[0].postgresql.get_dbname(), Some("postgres"));
}

#[test]
fn everything_that_is_wrong_is_said_at_once_with_its_line() {
    let text = "brokr = \"https://b.example:8443\"\nweb = \"http://d.example\"\nca = 7\ncert = \"x\"\n\
                [[credential]]\ntask = \"Post\"\n[[credential]]\ntask = \"ledger-db\"\nkind = \"cretificate\"\n\
                [exec]\nrestart = \"on-failur\"\n";
    assert_eq!(
        said(text),
        [
            "1: `broker` is missing: expected the broker's `api`, `https://HOST:PORT`",
            "1: `brokr` is no key here: did you mean `broker`?",
            "2: `web`: `http://d.example`: expected `https://HOST:PORT`",
            "3: `ca`: integer: expected a path, in quotes",
            "4: `cert`: stands alone: expected `key` beside it",
            "6: `credential`: `task`: `Post` is not a name: expected 1 to 63 of a-z, 0-9 and `-`",
            "9: credential `ledger-db`: `kind`: `cretificate` is not known here: did you mean `certificate`?",
            "10: `exec`: `command` is missing: expected a program and its arguments, as a list",
            "11: `exec`: `restart`: `on-failur` is not known here: did you mean `on-failure`?",
        ]
    );
}

/// An enforcer over TCP with one thing changed.
fn remote(from: &str, to: &str) -> String {
    let watch = "[[credential]]\ntask = \"w\"\nkind = \"common-name\"\n";
    let rest = "host=db1 user=e sslmode=verify-full\"\nca = \"c\"\ncredential = \"w\"\n";
    let whole = format!("{SMALLEST}{watch}{ENFORCER}{rest}");
    let read = parse(&whole).unwrap();
    let tls = read.enforcers[0].tls.as_ref().unwrap();
    assert_eq!((tls.ca.as_path(), tls.credential.as_str()), (Path::new("/etc/daypass/c"), "w"));
    assert!(rest.contains(from) || watch.contains(from), "{from}");
    whole.replace(from, to)
}

/// A node that speaks for a workload, with one thing changed.
fn spoken_for(from: &str, to: &str) -> String {
    let whole = SMALLEST.replace("id_token_file = \"token\"\n", "[node]\ndir = \"n\"\n");
    let whole = whole
        .replace("files = { dir = \"out\" }", "workload = { uid = 7 }\nfiles = { dir = \"out\", uid = 7 }");
    let whole = format!("{whole}[[socket]]\npath = \"s\"\nserves = \"token\"\nuids = [7]\n");
    let config = parse(&whole).unwrap();
    assert_eq!(config.credentials[0].request.workload.as_ref().unwrap().uid, 7);
    assert!(whole.contains(from), "{from}");
    whole.replace(from, to)
}

/// A proxy with one thing changed.
fn proxied(from: &str, to: &str) -> String {
    let proxy = "[[proxy]]\nlisten = \"127.0.0.1:1\"\ncredential = \"post-invoices\"\ntarget = \"erp\"\n\
                 upstream = \"https://erp.example\"\nca = \"ca.pem\"\nallow = [\"POST /batch\"]\ninject = \"static\"\n\
                 key_file = \"key\"\nexception = \"erp-password\"\nheader = \"X-Api-Key\"\ntemplate = \"{}\"\n";
    parse(&format!("{SMALLEST}{proxy}")).unwrap();
    assert!(proxy.contains(from), "{from}");
    format!("{SMALLEST}{}", proxy.replace(from, to))
}

#[test]
fn a_configuration_with_one_fault_is_refused_and_says_which() {
    let socket = "[[socket]]\npath = \"s\"\nserves = \"token\"\n";
    for (fault, expected) in [
        (SMALLEST.replace("id_token_file = \"token\"\n", ""), "there is no proof"),
        (format!("{SMALLEST}[node]\ndir = \"n\"\n"), "another proof stands beside it"),
        (SMALLEST.replace("files = { dir = \"out\" }", ""), "goes nowhere"),
        (SMALLEST.replace("{ dir = \"out\" }", "{ dri = \"out\" }"), "did you mean `dir`"),
        (SMALLEST.replace("{ dir", "{ gid = 5, dir"), "`gid`: stands alone"),
        (SMALLEST.replace("task =", "ttl = \"5\"\ntask ="), "is not a duration"),
        (
            format!("{SMALLEST}[[credential]]\ntask = \"post-invoices\"\nfiles = {{ dir = \"o\" }}\n"),
            "the same name",
        ),
        (
            format!("{SMALLEST}[[credential]]\ntask = \"other\"\nfiles = {{ dir = \"out\" }}\n"),
            "same `files.dir`",
        ),
        (format!("{SMALLEST}{socket}credentials = [\"post-invoice\"]\n"), "did you mean `post-invoices`"),
        (format!("{SMALLEST}kind = \"certificate\"\n{socket}"), "it would give nothing"),
        (format!("{SMALLEST}{socket}{socket}"), "a path of its own"),
        (format!("{SMALLEST}kind = \"certificate\"\nbearer = true\n"), "bound to its key"),
        (format!("{SMALLEST}[exec]\ncommand = []\n"), "a program and its arguments"),
        (
            format!("{SMALLEST}{socket}[[credential]]\ntask = \"a\"\nidentity = \"x/y\"\n"),
            "of several identities",
        ),
        (format!("broker = \"https://twice\"\n{SMALLEST}"), "duplicate key"),
        ("[[credential".to_owned(), "`broker` is missing"),
        (SMALLEST.split("[[credential").next().unwrap().to_owned(), "there is nothing to do"),
        (format!("{SMALLEST}{ENFORCER}user=e\"\n"), "expected one server"),
        (format!("{SMALLEST}{ENFORCER}host=/run,/run user=e\"\n"), "expected one server"),
        (format!("{SMALLEST}{ENFORCER}host=/run hostaddr=10.0.0.1 user=e\"\n"), "expected one server"),
        (format!("{SMALLEST}{ENFORCER}host=/run user=e sslmode=verify-full\"\n"), "leave `sslmode` out"),
        (format!("{SMALLEST}{ENFORCER}host=/run user=e\"\nca = \"c\"\n"), "nothing is encrypted"),
        (format!("{SMALLEST}{ENFORCER}host=/run user=e\"\nleft_over = \"end\"\n"), "expected `roles`"),
        (remote("sslmode=verify-full", ""), "over TCP expected `sslmode=verify-full`"),
        (remote("verify-full", "require"), "over TCP expected `sslmode=verify-full`"),
        (remote("verify-full", "verify-ca"), "not a connection string"),
        (remote("host=db1", "hostaddr=10.0.0.1"), "`hostaddr` stands alone"),
        (remote("host=db1", "host=db1,db2"), "expected one server"),
        (remote("ca = \"c\"", ""), "`ca` is missing"),
        (remote("credential = \"w\"", ""), "`credential` is missing"),
        (remote("credential = \"w\"", "credential = \"post-invoices\""), "the server would not know"),
        (remote("credential = \"w\"", "credential = \"ww\""), "there is no credential `ww`"),
        (remote("common-name", "x509-svid"), "the server would not know"),
        (format!("{SMALLEST}{ENFORCER}host=/run/postgresql\"\n"), "`user` is missing"),
        (
            format!("{SMALLEST}{ENFORCER}host=/run/postgresql user=e password=p\"\n"),
            "there is a password in it",
        ),
        (format!("{SMALLEST}{ENFORCER}host=/run user=e\"\nreload = [\"true\"]\n"), "`reload`: stands alone"),
        (
            format!("{SMALLEST}{ENFORCER}host=/run user=e\"\n{ENFORCER}host=/run user=e\"\n"),
            "one for each target",
        ),
        (
            SMALLEST.replace("{ dir = \"out\" }", "{ dir = \"out\", uid = 7 }\nworkload = { uid = 7 }"),
            "expected `[node]`",
        ),
        (spoken_for("uid = 7 }\nfiles", "uid = 8 }\nfiles"), "expected `files.uid`"),
        (spoken_for("uid = 7 }\nfiles", "uid = 7, unit = \"a.service\" }\nfiles"), "a socket can tell units"),
        (spoken_for("uids = [7]", "uids = [7, 8]"), "others could ask"),
        (spoken_for("uids = [7]", ""), "others could ask"),
        (spoken_for("workload = { uid = 7 }", "workload = { unit = \"a.service\" }"), "`uid` is missing"),
        (proxied(r#"listen = "127.0.0.1:1""#, r#"listen = "10.0.0.1:1""#), "from other machines"),
        (
            proxied(r#"listen = "127.0.0.1:1""#, "listen = \"127.0.0.1:1\"\nuids = [5]"),
            "expected a Unix socket",
        ),
        (proxied("credential = \"post", "credential = \"pots"), "did you mean `post-invoices`"),
        (proxied("https://erp.example", "https://erp.example/x"), "without a path"),
        (proxied("https://erp.example", "https://a:b@erp.example"), "without a path"),
        (proxied("https://erp.example", "http://erp.example"), "nothing is encrypted"),
        (proxied("POST /batch", "POST batch"), "the beginning of a path"),
        (proxied("POST /batch", "POST /a/../b"), "the beginning of a path"),
        (proxied("POST /batch", "CONNECT /batch"), "the beginning of a path"),
        (proxied("allow =", "allwo ="), "`allow` is missing"),
        (proxied("target = \"erp\"", ""), "`target` is missing"),
        (
            format!(
                "{SMALLEST}[[proxy]]\nlisten = \"127.0.0.1:1\"\ncredential = \"post-invoices\"\nupstream = \"https://e.example\"\nallow = [\"GET /\"]\ninject = \"token\"\n"
            ),
            "`post-invoices` is bound to a key",
        ),
        (proxied("\"static\"", "\"token\""), "only where `inject = \"static\"`"),
        (proxied("template = \"{}\"", "template = \"x\""), "where the key stands"),
        (proxied("X-Api-Key", "transfer-encoding"), "the name of a header"),
        (proxied("exception =", "exeption ="), "`exception` is missing"),
    ] {
        let faults = match parse(&fault) {
            Ok(config) => panic!("{fault}\n{config:?}"),
            Err(faults) => faults,
        };
        assert!(faults.iter().any(|fault| fault.message.contains(expected)), "{fault}\n{faults:#?}");
    }
}

const WORKLOAD: &str = "[credential.workload]";

/// The one key that cannot stand beside all the others: files are for a user, and not for a unit.
fn is_unit(key: &Key) -> bool {
    (key.section, key.name) == (WORKLOAD, "unit")
}

#[test]
fn a_credential_for_a_unit_goes_to_a_socket_of_that_unit_alone() {
    let of_unit = |key: &str| {
        let files = "workload = { uid = 7 }\nfiles = { dir = \"out\", uid = 7 }";
        let unit = format!("workload = {{ uid = 7, {key} = \"a.service\" }}");
        spoken_for("uids = [7]", "uids = [7]\nunits = [\"a.service\"]").replace(files, &unit)
    };
    assert!(parse(&of_unit("unit")).is_ok());
    assert!(parse(&of_unit("unitx")).is_err());
    assert!(parse(&of_unit("unit").replace("units = [\"a.service\"]", "")).is_err());
}

/// Every key once, each with the example of the reference: with the certificate of a node as the proof, or with the others.
fn example(node: bool) -> String {
    let mut text = String::new();
    let mut section = "";
    let is_other = |key: &Key| key.section.is_empty() && ["id_token_file", "cert", "key"].contains(&key.name);
    let of_node = |key: &Key| ["[node]", WORKLOAD].contains(&key.section);
    let left_out = |key: &&Key| if node { is_other(key) } else { of_node(key) };
    for key in keys().filter(|key| !left_out(key) && !is_unit(key)) {
        if key.section != section {
            section = key.section;
            if section == "[[socket]]" {
                text += "[[credential]]\ntask = \"post-invoices\"\nidentity = \"prod/billing/nightly\"\n";
            }
            if section == "[[enforcer]]" {
                text += "[[credential]]\ntask = \"watch-ledger-db\"\nkind = \"common-name\"\n";
            }
            writeln!(text, "{section}").unwrap();
        }
        writeln!(text, "{} = {}", key.name, key.example).unwrap();
    }
    text
}

#[test]
fn every_documented_key_is_understood_and_no_other() {
    assert!(parse(&example(false)).unwrap().exec.is_some());
    assert!(parse(&example(true)).unwrap().connection.node.is_some());
    let mut names: Vec<_> = keys().map(|key| (key.section, key.name)).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), keys().count(), "a key is there twice");
    for key in keys().filter(|key| !is_unit(key)) {
        let spoiled = example(["[node]", WORKLOAD].contains(&key.section)).replacen(
            &format!("\n{} = ", key.name),
            &format!("\n{}x = ", key.name),
            1,
        );
        let spoiled = if key.name == "broker" { spoiled.replacen("broker", "brokerx", 1) } else { spoiled };
        assert!(parse(&spoiled).is_err(), "`{}x` is taken for a key", key.name);
    }
}

#[test]
fn the_reference_page_is_the_one_that_the_program_writes() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/agent.md");
    if std::env::var_os("DAYPASS_BLESS").is_some() {
        std::fs::write(path, reference()).unwrap();
    }
    let hint = "run the test with DAYPASS_BLESS=1 to write it anew";
    assert_eq!(std::fs::read_to_string(path).unwrap_or_default(), reference(), "{hint}");
}

#[test]
fn what_is_shown_to_readers_is_accepted() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let sample = std::fs::read_to_string(top.join("../docs/examples/agent.toml")).unwrap();
    let read = |name: &str| std::fs::read_to_string(top.join(name)).unwrap();
    let page = read("README.md");
    let target =
        ["postgresql", "static-key", "nginx"].map(|it| read(&format!("../docs/targets/{it}.md"))).concat();
    let blocks = |page: &'_ str| -> Vec<String> {
        page.split("```toml\n")
            .skip(1)
            .filter_map(|rest| rest.split("```").next())
            .map(String::from)
            .collect()
    };
    // What is shown of the enforcer alone stands in a whole file.
    let (connection, _) = SMALLEST.split_once("[[credential]]").unwrap();
    let whole = |text: String| if text.contains("broker =") { text } else { format!("{connection}{text}") };
    let targets = blocks(&target).into_iter().filter(|text| text.contains("broker ="));
    let mut seen = 0;
    for text in blocks(&page).into_iter().map(whole).chain(targets).chain([sample]) {
        parse(&text).unwrap_or_else(|faults| panic!("{text}\n{faults:#?}"));
        seen += 1;
    }
    assert_eq!(seen, 7);
}
