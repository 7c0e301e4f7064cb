package console

import (
	"context"
	"errors"

	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/console"
	"davit.dev/davit/internal/console/store"
)

// active refuses to change anything in a directory that follows another console.
func active(dir string) error {
	if console.Passive(dir) {
		return exit.Refuse("do it at the active console: `curl https://…/healthz/active` finds it", "the console in %s is passive, and what is changed here is lost", dir)
	}
	return nil
}

// open opens a console to change something in it. It refuses where another has
// taken over meanwhile, which the directory alone does not know.
func (h Host) open(ctx context.Context, dir string) (*store.Console, error) {
	if err := active(dir); err != nil {
		return nil, err
	}
	c, err := store.Open(ctx, dir)
	if err != nil {
		return nil, explain(err, dir)
	}
	all, err := c.Projects(ctx)
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	if len(all) == 0 { // nobody else can have it
		return c, nil
	}
	by, overtaken, err := console.Overtaken(ctx, dir, c, h.Opener().Store)
	if err != nil { // the way back in has to work while the vault is silent
		h.Progress().Step("whether another console has taken over is not known: %v", err)
	}
	if overtaken {
		return nil, errors.Join(exit.Refuse("do it at the active console", "another console has taken over from the one in %s: the one at %s, with epoch %d. What is changed here is lost", dir, by.URL, by.Number), c.Close())
	}
	return c, nil
}

// notYet says that a change is not in the vault.
func notYet(t *output.Text, inVault bool) {
	if !inVault {
		t.Line("It is NOT YET IN THE VAULT: that is when the console is served and its vault answers. Until then no other console knows it, and it is lost with this directory.")
	}
}
