//! Pages lead where they say: each relative link to a file, a folder or a heading that is there.

use std::collections::BTreeSet;

use super::sources::{all, top};

/// The lines of a page that are no code.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut code = false;
    text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        code ^= fence;
        !code && !fence
    })
}

/// The headings of a page, spelt as links name them.
fn anchors(text: &str) -> BTreeSet<String> {
    let anchor = |heading: &str| {
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.collect::<String>().to_lowercase().replace(' ', "-")
    };
    let headings = prose(text).filter(|line| line.starts_with('#'));
    headings.map(|line| anchor(line.trim_start_matches('#').trim())).collect()
}

/// Where a page leads to within the project.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let targets = prose(text).flat_map(|line| line.split("](").skip(1));
    let targets = targets.filter_map(|rest| rest.split(')').next());
    targets.filter(|target| !target.contains("://") && !target.starts_with("mailto:"))
}

/// Why a link of `page` leads nowhere.
fn broken(page: &str, target: &str) -> Option<String> {
    let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
    let page = top().join(page);
    let to = if path.is_empty() { page } else { page.parent().unwrap().join(path) };
    if !to.exists() {
        return Some(format!("there is no `{path}`"));
    }
    if anchor.is_empty() {
        return None;
    }
    let headed = std::fs::read_to_string(to).is_ok_and(|text| anchors(&text).contains(anchor));
    (!headed).then(|| format!("there is no heading `{anchor}`"))
}

#[test]
fn a_link_leads_to_a_file_and_a_heading_that_are_there() {
    let mut seen = 0;
    let mut faults = Vec::new();
    for source in all().iter().filter(|source| source.path.ends_with(".md")) {
        for target in links(&source.text) {
            seen += 1;
            faults.extend(
                broken(&source.path, target).map(|why| format!("{}: `{target}`: {why}", source.path)),
            );
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(seen > 50, "{seen} links are not all there are");
}

#[test]
fn a_link_that_leads_nowhere_is_found() {
    let page = "# One `Daypass`: two\n[a](docs/sdk.md) [b](#gone) [c](https://x.example/y.md)\n```\n[d](no.md)\n```\n";
    assert_eq!(links(page).collect::<Vec<_>>(), ["docs/sdk.md", "#gone"]);
    assert_eq!(anchors(page), ["one-daypass-two".to_owned()].into());
    for good in ["docs/sdk.md", "docs/targets/", "docs/errors.md#already_issued", "#daypass"] {
        assert_eq!(broken("README.md", good), None, "{good}");
    }
    for bad in ["docs/nothing.md", "#gone", "docs/errors.md#gone", "docs/targets/#gone"] {
        assert!(broken("README.md", bad).is_some(), "{bad}");
    }
}
