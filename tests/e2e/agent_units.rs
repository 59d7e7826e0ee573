//! The systemd units that come with the agent.

use std::fs;
use std::path::Path;

use daypass_tests::harness::{left_out, program, run};

/// The most exposure that is left, in tenths, as `systemd-analyze security` counts.
const EXPOSURE_MAX: &str = "25";

#[tokio::test]
async fn systemd_takes_the_units_and_finds_little_exposed() {
    if !Path::new("/usr/bin/systemd-analyze").exists() {
        left_out("the agent's systemd units", "`systemd-analyze` is not installed");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("../agent/systemd");
    let mut seen = 0;
    for unit in fs::read_dir(units).unwrap() {
        let unit = unit.unwrap();
        let name = unit.file_name().into_string().unwrap().replace("@.", "@daemon.");
        let agent = program("daypass-agent");
        let text = fs::read_to_string(unit.path()).unwrap();
        let at = folder.path().join(name);
        // What is verified has to be there.
        fs::write(&at, text.replace("/usr/bin/daypass-agent", agent.to_str().unwrap())).unwrap();
        let at = at.to_str().unwrap();
        let verified = run("systemd-analyze", ["verify", at]).await;
        assert_eq!((verified.code, verified.stderr.as_str()), (Some(0), ""), "{at}");
        let threshold = format!("--threshold={EXPOSURE_MAX}");
        let exposed =
            run("systemd-analyze", ["security", "--offline=true", "--no-pager", &threshold, at]).await;
        assert_eq!(exposed.code, Some(0), "{}", exposed.stdout);
        seen += 1;
    }
    assert_eq!(seen, 2);
}
