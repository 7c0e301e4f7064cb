package restoration

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"davit.dev/davit/internal/console/store"
	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/vault"
)

// reading is how long the vault may take to show a point.
const reading = 20 * time.Second

// Contents are what a recovery point contains.
type Contents struct {
	Point       string    `json:"point"`
	Application string    `json:"application"`
	Instant     time.Time `json:"instant"`
	Site        string    `json:"site"`
	Epoch       int64     `json:"epoch"`
	Consistency string    `json:"consistency"`
	Kubernetes  string    `json:"kubernetes,omitempty"`
	Objects     int64     `json:"objects"`
	Bytes       int64     `json:"bytes"`
	Namespaces  []string  `json:"namespaces"`
	Kinds       []Kind    `json:"kinds"`
	Volumes     []Volume  `json:"volumes"`
	Images      []string  `json:"images"`
	Warnings    []string  `json:"warnings"`
}

// Kind is how many objects of one kind there are.
type Kind struct {
	Kind    string `json:"kind"`
	Objects int64  `json:"objects"`
}

// Volume is one volume.
type Volume struct {
	Namespace   string `json:"namespace"`
	Claim       string `json:"claim"`
	Class       string `json:"storageClass,omitempty"`
	Bytes       int64  `json:"bytes"` // its capacity
	Consistency string `json:"consistency,omitempty"`
}

// ErrSilent says that the vault gave no answer.
var ErrSilent = errors.New("the vault does not answer: try again, or `davit describe` at a site")

// Contents shows what a point contains, as the vault says.
func (d *Desk) Contents(ctx context.Context, p *store.Project, app, id string) (*Contents, error) {
	if vault.CheckName(app) != nil || vault.CheckName(id) != nil {
		return nil, fmt.Errorf("find point: %w", store.ErrNotFound)
	}
	ctx, cancel := context.WithTimeout(ctx, reading)
	defer cancel()
	in, err := d.Open(ctx, p)
	if err != nil {
		return nil, silent(ctx, err)
	}
	m, err := in.Manifest(ctx, app, id)
	switch {
	case errors.Is(err, vault.ErrNotFound):
		return nil, fmt.Errorf("find point %s: %w", id, store.ErrNotFound)
	case errors.Is(err, vault.ErrDamaged):
		return nil, fmt.Errorf("%w: %w", store.ErrRefused, err)
	case err != nil:
		return nil, silent(ctx, err)
	}
	return contents(m), nil
}

func silent(ctx context.Context, err error) error {
	if errors.Is(err, vault.ErrUnavailable) || ctx.Err() != nil {
		return fmt.Errorf("%w (%w)", ErrSilent, err)
	}
	return err
}

func contents(m *point.Manifest) *Contents {
	c := &Contents{
		Point: m.ID, Application: m.Application, Instant: m.Instant.UTC(), Site: m.Site, Epoch: m.Epoch, Consistency: string(m.Consistency), Kubernetes: m.KubeVersion,
		Objects: m.Objects, Bytes: m.Bytes, Namespaces: append([]string{}, m.Namespaces...), Kinds: []Kind{}, Volumes: []Volume{}, Images: []string{}, Warnings: []string{},
	}
	for _, r := range m.Resources {
		c.Kinds = append(c.Kinds, Kind{Kind: r.Kind, Objects: r.Count})
	}
	slices.SortStableFunc(c.Kinds, func(a, b Kind) int { return cmp.Or(cmp.Compare(b.Objects, a.Objects), cmp.Compare(a.Kind, b.Kind)) })
	for _, v := range m.Volumes {
		c.Volumes = append(c.Volumes, Volume{Namespace: v.Namespace, Claim: v.Claim, Class: v.StorageClass, Bytes: v.Capacity, Consistency: string(v.Consistency)})
	}
	for _, i := range m.Images {
		c.Images = append(c.Images, i.Reference)
	}
	for _, w := range m.Warnings {
		c.Warnings = append(c.Warnings, strings.TrimPrefix(w.Object+": "+w.Message, ": "))
	}
	return c
}
