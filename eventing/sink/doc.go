// Package sink is an HTTP address that accepts CloudEvents, as Knative binds one to a
// program: its URL, certificates, token and overrides ([Config]), the requests to it,
// and a [Publisher] that sends outputs to it instead of to a stream.
package sink
