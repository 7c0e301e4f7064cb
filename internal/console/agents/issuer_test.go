package agents

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"log/slog"
	"net/http"
	"testing"
	"time"

	"davit.dev/davit/internal/console/authority"
	"davit.dev/davit/internal/uplink"
)

// Who is over to a newer authority is told by who signed, and not by when: a console whose
// clock was ahead gave a certificate of the former one that looks younger than the newer
// authority, and one whose clock is behind gives one of the newer that looks older.
func TestOverIsByIssuer(t *testing.T) {
	w := newWorld(t)
	p, recovery := w.vaults["acme"], w.recovery["acme"]
	both, err := authority.Rotate(t.Context(), p, recovery, w.now)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	came := func(by *authority.Authority, given time.Time, trusted ...*authority.Authority) int64 {
		t.Helper()
		who := uplink.Identity{Project: "acme", Site: "east", Enrolment: "1"}
		cert, err := by.Agent(key.Public(), "acme/east", who.URL(), given)
		if err != nil {
			t.Fatal(err)
		}
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(both.Roots())
		chains, err := cert.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: w.now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
		if err != nil {
			t.Fatal(err)
		}
		r := (&http.Request{}).WithContext(t.Context())
		w.server.noteIssuer(&call{door: &door{project: w.project("acme"), authorities: trusted}, r: r, who: who, chains: chains})
		n, err := Issuer(t.Context(), w.project("acme"), "east")
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	newer, former := both, both.Former[0]
	w.server.Log = slog.New(slog.DiscardHandler)
	if n := came(former, w.now.Add(5*time.Minute), newer, former); n != 1 {
		t.Errorf("given by the former one by a clock that was ahead: %d", n)
	}
	if n := came(newer, w.now.Add(-5*time.Minute), newer, former); n != 2 {
		t.Errorf("given by the newer one by a clock that was behind: %d", n)
	}
	if n := came(former, w.now, newer, former); n != 1 {
		t.Errorf("what it had is in use again: %d", n)
	}
	if n := came(former, w.now, newer); n != 0 {
		t.Errorf("by nobody who is trusted: %d", n)
	}
}
