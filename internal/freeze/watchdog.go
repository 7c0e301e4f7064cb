package freeze

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// Grace is what the watchdog adds to a window before it thaws under a
	// process that lives: enough for one that is only slow.
	Grace = time.Second
	// MaxVolumes is how many one guard takes: descriptors in one message.
	MaxVolumes = 200
	// again is how often an overdue thaw is repeated: a freeze that was under
	// way in the kernel may come after it.
	again = time.Second
	// maxMessage bounds what a client may say, in bytes.
	maxMessage = 1 << 20
	// rememberFor is how long an unmounted file system is waited for.
	rememberFor = 10 * time.Minute
	socketName  = "watchdog.sock"
	recordDir   = "frozen"
)

var names = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._-]{0,100}$`)

// armMessage is what a client says first. Its descriptors come along with it.
type armMessage struct {
	Name    string        `json:"name"`
	Window  time.Duration `json:"window"`
	Volumes []place       `json:"volumes"`
}

// place is where a frozen file system can be found again.
type place struct {
	Path   string `json:"path"`
	Device string `json:"device"`
}

// Watchdog thaws after other processes.
type Watchdog struct {
	dir string
	log *slog.Logger
}

// NewWatchdog keeps its socket and records in a directory, which must not be
// on a file system that is ever frozen; tmpfs is best.
func NewWatchdog(dir string, log *slog.Logger) *Watchdog { return &Watchdog{dir: dir, log: log} }

// Run thaws what a machine's earlier processes left frozen, then guards until
// ctx is done. Freezes that it guards then are thawed.
func (w *Watchdog) Run(ctx context.Context) error {
	if err := os.MkdirAll(filepath.Join(w.dir, recordDir), 0o700); err != nil {
		return fmt.Errorf("make record directory: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var running sync.WaitGroup
	defer running.Wait()
	old, err := records(w.dir, w.log)
	if err != nil {
		return err
	}
	running.Go(func() { w.leftovers(ctx, old) })
	socket := filepath.Join(w.dir, socketName)
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove old socket: %w", err)
	}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	defer context.AfterFunc(ctx, func() { _ = listener.Close() })()
	w.log.Info("watching over frozen file systems", "directory", w.dir)
	for {
		conn, err := listener.AcceptUnix()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("accept: %w", err)
		}
		running.Go(func() { w.serve(ctx, conn) })
	}
}

// leftovers tries until every record of an earlier process is dealt with: a
// frozen file system whose mounts are gone is found again when it is mounted.
// In the end it is forgotten, as its device may be another's by then.
func (w *Watchdog) leftovers(ctx context.Context, old []record) {
	tick := time.NewTicker(again)
	defer tick.Stop()
	for range int(rememberFor / again) {
		var err error
		if old, err = thawRecords(old, w.log); len(old) == 0 {
			return
		}
		w.log.Error("thaw what was left frozen", "error", err)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
	for _, r := range old {
		w.log.Warn("forgotten: a file system that was left frozen and is mounted nowhere", "volumes", r.volumes)
		_ = os.Remove(r.file)
	}
}

// serve guards one client's file systems until it says that it is done, dies,
// or overruns.
func (w *Watchdog) serve(ctx context.Context, conn *net.UnixConn) {
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	msg, fds, err := receive(conn)
	defer closeAll(fds)
	if err != nil {
		w.log.Error("guard refused", "error", err)
		return
	}
	log := w.log.With("name", msg.Name)
	record := filepath.Join(w.dir, recordDir, msg.Name)
	if err := writeRecord(record, msg); err != nil {
		log.Error("guard refused", "error", err)
		return
	}
	if _, err := conn.Write([]byte("armed\n")); err != nil {
		_ = os.Remove(record)
		return
	}
	if w.guard(conn, msg, fds, log) {
		log.Warn("thawed file systems of a process that died", "volumes", len(fds))
	}
	if err := os.Remove(record); err != nil {
		log.Error("remove record", "error", err)
	}
}

// guard waits for the client's words: "freeze" starts the clock, "done" ends
// it well. It says whether it had to thaw.
func (w *Watchdog) guard(conn *net.UnixConn, msg armMessage, fds []int, log *slog.Logger) (thawed bool) {
	words := make(chan string)
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		defer close(words)
		lines := bufio.NewScanner(conn)
		for lines.Scan() {
			select {
			case words <- lines.Text():
			case <-stop:
				return
			}
		}
	}()
	var overdue <-chan time.Time
	for {
		select {
		case word, alive := <-words:
			switch {
			case !alive:
				return thawAll(fds, msg.Volumes, log)
			case word == "done":
				return false
			case word == "freeze" && overdue == nil:
				overdue = time.After(msg.Window + Grace)
			}
		case <-overdue:
			overdue = time.After(again)
			if thawAll(fds, msg.Volumes, log) {
				log.Warn("thawed file systems under a process that overran its window", "volumes", len(fds), "window", msg.Window)
			}
		}
	}
}

// thawAll thaws whatever is frozen, each by itself: one that does not answer
// must not keep the others. It says whether any was.
func thawAll(fds []int, where []place, log *slog.Logger) bool {
	var mu sync.Mutex
	var any bool
	var wg sync.WaitGroup
	for i, fd := range fds {
		wg.Go(func() {
			still, err := thaw(fd, where[i].Path)
			if err != nil {
				log.Error("thaw", "error", err)
			}
			mu.Lock()
			defer mu.Unlock()
			any = any || still
		})
	}
	wg.Wait()
	return any
}

// receive reads the first message and its descriptors.
func receive(conn *net.UnixConn) (armMessage, []int, error) {
	var msg armMessage
	if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return msg, nil, err
	}
	data, oob := make([]byte, maxMessage), make([]byte, unix.CmsgSpace(4*MaxVolumes))
	n, oobn, _, _, err := conn.ReadMsgUnix(data, oob)
	if err != nil {
		return msg, nil, fmt.Errorf("read from client: %w", err)
	}
	fds, err := descriptors(oob[:oobn])
	if err != nil {
		return msg, fds, err
	}
	// The descriptors came with the first bytes; the rest of a long line follows.
	line := data[:n]
	for !strings.HasSuffix(string(line), "\n") && len(line) < maxMessage {
		n, err := conn.Read(data[len(line):])
		if err != nil {
			return msg, fds, fmt.Errorf("read from client: %w", err)
		}
		line = data[:len(line)+n]
	}
	if err := json.Unmarshal(line, &msg); err != nil {
		return msg, fds, fmt.Errorf("decode client's message: %w", err)
	}
	if !names.MatchString(msg.Name) || len(fds) != len(msg.Volumes) || msg.Window <= 0 {
		return msg, fds, fmt.Errorf("client's message is not valid: name %q, %d volumes, %d descriptors, window %s", msg.Name, len(msg.Volumes), len(fds), msg.Window)
	}
	return msg, fds, conn.SetReadDeadline(time.Time{})
}

func descriptors(oob []byte) ([]int, error) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("read client's descriptors: %w", err)
	}
	var all []int
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			return all, fmt.Errorf("read client's descriptors: %w", err)
		}
		for _, fd := range fds {
			unix.CloseOnExec(fd)
		}
		all = append(all, fds...)
	}
	return all, nil
}

func closeAll(fds []int) {
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
}

// Guard is a client's line to the watchdog.
type Guard struct {
	conn *net.UnixConn
	lost chan struct{}
}

// ErrNoWatchdog says that no watchdog answers, so that nothing may be frozen.
var ErrNoWatchdog = errors.New("the watchdog does not answer")

// Arm gives the watchdog the open file systems. Nothing is frozen yet; when
// Arm has returned, the watchdog thaws whatever this process leaves frozen.
func Arm(ctx context.Context, dir, name string, window time.Duration, systems []*FileSystem) (*Guard, error) {
	if len(systems) > MaxVolumes {
		return nil, fmt.Errorf("%w: %d volumes on one node are more than %d", ErrRefused, len(systems), MaxVolumes)
	}
	var d net.Dialer
	dialed, err := d.DialContext(ctx, "unix", filepath.Join(dir, socketName))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoWatchdog, err)
	}
	conn, ok := dialed.(*net.UnixConn)
	if !ok {
		return nil, fmt.Errorf("%w: %T is no unix connection", ErrNoWatchdog, dialed)
	}
	g := &Guard{conn: conn, lost: make(chan struct{})}
	if err := g.arm(ctx, armMessage{Name: name, Window: window}, systems); err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("%w: %w", ErrNoWatchdog, err)
	}
	go func() {
		defer close(g.lost)
		_, _ = io.Copy(io.Discard, conn) // it says no more: this ends when it dies
	}()
	return g, nil
}

func (g *Guard) arm(ctx context.Context, msg armMessage, systems []*FileSystem) error {
	var fds []int
	for _, f := range systems {
		msg.Volumes = append(msg.Volumes, place{Path: f.dir.Name(), Device: f.device})
		fds = append(fds, int(f.dir.Fd()))
	}
	line, err := json.Marshal(msg)
	if err != nil {
		return err
	}
	line = append(line, '\n')
	stop := context.AfterFunc(ctx, func() { _ = g.conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	n, _, err := g.conn.WriteMsgUnix(line, unix.UnixRights(fds...), nil)
	if err == nil && n < len(line) {
		_, err = g.conn.Write(line[n:])
	}
	if err != nil {
		return err
	}
	answer := make([]byte, len("armed\n"))
	if _, err := io.ReadFull(g.conn, answer); err != nil {
		return err
	}
	return nil
}

// Freezing starts the watchdog's clock: call it just before the first freeze.
func (g *Guard) Freezing() error {
	if _, err := g.conn.Write([]byte("freeze\n")); err != nil {
		return fmt.Errorf("%w: %w", ErrNoWatchdog, err)
	}
	return nil
}

// Lost is closed when the watchdog is gone.
func (g *Guard) Lost() <-chan struct{} { return g.lost }

// Done says that nothing is frozen any more.
func (g *Guard) Done() { g.Close(true) }

// Close ends the guard. If it is not clean the watchdog thaws everything.
func (g *Guard) Close(clean bool) {
	if clean {
		_, _ = g.conn.Write([]byte("done\n")) // a watchdog that is gone has nothing to forget
	}
	_ = g.conn.Close()
}
