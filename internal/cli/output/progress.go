package output

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	"davit.dev/davit/internal/command"
)

// lineEvery is how often an unfinished step is heard of where there is no
// terminal.
const lineEvery = 10 * time.Second

// waitsAfter is how long something takes before a log is told that it is waited for.
const waitsAfter = 2 * time.Second

// Progress tells people what goes on. It is safe for use by several
// goroutines, and its zero value says nothing.
type Progress struct {
	w        io.Writer
	program  string
	terminal bool
	width    int
	now      func() time.Time

	mu    sync.Mutex
	step  string
	shown bool      // the terminal's line holds something
	said  time.Time // when the last plain line was written
	mute  time.Time // when somebody was last told of what does not answer
	waits map[string]*wait
}

// wait is something that is waited for where there is no terminal.
type wait struct {
	line  string // what is said of it
	timer *time.Timer
}

// NewProgress reports to w, which is usually standard error, and names commands as
// those of program. On a terminal it changes one line in place.
func NewProgress(w io.Writer, program string, now func() time.Time) *Progress {
	p := &Progress{w: w, program: program, now: now, waits: map[string]*wait{}}
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

// Waits says all that is waited for now, in place of what was before. What stands
// before a ": " says what it is, and what follows, how it stands. On a terminal all is
// shown as it is; a log is told of each only once it has taken a while, and not how its
// standing changes: whatever ends says so itself.
func (p *Progress) Waits(state string, all []string) {
	if p.w == nil || p.terminal {
		if len(all) > 0 {
			p.Step("%s: %s", state, strings.Join(all, "; "))
		}
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	now := map[string]string{}
	for _, line := range all {
		what, _, _ := strings.Cut(line, ": ")
		now[what] = state + ": " + line
	}
	for what, of := range p.waits {
		if now[what] == "" {
			of.timer.Stop()
			delete(p.waits, what)
		}
	}
	for what, line := range now {
		if of := p.waits[what]; of != nil {
			of.line = line
			continue
		}
		of := &wait{line: line}
		of.timer = time.AfterFunc(waitsAfter, func() { p.waited(what, of) })
		p.waits[what] = of
	}
}

// waited tells a log of what is still waited for.
func (p *Progress) waited(what string, of *wait) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.waits[what] == of {
		p.say(of.line)
	}
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
	_, _ = fmt.Fprintln(p.w, command.Named(p.program, fmt.Sprintf(format, args...))) // nobody to tell
}

// Silent says that something has not answered yet, and why if that is known: at most every
// ten seconds, as many may wait for it at once.
func (p *Progress) Silent(what string, last error) {
	p.mu.Lock()
	if p.w == nil || p.now().Sub(p.mute) < lineEvery {
		p.mu.Unlock()
		return
	}
	p.mute = p.now()
	p.mu.Unlock()
	why := ""
	if last != nil {
		why = ": " + OneLine(last.Error())
	}
	p.Note("waiting for an answer of %s%s", what, why)
}

// Done removes the changing line, so that the result stands alone.
func (p *Progress) Done() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.step = ""
	for what, of := range p.waits {
		of.timer.Stop()
		delete(p.waits, what)
	}
	if p.w != nil {
		p.clear()
	}
}

func (p *Progress) say(line string) {
	line = command.Named(p.program, line)
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
