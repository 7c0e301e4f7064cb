// Package assets is what the console's pages are made of besides themselves: style,
// script and icon, all in the binary.
package assets

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"log/slog"
	"mime"
	"net/http"
	"path"

	"davit.dev/davit/internal/console/reply"
)

// Files are all of them.
//
//go:embed *.css *.js *.svg
var Files embed.FS

type thing struct {
	text      []byte
	kind, tag string
}

var things = func() map[string]thing {
	files, err := Files.ReadDir(".")
	if err != nil {
		panic(err) // it is in the binary
	}
	all := map[string]thing{}
	for _, f := range files {
		text, err := Files.ReadFile(f.Name())
		if err != nil {
			panic(err)
		}
		sum := sha256.Sum256(text)
		all[f.Name()] = thing{text, mime.TypeByExtension(path.Ext(f.Name())), `W/"` + hex.EncodeToString(sum[:8]) + `"`}
	}
	return all
}()

// Handler answers with the one of the path's {name}, or that it is still what the browser
// has: whoever looks at page after page on a slow link gets each once.
func Handler(log *slog.Logger) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
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
			log.Debug("an asset was not taken", "err", err)
		}
	}
}
