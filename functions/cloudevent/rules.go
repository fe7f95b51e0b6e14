package cloudevent

import "fmt"

// MaxName bounds id, source and type of the events that Tandem's programs accept, in
// bytes. They are in the ledger's key, in indexes and in subjects.
const MaxName = 1024

// Rules say which events are taken. What is taken is read in the same way under
// all of them. The zero Rules take CloudEvents 1.0 that are valid.
type Rules struct {
	// Old takes events of CloudEvents 0.3 too.
	Old bool

	// MaxName bounds id, source and type, each, in bytes. Zero is no bound.
	MaxName int

	// Lenient takes what it can of an event that is not valid, which may be why
	// it is dead: an attribute that is wrong is left out, text is made fit for a
	// database (NUL, and what is not UTF-8, becomes U+FFFD), and what is longer
	// than MaxName is cut.
	Lenient bool
}

const (
	// maxAttributes bounds the attributes of an event, so that to look for one
	// that is there twice stays cheap.
	maxAttributes = 256

	// added is how many more a lenient reader takes: an event that became a dead
	// letter has some that it did not have before.
	added = 16
)

func (r Rules) maxAttributes() int {
	if r.Lenient {
		return maxAttributes + added
	}
	return maxAttributes
}

func tooMany(limit int) error { return fmt.Errorf("it has more than %d attributes", limit) }
