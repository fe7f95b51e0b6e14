package cloudevent

import "fmt"

// MaxName bounds the id, source and type of events in Tandem's programs, in bytes.
// These are part of the ledger's key, of indexes and of subjects.
const MaxName = 1024

// Rules determine which events are accepted. An accepted event is read in the
// same way under all of them. The zero Rules accept valid CloudEvents 1.0.
type Rules struct {
	// Old accepts events of CloudEvents 0.3, too.
	Old bool

	// MaxName bounds id, source and type, each, in bytes. Zero means no bound.
	MaxName int

	// Lenient accepts as much as possible of an invalid event, which may be a
	// dead letter for that reason: an invalid attribute is omitted, text is made
	// storable (NUL and invalid UTF-8 become U+FFFD), and names longer than
	// MaxName are truncated.
	Lenient bool
}

const (
	// maxAttributes bounds the attributes of an event, so that searching for
	// duplicates stays cheap.
	maxAttributes = 256

	// added is how many more attributes a lenient reader accepts: an event that
	// became a dead letter has received some.
	added = 16
)

func (r Rules) maxAttributes() int {
	if r.Lenient {
		return maxAttributes + added
	}
	return maxAttributes
}

func tooMany(limit int) error { return fmt.Errorf("it has more than %d attributes", limit) }
