package bed

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"davit.dev/davit/testbed/build"
	"davit.dev/davit/testbed/imagetar"
)

// References of the images every site has. Nothing is ever pulled from outside.
const (
	// PauseImage holds the namespaces of every pod.
	PauseImage = "davit.test/pause:1"
	// ToolImage has busybox: sh, nslookup, wget, nc, httpd and the usual small tools.
	ToolImage      = "davit.test/bedtool:1"
	coreDNSImage   = "davit.test/coredns:" + build.CoreDNS
	localPathImage = "davit.test/local-path-provisioner:" + build.LocalPath
)

// baseImages packs what is missing in the cache and returns the tars. The name of a tar holds a hash of its contents'
// origin, so that a changed binary gives a new tar and is imported again.
func baseImages(bin build.Set) ([]string, error) {
	cache, err := build.CacheDir()
	if err != nil {
		return nil, err
	}
	tool, err := toolImage()
	if err != nil {
		return nil, err
	}
	tmp := imagetar.Entry{Path: "tmp", Dir: true, Mode: 0o1777}
	images := []imagetar.Image{
		single(PauseImage, bin.Path("bed-pause")),
		single(coreDNSImage, bin.Path("coredns"), tmp),
		single(localPathImage, bin.Path("local-path-provisioner"), tmp),
		tool,
	}
	var tars []string
	for _, img := range images {
		key, err := imageKey(img)
		if err != nil {
			return nil, err
		}
		short := strings.NewReplacer("/", "-", ":", "-").Replace(strings.TrimPrefix(img.Ref, "davit.test/"))
		path := filepath.Join(cache, "images", "bed-"+short+"-"+key+".tar")
		if _, err := os.Stat(path); err != nil {
			if err := imagetar.Write(path, img); err != nil {
				return nil, err
			}
		}
		tars = append(tars, path)
	}
	return tars, nil
}

func single(ref, path string, more ...imagetar.Entry) imagetar.Image {
	name := filepath.Base(path)
	return imagetar.Image{Ref: ref, Entrypoint: []string{"/" + name}, Entries: append(more, imagetar.Entry{Path: name, File: path})}
}

func imageKey(img imagetar.Image) (string, error) {
	h := sha256.New()
	for _, e := range img.Entries {
		fmt.Fprintf(h, "%s %s %s %d\n", e.Path, e.Link, e.Data, e.Mode)
		if e.File == "" {
			continue
		}
		st, err := os.Stat(e.File)
		if err != nil {
			return "", fmt.Errorf("pack %s: %w; run 'bed build'", img.Ref, err)
		}
		fmt.Fprintf(h, "%s %d %d\n", e.File, st.Size(), st.ModTime().UnixNano())
	}
	return hex.EncodeToString(h.Sum(nil))[:12], nil
}

// busybox is Debian's static build; 'bed up --install' installs it.
const busybox = "/bin/busybox"

func toolImage() (imagetar.Image, error) {
	out, err := exec.Command(busybox, "--list").Output()
	if err != nil {
		return imagetar.Image{}, fmt.Errorf("list applets of busybox: %w; run 'bed up --install'", err)
	}
	img := imagetar.Image{Ref: ToolImage, Entrypoint: []string{"/bin/sh"}, Entries: []imagetar.Entry{
		{Path: "tmp", Dir: true, Mode: 0o1777},
		{Path: "bin", Dir: true},
		{Path: "etc", Dir: true},
		{Path: "etc/passwd", Data: "root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n", Mode: 0o644},
		{Path: "etc/group", Data: "root:x:0:\nnogroup:x:65534:\n", Mode: 0o644},
		{Path: "etc/nsswitch.conf", Data: "hosts: files dns\n", Mode: 0o644},
		{Path: "bin/busybox", File: busybox},
	}}
	for _, applet := range strings.Fields(string(out)) {
		if applet != "busybox" {
			img.Entries = append(img.Entries, imagetar.Entry{Path: "bin/" + applet, Link: "busybox"})
		}
	}
	return img, nil
}
