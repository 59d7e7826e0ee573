//! What is shown to readers works: sample configurations and the sample organisation.

use daypass_broker::config::Config;
use daypass_broker::dev::organisation::sample;
use daypass_core::bundle::compile;

use super::sources::all;

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
