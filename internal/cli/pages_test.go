package cli

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/runbook"
)

// given are the commands of davit that a page tells people to give: lines of its sh blocks,
// and what it quotes.
func given(page string) (all []string) {
	for i, part := range strings.Split(page, "```") {
		if i%2 == 0 {
			for j, code := range strings.Split(part, "`") {
				if j%2 == 1 {
					all = append(all, code)
				}
			}
			continue
		}
		if block, isShell := strings.CutPrefix(part, "sh\n"); isShell {
			all = append(all, strings.Split(strings.ReplaceAll(block, "\\\n", " "), "\n")...)
		}
	}
	var commands []string
	for _, line := range all {
		line, _, _ = strings.Cut(strings.TrimSpace(line), " #")
		for _, one := range strings.FieldsFunc(line, func(c rune) bool { return c == '|' || c == ';' || c == '&' }) {
			if bare, ours := strings.CutPrefix(strings.TrimSpace(one), "davit "); ours {
				bare, _, _ = strings.Cut(bare, " > ")
				commands = append(commands, bare)
			}
		}
	}
	return commands
}

// noLetter says which flag of one letter a command lacks.
func noLetter(root *cobra.Command, line string) string {
	cmd, rest, err := root.Find(strings.Fields(line))
	if err != nil {
		return err.Error()
	}
	for _, word := range rest {
		if len(word) == 2 && word[0] == '-' && 'a' <= word[1] && word[1] <= 'z' && word != "-h" && cmd.Flags().ShorthandLookup(word[1:]) == nil && cmd.InheritedFlags().ShorthandLookup(word[1:]) == nil {
			return cmd.CommandPath() + " has no " + word
		}
	}
	return ""
}

// TestPagesAndBooks: commands that the pages and the runbooks tell people to give are there,
// with the flags that they name.
func TestPagesAndBooks(t *testing.T) {
	root := (&env{program: "davit", now: time.Now, progress: &output.Progress{}}).root()
	root.InitDefaultCompletionCmd("completion", "bash")
	root.InitDefaultHelpCmd()
	if got := given("a `davit runs shaw x`\n```sh\nx | davit points --everything # all\n```\n```yaml\ndavit no\n```"); len(got) != 2 || wrong(root, got[0]) == "" || wrong(root, got[1]) == "" || noLetter(root, "restore -f x") == "" || noLetter(root, "drill -f x -o json") != "" {
		t.Fatalf("the check does not find what it is for: %q", got)
	}
	pages := map[string]string{}
	for _, pattern := range []string{"../../README.md", "../../CONTRIBUTING.md", "../../docs/*.md"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %v", pattern, err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			pages[file] = string(text)
		}
	}
	p := &plan.Plan{
		Name: "shop", Sites: []plan.Site{{Name: "east"}, {Name: "west"}}, Applications: []plan.Application{{Name: "db"}, {Name: "web", After: []string{"db"}}},
		Approvals: []plan.Approval{{Count: 2}}, Traffic: []plan.Traffic{{Name: "front", Kind: plan.KindGate, Object: "www"}}, Fence: plan.Fence{Timeout: 30 * time.Second},
	}
	for _, verb := range plan.Verbs() {
		book, err := runbook.Make(runbook.Input{Plan: p, Verb: verb, From: "east", To: "west"})
		if err != nil {
			t.Fatal(err)
		}
		pages[fmt.Sprintf("the runbook of a %s", verb)] = book.Markdown()
	}
	found := 0
	for where, text := range pages {
		for _, line := range given(text) {
			found++
			if why := cmp.Or(wrong(root, line), noLetter(root, line)); why != "" {
				t.Errorf("%s: `davit %s`: %s", where, line, why)
			}
		}
	}
	if found < 300 {
		t.Errorf("only %d commands were found", found)
	}
}
