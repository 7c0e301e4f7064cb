package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"davit.dev/davit/internal/console/account"
	"davit.dev/davit/internal/console/document"
)

// patience is how long a watcher may take to read what is sent to him.
const patience = 30 * time.Second

// watch sends changes of a kind as server-sent events: "event" is what
// happened, "id" the resourceVersion to go on from, "data" the object. Without
// a resourceVersion it begins now. The watcher is asked for his rights again
// before every look.
func (c *call) watch(k *document.Kind) error {
	from := c.r.Header.Get("Last-Event-ID")
	if from == "" {
		from = c.query("resourceVersion")
	}
	after, err := revision(from)
	if err != nil {
		return err
	}
	if from == "" {
		if _, after, err = c.project.Documents(c.ctx(), k.Name, "-"); err != nil {
			return err
		}
	}
	changed := c.project.Changed()
	if _, _, err := c.project.Changes(c.ctx(), k.Name, after); err != nil { // while it can still be said
		return err
	}
	leave, err := c.Door.Stream(c.who)
	if err != nil {
		return err
	}
	defer leave()
	stream := stream{c.w, http.NewResponseController(c.w)}
	if err := stream.does.SetReadDeadline(time.Time{}); err != nil { // a watch outlives the time that a request may take to arrive
		return err
	}
	c.w.Header().Set("Content-Type", "text/event-stream")
	c.w.Header().Set("Cache-Control", "no-store")
	c.w.WriteHeader(http.StatusOK)
	timer := time.NewTicker(c.Beat)
	defer timer.Stop()
	for {
		if after, err = c.sendChanges(k, stream, after); err != nil {
			c.Log.Debug("a watch ended", "who", c.who.Name, "err", err)
			return nil
		}
		select {
		case <-c.ctx().Done():
			return nil
		case <-c.Done:
			return nil
		case <-changed:
		case <-timer.C:
		}
		changed = c.project.Changed()
	}
}

// sendChanges sends what came after a revision, and a line that says that the
// console lives.
func (c *call) sendChanges(k *document.Kind, to stream, after int64) (int64, error) {
	all, next, err := c.project.Changes(c.ctx(), k.Name, after)
	if err != nil {
		return after, err
	}
	// After they were read: what came when the right was gone is not sent.
	if err := c.authorize(account.Read); err != nil {
		return after, err
	}
	namespace := c.query("namespace")
	text := []byte(": lives\n\n")
	for _, change := range all {
		if namespace != "" && change.Document.Namespace != namespace {
			continue
		}
		o, err := object(change.Document)
		if err != nil {
			return after, err
		}
		data, err := json.Marshal(o)
		if err != nil {
			return after, err
		}
		text = fmt.Appendf(text, "event: %s\nid: %d\ndata: %s\n\n", change.Type, change.Revision, data)
	}
	return next, to.send(text)
}

type stream struct {
	w    http.ResponseWriter
	does *http.ResponseController
}

func (s stream) send(text []byte) error {
	if err := s.does.SetWriteDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := s.w.Write(text); err != nil {
		return err
	}
	return s.does.Flush()
}
