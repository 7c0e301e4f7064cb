// Command davit is Davit: the command line, also as the kubectl plugin
// kubectl-davit, and the parts that run in a cluster (agent, node, hold).
package main

import (
	"os"

	"davit.dev/davit/internal/cli"
)

func main() {
	os.Exit(cli.Main(os.Args, cli.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}))
}
