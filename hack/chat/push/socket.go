package push

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/time/rate"
)

const (
	// waiting bounds the requests of a browser that are not stored yet.
	waiting = 16

	// perSecond and burst limit the rate of a browser's requests.
	perSecond, burst = 20, 40
)

// socket is the connection of a browser.
type socket struct {
	server  *Server
	conn    *websocket.Conn
	watcher *watcher
	room    string
	member  string
}

// open answers GET /ws?room=…&member=…
func (s *Server) open(w http.ResponseWriter, r *http.Request) {
	room, member := r.URL.Query().Get("room"), r.URL.Query().Get("member")
	for what, name := range map[string]string{"room": room, "member": member} {
		if name == "" || len(name) > 64 || strings.TrimSpace(name) != name {
			http.Error(w, what+": want a name of 1 to 64 bytes", http.StatusBadRequest)
			return
		}
	}
	if !s.enter() {
		http.Error(w, "too many connections, or the server is shutting down", http.StatusServiceUnavailable)
		return
	}
	defer s.leave()
	// Accept checks whether the page is of one of our hosts, and answers if not.
	conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{OriginPatterns: s.hosts})
	if err != nil {
		return
	}
	defer conn.CloseNow() //nolint:errcheck // closed before, if all went well
	conn.SetReadLimit(s.cfg.MessageBytes)

	// The request's context is not used, because net/http does not end it when a hijacked
	// connection breaks.
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	k := &socket{server: s, conn: conn, watcher: s.hub.watch(room, s.cfg.Queue), room: room, member: member}
	defer s.hub.leave(k.watcher)
	s.cfg.Logger.LogAttrs(ctx, slog.LevelDebug, "browser connected", slog.String("room", room))

	requests := make(chan request, waiting)
	var parts sync.WaitGroup
	parts.Go(func() {
		k.write(ctx)
		_ = conn.CloseNow() // which ends the reading
	})
	parts.Go(func() { k.store(ctx, requests) })
	// The end of ctx must not end the read, which would close the connection before write
	// has sent the reason.
	err = k.read(context.WithoutCancel(ctx), requests)
	cancel()
	close(requests)
	parts.Wait()
	s.cfg.Logger.LogAttrs(ctx, slog.LevelDebug, "browser disconnected", slog.String("room", room), slog.Any("err", err))
}

// write sends the queued messages, and pings the browser.
func (k *socket) write(ctx context.Context) {
	pings := time.NewTicker(k.server.cfg.PingInterval)
	defer pings.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			k.close(websocket.StatusGoingAway, "the server is shutting down")
			return
		case text, ok := <-k.watcher.queue:
			if !ok {
				k.close(websocket.StatusTryAgainLater, "too slow: reconnect")
				return
			}
			err = k.within(ctx, func(ctx context.Context) error {
				return k.conn.Write(ctx, websocket.MessageText, text)
			})
		case <-pings.C:
			err = k.within(ctx, k.conn.Ping)
		}
		if err != nil {
			return
		}
	}
}

func (k *socket) within(ctx context.Context, do func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, k.server.cfg.WriteTimeout)
	defer cancel()
	return do(ctx)
}

// close sends the reason, if the browser is still connected.
func (k *socket) close(code websocket.StatusCode, reason string) {
	_ = k.conn.Close(code, reason)
}

// read reads requests until the connection ends, and returns the reason.
func (k *socket) read(ctx context.Context, requests chan<- request) error {
	allowed := rate.NewLimiter(perSecond, burst)
	for {
		kind, text, err := k.conn.Read(ctx)
		if err != nil {
			return err // even if a message is too large
		}
		var r request
		if kind != websocket.MessageText || json.Unmarshal(text, &r) != nil {
			k.close(websocket.StatusUnsupportedData, "want JSON with id, type and data")
			return errors.New("no request")
		}
		if !allowed.AllowN(k.server.cfg.Now(), 1) {
			k.answer(answer{Failed: r.ID, Reason: fmt.Sprintf("too many requests: want at most %d per second", perSecond)})
			continue
		}
		select {
		case requests <- r:
		default:
			k.answer(answer{Failed: r.ID, Reason: "earlier requests are not stored yet: retry later"})
		}
	}
}

// store stores requests, one after the other, and answers them.
func (k *socket) store(ctx context.Context, requests <-chan request) {
	for r := range requests {
		e, err := r.event(ctx, k.room, k.member, k.server.cfg.Now())
		if err == nil {
			err = k.server.poster.post(ctx, e)
		}
		if err != nil {
			k.answer(answer{Failed: r.ID, Reason: err.Error()})
			continue
		}
		k.answer(answer{Stored: r.ID})
	}
}

func (k *socket) answer(a answer) { k.server.hub.answer(k.watcher, a.text()) }
