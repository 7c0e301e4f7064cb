package agents

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"davit.dev/davit/internal/console/store"
	"davit.dev/davit/internal/uplink"
)

// askFor asks the site for the runs and restores that people asked for, if its agent
// can begin them. The stream has ended when wait returns.
func (t *talk) askFor(ctx context.Context, end func()) (wait func()) {
	if t.hello.Runs == "" && t.hello.Restores == "" {
		return func() {}
	}
	stop := atEnd(ctx, func() { _ = t.control.SetWriteDeadline(time.Unix(1, 0)) })
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := t.asking(ctx); err != nil && ctx.Err() == nil {
			t.server.Log.Warn("a site could not be asked for what people want", "project", t.project.Name, "site", t.who.Site, "err", err)
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
		frames, err := t.wanted(ctx, asked)
		if err != nil {
			return err
		}
		for _, f := range frames {
			if err := t.settle(ctx); err != nil {
				return err
			}
			if err := t.command(f); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

// wanted is what has no answer and was not asked for in this stream.
func (t *talk) wanted(ctx context.Context, asked map[string]bool) (frames []uplink.Down, err error) {
	now := t.server.Now()
	if t.hello.Runs != "" {
		all, err := t.project.Unanswered(ctx, t.who.Site, now)
		if err != nil {
			return nil, err
		}
		for _, r := range all {
			var b uplink.Begin
			if err := json.Unmarshal(r.Body, &b); err != nil {
				return nil, fmt.Errorf("read request %s: %w", r.ID, err)
			}
			b.ID, b.Run, b.Plan, b.Until = r.ID, r.Run, r.Plan, r.Until
			if !r.Open(now) && now.Before(b.Until) { // asked for by a clock that was ahead
				b.Until = now.UTC()
			}
			if !asked[r.ID] {
				frames = append(frames, uplink.Down{Begin: &b})
			}
			asked[r.ID] = true
		}
	}
	if t.hello.Restores == "" {
		return frames, nil
	}
	all, err := t.project.Unrestored(ctx, t.who.Site, now)
	left := map[bool]int{false: uplink.MostRestores, true: uplink.MostDryRuns}
	for _, r := range all {
		if asked["restore "+r.ID] {
			left[r.Dry]--
		}
	}
	for _, r := range all {
		var o uplink.Restore
		if err := json.Unmarshal(r.Body, &o); err != nil {
			return nil, fmt.Errorf("read restore %s: %w", r.ID, err)
		}
		back := "cancel " + r.ID
		switch {
		case o.Cancel && (!t.hello.Cancels || asked[back]), !o.Cancel && asked["restore "+r.ID]: // an agent that cannot take it back is not asked at all
			continue
		case !asked["restore "+r.ID]:
			if left[r.Dry]--; left[r.Dry] < 0 { // when another is over
				continue
			}
		}
		asked[back], o.Begun = o.Cancel, r.State == uplink.Running
		o.ID, o.Name, o.Application, o.Point, o.DryRun, o.Until = r.ID, r.Name, r.Application, r.Point, r.Dry, r.Until
		if r.State == "" && !r.Open(now) && now.Before(o.Until) {
			o.Until = now.UTC()
		}
		frames, asked["restore "+r.ID] = append(frames, uplink.Down{Restore: &o}), true
	}
	return frames, err
}

// mostJump is how far the clock may have gone other than time did: that much later or sooner a
// run may be begun.
const mostJump = 5 * time.Second

// errJumped ends a stream whose agent was told what time it is before the clock jumped: by that
// it judges what is too late, and would begin nothing for as long as the clock went back.
var errJumped = errors.New("the clock of this console has jumped: the agent is to call again, and be told what time it is")

// command says a frame in the name of the epoch that this console has now.
func (t *talk) command(f uplink.Down) error {
	speaks := t.server.Speaks()
	if !speaks.Active {
		return errNotActive
	}
	if now := t.server.Now(); (f.Begin != nil || f.Restore != nil) && (now.Round(0).Sub(t.said.Round(0))-now.Sub(t.said)).Abs() > mostJump {
		return errJumped // the wall's clock, without what a steady one says
	}
	if f.Begin != nil {
		f.Begin.Epoch = speaks.Epoch
	}
	if f.Restore != nil {
		f.Restore.Epoch = speaks.Epoch
	}
	return t.say(f)
}

// ran takes what an agent says of a run. It is kept if the site was asked for that.
func (t *talk) ran(b uplink.Begun) error {
	if b.State != uplink.Created && b.State != uplink.Refused {
		return fmt.Errorf("%w: what became of a run cannot be %.32q", uplink.ErrFrame, b.State)
	}
	t.begun = append(t.begun, store.Answer{ID: b.ID, State: b.State, Why: clip(b.Why), Do: clip(b.Do)})
	return nil
}

// restored takes what an agent says of a restore. It is kept if the site was asked
// for that.
func (t *talk) restored(r uplink.Restored) error {
	if _, known := uplink.RestoreOver(r.State); !known {
		return fmt.Errorf("%w: what became of a restore cannot be %.32q", uplink.ErrFrame, r.State)
	}
	if len(r.Result) > uplink.MaxResult {
		return fmt.Errorf("%w: what a restore does has more than %d bytes", uplink.ErrFrame, uplink.MaxResult)
	}
	var into any = &uplink.Outcome{}
	if r.State == uplink.Planned {
		into = &uplink.Preview{}
	}
	if len(r.Result) > 0 && json.Unmarshal(r.Result, into) != nil { // whoever reads it later could not
		return fmt.Errorf("%w: what a restore does cannot be read", uplink.ErrFrame)
	}
	r.Why, r.Do = clip(r.Why), clip(r.Do)
	t.back = append(t.back, r)
	return nil
}
