package outcome

// Headers of a function's answer. Every package that sends or reads one takes its name
// from here.
const (
	// ReceiptHeader of a 2xx is the receipt: ReceiptWon or ReceiptLost.
	ReceiptHeader = "Tandem-Receipt"

	// KeyHeader of a 2xx is the event's key in the ledger, as a UUID. Of a request with a
	// single event it means that the event is deferred under this key: it is stored in the
	// database, and is deleted there in the transaction that commits it.
	KeyHeader = "Tandem-Key"

	// ReceiptWon: this cluster committed the event first. ReceiptLost: another delivery
	// did, in this or another cluster.
	ReceiptWon  = "won"
	ReceiptLost = "lost"

	// DigestHeader of a 2xx is the digest of the effects, in hexadecimal.
	DigestHeader = "Tandem-Digest"

	// OutcomeHeader of a single event's answer other than 2xx is the kind of its
	// outcome, with parameters: [Outcome.Header].
	OutcomeHeader = "Tandem-Outcome"

	// MaxBatchHeader and MaxBatchBytesHeader are how many events a function accepts in
	// one request, and how many bytes the body may have. Every answer of a function has
	// both, whatever its status. A sink that does not send them accepts single events.
	MaxBatchHeader      = "Tandem-Max-Batch"
	MaxBatchBytesHeader = "Tandem-Max-Batch-Bytes"

	// TypesHeader are the event types that a function knows, separated by commas, each
	// percent-encoded. Every answer of a function has them, whatever its status, also to
	// OPTIONS. A type may be followed by ;function=NAME, the function of this type and of those
	// after it up to the next name: the ledger has events under it.
	TypesHeader = "Tandem-Types"

	// DrainingHeader is in every answer of an instance that is shutting down. An event
	// whose connection breaks then did not end the process.
	DrainingHeader = "Tandem-Draining"
)

// OutcomesType is the media type of an answer with an outcome for each event of a batch.
// A sender asks for it with Accept.
const OutcomesType = "application/vnd.tandem.outcomes+json"
