// Package version tells which davit this is.
package version

// version is set when davit is built:
// -ldflags "-X davit.dev/davit/internal/version.version=v0.1.0".
var version = "dev"

// String returns the version, "dev" for a build that was given none.
func String() string { return version }
