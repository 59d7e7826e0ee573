//! The sample organisation with one thing spoiled at a time: each must be found, by code, file and line.

use super::sample::{files, folder, lines, spoiled};
use super::{Finding, SourceFile, compile};

/// File, text to replace, replacement, expected code, a text on the line where it must be found, and a part of
/// the message.
type Row = (&'static str, &'static str, &'static str, &'static str, &'static str, &'static str);

#[rustfmt::skip] // one row, one line
const REFUSED: &[Row] = &[
    // the form of files and values
    ("tasks.toml", "[task.deploy-web]", "[task.deploy-web", "syntax", "[task.deploy-web", "not TOML"),
    ("tasks.toml", "[task.deploy-web]", "[tasks.deploy-web]", "unknown-key", "[tasks.deploy-web]", "did you mean `task`?"),
    ("tasks.toml", "[task.deploy-web]", "[task.Deploy_Web]", "wrong-name", "[task.Deploy_Web]", "is not a name"),
    ("tasks.toml", "[task.deploy-web]", "[task.\"deploy-wéb\"]", "wrong-name", "deploy-wéb", "is not a name"),
    ("tasks.toml", "[task.deploy-web]", "[target.ledger]", "declared-twice", "[target.ledger]", "targets.toml:"),
    ("owners.toml", "[owner.p-1042]", "[owner.p-1041-]\nkind = \"team\"\nstatus = \"gone\"\n[owner.p-1042]", "wrong-value", "gone", "expected `active` or `left`"),
    ("owners.toml", "kind = \"person\"", "kind = \"human\"", "wrong-value", "human", "`team` nor `person`"),
    ("organisation.toml", "overdue_ttl_max", "overdue_ttl_mx", "unknown-key", "overdue_ttl_mx", "did you mean `overdue_ttl_max`?"),
    ("organisation.toml", "\"30d\"", "\"30h\"", "wrong-value", "30h", "whole days"),
    ("organisation.toml", "overdue_ttl_max", "zzz", "unknown-key", "zzz", "expected one of `environments`, `overdue_ttl_max`"),
    ("organisation.toml", "[organisation]", "[organisations]", "missing-key", "", "`[organisation]`"),
    ("rules/base.cedar", "@id(\"base/approved\")", "@id(\"base/approved\") oops", "rule-syntax", "forbid (", "cannot be read"),
    ("schema.cedarschema", "privilege: String", "privilege: Long", "file", "", "differs from the schema"),
    // what an identity must say
    ("identities/billing.toml", "purpose = \"posts", "purpos = \"posts", "unknown-key", "purpos", "did you mean `purpose`?"),
    ("identities/billing.toml", "purpose = \"posts", "purpos = \"posts", "missing-key", "[identity.\"prod/billing/nightly\"]", "`purpose`"),
    ("identities/billing.toml", "purpose = \"posts each night's invoices and reconciles them with the ledger's database\"", "purpose = \"  \"", "wrong-value", "purpose = \"  \"", "empty"),
    ("identities/billing.toml", "business_owner = \"finance\"\n", "", "missing-key", "[identity.\"prod/billing/nightly\"]", "`business_owner`"),
    ("identities/billing.toml", "technical_owner = \"platform\"\n", "", "missing-key", "[identity.\"prod/billing/nightly\"]", "`technical_owner`"),
    ("identities/billing.toml", "expires = 2027-11-30\n", "", "missing-key", "[identity.\"prod/billing/nightly\"]", "`expires`"),
    ("identities/billing.toml", "expires = 2027-11-30", "expires = \"30 Nov 2027\"", "wrong-value", "30 Nov 2027", "`30 Nov 2027` is not a time"),
    ("identities/billing.toml", "review_every = \"90d\"", "review_every = \"a quarter\"", "wrong-value", "a quarter", "is not a duration"),
    ("identities/billing.toml", "class = \"service\"", "class = \"servce\"", "wrong-value", "servce", "`service`"),
    ("identities/billing.toml", "tasks = [\"post-invoices\", \"read", "tasks = [\"post-invoices\", \"post-invoices\", \"read", "wrong-value", "post-invoices", "listed twice"),
    ("identities/billing.toml", "proofs = [\n", "proofs = []\nproof = [\n", "no-proof", "proofs = []", "how it proves itself"),
    // references
    ("identities/billing.toml", "business_owner = \"finance\"", "business_owner = \"finnance\"", "unknown-reference", "finnance", "did you mean `finance`?"),
    ("identities/billing.toml", "environment = \"prod\"", "environment = \"prd\"", "unknown-reference", "\"prd\"", "did you mean `prod`?"),
    ("identities/billing.toml", "\"ledger-db\"]", "\"ledgr-db\"]", "unknown-reference", "ledgr-db", "did you mean `ledger-db`?"),
    ("identities/billing.toml", "issuer = \"ci\"", "issuer = \"cii\"", "unknown-reference", "\"cii\"", "unknown issuer"),
    ("identities/acme.toml", "supplier = \"acme\"", "supplier = \"acne\"", "unknown-reference", "acne", "did you mean `acme`?"),
    ("identities/acme.toml", "supplier = \"acme\"\n", "", "no-supplier", "class", "whose contract"),
    ("tasks.toml", "targets = [\"ledger-db\"]", "targets = [\"ledger-dbs\"]", "unknown-reference", "ledger-dbs", "unknown target"),
    ("tasks.toml", "roles = [\"decide\"]", "roles = [\"decider\"]", "unknown-reference", "decider", "did you mean `decide`?"),
    ("exceptions.toml", "target = \"erp\"", "target = \"erpp\"", "unknown-reference", "erpp", "unknown target"),
    ("exceptions.toml", "owner = \"erp\"", "owner = \"erpp\"", "unknown-reference", "erpp", "unknown owner"),
    ("operators.toml", "\"propose\"", "\"proposes\"", "unknown-reference", "proposes", "did you mean `propose`?"),
    ("operators.toml", "owner = \"p-1041\"", "owner = \"p-9\"", "unknown-reference", "p-9", "unknown owner"),
    ("targets.toml", "environment = \"test\"", "environment = \"tests\"", "unknown-reference", "tests", "did you mean `test`?"),
    ("targets.toml", "served_by = [\"prod/web/frontend\"]", "served_by = [\"prod/web/fronted\"]", "unknown-reference", "fronted", "did you mean `prod/web/frontend`?"),
    ("issuers/issuers.toml", "environment = \"test\"", "environment = \"tests\"", "unknown-reference", "tests", "did you mean `test`?"),
    // ceilings
    ("tasks.toml", "audiences = [\"https://orders.example.org\"]", "audiences = [\"https://ledger.example.org\"]", "foreign-audience", "https://ledger.example.org", "none of its targets"),
    ("targets.toml", "audiences = [\"https://orders.example.org\"]", "audiences = [\"https://orders.example.org\", \"mesh.example.org\"]", "shared-audience", "mesh.example.org", "one target for each audience"),
    ("tasks.toml", "targets = [\"web-db\"]", "targets = [\"web-db\", \"ledger-db\"]", "certificate-targets", "web-db", "exactly one"),
    ("tasks.toml", "ttl = \"15m\"\nttl_max = \"1h\"\nclaims", "ttl = \"2h\"\nttl_max = \"1h\"\nclaims", "ttl", "ttl = \"2h\"", "over `ttl_max`"),
    ("tasks.toml", "ttl_max = \"1h\"\nclaims", "ttl_max = \"61m\"\nclaims", "ttl", "61m", "done with tokens"),
    ("tasks.toml", "ttl_max = \"2h\"", "ttl_max = \"25h\"", "ttl", "25h", "done with certificates"),
    ("tasks.toml", "ttl_max = \"10m\"", "ttl_max = \"16m\"", "ttl", "16m", "no revocation"),
    ("tasks.toml", "ttl = \"15m\"", "ttl = \"0s\"", "wrong-value", "0s", "is not a duration"),
    ("tasks.toml", "ttl = \"15m\"", "ttl = \"1500ms\"", "wrong-value", "1500ms", "is not a duration"),
    ("tasks.toml", "claims = { tenant", "claims = { iss = \"x\", tenant", "reserved-claim", "iss", "reserved"),
    ("tasks.toml", "claims = { tenant", "claims = { cnf = \"x\", tenant", "reserved-claim", "cnf", "reserved"),
    ("tasks.toml", "{ proof = \"run_id\" }", "{ prof = \"run_id\" }", "wrong-value", "prof =", "`{ proof ="),
    ("tasks.toml", "profile = \"x509-svid\"", "profile = \"at+jwt\"", "profile", "at+jwt", "not among `kinds`"),
    ("tasks.toml", "common_name = \"web_migrator\"", "common_name = \"web,CN=root\"", "common-name", "web,CN=root", "no role or user name"),
    ("tasks.toml", "common_name = \"web_migrator\"\n", "", "common-name", "kinds", "without `common_name`"),
    ("tasks.toml", "dns_names = [\"web.", "dns_names = [\"*.", "dns-name", "*.mesh", "without wildcard"),
    ("tasks.toml", "resources = [\"acme/*\"]", "resources = [\"acme/../x\"]", "wrong-value", "acme/../x", "is not a resource"),
    ("tasks.toml", "approval = { n = 1", "approval = { n = 0", "approval", "n = 0", "1 or more"),
    ("tasks.toml", "audiences = [\"https://deploy.example.org\"]\n", "", "no-audience", "[task.deploy-web]", "those that may take them"),
    // nodes
    ("identities/nodes.toml", "class = \"node\"", "class = \"service\"", "proof-form", "proofs", "class `node`"),
    ("identities/nodes.toml", "example.org/prod/node/db1", "example.org/prod/node/db2", "proof-form", "proofs", "its own `spiffe_id`"),
    ("identities/nodes.toml", ", spiffe_id = \"spiffe://example.org/prod/node/db1\"", "", "proof-form", "proofs", "its own `spiffe_id`"),
    ("operators.toml", "{ issuer = \"staff\", subject = \"p-1042\" }", "{ issuer = \"nodes\", spiffe_id = \"spiffe://example.org/bob-sec\" }", "proof-form", "bob-sec\" }", "prove themselves alone"),
    ("issuers/issuers.toml", "[issuer.nodes]\n", "[issuer.machines]\nkind = \"nodes\"\nenvironment = \"prod\"\n\n[issuer.nodes]\n", "nodes", "kind = \"nodes\"", "expected one of this kind"),
    ("issuers/issuers.toml", "kind = \"nodes\"", "kind = \"node\"", "wrong-value", "kind = \"node\"", "`nodes`"),
    ("tasks.toml", "kinds = [\"node\"]", "kinds = [\"node\", \"x509-svid\"]\nprofile = \"node\"", "node", "kinds", "a task of its own"),
    ("tasks.toml", "kinds = [\"node\"]", "kinds = [\"node\"]\nrevoke_on_renew = true", "node", "revoke_on_renew", "remove it"),
    // workloads that a node attests
    ("identities/ledger.toml", "node = \"prod/node/db1\"", "node = \"prod/node/db2\"", "unknown-reference", "db2", "`prod/node/db1`"),
    ("identities/ledger.toml", "node = \"prod/node/db1\"", "node = \"prod/ledger/database\"", "proof-form", "workload", "class `node`"),
    ("identities/ledger.toml", ", unit = \"ledger-backup.service\", uid = 1001", "", "proof-form", "workload", "whoever runs on the machine"),
    ("identities/ledger.toml", "unit = \"ledger-backup.service\"", "unit = \"*.service\"", "wildcard", "*.service", "exact string"),
    ("identities/ledger.toml", "uid = 1001", "uid = -1", "wrong-value", "uid = -1", "0 or more"),
    ("identities/ledger.toml", "uid = 1001 }", "uid = 1001 }, subject = \"x\"", "proof-form", "workload", "alone beside `issuer`"),
    ("identities/ledger.toml", "issuer = \"nodes\"", "issuer = \"workloads\"", "proof-form", "workload", "kind `nodes`"),
    ("identities/ledger.toml", "class = \"service\"", "class = \"node\"", "proof-form", "workload", "attested by no other"),
    ("operators.toml", "{ issuer = \"staff\", subject = \"p-1042\" }", "{ issuer = \"nodes\", workload = { node = \"prod/node/db1\", uid = 0 } }", "proof-form", "workload", "nobody who administers"),
    // issuers
    ("issuers/issuers.toml", "https://ci.example.org", "http://ci.example.org", "issuer-url", "http://ci", "is not https"),
    ("issuers/issuers.toml", "https://ci.example.org", "file:///etc/passwd", "issuer-url", "file:", "is not https"),
    ("issuers/issuers.toml", "https://ci.example.org", "data:text/plain,x", "issuer-url", "data:", "is not https"),
    ("issuers/issuers.toml", "https://ci.example.org", "https://ci.example.org@evil.example", "issuer-url", "@evil", "names a user"),
    ("issuers/issuers.toml", "https://ci.example.org", "https://ci.example.org#x", "issuer-url", "#x", "fragment"),
    ("issuers/issuers.toml", "https://ci.example.org", "https://ci.example.org?x=1", "issuer-url", "?x", "query"),
    ("issuers/issuers.toml", "https://ci.example.org", "https://CI.example.org", "issuer-url", "CI.", "normal form"),
    ("issuers/issuers.toml", "https://ci.example.org", "https://ci.example.org:22", "issuer-url", ":22", "port"),
    ("issuers/issuers.toml", "https://login.example.org", "https://ci.example.org", "issuer-url", "ci.example.org", "one issuer for each URL"),
    ("issuers/issuers.toml", "algs = [\"ES256\", \"RS256\"]", "algs = [\"ES256\", \"none\"]", "alg", "none", "not an accepted algorithm"),
    ("issuers/issuers.toml", "algs = [\"ES256\", \"RS256\"]", "algs = [\"HS256\"]", "alg", "HS256", "not an accepted algorithm"),
    ("issuers/issuers.toml", "proof_ttl_max = \"10m\"", "proof_ttl_max = \"25h\"", "ttl", "25h", "over 1d"),
    ("issuers/issuers.toml", "instance_claim = \"run_id\"\nreplay = \"once\"", "replay = \"until_expiry\"", "no-instance", "until_expiry", "`instance_claim`"),
    ("issuers/issuers.toml", "instance_claim = \"run_id\"", "instance_claim = \"/run/~2\"", "claim-name", "/run/~2", "RFC 6901"),
    ("issuers/issuers.toml", "preset = \"kubernetes\"", "preset = \"kubernetis\"", "wrong-value", "kubernetis", "expected one of `kubernetes`, `github-actions`"),
    ("issuers/issuers.toml", "preset = \"kubernetes\"", "preset = \"kubernetes\"\nkind = \"client_ca\"", "wrong-value", "kind = \"client_ca\"", "not what the preset makes"),
    ("issuers/issuers.toml", "preset = \"kubernetes\"", "preset = \"kubernetes\"\nin_cluster = true\njwks_url = \"https://cluster.example.org/keys\"", "wrong-value", "in_cluster", "leave out `jwks_url`"),
    ("issuers/issuers.toml", "url = \"https://cluster.example.org\"\n", "", "missing-key", "[issuer.cluster]", "`url`"),
    ("issuers/issuers.toml", "url = \"https://ci.example.org\"", "url = \"https://gitlab.com\"", "preset", "gitlab.com", "vouches for everybody: expected `preset = \"gitlab-ci\"`"),
    ("issuers/issuers.toml", "replay = \"once\"", "replay = \"once\"\nrequired_claims = [[]]", "wrong-value", "required_claims", "at least one"),
    ("issuers/issuers.toml", "replay = \"once\"", "replay = \"once\"\nrequired_claims = [\"*\"]", "claim-name", "required_claims", "letters"),
    ("issuers/issuers.toml", "replay = \"once\"", "replay = \"once\"\nrequired_claims = [\"event\", [\"environment\", \"ref\"]]", "open-proof", "", "without claim `environment` or claim `ref`: others whom that issuer vouches for could fit; name one of them too"),
    ("issuers/issuers.toml", "ca_file = \"issuers/workloads.pem\"", "ca_file = \"issuers/other.pem\"", "wrong-value", "other.pem", "no file of this bundle"),
    ("issuers/workloads.pem", "BEGIN CERTIFICATE", "BEGIN PUBLIC KEY", "wrong-value", "ca_file", "is not PEM"),
    ("issuers/workloads.pem", "MIIB3zCCAYWg", "MIIB3zCCAYXg", "ca", "", "no CA certificate"),
    ("issuers/issuers.toml", "ca_file = \"issuers/workloads.pem\"\n", "", "wrong-value", "[issuer.workloads]", "holds no certificate"),
    ("issuers/issuers.toml", "kind = \"client_ca\"", "kind = \"clientca\"", "wrong-value", "clientca", "`oidc`, `client_ca` nor"),
    // proofs
    ("identities/billing.toml", "subject = \"project:42:ref:main\"", "subject = \"project:42:*\"", "wildcard", "project:42:*", "exact string"),
    ("identities/billing.toml", "event = \"schedule\"", "event = \"sched?le\"", "wildcard", "sched?le", "exact string"),
    ("identities/acme.toml", ", subject = \"connector-eu-1\"", "", "proof-form", "issuer = \"supplier-idp\"", "everyone"),
    ("identities/billing.toml", "spiffe://example.org/prod", "spiffe://example.net/prod", "proof-form", "example.net", "trust domain"),
    ("identities/billing.toml", "spiffe_id = \"spiffe://example.org/prod/billing/nightly\"", "subject = \"x\"", "proof-form", "subject = \"x\"", "makes certificates"),
    ("identities/billing.toml", "spiffe://example.org/prod/billing/nightly", "spiffe://example.org/a/../b", "wrong-value", "a/../b", "is not a SPIFFE ID"),
    ("identities/web.toml", "subject = \"system:serviceaccount:shop:frontend\"", "subject = \"x\", dns_name = \"a.example.org\"", "proof-form", "a.example.org", "makes ID tokens"),
    ("targets.toml", "reach = \"feed\"\nenforcement = \"connect\"", "reach = \"none\"\nenforcement = \"connect\"", "reusable-proof", "", "no revocation reaches"),
    // rules
    ("rules/permits.cedar", "@id(\"web/deploy\")\n", "", "rule-id", "permit (\n", "without an `@id`"),
    ("rules/permits.cedar", "@id(\"web/deploy\")", "@id(\"web/migrate\")", "rule-id", "@id(\"web/migrate\")", "is taken"),
    ("rules/permits.cedar", "@id(\"web/deploy\")", "@id(\"Web Deploy\")", "rule-id", "Web Deploy", "without an `@id`"),
    ("rules/permits.cedar", "principal.supplier == \"acme\"", "principal.suplier == \"acme\"", "rule-invalid", "@id(\"supplier/acme\")", "suplier"),
    ("rules/permits.cedar", "principal has supplier && ", "", "rule-invalid", "@id(\"supplier/acme\")", "supplier"),
    ("rules/permits.cedar", "context.target.environment", "context.target.nvironment", "rule-invalid", "@id(\"mesh/services\")", "nvironment"),
    ("rules/permits.cedar", "resource == Task::\"deploy-web\"", "resource == Tsk::\"deploy-web\"", "rule-invalid", "@id(\"web/deploy\")", "Tsk"),
    ("rules/base.cedar", "context.ttl_s > 900", "context.ttl_s > \"900\"", "rule-invalid", "@id(\"base/unbound-is-brief\")", "type"),
    ("rules/permits.cedar", "principal == Identity::\"test/billing/nightly\"", "principal == ?principal", "rule-template", "@id(\"billing/rehearsal\")", "slot"),
];

#[rustfmt::skip] // one row, one line
const WARNED: &[Row] = &[
    ("identities/web.toml", "claims = { repository_id = \"77\", event", "claims = { event", "renamable", "event =", "immutable id"),
    ("issuers/issuers.toml", "crl_file = \"/var/lib/daypass/workloads.crl\"\n", "", "no-crl", "kind = \"client_ca\"", "stolen"),
    ("identities/billing.toml", "technical_owner = \"platform\"", "technical_owner = \"finance\"", "one-owner", "technical_owner = \"finance\"", "two owners are one"),
    ("owners.toml", "[owner.finance]\nkind = \"team\"", "[owner.finance]\nstatus = \"left\"\nkind = \"team\"", "owner-left", "", "has left"),
    ("identities/web.toml", "project:77:ref:main\", claims = { repository_id = \"77\", event = [\"push\", \"workflow_dispatch\"]", "project:42:ref:main\", claims = { repository_id = \"42\", event = [\"push\", \"schedule\"]", "shared-proof", "project:42", "one proof could fit both"),
    ("owners.toml", "[owner.erp]\nkind = \"team\"", "[owner.erp]\nkind = \"team\"\nstatus = \"left\"", "owner-left", "", "exception `erp-batch-password`"),
    ("operators.toml", "issuer = \"staff\", subject = \"p-1041\"", "issuer = \"supplier-idp\", subject = \"connector-eu-1\"", "shared-proof", "connector-eu-1", "identity `prod/acme/connector`"),
    ("identities/web.toml", "subject = \"project:77:ref:main\", claims = { repository_id = \"77\", event = [\"push\", \"workflow_dispatch\"]", "claims = { event = [\"push\", \"schedule\"]", "shared-proof", "claims = { event", "one proof could fit both"),
];

#[test]
fn one_spoiled_thing_refuses_the_whole_bundle_and_is_named_by_file_and_line() {
    let missed = |row: &Row| match compile(&spoiled(row.0, row.1, row.2)) {
        Ok(_) => Some(format!("{row:?} was accepted")),
        Err(findings) => unnamed(row, &findings, true),
    };
    assert_eq!(REFUSED.iter().filter_map(missed).collect::<Vec<_>>().join("\n"), "");
}

#[test]
fn what_is_only_unwise_is_advice() {
    let missed = |row: &Row| match compile(&spoiled(row.0, row.1, row.2)) {
        Ok(bundle) => unnamed(row, bundle.warnings(), false),
        Err(findings) => Some(format!("{row:?} was refused\n{}", lines(&findings))),
    };
    assert_eq!(WARNED.iter().filter_map(missed).collect::<Vec<_>>().join("\n"), "");
}

/// What is said about a row whose fault is not among the findings, or not by its place.
fn unnamed(row: &Row, findings: &[Finding], refuses: bool) -> Option<String> {
    let (file, from, to, code, on_line, message) = row;
    let expected = |it: &&Finding| it.code == *code && it.message.contains(message) && it.refuses == refuses;
    let placed = |it: &Finding| {
        let text = spoiled(file, from, to).into_iter().find(|file| file.path == it.path)?.text;
        let line = text.split_inclusive('\n').nth((it.line as usize).checked_sub(1)?)?;
        Some(line.contains(on_line))
    };
    let named = findings.iter().filter(expected).any(|it| on_line.is_empty() || placed(it) == Some(true));
    (!named).then(|| format!("{row:?} was found only as\n{}", lines(findings)))
}

#[test]
fn everything_wrong_is_found_at_once() {
    let mut files = spoiled("tasks.toml", "ttl = \"15m\"", "ttl = \"soon\"");
    let owners = files.iter_mut().find(|file| file.path == "owners.toml").unwrap();
    owners.text = owners.text.replace("[owner.finance]", "[owner.treasury]");
    let findings = compile(&files).unwrap_err();
    let codes: Vec<_> = findings.iter().map(|it| (it.path.as_str(), it.code)).collect();
    let unknown = ("identities/billing.toml", "unknown-reference");
    assert_eq!(codes, [unknown, unknown, ("tasks.toml", "wrong-value")], "{}", lines(&findings));
}

#[test]
fn a_file_of_unknown_type_is_refused_rather_than_passed_over() {
    let mut files = files();
    files.push(SourceFile {
        path: "rules/more.ceder".into(),
        text: "forbid (principal, action, resource);".into(),
    });
    assert_eq!(compile(&files).unwrap_err()[0].code, "file");
}

#[test]
fn more_rules_than_anybody_can_keep_in_mind_are_advised_against() {
    let mut files = files();
    let rule = |n| {
        format!("@id(\"many/r{n}\") forbid (principal, action, resource) when {{ context.ttl_s == {n} }};\n")
    };
    files.push(SourceFile { path: "rules/many.cedar".into(), text: (0..50).map(rule).collect() });
    let bundle = compile(&files).unwrap_or_else(|findings| panic!("{}", lines(&findings)));
    assert_eq!(bundle.warnings().iter().map(|it| it.code).collect::<Vec<_>>(), ["many-rules"]);
}

#[test]
fn no_private_key_lies_beside_the_sample() {
    let found = files().into_iter().find(|file| file.text.contains("PRIVATE KEY"));
    assert_eq!(found, None, "in {}", folder().display());
}

#[test]
fn an_object_that_no_entry_could_hold_is_refused() {
    let long = "x".repeat(13_000);
    let findings = compile(&spoiled("identities/acme.toml", "fetches orders", &long)).unwrap_err();
    assert_eq!(findings.iter().map(|it| (it.code, it.line)).collect::<Vec<_>>(), [("too-long", 2)]);
}

#[test]
fn one_fault_is_one_finding() {
    for (file, from, to) in [
        ("issuers/issuers.toml", "kind = \"client_ca\"", "kind = \"ca\""),
        ("issuers/issuers.toml", "ca_file = \"issuers/workloads.pem\"", "ca_file = \"issuers/other.pem\""),
        ("tasks.toml", "[task.deploy-web]", "[task.deploy-web"),
        ("identities/billing.toml", "proofs = [\n", "disabled = \"no\"\nproofs = [\n"),
        (
            "identities/acme.toml",
            "proofs = [{ issuer = \"supplier-idp\", subject = \"connector-eu-1\" }]",
            "",
        ),
        ("tasks.toml", "[task.post-invoices]\n", "[task.post-invoices]\nticket = \"X-1\"\n"),
        ("organisation.toml", "environments = [\"prod\", \"test\"]", "environments = []"),
    ] {
        let findings = compile(&spoiled(file, from, to)).unwrap_err();
        assert_eq!(findings.len(), 1, "{file}: {from:?} -> {to:?}\n{}", lines(&findings));
    }
}

#[test]
fn a_large_organisation_compiles() {
    let one = |n: usize| {
        let text = files().into_iter().find(|file| file.path == "identities/acme.toml").unwrap().text;
        text.replace("prod/acme/connector", &format!("prod/acme/c{n}"))
            .replace("connector-eu-1", &format!("c{n}"))
    };
    let mut files = files();
    files.push(SourceFile { path: "identities/many.toml".into(), text: (0..2000).map(one).collect() });
    let bundle = compile(&files).unwrap_or_else(|findings| panic!("{}", lines(&findings)));
    assert_eq!(bundle.declared().identities.len(), 2009);
    assert_eq!(lines(bundle.warnings()), "");
}

#[test]
fn a_task_that_names_no_lifetime_gets_the_default_within_its_ceiling() {
    for (ceiling, expected) in [("2h", 900), ("10m", 600)] {
        let ttl = format!("ttl_max = \"{ceiling}\"");
        let bundle = compile(&spoiled("tasks.toml", "ttl = \"30m\"\nttl_max = \"2h\"", &ttl)).unwrap();
        assert_eq!(bundle.declared().tasks["ledger-db"].ttl_s.get(), expected);
    }
}
