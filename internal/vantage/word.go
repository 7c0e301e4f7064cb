// Package vantage lets a process be a vantage point: it watches in the vault
// for signs of life of sites, and says there what it makes of them
// (docs/formats/vantage.md). What follows from that is decided in package declare.
package vantage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"davit.dev/davit/internal/declare"
	"davit.dev/davit/internal/vault"
)

const (
	wordFormat = 1
	maxWord    = 256 << 10
	maxViews   = 256
	maxWhy     = 400
	atOnce     = 8 // words that are read
)

var errNewer = errors.New("use a newer davit")

// Word is what a vantage point said last.
type Word struct {
	FormatVersion int    `json:"formatVersion"`
	Vantage       string `json:"vantage"`
	// Cluster is set by agents of sites: their words are signs of life.
	Cluster string `json:"cluster,omitempty"`
	Process string `json:"process"`
	Number  int64  `json:"number"`
	// At is the writer's clock. Nothing is decided by comparing it with another's.
	At    time.Time `json:"at"`
	Views []View    `json:"views,omitempty"`
}

// View is what a vantage point makes of one site.
type View struct {
	Site string       `json:"site"`
	View declare.View `json:"view"`
	Why  string       `json:"why,omitempty"`
	// Answers are the plans whose probe the site answered.
	Answers []string `json:"answers,omitempty"`
	// Silent are the plans whose probe was asked, and not answered.
	Silent []string `json:"silent,omitempty"`
}

// Sighting is the word's view of a site as it counts for a plan, which probes the site
// or does not; false if it says nothing of the site. Whoever did not ask the
// plan's probe, because he could not read the plan, does not know that the site is lost.
func (w *Word) Sighting(plan, site string, probed bool) (declare.Sighting, bool) {
	i := slices.IndexFunc(w.Views, func(v View) bool { return v.Site == site })
	if i < 0 {
		return declare.Sighting{}, false
	}
	v := w.Views[i]
	s := declare.Sighting{Vantage: w.Vantage, Site: site, Number: w.Number, View: v.View, Why: v.Why}
	switch {
	case slices.Contains(v.Answers, plan):
		s.View, s.Why = declare.Alive, "it answers the plan's probe"
	case probed && v.View == declare.Lost && !slices.Contains(v.Silent, plan):
		s.View, s.Why = declare.Blind, "it did not ask the plan's probe: it does not know the plan, or another version of it"
	}
	return s, true
}

func prefix(p *vault.Project) string { return p.Root() + "vantage/" }

// Say replaces what was said under the word's name.
func Say(ctx context.Context, p *vault.Project, w Word) error {
	w.FormatVersion = wordFormat
	if err := w.check(); err != nil {
		return fmt.Errorf("say what %q sees: %w", w.Vantage, err)
	}
	data, err := json.Marshal(w)
	if err != nil {
		return fmt.Errorf("say what %s sees: %w", w.Vantage, err)
	}
	if err := p.WriteSealed(ctx, prefix(p)+w.Vantage, data); err != nil {
		return fmt.Errorf("say what %s sees: %w", w.Vantage, err)
	}
	return nil
}

// Hear reads the words of all vantage points, and why some of them cannot be
// read, by name. It is an error if the vault does not answer.
func Hear(ctx context.Context, p *vault.Project) (words map[string]Word, bad map[string]error, err error) {
	var names []string
	err = p.Store().List(ctx, prefix(p), func(o vault.ObjectInfo) error {
		names = append(names, strings.TrimPrefix(o.Key, prefix(p)))
		return nil
	})
	if err != nil {
		return nil, nil, fmt.Errorf("hear vantage points: %w", err)
	}
	heard, errs := make([]Word, len(names)), make([]error, len(names))
	places := make(chan struct{}, atOnce)
	var reading sync.WaitGroup
	for i, name := range names {
		places <- struct{}{}
		reading.Go(func() {
			defer func() { <-places }()
			heard[i], errs[i] = hear(ctx, p, name)
		})
	}
	reading.Wait()
	words, bad = map[string]Word{}, map[string]error{}
	for i, name := range names {
		w, err := heard[i], errs[i]
		switch {
		case err == nil:
			words[name] = w
		case errors.Is(err, vault.ErrNotFound):
		case errors.Is(err, vault.ErrDamaged), errors.Is(err, errNewer):
			bad[name] = err
		default: // it may be the vault that falls silent
			return nil, nil, err
		}
	}
	return words, bad, nil
}

// Last reads what one vantage point said last: nil if it never spoke. bad says why a word that is
// there cannot be read. It is an error if the vault does not answer.
func Last(ctx context.Context, p *vault.Project, name string) (w *Word, bad, err error) {
	got, err := hear(ctx, p, name)
	switch {
	case err == nil:
		return &got, nil, nil
	case errors.Is(err, vault.ErrNotFound):
		return nil, nil, nil
	case errors.Is(err, vault.ErrDamaged), errors.Is(err, errNewer):
		return nil, err, nil
	}
	return nil, nil, err
}

func hear(ctx context.Context, p *vault.Project, name string) (Word, error) {
	data, err := p.ReadSealed(ctx, prefix(p)+name)
	var w Word
	if err == nil {
		w, err = Parse(data)
	}
	if err == nil && w.Vantage != name {
		err = fmt.Errorf("%w: it is of %q", vault.ErrDamaged, w.Vantage)
	}
	if err != nil {
		return Word{}, fmt.Errorf("hear vantage point %s: %w", name, err)
	}
	return w, nil
}

// Parse reads a word, and checks it.
func Parse(data []byte) (Word, error) {
	var w Word
	if len(data) > maxWord {
		return w, fmt.Errorf("%w: %d bytes", vault.ErrDamaged, len(data))
	}
	var head struct {
		FormatVersion int `json:"formatVersion"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return w, fmt.Errorf("%w: %w", vault.ErrDamaged, err)
	}
	if head.FormatVersion > wordFormat {
		return w, fmt.Errorf("it has format %d, this davit knows %d: %w", head.FormatVersion, wordFormat, errNewer)
	}
	if err := json.Unmarshal(data, &w); err != nil {
		return Word{}, fmt.Errorf("%w: %w", vault.ErrDamaged, err)
	}
	if err := w.check(); err != nil {
		return Word{}, fmt.Errorf("%w: %w", vault.ErrDamaged, err)
	}
	return w, nil
}

func (w *Word) check() error {
	if err := vault.CheckName(w.Vantage); err != nil {
		return err
	}
	if w.FormatVersion != wordFormat || w.Process == "" || w.Number < 1 || len(w.Views) > maxViews {
		return errors.New("a field is missing or out of bounds")
	}
	seen := map[string]bool{}
	for _, v := range w.Views {
		switch {
		case vault.CheckName(v.Site) != nil, seen[v.Site], v.Site == w.Vantage:
			return fmt.Errorf("a view of site %q is not possible", v.Site)
		case v.View != declare.Alive && v.View != declare.Lost && v.View != declare.Blind:
			return fmt.Errorf("site %s is %q", v.Site, v.View)
		}
		seen[v.Site] = true
	}
	return nil
}
