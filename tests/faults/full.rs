//! A disk that fills, and has room again.

use std::path::{Path, PathBuf};
use std::process::Command;

use daypass_tests::harness::{Deployment, left_out};
use tempfile::TempDir;

use super::child::{Child, Files};
use super::load::Client;
use super::report::stood;

/// A small file system of its own; taken away where it is dropped.
struct SmallDisk(TempDir);

impl SmallDisk {
    /// None where this machine does not let us mount one.
    fn mount(megabytes: u32) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let size = format!("size={megabytes}m");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "none"]).arg(folder.path()).output();
        let why = match mounted {
            Ok(output) if output.status.success() => return Some(Self(folder)),
            Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
            Err(error) => error.to_string(),
        };
        left_out("a disk that fills (P5)", &format!("a tmpfs cannot be mounted here: {why}"));
        None
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Takes all room but some bytes.
    fn fill(&self, but: usize) -> PathBuf {
        let ballast = self.path().join("ballast");
        let mut length = 0;
        let chunk = vec![1; 4096];
        let mut file = std::fs::File::create(&ballast).unwrap();
        while std::io::Write::write_all(&mut file, &chunk).is_ok() {
            length += chunk.len();
        }
        file.set_len(u64::try_from(length.saturating_sub(but)).unwrap()).unwrap();
        ballast
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(self.0.path()).status();
        assert!(
            unmounted.is_ok_and(|status| status.success()),
            "`{}` stays mounted",
            self.0.path().display()
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_stops_issuance_and_room_lets_it_go_on_without_a_restart() {
    let Some(disk) = SmallDisk::mount(24) else { return };
    let deployment = Deployment::stopped(daypass_broker::dev::organisation::sample()).await;
    let files = Files::on(&deployment, disk.path());
    let child = Child::start(&files, &[]).await;
    let client = Client::of(&deployment, files.api, 300);
    let mut held = vec![client.at_last().await];
    for _ in 0..2 {
        let ballast = disk.fill(64 * 1024);
        let mut issued = 0;
        let code = loop {
            match client.answer().await {
                Ok(received) => held.push(received),
                Err(code) => break code,
            }
            issued += 1;
            assert!(issued < 2_000, "a full disk stops nothing");
        };
        assert_eq!(code, tonic::Code::Unavailable);
        std::fs::remove_file(ballast).unwrap();
        held.push(client.at_last().await);
    }
    child.kill();
    files.check(&deployment).unwrap().compare(&held, &[]).unwrap();
    stood("P5", "tmpfs full under load, then room again", 2);
}
