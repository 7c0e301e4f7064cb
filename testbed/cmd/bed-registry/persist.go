package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"
)

// maxManifest bounds what a client may make the registry hold in memory.
const maxManifest = 8 << 20

// record is a manifest as it was put, in the order it was put: an index must follow what it names.
type record struct {
	Seq         int    `json:"seq"`
	Path        string `json:"path"`
	ContentType string `json:"contentType"`
	Body        []byte `json:"body"`
}

// manifests keeps on disk what the wrapped registry keeps in memory only.
type manifests struct {
	http.Handler
	dir string
	mu  sync.Mutex
	seq int
}

// persist replays the manifests in dir into h and records the later ones.
func persist(dir string, h http.Handler) (http.Handler, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		return nil, err
	}
	var records []record
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			return nil, err
		}
		var r record
		if err := json.Unmarshal(data, &r); err != nil {
			return nil, fmt.Errorf("read %s: %w", f, err)
		}
		records = append(records, r)
	}
	sort.Slice(records, func(i, j int) bool { return records[i].Seq < records[j].Seq })
	m := &manifests{Handler: h, dir: dir}
	for _, r := range records {
		if w := forward(h, r); w.Code >= 300 {
			return nil, fmt.Errorf("replay %s: %d %s", r.Path, w.Code, w.Body)
		}
		m.seq = r.Seq
	}
	return m, nil
}

func forward(h http.Handler, r record) *httptest.ResponseRecorder {
	req := httptest.NewRequest(http.MethodPut, r.Path, bytes.NewReader(r.Body))
	req.Header.Set("Content-Type", r.ContentType)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, req)
	return w
}

func (m *manifests) file(path string) string {
	return filepath.Join(m.dir, url.QueryEscape(path)+".json")
}

func (m *manifests) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if !strings.Contains(req.URL.Path, "/manifests/") {
		m.Handler.ServeHTTP(w, req)
		return
	}
	switch req.Method {
	case http.MethodPut:
		m.put(w, req)
	case http.MethodDelete:
		m.Handler.ServeHTTP(w, req)
		_ = os.Remove(m.file(req.URL.Path))
	default:
		m.Handler.ServeHTTP(w, req)
	}
}

// put answers only after the manifest is on disk: an acknowledged push survives a kill.
func (m *manifests) put(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, req.Body, maxManifest))
	if err != nil {
		http.Error(w, err.Error(), http.StatusRequestEntityTooLarge)
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	r := record{Seq: m.seq + 1, Path: req.URL.Path, ContentType: req.Header.Get("Content-Type"), Body: body}
	answer := forward(m.Handler, r)
	if answer.Code < 300 {
		if err := m.store(r); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		m.seq = r.Seq
	}
	for k, v := range answer.Header() {
		w.Header()[k] = v
	}
	w.WriteHeader(answer.Code)
	_, _ = w.Write(answer.Body.Bytes())
}

func (m *manifests) store(r record) error {
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	tmp := m.file(r.Path) + ".tmp"
	if err := os.WriteFile(tmp, data, 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, m.file(r.Path))
}
