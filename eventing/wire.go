package eventing

// Headers of the answer to a delivered event. Every package that sends or reads one
// takes its name from here, or from package outcome.
const (
	// ReceiptHeader of a 2xx is the receipt: ReceiptWon or ReceiptLost.
	ReceiptHeader = "Tandem-Receipt"

	// KeyHeader is the event's key in the ledger, as a UUID.
	KeyHeader = "Tandem-Key"

	// ReceiptWon: this cluster committed the event first. ReceiptLost: another delivery
	// did, in this or another cluster.
	ReceiptWon  = "won"
	ReceiptLost = "lost"
)

// Extension attributes of a dead letter. The first three are those of Knative's delivery.
const (
	ErrorDestExtension = "knativeerrordest" // the URL that refused the event
	ErrorCodeExtension = "knativeerrorcode" // the HTTP status
	ErrorDataExtension = "knativeerrordata" // the body, base64

	FunctionExtension = "tandemfunction" // the function that refused it, or broke on it
	AttemptsExtension = "tandemattempts" // how often
)
