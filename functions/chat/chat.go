// Package chat is the chat application of a team with users in two regions, as a
// function: what was said, what rooms are called, who is in them, how far each has
// read, and how many messages they have not. It emits what a websocket server
// pushes to browsers; hack/chat is one.
//
// # What is promised
//
// In whatever order the events are handled, and in whichever cluster, the tables
// end up the same:
//
//   - A message is in the history once.
//   - Of two names that a room is given, the one with the greater version stays.
//   - Who joined or left last, by the time of the events, is in or out.
//   - A read marker never goes back.
//   - The unread messages of a member are those of others behind the marker.
//
// # What is not
//
// Whoever reads what is emitted must bear any order: the later of two names may
// come first. The clocks of those who send decide who joined last, and how messages
// are sorted. Nobody is asked whether they may post: that is for whoever takes the
// events in.
//
// # Design
//
// Each handler says what one event changes, under the rule that makes its order
// indifferent. Only the unread messages depend on rows that the function cannot
// see; a statement counts them, behind the lock of the room (see countUnread).
package chat

import (
	"embed"
	"errors"
	"fmt"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/functions"
)

// The events that the function takes, and their data. All need a time.
const (
	// Posted is a message: room, author, text.
	Posted = "com.example.chat.message.posted"

	// Read is that somebody has read a message and all before it: room, member,
	// message.
	Read = "com.example.chat.message.read"

	// Named is what a room is called: room, name, version, which is one more than
	// that of the name on the screen of whoever changed it.
	Named = "com.example.chat.room.named"

	// Joined and Left are that somebody comes into a room or goes: room, member.
	Joined = "com.example.chat.member.joined"
	Left   = "com.example.chat.member.left"
)

// The events that it emits, for whoever looks at the room that is their subject.
const (
	PushMessage = "com.example.chat.push.message" // room, message, author, text, at
	PushRead    = "com.example.chat.push.read"    // room, member, message
	PushName    = "com.example.chat.push.name"    // room, name, version
	PushMember  = "com.example.chat.push.member"  // room, member, in, at
)

//go:embed *.sql
var migrations embed.FS

// Function is the function, ready to be served.
func Function() functions.Function {
	handlers := functions.ByType{
		Posted: functions.JSON(posted),
		Read:   functions.JSON(read),
		Named:  functions.JSON(named),
		Joined: functions.JSON(joined),
		Left:   functions.JSON(left),
	}
	return functions.Function{
		Name:       "chat",
		Version:    "v1",
		Types:      handlers.Types(),
		Handle:     handlers.Handle,
		Migrations: migrations,
	}
}

const (
	maxName = 64    // bytes of the name of a room or a member
	maxText = 4_000 // bytes of a message
)

// checkNames says which of the names in an event, each behind what it is of, cannot
// be one.
func checkNames(pairs ...string) error {
	for i := 0; i < len(pairs); i += 2 {
		if err := checkText(pairs[i], pairs[i+1], maxName); err != nil {
			return err
		}
	}
	return nil
}

func checkText(of, text string, limit int) error {
	switch {
	case text == "":
		return fmt.Errorf("%s: missing", of)
	case len(text) > limit:
		return fmt.Errorf("%s: it has %d bytes: want at most %d", of, len(text), limit)
	}
	return nil
}

// timeOf is the time of an event, which must have one: a clock's would be another
// one in each cluster.
func timeOf(e event.Event) (time.Time, error) {
	at := functions.Time(e)
	if at.IsZero() {
		return at, functions.Reject(errors.New("time: missing"))
	}
	return at, nil
}
