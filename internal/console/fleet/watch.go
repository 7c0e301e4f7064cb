package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/backend"
	"davit.dev/davit/internal/vault/survey"
)

// BindingSecret is the name under which a console keeps its Binding.
const BindingSecret = "vault"

// Binding is a console's way into its project's vault. It is a secret.
type Binding struct {
	URL          string            `json:"url"`
	AccessKey    string            `json:"accessKey,omitempty"`
	SecretKey    string            `json:"secretKey,omitempty"`
	SessionToken string            `json:"sessionToken,omitempty"`
	CA           []byte            `json:"ca,omitempty"`
	Keyring      map[string][]byte `json:"keyring"` // as vault.Keyring.Secret returns it
}

// OpenStore opens a vault's store; backend.Open is the usual one.
type OpenStore func(ctx context.Context, cfg backend.Config) (vault.Store, error)

// Config is how the vault is called.
func (b Binding) Config() backend.Config {
	return backend.Config{URL: b.URL, AccessKey: b.AccessKey, SecretKey: b.SecretKey, SessionToken: b.SessionToken, CA: b.CA}
}

// Project opens the project, and returns whom it was opened for.
func (b Binding) Project(ctx context.Context, open OpenStore) (*vault.Project, vault.Identity, error) {
	keyring, err := vault.ParseKeyring(b.Keyring)
	if err != nil {
		return nil, vault.Identity{}, err
	}
	store, err := open(ctx, b.Config())
	if err != nil {
		return nil, vault.Identity{}, err
	}
	p, err := keyring.Open(ctx, store)
	return p, keyring.Identity, err
}

// Memory keeps what was known last, over restarts.
type Memory interface {
	Kept(ctx context.Context, name string) (data []byte, at time.Time, err error)
	// Keep keeps by name; empty data forgets.
	Keep(ctx context.Context, at time.Time, all map[string][]byte) error
}

// Known is what a console knows of its project now.
type Known struct {
	Snapshot *Snapshot // nil: nothing yet
	// Fault is why the newest attempt to read the vault failed; empty: it did not.
	Fault string
	Tried time.Time
	// Unread says that the vault has not been read to its end since the console started.
	Unread bool
	// Reading is since when it is being read; zero: it is not now.
	Reading time.Time
	// Agents are those of the sites that were enrolled, by site.
	Agents []Agent
}

// Silent tells whether what is known is old: the vault has not answered since.
func (k Known) Silent() bool { return k.Fault != "" }

// Old says why what is known may be old though the vault does answer; empty: it is not.
func (k Known) Old() string {
	switch {
	case k.Fault != "":
		return ""
	case k.Snapshot != nil && k.Snapshot.Unread > 0:
		return fmt.Sprintf("%d of %d applications have been read so far", len(k.Snapshot.Applications)-k.Snapshot.Unread, len(k.Snapshot.Applications))
	case k.Unread:
		return "the vault has not been read to its end since the console started"
	}
	return ""
}

// Options are what a Watch works with.
type Options struct {
	Open   func(ctx context.Context) (*vault.Project, error)
	Memory Memory
	// Budget bounds what is remembered of vaults' small objects, by all who share it.
	Budget *survey.Budget
	Every  time.Duration // between the end of a round and the next; what a long one has read is shown as often
	Limit  time.Duration // for which the vault may give no answer at all until a round is cut
	Now    func() time.Time
	Log    *slog.Logger
}

// Watch reads a project in the background.
type Watch struct {
	opts   Options
	book   *book
	reader *Reader

	foretelling atomic.Bool
	background  sync.WaitGroup
	showing     sync.Mutex // what is newer is shown and kept later

	mu    sync.Mutex
	known Known
	round chan struct{} // closed when something new is known
}

// NewWatch returns a watch, with what was known before the last restart.
func NewWatch(ctx context.Context, opts Options) *Watch {
	w := &Watch{opts: opts, book: newBook(), round: make(chan struct{}), known: Known{Unread: true}}
	kept := func(name string) []byte {
		data, _, err := opts.Memory.Kept(ctx, name)
		if err != nil {
			return nil
		}
		return data
	}
	if w.book.restore(kept, opts.Now()) {
		w.known.Snapshot = w.book.snapshot()
		return w
	}
	var s Snapshot // of a version that kept it whole
	if json.Unmarshal(kept(headName), &s) == nil {
		w.known.Snapshot = &s
	}
	return w
}

// Known returns what is known now. Nobody changes it any more.
func (w *Watch) Known() Known {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.known
}

// Round is closed when something new is known: at the end of a round, at the latest.
func (w *Watch) Round() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.round
}

// Run reads the project until the context ends.
func (w *Watch) Run(ctx context.Context) {
	defer func() {
		w.background.Wait()
		if w.reader != nil {
			w.reader.survey.Forget() // others may have the room
		}
	}()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		w.look(ctx)
		timer.Reset(w.opts.Every)
	}
}

// look is one round.
func (w *Watch) look(ctx context.Context) {
	begun := w.opts.Now()
	w.tell(func(k *Known) { k.Reading = begun.UTC() })
	limited, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	err := w.read(limited, cancel, begun)
	if ctx.Err() != nil { // the console ends: that says nothing of the vault
		return
	}
	if err != nil && limited.Err() != nil {
		err = context.Cause(limited)
	}
	w.show(ctx)
	w.tell(func(k *Known) {
		if err != nil && k.Fault == "" {
			w.opts.Log.Warn("the vault cannot be read", "err", err)
		}
		k.Tried, k.Fault, k.Reading = w.opts.Now().UTC(), "", time.Time{}
		if err != nil {
			k.Fault = err.Error()
		} else {
			k.Unread = false
		}
	})
	if err == nil && w.reader.Due(ctx, begun) {
		w.foretell(ctx)
	}
}

// tell changes what is known, and says so.
func (w *Watch) tell(change func(k *Known)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	before := w.known.Reading
	change(&w.known)
	if w.known.Reading.IsZero() || !before.IsZero() { // that a round begins is nothing new
		close(w.round)
		w.round = make(chan struct{})
	}
}

// show has all that was read be known, and kept. That it cannot be kept is no reason not
// to show it.
func (w *Watch) show(ctx context.Context) {
	w.showing.Lock()
	defer w.showing.Unlock()
	w.book.mu.Lock()
	ready := w.book.stocked
	w.book.mu.Unlock()
	if !ready || w.reader == nil { // half a list of runs could be taken for all of them
		return
	}
	s := w.book.snapshot()
	w.mu.Lock()
	w.known.Snapshot = s
	w.mu.Unlock()
	unkept, err := w.book.unkept()
	if err == nil {
		err = w.opts.Memory.Keep(ctx, s.At, unkept)
	}
	if err != nil {
		w.book.again(unkept)
		w.opts.Log.Warn("what is known of the fleet was not kept", "err", err)
	}
}

// read is a round that goes on for as long as the vault answers. What it has read is
// shown meanwhile.
func (w *Watch) read(ctx context.Context, cut context.CancelCauseFunc, begun time.Time) error {
	if w.reader == nil {
		limited, cancel := context.WithTimeoutCause(ctx, w.opts.Limit, w.silent())
		p, err := w.opts.Open(limited)
		if err != nil && limited.Err() != nil && ctx.Err() == nil {
			err = fmt.Errorf("%w: %w", context.Cause(limited), err)
		}
		cancel()
		if err != nil {
			return err
		}
		w.reader = newReader(p, w.opts.Budget, w.book)
	}
	done := make(chan error, 1)
	go func() { done <- w.reader.Round(ctx, begun) }()
	show, heard := time.NewTicker(w.opts.Every), time.NewTimer(w.opts.Limit)
	defer show.Stop()
	defer heard.Stop()
	since := time.Now()
	for {
		select {
		case err := <-done:
			if err == nil {
				w.book.mu.Lock()
				w.book.head.Took = w.opts.Now().Sub(begun).Milliseconds()
				w.book.mu.Unlock()
			}
			return err
		case <-show.C:
			w.show(ctx)
			w.tell(func(*Known) {})
		case <-heard.C:
			if at := w.reader.survey.Heard(); at.After(since) {
				since = at
			}
			left := w.opts.Limit - time.Since(since)
			if left <= 0 {
				cut(w.silent())
				return errors.Join(w.silent(), <-done)
			}
			heard.Reset(left)
		}
	}
}

func (w *Watch) silent() error {
	return fmt.Errorf("the vault did not answer within %s", w.opts.Limit)
}

// foretell judges in the background what is known beforehand: it may take longer than
// rounds do.
func (w *Watch) foretell(ctx context.Context) {
	if !w.foretelling.CompareAndSwap(false, true) {
		return
	}
	w.background.Go(func() {
		defer w.foretelling.Store(false)
		if w.reader.Foretell(ctx, w.opts.Now()) == nil {
			w.show(ctx)
			w.tell(func(k *Known) {})
		}
	})
}
