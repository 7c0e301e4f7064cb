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

// report prints one line per comparison, as a table in Markdown, and keeps those that
// miss the bar that davit sets itself.
type report struct {
	out    io.Writer
	missed []string
	over   []string // those of them that are about memory
}

// against is what the end of a line says of its bar.
func (r *report) against(what, bar string, met bool) string {
	if met {
		return ", meets the bar of " + bar
	}
	r.missed = append(r.missed, what+": the bar is "+bar)
	return ", MISSES the bar of " + bar
}

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

// end says what missed its bar, which is an error where that bar is enforced.
func (r *report) end(enforce string) error {
	fmt.Fprintf(r.out, "\nload at the end %s\n", load())
	wrong := map[string][]string{ofMemory: r.over, all: r.missed}[enforce]
	for _, missed := range r.missed {
		if enforce == "" || slices.Contains(wrong, missed) {
			fmt.Fprintf(r.out, "missed: %s\n", missed)
		} else {
			fmt.Fprintf(r.out, "missed, which is no error here: %s\n", missed)
		}
	}
	if len(wrong) > 0 {
		return fmt.Errorf("compare with the bars: missed: %s", strings.Join(wrong, "; "))
	}
	return nil
}

// none is the bar of a line that has none.
const none = 0

// rate compares objects per second: above 1, davit is faster. The bar is the least ratio.
func (r *report) rate(what string, ours, theirs lap, bar float64) {
	ratio, verdict := ours.rate()/theirs.rate(), ""
	if bar != none {
		verdict = r.against(what, fmt.Sprintf("%.2f", bar), ratio >= bar)
	}
	fmt.Fprintf(r.out, "| %s | %.0f/s | %.0f/s | %.2f of its rate%s |\n", what, ours.rate(), theirs.rate(), ratio, verdict)
}

// spent compares the processor time of 1,000 objects that somebody had meanwhile.
func (r *report) spent(who string, ours, theirs *measured, of func(spent) time.Duration) {
	each := func(m *measured) float64 { return of(m.spent).Seconds() * 1e6 / float64(m.objects*m.runs) }
	fmt.Fprintf(r.out, "| the same, processor time of 1,000 objects: %s | %.1f ms | %.1f ms | |\n", who, each(ours), each(theirs))
}

// times compares times for the same bytes: below 1, davit is faster. The bar is the
// greatest ratio.
func (r *report) times(what string, ours, theirs time.Duration, bar float64) {
	ratio, verdict := ours.Seconds()/theirs.Seconds(), ""
	if bar != none {
		verdict = r.against(what, fmt.Sprintf("%.2f", bar), ratio <= bar)
	}
	fmt.Fprintf(r.out, "| %s | %.1f s | %.1f s | %.2f of its time%s |\n", what, ours.Seconds(), theirs.Seconds(), ratio, verdict)
}

// median is the middle one, the better of two.
func median(times []time.Duration) time.Duration {
	sorted := slices.Sorted(slices.Values(times))
	return sorted[(len(sorted)-1)/2]
}

func (r *report) peak(what string, p process, bar int64) error {
	n, err := p.peak()
	if err == nil {
		r.bytes(what, n, bar)
	}
	return err
}

// bytes tells of memory. The bar is in bytes, and the most.
func (r *report) bytes(what string, n, bar int64) {
	verdict, before := "", len(r.missed)
	if bar != none {
		verdict = r.against("peak memory: "+what, fmt.Sprintf("%d MiB", bar>>20), n < bar)
	}
	r.over = append(r.over, r.missed[before:]...)
	fmt.Fprintf(r.out, "| peak memory: %s | %.0f MiB%s | | |\n", what, float64(n)/(1<<20), verdict)
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
