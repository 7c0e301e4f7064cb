package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
)

// consoles has agents over the real protocol call two consoles that are processes of
// their own, and prints what internal/console/takeover measures of that: that test
// has the agents, since they are the product's own.
func consoles(ctx context.Context, r *report, root string, agents int) error {
	r.say("%d agents, two consoles", agents)
	return takeover(ctx, r, root, "TestFleet", "DAVIT_FLEET="+strconv.Itoa(agents))
}

// full has a console read a vault of 1,000 applications, and 49 projects beside it.
func full(ctx context.Context, r *report, root string) error {
	r.say("a console and full vaults")
	return takeover(ctx, r, root, "TestFull", "DAVIT_FULL=1")
}

// takeover runs a test of that package, and prints its rows.
func takeover(ctx context.Context, r *report, root, test, much string) error {
	cmd := exec.CommandContext(ctx, "go", "test", "-vet=off", "./internal/console/takeover", "-run", "^"+test+"$", "-count=1", "-v", "-timeout", "90m")
	cmd.Dir, cmd.Stderr = root, os.Stderr
	cmd.Env = append(os.Environ(), "DAVIT_TEST_BED=1", much)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("run "+test+": %w", err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("run "+test+": %w", err)
	}
	for scan := bufio.NewScanner(out); scan.Scan(); {
		if _, row, ok := strings.Cut(scan.Text(), ": | "); ok {
			fmt.Fprintf(r.out, "| %s\n", row)
			continue
		}
		fmt.Fprintln(os.Stderr, scan.Text())
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("run "+test+": %w", err)
	}
	return nil
}
