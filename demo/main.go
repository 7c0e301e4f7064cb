// Command demo shows Davit's main job to a person: a real PostgreSQL
// application survives the loss of its cluster. Its exit status is zero only
// when every check held.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/term"

	"davit.dev/davit/demo/scenario"
	"davit.dev/davit/demo/stage"
)

func main() {
	keep := flag.Bool("keep", false, "leave everything running")
	down := flag.Bool("down", false, "remove what a demo left running")
	moves := flag.Bool("moves", false, "afterwards drill, fail back, switch over and fail over by a plan, and print what each took")
	instance := flag.String("instance", "demo", "the test bed's name")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *instance, *keep, *down, *moves); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, instance string, keep, down, moves bool) error {
	logPath := filepath.Join(os.TempDir(), "davit-"+instance+".log")
	mode := os.O_TRUNC
	_, none := os.Stat(logPath)
	if down { // what the demo said may still be wanted
		mode = os.O_APPEND
	}
	log, err := os.OpenFile(logPath, os.O_CREATE|os.O_WRONLY|mode, 0o644)
	if err != nil {
		return fmt.Errorf("make log: %w", err)
	}
	defer log.Close()
	said := &lastLine{to: log}
	s, err := stage.Open(instance, said)
	if err != nil {
		return err
	}
	if err := s.Down(ctx); err != nil {
		return fmt.Errorf("remove an earlier demo: %w", err)
	}
	if down && none == nil {
		fmt.Printf("Nothing of the demo is left but its log, %s\n", logPath)
		return nil
	}
	if down {
		fmt.Println("Nothing of the demo is left.")
		return os.Remove(logPath)
	}
	fmt.Printf("Details of every step: %s\n\n", logPath)
	timeline := &scenario.Timeline{Out: os.Stdout, Live: term.IsTerminal(int(os.Stdout.Fd())), Detail: said.Line, Began: said.Begin}
	play := &scenario.Run{Stage: s, Timeline: timeline, Vault: "demo-" + time.Now().UTC().Format("150405")}
	played := play.Play(ctx)
	if played == nil && moves {
		played = play.Move(ctx)
	}
	timeline.Print()
	if played == nil {
		play.Report(os.Stdout)
	}
	if played == nil && moves {
		played = play.Figures(ctx, os.Stdout)
	}
	if keep {
		play.Places(os.Stdout)
		lookAround(os.Stdout, s)
		return played
	}
	// The person may have pressed Ctrl-C: clean up all the same.
	clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Minute)
	defer cancel()
	if err := s.Down(clean); err != nil {
		return fmt.Errorf("remove the demo: %w", err)
	}
	if played != nil {
		fmt.Printf("\nWhat each step said is in %s\n", logPath)
		return played
	}
	return os.Remove(logPath) // nobody has anything to look for
}

func lookAround(w io.Writer, s *stage.Stage) {
	fmt.Fprintf(w, "\nEverything is still running. Look around:\n")
	s3 := s.Bed.S3()
	fmt.Fprintf(w, "  export DAVIT_ACCESS_KEY=%s DAVIT_SECRET_KEY=%s   # of the vault's store, for --vault-url, vault add and failover\n", s3.AccessKey, s3.SecretKey)
	for _, site := range s.Bed.Sites() {
		fmt.Fprintf(w, "  export KUBECONFIG=%s   # %s\n", site.Kubeconfig(), site.Name())
	}
	fmt.Fprintf(w, "  bin/davit status; bin/davit points shop; bin/davit describe shop; bin/davit logs restore shop; bin/davit verify shop\n")
	fmt.Fprintf(w, "  %s -n shop get all\n", s.KubectlPath())
	fmt.Fprintf(w, "and remove it with: make demo-down\n")
}
