"""Fetches all that a Workload API gives with a stock client, and prints what it found.

usage: workload_api.py SOCKET AUDIENCE
"""

import json
import sys

from spiffe import JwtSvid, WorkloadApiClient

socket, audience = sys.argv[1:]
with WorkloadApiClient(socket_path=f"unix:{socket}", default_timeout=10) as client:
    context = client.fetch_x509_context()
    svid = context.default_svid
    roots = context.x509_bundle_set.get_bundle_for_trust_domain(svid.spiffe_id.trust_domain)
    issued_by = svid.cert_chain[-1]
    root = next(it for it in roots.x509_authorities if it.subject == issued_by.issuer)
    issued_by.verify_directly_issued_by(root)
    svid.leaf.verify_directly_issued_by(svid.cert_chain[1])
    token = client.fetch_jwt_svid({audience})
    bundles = client.fetch_jwt_bundles()
    keys = bundles.get_bundle_for_trust_domain(token.spiffe_id.trust_domain)
    JwtSvid.parse_and_validate(token.token, keys, {audience})
    valid = client.validate_jwt_svid(token.token, audience)
    try:
        client.validate_jwt_svid(token.token, "other.example.org")
        other = "accepted"
    except Exception:
        other = "refused"
print(json.dumps({"x509": str(svid.spiffe_id), "jwt": str(valid.spiffe_id), "other": other}))
