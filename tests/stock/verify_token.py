"""Verifies a token on standard input with two stock libraries, by the keys that its issuer publishes.

usage: verify_token.py ISSUER AUDIENCE CA_FILE [ALG]; prints the claims as JSON
"""

import json
import ssl
import sys
import urllib.request

import jwt
from joserfc import jwt as jose_jwt
from joserfc.jwk import KeySet

issuer, audience, ca_file = sys.argv[1:4]
alg = (sys.argv[4:] or ["ES256"])[0]
token = sys.stdin.read().strip()
tls = ssl.create_default_context(cafile=ca_file)


def fetch(url):
    with urllib.request.urlopen(url, context=tls) as answer:
        return json.load(answer)


metadata = fetch(issuer + "/.well-known/openid-configuration")
assert metadata["issuer"] == issuer, metadata

client = jwt.PyJWKClient(metadata["jwks_uri"], ssl_context=tls)
key = client.get_signing_key_from_jwt(token)
required = {"require": ["exp", "iat", "iss", "aud", "sub", "jti"]}
claims = jwt.decode(token, key, algorithms=[alg], audience=audience, issuer=issuer, options=required)

keys = KeySet.import_key_set(fetch(metadata["jwks_uri"]))
decoded = jose_jwt.decode(token, keys, algorithms=[alg])
registry = jose_jwt.JWTClaimsRegistry(
    iss={"essential": True, "value": issuer},
    aud={"essential": True, "value": audience},
    exp={"essential": True},
)
registry.validate(decoded.claims)
assert decoded.claims == claims, (decoded.claims, claims)
print(json.dumps(claims))
