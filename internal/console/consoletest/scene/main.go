// Command scene makes a console with sample data in a directory: a vault, a
// project and an administrator. `davit console --data DIR/console` serves it, and
// `scene agent` is a site's agent that calls it. With a number there are so many
// applications more, and other things in proportion.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"davit.dev/davit/internal/console"
	"davit.dev/davit/internal/console/account"
	"davit.dev/davit/internal/console/audit"
	"davit.dev/davit/internal/console/consoletest"
	"davit.dev/davit/internal/console/store"
	"davit.dev/davit/internal/vault/backend"
)

func main() {
	var err error
	switch args := os.Args[1:]; {
	case len(args) == 5 && args[0] == "agent":
		err = call(context.Background(), args[1], args[2], args[3], args[4])
	case len(args) == 3:
		err = set(context.Background(), args[0], args[1], args[2], 0)
	case len(args) == 4:
		var crowd int
		if crowd, err = strconv.Atoi(args[3]); err == nil {
			err = set(context.Background(), args[0], args[1], args[2], crowd)
		}
	default:
		fmt.Fprintln(os.Stderr, "usage: scene DIRECTORY USER PASSWORD [APPLICATIONS], or scene agent DIRECTORY URL SITE TOKENFILE")
		os.Exit(2)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "set scene:", err)
		os.Exit(1)
	}
}

func set(ctx context.Context, dir, user, password string, crowd int) (err error) {
	if dir, err = filepath.Abs(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(dir, "vault"), 0o700); err != nil {
		return err
	}
	now := time.Now()
	act := audit.Act{By: "machine/scene", At: now}
	cfg := backend.Config{URL: "file://" + filepath.Join(dir, "vault")}
	vaultStore, err := backend.Open(ctx, cfg)
	if err != nil {
		return err
	}
	p, key, err := consoletest.New(ctx, vaultStore, "acme")
	if err == nil {
		err = consoletest.Fill(ctx, p, now)
	}
	if err == nil {
		err = consoletest.Prepare(ctx, p, now)
	}
	if err == nil {
		err = waiting(ctx, p, now)
	}
	if err == nil {
		err = second(ctx, p, now)
	}
	if err == nil && crowd > 0 {
		err = consoletest.Crowd(ctx, p, now, consoletest.Size{Applications: crowd, Points: 1, Runs: crowd / 10, Open: crowd / 20, Sites: crowd / 25})
	}
	if err != nil {
		return err
	}
	c, err := store.Create(ctx, filepath.Join(dir, "console"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	admin, err := console.AddUser(ctx, c, account.Usual, act, user, password, true)
	if err != nil {
		return err
	}
	_, err = console.AddProject(ctx, c, console.Bind{Config: cfg, Store: vaultStore, Project: p, Recovery: key, Machine: "scene", Admin: admin, Act: act})
	if err != nil {
		return err
	}
	acme, err := c.Project(ctx, "acme")
	if err != nil {
		return err
	}
	return furnish(ctx, acme, act)
}
