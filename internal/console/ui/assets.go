package ui

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"io/fs"
	"mime"
	"net/http"
	"path"

	"davit.dev/davit/internal/console/reply"
)

//go:embed assets/*
var assets embed.FS

// thing is what pages are made of besides themselves.
type thing struct {
	text []byte
	kind string
	tag  string
}

var things = func() map[string]thing {
	files, err := fs.ReadDir(assets, "assets")
	if err != nil {
		panic(err) // it is in the binary
	}
	all := map[string]thing{}
	for _, f := range files {
		text, err := assets.ReadFile("assets/" + f.Name())
		if err != nil {
			panic(err)
		}
		sum := sha256.Sum256(text)
		all[f.Name()] = thing{text, mime.TypeByExtension(path.Ext(f.Name())), `W/"` + hex.EncodeToString(sum[:8]) + `"`}
	}
	return all
}()

// asset answers with one of them, or that it is still the one that the browser has:
// whoever looks at page after page on a slow link gets each once.
func (s *Server) asset(w http.ResponseWriter, r *http.Request) {
	one, found := things[r.PathValue("name")]
	if !found {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Cache-Control", "no-cache")
	w.Header().Set("ETag", one.tag)
	if r.Header.Get("If-None-Match") == one.tag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	w.Header().Set("Content-Type", one.kind)
	if err := reply.Write(w, r, http.StatusOK, one.text); err != nil {
		s.Log.Debug("an asset was not taken", "err", err)
	}
}
