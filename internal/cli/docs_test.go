package cli

import (
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/cli/hook"
	"davit.dev/davit/internal/cli/order"
	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/point"
)

// Every command has a section in docs/cli.md, every flag is named there, and
// commands that change something have --dry-run.
func TestDocumentation(t *testing.T) {
	text := commandsPage
	e := &env{program: "davit", now: time.Now, progress: &output.Progress{}}
	var visit func(cmd *cobra.Command)
	visit = func(cmd *cobra.Command) {
		if cmd.Hidden || cmd.Name() == "help" || cmd.Name() == "exit-codes" || cmd.HasParent() && cmd.Parent().Name() == "completion" {
			return
		}
		if cmd.HasParent() && cmd.Name() != "vault" && !strings.Contains(text, "### "+cmd.CommandPath()+"\n") {
			t.Errorf("docs/cli.md has no section %q", cmd.CommandPath())
		}
		check := func(f *pflag.Flag) {
			if !strings.Contains(text, "`--"+f.Name) && !strings.Contains(text, " --"+f.Name) {
				t.Errorf("docs/cli.md does not name --%s of %s", f.Name, cmd.CommandPath())
			}
		}
		cmd.LocalFlags().VisitAll(check)
		for _, child := range cmd.Commands() {
			visit(child)
		}
	}
	root := e.root()
	visit(root)
	for line := range strings.Lines(exit.Help) { // "  3  refused: ..."
		if code, _, ok := strings.Cut(strings.TrimPrefix(line, "  "), "  "); ok && len(code) == 1 && !strings.Contains(text, "\n| "+code+" | ") {
			t.Errorf("docs/cli.md does not name exit code %s", code)
		}
	}
	for _, name := range []string{"install", "uninstall", "vault add", "protect", "unprotect", "pause", "resume", "backup", "points pin", "points unpin", "points delete", "restore", "verify"} {
		cmd, _, err := root.Find(strings.Fields(name))
		if err != nil || cmd.Flags().Lookup("dry-run") == nil {
			t.Errorf("%s changes something and has no --dry-run (%v)", name, err)
		}
	}
}

func TestParseInstant(t *testing.T) {
	now := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Time{
		"": {}, "10m": now.Add(-10 * time.Minute), "1h ago": now.Add(-time.Hour), "2026-01-31T11:00:00+01:00": now.Add(-2 * time.Hour),
		"2026-01-31 11:30": now.Add(-30 * time.Minute), "2026-01-31T11:30:15": now.Add(-30*time.Minute + 15*time.Second),
	} {
		got, err := order.Instant(text, now)
		if err != nil || !got.Equal(want) {
			t.Errorf("order.Instant(%q) = %v, %v; want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"-5m", "noon", "2026-13-01T00:00:00Z"} {
		if got, err := order.Instant(text, now); err == nil {
			t.Errorf("order.Instant(%q) = %v", text, got)
		}
	}
}

func TestParseHook(t *testing.T) {
	h, err := hook.Parse("name=q; pods=app=db,tier in (a,b); container=pg; before=psql -c 'SELECT 1=1'; after=true; timeout=5s; on-error=Continue")
	if err != nil {
		t.Fatal(err)
	}
	if h.Name != "q" || h.PodSelector.MatchLabels["app"] != "db" || h.Before[2] != "psql -c 'SELECT 1=1'" || h.Timeout.Duration != 5*time.Second {
		t.Errorf("hook %+v", h)
	}
	held, err := hook.Parse("name=q; pods=app=db; order=2; hold=exec hold.sh; marker=HELD; ask=still?; limit=20s")
	if err != nil || held.Order != 2 || held.Hold.Command[2] != "exec hold.sh" || held.Hold.Marker != "HELD" || held.Hold.Ask != "still?" || held.Hold.Limit.Duration != 20*time.Second {
		t.Errorf("hook %+v, %v", held, err)
	}
	for _, text := range []string{"name", "pods=a in", "timeout=x", "on-error=Maybe", "what=x", "order=first", "limit=-1s"} {
		if _, err := hook.Parse(text); err == nil {
			t.Errorf("Parse(%q) was taken", text)
		}
	}
}

func TestNamesOfPoints(t *testing.T) {
	for _, app := range []string{"shop", "team.shop", "a-b-c"} {
		id, err := point.NewID(app, time.Unix(1_700_000_000, 0), strings.NewReader("abcdef"))
		if err != nil || !order.IsPoint(id) || order.AppOfPoint(id) != app {
			t.Errorf("%s: isPoint %t, appOfPoint %q (%v)", id, order.IsPoint(id), order.AppOfPoint(id), err)
		}
		if order.IsPoint(app) {
			t.Errorf("%s is taken for a point", app)
		}
	}
}
