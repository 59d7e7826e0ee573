//! What a receiver of credentials does in a second: the SDK's layer, with a feed of many revocations, against the
//! signature alone.

use std::convert::Infallible;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use daypass_broker::clock::{Clock as _, SystemClock};
use daypass_sdk::receive::{Peer, PossessingPeers, Receive, Receiver, ReceiverConfig, serve, server_config};
use daypass_verify::ids::{CredentialId, Digest, KeyId};
use daypass_verify::jwks::p256_jwk;
use daypass_verify::revocations::{CutOffs, Revocations, Revoked};
use daypass_verify::time::UnixMs;
use http::{Request, Response, StatusCode};
use rcgen::{CertificateParams, KeyPair};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, UnparsedPublicKey,
};
use rustls::crypto::ring::sign::any_supported_type;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tower::{Layer as _, Service, service_fn};

use crate::Fault;

/// How many tokens are shown in turn.
const TOKENS: u8 = 128;
/// The receiver's audience.
const AUDIENCE: &str = "https://ledger.example.org";

#[derive(Serialize)]
struct Row {
    revocations: usize,
    layer_per_s: f64,
    layer_us: f64,
    bare_per_s: f64,
    bare_us: f64,
    share: f64,
}

/// Measures both on the core that this process is on.
pub(crate) async fn run(json: bool, revocations: u32, load: Duration) -> Result<(), Fault> {
    let issuer = Issuer::start(revocations).await?;
    let peer = Peer::new(Some(&[CertificateDer::from(vec![7; 600])]));
    let receiver = issuer.receiver()?;
    receiver.ready().await?;
    let known = receiver.trust().revocations().map_or(0, |feed| feed.revoked.ids().len());
    let tokens = issuer.tokens(Digest::of(&[7; 600]))?;
    let layered = layered(&receiver, &peer, &tokens, load).await?;
    let bare = issuer.bare(&tokens, load)?;
    let row = Row {
        revocations: known,
        layer_per_s: layered,
        layer_us: 1e6 / layered,
        bare_per_s: bare,
        bare_us: 1e6 / bare,
        share: layered / bare,
    };
    if json {
        println!("{}", serde_json::to_string(&row)?);
    } else {
        println!("feed       {} revocations", row.revocations);
        println!("layer      {:>9.0} tokens/s {:>9.1} us each", row.layer_per_s, row.layer_us);
        println!("signature  {:>9.0} tokens/s {:>9.1} us each", row.bare_per_s, row.bare_us);
        println!("share      {:>9.0} %", row.share * 100.0);
    }
    Ok(())
}

/// A second of the layer, as a service has it: the request with its header, and the caller named to the handler.
async fn layered(receiver: &Receiver, peer: &Peer, tokens: &[String], load: Duration) -> Result<f64, Fault> {
    let handler = service_fn(|request: Request<()>| async move {
        black_box(request.extensions().len());
        Ok::<_, Infallible>(Response::new(()))
    });
    let mut service: Receive<_> = receiver.layer().layer(handler);
    let (began, mut done) = (Instant::now(), 0_u32);
    while began.elapsed() < load {
        for token in tokens {
            let mut request = Request::new(());
            request.headers_mut().insert("authorization", format!("Bearer {token}").parse()?);
            request.extensions_mut().insert(peer.clone());
            let answer = service.call(request).await?;
            if answer.status() != StatusCode::OK {
                return Err(format!("a good token was answered with {}", answer.status()).into());
            }
            done += 1;
        }
    }
    Ok(f64::from(done) / began.elapsed().as_secs_f64())
}

/// A broker's documents, from a server of its own.
struct Issuer {
    key: EcdsaKeyPair,
    kid: KeyId,
    url: String,
    ca: String,
    now: UnixMs,
}

impl Issuer {
    async fn start(revocations: u32) -> Result<Self, Fault> {
        let random = SystemRandom::new();
        let document =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).map_err(|_| "no key")?;
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &random)
            .map_err(|error| error.to_string())?;
        let (kid, jwk) = p256_jwk(key.public_key().as_ref().try_into()?, "sig");
        let own = KeyPair::generate()?;
        let certificate = CertificateParams::new(["127.0.0.1".to_owned()])?.self_signed(&own)?;
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let url = format!("https://{}", listener.local_addr()?);
        let issuer = Self { key, kid, url, ca: certificate.pem(), now: SystemClock.now() };
        let feed = issuer.feed(revocations)?;
        let key = PrivateKeyDer::try_from(own.serialize_der())?;
        let shown = CertifiedKey::new(vec![certificate.der().clone()], any_supported_type(&key)?);
        let tls = server_config(Arc::new(SingleCertAndKey::from(shown)), PossessingPeers::new())?;
        let documents = [
            ("/.well-known/oauth-authorization-server", json!({ "issuer": issuer.url }).to_string()),
            ("/jwks", json!({ "keys": [jwk] }).to_string()),
            ("/bundle", json!({ "keys": [] }).to_string()),
            ("/revocations", feed),
        ];
        let routes = documents.into_iter().fold(Router::new(), |routes, (path, document)| {
            routes.route(path, get(move || std::future::ready(document.clone())))
        });
        tokio::spawn(serve(listener, tls, routes));
        Ok(issuer)
    }

    fn receiver(&self) -> Result<Receiver, Fault> {
        let ca = self.ca.clone().into_bytes();
        let config = ReceiverConfig::new(self.url.parse()?, ca, "example.org".parse()?, AUDIENCE.parse()?);
        Ok(Receiver::new(config)?)
    }

    /// Revocations of credentials of the last minutes, none of which is shown.
    fn feed(&self, revocations: u32) -> Result<String, Fault> {
        let id = |n: u32| {
            CredentialId::new(
                self.now.minus(daypass_verify::time::Seconds::new(60)).plus_millis(n.into()),
                [1; 10],
            )
        };
        let revoked = Revoked::new((0..revocations).map(id).collect(), CutOffs::default());
        self.sign(Revocations::new(revoked, 1, self.now).signing_input(&self.url, "ES256", &self.kid))
    }

    fn tokens(&self, bound: Digest) -> Result<Vec<String>, Fault> {
        (0..TOKENS).map(|n| self.token(n, bound)).collect()
    }

    /// A token as the broker writes it for a task with a scope.
    fn token(&self, nth: u8, bound: Digest) -> Result<String, Fault> {
        let subject = "spiffe://example.org/prod/billing/nightly";
        let header = json!({ "alg": "ES256", "kid": self.kid, "typ": "at+jwt" });
        let claims = json!({
            "iss": self.url, "sub": subject, "client_id": subject, "aud": AUDIENCE,
            "jti": CredentialId::new(self.now, [nth; 10]),
            "iat": self.now.seconds(), "nbf": self.now.seconds() - 10, "exp": self.now.seconds() + 3600,
            "cnf": { "x5t#S256": URL_SAFE_NO_PAD.encode(bound.as_bytes()) },
            "authorization_details": [{
                "type": "task", "identifier": "post-invoices", "actions": ["invoice:read", "invoice:write"],
                "locations": [AUDIENCE], "resources": ["eu/*", "us/*"],
            }],
            "tenant": "example",
        });
        let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        self.sign(format!("{}.{}", part(header), part(claims)))
    }

    fn sign(&self, input: String) -> Result<String, Fault> {
        let signature = self.key.sign(&SystemRandom::new(), input.as_bytes()).map_err(|_| "no signature")?;
        Ok(format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    /// The signatures of the same tokens, and nothing else.
    fn bare(&self, tokens: &[String], load: Duration) -> Result<f64, Fault> {
        let public =
            UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.key.public_key().as_ref().to_vec());
        let mut parts = Vec::new();
        for token in tokens {
            let (input, signature) = token.rsplit_once('.').ok_or("no token")?;
            parts.push((input, URL_SAFE_NO_PAD.decode(signature)?));
        }
        let (began, mut done) = (Instant::now(), 0_u32);
        while began.elapsed() < load {
            for (input, signature) in &parts {
                public.verify(input.as_bytes(), signature).map_err(|_| "a good signature was refused")?;
                done += 1;
            }
        }
        Ok(f64::from(done) / began.elapsed().as_secs_f64())
    }
}
