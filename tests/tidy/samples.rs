//! What is shown to readers works: sample configurations and the sample organisation.

use daypass_broker::config::Config;
use daypass_broker::dev::organisation::sample;
use daypass_core::bundle::{SourceFile, compile};

use super::sources::all;

/// The page that shows issuers, and below each a clause for it.
const ISSUERS: &str = "docs/issuers.md";

#[test]
fn every_configuration_that_is_shown_is_accepted() {
    let mut seen = 0;
    for source in
        all().iter().filter(|source| source.is_under(&["docs", "README.md", "broker/ARCHITECTURE.md"]))
    {
        let blocks =
            if source.path.ends_with(".toml") { vec![source.text.as_str()] } else { blocks(&source.text) };
        for block in blocks.into_iter().filter(|block| block.contains("[broker]")) {
            Config::parse(block, &source.path).unwrap_or_else(|error| panic!("{error}"));
            seen += 1;
        }
    }
    assert!(seen > 0, "no configuration is shown: this test tests nothing");
}

#[test]
fn every_issuer_that_is_shown_is_accepted_with_the_proof_below_it() {
    let all = all();
    let page = all.iter().find(|source| source.path == ISSUERS).unwrap();
    let blocks = blocks(&page.text);
    assert!(blocks.len() > 6, "{ISSUERS} shows no issuers");
    for block in blocks {
        let (issuer, proofs) =
            block.split_once("\n\nproofs = ").unwrap_or_else(|| panic!("no proof:\n{block}"));
        let identity = format!(
            "[identity.\"prod/shown/job\"]\nclass = \"service\"\nprivilege = \"low\"\npurpose = \"shown\"\n\
             business_owner = \"finance\"\ntechnical_owner = \"platform\"\nenvironment = \"prod\"\n\
             expires = 2027-11-30\nreview_every = \"90d\"\ntasks = [\"post-invoices\"]\nproofs = {proofs}"
        );
        // The sample has a cluster of its own.
        let rename =
            |text: &str| text.replace("cluster", "cluster-shown").replace("in_cluster-shown", "in_cluster");
        let mut files = sample();
        for (path, text) in [("issuers/shown.toml", issuer), ("identities/shown.toml", &identity)] {
            files.push(SourceFile { path: path.into(), text: rename(text) });
        }
        compile(&files).unwrap_or_else(|findings| panic!("{block}\n{findings:#?}"));
    }
}

/// The TOML in a page.
fn blocks(page: &str) -> Vec<&str> {
    page.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect()
}

#[test]
fn the_sample_organisation_is_accepted_without_a_warning() {
    let bundle = compile(&sample()).unwrap_or_else(|findings| panic!("{findings:#?}"));
    let warnings: Vec<String> = bundle.warnings().iter().map(ToString::to_string).collect();
    assert!(warnings.is_empty(), "{}", warnings.join("\n"));
    assert_eq!(sample().iter().filter(|file| file.path.ends_with(".cedar")).count(), 2);
}
