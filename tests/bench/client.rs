//! A client that costs little: HTTP/2 over TLS, gRPC frames by hand, answers decoded.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{BufMut as _, Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::Fault;

/// One connection.
#[derive(Clone)]
pub(crate) struct Connection(SendRequest<Full<Bytes>>);

impl Connection {
    pub(crate) async fn open(api: SocketAddr, tls: Arc<rustls::ClientConfig>) -> Result<Self, Fault> {
        Self::over(TcpStream::connect(api).await?, tls).await
    }

    pub(crate) async fn over(stream: TcpStream, tls: Arc<rustls::ClientConfig>) -> Result<Self, Fault> {
        stream.set_nodelay(true)?;
        let stream = TlsConnector::from(tls).connect(ServerName::try_from("localhost")?, stream).await?;
        let (sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
            .handshake(TokioIo::new(stream))
            .await?;
        tokio::spawn(connection);
        Ok(Self(sender))
    }

    /// One unary call: the answer's message, or what was wrong.
    pub(crate) async fn call<A: Message + Default>(
        &mut self,
        path: &'static str,
        message: &Bytes,
        bearer: Option<&str>,
    ) -> Result<A, Fault> {
        let mut request = http::Request::post(format!("https://localhost{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        if let Some(bearer) = bearer {
            request = request.header("authorization", bearer);
        }
        self.0.ready().await?;
        let response = self.0.send_request(request.body(Full::new(message.clone()))?).await?;
        let status = response.headers().get("grpc-status").cloned();
        let said = response.headers().get("grpc-message").cloned();
        let body = response.into_body().collect().await?;
        let status = status.or_else(|| body.trailers()?.get("grpc-status").cloned());
        if status.as_ref().is_none_or(|status| status.as_bytes() != b"0") {
            return Err(format!("the broker answered {status:?} {said:?}").into());
        }
        let bytes = body.to_bytes();
        Ok(A::decode(bytes.get(5..).unwrap_or_default())?)
    }
}

/// A message in its gRPC frame: not compressed, then its length.
pub(crate) fn framed(message: &impl Message) -> Bytes {
    let mut bytes = BytesMut::with_capacity(message.encoded_len() + 5);
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(message.encoded_len()).unwrap_or(u32::MAX));
    bytes.extend_from_slice(&message.encode_to_vec());
    bytes.freeze()
}
