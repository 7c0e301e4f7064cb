// Package freezer holds the file systems of an application's volumes still,
// on all nodes at once, while they are cut. It carries out what
// internal/barrier decides, through VolumeFreeze objects that the node
// processes obey.
package freezer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/internal/barrier"
	"davit.dev/davit/internal/capture"
	"davit.dev/davit/internal/kube/mover"
	"davit.dev/davit/internal/point"
)

const (
	// armLimit bounds the wait until the nodes have flushed and are ready.
	armLimit = 20 * time.Second
	// slack is what messages may take on top of the window.
	slack = 3 * time.Second
	// relook is how often orders are read even when the watch is silent.
	relook = time.Second
	// cleanup bounds what is done after the end, also of the context.
	cleanup = 30 * time.Second
)

// Freezer implements capture.Freezer. It is safe for use by several goroutines.
type Freezer struct {
	client client.WithWatch
	now    func() time.Time
	log    *slog.Logger
}

var _ capture.Freezer = (*Freezer)(nil)

// New makes one. The client reads pods anywhere and owns the VolumeFreezes.
func New(c client.WithWatch, now func() time.Time, log *slog.Logger) *Freezer {
	return &Freezer{client: c, now: now, log: log}
}

// NewForConfig makes one from a client configuration.
func NewForConfig(config *rest.Config, now func() time.Time, log *slog.Logger) (*Freezer, error) {
	c, err := client.NewWithWatch(config, client.Options{Scheme: mover.Scheme()})
	if err != nil {
		return nil, fmt.Errorf("make client of freezer: %w", err)
	}
	return New(c, now, log), nil
}

// Together implements capture.Freezer.
func (f *Freezer) Together(ctx context.Context, req capture.FreezeRequest, cut func(context.Context) error) (point.Freeze, error) {
	before, ended, err := f.used(ctx, req.Plans, nil)
	if err != nil {
		return point.Freeze{}, err
	}
	silent, err := f.silent(ctx, before)
	if err != nil {
		return point.Freeze{}, err
	}
	p := &play{
		f: f, req: req, places: before, silent: silent, cut: cut, events: make(chan barrier.Event),
		coordinator: barrier.NewCoordinator(barrier.Plan{
			Nodes: before.nodes(), Window: req.Window, ArmLimit: armLimit, Slack: slack, Required: req.Required,
		}),
	}
	err = p.run(ctx)
	out := p.coordinator.Outcome()
	got := point.Freeze{Held: out.Held && err == nil, Reason: out.Why, Frozen: out.Frozen, Nodes: len(before), Flushed: before.have(req.Plans)}
	if err != nil || !got.Held {
		return got, err
	}
	after, _, err := f.used(ctx, req.Plans, ended)
	if err != nil {
		return got, err
	}
	if fresh := after.beyond(before); fresh != "" {
		got.Held, got.Reason = false, fresh
	}
	return got, nil
}

// play is one freeze.
type play struct {
	f           *Freezer
	req         capture.FreezeRequest
	places      places
	silent      map[string]string // nodes that cannot hold anything, and why
	cut         func(context.Context) error
	coordinator *barrier.Coordinator
	events      chan barrier.Event

	cutErr error
}

// run feeds the coordinator until it has finished. The orders are removed on
// every way out, and whoever finds none thaws.
func (p *play) run(ctx context.Context) error {
	inside, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var beside sync.WaitGroup
	defer func() {
		cancel()
		beside.Wait()
		p.remove(context.WithoutCancel(ctx))
	}()
	if len(p.places) > 0 {
		beside.Go(func() { p.follow(inside) })
	}
	called := ctx.Done()
	finished := p.do(ctx, inside, &beside, p.coordinator.Step(p.f.now(), barrier.Event{Kind: barrier.Start}))
	for !finished {
		timer := p.timer()
		var e barrier.Event
		select {
		case e = <-p.events:
		case <-called:
			e, called = barrier.Event{Kind: barrier.Cancelled}, nil
		case <-timer.C:
			e = barrier.Event{Kind: barrier.Tick}
		}
		timer.Stop()
		finished = p.do(ctx, inside, &beside, p.coordinator.Step(p.f.now(), e))
	}
	if p.cutErr != nil { // written before CutFailed was told
		return p.cutErr
	}
	return context.Cause(ctx)
}

func (p *play) timer() *time.Timer {
	d := p.coordinator.Deadline()
	if d.IsZero() {
		return time.NewTimer(time.Hour)
	}
	return time.NewTimer(max(0, d.Sub(p.f.now())))
}

// do carries effects out beside the loop, and says whether all is over. Orders
// go out even when ctx has ended.
func (p *play) do(ctx, inside context.Context, beside *sync.WaitGroup, effects []barrier.Effect) bool {
	for _, e := range effects {
		p.f.log.Debug("freeze", "point", p.req.Point, "action", int(e.Action), "node", e.Node)
		switch e.Action {
		case barrier.Finish:
			return true
		case barrier.Cut:
			beside.Go(func() { p.cutAll(ctx, inside) })
		default:
			beside.Go(func() { p.send(inside, e) })
		}
	}
	return false
}

func (p *play) cutAll(ctx, inside context.Context) {
	e := barrier.Event{Kind: barrier.CutsDone}
	if err := p.cut(ctx); err != nil {
		e = barrier.Event{Kind: barrier.CutFailed, Why: err.Error()}
		p.cutErr = err
	}
	p.tell(inside, e)
}

// tell passes an event to the loop.
func (p *play) tell(ctx context.Context, e barrier.Event) {
	select {
	case p.events <- e:
	case <-ctx.Done():
	}
}

// Sweep removes orders of points that are not being captured any more.
func (f *Freezer) Sweep(ctx context.Context, running func(point string) bool) error {
	list, err := f.orders(ctx, nil)
	if err != nil {
		return fmt.Errorf("sweep freezes: %w", err)
	}
	var errs []error
	for i := range list {
		if o := &list[i]; !running(o.Labels[labelPoint]) {
			errs = append(errs, client.IgnoreNotFound(f.client.Delete(ctx, o)))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("sweep freezes: %w", err)
	}
	return nil
}

// nodes are the places' nodes, sorted.
func (p places) nodes() []string {
	var all []string
	for n := range p {
		all = append(all, n)
	}
	slices.Sort(all)
	return all
}
