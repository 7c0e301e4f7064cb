package remote

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/console/client"
)

// Entry is one console that somebody is logged in to.
type Entry struct {
	URL string `json:"url"`
	// CA is what vouches for the console, in PEM; empty: the machine's authorities.
	CA string `json:"ca,omitempty"`
	// Name is "user/anna" or "robot/ci".
	Name    string    `json:"name"`
	Project string    `json:"project,omitempty"` // the default
	Expires time.Time `json:"expires,omitzero"`
	Token   string    `json:"token"`
}

// book is the file with the consoles that a person is logged in to. It holds
// secrets: nobody else may read it.
type book struct {
	path     string
	Consoles []Entry `json:"consoles"`
}

// bookPath is $DAVIT_CONSOLES, or a file among the user's settings.
func (h Host) bookPath() (string, error) {
	if path := h.Getenv("DAVIT_CONSOLES"); path != "" {
		return path, nil
	}
	dir := h.Getenv("XDG_CONFIG_HOME")
	if dir == "" {
		home := h.Getenv("HOME")
		if home == "" {
			return "", exit.Usage("", "neither $HOME nor $DAVIT_CONSOLES says where logins are kept")
		}
		dir = filepath.Join(home, ".config")
	}
	return filepath.Join(dir, "davit", "consoles.json"), nil
}

func (h Host) book() (*book, error) {
	path, err := h.bookPath()
	if err != nil {
		return nil, err
	}
	b := &book{path: path}
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return b, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read logins: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, exit.Refuse("chmod 600 it, `logout`, and log in again if somebody may have read it", "others may read %s, which holds tokens", path)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read logins: %w", err)
	}
	return b, b.parse(text)
}

// parse reads the book. What is wrong with it is not quoted: it holds tokens.
func (b *book) parse(text []byte) error {
	if json.Unmarshal(text, b) != nil || slices.ContainsFunc(b.Consoles, func(e Entry) bool { return client.CheckURL(e.URL) != nil }) {
		return exit.Refuse("remove it and log in again", "%s is not what `login` writes", b.path)
	}
	return nil
}

// write replaces the file whole.
func (b *book) write() error {
	text, err := json.MarshalIndent(b, "", "  ")
	if err != nil {
		return err
	}
	dir := filepath.Dir(b.path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("keep login: %w", err)
	}
	f, err := os.CreateTemp(dir, ".consoles-*") // mode 0600
	if err != nil {
		return fmt.Errorf("keep login: %w", err)
	}
	_, err = f.Write(append(text, '\n'))
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), b.path)
	}
	if err != nil {
		return fmt.Errorf("keep login: %w", errors.Join(err, os.Remove(f.Name())))
	}
	return nil
}

func trimmed(url string) string { return strings.ToLower(strings.TrimRight(url, "/")) }

// find returns the console of an address, or with "" the only one.
func (b *book) find(url string) (Entry, error) {
	if url == "" {
		switch len(b.Consoles) {
		case 0:
			return Entry{}, exit.Usage("`login --console https://HOST:PORT --user NAME` first", "you are logged in to no console")
		case 1:
			return b.Consoles[0], nil
		}
		var all []string
		for _, e := range b.Consoles {
			all = append(all, e.URL)
		}
		return Entry{}, exit.Usage("", "--console is missing: you are logged in to %s", strings.Join(all, ", "))
	}
	for _, e := range b.Consoles {
		if trimmed(e.URL) == trimmed(url) {
			return e, nil
		}
	}
	return Entry{}, exit.Refuse("`login --console "+url+" --user NAME`", "you are not logged in to %s", url)
}

// keep adds a console, or replaces what is kept of it.
func (b *book) keep(e Entry) {
	b.drop(e.URL)
	b.Consoles = append(b.Consoles, e)
}

func (b *book) drop(url string) {
	b.Consoles = slices.DeleteFunc(b.Consoles, func(e Entry) bool { return trimmed(e.URL) == trimmed(url) })
}
