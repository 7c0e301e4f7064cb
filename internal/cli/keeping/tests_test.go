package keeping

import (
	"testing"
	"time"

	"github.com/spf13/pflag"

	"davit.dev/davit/api/v1alpha1"
)

func policyFrom(t *testing.T, args ...string) (*v1alpha1.ProtectionPolicySpec, error) {
	t.Helper()
	var f Flags
	flags := pflag.NewFlagSet("protect", pflag.ContinueOnError)
	f.Register(flags)
	if err := flags.Parse(args); err != nil {
		t.Fatal(err)
	}
	policy := &v1alpha1.ProtectionPolicySpec{}
	if err := f.Apply(policy); err != nil {
		return policy, err
	}
	return policy, f.Finish(policy)
}

func TestProbesAreRead(t *testing.T) {
	policy, err := policyFrom(t, "--test-every", "6h", "--test-newest", "2", "--test-timeout", "5m",
		"--test-probe", "name=rows; pods=app=db; container=pg; sql=psql SELECT count(*) FROM orders WHERE a=b; database=shop; user=shop; expect=^[1-9]; timeout=90s",
		"--test-probe", "name=files; namespace=shop; pods=app=web; exec=test -s /data/a",
		"--test-probe", "name=front; http=https://web:8443/healthz?full=1; status=204",
		"--test-probe", "name=job; job=tools:1; run=true")
	if err != nil {
		t.Fatal(err)
	}
	r := policy.RestoreTest
	if r.Every.Duration != 6*time.Hour || *r.Newest != 2 || r.Timeout.Duration != 5*time.Minute || len(r.Probes) != 4 {
		t.Fatalf("%+v", r)
	}
	sql, exec, http, job := r.Probes[0], r.Probes[1], r.Probes[2], r.Probes[3]
	if q := sql.SQL; q == nil || q.Query != "SELECT count(*) FROM orders WHERE a=b" || q.Client != "psql" || q.Database != "shop" || q.Container != "pg" ||
		q.Pods.MatchLabels["app"] != "db" || sql.Expect != "^[1-9]" || sql.Timeout.Duration != 90*time.Second {
		t.Errorf("%+v", sql)
	}
	if exec.Exec == nil || exec.Exec.Command[2] != "test -s /data/a" || exec.Namespace != "shop" {
		t.Errorf("%+v", exec)
	}
	if h := http.HTTP; h == nil || *h != (v1alpha1.HTTPProbe{Service: "web", Port: "8443", Path: "/healthz?full=1", Scheme: "https", Status: 204}) {
		t.Errorf("%+v", http)
	}
	if job.Job == nil || job.Job.Image != "tools:1" || job.Job.Command[2] != "true" {
		t.Errorf("%+v", job)
	}
}

func TestBadTestFlagsAreRefused(t *testing.T) {
	for name, args := range map[string][]string{
		"both":             {"--test-every", "1h", "--test-cron", "0 1 * * *"},
		"too often":        {"--test-every", "10s"},
		"cron":             {"--test-cron", "every day"},
		"probe, no time":   {"--test-probe", "name=a; http=web"},
		"no question":      {"--test-every", "1h", "--test-probe", "name=a"},
		"two questions":    {"--test-every", "1h", "--test-probe", "name=a; http=web; job=x"},
		"no name":          {"--test-every", "1h", "--test-probe", "http=web"},
		"same name":        {"--test-every", "1h", "--test-probe", "name=a; http=web", "--test-probe", "name=a; job=x"},
		"no pods":          {"--test-every", "1h", "--test-probe", "name=a; exec=true"},
		"unknown client":   {"--test-every", "1h", "--test-probe", "name=a; pods=a=b; sql=SELECT 1"},
		"unknown key":      {"--test-every", "1h", "--test-probe", "name=a; http=web; retries=3"},
		"expect":           {"--test-every", "1h", "--test-probe", "name=a; http=web; expect=("},
		"status":           {"--test-every", "1h", "--test-probe", "name=a; http=web; status=ok"},
		"timeout":          {"--test-every", "1h", "--test-probe", "name=a; http=web; timeout=soon"},
		"file":             {"--test-every", "1h", "--test-probes", "/nowhere"},
		"too short a test": {"--test-every", "1h", "--test-timeout", "1s"},
	} {
		if policy, err := policyFrom(t, args...); err == nil {
			t.Errorf("%s: taken: %+v", name, policy.RestoreTest)
		}
	}
}

func FuzzProbe(f *testing.F) {
	f.Add("name=a; pods=app=db; sql=psql SELECT 1; expect=1")
	f.Add("http=https://:/?;status=9")
	f.Fuzz(func(t *testing.T, text string) {
		if p, err := parseProbe(text); err == nil && p.HTTP != nil && p.HTTP.Service == "" {
			t.Errorf("%q asks no Service", text)
		}
	})
}
