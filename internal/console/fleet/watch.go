package fleet

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/backend"
	"davit.dev/davit/internal/vault/listed"
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

// rememberBytes bounds what is remembered of a vault's small objects.
const rememberBytes = 64 << 20

// Project opens the project, and returns whom it was opened for.
func (b Binding) Project(ctx context.Context, open OpenStore) (*vault.Project, vault.Identity, error) {
	keyring, err := vault.ParseKeyring(b.Keyring)
	if err != nil {
		return nil, vault.Identity{}, err
	}
	store, err := open(ctx, backend.Config{URL: b.URL, AccessKey: b.AccessKey, SecretKey: b.SecretKey, SessionToken: b.SessionToken, CA: b.CA})
	if err != nil {
		return nil, vault.Identity{}, err
	}
	p, err := keyring.Open(ctx, store)
	return p, keyring.Identity, err
}

// Open opens the project for looking at it again and again.
func (b Binding) Open(ctx context.Context, open OpenStore) (*vault.Project, error) {
	p, _, err := b.Project(ctx, open)
	if err != nil {
		return nil, err
	}
	return p.Over(func(s vault.Store) vault.Store { return listed.New(s, rememberBytes) }), nil
}

// Memory keeps what was known last, over restarts.
type Memory interface {
	Kept(ctx context.Context, name string) (data []byte, at time.Time, err error)
	Keep(ctx context.Context, name string, at time.Time, data []byte) error
}

// memoryName is what a snapshot is kept under.
const memoryName = "fleet"

// Known is what a console knows of its project now.
type Known struct {
	Snapshot *Snapshot // nil: nothing yet
	// Fault is why the newest attempt to read the vault failed; empty: it did not.
	Fault string
	Tried time.Time
	// Agents are those of the sites that were enrolled, by site.
	Agents []Agent
}

// Silent tells whether what is known is old: the vault has not answered since.
func (k Known) Silent() bool { return k.Fault != "" }

// Options are what a Watch works with.
type Options struct {
	Open   func(ctx context.Context) (*vault.Project, error)
	Memory Memory
	Every  time.Duration // between the end of a round and the next
	Limit  time.Duration // of one round
	Now    func() time.Time
	Log    *slog.Logger
}

// Watch reads a project in the background.
type Watch struct {
	opts   Options
	reader *Reader

	mu    sync.Mutex
	known Known
	round chan struct{} // closed at the end of the round under way
}

// NewWatch returns a watch, with what was known before the last restart.
func NewWatch(ctx context.Context, opts Options) *Watch {
	w := &Watch{opts: opts, round: make(chan struct{})}
	data, _, err := opts.Memory.Kept(ctx, memoryName)
	var s Snapshot
	if err == nil && json.Unmarshal(data, &s) == nil {
		w.known = Known{Snapshot: &s, Fault: "not read yet since the console started"}
	}
	return w
}

// Known returns what is known now. Nobody changes it any more.
func (w *Watch) Known() Known {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.known
}

// Round is closed when the round under way has ended.
func (w *Watch) Round() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.round
}

// Run reads the project until the context ends.
func (w *Watch) Run(ctx context.Context) {
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

func (w *Watch) look(ctx context.Context) {
	limited, cancel := context.WithTimeoutCause(ctx, w.opts.Limit, fmt.Errorf("the vault did not answer within %s", w.opts.Limit))
	defer cancel()
	s, err := w.read(limited)
	if ctx.Err() != nil { // the console ends: that says nothing of the vault
		return
	}
	if err != nil && limited.Err() != nil {
		err = fmt.Errorf("%w: %w", context.Cause(limited), err)
	}
	if err == nil {
		w.keep(ctx, s)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	before := w.known.Fault
	w.known.Tried, w.known.Fault = w.opts.Now().UTC(), ""
	if err != nil {
		w.known.Fault = err.Error()
		if before == "" {
			w.opts.Log.Warn("the vault cannot be read", "err", err)
		}
	} else {
		w.known.Snapshot = s
	}
	close(w.round)
	w.round = make(chan struct{})
}

func (w *Watch) read(ctx context.Context) (*Snapshot, error) {
	begun := w.opts.Now()
	if w.reader == nil {
		p, err := w.opts.Open(ctx)
		if err != nil {
			return nil, err
		}
		w.reader = NewReader(p)
	}
	s, err := w.reader.Read(ctx, begun)
	if err != nil {
		return nil, err
	}
	s.Took = w.opts.Now().Sub(begun).Milliseconds()
	return s, nil
}

// keep writes the snapshot down. That it cannot is no reason not to show it.
func (w *Watch) keep(ctx context.Context, s *Snapshot) {
	data, err := json.Marshal(s)
	if err == nil {
		err = w.opts.Memory.Keep(ctx, memoryName, s.At, data)
	}
	if err != nil {
		w.opts.Log.Warn("what is known of the fleet was not kept", "err", err)
	}
}
