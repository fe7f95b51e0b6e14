// Package oidc lets those send whom an OpenID Connect issuer vouches for: Knative
// Eventing shows, with each event, a token of the sender's service account.
//
// # What is promised
//
//   - Who shows no token, or one that is not the issuer's, not for this audience,
//     expired, or not signed with one of the issuer's keys, is not let in: 401. Who
//     shows a good one, but is not among the subjects, neither: 403.
//   - While the keys cannot be had, nobody is turned away for it: 503. So it is
//     while a key is not known and the issuer was asked just now, since a token
//     that was signed with a new key is no worse than others.
//   - The issuer is asked when the first token comes, then every ten minutes while
//     tokens come, and for a key that is not known at most every ten seconds; never
//     twice at the same time, and for five seconds at most. Keys that are known are
//     used while it is away.
//
// # What is not
//
// A token cannot be called back before it expires; Knative's are good for an hour.
// It says who sent an event, not that the event is true.
//
// # Design
//
// go-oidc verifies tokens. Its own remote set of keys is not used: it asks the
// issuer for every token with an unknown key, so that whoever sends rubbish has the
// issuer flooded, and does not tell a key that could not be fetched from a signature
// that is wrong.
package oidc
