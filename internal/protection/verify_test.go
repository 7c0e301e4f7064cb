package protection

import (
	"context"
	"errors"
	"testing"

	"davit.dev/davit/internal/vault"
)

// TestSampleIsNoWholeProof: a sample is told, and what keeps the last verified
// point from expiring is a whole proof only.
func TestSampleIsNoWholeProof(t *testing.T) {
	r := newRig(t)
	r.claim()
	m := r.mustCapture()
	for _, test := range []struct {
		sample int
		how    string
		whole  bool
	}{{10, vault.HowSample, false}, {100, vault.HowFull, true}} {
		report, err := r.east.Verify(t.Context(), "shop", m.ID, VerifyOptions{Sample: test.sample, SampleFrom: 30})
		if err != nil || report.How != test.how || r.repo.asked.Sample != test.sample || r.repo.asked.SampleFrom != 30 || !r.repo.asked.ReadAll {
			t.Fatalf("%d %%: %+v, %v; asked the repository for %+v", test.sample, report, err, r.repo.asked)
		}
		infos, points, err := r.east.Points(t.Context(), "shop")
		if err != nil {
			t.Fatal(err)
		}
		last := infos[0].Marks[len(infos[0].Marks)-1]
		if last.How != test.how || points[0].Verified.IsZero() == test.whole {
			t.Errorf("%d %%: mark %+v, verified %s", test.sample, last, points[0].Verified)
		}
	}
}

// TestPointDeletedWhileReadIsNotDamaged: what goes missing then is no damage,
// and no mark outlives the point. The same loss without the deletion is damage.
func TestPointDeletedWhileReadIsNotDamaged(t *testing.T) {
	for name, test := range map[string]struct {
		hurt func(r *rig, id string)
		want error
	}{
		"deleted": {func(r *rig, id string) {
			if err := r.project.DeletePoint(context.Background(), "shop", id); err != nil {
				t.Error(err)
			}
		}, vault.ErrNotFound},
		"being deleted": {func(r *rig, id string) {
			if err := r.project.Mark(context.Background(), "shop", id, vault.Mark{Kind: vault.MarkDeleting}); err != nil {
				t.Error(err)
			}
		}, vault.ErrNotFound},
		"damaged": {func(*rig, string) {}, ErrDamaged},
	} {
		r := newRig(t)
		r.claim()
		m := r.mustCapture()
		r.repo.damaged = true
		r.repo.onVerify = func() { test.hurt(r, m.ID) }
		_, err := r.east.Verify(t.Context(), "shop", m.ID, VerifyOptions{})
		if damaged := errors.Is(test.want, ErrDamaged); !errors.Is(err, test.want) || !damaged && errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
		if name == "deleted" && len(r.keys("marks")) != 0 {
			t.Errorf("%s: marks left: %q", name, r.keys("marks"))
		}
	}
}
