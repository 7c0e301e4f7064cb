package agents

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"sync"
	"time"

	"davit.dev/davit/internal/console/store"
	"davit.dev/davit/internal/uplink"
)

const (
	// first is how long an agent may take for its first word.
	first = 15 * time.Second
	// batch is how many events are kept at once at the most.
	batch = 256
	// bulk is likewise for what may be large.
	bulk = 8
	// noteEvery is how often the time of an agent's last word is written down when
	// it says nothing else.
	noteEvery = time.Minute
)

// talk is one stream.
type talk struct {
	*call
	server  *Server
	room    *room
	control *http.ResponseController
	frames  *uplink.Reader
	hello   uplink.Hello
	coming  map[uplink.Key]uplink.Object // a full state that has not come whole
	bytes   int                          // of specs in it
	events  []store.SentEvent
	told    []store.Handed // of documents
	begun   []store.Answer // of runs
	back    []uplink.Restored
	hands   *hands
	acks    acks
	changed bool // the state is to be kept
	// mirrored is that what objects say is to be kept; it is changed then as well.
	mirrored bool
	beaten   bool // a beat is to be answered
	noted    time.Time
	said     time.Time // when the agent was told what time it is

	saying sync.Mutex
	ctx    context.Context //nolint:containedctx // of the stream: a word that is under way ends with it
}

// stream hears an agent until it or the console ends.
func (s *Server) stream(c *call) (any, error) {
	speaks := s.Speaks()
	if !speaks.Active {
		return nil, errElsewhere
	}
	admit := func() error {
		return c.project.AdmitAgent(c.r.Context(), c.act(s.Now(), "agent/"+c.who.Site), c.who.Site, c.who.Enrolment)
	}
	if err := admit(); err != nil {
		return nil, err
	}
	ctx, end := context.WithCancel(c.r.Context())
	defer end()
	defer context.AfterFunc(s.ctx, end)()
	t := &talk{ctx: ctx, call: c, server: s, room: s.room(c.project), control: http.NewResponseController(c.w), frames: uplink.NewReader(c.r.Body), acks: newAcks()}
	defer atEnd(ctx, func() { _ = t.control.SetReadDeadline(time.Unix(1, 0)) })()
	t.patience(first)
	f, err := t.frames.Up()
	if err != nil || f.Hello == nil || len(f.Hello.Outbox) > 64 || f.Hello.Outbox == "" || len(f.Hello.Version) > 128 {
		return nil, fmt.Errorf("%w: it does not begin with hello", uplink.ErrFrame)
	}
	t.hello = *f.Hello
	if t.hello.Epoch > speaks.Epoch {
		return nil, fmt.Errorf("%w: the agent has heard a console of epoch %d, this one has %d", store.ErrRefused, t.hello.Epoch, speaks.Epoch)
	}
	acked, err := t.acked(ctx)
	if err != nil {
		return nil, err
	}
	leave, err := t.room.enter(t, end)
	if err != nil {
		return nil, err
	}
	defer leave()
	// It may have been removed since it was admitted: then nobody knew of the stream
	// that was to be ended.
	if err := admit(); err != nil {
		t.room.forget(t)
		return nil, err
	}
	s.noteIssuer(c)
	c.w.Header().Set("Content-Type", "application/x-ndjson")
	t.said = s.Now()
	if err := t.say(uplink.Down{Welcome: &uplink.Welcome{Console: speaks, ID: s.Console.ID(), Acked: acked, Every: uplink.Beat.Milliseconds(), At: t.said.UTC(), Authorities: c.pins()}}); err != nil {
		return nil, nil //nolint:nilerr,nilnil // it is gone
	}
	defer t.handOver(ctx, end)()
	defer t.askFor(ctx, end)()
	defer t.acknowledge(ctx, end)()
	if err := t.hear(ctx); ctx.Err() == nil {
		s.Log.Info("an agent's stream ended", "project", c.project.Name, "site", c.who.Site, "err", err)
	}
	return nil, nil //nolint:nilnil // it was answered
}

// handOver hands documents over beside what is heard, to an agent that takes them.
// The stream has ended when wait returns.
func (t *talk) handOver(ctx context.Context, end func()) (wait func()) {
	if t.hello.Documents == nil {
		return func() {}
	}
	t.hands = &hands{all: *t.hello.Documents == 0, sent: map[store.Key]store.Handed{}, flight: map[store.Key]bool{}, answered: make(chan struct{}, 1)}
	stop := atEnd(ctx, func() { _ = t.control.SetWriteDeadline(time.Unix(1, 0)) })
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := t.handing(ctx); err != nil && ctx.Err() == nil {
			t.server.Log.Warn("documents could not be handed over", "project", t.project.Name, "site", t.who.Site, "err", err)
		}
		end()
	}()
	return func() {
		end()
		<-ended
		stop()
	}
}

// atEnd calls f when the context ends. After stop it is not called any more, nor
// is it still called.
func atEnd(ctx context.Context, f func()) (stop func()) {
	called := make(chan struct{})
	cancel := context.AfterFunc(ctx, func() {
		defer close(called)
		f()
	})
	return func() {
		if !cancel() {
			<-called
		}
	}
}

// patience is how long the agent may say nothing. It is real time, whatever the
// console's clock says.
func (t *talk) patience(d time.Duration) { _ = t.control.SetReadDeadline(time.Now().Add(d)) }

func (t *talk) say(f uplink.Down) error {
	t.saying.Lock()
	defer t.saying.Unlock()
	if err := t.control.SetWriteDeadline(time.Now().Add(uplink.Silence)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	if err := t.ctx.Err(); err != nil { // its end came before the deadline was set anew
		return err
	}
	if err := uplink.Write(t.w, f); err != nil {
		return err
	}
	return t.control.Flush()
}

// hear takes frames, as many as are there, keeps what they say and then says so.
func (t *talk) hear(ctx context.Context) error {
	for {
		t.patience(uplink.Silence)
		if err := ctx.Err(); err != nil { // its end came before the deadline was set anew
			return err
		}
		f, err := t.frames.Up()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			err = fmt.Errorf("nothing was heard for %s", uplink.Silence)
		}
		if err != nil {
			return err
		}
		if err := t.take(f); err != nil {
			return err
		}
		if t.frames.Waiting() && len(t.events)+len(t.told)+len(t.begun) < batch && len(t.back) < bulk {
			continue
		}
		if err := t.keep(ctx); err != nil {
			return err
		}
	}
}

func (t *talk) take(f uplink.Up) error {
	switch {
	case f.State != nil:
		return t.state(*f.State)
	case f.Event != nil:
		e := *f.Event
		e.Message = clip(e.Message)
		body, err := json.Marshal(e)
		if err != nil {
			return err
		}
		if n := len(t.events); e.Seq <= 0 || n > 0 && e.Seq <= t.events[n-1].Seq {
			return fmt.Errorf("%w: event %d is out of order", uplink.ErrFrame, e.Seq)
		}
		t.events = append(t.events, store.SentEvent{Seq: e.Seq, Body: body})
	case f.Beat != nil:
		t.beaten = true
	case f.Told != nil:
		return t.answer(*f.Told)
	case f.Begun != nil:
		return t.ran(*f.Begun)
	case f.Restored != nil:
		return t.restored(*f.Restored)
	default:
		return fmt.Errorf("%w: hello again", uplink.ErrFrame)
	}
	return nil
}

// maxObjects is how many objects one site may speak of.
const maxObjects = 20_000

func (t *talk) state(s uplink.State) error {
	if s.Full && t.coming == nil {
		t.coming, t.bytes = map[uplink.Key]uplink.Object{}, 0
	}
	for i := range s.Objects {
		s.Objects[i].Why = clip(s.Objects[i].Why)
		if err := checkSpec(s.Objects[i]); err != nil {
			return err
		}
	}
	if t.coming != nil {
		for _, o := range s.Objects {
			t.coming[o.Key] = o
			t.bytes += len(o.Spec)
		}
		if len(t.coming) > maxObjects || t.bytes > uplink.MaxSpecs {
			return fmt.Errorf("%w: more than %d objects, or %d bytes of what they say", uplink.ErrFrame, maxObjects, uplink.MaxSpecs)
		}
		if s.More {
			return nil
		}
		err := t.room.replace(t, t.coming, t.server.Now())
		t.coming, t.changed = nil, true
		return err
	}
	t.changed = true
	return t.room.update(t, s, t.server.Now())
}

// clip bounds a text of an agent's.
func clip(text string) string {
	const most = 2048
	if len(text) > most {
		return text[:most]
	}
	return text
}

// keep has what was said kept, and then says so.
func (t *talk) keep(ctx context.Context) error {
	now := t.server.Now()
	if err := t.room.seen(t, now); err != nil {
		return err
	}
	if len(t.events) > 0 || len(t.told) > 0 || len(t.begun)+len(t.back) > 0 || t.changed || now.Sub(t.noted) >= noteEvery {
		w := store.Word{Site: t.who.Site, At: now, Version: t.hello.Version, Ends: t.cert.NotAfter, Outbox: t.hello.Outbox, Events: t.events, Told: t.told, Begun: t.begun, Restored: t.back}
		if t.changed {
			w.Said = t.room.said(t.who.Site)
		}
		if t.mirrored {
			data, err := t.room.mirrored(t.who.Site)
			if err != nil {
				return err
			}
			w.Kept = map[string][]byte{specsOf + t.who.Site: data}
		}
		if err := t.room.keep(ctx, w); err != nil {
			return err
		}
		t.noted, t.changed, t.mirrored = now, false, false
	}
	for _, h := range t.told {
		if t.hands != nil {
			t.hands.arrived(h)
		}
	}
	t.told, t.begun, t.back = nil, nil, nil
	if n := len(t.events); n > 0 {
		t.acks.kept(t.events[n-1].Seq)
		t.events = nil
	}
	if t.beaten {
		t.beaten = false
		speaks := t.server.Speaks()
		return t.say(uplink.Down{Beat: &speaks})
	}
	return nil
}
