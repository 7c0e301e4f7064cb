package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// dnsEndpoints is what matters of external-dns' definition here.
const dnsEndpoints = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: dnsendpoints.externaldns.k8s.io, annotations: {api-approved.kubernetes.io: "https://github.com/kubernetes-sigs/external-dns/pull/2007"}}
spec:
  group: externaldns.k8s.io
  scope: Namespaced
  names: {kind: DNSEndpoint, listKind: DNSEndpointList, plural: dnsendpoints, singular: dnsendpoint}
  versions:
  - name: v1alpha1
    served: true
    storage: true
    subresources: {status: {}}
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
`

// handedOver is the DNSEndpoint by which a site publishes the name, as docs/traffic.md has it.
const handedOver = `
apiVersion: externaldns.k8s.io/v1alpha1
kind: DNSEndpoint
metadata:
  namespace: davit-system
  name: %s
  labels: {davit.dev/moves-name: "true", davit.dev/exclude: "true"}
  annotations: {davit.dev/name-guard: "davit1 site=east run=by-hand seq=1 epoch.%[1]s=1"}
spec:
  endpoints: [{dnsName: www.shop.test, recordType: A, recordTTL: 5, targets: [%[2]s]}]
`

// log is what a process says while it runs.
type log struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Write implements io.Writer.
func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *log) count(what string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), what)
}

// publisher starts a site's external-dns. It ends with stop, at the latest with the test.
func publisher(t *testing.T, f *entrance, site, owner string) (said *log, stop func()) {
	t.Helper()
	said = &log{}
	cmd := exec.Command(os.Getenv("DAVIT_EXTERNAL_DNS"), "--kubeconfig", rig.Bed.Site(site).Kubeconfig(), "--rfc2136-host", f.host, "--rfc2136-zone", "shop.test",
		"--rfc2136-tsig-secret", wwwSecret, "--txt-owner-id", owner, "--policy", "upsert-only", "--label-filter", "davit.dev/moves-name=true", "--interval", "1s")
	cmd.Stdout, cmd.Stderr = said, said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var once sync.Once
	stop = func() { once.Do(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }) }
	t.Cleanup(func() {
		stop()
		if t.Failed() {
			t.Logf("external-dns of %s said:\n%s", site, said.text.String())
		}
	})
	return said, stop
}

// settled waits until external-dns has looked three more times.
func (l *log) settled(t *testing.T) {
	t.Helper()
	const looks = "All records are already up to date"
	before := l.count(looks)
	eventually(t, 3*time.Minute, "external-dns has looked again", func() (bool, string) {
		n := l.count(looks) - before
		return n >= 3, fmt.Sprint(n)
	})
}

// namedByExternalDNS moves a name that external-dns keeps, from a site that is dead, and takes
// care that it is not led back when that site revives. DAVIT_EXTERNAL_DNS is a program of external-dns'
// parts with the flags of publisher.
func namedByExternalDNS(t *testing.T) {
	if os.Getenv("DAVIT_EXTERNAL_DNS") == "" {
		t.Skip("DAVIT_EXTERNAL_DNS names no program")
	}
	a := &app{}
	a.protected(t)
	removeNamespace(t, west, a.name)
	t.Cleanup(func() { unprotect(west, a.name) })
	addresses := map[string]string{east: rig.Bed.Site(east).Address(), west: rig.Bed.Site(west).Address()}
	f := &entrance{app: a, host: strings.TrimSuffix(addresses[west], ".2") + ".1"}
	f.zone(t)
	for _, site := range []string{east, west} {
		apply(t, site, dnsEndpoints)
		t.Cleanup(func() {
			_, _ = rig.Kubectl(context.WithoutCancel(t.Context()), site, "delete", "crd", "dnsendpoints.externaldns.k8s.io", "--ignore-not-found", "--wait=false")
		})
		eventually(t, 3*time.Minute, site+" serves DNSEndpoints", func() (bool, string) {
			got := try(t, site, "get", "dnsendpoints", "-A")
			return !strings.HasPrefix(got, "error"), got
		})
	}
	apply(t, east, fmt.Sprintf(handedOver, a.name, addresses[east]))
	_, stop := publisher(t, f, east, "shop")
	f.leadsTo(t, addresses[east])
	f.ownersLeaveAlone(t, addresses)

	publisher(t, f, west, "shop")
	file := planOf(t, a, "5s")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	more := fmt.Sprintf("  traffic:\n    - name: www\n      kind: dns\n      object: %s\n      record: {zone: shop.test, provider: external-dns, endpoint: davit-system/%s, ttl: 5s, to: {east: [%s], west: [%s]}, servers: [{address: %s, watch: true}]}\n",
		wwwName, a.name, addresses[east], addresses[west], f.host)
	if err := os.WriteFile(file, append(text, more...), 0o600); err != nil {
		t.Fatal(err)
	}
	stop() // it is of the site
	if err := rig.Bed.Kill(t.Context(), east); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = rig.Bed.Revive(context.WithoutCancel(t.Context()), east) })
	var r runView
	davit(t, west, a.vault, "failover", "-f", file, "--lost", east, "--yes", "-o", "json").want(t, 0).read(t, &r)
	if status, _ := r.step("traffic/www"); r.State != "AwaitingCommit" || status != "Succeeded" {
		t.Errorf("%+v", r)
	}
	if got := f.leads(t); got != addresses[west] {
		t.Errorf("the name leads to %s, want %s", got, addresses[west])
	}
	davit(t, west, a.vault, "runs", "commit", r.Run).want(t, 0, "Completed")

	if err := rig.Bed.Revive(t.Context(), east); err != nil {
		t.Fatal(err)
	}
	said, _ := publisher(t, f, east, "shop")
	eventually(t, 3*time.Minute, "east's agent has emptied its DNSEndpoint", func() (bool, string) {
		got := try(t, east, "-n", system, "get", "dnsendpoint", a.name, "-o", `jsonpath={.spec.endpoints} {.metadata.annotations.davit\.dev/name-guard}`)
		return strings.HasPrefix(got, "[] ") && strings.Contains(got, "epoch."+a.name+"=2"), got
	})
	f.leadsTo(t, addresses[west])
	said.settled(t)
	f.leadsTo(t, addresses[west])
	t.Logf("east's external-dns led clients back %d times before its agent had emptied the object", said.count("Adding RR: www.shop.test 5 A "+addresses[east]))
}

// zone starts a BIND whose zone has no name yet, and that gives it to whoever has the key.
func (f *entrance) zone(t *testing.T) {
	t.Helper()
	zone := configured(t, "zone", "$TTL 5\n@ IN SOA ns1 admin 1 60 10 3600 5\n@ IN NS ns1\nns1 IN A %s\n", f.host)
	daemon(t, "/usr/sbin/named", "-g", "-n", "1", "-c", configured(t, "named.conf", `
key "davit" { algorithm hmac-sha256; secret "%s"; };
options { directory "%s"; pid-file none; session-keyfile none; listen-on { %s; }; listen-on-v6 { none; }; recursion no; notify no; dnssec-validation no; };
controls { };
zone "shop.test" { type primary; file "%s"; allow-transfer { key davit; }; update-policy { grant davit zonesub ANY; }; };
`, wwwSecret, filepath.Dir(zone), f.host, zone))
	eventually(t, 3*time.Minute, "BIND answers", func() (bool, string) {
		all, err := f.resolver().LookupNetIP(t.Context(), "ip4", "ns1.shop.test.")
		return err == nil, fmt.Sprint(all, err)
	})
}

func (f *entrance) leadsTo(t *testing.T, address string) {
	t.Helper()
	eventually(t, 3*time.Minute, "the name leads to "+address, func() (bool, string) {
		got := f.leads(t)
		return got == address, got
	})
}

// ownersLeaveAlone: with an owner for each site, a record stays where the other
// site's external-dns has led it. That is why the documents have one owner.
func (f *entrance) ownersLeaveAlone(t *testing.T, addresses map[string]string) {
	t.Helper()
	apply(t, west, fmt.Sprintf(handedOver, f.app.name, addresses[west]))
	said, stop := publisher(t, f, west, "west")
	said.settled(t)
	stop()
	if got := f.leads(t); got != addresses[east] {
		t.Errorf("another owner moved the name to %s", got)
	}
	kubectl(t, west, "-n", system, "delete", "dnsendpoint", f.app.name)
}
