package stage

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// StartLedger runs the ledger on the host, outside every site, where it
// survives them, and returns its URL as the pods see it. It is left running.
func (s *Stage) StartLedger(ctx context.Context) (string, error) {
	bin := filepath.Join(s.Work, "shop")
	build := exec.CommandContext(ctx, "go", "build", "-C", filepath.Join(s.Root, "testbed", "shop"), "-o", bin, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if _, err := output(build); err != nil {
		return "", fmt.Errorf("build ledger: %w", err)
	}
	address, err := s.hostAddress()
	if err != nil {
		return "", err
	}
	if err := s.StopLedger(); err != nil {
		return "", err
	}
	log, err := os.Create(filepath.Join(s.Work, "ledger.log"))
	if err != nil {
		return "", fmt.Errorf("make ledger's log: %w", err)
	}
	defer log.Close()
	file := s.LedgerFile()
	if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("remove old ledger: %w", err)
	}
	cmd := exec.Command(bin, "ledger")
	cmd.Env = append(os.Environ(), "LISTEN="+address, "LEDGER_FILE="+file)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return "", fmt.Errorf("start ledger: %w", err)
	}
	if err := os.WriteFile(s.pidFile(), []byte(strconv.Itoa(cmd.Process.Pid)), 0o600); err != nil {
		return "", fmt.Errorf("write pid: %w", err)
	}
	url := "http://" + address
	return url, Wait(ctx, "the ledger answers", func(ctx context.Context) (bool, string, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/stats", nil)
		if err != nil {
			return false, "", err
		}
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			return false, err.Error(), nil
		}
		defer resp.Body.Close()
		return resp.StatusCode == http.StatusOK, resp.Status, nil
	})
}

// hostAddress is a free port on the host's end of the last site's link: it
// stays reachable from every site, whichever of them dies.
func (s *Stage) hostAddress() (string, error) {
	sites := s.Bed.Sites()
	site := net.ParseIP(sites[len(sites)-1].Address()).To4()
	host := net.IPv4(site[0], site[1], site[2], 1).String()
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		return "", fmt.Errorf("find a port for the ledger: %w", err)
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// ledgerGrace is how long the ledger may take to end by itself.
const ledgerGrace = 3 * time.Second

// StopLedger stops the ledger if it runs, and returns when it is gone.
func (s *Stage) StopLedger() error {
	data, err := os.ReadFile(s.pidFile())
	if err != nil {
		return nil //nolint:nilerr // no file: none was started
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		return fmt.Errorf("read pid: %w", err)
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	with, limit := syscall.SIGTERM, time.After(ledgerGrace)
	for isLedger(pid) {
		_ = syscall.Kill(pid, with)
		select {
		case <-limit:
			with = syscall.SIGKILL
		case <-tick.C:
		}
	}
	return os.Remove(s.pidFile())
}

// isLedger tells whether the process runs, and is no other that has its number
// by now. One that has ended has no command line, also before it is reaped.
func isLedger(pid int) bool {
	cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return err == nil && strings.Contains(string(cmdline), "ledger")
}

// LedgerFile is where the ledger writes every acknowledged order, a line each.
func (s *Stage) LedgerFile() string { return filepath.Join(s.Work, "ledger.jsonl") }

func (s *Stage) pidFile() string { return filepath.Join(s.Work, "ledger.pid") }

// Down removes the bed, the ledger and the scratch directory.
func (s *Stage) Down(ctx context.Context) error {
	return errors.Join(s.StopLedger(), s.Bed.Down(ctx), os.RemoveAll(s.Work))
}
