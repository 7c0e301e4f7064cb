// Command bed-registry is the OCI registry of a site. Blobs and manifests lie on disk, so that a killed site
// comes back with the images it had.
package main

import (
	"flag"
	"log"
	"net/http"
	"os"
	"path/filepath"

	"github.com/google/go-containerregistry/pkg/registry"
)

func main() {
	listen := flag.String("listen", ":5000", "address to serve on")
	dir := flag.String("dir", "", "directory for blobs and manifests")
	flag.Parse()
	blobs := filepath.Join(*dir, "blobs")
	if err := os.MkdirAll(blobs, 0o755); err != nil {
		log.Fatalf("create blob directory: %v", err)
	}
	handler, err := persist(filepath.Join(*dir, "manifests"), registry.New(registry.WithBlobHandler(registry.NewDiskBlobHandler(blobs))))
	if err != nil {
		log.Fatalf("load manifests: %v", err)
	}
	log.Fatal(http.ListenAndServe(*listen, handler))
}
