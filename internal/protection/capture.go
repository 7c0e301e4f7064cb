package protection

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/capture"
	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/version"
)

const (
	touchEvery     = time.Minute     // well within any age that vault.Project.Sweep is given
	cleanupTimeout = 2 * time.Minute // for taking back what a failed capture wrote
	publishTries   = 3
)

// CaptureRequest asks for one recovery point.
type CaptureRequest struct {
	Application v1alpha1.Application
	// PointID names the point; empty means a new one. See point.NewID.
	PointID string
	// Trigger is "schedule" or "manual".
	Trigger string
	// Held is the epoch this site holds; see Standing.
	Held int64
	// Diverged captures what a superseded site still has. Nothing is taken for
	// the application's present state: an epoch above Held is there, so that the
	// point is quarantined from the start.
	Diverged bool
	// ChangedBlocks has drivers asked what was changed, and cuts kept for the next capture; see KeepsCuts.
	ChangedBlocks bool
	// Distrusted are volumes, by namespace/claim, whose storage was found to lie by captures that
	// failed, and what was found; see LiedError.
	Distrusted map[string]string
	// Progress is told, in words, what is being done. It may be nil, and may
	// be called from several goroutines.
	Progress func(step string)
	// Objects, unless nil, is told when the point's objects begin to be written, and when all are: until then they
	// take memory here.
	Objects func(writing bool)
}

// NewPointID names a recovery point of the application, now.
func (p *Protector) NewPointID(app string) (string, error) {
	return point.NewID(app, p.now(), rand.Reader)
}

// Capture makes a recovery point and returns its manifest once it is visible.
// After an error nothing is visible, and what was written is taken back.
//
// lease.ErrSuperseded says that another site holds the application now;
// ErrBusy that a capture of it runs already; LiedError what was found of a volume's storage before it failed; ErrRestoring that it is not whole
// here yet; lease.ErrNameTaken that another cluster bears this site's name; ErrInvalid and ErrFailureDomain
// that a person must change something first.
func (p *Protector) Capture(ctx context.Context, req CaptureRequest) (*point.Manifest, error) {
	app := req.Application.VaultName()
	m, err := p.capture(ctx, app, req)
	if err != nil {
		return nil, fmt.Errorf("capture %s: %w", app, err)
	}
	return m, nil
}

func (p *Protector) capture(ctx context.Context, app string, req CaptureRequest) (*point.Manifest, error) {
	if err := p.Preflight(&req.Application); err != nil {
		return nil, err
	}
	if err := Restoring(&req.Application); err != nil && !req.Diverged {
		return nil, err
	}
	if err := p.CheckName(ctx); err != nil {
		return nil, err
	}
	spec, err := specOf(&req.Application)
	if err != nil {
		return nil, err
	}
	done, err := p.begin(app)
	if err != nil {
		return nil, err
	}
	defer done()
	if err := p.permits(ctx, app, req); err != nil {
		return nil, err
	}
	if spec.ID = req.PointID; spec.ID == "" {
		if spec.ID, err = p.NewPointID(app); err != nil {
			return nil, err
		}
	}
	if spec.Previous, err = p.previous(ctx, app); err != nil {
		return nil, err
	}
	spec.Previous = distrust(spec.Previous, req.Distrusted)
	spec.ChangedBlocks = req.ChangedBlocks && !req.Diverged && !p.crowded(app) // nothing is taken after one that diverged
	return p.write(ctx, spec, req)
}

// permits says whether the point may be made: by the site that holds the epoch or,
// of what has diverged, by one that holds it no more.
func (p *Protector) permits(ctx context.Context, app string, req CaptureRequest) error {
	if !req.Diverged {
		return p.guard(ctx, app, req.Held)
	}
	current, err := p.epochs.Current(ctx, app)
	if err != nil {
		return err
	}
	if req.Held <= 0 || current.Number <= req.Held {
		return fmt.Errorf("%w: nothing of %s has diverged: this site holds epoch %d, and the newest is %d", ErrInvalid, app, req.Held, current.Number)
	}
	return nil
}

// begin makes sure that one capture of an application runs at a time.
func (p *Protector) begin(app string) (done func(), err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.busy[app] {
		return nil, ErrBusy
	}
	p.busy[app] = true
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.busy, app)
	}, nil
}

// write captures into a new writer and publishes, or takes all of it back.
func (p *Protector) write(ctx context.Context, spec capture.Spec, req CaptureRequest) (*point.Manifest, error) {
	started := p.now()
	w, err := p.opts.Project.NewWriter(ctx, spec.Application, spec.ID)
	if err != nil {
		return nil, err
	}
	stop := p.keepTouching(ctx, w)
	m, stored, err := p.fill(ctx, w, spec, req, started.UTC())
	stop()
	if err == nil {
		stillDistrusted(m, spec, &req.Application)
		p.date(ctx, spec.Application, m, p.now().Sub(started)) // not of UTC: that would forget the clock that nobody sets
		err = p.publish(ctx, w, m, req)
	}
	defer func() { p.letGo(ctx, spec, err) }() // last: nothing waits for it
	if err == nil {
		p.remember(m)
		return m, nil
	}
	if lied := LiesOf(stored); len(lied) > 0 {
		p.rememberLies(spec, lied)
		err = &LiedError{Volumes: lied, Err: err}
	}
	cleanup, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
	defer cancel()
	stored = slices.DeleteFunc(stored, func(v point.Volume) bool { return v.Snapshot.ID == "" })
	if aborted := p.abort(cleanup, w, spec.Application, req.Held); aborted != nil {
		return nil, errors.Join(err, fmt.Errorf("take back what was written (it will be swept later): %w", aborted))
	}
	if len(stored) == 0 || p.guard(cleanup, spec.Application, req.Held) != nil { // a superseded site leaves the vault alone
		return nil, err
	}
	if stays := p.forgetVolumes(cleanup, &point.Manifest{Volumes: stored}, p.opts.OpenVolumes); stays != nil { // the reserve is for points that go
		err = errors.Join(err, fmt.Errorf("let go of what was stored of volumes, whose space stays taken: %w", stays))
	}
	return nil, err
}

// abort takes back what a failed capture wrote. A point that may be visible is
// taken back only by the site that still holds the epoch: the site that
// superseded it may have accepted the point and be restoring it.
func (p *Protector) abort(ctx context.Context, w *vault.PointWriter, app string, held int64) error {
	visible, err := w.Visible(ctx)
	if err != nil {
		return err
	}
	if visible {
		if err := p.guard(ctx, app, held); err != nil {
			return err
		}
	}
	return w.Abort(ctx)
}

// keepTouching says that the capture lives, until stop is called.
func (p *Protector) keepTouching(ctx context.Context, w *vault.PointWriter) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(touchEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				if err := w.Touch(ctx); err != nil && ctx.Err() == nil {
					p.log.Warn("touch recovery point", "error", err) // Publish finds out whether it mattered
				}
			}
		}
	})
	return func() { cancel(); wg.Wait() }
}

// fill runs the engine and makes the manifest. What it stored of volumes is returned with an
// error too: no point will name it, and nothing but its deletion frees the space.
func (p *Protector) fill(ctx context.Context, w *vault.PointWriter, spec capture.Spec, req CaptureRequest, started time.Time) (*point.Manifest, []point.Volume, error) {
	step(req, "reading the cluster's version")
	kube, err := p.opts.Cluster.Version(ctx)
	if err != nil {
		return nil, nil, err
	}
	opts := p.opts.Capture
	opts.Now, opts.Logger, opts.Progress = p.now, p.log, req.Progress
	ports := capture.Ports{Cluster: p.opts.Cluster, Volumes: p.opts.Volumes, Hooks: p.opts.Hooks, Ledger: p.opts.Ledger, Freezer: p.opts.Freezer, Sink: &sink{w: w, tell: req.Objects}}
	res, err := capture.Run(ctx, spec, ports, opts)
	if err == nil {
		err = w.Log(ctx, logEntries(res.Log))
	}
	if err != nil {
		return nil, res.Volumes, err
	}
	m := &point.Manifest{
		Site: p.opts.Site, Epoch: req.Held, Trigger: req.Trigger, StartedAt: started,
		Instant: res.Instant, CutBy: res.CutBy, FinishedAt: p.now().UTC(), Consistency: res.Consistency, Freeze: res.Freeze, Quiesce: res.Quiesce,
		KubeVersion: kube, DavitVersion: version.String(), Namespaces: res.Namespaces, Scope: &res.Scope,
		Resources: res.Resources, Volumes: res.Volumes, Images: res.Images, Warnings: res.Warnings,
		Hooks: res.Hooks, Objects: res.Objects, Bytes: res.Bytes, StoredBytes: w.Stored(),
	}
	for _, v := range res.Volumes {
		m.StoredBytes += v.Snapshot.NewBytes
	}
	return m, m.Volumes, nil
}

// publish makes the point visible, guarded by the epoch. An unknown outcome is
// settled by publishing again: the guard is asked each time.
func (p *Protector) publish(ctx context.Context, w *vault.PointWriter, m *point.Manifest, req CaptureRequest) error {
	guard := func(ctx context.Context) error { return p.permits(ctx, m.Application, req) }
	var err error
	for range publishTries {
		if err = w.Publish(ctx, m, guard); !errors.Is(err, vault.ErrUnavailable) {
			return err
		}
		p.log.Warn("publish recovery point: outcome unknown", "point", m.ID, "error", err)
	}
	return err
}

func step(req CaptureRequest, text string) {
	if req.Progress != nil {
		req.Progress(text)
	}
}

// remember keeps the newest snapshots of an application, so that the next
// capture need not look for them in the vault.
func (p *Protector) remember(m *point.Manifest) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.newest == nil {
		p.newest = map[string]map[string]point.Snapshot{}
	}
	p.newest[m.Application] = snapshotsOf(m)
}

// snapshotsOf are those of a point that files may be taken over from. A volume that is not
// settled is read whole instead, once: what is old in it would stay old. Where the files themselves
// were read, not a cut of the disk, none could be older than its time.
func snapshotsOf(m *point.Manifest) map[string]point.Snapshot {
	all := map[string]point.Snapshot{}
	for _, v := range m.Volumes {
		if v.Settled || v.Method == capture.MethodLive {
			all[v.Namespace+"/"+v.Claim] = v.Snapshot
		}
	}
	return all
}

// previous returns the snapshots of this site's newest point, by claim. It only
// saves work: a point that cannot be read is passed over.
func (p *Protector) previous(ctx context.Context, app string) (map[string]point.Snapshot, error) {
	p.mu.Lock()
	known, ok := p.newest[app]
	p.mu.Unlock()
	if ok {
		return known, nil
	}
	infos, err := p.opts.Listing.Points(ctx, app)
	if err != nil {
		return nil, err
	}
	for i := len(infos) - 1; i >= 0; i-- {
		m := infos[i].Manifest
		if m != nil && infos[i].Err == nil && m.Site == p.opts.Site && !infos[i].Deleting() {
			return snapshotsOf(m), nil
		}
	}
	return nil, nil
}

// sink makes the engine's sink of the vault's writer.
type sink struct {
	w    *vault.PointWriter
	tell func(writing bool) // see CaptureRequest.Objects
	open atomic.Int64       // resources; the engine closes all of them last
}

// Resource implements capture.Sink.
func (s *sink) Resource(res point.Resource) capture.ObjectWriter {
	if s.open.Add(1) == 1 && s.tell != nil {
		s.tell(true)
	}
	return resource{s.w.Resource(res), s}
}

// resource tells its sink when it is closed.
type resource struct {
	capture.ObjectWriter
	s *sink
}

// Close implements capture.ObjectWriter.
func (r resource) Close(ctx context.Context) (point.Resource, error) {
	res, err := r.ObjectWriter.Close(ctx)
	if r.s.open.Add(-1) == 0 && r.s.tell != nil {
		r.s.tell(false)
	}
	return res, err
}

func logEntries(lines []capture.LogLine) []vault.LogEntry {
	entries := make([]vault.LogEntry, 0, len(lines))
	for _, l := range lines {
		entries = append(entries, vault.LogEntry{At: l.At, Level: l.Level, Object: l.Object, Message: l.Message})
	}
	return entries
}
