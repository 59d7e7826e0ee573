//! The connection to the broker, with the certificate that it shows: one value, for a token is bound to the certificate
//! of the connection that it came over. Where the certificate lies in files, both follow them together.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio::sync::watch;
use tokio::time::sleep;
use tonic::transport::{Channel, Endpoint};
use tracing::{info, warn};

use crate::config::ClientCertificate;
use crate::error::Error;
use crate::holder::Holder;
use crate::stamp::FileStamp;
use crate::tls::{Connector, Replaced, client_config};

/// How often files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// What calls go over, as it is at one moment.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) holder: Arc<Holder>,
    certified: Arc<CertifiedKey>,
    pub(crate) channel: Channel,
}

/// How lines to one broker are made.
struct Opener {
    endpoint: Endpoint,
    ca: Vec<u8>,
    replaced: Replaced,
}

impl Opener {
    /// A line that shows `holder`. It connects at the first call.
    ///
    /// # Errors
    /// When key and certificate do not fit, or there are no roots.
    fn line(&self, holder: Holder) -> Result<Line, Error> {
        let certified = Arc::new(holder.certified()?);
        let shown = Arc::new(SingleCertAndKey::from(Arc::clone(&certified)));
        let connector = Connector::new(client_config(&self.ca, Some(shown), &["h2"])?);
        let connector = connector.until(self.replaced.clone());
        let channel = self.endpoint.connect_with_connector_lazy(connector);
        Ok(Line { holder: Arc::new(holder), certified, channel })
    }
}

/// The line now, and each that follows it.
#[derive(Debug, Clone)]
pub(crate) struct Lines {
    newest: watch::Receiver<Line>,
    replaced: Replaced,
    pub(crate) follows: bool,
}

impl Lines {
    /// Lines to `endpoint`, under the roots `ca`. Where `holder` came from `files`, to be called within a tokio runtime.
    ///
    /// # Errors
    /// When the first cannot be made.
    pub(crate) fn open(
        endpoint: Endpoint,
        ca: &[u8],
        holder: Holder,
        files: Option<Followed>,
    ) -> Result<Self, Error> {
        let (lines, follower) = Self::with_follower(endpoint, ca, holder, files)?;
        if let Some(follower) = follower {
            tokio::spawn(follower.run());
        }
        Ok(lines)
    }

    fn with_follower(
        endpoint: Endpoint,
        ca: &[u8],
        holder: Holder,
        files: Option<Followed>,
    ) -> Result<(Self, Option<Follower>), Error> {
        let (replace, replaced) = watch::channel(());
        let opener = Opener { endpoint, ca: ca.to_vec(), replaced: replaced.clone() };
        let (lines, newest) = watch::channel(opener.line(holder)?);
        let follower = files.map(|files| Follower { opener, files, lines, replace });
        Ok((Self { newest, replaced, follows: follower.is_some() }, follower))
    }

    pub(crate) fn now(&self) -> Line {
        self.newest.borrow().clone()
    }

    /// Tells connections to other services that the certificate is another.
    pub(crate) fn replaced(&self) -> Replaced {
        self.replaced.clone()
    }
}

/// What connections to other services show: the certificate to which tokens are bound now.
impl ResolvesClientCert for Lines {
    fn resolve(&self, _: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let certified = Arc::clone(&self.newest.borrow().certified);
        Some(certified).filter(|it| it.key.choose_scheme(schemes).is_some())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// A certificate in files, as it was when it was read.
pub(crate) struct Followed {
    files: [PathBuf; 2],
    seen: [Option<FileStamp>; 2],
}

impl Followed {
    /// None for a certificate that lies in no files. To be called before it is read.
    pub(crate) fn of(certificate: Option<&ClientCertificate>) -> Option<Self> {
        let Some(ClientCertificate::Files { chain, key }) = certificate else { return None };
        let files = [chain.clone(), key.clone()];
        Some(Self { seen: files.each_ref().map(|path| FileStamp::of(path)), files })
    }

    fn has_changed(&mut self) -> bool {
        let found = self.files.each_ref().map(|path| FileStamp::of(path));
        found != std::mem::replace(&mut self.seen, found)
    }

    fn read(&self) -> Result<Holder, Error> {
        let [chain, key] = self.files.clone();
        ClientCertificate::Files { chain, key }.read()
    }
}

/// Makes the next line when the files have changed.
struct Follower {
    opener: Opener,
    files: Followed,
    lines: watch::Sender<Line>,
    replace: watch::Sender<()>,
}

impl Follower {
    async fn run(mut self) {
        while !self.lines.is_closed() {
            sleep(LOOK_EVERY).await;
            self.look();
        }
    }

    fn look(&mut self) {
        if !self.files.has_changed() {
            return;
        }
        // A chain may have been replaced before its key: then the key's turn comes at the next look.
        match self.files.read().and_then(|holder| self.opener.line(holder)) {
            Ok(line) if line.holder.digest() == self.lines.borrow().holder.digest() => {}
            Ok(line) => {
                info!("the client certificate has changed: it is shown from now on");
                self.lines.send_replace(line);
                self.replace.send_replace(());
            }
            Err(error) => {
                warn!("the client certificate has changed and cannot be used, so the one before is: {error}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use daypass_verify::ids::Digest;
    use daypass_verify::time::UnixMs;
    use secrecy::ExposeSecret as _;

    use super::*;

    const NOW: UnixMs = UnixMs::new(1_795_316_400_123);

    struct Files(tempfile::TempDir);

    impl Files {
        fn certificate(&self) -> ClientCertificate {
            ClientCertificate::Files { chain: self.0.path().join("crt"), key: self.0.path().join("key") }
        }

        fn write(&self, name: &str, text: &str) {
            std::fs::write(self.0.path().join(name), text).unwrap();
        }
    }

    fn both(holder: &Holder) -> (String, String) {
        let all = holder.to_pem().expose_secret().to_owned();
        let at = all.find("-----BEGIN PRIVATE KEY-----").unwrap();
        (all[..at].to_owned(), all[at..].to_owned())
    }

    /// The certificate that is shown after another look.
    fn looked(lines: &Lines, follower: &mut Follower) -> Digest {
        follower.look();
        let (line, schemes) = (lines.now(), [SignatureScheme::ECDSA_NISTP256_SHA256]);
        let shown = Digest::of(&lines.resolve(&[], &schemes).unwrap().cert[0]);
        assert_eq!(shown, line.holder.digest(), "other services are shown the same");
        shown
    }

    #[tokio::test]
    async fn files_are_followed_as_soon_as_chain_and_key_fit_and_what_was_before_is_kept_until_then() {
        let files = Files(tempfile::tempdir().unwrap());
        let [first, second, third] = [(); 3].map(|()| Holder::fresh(NOW).unwrap());
        let ((chain, key), (second_chain, second_key)) = (both(&first), both(&second));
        files.write("crt", &chain);
        files.write("key", &key);
        let followed = Followed::of(Some(&files.certificate()));
        let endpoint = Endpoint::from_static("https://broker.example.org");
        let holder = files.certificate().read().unwrap();
        let opened = Lines::with_follower(endpoint, chain.as_bytes(), holder, followed).unwrap();
        let (lines, mut follower) = (opened.0, opened.1.unwrap());
        let replaced = lines.replaced();
        assert_eq!(looked(&lines, &mut follower), first.digest());

        for (what, name, half) in [
            ("the chain alone", "crt", second_chain.as_str()),
            ("half of a chain", "crt", &second_chain[..80]),
            ("nothing", "crt", ""),
            ("no key", "key", ""),
            ("half of a key", "key", &second_key[..60]),
        ] {
            files.write(name, half);
            assert_eq!(looked(&lines, &mut follower), first.digest(), "{what}");
        }
        std::fs::remove_file(files.0.path().join("key")).unwrap();
        assert_eq!(looked(&lines, &mut follower), first.digest(), "a file is gone");
        assert!(!replaced.has_changed().unwrap(), "no connection ends for it");

        files.write("crt", &second_chain);
        files.write("key", &second_key);
        assert_eq!(looked(&lines, &mut follower), second.digest());
        assert!(replaced.has_changed().unwrap(), "what shows the one before ends");

        let (chain, key) = both(&third);
        files.write("crt", &chain);
        assert_eq!(looked(&lines, &mut follower), second.digest());
        files.write("key", &key);
        assert_eq!(looked(&lines, &mut follower), third.digest(), "and the next");
    }
}
