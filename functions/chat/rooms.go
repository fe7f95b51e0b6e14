package chat

import (
	"context"
	"errors"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/functions"
)

type roomName struct {
	Room    string `json:"room"`
	Name    string `json:"name"`
	Version int64  `json:"version"`
}

// Validate returns an error for invalid names.
func (n roomName) Validate() error {
	if n.Version < 1 {
		return errors.New("version: want 1 or more")
	}
	return checkNames("room", n.Room, "name", n.Name)
}

// named keeps the newest name. It emits a name that loses, too: the function
// cannot know that, and clients also keep the greater version.
func named(_ context.Context, _ event.Event, n roomName) (functions.Effects, error) {
	var fx functions.Effects
	fx.Upsert("chat_names", functions.Row{"room": n.Room, "name": n.Name, "version": n.Version}, functions.NewestWins("version"))
	fx.Emit(functions.Output{Type: PushName, Subject: n.Room, Data: n})
	return fx, nil
}

type member struct {
	Room   string `json:"room"`
	Member string `json:"member"`
}

// Validate returns an error for names that cannot be members.
func (m member) Validate() error { return checkNames("room", m.Room, "member", m.Member) }

type pushedMember struct {
	Room   string    `json:"room"`
	Member string    `json:"member"`
	In     bool      `json:"in"`
	At     time.Time `json:"at"`
}

// joined adds a member to a room. Earlier messages count as read.
func joined(_ context.Context, e event.Event, m member) (functions.Effects, error) {
	at, err := timeOf(e)
	if err != nil {
		return functions.Effects{}, err
	}
	var fx functions.Effects
	fx.Upsert("chat_members", functions.Row{"room": m.Room, "member": m.Member, "changed_at": at}, functions.NewestWins("changed_at"))
	readTo(&fx, marker{Room: m.Room, Member: m.Member, Message: markerAt(at)})
	fx.Emit(functions.Output{Type: PushMember, Subject: m.Room, Data: pushedMember{m.Room, m.Member, true, at}})
	return fx, nil
}

// left keeps the row of the member, so that an older join that arrives later
// does not restore it.
func left(_ context.Context, e event.Event, m member) (functions.Effects, error) {
	at, err := timeOf(e)
	if err != nil {
		return functions.Effects{}, err
	}
	var fx functions.Effects
	touchRoom(&fx, m.Room, 0)
	fx.Delete("chat_members", functions.Row{"room": m.Room, "member": m.Member}, functions.Version{Column: "changed_at", Value: at})
	fx.Exec(countUnread, m.Room, m.Member)
	fx.Emit(functions.Output{Type: PushMember, Subject: m.Room, Data: pushedMember{m.Room, m.Member, false, at}})
	return fx, nil
}
