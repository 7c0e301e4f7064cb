package ui

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"davit.dev/davit/internal/console/account"
	"davit.dev/davit/internal/console/store"
)

// alive says to a page that the console lives: scripts do not see comments.
const alive = "event: beat\ndata: {}\n\n"

// livePage tells a page that the vault was read again, for as long as it is open, and
// every beat that the console lives.
// Whoever may not see the project any more is told nothing more.
func livePage(v *visit) error {
	c := http.NewResponseController(v.w)
	h := v.w.Header()
	h.Set("Content-Type", "text/event-stream")
	beat := time.NewTicker(v.Beat)
	defer beat.Stop()
	say := func(text string) bool {
		// Who does not read keeps nothing busy for ever.
		if err := c.SetWriteDeadline(time.Now().Add(2 * v.Beat)); err != nil && !errors.Is(err, http.ErrNotSupported) {
			return false
		}
		_, err := fmt.Fprint(v.w, text)
		return err == nil && c.Flush() == nil
	}
	leave, err := v.Door.Stream(v.who)
	if err != nil { // scripts see no code: the page says it, and asks again in a minute
		say("retry: 60000\n\nevent: full\ndata: {}\n\n")
		return nil
	}
	defer leave()
	round, requests := v.Round(v.project), v.requests()
	if !say("retry: 5000\n\n" + alive) {
		return nil
	}
	for {
		text := alive
		select {
		case <-v.ctx().Done():
			return nil
		case <-v.Done:
			return nil
		case <-round:
			round, text = v.Round(v.project), "event: round\ndata: {}\n\n"
		case <-requests: // what was asked for stands otherwise
			requests, text = v.requests(), "event: round\ndata: {}\n\n"
		case <-beat.C:
		}
		if v.enter(account.Read) != nil || !say(text) {
			return nil
		}
	}
}

// requests is closed when something that was asked for may stand otherwise, for
// pages that show that; for others it is nil.
func (v *visit) requests() <-chan struct{} {
	if !v.r.URL.Query().Has("requests") {
		return nil
	}
	return v.project.Changed()
}

// reportFile hands out a run's signed report, checked once more.
func reportFile(v *visit) error {
	run, kind := v.r.PathValue("name"), v.r.PathValue("kind")
	content, known := map[string]string{"html": "text/html; charset=utf-8", "json": "application/json"}[kind]
	if !known {
		return store.ErrNotFound
	}
	d, err := v.Report.Find(v.ctx(), v.project, run)
	if err != nil {
		return err
	}
	text := d.JSON
	if kind == "html" {
		text = d.HTML
	}
	v.w.Header().Set("Content-Type", content)
	v.w.Header().Set("Content-Disposition", fmt.Sprintf("attachment; filename=%q", run+"."+kind))
	if _, err := fmt.Fprint(v.w, text); err != nil {
		v.Log.Debug("a report was not taken", "err", err)
	}
	return nil
}
