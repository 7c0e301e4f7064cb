// Package bulletin keeps in the vault what each site says of itself
// (docs/formats/facts.md), so that a plan can be judged at the target with
// nothing but the vault.
package bulletin

import (
	"context"
	"fmt"
	"strings"

	"davit.dev/davit/internal/preflight"
	"davit.dev/davit/internal/vault"
)

func prefix(p *vault.Project) string { return p.Root() + "facts/" }

// Publish replaces the facts of a site.
func Publish(ctx context.Context, p *vault.Project, s *preflight.Site) error {
	if err := vault.CheckName(s.Name); err != nil {
		return fmt.Errorf("publish facts: %w", err)
	}
	data, err := s.Encode()
	if err != nil {
		return fmt.Errorf("publish facts: %w", err)
	}
	if err := p.WriteSealed(ctx, prefix(p)+s.Name, data); err != nil {
		return fmt.Errorf("publish facts of site %s: %w", s.Name, err)
	}
	return nil
}

// Read returns the newest facts of every site that published any, by site, and
// why those of others cannot be used. Only a vault that gives no list is an error.
func Read(ctx context.Context, p *vault.Project) (map[string]*preflight.Site, map[string]string, error) {
	var objects []vault.ObjectInfo
	err := p.Store().List(ctx, prefix(p), func(o vault.ObjectInfo) error {
		objects = append(objects, o)
		return nil
	})
	if err != nil {
		return nil, nil, fmt.Errorf("list facts of sites: %w", err)
	}
	sites, bad := map[string]*preflight.Site{}, map[string]string{}
	for _, o := range objects {
		name := strings.TrimPrefix(o.Key, prefix(p))
		s, err := read(ctx, p, o.Key, name)
		if err != nil {
			bad[name] = err.Error()
			continue
		}
		s.Written = o.Modified
		sites[name] = s
	}
	return sites, bad, nil
}

func read(ctx context.Context, p *vault.Project, key, name string) (*preflight.Site, error) {
	data, err := p.ReadSealed(ctx, key)
	if err != nil {
		return nil, err
	}
	s, err := preflight.Decode(data)
	if err != nil {
		return nil, err
	}
	if s.Name != name {
		return nil, fmt.Errorf("read facts of site %s: %w: they are of site %q", name, vault.ErrDamaged, s.Name)
	}
	return s, nil
}
