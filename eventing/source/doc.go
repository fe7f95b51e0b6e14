// Package source delivers the messages of one or more streams to one function, in one
// cluster, and acknowledges each message after the function has answered for it.
//
// A message's way through the package: the inlet pulls it from its stream (inlet.go),
// the window holds it until it is acknowledged (window.go), the agenda decides what
// happens next and when (agenda.go): a lookup in the ledger (ask.go, behind.go), a wait
// (hedge.go of eventing, mode.go), or a delivery, which is in order if so configured
// (lanes.go, parked.go). The outcome is acknowledged, or the message is handed back
// (settle.go). place.go finds the position to read from, progress.go saves it.
//
// # Design
//
// The package knows neither a stream's protocol nor the database: a stream implements
// [eventing.Stream], the database the small interfaces [Progress], [Ledger], [Tries] and
// [Verdicts].
package source
