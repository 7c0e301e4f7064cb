package keeping

import (
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"davit.dev/davit/api/v1alpha1"
)

func TestFlags(t *testing.T) {
	for args, want := range map[string]string{
		"":                   "",
		"--verify-every 24h": "every 1d, the newest point, whole",
		"--verify-cron 0_3_*_*_* --verify-newest 3": "at 0 3 * * * UTC, the newest 3 points, whole",
		"--verify-every 1h --verify-sample 10":      "every 1h, the newest point, 10 % of the data each time",
		"--verify-every 1h --verify-blobs":          "every 1h, the newest point, whole, and as much of every blob of volume data",
		"--verify-blobs":                            "error: nothing says when",
		"--verify-sample 10":                        "error: nothing says when",
		"--verify-every 1h --verify-sample 101":     "error: not possible",
		"--verify-every 1h --verify-newest -1":      "error: not possible",
		"--verify-every 5s":                         "error: less than 1m",
		"--verify-every 1h --verify-cron x":         "error: not both",
		"--verify-cron every_day":                   "error: --verify-cron",
	} {
		var f Flags
		set := pflag.NewFlagSet("", pflag.ContinueOnError)
		f.Register(set)
		var given []string
		for _, arg := range strings.Fields(args) {
			given = append(given, strings.ReplaceAll(arg, "_", " "))
		}
		if err := set.Parse(given); err != nil {
			t.Fatal(err)
		}
		policy := &v1alpha1.ProtectionPolicy{}
		err := f.Apply(&policy.Spec)
		if err == nil {
			err = f.Finish(&policy.Spec)
		}
		if fault, bad := strings.CutPrefix(want, "error: "); bad {
			if err == nil || !strings.Contains(err.Error(), fault) {
				t.Errorf("%q: %v, want %q", args, err, fault)
			}
			continue
		}
		if got := Verifies(policy); err != nil || got != want {
			t.Errorf("%q: %q, %v; want %q", args, got, err, want)
		}
	}
}

func TestVerified(t *testing.T) {
	now := time.Date(2026, 5, 6, 7, 8, 9, 0, time.UTC)
	at := func(d time.Duration) *metav1.Time { return &metav1.Time{Time: now.Add(-d)} }
	for want, status := range map[string]*v1alpha1.VerificationStatus{
		"":                                   nil,
		"1h ago (sample, 1 point, 0 B read)": {At: at(time.Hour), How: "sample", Points: []string{"p"}},
		"DAMAGED: [p]":                       {At: at(time.Hour), How: "full", Points: []string{"p"}, Damaged: []string{"p"}},
		"tried without a verdict 5m ago: no answer": {TriedAt: at(5 * time.Minute), Error: "no answer"},
	} {
		if got := Verified(status, now); !strings.Contains(got, want) || want == "" && got != "" {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
