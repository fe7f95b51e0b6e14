package outcome

// Headers of a function's answer. Every package that sends or reads one uses these
// names.
const (
	// ReceiptHeader of a 2xx is the receipt: ReceiptWon or ReceiptLost.
	ReceiptHeader = "Tandem-Receipt"

	// KeyHeader of a 2xx is the event's key in the ledger, as a UUID. In a request with a
	// single event it means that the event is deferred under this key: it is stored in the
	// database, and is deleted there by the transaction that commits it.
	KeyHeader = "Tandem-Key"

	// ReceiptWon means that this cluster committed the event first, ReceiptLost that
	// another delivery did, in this or another cluster.
	ReceiptWon  = "won"
	ReceiptLost = "lost"

	// DigestHeader of a 2xx is the digest of the effects, in hexadecimal.
	DigestHeader = "Tandem-Digest"

	// OutcomeHeader of a single event's answer other than 2xx is the kind of its
	// outcome, with parameters: [Outcome.Header].
	OutcomeHeader = "Tandem-Outcome"

	// MaxBatchHeader and MaxBatchBytesHeader state how many events a function accepts
	// in one request, and how many bytes the body may have. Every answer of a function
	// has both, whatever its status. A sink that does not send them accepts single
	// events.
	MaxBatchHeader      = "Tandem-Max-Batch"
	MaxBatchBytesHeader = "Tandem-Max-Batch-Bytes"

	// TypesHeader states the event types that a function knows, separated by commas, each
	// percent-encoded. Every answer of a function has it, whatever its status, including
	// answers to OPTIONS. A type may be followed by ;function=NAME, the function of this type
	// and of those after it up to the next name: the ledger has events under it.
	TypesHeader = "Tandem-Types"

	// DrainingHeader is in every answer of an instance that is shutting down. If the
	// connection of an event breaks then, the event did not end the process.
	DrainingHeader = "Tandem-Draining"
)

// OutcomesType is the media type of an answer with an outcome for each event of a batch.
// A sender requests it with Accept.
const OutcomesType = "application/vnd.tandem.outcomes+json"
