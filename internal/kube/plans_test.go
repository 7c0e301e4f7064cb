package kube_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/kube/plans"
	"davit.dev/davit/internal/shelf"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/mem"
)

var errRefused = errors.New("refused")

// refusing is a store that does not give out some objects.
type refusing struct {
	vault.Store
	part string
}

func (r *refusing) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if r.part != "" && strings.Contains(key, r.part) {
		return nil, errRefused
	}
	return r.Store.Get(ctx, key, offset, length)
}

// shelved is a vault with plans, and what is known of them.
type shelved struct {
	t       *testing.T
	store   *refusing
	project *vault.Project
	known   *plans.Automatic
}

func newShelved(t *testing.T) *shelved {
	t.Helper()
	now := time.Date(2026, 11, 27, 8, 0, 0, 0, time.UTC)
	key, err := vault.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	s := &shelved{t: t, store: &refusing{Store: mem.New(func() time.Time { return now })}}
	if s.project, err = vault.CreateProject(t.Context(), s.store, "default", key.Recipient()); err != nil {
		t.Fatal(err)
	}
	s.known = &plans.Automatic{Now: func() time.Time { return now }}
	return s
}

func (s *shelved) put(automatic bool) {
	s.t.Helper()
	document, err := plans.Document(&v1alpha1.RecoveryPlan{ObjectMeta: metav1.ObjectMeta{Name: "shop"}, Spec: v1alpha1.RecoveryPlanSpec{Declaration: v1alpha1.PlanDeclaration{Automatic: automatic}}})
	if err != nil {
		s.t.Fatal(err)
	}
	if _, err := shelf.New(s.project).Put(s.t.Context(), shelf.Sheet{Plan: "shop", Site: "east", Document: document}); err != nil {
		s.t.Fatal(err)
	}
}

// write puts what this davit cannot read in the place of a revision.
func (s *shelved) write(revision, text string) {
	s.t.Helper()
	if err := s.project.WriteSealed(s.t.Context(), s.project.Root()+"plans/shop/"+revision, []byte(text)); err != nil {
		s.t.Fatal(err)
	}
}

func (s *shelved) want(when string, plans int, none bool, failure error) {
	s.t.Helper()
	all, err := s.known.Plans(s.t.Context(), s.project)
	if !errors.Is(err, failure) || err == nil && len(all) != plans || s.known.None() != none {
		s.t.Errorf("%s: %d plans, none %v, %v", when, len(all), s.known.None(), err)
	}
}

// TestAReadThatFailsOnceIsTriedAgain, and what was known before is not forgotten.
func TestAReadThatFailsOnceIsTriedAgain(t *testing.T) {
	s := newShelved(t)
	s.want("no plan", 0, true, nil)
	s.put(true)
	s.store.part = "plans/shop"
	s.want("the first read fails", 0, true, errRefused)
	s.store.part = ""
	s.want("it is read", 1, false, nil)
	s.put(false)
	s.store.part = "plans/shop"
	s.want("the second read fails", 1, false, errRefused)
	s.store.part = ""
	s.want("people declare", 0, true, nil)
}

// TestAPlanThatNobodyReadsMayBeAutomatic: a damaged one, and one of a newer format.
func TestAPlanThatNobodyReadsMayBeAutomatic(t *testing.T) {
	newer, err := json.Marshal(shelf.Sheet{FormatVersion: 99, Plan: "shop", Revision: 2})
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"damaged": "{", "newer": string(newer)} {
		s := newShelved(t)
		s.write("00000000000000000001", text)
		s.want(name+", from the first on", 0, false, nil)
		s = newShelved(t)
		s.put(true)
		s.want(name+", not yet", 1, false, nil)
		s.write("00000000000000000002", text)
		s.want(name+", then", 1, false, nil)
	}
}
