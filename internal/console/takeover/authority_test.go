package takeover_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"os"
	"syscall"
	"testing"
)

// vouched is how many authorities the file of a console vouches for.
func (r *rig) vouched(c *console) int {
	text, err := os.ReadFile(c.dir + "/ca.pem")
	r.must(err)
	return bytes.Count(text, []byte("BEGIN CERTIFICATE"))
}

// The authority is replaced with a loss of the active console in between: the other one
// knows both, and retires the former.
func TestAuthorityReplaced(t *testing.T) {
	r := newRig(t, directory(t))
	rotate := func(c *console, more ...string) error {
		return r.run(c, append([]string{"console", "authority", "rotate", "--data", c.dir, "--project", project}, more...)...)
	}
	if err := rotate(r.a, "--retire"); err == nil {
		t.Error("the only authority was retired")
	}
	r.must(rotate(r.a))
	if err := rotate(r.a); err == nil {
		t.Error("a third authority was begun")
	}
	for _, c := range []*console{r.a, r.b} {
		until(t, "vouched for both", func() bool { return r.vouched(c) == 2 })
	}
	c := r.console("c") // joins while both are trusted
	r.must(r.run(c, append([]string{"console", "join", "--data", c.dir, "--recovery-key-file", r.dir + "/key"}, r.place.flags...)...))
	r.serve(c)
	until(t, "following", func() bool { return r.passive(c) && r.vouched(c) == 2 })
	r.signal(c, syscall.SIGKILL)
	r.signal(r.a, syscall.SIGKILL)
	until(t, "active", func() bool { return r.active(r.b) })
	r.call(r.b, r.token, "GET", "/projects/"+project+"/tokens", nil, nil)
	r.must(rotate(r.b, "--retire"))
	until(t, "vouched for the newer one", func() bool { return r.vouched(r.b) == 1 })
	until(t, "strange to who knows the former one alone", func() bool {
		r.web.CloseIdleConnections()
		code, _ := r.state(r.b, "/healthz")
		return code == 0
	})
	text, err := os.ReadFile(r.b.dir + "/ca.pem")
	r.must(err)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(text)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}
	t.Cleanup(transport.CloseIdleConnections)
	r.web = &http.Client{Transport: transport}
	r.call(r.b, r.token, "GET", "/projects/"+project+"/tokens", nil, nil)
	r.serve(r.a)
	until(t, "following", func() bool { return r.passive(r.a) && r.vouched(r.a) == 1 })
	for _, c := range []*console{r.a, r.b} { // an authority that it had not taken up yet is no damage
		text, err := os.ReadFile(c.log.Name())
		r.must(err)
		if bytes.Contains(text, []byte("object damaged")) {
			t.Errorf("%s", text)
		}
	}
}
