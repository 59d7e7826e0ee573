"""google-auth as it is: an identity pool whose token endpoint is Daypass.

usage: google_identity_pool.py ISSUER CA_FILE TOKEN_FILE AUDIENCE SCOPE; prints the token
"""

import sys

import requests
from google.auth import identity_pool
from google.auth.transport.requests import Request

issuer, ca_file, token_file, audience, scope = sys.argv[1:]
session = requests.Session()
session.verify = ca_file
session.trust_env = False

pool = identity_pool.Credentials(
    audience=audience,
    subject_token_type="urn:ietf:params:oauth:token-type:jwt",
    token_url=issuer + "/token",
    credential_source={"file": token_file},
    scopes=[scope],
)
pool.refresh(Request(session=session))
assert pool.valid and not pool.expired
print(pool.token)
