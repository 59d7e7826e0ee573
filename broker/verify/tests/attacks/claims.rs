//! Claims of a token whose signature fits.

use daypass_verify::claims::Lifetime;
use daypass_verify::jose::JoseError;
use daypass_verify::time::{Seconds, UnixMs};

use crate::minting::{ISSUER, check, es256, mint};

const NOW_S: i64 = 1_800_000_000;

fn lifetime(claims: &str) -> Result<Lifetime, &'static str> {
    let token = check(&es256(claims)).unwrap();
    let (leeway, day) = (Seconds::new(30), Seconds::new(86_400));
    token.lifetime(UnixMs::from_seconds(NOW_S), leeway, day).map_err(|error| error.inner_reason())
}

#[test]
fn a_token_lives_from_its_start_to_its_end_and_thirty_seconds_besides() {
    let table = [
        // exp, iat, nbf relative to now
        (300, 0, None, Ok(())),
        (1, -10, None, Ok(())),
        (0, -10, None, Ok(())),
        (-1, -10, None, Ok(())),
        (-29, -60, None, Ok(())),
        (-30, -60, None, Err("EXPIRED")),
        (-31, -60, None, Err("EXPIRED")),
        (300, 30, None, Ok(())),
        (300, 31, None, Err("NOT_YET_VALID")),
        (300, 30, Some(30), Ok(())),
        (300, 40, Some(31), Err("NOT_YET_VALID")),
        (300, 0, Some(1), Err("NOT_YET_VALID")),
        (300, 0, Some(-600), Ok(())),
        (86_400, 0, None, Ok(())),
        (86_401, 0, None, Err("PROOF_TOO_LONG")),
        (315_360_000, 0, None, Err("PROOF_TOO_LONG")),
        (5, 5, None, Err("MALFORMED")),
        (5, 6, None, Err("MALFORMED")),
    ];
    for (exp, iat, nbf, expected) in table {
        let nbf = nbf.map(|nbf| format!(r#","nbf":{}"#, NOW_S + nbf)).unwrap_or_default();
        let claims = format!(r#"{{"exp":{},"iat":{}{nbf}}}"#, NOW_S + exp, NOW_S + iat);
        assert_eq!(lifetime(&claims).map(|_| ()), expected, "{exp} {iat} {nbf}");
    }
}

#[test]
fn a_time_is_an_integer_and_there() {
    let times = |exp: &str, iat: &str, nbf: &str| format!(r#"{{"exp":{exp},"iat":{iat},"nbf":{nbf}}}"#);
    let (exp, iat) = ((NOW_S + 60).to_string(), NOW_S.to_string());
    assert!(lifetime(&times(&exp, &iat, &iat)).is_ok());
    let quoted = format!("\"{exp}\"");
    let fraction = format!("{exp}.5");
    for bad in ["null", &quoted, &fraction, "1e10", "[]", "{}", "true", "99999999999999999999"] {
        for claims in [times(bad, &iat, &iat), times(&exp, bad, &iat), times(&exp, &iat, bad)] {
            assert_eq!(lifetime(&claims), Err("MALFORMED"), "{claims}");
        }
    }
    for missing in [format!(r#"{{"exp":{exp}}}"#), format!(r#"{{"iat":{iat}}}"#)] {
        assert_eq!(lifetime(&missing), Err("MALFORMED"), "{missing}");
    }
    let far = lifetime(&times("9223372036854775807", &iat, &iat));
    assert_eq!(far, Err("PROOF_TOO_LONG"));
}

#[test]
fn an_audience_is_one_exact_text() {
    let single = |claims: &str| {
        let token = check(&es256(claims)).unwrap();
        token.single_audience().map(str::to_owned)
    };
    assert_eq!(single(r#"{"aud":"a"}"#).as_deref(), Ok("a"));
    assert_eq!(single(r#"{"aud":["a"]}"#).as_deref(), Ok("a"));
    let spoiled = [
        "{}",
        r#"{"aud":null}"#,
        r#"{"aud":7}"#,
        r#"{"aud":{"a":1}}"#,
        r#"{"aud":""}"#,
        r#"{"aud":[]}"#,
        r#"{"aud":[""]}"#,
        r#"{"aud":["a","b"]}"#,
        r#"{"aud":["a",7]}"#,
        r#"{"aud":[["a"]]}"#,
    ];
    for claims in spoiled {
        assert_eq!(single(claims), Err(JoseError::BadAudience), "{claims}");
    }
}

#[test]
fn issuer_and_subject_are_texts() {
    let long = format!(r#"{{"iss":"i","sub":"{}"}}"#, "s".repeat(1025));
    let longest = format!(r#"{{"iss":"i","sub":"{}"}}"#, "s".repeat(1024));
    let subject = |claims: &str| check(&es256(claims)).unwrap().subject().map(str::to_owned);
    assert!(subject(&longest).is_ok());
    assert_eq!(subject(r#"{"sub":"ü 'x' \\ …"}"#).as_deref(), Ok("ü 'x' \\ …"));
    let spoiled = [
        r#"{"iss":"i"}"#,
        r#"{"sub":""}"#,
        r#"{"sub":null}"#,
        r#"{"sub":1}"#,
        r#"{"sub":["a"]}"#,
        r#"{"sub":"a\u0000"}"#,
        r#"{"sub":"a\nb"}"#,
        r#"{"sub":"a\u007f"}"#,
        r#"{"sub":"a\u0085"}"#,
        &long,
    ];
    for claims in spoiled {
        assert_eq!(subject(claims), Err(JoseError::BadSubject), "{claims}");
    }
    for claims in ["{}", r#"{"iss":1}"#, r#"{"iss":null}"#, r#"{"iss":{}}"#, r#"{"iss":["i"]}"#] {
        assert_eq!(check(&es256(claims)).unwrap().issuer(), Err(JoseError::BadIssuer), "{claims}");
    }
}

#[test]
fn a_kind_of_token_is_told_by_its_whole_media_type() {
    let typed = |typ: &str| {
        let header = format!(r#"{{"alg":"ES256","kid":"ec","typ":"{typ}"}}"#);
        check(&mint(header, "{}", |message| ISSUER.es256(message))).unwrap()
    };
    for same in ["at+jwt", "AT+JWT", "application/at+jwt", "Application/At+Jwt"] {
        assert!(typed(same).typ_is("at+jwt"), "{same}");
    }
    for other in ["JWT", "logout+jwt", "secevent+jwt", "at+jwt ", "text/at+jwt", "application/", "x"] {
        assert!(!typed(other).typ_is("at+jwt"), "{other}");
    }
    assert!(!check(&es256("{}")).unwrap().typ_is("at+jwt"));
}

#[test]
fn a_twin_of_a_claim_that_a_declaration_uses_is_refused() {
    let token = check(&es256(r#"{"repository_id":"1","Repository_ID":"2"}"#)).unwrap();
    assert!(token.check_no_twins_of(&["repository_id"]).is_err());
    assert!(token.check_no_twins_of(&["repository"]).is_ok());
}

#[test]
fn a_claim_within_claims_is_found_by_its_pointer_and_by_no_other_name() {
    let claims = r#"{"kubernetes.io":{"pod":{"uid":"u","name":["n"]}},"/kubernetes.io/pod/uid":"forged",
        "https://sts.example/":{"account":"1","~":"t"},"plain":"p","kubernetes.io/pod/uid":"flat"}"#;
    let token = check(&es256(claims)).unwrap();
    let text = |name: &str| token.claim(name).and_then(|it| it.as_str());
    for (name, expected) in [
        ("/kubernetes.io/pod/uid", Some("u")),
        ("/https:~1~1sts.example~1/account", Some("1")),
        ("/https:~1~1sts.example~1/~0", Some("t")),
        ("plain", Some("p")),
        ("/plain", Some("p")),
        ("/~1kubernetes.io~1pod~1uid", Some("forged")),
        ("kubernetes.io/pod/uid", Some("flat")),
        ("/kubernetes.io/pod/uid/x", None),
        ("/kubernetes.io/pod/name/0", None),
        ("/kubernetes.io/pod/", None),
        ("/kubernetes.io//uid", None),
        ("/~2", None),
        ("/~", None),
        ("/", None),
        ("", None),
    ] {
        assert_eq!(text(name), expected, "{name}");
    }
}

#[test]
fn a_twin_anywhere_on_the_way_to_a_nested_claim_is_refused() {
    let used = ["/kubernetes.io/pod/uid"];
    for (claims, good) in [
        (r#"{"kubernetes.io":{"pod":{"uid":"1"}},"UID":"2","Pod":{}}"#, true),
        (r#"{"kubernetes.io":"x"}"#, true),
        (r#"{"kubernetes.io":{"pod":{"uid":"1"}},"Kubernetes.io":{}}"#, false),
        (r#"{"kubernetes.io":{"pod":{"uid":"1"},"POD":{}}}"#, false),
        (r#"{"kubernetes.io":{"pod":{"uid":"1","Uid":"2"}}}"#, false),
        (r#"{"kubernetes.io":{"pod":{"Uid":"2"}}}"#, false),
    ] {
        assert_eq!(check(&es256(claims)).unwrap().check_no_twins_of(&used).is_ok(), good, "{claims}");
    }
}
