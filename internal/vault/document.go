package vault

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Document is one revision of what defines an application: the Application
// and its ProtectionPolicy, so that a site that has never seen them can take over.
type Document struct {
	Application string    `json:"application"`
	Revision    int64     `json:"revision"` // 1, 2, ...
	At          time.Time `json:"at"`
	Site        string    `json:"site"`
	// Objects are the API objects, as JSON.
	Objects []json.RawMessage `json:"objects"`
}

// PutDocument stores a new revision and returns it. When the newest revision holds the same
// objects already, and is whole, that one is returned and nothing is written.
func (p *Project) PutDocument(ctx context.Context, d Document) (Document, error) {
	if err := checkNames(d.Application, d.Site); err != nil {
		return d, fmt.Errorf("put document: %w", err)
	}
	if d.At.IsZero() {
		d.At = now()
	}
	for {
		last, err := p.GetDocument(ctx, d.Application)
		if err != nil && !errors.Is(err, ErrNotFound) && (!errors.Is(err, ErrDamaged) || last.Revision == 0) { // 0: which is the newest is not known
			return d, fmt.Errorf("put document of %s: %w", d.Application, err)
		}
		if err == nil && sameObjects(last.Objects, d.Objects) {
			return last, nil
		}
		d.Revision = last.Revision + 1
		err = p.writeJSONOnce(ctx, p.at.document(d.Application, d.Revision), d)
		if !errors.Is(err, ErrExists) { // someone else was faster: look again
			return d, err
		}
	}
}

// GetDocument returns an application's newest document, or ErrNotFound.
func (p *Project) GetDocument(ctx context.Context, app string) (d Document, err error) {
	if err := CheckName(app); err != nil {
		return d, fmt.Errorf("get document: %w", err)
	}
	revisions, err := p.numbers(ctx, p.at.apps(app))
	if err != nil {
		return d, err
	}
	if len(revisions) == 0 {
		return d, fmt.Errorf("get document of %s: %w", app, ErrNotFound)
	}
	n := len(revisions) - 1
	err = p.readDocument(ctx, app, revisions[n], &d)
	d.Revision = revisions[n] // also of one that cannot be read
	return d, err
}

func (p *Project) readDocument(ctx context.Context, app string, revision int64, d *Document) error {
	key := p.at.document(app, revision)
	if err := p.readJSON(ctx, key, d); err != nil {
		return err
	}
	if d.Revision != revision || d.Application != app {
		return fmt.Errorf("read %s: %w: holds revision %d of %s", key, ErrDamaged, d.Revision, d.Application)
	}
	return nil
}

func sameObjects(a, b []json.RawMessage) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && bytes.Equal(x, y)
}

// numbers returns the numbers under a prefix, ascending.
func (p *Project) numbers(ctx context.Context, prefix string) ([]int64, error) {
	tails, err := listKeys(ctx, p.store, prefix)
	if err != nil {
		return nil, err
	}
	all := make([]int64, 0, len(tails))
	for _, tail := range tails {
		n, err := parseNumber(tail)
		if err != nil {
			return nil, fmt.Errorf("list %s: %w: %w", prefix, ErrDamaged, err)
		}
		all = append(all, n)
	}
	return all, nil
}

// EpochNumbers returns the numbers of an application's epochs, ascending.
func (p *Project) EpochNumbers(ctx context.Context, app string) ([]int64, error) {
	if err := CheckName(app); err != nil {
		return nil, fmt.Errorf("list epochs: %w", err)
	}
	return p.numbers(ctx, p.at.epochs(app))
}

// ReadEpoch reads what was written for an epoch into v.
func (p *Project) ReadEpoch(ctx context.Context, app string, n int64, v any) error {
	if err := CheckName(app); err != nil {
		return fmt.Errorf("read epoch: %w", err)
	}
	return p.readJSON(ctx, p.at.epoch(app, n), v)
}

// WriteEpoch writes v for an epoch, or returns ErrExists: of all racing
// callers, one succeeds.
func (p *Project) WriteEpoch(ctx context.Context, app string, n int64, v any) error {
	if err := CheckName(app); err != nil {
		return fmt.Errorf("write epoch: %w", err)
	}
	return p.writeJSONOnce(ctx, p.at.epoch(app, n), v)
}

// SafeSkew is how far a site's clock and the vault's may be apart before people
// are told. Nothing is decided by clocks, but ages and RPO are then wrong.
const SafeSkew = 30 * time.Second

// SiteStatus is a site's sign of life.
type SiteStatus struct {
	Site string `json:"site"`
	// Cluster is which cluster bears the name: the UID of its kube-system
	// namespace. Empty in signs of versions that knew none.
	Cluster string `json:"cluster,omitempty"`
	// Replaces is the lost cluster from which a person took the name.
	Replaces     string    `json:"replaces,omitempty"`
	Time         time.Time `json:"time"` // by the site's clock
	AgentVersion string    `json:"agentVersion"`
	KubeVersion  string    `json:"kubeVersion"`
	// Capacity is the sum over the site's nodes: "cpu", "memory", "pods" and
	// storage classes, as Kubernetes quantities.
	Capacity map[string]string `json:"capacity,omitempty"`
	// KeyID is the newest data key that the site knows, and Recipient its own
	// public key. Both are empty in signs of versions whose keys do not rotate.
	KeyID     string `json:"keyID,omitempty"`
	Recipient string `json:"recipient,omitempty"`
	// Written is when the vault took the sign, by the vault's clock. Sites
	// fills it in; it is not stored.
	Written time.Time `json:"-"`
}

// Heartbeat replaces the site's sign of life.
func (p *Project) Heartbeat(ctx context.Context, s SiteStatus) error {
	if err := CheckName(s.Site); err != nil {
		return fmt.Errorf("heartbeat: %w", err)
	}
	plain, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("heartbeat: %w", err)
	}
	return p.WriteSealed(ctx, p.at.site(s.Site), plain)
}

// Sites returns the newest sign of life of every site, sorted by name.
func (p *Project) Sites(ctx context.Context) ([]SiteStatus, error) {
	var objects []ObjectInfo
	err := p.store.List(ctx, p.at.sites(), func(o ObjectInfo) error {
		objects = append(objects, o)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list sites: %w", err)
	}
	var sites []SiteStatus
	for _, o := range objects {
		s, err := p.readSite(ctx, o)
		if err != nil {
			return nil, err
		}
		sites = append(sites, s)
	}
	return sites, nil
}

// Site returns a site's newest sign of life, or ErrNotFound.
func (p *Project) Site(ctx context.Context, name string) (SiteStatus, error) {
	if err := CheckName(name); err != nil {
		return SiteStatus{}, fmt.Errorf("read site: %w", err)
	}
	o, err := p.store.Stat(ctx, p.at.site(name))
	if err != nil {
		return SiteStatus{}, fmt.Errorf("read site %s: %w", name, err)
	}
	return p.readSite(ctx, o)
}

func (p *Project) readSite(ctx context.Context, o ObjectInfo) (SiteStatus, error) {
	s := SiteStatus{}
	if err := p.readJSON(ctx, o.Key, &s); err != nil {
		return s, err
	}
	if o.Key != p.at.site(s.Site) {
		return s, fmt.Errorf("read %s: %w: holds site %s", o.Key, ErrDamaged, s.Site)
	}
	s.Written = o.Modified
	return s, nil
}
