// openid-client as it is: discovery, both grants, introspection, revocation.
import * as client from 'openid-client'
import { EXCHANGE, ID_TOKEN, given, refused, trusting } from './given.mjs'

const configured = (id, authentication, certificate, algorithm) =>
  client.discovery(new URL(given.issuer), id, { use_mtls_endpoint_aliases: true }, authentication, {
    algorithm,
    [client.customFetch]: trusting(certificate),
  })

const bare = await configured(given.clientId, client.None(), undefined, 'oidc')
const proven = await configured(given.clientId, client.TlsClientAuth(), given.workload, 'oauth2')
const serving = await configured(given.servingId, client.TlsClientAuth(), given.serving, 'oauth2')

const exchange = (scope) => {
  const parameters = { subject_token: given.subjectToken, subject_token_type: ID_TOKEN, scope, resource: given.audience }
  return client.genericGrantRequest(bare, EXCHANGE, parameters)
}
const exchanged = await exchange('task:read-invoices')
const again = await refused(exchange('task:read-invoices'))
const bound = await client.clientCredentialsGrant(proven, { scope: 'task:post-invoices' })
const alive = await client.tokenIntrospection(serving, bound.access_token)
let after
if (proven.serverMetadata().revocation_endpoint) {
  await client.tokenRevocation(proven, bound.access_token)
  after = await client.tokenIntrospection(serving, bound.access_token)
}
console.log(JSON.stringify({ issuer: bare.serverMetadata().issuer, exchanged, again, bound, alive, after }))
