// Package outcome defines the outcome of one event in a function's answer, and its encoding.
//
// # Form
//
// The answer to a batch, of type [OutcomesType], is a JSON array with an object for each event, in
// the order of the batch:
//
//	[
//	  {"kind":"committed","receipt":"won","digest":"2ac8…"},
//	  {"kind":"rejected","status":422,"reason":"function flights: origin: missing"},
//	  {"kind":"deployment","status":503,"reason":"…","fingerprint":"42703 flights.gate","effect_class":"commuting","retry_after_ms":1000},
//	  {"kind":"pending"}
//	]
//
// The status of the whole answer does not matter for its events. The answer to a single event has
// the same information in its status and headers: [FromHTTP].
//
// # Guarantees
//
//   - Every answer that is neither known to be committed nor attributable to the event is
//     [Unavailable] and retried. This includes kinds that this version does not know, and
//     answers of other servers, such as gateways.
//   - [Parse] returns exactly as many outcomes as there are events, or an error.
package outcome
