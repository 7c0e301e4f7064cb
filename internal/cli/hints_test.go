package cli

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/command"
)

// quoted are the commands that a text quotes.
func quoted(text string) (all []string) {
	parts := strings.Split(text, "`")
	for i := 1; i < len(parts); i += 2 {
		bare := strings.TrimPrefix(parts[i], "davit ")
		if word, _, _ := strings.Cut(bare, " "); command.Is(word) {
			all = append(all, bare)
		}
	}
	return all
}

// wrong says what is wrong with a command that people are told to give.
func wrong(root *cobra.Command, line string) string {
	cmd, rest, err := root.Find(strings.Fields(line))
	if err != nil {
		return err.Error()
	}
	if cmd.HasSubCommands() && len(rest) > 0 && cmd.Args != nil && cmd.ValidateArgs(rest[:1]) != nil && !strings.HasPrefix(rest[0], "-") && strings.ToLower(rest[0]) == rest[0] {
		return cmd.CommandPath() + " has no command " + rest[0]
	}
	for _, word := range rest {
		name, isFlag := strings.CutPrefix(strings.TrimRight(word, ",.;:…"), "--")
		if name, _, _ = strings.Cut(name, "="); !isFlag || name == "" || name == "help" {
			continue
		}
		if cmd.Flag(name) == nil && cmd.InheritedFlags().Lookup(name) == nil {
			return cmd.CommandPath() + " has no --" + name
		}
	}
	return ""
}

// flat is a text that a program puts together, with X for what is not known.
func flat(e ast.Expr) (text string, isText bool) {
	switch e := e.(type) {
	case *ast.BasicLit:
		s, err := strconv.Unquote(e.Value)
		return s, err == nil && e.Kind == token.STRING
	case *ast.BinaryExpr:
		if e.Op == token.ADD {
			a, isA := flat(e.X)
			b, isB := flat(e.Y)
			return a + b, isA || isB
		}
	case *ast.ParenExpr:
		return flat(e.X)
	}
	return "X", false
}

// texts calls fn with each text in the sources below a directory.
func texts(t *testing.T, dir string, fn func(where, text string)) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
			return err
		}
		files := token.NewFileSet()
		f, err := parser.ParseFile(files, path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		ast.Inspect(f, func(n ast.Node) bool {
			e, isExpr := n.(ast.Expr)
			if !isExpr {
				return true
			}
			text, isText := flat(e)
			if isText {
				fn(files.Position(e.Pos()).String(), text)
			}
			return !isText
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Commands that hints and other texts quote are there, with the flags that they name.
// That the program's name stands in front of each, package command sees to, if it knows
// all commands.
func TestQuotedCommands(t *testing.T) {
	e := &env{program: "davit", now: time.Now, progress: &output.Progress{}}
	root := e.root()
	root.InitDefaultCompletionCmd("completion", "bash")
	root.InitDefaultHelpCmd()
	for _, cmd := range root.Commands() {
		if !cmd.Hidden && !command.Is(cmd.Name()) {
			t.Errorf("package command does not know %q", cmd.Name())
		}
	}
	for _, line := range []string{"runs shaw x", "points --everything", "vault keys"} { // the check finds what it is for
		if (wrong(root, line) == "") != (line == "vault keys") {
			t.Errorf("%q: %q", line, wrong(root, line))
		}
	}
	found := 0
	texts(t, "..", func(where, text string) {
		for _, line := range quoted(text) {
			found++
			if why := wrong(root, line); why != "" {
				t.Errorf("%s: `%s`: %s", where, line, why)
			}
		}
	})
	if found < 100 {
		t.Errorf("only %d commands were found", found)
	}
}
