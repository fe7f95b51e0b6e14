// Package functions is the model: a [Func] computes from one CloudEvent the
// [Effects] that it should have, and touches nothing itself.
//
// The same function runs on the same event in every cluster, and whoever
// commits first wins. So a function must compute the same Effects from the
// same event wherever and whenever it runs: no clock, no random numbers, no
// environment, no network, no order of a map. What is usually random comes from
// the event instead: [ID], [Int64], [Rand] and [Time]. [JSON] reads its data.
//
// The package knows nobody: neither PostgreSQL nor Knative nor NATS. Package
// sinkwriter commits Effects; package eventing/serve speaks HTTP.
package functions
