//! The password of the role that brokers have at their store: right and wrong, with the database there and gone.

use daypass_tests::harness::postgres::{Postgres, SERVICE};

use super::*;

const RIGHT: &str = "canary-right-0d61c9a2b7";
const WRONG: &str = "canary-wrong-83f4e1d95c";
const HBA: &str =
    "host all daypass all scram-sha-256\nhost all all 127.0.0.1/32 trust\nlocal all all trust\n";

/// A broker's program with this for its password; what it says goes to `log`.
fn serve(config: &Path, log: &Path) -> Child {
    let output = File::options().create(true).append(true).open(log).unwrap();
    let mut command = Command::new(program("daypass-broker"));
    command.args(["serve", "--config"]).arg(config).stdin(Stdio::null());
    command.stdout(output.try_clone().unwrap()).stderr(output).spawn().unwrap()
}

#[tokio::test]
async fn the_password_of_the_store_is_told_to_the_database_and_to_nobody_else() {
    let mut server = Postgres::start();
    let at = server.database("daypass").at();
    let deployment = Deployment::stopped_in(at).await;
    server.sql("postgres", &format!("ALTER ROLE {SERVICE} PASSWORD '{RIGHT}'"));
    server.write("pg_hba.conf", HBA);
    server.reload();
    let (password, log, ops) =
        (deployment.folder().join("password"), deployment.folder().join("log"), free_port());
    let config = deployment.config_file();
    let text = fs::read_to_string(&config).unwrap();
    let given = format!("[store]\npassword_file = {password:?}\n");
    let text = text
        .replace("[store]\n", &given)
        .replace("[ops]\nlisten = \"127.0.0.1:0\"", &format!("[ops]\nlisten = \"127.0.0.1:{ops}\""));
    assert!(text.contains(&given) && text.contains(&ops.to_string()), "{text}");
    fs::write(&config, format!("{text}[output]\nlevel = \"trace\"\n")).unwrap();
    let mut said = Vec::new();
    let put = |word: &str| {
        fs::write(&password, format!("{word}\n")).unwrap();
        fs::set_permissions(&password, fs::Permissions::from_mode(0o600)).unwrap();
    };
    put(WRONG);
    let line = ["verify", "--config", config.to_str().unwrap()];
    let refused = run(program("daypass-broker"), line).await;
    assert!(refused.code != Some(0) && refused.stderr.contains("password"), "{refused:?}");
    said.push(refused.stdout + &refused.stderr);
    put(RIGHT);
    let mut broker = serve(&config, &log);
    let metrics = format!("http://127.0.0.1:{ops}/metrics");
    let ready = format!("http://127.0.0.1:{ops}/readyz");
    let curl = async |url: &str| run("curl", ["-s", "-f", "--noproxy", "*", url]).await;
    eventually("the broker is ready", || async { curl(&ready).await.code == Some(0) }).await;
    said.push(curl(&metrics).await.stdout);
    let process = PathBuf::from(format!("/proc/{}", broker.id()));
    for part in ["cmdline", "environ"] {
        said.extend(fs::read(process.join(part)).ok().map(|it| String::from_utf8_lossy(&it).into_owned()));
    }
    put(WRONG);
    server.restart();
    let complains = || async { fs::read_to_string(&log).unwrap().contains("password authentication failed") };
    eventually("it is refused", complains).await;
    server.stop();
    let gone = run(program("daypass-broker"), line).await;
    assert_ne!(gone.code, Some(0), "{gone:?}");
    said.push(gone.stdout + &gone.stderr);
    broker.kill().unwrap();
    broker.wait().unwrap();
    said.push(fs::read_to_string(&log).unwrap());
    for path in files(deployment.folder()).into_iter().filter(|path| *path != password) {
        said.push(String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned());
    }
    for word in [RIGHT, WRONG] {
        let spellings = [word.to_owned(), STANDARD.encode(word), URL_SAFE_NO_PAD.encode(word)];
        let found =
            said.iter().find(|text| spellings.iter().any(|it| text.contains(it.trim_end_matches('='))));
        assert!(found.is_none(), "the password is in:\n{}", found.unwrap());
    }
}
