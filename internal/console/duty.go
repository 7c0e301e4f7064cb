package console

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"davit.dev/davit/internal/console/account"
	"davit.dev/davit/internal/console/lead"
	"davit.dev/davit/internal/console/store"
)

// Names in the console's directory, beside the databases.
const (
	// passiveFile is there while this console has followed another: it is not
	// served before the vault says that it may be.
	passiveFile = "passive"
	// holderFile is by what this directory's claims are known.
	holderFile = "holder"
)

// errLost says that a database was lost while it was open. What holds it cannot go
// on with it; another console that follows takes over at once.
var errLost = errors.New("a database of the console is damaged or gone")

// riseLimit is how long one step waits for the databases to be taken over; it
// goes on in between.
const riseLimit = 3 * time.Second

// duty decides whether this process is the active console, and has it be that.
type duty struct {
	Options
	console *store.Console
	member  *lead.Member
	shelves *shelves
	now     atomic.Pointer[server]
	base    context.Context //nolint:containedctx // what serves ends after the listener

	// Of the goroutine that steps:
	serving bool  // now answers, be it for reading only
	epoch   int64 // in which it serves; 0: in none, until the vault answers
	stepErr error
	// lost is told why a database that is open is none any more.
	lost chan error

	mu    sync.Mutex
	term  *term // that is being taken over, or in which it serves
	trail *trail
}

func newDuty(o Options, c *store.Console) (*duty, error) {
	holder, err := holder(o.Dir)
	if err != nil {
		return nil, err
	}
	d := &duty{Options: o, console: c, shelves: newShelves(o, c), lost: make(chan error, 1)}
	begun := time.Now()
	d.member = lead.New(lead.Options{
		Ledger: ledger{d.shelves}, Holder: holder, URL: o.URL, Steady: func() time.Duration { return time.Since(begun) }, Now: o.Now, Rise: d.rise,
	})
	return d, nil
}

// holder reads the name of this directory's claims, or makes it.
func holder(dir string) (string, error) {
	path := filepath.Join(dir, holderFile)
	text, err := os.ReadFile(path)
	if err == nil && len(strings.TrimSpace(string(text))) > 0 {
		return strings.TrimSpace(string(text)), nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("read name of the console's directory: %w", err)
	}
	id, err := account.NewID()
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(path, []byte(id+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("write name of the console's directory: %w", err)
	}
	return id, nil
}

// markPassive notes whether the console in a directory follows another.
func markPassive(dir string, passive bool) error {
	path := filepath.Join(dir, passiveFile)
	if passive {
		return os.WriteFile(path, []byte("This console follows another. What is changed here by commands is lost.\n"), 0o600)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Passive tells whether the console in a directory follows another.
func Passive(dir string) bool {
	_, err := os.Lstat(filepath.Join(dir, passiveFile))
	return err == nil
}

func (d *duty) status() lead.Status {
	if d == nil { // a console that is not served, in tests
		return lead.Status{Role: lead.Active, Epoch: 1}
	}
	return d.member.Status()
}

// allowed says why nothing may be decided now.
func (d *duty) allowed() error {
	switch st := d.status(); {
	case st.Role == lead.Active:
		return nil
	case st.Role == lead.Silent:
		return fmt.Errorf("%w: its first project's vault has not answered for %s, so another may have taken over: nothing is changed until it does", store.ErrPassive, lead.Lease)
	case st.URL != "":
		return fmt.Errorf("%w: the active one is at %s", store.ErrPassive, st.URL)
	}
	return fmt.Errorf("%w: which one is, the vault has not said yet", store.ErrPassive)
}

func (d *duty) health() (code int, text string) {
	if err := d.allowed(); err != nil {
		return http.StatusServiceUnavailable, err.Error() + "\n"
	}
	return http.StatusOK, fmt.Sprintf("active, epoch %d\n", d.status().Epoch)
}

// tls is of the process, not of what it is now.
func (d *duty) tls(ctx context.Context) (*tls.Config, error) {
	s := newServer(d.Options, d.console)
	s.duty = d
	return s.tls(ctx)
}

// run serves until the context ends, and returns when nothing of it runs any more.
func (d *duty) run(ctx context.Context, listener net.Listener) error {
	var cancel func()
	d.base, cancel = context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	if Passive(d.Dir) {
		d.wait()
	} else {
		d.serve(nil)
	}
	web := &http.Server{
		Handler:           http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { d.now.Load().web.ServeHTTP(w, r) }),
		ReadHeaderTimeout: 10 * time.Second, ReadTimeout: arrival, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
		ErrorLog: slog.NewLogLogger(d.Log.Handler(), slog.LevelDebug),
	}
	var running sync.WaitGroup
	steps, stop := context.WithCancel(ctx)
	running.Go(func() {
		d.steps(steps, func() {
			if d.Ready != nil {
				d.Ready(listener.Addr().String())
			}
		})
	})
	running.Go(func() { d.watch(steps) })
	ended := make(chan error, 1)
	go func() { ended <- web.Serve(listener) }()
	var err error
	select {
	case err = <-ended:
		err = fmt.Errorf("serve: %w", err)
	case err = <-d.lost:
		err = fmt.Errorf("%w: %w", errLost, err)
	case <-ctx.Done():
	}
	stop()
	running.Wait()
	return errors.Join(err, d.close(web))
}

// close ends what serves, sends what waits, and lets another take over.
func (d *duty) close(web *http.Server) error {
	last, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	d.now.Load().stop() // streams and watches end, so that the web server may
	err := web.Shutdown(last)
	if err != nil {
		err = web.Close() // who is still there was told to end
	}
	d.leave()
	if endErr := d.member.End(last); endErr != nil {
		d.Log.Warn("the next console has to wait until it may take over", "err", endErr)
	}
	return err
}

// steps takes a step from time to time. first is called after the first.
func (d *duty) steps(ctx context.Context, first func()) {
	ticker := time.NewTicker(cmp.Or(d.Options.step, lead.Every))
	defer ticker.Stop()
	for begun := false; ; begun = true {
		d.step(ctx)
		if !begun {
			first()
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// watch looks from time to time whether a database that is open is one still. Where a
// damage was found all of the file is read: the lease does not wait for that.
func (d *duty) watch(ctx context.Context) {
	look := d.Options.lost
	if look == nil {
		look = func(ctx context.Context, c *store.Console) error { return c.Lost(ctx) }
	}
	ticker := time.NewTicker(cmp.Or(d.Options.step, lead.Every))
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if err := look(ctx, d.console); err != nil && ctx.Err() == nil {
			d.lost <- err
			return
		}
	}
}

func (d *duty) step(ctx context.Context) {
	limited, cancel := context.WithTimeout(ctx, lead.Lease)
	defer cancel()
	err := d.member.Step(limited)
	d.note(ctx, err)
	st := d.member.Status()
	switch {
	case err == nil && st.Role == lead.Passive && (d.serving || d.trail == nil):
		d.leave()
		d.wait()
	case err != nil && st.Role == lead.Passive && d.epoch != 0: // it was told so in between
		d.leave()
		d.wait()
	}
}

// note says once what is wrong.
func (d *duty) note(ctx context.Context, err error) {
	if err != nil && ctx.Err() == nil && d.stepErr == nil {
		d.Log.Warn("who is the active console cannot be decided", "err", err)
	}
	if err == nil && d.stepErr != nil {
		d.Log.Info("who is the active console is decided again")
	}
	d.stepErr = err
}

// rise makes this process the active console: it has all that the vault holds
// before anybody is told.
func (d *duty) rise(ctx context.Context, epoch int64) error {
	if d.term == nil || d.term.Epoch != epoch {
		d.leave()
		d.Log.Info("this console takes over", "epoch", epoch)
		d.answerPassive()
		t := newTerm(d, epoch)
		d.mu.Lock()
		d.term = t
		d.mu.Unlock()
	}
	select {
	case <-d.term.ready:
	case <-time.After(riseLimit):
		return errors.Join(errors.New("the databases are still being taken over"), d.term.own.Fault())
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := markPassive(d.Dir, false); err != nil {
		return err
	}
	d.serve(d.term)
	d.Log.Info("this console is the active one", "epoch", epoch)
	return nil
}

// leave ends what this process is.
func (d *duty) leave() {
	if s := d.now.Load(); s != nil {
		s.end()
	}
	d.mu.Lock()
	trail, term := d.trail, d.term
	d.trail, d.term = nil, nil
	d.mu.Unlock()
	if trail != nil {
		trail.end()
	}
	if term != nil {
		term.end()
	}
	d.serving, d.epoch = false, 0
}

// left ends what goes on in this term for a project that was removed.
func (d *duty) left(id string) {
	d.mu.Lock()
	t := d.term
	d.mu.Unlock()
	if t != nil {
		t.leave(id)
	}
}

// serve has the console answer: in a term, or, without one, for reading alone.
func (d *duty) serve(t *term) {
	if s := d.now.Load(); s != nil {
		s.end()
	}
	s := newServer(d.Options, d.console)
	s.duty = d
	d.serving, d.epoch = true, 0
	if t == nil {
		s.Backup = 0
		d.console.Guards(func(*store.Project) store.Guard { return refusing{d} })
	} else {
		d.epoch = t.Epoch
		s.keeper.Confirm = t.confirm
	}
	s.begin(d.base)
	d.now.Store(s)
}

// answerPassive has the console send everybody elsewhere.
func (d *duty) answerPassive() {
	if s := d.now.Load(); s != nil {
		s.end()
	}
	s := newServer(d.Options, d.console)
	s.duty = d
	s.beginPassive(d.base)
	d.now.Store(s)
}

// wait has the console follow another.
func (d *duty) wait() {
	if err := markPassive(d.Dir, true); err != nil {
		d.Log.Error("that this console follows another cannot be noted", "err", err)
	}
	d.console.Guards(func(*store.Project) store.Guard { return refusing{d} })
	d.answerPassive()
	t := newTrail(d)
	d.mu.Lock()
	d.trail = t
	d.mu.Unlock()
	st := d.member.Status()
	d.Log.Info("this console is passive", "epoch", st.Epoch, "active", st.URL)
}

// refusing is the guard of files that nothing is decided in.
type refusing struct{ d *duty }

func (r refusing) Ready() error {
	if err := r.d.allowed(); err != nil {
		return err
	}
	return fmt.Errorf("%w: it is taking over", store.ErrPassive)
}

func (refusing) Wake()                                {}
func (r refusing) Await(context.Context, int64) error { return r.Ready() }

var _ store.Guard = refusing{}
