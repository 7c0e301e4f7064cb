// Command bench measures davit, as installed in a real cluster, against plain
// means in the same run on the same cluster and the same vault: a client-go
// loop for objects, cp -a and restic for volumes. Each line ends with a ratio;
// the times beside it say nothing about other machines.
//
// It uses the davit command and the deployed agent and node process, as people
// do, and imports nothing of the product.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"davit.dev/davit/demo/stage"
	"davit.dev/davit/testbed/bed"
)

const site = "east"

type settings struct {
	instance       string
	objects        int // Secrets and ConfigMaps together
	secrets        bool
	captureObjects int // Secrets and ConfigMaps of captures, where they are others than those objects
	rounds         int // of the comparisons whose sides take turns
	fileMiB        int // size of the volume's one file
	files          int // of 4 KiB
	// applications are those of a plan that fails over.
	applications int
	// carried has the command of that failover killed early: the agent carries the run.
	carried bool
	// agents are those that call the consoles.
	agents int
	parts  string
	keep   bool
	// enforce says which missed bars are an error.
	enforce string
}

// The bars that may be enforced.
const (
	ofMemory = "memory" // which what else runs does not change
	all      = "all"
)

func main() {
	s := settings{}
	flag.StringVar(&s.instance, "instance", "bench", "the test bed's name; it is removed afterwards")
	flag.IntVar(&s.objects, "objects", number("DAVIT_BENCH_OBJECTS", 10_000), "Secrets and ConfigMaps of 1 KiB ($DAVIT_BENCH_OBJECTS)")
	flag.BoolVar(&s.secrets, "secrets", false, "all of the objects are Secrets of one namespace")
	flag.IntVar(&s.captureObjects, "captured", 0, "capture so many Secrets and ConfigMaps of another namespace, not those objects")
	flag.IntVar(&s.rounds, "rounds", number("DAVIT_BENCH_ROUNDS", 2), "how often each side of a comparison runs ($DAVIT_BENCH_ROUNDS)")
	flag.IntVar(&s.fileMiB, "file-mib", number("DAVIT_BENCH_FILE_MIB", 2048), "size of the volume's file ($DAVIT_BENCH_FILE_MIB)")
	flag.IntVar(&s.files, "files", number("DAVIT_BENCH_FILES", 50_000), "small files of the volume that has many ($DAVIT_BENCH_FILES)")
	flag.IntVar(&s.applications, "applications", number("DAVIT_BENCH_APPLICATIONS", 200), "of a plan that fails over ($DAVIT_BENCH_APPLICATIONS)")
	flag.BoolVar(&s.carried, "carried", false, "kill the command of crowd's failover once it has begun: the target's agent carries the run, and its memory is what counts")
	flag.IntVar(&s.agents, "agents", number("DAVIT_BENCH_AGENTS", 5000), "that call two consoles ($DAVIT_BENCH_AGENTS)")
	flag.StringVar(&s.parts, "parts", "small,capture,restore,existing,volume,files", "what to measure; crowd, a failover of many applications, kills the site and comes last; consoles and vaults, alone, need no bed: many agents and two consoles, a console and full vaults")
	flag.StringVar(&s.enforce, "enforce", "", "end with an error when a bar is missed: memory, the bars of memory; all, for a machine where nothing else runs")
	flag.BoolVar(&s.keep, "keep", false, "leave the bed running")
	flag.Parse()
	if !slices.Contains([]string{"", ofMemory, all}, s.enforce) {
		fmt.Fprintf(os.Stderr, "bench: --enforce %s: say memory or all\n", s.enforce)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	work := run
	if s.parts == "consoles" || s.parts == "vaults" {
		work = alone
	}
	if err := work(ctx, s); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func number(variable string, otherwise int) int {
	if n, err := strconv.Atoi(os.Getenv(variable)); err == nil && n > 0 {
		return n
	}
	return otherwise
}

// alone measures the consoles, for which no bed is needed.
func alone(ctx context.Context, set settings) error {
	root, err := exec.CommandContext(ctx, "git", "rev-parse", "--show-toplevel").Output()
	if err != nil {
		return fmt.Errorf("find the source: %w", err)
	}
	r := &report{out: os.Stdout}
	dir := strings.TrimSpace(string(root))
	r.title(ctx, dir)
	fmt.Fprintf(r.out, "| what | measured | bar |\n|---|---|---|\n")
	if set.parts == "vaults" {
		return errors.Join(full(ctx, r, dir), r.end(set.enforce))
	}
	return errors.Join(consoles(ctx, r, dir, set.agents), r.end(set.enforce))
}

func run(ctx context.Context, set settings) (err error) {
	logPath := filepath.Join(os.TempDir(), "davit-"+set.instance+".log")
	log, err := os.Create(logPath)
	if err != nil {
		return fmt.Errorf("make log: %w", err)
	}
	defer log.Close()
	s, err := stage.Open(set.instance, log)
	if err != nil {
		return err
	}
	if !set.keep {
		defer func() { // after an interrupt too
			clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Minute)
			defer cancel()
			err = errors.Join(err, s.Down(clean))
		}()
	}
	fmt.Fprintln(os.Stderr, "setting up; details in", logPath)
	b, err := setUp(ctx, s, set)
	if err != nil {
		return err
	}
	b.report.begin(ctx, s.Root)
	for _, part := range []struct {
		name string
		run  func(context.Context) error
	}{{"small", b.small}, {"capture", b.captures}, {"restore", b.restores}, {"existing", b.existing}, {"volume", b.volume}, {"files", b.files}, {"crowd", b.crowd}} {
		if !strings.Contains(set.parts, part.name) {
			continue
		}
		if err := part.run(ctx); err != nil {
			return errors.Join(fmt.Errorf("measure %s: %w", part.name, err), b.report.end(set.enforce))
		}
	}
	return b.report.end(set.enforce)
}

// setUp brings up one site with davit installed, and a vault of its own.
func setUp(ctx context.Context, s *stage.Stage, set settings) (*bench, error) {
	if err := s.Build(ctx); err != nil {
		return nil, err
	}
	if err := s.Bed.Up(ctx, bed.Options{Sites: []string{site}, Install: true, Log: s.Log}); err != nil {
		return nil, fmt.Errorf("bring bed up: %w", err)
	}
	if err := s.Up(ctx); err != nil {
		return nil, err
	}
	b, err := open(s, set)
	if err != nil {
		return nil, err
	}
	_, err = b.davit(ctx, "install", "--site", site, "--image", stage.Image,
		"--kubelet-root", s.Bed.Site(site).KubeletRoot(), "--replicas", "1")
	if err != nil {
		return nil, err
	}
	url, err := s.Bucket(b.bucket)
	if err != nil {
		return nil, err
	}
	_, err = b.davit(ctx, "vault", "add", b.bucket, url, "--recovery-key-file", filepath.Join(s.Work, b.bucket+".key"))
	return b, err
}
