// What a test gives on standard input: { issuer, ca, subjectToken, bearerToken, certificate, key, serving, audience }.
import { readFileSync } from 'node:fs'
import { Agent, fetch } from 'undici'

export const given = JSON.parse(readFileSync(0, 'utf8'))
export const EXCHANGE = 'urn:ietf:params:oauth:grant-type:token-exchange'
export const ID_TOKEN = 'urn:ietf:params:oauth:token-type:id_token'

// A fetch that trusts the issuer's CA, with this client certificate or with none.
export function trusting(certificate) {
  const connect = { ca: given.ca, ...certificate }
  const dispatcher = new Agent({ connect })
  return (url, options) => fetch(url, { ...options, dispatcher })
}

export async function refused(promise) {
  try {
    await promise
  } catch (error) {
    return error.error ?? error.code ?? error.message
  }
  return 'not refused'
}
