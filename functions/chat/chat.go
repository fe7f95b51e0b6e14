// Package chat is a function for the chat application of a team with users in two
// regions. It stores messages, room names, members, read markers and numbers of
// unread messages. It emits events that a websocket server pushes to browsers;
// hack/chat is such a server.
//
// # Guarantees
//
// The tables reach the same state for every order of the events, in every cluster:
//
//   - A message is in the history once.
//   - Of two names of a room, the one with the greater version is kept.
//   - The last join or leave of a member, by the time of the events, counts.
//   - A read marker never moves backwards.
//   - The unread messages of a member are the messages of others after the marker.
//
// # Not guaranteed
//
// Consumers of the emitted events must accept any order: the later of two names may
// arrive first. The clocks of the senders decide which join or leave is the last
// one, and how messages are sorted. The function does not check whether a user may
// post: the program that accepts the events has to.
//
// # Design
//
// Each handler returns the changes of one event, under a rule that makes the order
// irrelevant. Only the unread messages depend on rows that the function cannot see;
// a statement counts them while it holds the lock of the room (see countUnread).
package chat

import (
	"embed"
	"errors"
	"fmt"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/functions"
)

// The events that the function handles, and their data. All need a time.
const (
	// Posted is a message: room, author, text.
	Posted = "com.example.chat.message.posted"

	// Read means that a member has read a message and all earlier ones: room,
	// member, message.
	Read = "com.example.chat.message.read"

	// Named sets the name of a room: room, name, version. The version is one more
	// than that of the name that the user saw.
	Named = "com.example.chat.room.named"

	// Joined and Left mean that a member enters or leaves a room: room, member.
	Joined = "com.example.chat.member.joined"
	Left   = "com.example.chat.member.left"
)

// The events that the function emits, for clients that show the room. The room is
// their subject.
const (
	PushMessage = "com.example.chat.push.message" // room, message, author, text, at
	PushRead    = "com.example.chat.push.read"    // room, member, message
	PushName    = "com.example.chat.push.name"    // room, name, version
	PushMember  = "com.example.chat.push.member"  // room, member, in, at
)

//go:embed *.sql
var migrations embed.FS

// Function returns the function, ready to be served.
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
	maxName = 64    // in bytes, of a room or a member
	maxText = 4_000 // bytes of a message
)

// checkNames returns an error if one of the names in an event is invalid. Each name
// follows the description of it.
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

// timeOf returns the time of an event, which must have one: a clock would return
// another time in each cluster.
func timeOf(e event.Event) (time.Time, error) {
	at := functions.Time(e)
	if at.IsZero() {
		return at, functions.Reject(errors.New("time: missing"))
	}
	return at, nil
}
