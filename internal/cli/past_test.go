package cli_test

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"davit.dev/davit/internal/cli/access"
	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/cli/past"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/history"
	"davit.dev/davit/internal/vault/mem"
)

// kept is a store with one former version, of a point's manifest that was deleted.
type kept struct {
	vault.Store
	freed []string
}

const pastManifest = "projects/default/manifests/shop/shop-1"

var pastNow = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

func (k *kept) KeepsVersions(context.Context) (bool, error) { return true, nil }

func (k *kept) ListVersions(_ context.Context, _ string, fn func(history.Version) error) error {
	if len(k.freed) > 0 {
		return nil
	}
	return errors.Join(
		fn(history.Version{Key: pastManifest, ID: "2", Modified: pastNow.Add(-50 * time.Hour), Latest: true, Marker: true}),
		fn(history.Version{Key: pastManifest, ID: "1", Modified: pastNow.Add(-90 * time.Hour), Size: 10}),
	)
}

func (k *kept) DeleteVersion(_ context.Context, _, id string) error {
	k.freed = append(k.freed, id)
	return nil
}

func (k *kept) SetVersions(context.Context) error   { return vault.ErrDenied }
func (k *kept) RewritePolicy(context.Context) error { return vault.ErrDenied }

func (k *kept) GetVersion(context.Context, string, string, int64, int64) (io.ReadCloser, error) {
	return nil, vault.ErrNotFound
}

func runPast(t *testing.T, store vault.Store, answer error, args ...string) (said string, err error) {
	t.Helper()
	var text strings.Builder
	h := past.Host{
		Bounded: func(*cobra.Command) (context.Context, context.CancelFunc) { return context.WithCancel(t.Context()) },
		Store: func(context.Context, *cobra.Command, *access.Address) (vault.Store, error) {
			return store, nil
		},
		Print: func(r output.Result) error {
			out := &output.Text{}
			r.Text(out)
			text.WriteString(out.String())
			return nil
		},
		Step: func(string, ...any) {}, Say: func(string, ...any) {},
		Ask:  func(string, string) error { return answer },
		Now:  func() time.Time { return pastNow },
		Args: func(n int, _ string) cobra.PositionalArgs { return cobra.ExactArgs(n) },
	}
	root := &cobra.Command{Use: "vault", SilenceErrors: true, SilenceUsage: true}
	root.AddCommand(past.Revert(h), past.Reclaim(h))
	root.SetArgs(args)
	err = root.ExecuteContext(t.Context())
	return text.String(), err
}

func TestReclaim(t *testing.T) {
	const url = "--vault-url=s3://b/p"
	no := errors.New("no")
	for name, c := range map[string]struct {
		answer error
		args   []string
		says   string
		fails  bool
		freed  int
	}{
		"by its address only": {args: []string{"reclaim", "--older-than=48h", "--yes"}, fails: true},
		"too young":           {args: []string{"reclaim", url, "--older-than=1h", "--yes"}, fails: true},
		"no time":             {args: []string{"reclaim", url, "--yes"}, fails: true},
		"a dry run":           {args: []string{"reclaim", url, "--older-than=48h", "--dry-run"}, says: "1 former version to be freed (10 B) that were hidden before"},
		"not old enough":      {args: []string{"reclaim", url, "--older-than=60h", "--yes"}, says: "0 former versions"},
		"not agreed to":       {args: []string{"reclaim", url, "--older-than=48h"}, answer: no, fails: true},
		"agreed to":           {args: []string{"reclaim", url, "--older-than=48h"}, says: "1 recovery point among them", freed: 2},
		"without asking":      {args: []string{"reclaim", url, "--older-than=48h", "--yes"}, answer: no, says: "1 former version freed", freed: 2},
	} {
		k := &kept{Store: mem.New(nil)}
		said, err := runPast(t, k, c.answer, c.args...)
		if c.fails != (err != nil) || !strings.Contains(said, c.says) || len(k.freed) != c.freed {
			t.Errorf("%s: said %q, %v, freed %v", name, said, err, k.freed)
		}
	}
	if _, err := runPast(t, mem.New(nil), nil, "reclaim", url, "--older-than=48h", "--yes"); !exit.IsRefusal(err) {
		t.Errorf("a store without versions: %v", err)
	}
}

func TestRevertRefuses(t *testing.T) {
	key, err := vault.NewRecoveryKey()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, []byte(key.Secret()), 0o600); err != nil {
		t.Fatal(err)
	}
	const url = "--vault-url=s3://b/p"
	for name, args := range map[string][]string{
		"no time":          {"revert", url, "--recovery-key-file=" + file},
		"nonsense":         {"revert", url, "--recovery-key-file=" + file, "--to=yesterday"},
		"the future":       {"revert", url, "--recovery-key-file=" + file, "--to=2026-01-02T12:00:01Z"},
		"no key":           {"revert", url, "--to=1h"},
		"no address":       {"revert", "--recovery-key-file=" + file, "--to=1h"},
		"no vault then":    {"revert", url, "--recovery-key-file=" + file, "--to=60h"},
		"nothing was kept": {"revert", url, "--recovery-key-file=" + file, "--to=1000h"},
	} {
		k := &kept{Store: mem.New(nil)}
		if said, err := runPast(t, k, nil, args...); err == nil || exit.Code(err) != 2 && exit.Code(err) != 3 {
			t.Errorf("%s: said %q, %v", name, said, err)
		}
	}
}
