package cli_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"davit.dev/davit/internal/cli/access"
	"davit.dev/davit/internal/cli/witness"
	"davit.dev/davit/internal/vantage"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/backend"
	"davit.dev/davit/internal/vault/mem"
)

// TestAWitnessSaysWhatItSees with the vault's address and a key alone, and takes
// no site's name.
func TestAWitnessSaysWhatItSees(t *testing.T) {
	store := mem.New(time.Now)
	key, err := vault.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	p, err := vault.CreateProject(t.Context(), store, "default", key.Recipient())
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Heartbeat(t.Context(), vault.SiteStatus{Site: "east", Cluster: "e"}); err != nil {
		t.Fatal(err)
	}
	if err := vantage.Say(t.Context(), p, vantage.Word{Vantage: "east", Cluster: "e", Process: "x", Number: 1}); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, []byte(key.Secret()), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(ctx context.Context, args ...string) error {
		cmd := witness.Command(witness.Host{Err: t.Output(), Now: time.Now, Opener: func() *access.Opener {
			return &access.Opener{
				Getenv: func(string) string { return "" },
				Store:  func(context.Context, backend.Config) (vault.Store, error) { return store, nil },
			}
		}})
		cmd.SetArgs(append(args, "--vault-url", "file:///vault", "--recovery-key-file", file))
		cmd.SilenceErrors, cmd.SilenceUsage = true, true
		return cmd.ExecuteContext(ctx)
	}
	for want, name := range map[string]string{"east is a site": "east", "--name": "no/name"} {
		if err := run(t.Context(), "--name", name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, "--name", "witness") }()
	limit := time.After(time.Minute)
	for {
		words, _, err := vantage.Hear(t.Context(), p)
		if err != nil {
			t.Fatal(err)
		}
		if w := words["witness"]; len(w.Views) == 1 && w.Views[0].Site == "east" && w.Cluster == "" {
			break
		}
		select {
		case err := <-ended:
			t.Fatalf("it ended: %v", err)
		case <-limit:
			t.Fatalf("it says nothing: %+v", words)
		case <-time.After(time.Millisecond):
		}
	}
	stop()
	<-ended
}
