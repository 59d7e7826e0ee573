//! What of the header fields goes on. Those of one hop end here (RFC 9110, section 7.6.1), and so do those by which a
//! caller would tell the upstream who it is, or have it do something else than what was allowed.

use http::header::{
    AUTHORIZATION, CONNECTION, EXPECT, FORWARDED, HOST, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE, VIA,
};
use http::{HeaderMap, HeaderName};

const OF_ONE_HOP: [HeaderName; 9] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// What no caller says to an upstream: who it is, from where it comes, and that another method or path is meant.
const NOT_THE_CALLERS: [HeaderName; 11] = [
    AUTHORIZATION,
    HOST,
    EXPECT,
    FORWARDED,
    VIA,
    HeaderName::from_static("x-real-ip"),
    HeaderName::from_static("x-original-url"),
    HeaderName::from_static("x-rewrite-url"),
    HeaderName::from_static("x-http-method"),
    HeaderName::from_static("x-http-method-override"),
    HeaderName::from_static("x-method-override"),
];

/// Takes off a request what does not go on.
pub(super) fn clean_request(headers: &mut HeaderMap) {
    clean_hop(headers);
    for name in &NOT_THE_CALLERS {
        headers.remove(name);
    }
    // Behind some servers `x_api_key` and `x-api-key` are one variable.
    remove(headers, |name| name.starts_with("x-forwarded-") || name.contains('_'));
}

/// Takes off an answer what does not go on.
pub(super) fn clean_answer(headers: &mut HeaderMap) {
    clean_hop(headers);
}

fn clean_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&OF_ONE_HOP) {
        headers.remove(name);
    }
}

fn remove(headers: &mut HeaderMap, unwanted: impl Fn(&str) -> bool) {
    let names: Vec<HeaderName> = headers.keys().filter(|name| unwanted(name.as_str())).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(given: &[(&str, &str)], clean: fn(&mut HeaderMap)) -> Vec<String> {
        let mut headers = HeaderMap::new();
        for (name, value) in given {
            headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        clean(&mut headers);
        headers.keys().map(ToString::to_string).collect()
    }

    #[test]
    fn a_request_goes_on_without_what_is_not_the_callers_to_say() {
        let given = [
            ("accept", "*/*"),
            ("content-type", "text/plain"),
            ("authorization", "Bearer stolen"),
            ("connection", "close, X-Session"),
            ("connection", "x-other"),
            ("x-session", "7"),
            ("x-other", "7"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("trailer", "x"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("proxy-authorization", "Basic x"),
            ("host", "other.example"),
            ("expect", "100-continue"),
            ("forwarded", "for=1"),
            ("x-forwarded-for", "1"),
            ("x-forwarded-proto", "https"),
            ("x-original-url", "/admin"),
            ("x-http-method-override", "DELETE"),
            ("x_api_key", "mine"),
            ("via", "1.1 a"),
        ];
        assert_eq!(left(&given, clean_request), ["accept", "content-type"]);
    }

    #[test]
    fn an_answer_goes_on_without_what_is_of_one_hop() {
        let given = [
            ("content-type", "text/plain"),
            ("set-cookie", "a=b"),
            ("location", "/x"),
            ("connection", "keep-alive, x-hop"),
            ("x-hop", "1"),
            ("transfer-encoding", "chunked"),
            ("proxy-authenticate", "Basic"),
        ];
        assert_eq!(left(&given, clean_answer), ["content-type", "set-cookie", "location"]);
    }
}
