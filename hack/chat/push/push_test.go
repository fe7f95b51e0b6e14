package push_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/coder/websocket"
	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"
	"github.com/tandem-fn/tandem/eventing/devcluster/natstest"
	"github.com/tandem-fn/tandem/eventing/ingest"
	"github.com/tandem-fn/tandem/eventing/jetstream"
	"github.com/tandem-fn/tandem/functions"
	"github.com/tandem-fn/tandem/functions/chat"

	"github.com/tandem-fn/tandem/hack/chat/push"
)

// patience bounds the waits of a test, postPatience the attempts of a server to store an
// event.
const (
	patience     = 2 * time.Minute
	postPatience = time.Minute
)

// world is two sides on one NATS server.
type world struct {
	nats    *natstest.Server
	nc      *nats.Conn
	js      natsjs.JetStream
	outputs *jetstream.Publisher
	east    *side
	west    *side
}

type side struct {
	server *push.Server
	http   *httptest.Server
}

// newWorld starts two sides; change, if not nil, changes their configuration.
func newWorld(t *testing.T, change func(*push.Config)) *world {
	t.Helper()
	w := &world{nats: natstest.Start(t)}
	conn, err := jetstream.Connect(t.Context(), w.nats.URL(), jetstream.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) })
	publisher := func(stream string) *jetstream.Publisher {
		p, err := jetstream.NewPublisher(conn, jetstream.StreamConfig{Name: stream})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	w.outputs = publisher("OUTPUTS")
	if w.nc, err = nats.Connect(w.nats.URL(), nats.MaxReconnects(-1), nats.ReconnectWait(10*time.Millisecond), nats.Timeout(patience)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.nc.Close)
	if w.js, err = natsjs.New(w.nc); err != nil {
		t.Fatal(err)
	}
	handler, err := ingest.New(publisher("EVENTS"), ingest.Config{})
	if err != nil {
		t.Fatal(err)
	}
	ingest := httptest.NewServer(handler)
	t.Cleanup(ingest.Close)

	east, west := httptest.NewUnstartedServer(nil), httptest.NewUnstartedServer(nil)
	sides := []push.Side{
		{Name: "east", URL: "http://" + east.Listener.Addr().String()},
		{Name: "west", URL: "http://" + west.Listener.Addr().String()},
	}
	start := func(name string, server *httptest.Server) *side {
		// A browser of a busy machine may be slow to read without being
		// disconnected.
		cfg := push.Config{
			Cluster: name, IngestURL: ingest.URL, Sides: sides,
			PingInterval: time.Hour, WriteTimeout: patience, PostTimeout: postPatience,
		}
		if change != nil {
			change(&cfg)
		}
		s, err := push.New(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		server.Config.Handler = s
		server.Start()
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			s.Follow(ctx, w.js, "OUTPUTS")
		}()
		t.Cleanup(func() {
			cancel()
			<-ended
			closing, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
			defer cancel()
			if err := s.Close(closing); err != nil {
				t.Error(err)
			}
			server.Close()
		})
		return &side{server: s, http: server}
	}
	w.east, w.west = start("east", east), start("west", west)
	return w
}

// output returns the function's output for an event.
func output(t *testing.T, id, eventType, data string) event.Event {
	t.Helper()
	e := event.New()
	e.SetSource("/tests")
	e.SetID(id)
	e.SetType(eventType)
	e.SetTime(time.Date(2026, 3, 2, 8, 0, 0, 0, time.UTC))
	e.SetDataContentType(event.ApplicationJSON)
	e.DataEncoded = []byte(data)
	fx, err := chat.Function().Handle(t.Context(), e)
	if err != nil {
		t.Fatal(err)
	}
	out, err := fx.Outputs[0].Event("chat", e, 0)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func said(t *testing.T, id, room, text string) event.Event {
	t.Helper()
	return output(t, id, chat.Posted, fmt.Sprintf(`{"room":%q,"author":"Ann","text":%q}`, room, text))
}

func (w *world) publish(t *testing.T, events ...event.Event) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		err := w.outputs.Publish(ctx, events)
		if err == nil {
			return
		}
		if ctx.Err() != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// refusal is the answer to a browser that may not connect.
type refusal struct {
	status int
	body   string
}

// dial connects a browser.
func (s *side) dial(t *testing.T, room, member string, header http.Header) (*browser, refusal, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	host := header.Get("Host")
	header = header.Clone()
	header.Del("Host")
	conn, resp, err := websocket.Dial(ctx, "ws"+strings.TrimPrefix(s.http.URL, "http")+"/ws?room="+room+"&member="+member, &websocket.DialOptions{HTTPHeader: header, Host: host})
	if resp == nil {
		t.Fatal(err)
	}
	if err != nil {
		defer resp.Body.Close() //nolint:errcheck // only read from
		body, _ := io.ReadAll(resp.Body)
		return nil, refusal{resp.StatusCode, string(body)}, err
	}
	t.Cleanup(func() { _ = conn.CloseNow() })
	conn.SetReadLimit(1 << 20)
	return &browser{conn: conn}, refusal{status: resp.StatusCode}, nil
}

func (s *side) open(t *testing.T, room, member string) *browser {
	t.Helper()
	b, _, err := s.dial(t, room, member, nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

type browser struct{ conn *websocket.Conn }

// message is a message to a browser: an event, or an answer.
type message struct {
	Specversion, Source, ID, Type, Subject, Causationid string
	Data                                                map[string]any
	Stored, Failed, Reason                              string
}

func (b *browser) read(t *testing.T) (message, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, text, err := b.conn.Read(ctx)
	if err != nil {
		return message{}, err
	}
	var m message
	if err := json.Unmarshal(text, &m); err != nil {
		t.Fatalf("it got %s: %v", text, err)
	}
	return m, nil
}

// next returns the next message.
func (b *browser) next(t *testing.T) message {
	t.Helper()
	m, err := b.read(t)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// texts returns the messages of the chat up to one with the text until.
func (b *browser) texts(t *testing.T, until string) (texts []string) {
	t.Helper()
	for {
		text := fmt.Sprint(b.next(t).Data["text"])
		texts = append(texts, text)
		if text == until {
			return texts
		}
	}
}

func (b *browser) write(t *testing.T, kind websocket.MessageType, text string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := b.conn.Write(ctx, kind, []byte(text)); err != nil {
		t.Fatal(err)
	}
}

func (b *browser) send(t *testing.T, id, eventType, data string) {
	t.Helper()
	b.write(t, websocket.MessageText, fmt.Sprintf(`{"id":%q,"type":%q,"data":%s}`, id, eventType, data))
}

// uuid returns the id of a request that is sent at that time.
func uuid(name string, at time.Time) string {
	e := event.New()
	e.SetSource("/tests")
	e.SetID(name)
	e.SetTime(at)
	return functions.ID(e, "request")
}

func TestBothSidesGetEachEventOnce(t *testing.T) {
	t.Parallel()

	w := newWorld(t, nil)
	ann, bob := w.east.open(t, "ops", "Ann"), w.west.open(t, "ops", "Bob")
	first := said(t, "1", "ops", "first")
	w.publish(t, first)
	// Again, after the stream's deduplication window: simulated by leaving out
	// the id.
	header, data, err := jetstream.Encode(first)
	if err != nil {
		t.Fatal(err)
	}
	header.Del("Nats-Msg-Id")
	if err := jetstream.Do(t.Context(), func(ctx context.Context) error {
		_, err := w.js.PublishMsg(ctx, &nats.Msg{Subject: jetstream.Subject("outputs", first.Type()), Header: header, Data: data})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	w.publish(t, said(t, "2", "lunch", "elsewhere"), said(t, "3", "ops", "last"))
	for name, b := range map[string]*browser{"east": ann, "west": bob} {
		if got := b.texts(t, "last"); strings.Join(got, " ") != "first last" {
			t.Errorf("%s got %q, want first and last once", name, got)
		}
	}
	if n := w.stream(t, "OUTPUTS").CachedInfo().State.Msgs; n < 4 {
		t.Errorf("the stream has %d messages, not the repeat in it, so nothing was shown", n)
	}
}

func TestWhoComesLaterGetsWhatHappenedLately(t *testing.T) {
	t.Parallel()

	w := newWorld(t, func(c *push.Config) { c.History = 3 })
	early := w.east.open(t, "ops", "Ann")
	for i := range 5 {
		w.publish(t, said(t, fmt.Sprint(i), "ops", fmt.Sprint("message ", i)))
	}
	if got := early.texts(t, "message 4"); len(got) != 5 {
		t.Errorf("who was there got %q", got)
	}
	late := w.east.open(t, "ops", "Bob")
	if got := strings.Join(late.texts(t, "message 4"), ", "); got != "message 2, message 3, message 4" {
		t.Errorf("who came later got %q", got)
	}
}

func TestWhatIsPushedIsTheEvent(t *testing.T) {
	t.Parallel()

	w := newWorld(t, nil)
	b := w.east.open(t, "ops", "Ann")
	out := output(t, "1", chat.Named, `{"room":"ops","name":"Pager \u003c duty","version":2}`)
	w.publish(t, out)
	m := b.next(t)
	if m.Specversion != "1.0" || m.Source != out.Source() || m.ID != out.ID() || m.Type != chat.PushName || m.Subject != "ops" || m.Causationid != "1" || m.Data["name"] != "Pager < duty" {
		t.Errorf("it got %+v", m)
	}
}

// stream returns the current state of a stream.
func (w *world) stream(t *testing.T, name string) natsjs.Stream {
	t.Helper()
	stream, err := jetstream.Ask(t.Context(), func(ctx context.Context) (natsjs.Stream, error) { return w.js.Stream(ctx, name) })
	if err != nil {
		t.Fatal(err)
	}
	return stream
}

// stored returns the events in the stream of events.
func (w *world) stored(t *testing.T) (events []event.Event) {
	t.Helper()
	stream := w.stream(t, "EVENTS")
	for seq := range stream.CachedInfo().State.LastSeq {
		m, err := jetstream.Ask(t.Context(), func(ctx context.Context) (*natsjs.RawStreamMsg, error) { return stream.GetMsg(ctx, seq+1) })
		if err != nil {
			t.Fatal(err)
		}
		e, err := jetstream.Decode(m.Header, m.Data)
		if err != nil {
			t.Fatal(err)
		}
		events = append(events, e)
	}
	return events
}

func TestWhatIsTypedIsStoredOnceThoughItIsSentOnBothSides(t *testing.T) {
	t.Parallel()

	w := newWorld(t, nil)
	ann, again := w.east.open(t, "ops", "Ann"), w.west.open(t, "ops", "Ann")
	id := uuid("1", time.Now())
	for _, b := range []*browser{ann, again} {
		b.send(t, id, chat.Posted, `{"text":"Hello","author":"Mallory","room":"secret"}`)
		if m := b.next(t); m.Stored != id {
			t.Fatalf("the answer is %+v, want that %s is stored", m, id)
		}
	}
	events := w.stored(t)
	if len(events) != 1 {
		t.Fatalf("%d events are stored, want one", len(events))
	}
	e := events[0]
	if e.ID() != id || e.Type() != chat.Posted || e.Source() != "/chat/browsers" || string(e.Data()) != `{"author":"Ann","room":"ops","text":"Hello"}` {
		t.Errorf("the event is %s", e)
	}
	if !e.Time().IsZero() {
		t.Error("it has a time that another side would not have given it")
	}
	if at := functions.Time(e); time.Since(at) > time.Hour || time.Since(at) < 0 {
		t.Errorf("its time is %s", at)
	}
}

func TestWhatCannotBeStoredIsAnsweredWithTheReason(t *testing.T) {
	t.Parallel()

	w := newWorld(t, nil)
	b := w.east.open(t, "ops", "Ann")
	now := time.Now()
	for i, tt := range []struct{ id, eventType, data, reason string }{
		{uuid("1", now), chat.Posted, `{}`, "read data: text: missing"},
		{uuid("2", now), chat.Posted, `{"text":5}`, "read data: text: it is the number 5: want a string"},
		{uuid("3", now), chat.Posted, `null`, "read data: text: missing"},
		{uuid("4", now), chat.PushMessage, `{}`, "clients may not send it"},
		{uuid("5", now), chat.Read, `{"message":"x"}`, "want the UUID of a message"},
		{"6", chat.Joined, `{}`, "id: want a UUIDv7"},
		{"", chat.Joined, `{}`, "id: missing"},
		{uuid("8", now.Add(time.Hour)), chat.Joined, `{}`, "check your clock"},
		{uuid("9", now.Add(-48*time.Hour)), chat.Joined, `{}`, "check your clock"},
	} {
		b.send(t, tt.id, tt.eventType, tt.data)
		if m := b.next(t); m.Failed != tt.id || !strings.Contains(m.Reason, tt.reason) {
			t.Errorf("%d: the answer is %+v, want the reason %q", i+1, m, tt.reason)
		}
	}
	// The connection still works after the rejections.
	id := uuid("10", now)
	b.send(t, id, chat.Joined, `{}`)
	if m := b.next(t); m.Stored != id {
		t.Errorf("the answer is %+v", m)
	}
}

func TestTooMuchAtOnceIsAnswered(t *testing.T) {
	t.Parallel()

	frozen := time.Now()
	w := newWorld(t, func(c *push.Config) { c.Now = func() time.Time { return frozen } })
	b := w.east.open(t, "ops", "Ann")
	const sent = 60
	for i := range sent {
		b.send(t, uuid(fmt.Sprint(i), frozen), chat.Joined, `{}`)
	}
	refused := 0
	for range sent {
		if m := b.next(t); strings.Contains(m.Reason, "too many requests") {
			refused++
		}
	}
	if refused != 20 { // all except the first 40
		t.Errorf("%d of %d are refused, want 20", refused, sent)
	}
}

func TestStoringIsTriedAgain(t *testing.T) {
	t.Parallel()

	var calls atomic.Int64
	ingest := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if calls.Add(1) < 4 {
			http.Error(w, "event not stored, send it again", http.StatusServiceUnavailable)
			return
		}
		w.WriteHeader(http.StatusAccepted)
	}))
	t.Cleanup(ingest.Close)
	w := newWorld(t, func(c *push.Config) { c.IngestURL = ingest.URL })
	b := w.east.open(t, "ops", "Ann")
	id := uuid("1", time.Now())
	b.send(t, id, chat.Joined, `{}`)
	if m := b.next(t); m.Stored != id || calls.Load() != 4 {
		t.Errorf("after %d calls the answer is %+v, want that it is stored after 4", calls.Load(), m)
	}
}

func TestStoringIsGivenUpWithTheReason(t *testing.T) {
	t.Parallel()

	for name, tt := range map[string]struct {
		status  int
		timeout time.Duration
		says    string
	}{
		"away":    {503, 2 * time.Second, "the ingest address answers 503: out of order"},
		"refused": {400, postPatience, "the ingest address answers 400: out of order"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			ingest := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				http.Error(w, "out of order", tt.status)
			}))
			t.Cleanup(ingest.Close)
			w := newWorld(t, func(c *push.Config) { c.IngestURL, c.PostTimeout = ingest.URL, tt.timeout })
			b := w.east.open(t, "ops", "Ann")
			for n := 0; ; n++ {
				id := uuid(fmt.Sprint(n), time.Now())
				b.send(t, id, chat.Joined, `{}`)
				m := b.next(t)
				if m.Failed == id && strings.Contains(m.Reason, "deadline exceeded") && n < 20 {
					continue // on a busy machine the answer was late
				}
				if m.Failed != id || m.Reason != tt.says {
					t.Errorf("the answer is %+v, want %q", m, tt.says)
				}
				break
			}
		})
	}
}

func TestOnlyPagesOfTheSidesMayAsk(t *testing.T) {
	t.Parallel()

	w := newWorld(t, nil)
	west := w.west.http.URL
	for name, tt := range map[string]struct {
		header http.Header
		status int
	}{
		"its own page":             {http.Header{"Origin": {w.east.http.URL}}, 101},
		"the page of another side": {http.Header{"Origin": {west}}, 101},
		"no page":                  {http.Header{}, 101},
		"somebody else's page":     {http.Header{"Origin": {"http://evil.example"}}, 403},
		"one that looks like ours": {http.Header{"Origin": {west + ".evil.example"}}, 403},
		"a name that leads here":   {http.Header{"Origin": {"http://evil.example"}, "Host": {"evil.example"}}, 421},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			_, got, err := w.east.dial(t, "ops", "Ann", tt.header)
			if got.status != tt.status || (err == nil) != (tt.status == 101) {
				t.Errorf("the answer is %d, error %v, want %d", got.status, err, tt.status)
			}
		})
	}
}

func TestRequestsForNoRoomAreRefused(t *testing.T) {
	t.Parallel()

	w := newWorld(t, nil)
	for _, tt := range []struct{ room, member, says string }{
		{"", "Ann", "room: want a name"},
		{"ops", "", "member: want a name"},
		{"ops", strings.Repeat("x", 65), "member: want a name"},
		{"%20ops", "Ann", "room: want a name"},
	} {
		if _, got, err := w.east.dial(t, tt.room, tt.member, nil); err == nil || got.status != 400 || !strings.Contains(got.body, tt.says) {
			t.Errorf("the answer is %d %q, want 400 that says %q", got.status, got.body, tt.says)
		}
	}
}

func TestWhoSendsWhatIsNoRequestIsDisconnected(t *testing.T) {
	t.Parallel()

	w := newWorld(t, func(c *push.Config) { c.MessageBytes = 1000 })
	for name, tt := range map[string]struct {
		kind websocket.MessageType
		text string
		code websocket.StatusCode
	}{
		"too large": {websocket.MessageText, `{"id":"` + strings.Repeat("x", 1000) + `"}`, websocket.StatusMessageTooBig},
		"no JSON":   {websocket.MessageText, "hello", websocket.StatusUnsupportedData},
		"binary":    {websocket.MessageBinary, "{}", websocket.StatusUnsupportedData},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			b := w.east.open(t, "ops", "Ann")
			b.write(t, tt.kind, tt.text)
			if _, err := b.read(t); websocket.CloseStatus(err) != tt.code {
				t.Errorf("the connection ends with %v, want status %d", err, tt.code)
			}
		})
	}
}

func TestWhoIsTooSlowIsDisconnectedAndMayComeAgain(t *testing.T) {
	t.Parallel()

	const sent, size = 300, 64 << 10 // together more than the buffers of two sockets
	w := newWorld(t, func(c *push.Config) {
		if c.Queue = sent; c.Cluster == "east" {
			c.Queue = 4
		}
	})
	slow, quick := w.east.open(t, "ops", "Ann"), w.west.open(t, "ops", "Bob")
	var events []event.Event
	for i := range sent - 1 {
		e := said(t, fmt.Sprint(i), "ops", "x")
		e.DataEncoded = []byte(`{"text":"` + strings.Repeat("x", size) + `"}`)
		events = append(events, e)
	}
	w.publish(t, append(events, said(t, "last", "ops", "last"))...)
	if got := quick.texts(t, "last"); len(got) != sent {
		t.Errorf("who is quick enough got %d messages, want %d", len(got), sent)
	}
	// A browser in the east receives all of them, too, once it reconnects.
	for deadline := time.Now().Add(patience); ; {
		again, n := w.east.open(t, "ops", "Ann"), 0
		m, err := again.read(t)
		for n = 1; err == nil && m.Data["text"] != "last"; n++ {
			m, err = again.read(t)
		}
		if err == nil && n == sent {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("who comes again got %d messages, error %v, want %d", n, err, sent)
		}
	}
	for n := 0; ; n++ {
		_, err := slow.read(t)
		if err != nil {
			if errors.Is(err, context.DeadlineExceeded) || n >= sent {
				t.Errorf("after %d messages: %v, want to be disconnected", n, err)
			}
			break
		}
	}
}

func TestWhoDoesNotAnswerIsDisconnected(t *testing.T) {
	t.Parallel()

	w := newWorld(t, func(c *push.Config) {
		c.Connections, c.PingInterval, c.WriteTimeout = 1, 20*time.Millisecond, 100*time.Millisecond
	})
	w.east.open(t, "ops", "Ann") // which never reads, and so never answers a ping
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		_, got, err := w.east.dial(t, "ops", "Bob", nil)
		if err == nil {
			break
		}
		if got.status != 503 || time.Now().After(deadline) {
			t.Fatalf("there is no room for another one: %v", err)
		}
	}
}

func TestWebsocketsEndWithTheServer(t *testing.T) {
	t.Parallel()

	w := newWorld(t, nil)
	b := w.east.open(t, "ops", "Ann")
	closed := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		closed <- w.east.server.Close(ctx)
	}()
	if _, err := b.read(t); websocket.CloseStatus(err) != websocket.StatusGoingAway {
		t.Errorf("the connection ends with %v", err)
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
	if _, got, err := w.east.dial(t, "ops", "Ann", nil); err == nil || got.status != 503 {
		t.Errorf("a closed server takes connections, error %v", err)
	}
}

func TestTheStreamMayComeLaterAndItsServerGoAway(t *testing.T) {
	t.Parallel()

	w := newWorld(t, nil) // the stream does not exist: the first publish creates it
	b := w.east.open(t, "ops", "Ann")
	time.Sleep(50 * time.Millisecond)
	w.publish(t, said(t, "1", "ops", "before"))
	b.texts(t, "before")
	w.nats.Stop()
	w.nats.Restart(t)
	w.publish(t, said(t, "2", "ops", "after"))
	if got := b.texts(t, "after"); len(got) != 1 {
		t.Errorf("it got %q, want one message", got)
	}
}

func TestThePageIsServedAndClosedToScriptsOfOthers(t *testing.T) {
	t.Parallel()

	w := newWorld(t, nil)
	for path, want := range map[string]struct{ contentType, text string }{
		"/":         {"text/html", `<script type="module" src="page.js">`},
		"/page.js":  {"text/javascript", "new WebSocket("},
		"/room.js":  {"text/javascript", "export class Room"},
		"/chat.css": {"text/css", ".messages"},
		"/sides":    {"application/json", fmt.Sprintf(`[{"name":"east","url":%q},{"name":"west","url":%q}]`, w.east.http.URL, w.west.http.URL)},
		"/health":   {"", ""},
	} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.east.http.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != 200 || !strings.HasPrefix(resp.Header.Get("Content-Type"), want.contentType) || !strings.Contains(string(body), want.text) {
			t.Errorf("%s: the answer is %d, %s, %.100q", path, resp.StatusCode, resp.Header.Get("Content-Type"), body)
		}
		if csp := resp.Header.Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'") || !strings.Contains(csp, "script-src 'self'") {
			t.Errorf("%s: the policy is %q", path, csp)
		}
	}
}

func TestConfigurationErrorsSayWhatIsWrong(t *testing.T) {
	t.Parallel()

	sides := []push.Side{{Name: "east", URL: "http://127.0.0.1:1"}}
	for says, cfg := range map[string]push.Config{
		`cluster "north": want the name of one of the sides`: {Cluster: "north", IngestURL: "http://x", Sides: sides},
		`cluster "east"`:                  {Cluster: "east", IngestURL: "http://x"},
		`ingest URL "": want http://`:     {Cluster: "east", Sides: sides},
		`side east: URL "127.0.0.1:1"`:    {Cluster: "east", IngestURL: "http://x", Sides: []push.Side{{Name: "east", URL: "127.0.0.1:1"}}},
		`a bound is negative`:             {Cluster: "east", IngestURL: "http://x", Sides: sides, Queue: -1},
		`side east: URL "javascript://x"`: {Cluster: "east", IngestURL: "http://x", Sides: []push.Side{{Name: "east", URL: "javascript://x"}}},
	} {
		if _, err := push.New(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("error is %v, want it to say %q", err, says)
		}
	}
}
