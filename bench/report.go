package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"
)

// lap adds up what one side of a comparison took.
type lap struct {
	objects int
	runs    int
	took    time.Duration
}

func (l *lap) add(took time.Duration) {
	l.runs++
	l.took += took
}

// rate is objects per second.
func (l *lap) rate() float64 { return float64(l.objects*l.runs) / l.took.Seconds() }

// report prints one line per comparison, as a table in Markdown.
type report struct{ out io.Writer }

func (r *report) say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%s "+format+"\n", append([]any{time.Now().UTC().Format(time.TimeOnly)}, args...)...)
}

// begin says where and when, and begins the table.
func (r *report) begin(ctx context.Context, root string) {
	r.title(ctx, root)
	fmt.Fprintf(r.out, "| what | davit | other | ratio |\n|---|---|---|---|\n")
}

// title says where and when.
func (r *report) title(ctx context.Context, root string) {
	commit, err := exec.CommandContext(ctx, "git", "-C", root, "describe", "--always", "--dirty").Output()
	if err != nil {
		commit = []byte("unknown")
	}
	fmt.Fprintf(r.out, "davit %s, %s, %d cores, %s, load %s\n\n", strings.TrimSpace(string(commit)),
		time.Now().UTC().Format(time.DateOnly), runtime.NumCPU(), memory(), load())
}

func (r *report) end() error {
	_, err := fmt.Fprintf(r.out, "\nload at the end %s\n", load())
	return err
}

// rate compares objects per second: above 1, davit is faster.
func (r *report) rate(what string, ours, theirs lap) {
	fmt.Fprintf(r.out, "| %s | %.0f/s | %.0f/s | %.2f of its rate |\n", what, ours.rate(), theirs.rate(), ours.rate()/theirs.rate())
}

// spent compares the processor time of 1,000 objects that somebody had meanwhile.
func (r *report) spent(who string, ours, theirs *measured, of func(spent) time.Duration) {
	each := func(m *measured) float64 { return of(m.spent).Seconds() * 1e6 / float64(m.objects*m.runs) }
	fmt.Fprintf(r.out, "| the same, processor time of 1,000 objects: %s | %.1f ms | %.1f ms | |\n", who, each(ours), each(theirs))
}

// times compares times for the same bytes: below 1, davit is faster.
func (r *report) times(what string, ours, theirs time.Duration) {
	fmt.Fprintf(r.out, "| %s | %.1f s | %.1f s | %.2f of its time |\n", what, ours.Seconds(), theirs.Seconds(), ours.Seconds()/theirs.Seconds())
}

// median is the middle one, the better of two.
func median(times []time.Duration) time.Duration {
	sorted := slices.Sorted(slices.Values(times))
	return sorted[(len(sorted)-1)/2]
}

func (r *report) peak(what string, p process) error {
	n, err := p.peak()
	if err == nil {
		r.bytes(what, n)
	}
	return err
}

func (r *report) bytes(what string, n int64) {
	fmt.Fprintf(r.out, "| peak memory: %s | %.0f MiB | | |\n", what, float64(n)/(1<<20))
}

func load() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	return strings.Join(strings.Fields(string(text))[:3], " ")
}

func memory() string {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return "unknown memory"
	}
	var kib int64
	if _, err := fmt.Sscanf(string(text), "MemTotal: %d kB", &kib); err != nil {
		return "unknown memory"
	}
	return fmt.Sprintf("%d GiB", (kib+1<<19)>>20)
}
