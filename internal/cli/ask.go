package cli

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"

	"davit.dev/davit/internal/cli/exit"
)

// askFor has a person type a name as a sign that they know what they do.
func (e *env) askFor(name, what string) error {
	e.progress.Done()
	fmt.Fprintf(e.Err, "Type %s, %s, to go on: ", what, name)
	line, err := bufio.NewReader(io.LimitReader(e.In, 1024)).ReadString('\n')
	if f, ok := e.In.(*os.File); err != nil || !ok || !term.IsTerminal(int(f.Fd())) {
		fmt.Fprintln(e.Err) // nobody's Enter ended the line
	}
	if strings.TrimSpace(line) != name {
		return exit.Refuse("type it exactly, or give --yes where nobody can be asked", "not confirmed: nothing was changed")
	}
	return nil
}
