// Package oidc accepts senders with a token of an OpenID Connect issuer. Knative Eventing
// sends, with each event, a token of the sender's service account.
//
// # Guarantees
//
//   - A request without a token, or with one that is not of this issuer, not for this
//     audience, expired, or not signed with one of the issuer's keys, is
//     unauthenticated: 401. A valid token whose subject is not accepted is forbidden:
//     403.
//   - While keys cannot be fetched, requests are answered with 503, not denied. The same
//     holds while a key is unknown and keys were fetched just before, because the token may
//     be signed with a new key.
//   - Keys are fetched with the first token, then every ten minutes while tokens arrive,
//     and at most every ten seconds for an unknown key; never twice at the same time, and
//     within five seconds. Fetched keys are used while the issuer is unavailable.
//
// # Limits
//
// A token cannot be revoked before it expires; Knative's are valid for an hour. It proves
// the identity of the sender, not that the event is true.
//
// # Design
//
// go-oidc verifies tokens. Its own remote key set is not used: it fetches keys for every
// token with an unknown key, so that a sender of invalid tokens floods the issuer, and it
// does not distinguish keys that could not be fetched from a wrong signature.
package oidc
