package warden

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"syscall"
	"time"

	"davit.dev/davit/internal/containers"
	"davit.dev/davit/internal/fence"
)

// blind is what was done while the runtime was silent.
type blind struct {
	asked map[string]time.Duration // sandboxes whose processes were asked to end, and when
	ended time.Duration            // when processes were last signalled
}

// answer is what the runtime says of all that runs here.
type answer struct {
	pods []containers.Sandbox
	live []containers.Container
	err  error
}

// ask asks the runtime what runs here. One that is dead, or says nothing for a second, keeps no fence
// waiting: its containers run on without it, and they are cut off by what it said last. That goes into the
// status only if there is no answer in the end.
func (w *Warden) ask(ctx context.Context, st *Status) ([]containers.Sandbox, []containers.Container, error) {
	done := make(chan answer, 1)
	go func() {
		var a answer
		if a.pods, a.err = w.opts.Runtime.Sandboxes(ctx); a.err == nil {
			a.live, a.err = w.opts.Runtime.Live(ctx)
		}
		done <- a
	}()
	tick := time.NewTicker(silentAfter)
	defer tick.Stop()
	for {
		select {
		case a := <-done:
			if a.err != nil {
				maps.Copy(st.Applications, w.closeBlind())
			} else {
				w.blind = blind{}
			}
			return a.pods, a.live, a.err
		case <-tick.C:
			w.closeBlind()
		}
	}
}

// closeBlind cuts off what was last seen of the applications that may not run here now, and ends its
// processes. Nothing of it is proof: each pod counts as running until the runtime says otherwise. Nor is
// anything let go.
func (w *Warden) closeBlind() map[string]Held {
	held := map[string]Held{}
	now := w.opts.Now()
	fenced := w.record.Fenced(w.opts.Store.LoadLeases(), now)
	if w.opts.Last == nil || len(fenced) == 0 {
		w.blind = blind{}
		return held
	}
	for name, why := range fenced {
		held[name] = Held{Reason: why}
	}
	pods := w.opts.Last.last()
	stopped := fence.Judge(w.scene.fencing(fenced), w.scene.objects(pods), w.scene.world.Namespaces)
	// Where the network of a pod is not known, the silent one is asked: once, and not for long.
	ctx, cancel := context.WithTimeout(context.Background(), silentAfter/2)
	defer cancel()
	var theirs []containers.Sandbox
	for _, p := range pods {
		app, covered := stopped[p.UID]
		if !covered || !p.Ready {
			continue
		}
		h := held[app]
		h.Pods++
		h.Running++
		if w.lifted(app) {
			h.Open++
		} else {
			theirs = append(theirs, p)
			if err := w.close(ctx, now, p); err != nil {
				h.Open++
				h.Problem = fmt.Sprintf("pod %s/%s: %v", p.Namespace, p.Name, err)
			}
		}
		held[app] = h
	}
	w.trouble("end processes", w.end(now, theirs))
	return held
}

// end ends the processes of pods whose runtime is silent: it asks them first, and kills them when the grace
// is over, which began when the runtime did not answer.
func (w *Warden) end(now time.Duration, pods []containers.Sandbox) error {
	if w.opts.End == nil {
		return nil
	}
	var ask, kill []containers.Sandbox
	again := now-w.blind.ended >= silentAfter // each time all processes of the node are looked at
	for _, p := range pods {
		asked, known := w.blind.asked[p.ID]
		switch {
		case !known:
			ask = append(ask, p)
		case again && now-asked >= w.opts.Grace-silentAfter:
			kill = append(kill, p)
		}
	}
	var errs []error
	for signal, pods := range map[syscall.Signal][]containers.Sandbox{syscall.SIGTERM: ask, syscall.SIGKILL: kill} {
		if len(pods) == 0 {
			continue
		}
		errs = append(errs, w.opts.End(pods, signal))
		w.blind.ended = now
		for _, p := range pods {
			if signal == syscall.SIGTERM {
				if w.blind.asked == nil {
					w.blind.asked = map[string]time.Duration{}
				}
				w.blind.asked[p.ID] = now
				w.opts.Log.Warn("the container runtime is silent: asked the processes of a pod that may not run to end", "namespace", p.Namespace, "pod", p.Name)
			}
		}
	}
	return errors.Join(errs...)
}
