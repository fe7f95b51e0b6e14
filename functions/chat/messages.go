package chat

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/functions"
)

// countUnread counts the unread messages of one member of a room, or of all its
// members if the name is empty.
//
// It must run while the room's lock is held. So every event that changes the number
// of unread messages adds to the room's row in chat_rooms, even if it adds zero.
// The lock is held until the commit, and the statement begins after the lock was
// acquired: it sees all earlier counts, and none is made concurrently. All
// statements of a room have the same first argument, so the locks of several rooms
// are taken in one order.
//
// The limit bounds the cost of each message if a member never reads.
var countUnread = functions.Statement{Name: "count unread", SQL: `
	update chat_members as m
	set unread = case when m.deleted then 0 else (
		select count(*) from (
			select from chat_messages as x
			where x.room = m.room and x.message > r.read_to and x.author <> m.member
			limit 1000
		) as unread
	) end
	from chat_reads as r
	where m.room = $1 and (m.member = $2 or $2 = '') and r.room = m.room and r.member = m.member`}

// touchRoom takes the lock of a room, and adds to its number of messages.
func touchRoom(fx *functions.Effects, room string, messages int) {
	fx.Add("chat_rooms", functions.Row{"room": room}, functions.Row{"messages": messages})
}

type message struct {
	Room   string `json:"room"`
	Author string `json:"author"`
	Text   string `json:"text"`
}

// Validate returns an error for invalid messages.
func (m message) Validate() error {
	if err := checkNames("room", m.Room, "author", m.Author); err != nil {
		return err
	}
	return checkText("text", m.Text, maxText)
}

type pushedMessage struct {
	Room    string    `json:"room"`
	Message string    `json:"message"`
	Author  string    `json:"author"`
	Text    string    `json:"text"`
	At      time.Time `json:"at"`
}

func posted(_ context.Context, e event.Event, m message) (functions.Effects, error) {
	at, err := timeOf(e)
	if err != nil {
		return functions.Effects{}, err
	}
	id := functions.ID(e, "message")
	var fx functions.Effects
	touchRoom(&fx, m.Room, 1)
	fx.Insert("chat_messages", functions.Row{"room": m.Room, "message": id, "author": m.Author, "text": m.Text, "posted_at": at})
	fx.Exec(countUnread, m.Room, "")
	fx.Emit(functions.Output{
		Type: PushMessage, Subject: m.Room,
		Data: pushedMessage{Room: m.Room, Message: id, Author: m.Author, Text: m.Text, At: at},
	})
	return fx, nil
}

type marker struct {
	Room    string `json:"room"`
	Member  string `json:"member"`
	Message string `json:"message"`
}

var uuidPattern = regexp.MustCompile(`^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$`)

// Validate returns an error for invalid markers.
func (m marker) Validate() error {
	if !uuidPattern.MatchString(m.Message) {
		return errors.New("message: want the UUID of a message, in lower case")
	}
	return checkNames("room", m.Room, "member", m.Member)
}

func read(_ context.Context, _ event.Event, m marker) (functions.Effects, error) {
	var fx functions.Effects
	readTo(&fx, m)
	fx.Emit(functions.Output{Type: PushRead, Subject: m.Room, Data: m})
	return fx, nil
}

// readTo advances a read marker, never moves it back, and counts the messages
// after it.
func readTo(fx *functions.Effects, m marker) {
	touchRoom(fx, m.Room, 0)
	fx.Upsert("chat_reads", functions.Row{"room": m.Room, "member": m.Member, "read_to": m.Message}, functions.NewestWins("read_to"))
	fx.Exec(countUnread, m.Room, m.Member)
}

// markerAt returns the read marker for a time: not less than any earlier message
// and less than any later message.
func markerAt(at time.Time) string {
	millis := max(0, at.UnixMilli())
	return fmt.Sprintf("%08x-%04x-7000-8000-000000000000", millis>>16, millis&0xffff)
}
