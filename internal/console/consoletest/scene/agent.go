package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"davit.dev/davit/internal/uplink"
	"davit.dev/davit/internal/uplink/dial"
	"davit.dev/davit/internal/uplink/dial/dialtest"
	"davit.dev/davit/internal/uplink/outbox"
)

// site is one without a cluster. It says that it begins drills, and refuses all
// else.
type site struct{}

// Begin implements dial.Begins.
func (site) Begin(_ context.Context, b uplink.Begin, refuse dial.Refusal) (uplink.Begun, error) {
	switch {
	case refuse != (dial.Refusal{}):
		return uplink.Begun{State: uplink.Refused, Why: refuse.Why, Do: refuse.Do}, nil
	case b.Verb != "drill":
		return uplink.Begun{State: uplink.Refused, Why: "the site has no room", Do: "add a node"}, nil
	}
	return uplink.Begun{State: uplink.Created}, nil
}

// call is a site's agent at a console, which may begin all runs there, until it is
// told to end. It says when it is connected.
func call(ctx context.Context, dir, url, name, token string) error {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	text, err := os.ReadFile(token)
	if err != nil {
		return err
	}
	t, err := uplink.ParseToken(string(text))
	if err != nil {
		return err
	}
	box, err := outbox.Open(filepath.Join(dir, "outbox-"+name), 0)
	if err != nil {
		return err
	}
	defer box.Close()
	(&dial.Client{
		Begins: site{}, Site: name, Version: "v1.2.0", Board: dial.NewBoard(), Outbox: box, Now: time.Now,
		Keep: dialtest.Keep(dial.Link{URLs: []string{url}, Token: t.String(), Runs: uplink.RunsAll}),
		Tell: func(s dial.Status) {
			if s.Connected {
				fmt.Fprintln(os.Stdout, "connected")
			} else {
				fmt.Fprintln(os.Stdout, "not connected:", s.Fault)
			}
		},
	}).Run(ctx)
	return nil
}
