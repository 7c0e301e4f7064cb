package agents

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"davit.dev/davit/internal/console/store"
	"davit.dev/davit/internal/uplink"
)

// askFor asks the site for the runs that people asked for, to an agent that can
// begin them. The stream has ended when wait returns.
func (t *talk) askFor(ctx context.Context, end func()) (wait func()) {
	if t.hello.Runs == "" {
		return func() {}
	}
	stop := atEnd(ctx, func() { _ = t.control.SetWriteDeadline(time.Unix(1, 0)) })
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := t.asking(ctx); err != nil && ctx.Err() == nil {
			t.server.Log.Warn("a site could not be asked for runs", "project", t.project.Name, "site", t.who.Site, "err", err)
		}
		end()
	}()
	return func() {
		end()
		<-ended
		stop()
	}
}

// asking asks in each stream once for all that has no answer. What another console
// may never come to know is no command.
func (t *talk) asking(ctx context.Context) error {
	asked := map[string]bool{}
	for {
		changed := t.project.Changed()
		all, err := t.project.Unanswered(ctx, t.who.Site, t.server.Now())
		if err != nil {
			return err
		}
		for _, r := range all {
			if asked[r.ID] {
				continue
			}
			if err := t.settle(ctx); err != nil {
				return err
			}
			if err := t.ask(r); err != nil {
				return err
			}
			asked[r.ID] = true
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

func (t *talk) ask(r store.Request) error {
	speaks := t.server.Speaks()
	if !speaks.Active {
		return errNotActive
	}
	var b uplink.Begin
	if err := json.Unmarshal(r.Body, &b); err != nil {
		return fmt.Errorf("read request %s: %w", r.ID, err)
	}
	b.Epoch, b.ID, b.Run, b.Plan, b.Until = speaks.Epoch, r.ID, r.Run, r.Plan, r.Until
	return t.say(uplink.Down{Begin: &b})
}

// ran takes what an agent says of a run. It is kept if the site was asked for that.
func (t *talk) ran(b uplink.Begun) error {
	if b.State != uplink.Created && b.State != uplink.Refused {
		return fmt.Errorf("%w: what became of a run cannot be %.32q", uplink.ErrFrame, b.State)
	}
	t.begun = append(t.begun, store.Answer{ID: b.ID, State: b.State, Why: clip(b.Why), Do: clip(b.Do)})
	return nil
}
