package application

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/reconcile/measure"
)

// TestTheAgeOfAPointIsNeverNegative: who captured it may have a clock that is ahead.
func TestTheAgeOfAPointIsNeverNegative(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for offset, want := range map[time.Duration]float64{-time.Minute: 60, time.Minute: 0} {
		app := &v1alpha1.Application{ObjectMeta: metav1.ObjectMeta{Namespace: "aged", Name: "aged"}}
		app.Status.NewestInstant = &metav1.Time{Time: now.Add(offset)}
		(&scope{app: app, now: now}).measure(0)
		all := prometheus.NewRegistry()
		all.MustRegister(measure.NewestPointAge)
		families, err := all.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range families[0].GetMetric() {
			if m.GetLabel()[0].GetValue() == app.VaultName() && m.GetGauge().GetValue() != want {
				t.Errorf("%s: %g s, want %g", offset, m.GetGauge().GetValue(), want)
			}
		}
		measure.ForgetApplication(app.VaultName())
	}
}
