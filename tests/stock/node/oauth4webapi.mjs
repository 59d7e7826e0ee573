// oauth4webapi as it is: discovery both ways, both grants, RFC 9068 validation, introspection, revocation.
import * as oauth from 'oauth4webapi'
import { EXCHANGE, ID_TOKEN, given, refused, trusting } from './given.mjs'

const issuer = new URL(given.issuer)
const bare = { [oauth.customFetch]: trusting() }
const proven = { [oauth.customFetch]: trusting(given.workload) }
const serving = { [oauth.customFetch]: trusting(given.serving) }

const discovered = {}
for (const algorithm of ['oidc', 'oauth2']) {
  const answer = await oauth.discoveryRequest(issuer, { algorithm, ...bare })
  discovered[algorithm] = await oauth.processDiscoveryResponse(issuer, answer)
}
const as = discovered.oauth2

const exchange = async (client, scope, more, options) => {
  const parameters = { subject_token: given.subjectToken, subject_token_type: ID_TOKEN, scope, ...more }
  const answer = await oauth.genericTokenEndpointRequest(as, client, oauth.None(), EXCHANGE, parameters, options)
  return oauth.processGenericTokenEndpointResponse(as, client, answer)
}
const workload = { client_id: given.clientId, use_mtls_endpoint_aliases: true }
const asked = await refused(exchange(workload, 'task:deploy-web', {}, bare))
const exchanged = await exchange(workload, 'task:read-invoices', { resource: given.audience }, bare)
const again = await refused(exchange(workload, 'task:read-invoices', { resource: given.audience }, bare))

const request = new Request(given.audience, { headers: { authorization: `Bearer ${exchanged.access_token}` } })
const claims = await oauth.validateJwtAccessToken(as, request, given.audience, bare)
const elsewhere = await refused(oauth.validateJwtAccessToken(as, request, 'https://other.example.org', bare))

const parameters = { authorization_details: JSON.stringify([{ type: 'task', identifier: 'post-invoices' }]) }
const own = await oauth.clientCredentialsGrantRequest(as, workload, oauth.TlsClientAuth(), parameters, proven)
const bound = await oauth.processClientCredentialsResponse(as, workload, own)

const receiver = { client_id: given.servingId, use_mtls_endpoint_aliases: true }
const introspect = async (token) => {
  const answer = await oauth.introspectionRequest(as, receiver, oauth.TlsClientAuth(), token, serving)
  return oauth.processIntrospectionResponse(as, receiver, answer)
}
const revoke = async (token) => {
  const answer = await oauth.revocationRequest(as, workload, oauth.TlsClientAuth(), token, proven)
  return oauth.processRevocationResponse(answer)
}
const alive = await introspect(bound.access_token)
const garbage = await introspect('nothing')
let after
if (as.revocation_endpoint) {
  await revoke(bound.access_token)
  await revoke('nothing')
  after = await introspect(bound.access_token)
}
console.log(JSON.stringify({
  issuers: [discovered.oidc.issuer, as.issuer], asked, exchanged, again, claims, elsewhere, bound, alive, garbage, after,
}))
