// Package functions is the programming model: a [Func] computes the [Effects] of one
// CloudEvent, and has no side effects itself.
//
// The same function runs on the same event in every cluster, and the first commit wins.
// So a function must compute the same Effects from the same event wherever and whenever
// it runs: no clock, no random numbers, no environment, no network, no map order. Random
// values come from the event instead: [ID], [Int64], [Rand] and [Time]. [JSON] decodes
// its data.
//
// The package imports neither PostgreSQL nor Knative nor NATS. Package sinkwriter commits
// Effects; package eventing/serve serves functions over HTTP.
package functions
