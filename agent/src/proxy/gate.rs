//! Which requests go on. A path that two programs could read in two ways goes on nowhere.

use std::net::SocketAddr;

use http::header::HOST;
use http::{HeaderMap, Method, Request, StatusCode, Uri};

use super::Refusal;
use crate::config::{Listen, Permit};

/// What lets requests pass.
pub(super) struct Gate {
    allow: Vec<Permit>,
    /// Where it listens, unless at a Unix socket.
    address: Option<SocketAddr>,
}

impl Gate {
    pub(super) fn new(allow: Vec<Permit>, listen: &Listen) -> Self {
        let address = match listen {
            Listen::Loopback(address) => Some(*address),
            Listen::Socket { .. } => None,
        };
        Self { allow, address }
    }

    /// Lets a request pass.
    ///
    /// # Errors
    /// Why it does not.
    pub(super) fn check<B>(&self, request: &Request<B>) -> Result<(), Refusal> {
        let malformed = |why: &str| Refusal::new(StatusCode::BAD_REQUEST, "invalid_request", why);
        let (method, uri) = (request.method(), request.uri());
        if uri.scheme().is_some() || uri.authority().is_some() || !uri.path().starts_with('/') {
            return Err(malformed("expected a path in the request line, and no other form of it"));
        }
        self.check_host(request.headers())?;
        let path = decoded(uri.path()).map_err(malformed)?;
        let passes = |permit: &Permit| permit.method == *method && is_within(&path, permit.prefix.as_bytes());
        if self.allow.iter().any(passes) { Ok(()) } else { Err(not_allowed(method, uri)) }
    }

    /// A page in a browser must not reach an address by a name of its own (DNS rebinding).
    fn check_host(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let mut hosts = headers.get_all(HOST).iter();
        let (host, more) = (hosts.next(), hosts.next());
        if more.is_some() {
            return Err(Refusal::new(StatusCode::BAD_REQUEST, "invalid_request", "expected one `host`"));
        }
        let Some(address) = self.address else { return Ok(()) };
        let own = [address.to_string(), format!("localhost:{}", address.port())];
        let fits = host.is_some_and(|host| own.iter().any(|own| host.as_bytes() == own.as_bytes()));
        let expected = format!("expected `host: {address}`");
        if fits {
            Ok(())
        } else {
            Err(Refusal::new(StatusCode::MISDIRECTED_REQUEST, "invalid_host", &expected))
        }
    }
}

fn not_allowed(method: &Method, uri: &Uri) -> Refusal {
    let why = format!("`{method} {}` is not in `allow` of this proxy", uri.path());
    Refusal::new(StatusCode::FORBIDDEN, "access_denied", &why)
}

/// Whether `path` begins with the whole segments of `prefix`.
fn is_within(path: &[u8], prefix: &[u8]) -> bool {
    path.strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || prefix.ends_with(b"/") || rest.first() == Some(&b'/'))
}

/// The path with its percent-encodings decoded, where there is one way only to read it (RFC 3986, sections 2.4 and 6.2.2).
fn decoded(path: &str) -> Result<Vec<u8>, &'static str> {
    let mut octets = path.bytes();
    let mut found = Vec::with_capacity(path.len());
    while let Some(octet) = octets.next() {
        if octet != b'%' {
            found.push(octet);
            continue;
        }
        let digit = |octet: Option<u8>| char::from(octet?).to_digit(16).and_then(|it| u8::try_from(it).ok());
        let (high, low) = (digit(octets.next()), digit(octets.next()));
        let value = high.zip(low).map(|(high, low)| high << 4 | low);
        match value.ok_or("the path has a `%` without two hexadecimal digits")? {
            b'/' | b'\\' | b'%' | b'?' | b'#' | b';' => {
                return Err("the path has an encoded separator: two programs could read it in two ways");
            }
            value => found.push(value),
        }
    }
    if found.iter().any(|octet| octet.is_ascii_control() || *octet == b'\\') {
        return Err("the path has a control character or a backslash");
    }
    let inner = found.get(1..).unwrap_or_default();
    let mut segments = inner.split(|octet| *octet == b'/').peekable();
    while let Some(segment) = segments.next() {
        // What some servers take for parameters of a segment does not hide dots.
        let name = segment.split(|octet| *octet == b';').next().unwrap_or_default();
        let is_last = segments.peek().is_none();
        if matches!(name, b"." | b"..") || (name.is_empty() && !(is_last && segment.is_empty())) {
            return Err("the path has a segment that is empty, `.` or `..`");
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(listen: &Listen) -> Gate {
        let permit = |method: Method, prefix: &str| Permit { method, prefix: prefix.to_owned() };
        Gate::new(
            vec![permit(Method::GET, "/v1"), permit(Method::POST, "/v1/orders/"), permit(Method::PUT, "/")],
            listen,
        )
    }

    fn socket() -> Listen {
        let allowed = crate::config::Allowed::default();
        Listen::Socket { path: "/run/s".into(), shared_parent: false, allowed }
    }

    fn status(method: &str, target: &str) -> u16 {
        let request = Request::builder().method(method).uri(target).body(()).unwrap();
        gate(&socket()).check(&request).map_or_else(|refusal| refusal.status.as_u16(), |()| 200)
    }

    #[test]
    fn only_what_is_allowed_goes_on() {
        for (method, target, expected) in [
            ("GET", "/v1", 200),
            ("GET", "/v1/", 200),
            ("GET", "/v1/a/b?x=/../y", 200),
            ("GET", "/%76%31/a", 200),
            ("GET", "/v1/a%20b", 200),
            ("GET", "/v1/a;p=1", 200),
            ("GET", "/v1x", 403),
            ("GET", "/v", 403),
            ("GET", "/", 403),
            ("HEAD", "/v1", 403),
            ("get", "/v1", 403),
            ("POST", "/v1/orders", 403),
            ("POST", "/v1/orders/", 200),
            ("POST", "/v1/orders/7", 200),
            ("PUT", "/any/where", 200),
        ] {
            assert_eq!(status(method, target), expected, "{method} {target}");
        }
    }

    #[test]
    fn a_path_that_could_be_read_in_two_ways_is_refused() {
        for path in [
            "/v1/../admin",
            "/v1/..",
            "/v1/./a",
            "/v1/%2e%2e/admin",
            "/v1/%2E./admin",
            "/v1/.%2e/admin",
            "/v1/..;/admin",
            "/v1/..;x=1/admin",
            "/v1/%2e%2e;/admin",
            "/v1/%252e%252e/admin",
            "/v1/a%2fb",
            "/v1/..%2fadmin",
            "/v1/..%5cadmin",
            "/v1/%00",
            "/v1/%0d%0ax",
            "/v1/%7f",
            "/v1/%3fx",
            "/v1/%23x",
            "/v1/%zz",
            "/v1/%2",
            "/v1//admin",
            "//v1",
            "/v1/;/admin",
            "/v1/a%3b",
        ] {
            let request = Request::builder().uri(path);
            let request = request.body(()).unwrap();
            let refused = gate(&socket()).check(&request).err().map(|it| it.status.as_u16());
            assert_eq!(refused, Some(400), "{path}");
        }
        assert!(decoded("/v1\\..\\admin").is_err());
    }

    #[test]
    fn another_form_than_a_path_is_refused() {
        for (method, target) in [
            ("GET", "http://other.example/v1"),
            ("GET", "https://other.example/v1"),
            ("CONNECT", "other.example:443"),
            ("OPTIONS", "*"),
        ] {
            assert_eq!(status(method, target), 400, "{method} {target}");
        }
    }

    #[test]
    fn an_address_is_not_reached_by_another_name() {
        let listen = Listen::Loopback("127.0.0.1:8081".parse().unwrap());
        for (hosts, expected) in [
            (&["127.0.0.1:8081"][..], 200),
            (&["localhost:8081"], 200),
            (&["evil.example:8081"], 421),
            (&["127.0.0.1"], 421),
            (&[], 421),
            (&["127.0.0.1:8081", "127.0.0.1:8081"], 400),
        ] {
            let mut request = Request::builder().uri("/v1");
            for host in hosts {
                request = request.header(HOST, *host);
            }
            let checked = gate(&listen).check(&request.body(()).unwrap());
            assert_eq!(checked.map_or_else(|it| it.status.as_u16(), |()| 200), expected, "{hosts:?}");
        }
    }
}
