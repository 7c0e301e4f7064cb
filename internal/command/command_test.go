package command_test

import (
	"testing"

	"davit.dev/davit/internal/command"
)

func TestNamed(t *testing.T) {
	for text, want := range map[string]string{
		"look with `points --all`, or `kubectl get pods`": "look with `kubectl davit points --all`, or `kubectl get pods`",
		"`davit runs show x` and `failback x`":            "`kubectl davit runs show x` and `kubectl davit failback x`",
		"`kubectl davit runs ls` stays":                   "`kubectl davit runs ls` stays",
		"`davit` and `nothing`, `points":                  "`davit` and `nothing`, `points",
		"points":                                          "points",
	} {
		got := command.Named("kubectl davit", text)
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
		if again := command.Named("kubectl davit", got); again != got {
			t.Errorf("named twice: %q", again)
		}
	}
}
