package images

import (
	"runtime"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// unconfigured drops what packages that were only extracted leave lying about. Nothing in them was set up, so such an
// image has no init system, no accounts and no alternatives: programs are called by their full names.
const unconfigured = `--extract-hook=mkdir -p "$1"/tmp "$1"/root "$1"/run && chmod 1777 "$1"/tmp && rm -rf "$1"/usr/share/doc "$1"/usr/share/man "$1"/usr/share/locale "$1"/var/cache`

// accounts gives an image that nothing was set up in the account under which the applications' pods run.
const accounts = `--extract-hook=printf 'root:x:0:0::/root:/bin/sh\napp:x:10001:10001::/tmp:/bin/sh\n' > "$1"/etc/passwd; printf 'root:x:0:\napp:x:10001:\n' > "$1"/etc/group; printf 'hosts: files dns\n' > "$1"/etc/nsswitch.conf`

// extracted is an image of Debian packages that were not configured, and a shell.
func extracted(name string, packages ...string) recipe {
	return recipe{
		name: name, variant: "extract",
		packages: append([]string{"dash", "coreutils", "sed", "grep", "hostname"}, packages...),
		hooks:    []string{unconfigured, accounts},
		config: v1.Config{
			Env:  []string{"PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "HOME=/tmp", "LANG=C.UTF-8"},
			Cmd:  []string{"/bin/sh"},
			User: "10001:10001",
		},
	}
}

// withPath puts a directory first in an image's PATH.
func withPath(r recipe, dir string) recipe {
	r.config.Env = slices.Clone(r.config.Env)
	for i, value := range r.config.Env {
		if rest, ok := strings.CutPrefix(value, "PATH="); ok {
			r.config.Env[i] = "PATH=" + dir + ":" + rest
		}
	}
	return r
}

// withProgram adds a Go program of ours to an image.
func withProgram(r recipe, program string) recipe {
	r.program = program
	return r
}

// applications are the servers of testbed/apps. What they do is in its manifests.
var applications = []recipe{
	extracted("app-redis", "redis-server"),
	extracted("app-mosquitto", "mosquitto", "mosquitto-clients"),
	extracted("app-etcd", "etcd-server", "etcd-client"),
	extracted("app-mariadb", "mariadb-server"),
	withPath(extracted("app-rabbitmq", "rabbitmq-server", "amqp-tools"), "/usr/lib/rabbitmq/bin"),
	extracted("app-prometheus", "prometheus"),
	withPath(extracted("app-zookeeper", "libzookeeper-java", "openjdk-17-jre-headless", "bash"), "/usr/lib/jvm/java-17-openjdk-"+runtime.GOARCH+"/bin"),
	withProgram(extracted("app-nats", "nats-server"), "apps/natsreq"),
	{
		name: "app-wordpress", variant: "minbase",
		packages: []string{"wordpress", "apache2", "wordpress-theme-twentytwentythree", "libapache2-mod-php8.2", "php8.2-mysql", "php8.2-xml", "curl"},
		hooks:    []string{slim},
		config:   v1.Config{Cmd: []string{"/usr/sbin/apache2ctl", "-D", "FOREGROUND"}},
	},
	{
		name: "app-lighthouse", program: "apps/lighthouse",
		config: v1.Config{Entrypoint: []string{"/usr/local/bin/lighthouse"}, User: "65532:65532"},
	},
}

// peers are what the benchmarks compare with.
var peers = []recipe{extracted("restic", "restic")}
