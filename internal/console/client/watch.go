package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"time"

	"davit.dev/davit/internal/console/api"
	"davit.dev/davit/internal/console/store"
)

// Event is a change of a document.
type Event struct {
	Type   string     `json:"type"` // ADDED, MODIFIED, DELETED
	Object api.Object `json:"object"`
	id     string
}

// quiet is how long a console may say nothing: it writes every 15 seconds.
const quiet = time.Minute

// maxLine bounds a line of a stream: a document and what is around it.
const maxLine = 8 << 20

// errQuiet ends a stream that nothing comes from.
var errQuiet = fmt.Errorf("%w: nothing came for %s", ErrUnreachable, quiet)

// watch reads one stream of changes after a revision, and returns the revision
// to go on from. It always ends with an error.
func (c *Client) watch(ctx context.Context, of Ref, after string, each func(Event) error) (string, error) {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	alarm := time.AfterFunc(quiet, func() { stop(errQuiet) })
	defer alarm.Stop()
	of.Name = ""
	q := of.request("GET")
	q.query.Set("watch", "true")
	q.query.Set("resourceVersion", after)
	q.header = http.Header{"Last-Event-Id": {after}}
	answer, err := c.send(ctx, q)
	if err != nil {
		return after, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		text, err := io.ReadAll(io.LimitReader(answer.Body, maxLine))
		if err != nil {
			return after, broken(ctx, err)
		}
		return after, refusal(answer.StatusCode, text)
	}
	err = events(answer.Body, func() { alarm.Reset(quiet) }, func(e Event) error {
		if e.id != "" {
			after = e.id
		}
		return each(e)
	})
	var stopped *stopError
	if errors.As(err, &stopped) {
		return after, err
	}
	return after, broken(ctx, err)
}

// stopError is an error of whoever is told of events: nothing of the console's.
type stopError struct{ error }

func (e *stopError) Unwrap() error { return e.error }

// events reads a stream of server-sent events to its end. alive is called for
// all that comes.
func events(from io.Reader, alive func(), each func(Event) error) error {
	lines := bufio.NewScanner(from)
	lines.Buffer(make([]byte, 0, 64<<10), maxLine)
	var e Event
	var data []byte
	for lines.Scan() {
		alive()
		name, value, _ := bytes.Cut(lines.Bytes(), []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		switch string(name) {
		case "event":
			e.Type = string(value)
		case "id":
			e.id = string(value)
		case "data":
			data = append(data, value...)
		}
		if len(lines.Bytes()) > 0 || data == nil {
			continue
		}
		if err := json.Unmarshal(data, &e.Object); err != nil {
			return fmt.Errorf("read event %s: %w", e.id, err)
		}
		if err := each(e); err != nil {
			return &stopError{err}
		}
		e, data = Event{}, nil
	}
	if err := lines.Err(); err != nil {
		return err
	}
	return io.ErrUnexpectedEOF
}

// Follower tells of the documents of a kind and all that becomes of them, over
// broken connections and restarts of the console.
type Follower struct {
	Client *Client
	Of     Ref // with a name only that one
	// Each is told of each document that there is, as added, and then of changes.
	Each func(Event) error
	// Note is told why the console is asked anew.
	Note func(why error)
	// Pause waits before another attempt; nil: at random, up to half a minute.
	Pause func(ctx context.Context, attempt int)

	known map[string]api.Object
	at    string
}

// Run follows until the context ends, Each fails, or the console refuses.
func (f *Follower) Run(ctx context.Context) error {
	pause := f.Pause
	if pause == nil {
		pause = wait
	}
	f.known = map[string]api.Object{}
	err := f.list(ctx)
	if err != nil {
		return err
	}
	for attempt := 0; ; attempt++ {
		before := f.at
		if err == nil {
			f.at, err = f.Client.watch(ctx, f.Of, f.at, f.change)
		}
		if f.at != before {
			attempt = 0
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if over(err) {
			return err
		}
		f.Note(err)
		pause(ctx, attempt)
		if !Is(err, http.StatusGone) {
			err = nil
			continue
		}
		err = f.list(ctx) // the console no longer knows what came in between
	}
}

// over tells whether there is no use in asking again.
func over(err error) bool {
	var stopped *stopError
	var said *Error
	switch {
	case errors.As(err, &stopped), errors.Is(err, ErrTrust):
		return true
	case errors.As(err, &said):
		return said.Code < 500 && said.Code != http.StatusGone && said.Code != http.StatusTooManyRequests
	}
	return false
}

// wait waits at random, up to a second at first and up to half a minute later.
func wait(ctx context.Context, attempt int) {
	timer := time.NewTimer(rand.N(min(time.Second<<min(attempt, 5), 30*time.Second)) + 100*time.Millisecond)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

func identity(o api.Object) string { return o.Metadata.Namespace + "/" + o.Metadata.Name }

// list asks for all that there is, and tells of what is new in it.
func (f *Follower) list(ctx context.Context) error {
	all, err := f.Client.List(ctx, f.Of)
	if err != nil {
		return err
	}
	f.at = all.Metadata.ResourceVersion
	now := map[string]bool{}
	for _, o := range all.Items {
		now[identity(o)] = true
		old, there := f.known[identity(o)]
		kind := store.Added
		if there {
			kind = store.Modified
		}
		if there && old.Metadata.ResourceVersion == o.Metadata.ResourceVersion {
			continue
		}
		if err := f.change(Event{Type: kind, Object: o}); err != nil {
			return &stopError{err}
		}
	}
	for key, old := range f.known {
		if now[key] {
			continue
		}
		if err := f.change(Event{Type: store.Deleted, Object: old}); err != nil {
			return &stopError{err}
		}
	}
	return nil
}

func (f *Follower) change(e Event) error {
	if f.Of.Name != "" && e.Object.Metadata.Name != f.Of.Name {
		return nil
	}
	if e.Type == store.Deleted {
		delete(f.known, identity(e.Object))
	} else {
		f.known[identity(e.Object)] = e.Object
	}
	return f.Each(e)
}
