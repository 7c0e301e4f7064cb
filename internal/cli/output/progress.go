package output

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"
)

// lineEvery is how often an unfinished step is heard of where there is no
// terminal.
const lineEvery = 10 * time.Second

// Progress tells people what goes on. It is safe for use by several
// goroutines, and its zero value says nothing.
type Progress struct {
	w        io.Writer
	terminal bool
	width    int
	now      func() time.Time

	mu    sync.Mutex
	step  string
	shown bool      // the terminal's line holds something
	said  time.Time // when the last plain line was written
}

// NewProgress reports to w, which is usually standard error. On a terminal it
// changes one line in place.
func NewProgress(w io.Writer, now func() time.Time) *Progress {
	p := &Progress{w: w, now: now}
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		p.terminal = true
		p.width, _, _ = term.GetSize(int(f.Fd()))
	}
	return p
}

// Step says that a new step has begun.
func (p *Progress) Step(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.w == nil {
		return
	}
	step := fmt.Sprintf(format, args...)
	if step == p.step {
		return
	}
	p.step = step
	p.say(step)
}

// Detail says how far the step has come. Where there is no terminal it is
// written at most every ten seconds.
func (p *Progress) Detail(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.w == nil || !p.terminal && p.now().Sub(p.said) < lineEvery {
		return
	}
	line := fmt.Sprintf(format, args...)
	if p.step != "" {
		line = p.step + ": " + line
	}
	p.say(line)
}

// Note writes a line that stays, such as a warning.
func (p *Progress) Note(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.w == nil {
		return
	}
	p.clear()
	_, _ = fmt.Fprintf(p.w, format+"\n", args...) // nobody to tell
}

// Done removes the changing line, so that the result stands alone.
func (p *Progress) Done() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.step = ""
	if p.w != nil {
		p.clear()
	}
}

func (p *Progress) say(line string) {
	if !p.terminal {
		p.said = p.now()
		_, _ = fmt.Fprintln(p.w, line)
		return
	}
	if p.width > 1 {
		line = Short(line, p.width-1)
	}
	p.clear()
	_, _ = io.WriteString(p.w, line)
	p.shown = true
}

func (p *Progress) clear() {
	if p.terminal && p.shown {
		_, _ = io.WriteString(p.w, "\r"+strings.Repeat(" ", max(p.width-1, 0))+"\r")
		p.shown = false
	}
}
