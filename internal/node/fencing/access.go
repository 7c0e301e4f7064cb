package fencing

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/kube/vaults"
	"davit.dev/davit/internal/promise"
	"davit.dev/davit/internal/vault"
)

const (
	// refreshEvery is how often a Vault and its Secret are read again.
	refreshEvery = 30 * time.Second
	apiTimeout   = 3 * time.Second
)

var vaultNames = regexp.MustCompile(`^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$`)

// access opens vaults, also while no API server answers: the way in is kept in
// memory of the machine, where the kubelet keeps Secrets too, and never on disk.
type access struct {
	reader client.Reader // asks the API server
	dir    string
	uptime func() time.Duration

	site string

	mu   sync.Mutex
	open map[string]*door
	keys map[string]promise.Keys // by vault: for when it is silent
	// refreshed is when a vault was last asked for new ones.
	refreshed map[string]time.Duration
}

// door is one open vault.
type door struct {
	mu      sync.Mutex
	key     *way
	project *vault.Project
	id      string // the vault's
	checked time.Duration
}

// way is what it takes to open a vault.
type way struct {
	Vault  v1alpha1.Vault `json:"vault"`
	Secret corev1.Secret  `json:"secret"`
}

// project returns a vault's project.
func (a *access) project(ctx context.Context, name string) (*vault.Project, error) {
	a.mu.Lock()
	d := a.open[name]
	if d == nil {
		d = &door{}
		a.open[name] = d
	}
	a.mu.Unlock()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.project != nil && a.uptime()-d.checked < refreshEvery {
		return d.project, nil
	}
	w, err := a.way(ctx, name)
	if err != nil {
		return nil, err
	}
	if d.project == nil || !reflect.DeepEqual(d.key, w) {
		opened, err := vaults.Open(ctx, w, name)
		if err != nil {
			return nil, err
		}
		d.project, d.key, d.id = opened.Project, w, opened.VaultID
	}
	d.checked = a.uptime()
	if !d.project.IsCopy() {
		a.mu.Lock()
		a.keys[name] = promise.From(d.project, a.site, d.id)
		a.mu.Unlock()
	}
	return d.project, nil
}

// keep notes the keys of a vault that has just been asked for new ones.
func (a *access) keep(name string, p *vault.Project) {
	now := a.uptime()
	a.mu.Lock()
	defer a.mu.Unlock()
	if k, is := a.keys[name]; is {
		a.keys[name] = promise.From(p, a.site, k.Vault)
	}
	a.refreshed[name] = now
}

// fresh tells whether a vault was asked for new keys a short while ago.
func (a *access) fresh(name string) bool {
	now := a.uptime()
	a.mu.Lock()
	defer a.mu.Unlock()
	at, is := a.refreshed[name]
	return is && now-at < refreshEvery
}

// known are the keys of a vault as they were when it was last open.
func (a *access) known(name string) (promise.Keys, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	k, is := a.keys[name]
	return k, is
}

// way asks the API server, and goes by what it said before if it is silent.
func (a *access) way(ctx context.Context, name string) (*way, error) {
	if !vaultNames.MatchString(name) {
		return nil, fmt.Errorf("open vault %.80q: %w: not a name", name, vaults.ErrNotUsable)
	}
	file := filepath.Join(a.dir, "vault-"+name+".json")
	asked, err := a.ask(ctx, name)
	if err == nil {
		return asked, keepWay(file, asked)
	}
	if apierrors.IsNotFound(err) {
		_ = os.Remove(file) // whoever removed it wants it forgotten
		return nil, fmt.Errorf("open vault %s: %w", name, err)
	}
	data, kept := os.ReadFile(file)
	if kept != nil {
		return nil, fmt.Errorf("open vault %s: %w", name, errors.Join(err, kept))
	}
	var w way
	if bad := json.Unmarshal(data, &w); bad != nil {
		return nil, fmt.Errorf("open vault %s: the API server is silent, and what it said before cannot be read: %w", name, err)
	}
	return &w, nil
}

func (a *access) ask(ctx context.Context, name string) (*way, error) {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	var w way
	if err := a.reader.Get(ctx, client.ObjectKey{Name: name}, &w.Vault); err != nil {
		return nil, err
	}
	if err := a.reader.Get(ctx, client.ObjectKey{Namespace: v1alpha1.SystemNamespace, Name: w.Vault.Spec.SecretName}, &w.Secret); err != nil {
		return nil, err
	}
	w.Vault = v1alpha1.Vault{ObjectMeta: trim(w.Vault.ObjectMeta), Spec: w.Vault.Spec}
	w.Secret = corev1.Secret{ObjectMeta: trim(w.Secret.ObjectMeta), Data: w.Secret.Data}
	return &w, nil
}

func keepWay(file string, w *way) error {
	data, err := json.Marshal(w)
	if err != nil {
		return fmt.Errorf("keep the way into a vault: %w", err)
	}
	if old, err := os.ReadFile(file); err == nil && string(old) == string(data) {
		return nil
	}
	temporary := file + ".new"
	err = os.WriteFile(temporary, data, 0o600)
	if err == nil {
		err = os.Rename(temporary, file)
	}
	if err != nil {
		return fmt.Errorf("keep the way into a vault: %w", err)
	}
	return nil
}

// Get makes a way a client.Reader of the two objects that it is made of.
func (w *way) Get(_ context.Context, _ client.ObjectKey, into client.Object, _ ...client.GetOption) error {
	switch o := into.(type) {
	case *v1alpha1.Vault:
		w.Vault.DeepCopyInto(o)
	case *corev1.Secret:
		w.Secret.DeepCopyInto(o)
	default:
		return fmt.Errorf("read %T: not kept here", into)
	}
	return nil
}

// List implements client.Reader.
func (w *way) List(context.Context, client.ObjectList, ...client.ListOption) error {
	return errors.New("nothing is listed here")
}
