package agent

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/uuid"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/images"
	"davit.dev/davit/internal/install"
	"davit.dev/davit/internal/kube"
	"davit.dev/davit/internal/kube/freezer"
	"davit.dev/davit/internal/kube/mover"
	"davit.dev/davit/internal/kube/quiescer"
	"davit.dev/davit/internal/kube/scratch"
	"davit.dev/davit/internal/kube/source"
	"davit.dev/davit/internal/kube/target"
	"davit.dev/davit/internal/kube/vaults"
	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/protection"
	"davit.dev/davit/internal/recovery"
	"davit.dev/davit/internal/restore/transform"
	"davit.dev/davit/internal/trial"
	"davit.dev/davit/internal/vault"
)

// keyFor is how long an entry is used before its objects are looked at again.
const keyFor = 5 * time.Second

// pool keeps the open vaults, and makes what the use cases work with. An entry
// lives until its Vault object or its Secret changes.
type pool struct {
	clients *kube.Clients
	reader  client.Reader // asks the API server itself
	self    lease.Identity
	ledger  *quiescer.Ledger
	log     *slog.Logger
	now     func() time.Time
	owner   string // of restore tests: this process

	mu      sync.Mutex
	entries map[string]*entry
}

// entry is one open vault.
type entry struct {
	turn      chan struct{} // held while the vault is opened
	key       entryKey
	checked   time.Time // when key was last read
	opened    *vaults.Opened
	protector *protection.Protector
	reader    *protection.Protector // leaves room for other work
	volumes   *source.Volumes
	mover     *mover.Mover
	freezer   *freezer.Freezer
}

// entryKey is what an entry was made from.
type entryKey struct {
	uid        types.UID
	generation int64
	secret     string // resource version
	domain     string // this site's failure domain
}

func newPool(clients *kube.Clients, reader client.Reader, self lease.Identity, log *slog.Logger, now func() time.Time) *pool {
	return &pool{
		ledger:  quiescer.NewLedger(clients.Kubernetes),
		clients: clients, reader: reader, self: self, log: log, now: now, entries: map[string]*entry{},
		owner: trial.AgentOwner(string(uuid.NewUUID())),
	}
}

// Opened returns the open project of a Vault.
func (p *pool) Opened(ctx context.Context, name string) (*vaults.Opened, error) {
	e, err := p.entry(ctx, name)
	if err != nil {
		return nil, err
	}
	return e.opened, nil
}

// fresh opens vaults as their objects are now, for whoever says in a status
// which generation of them the agent works with.
type fresh struct{ *pool }

// Opened returns the open project of a Vault.
func (f fresh) Opened(ctx context.Context, name string) (*vaults.Opened, error) {
	e, err := f.open(ctx, name, 0)
	if err != nil {
		return nil, err
	}
	return e.opened, nil
}

// Project returns a Vault's project.
func (p *pool) Project(ctx context.Context, name string) (*vault.Project, error) {
	e, err := p.entry(ctx, name)
	if err != nil {
		return nil, err
	}
	return e.opened.Project, nil
}

// Listing returns a Vault's project for looking at all points again and again.
func (p *pool) Listing(ctx context.Context, name string) (*vault.Project, error) {
	e, err := p.entry(ctx, name)
	if err != nil {
		return nil, err
	}
	return e.opened.Listing, nil
}

// Protector returns the one Protector of a Vault.
func (p *pool) Protector(ctx context.Context, name string) (*protection.Protector, error) {
	e, err := p.entry(ctx, name)
	if err != nil {
		return nil, err
	}
	return e.protector, nil
}

// Reader returns a Protector of a Vault that leaves room for other work.
func (p *pool) Reader(ctx context.Context, name string) (*protection.Protector, error) {
	e, err := p.entry(ctx, name)
	if err != nil {
		return nil, err
	}
	return e.reader, nil
}

// Drop forgets a vault that is gone. One that merely did not answer is kept:
// its Protector knows what is being captured.
func (p *pool) Drop(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.entries, name)
}

func (p *pool) entry(ctx context.Context, name string) (*entry, error) {
	return p.open(ctx, name, keyFor)
}

// open returns a vault's entry, whose objects were looked at no longer ago than
// given.
func (p *pool) open(ctx context.Context, name string, ago time.Duration) (*entry, error) {
	p.mu.Lock()
	e := p.entries[name]
	if e == nil {
		e = &entry{turn: make(chan struct{}, 1)}
		p.entries[name] = e
	}
	p.mu.Unlock()
	// A vault that is silent keeps whoever opens it for minutes. Others wait for
	// their own time, and go on without it: they have more to do than to ask it.
	select {
	case e.turn <- struct{}{}:
		defer func() { <-e.turn }()
	case <-ctx.Done():
		return nil, fmt.Errorf("open vault %s: %w: it has not answered whoever asked first: %w", name, vault.ErrUnavailable, ctx.Err())
	}
	if e.opened != nil && p.now().Sub(e.checked) < ago {
		return snapshot(e), nil
	}
	key, err := p.key(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("open vault %s: %w", name, err)
	}
	if e.opened == nil || e.key != key {
		if err := p.fill(ctx, e, name, key); err != nil {
			return nil, err
		}
	}
	e.checked = p.now()
	return snapshot(e), nil
}

// snapshot is the entry as it is now, for use without its lock.
func snapshot(e *entry) *entry {
	return &entry{
		key: e.key, opened: e.opened, protector: e.protector, reader: e.reader,
		volumes: e.volumes, mover: e.mover, freezer: e.freezer,
	}
}

// key reads what the entry depends on.
func (p *pool) key(ctx context.Context, name string) (entryKey, error) {
	var v v1alpha1.Vault
	if err := p.reader.Get(ctx, client.ObjectKey{Name: name}, &v); err != nil {
		if client.IgnoreNotFound(err) == nil {
			return entryKey{}, fmt.Errorf("%w: there is no Vault of this name: see davit vault ls", vaults.ErrNotUsable)
		}
		return entryKey{}, err
	}
	var secret corev1.Secret
	if err := p.reader.Get(ctx, client.ObjectKey{Namespace: v1alpha1.SystemNamespace, Name: v.Spec.SecretName}, &secret); client.IgnoreNotFound(err) != nil {
		return entryKey{}, err
	}
	var site v1alpha1.Site
	if err := p.reader.Get(ctx, client.ObjectKey{Name: p.self.Site}, &site); client.IgnoreNotFound(err) != nil {
		return entryKey{}, err
	}
	return entryKey{uid: v.UID, generation: v.Generation, secret: secret.ResourceVersion, domain: site.Spec.FailureDomain}, nil
}

// fill opens the vault. Captures run as davit-capture, not as the agent.
func (p *pool) fill(ctx context.Context, e *entry, name string, key entryKey) error {
	opened, err := vaults.Open(ctx, p.reader, name)
	if err != nil {
		return err
	}
	capturer, err := p.clients.Impersonate(kube.ServiceAccountUser(v1alpha1.SystemNamespace, install.CaptureName))
	if err != nil {
		return err
	}
	m, err := mover.NewForConfig(p.clients.RESTConfig, capturer.RESTConfig, mover.Options{Now: p.now})
	if err != nil {
		return err
	}
	still, err := freezer.NewForConfig(p.clients.RESTConfig, p.now, p.log.With("vault", name))
	if err != nil {
		return err
	}
	cluster, err := source.NewCluster(capturer)
	if err != nil {
		return err
	}
	e.volumes = source.NewVolumes(capturer, capturer, m, source.VolumeOptions{Vault: name, Site: p.self.Site, Logger: p.log.With("vault", name)})
	e.opened, e.key, e.mover, e.freezer = opened, key, m, still
	e.protector = protection.New(protection.Options{
		Project: opened.Project, Listing: opened.Listing, Site: p.self.Site, ClusterID: p.self.Cluster,
		VaultDomain: opened.Object.Spec.FailureDomain, SiteDomain: key.domain, DeletionDelay: vaults.DeletionDelay(&opened.Object),
		Cluster: cluster, Volumes: e.volumes, Hooks: quiescer.New(capturer), Ledger: p.ledger, Freezer: still,
		Now: p.now, Logger: p.log.With("vault", name),
	})
	e.reader = protection.New(protection.Options{
		Project: opened.Project, Site: p.self.Site, ClusterID: p.self.Cluster, Now: p.now, Logger: p.log.With("vault", name),
		OpenVolumes: protection.GentleVolumes(opened.Project, p.log),
	})
	return nil
}

// keptVolumes finds what captures keep for the next ones, of whatever vault.
func (p *pool) keptVolumes() (*source.Volumes, error) {
	capturer, err := p.clients.Impersonate(kube.ServiceAccountUser(v1alpha1.SystemNamespace, install.CaptureName))
	if err != nil {
		return nil, err
	}
	return source.NewVolumes(capturer, capturer, nil, source.VolumeOptions{Site: p.self.Site, Now: p.now, Logger: p.log}), nil
}

// Recovery makes what a restore works with, with the rights of the account.
func (p *pool) Recovery(ctx context.Context, vaultName, namespace, account string) (recovery.Deps, error) {
	e, err := p.entry(ctx, vaultName)
	if err != nil {
		return recovery.Deps{}, err
	}
	restorer, err := p.clients.Impersonate(kube.ServiceAccountUser(namespace, account))
	if err != nil {
		return recovery.Deps{}, err
	}
	m, err := mover.NewForConfig(p.clients.RESTConfig, restorer.RESTConfig, mover.Options{Now: p.now})
	if err != nil {
		return recovery.Deps{}, err
	}
	return recovery.Deps{
		Project: e.opened.Project, VaultName: vaultName, Site: p.self.Site, ClusterID: p.self.Cluster,
		Cluster: target.New(restorer), Own: target.New(p.clients), Volumes: target.NewVolumes(m, p.clients, vaultName),
		Log:      p.log,
		Overlays: func(ctx context.Context) ([]transform.Overlay, error) { return target.Overlays(ctx, p.clients) },
		Images: func(ctx context.Context, mirror string, image point.Image) (bool, error) {
			return images.Mirror{Base: mirror}.Present(ctx, image)
		},
	}, nil
}

// Test implements proof.Trials. Copies are made and removed as davit-restore,
// as a restore would be.
func (p *pool) Test(ctx context.Context, vaultName string, opts trial.Options) (trial.Report, error) {
	deps, err := p.Recovery(ctx, vaultName, v1alpha1.SystemNamespace, install.RestoreName)
	if err != nil {
		return trial.Report{}, err
	}
	cluster, err := p.copies()
	if err != nil {
		return trial.Report{}, err
	}
	deps.Now, deps.Holder = p.now, "restore test"
	opts.Owner = p.owner
	return trial.Run(ctx, opts, trial.Deps{Recovery: deps, Cluster: cluster})
}

// copies is where restore tests make their copies.
func (p *pool) copies() (trial.Cluster, error) {
	restorer, err := p.clients.Impersonate(kube.ServiceAccountUser(v1alpha1.SystemNamespace, install.RestoreName))
	if err != nil {
		return nil, err
	}
	m, err := mover.NewForConfig(p.clients.RESTConfig, restorer.RESTConfig, mover.Options{Now: p.now})
	if err != nil {
		return nil, err
	}
	return scratch.New(restorer, m), nil
}
