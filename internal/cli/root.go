// Package cli is the command line: it reads what a person asks, calls the use
// cases with that person's own rights, and prints what came of it. It is also
// the kubectl plugin kubectl-davit. How commands talk is decided in package
// output, how they end in package exit, and what they work with in package wiring.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	"k8s.io/klog/v2"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"

	"davit.dev/davit/internal/cli/bundle"
	"davit.dev/davit/internal/cli/console"
	"davit.dev/davit/internal/cli/control"
	"davit.dev/davit/internal/cli/enrolment"
	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/cli/imagery"
	"davit.dev/davit/internal/cli/installation"
	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/cli/profiles"
	"davit.dev/davit/internal/cli/remote"
	"davit.dev/davit/internal/cli/running"
	"davit.dev/davit/internal/cli/wiring"
	"davit.dev/davit/internal/cli/witness"
	"davit.dev/davit/internal/command"
)

// Streams are what a command reads and writes.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
}

// env is what every command is given.
type env struct {
	Streams
	program  string // as typed: "davit" or "kubectl davit"
	backend  wiring.Backend
	now      func() time.Time
	getenv   func(string) string
	progress *output.Progress
	global   globals
	begun    bool // the command line was understood
	grace    time.Duration
}

// globals are the flags that all commands share.
type globals struct {
	kubeconfig string
	context    string
	vault      string
	timeout    time.Duration
	output     string
	quiet      bool
	console    string
}

// Main runs the command line and returns the exit code.
func Main(args []string, streams Streams) int {
	ctx, stop := signalContext()
	defer stop()
	e := &env{Streams: streams, now: time.Now, getenv: os.Getenv, grace: endGrace}
	e.backend = wiring.Real{Silent: func(store string, last error) { e.progress.Silent("the vault "+store, last) }}
	return e.run(ctx, args)
}

// signalContext ends with exit.ErrInterrupted at the first signal; the second one
// kills the process as usual.
func signalContext() (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		if _, ok := <-signals; ok {
			signal.Stop(signals)
			cancel(exit.ErrInterrupted)
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		close(signals)
		cancel(nil)
	}
}

func (e *env) run(ctx context.Context, args []string) int {
	e.program = programName(args[0])
	e.progress = output.NewProgress(e.Err, e.program, e.now)
	root := e.root()
	root.SetArgs(args[1:])
	cmd, err := root.ExecuteContextC(ctx)
	if err != nil && !e.begun && exit.Code(err) == exit.Failed { // cobra's own, such as an unknown command
		err = exit.AsUsage(err)
	}
	e.progress.Done()
	return e.conclude(cmd, err)
}

// programName adapts to the name davit was called by: kubectl runs its plugin
// as kubectl-davit.
func programName(arg0 string) string {
	name := strings.TrimSuffix(filepath.Base(arg0), ".exe")
	if plugin, ok := strings.CutPrefix(name, "kubectl-"); ok {
		return "kubectl " + plugin
	}
	return command.Program
}

// conclude says what went wrong and how to go on, and returns the exit code.
func (e *env) conclude(cmd *cobra.Command, err error) int {
	code, hint := exit.Verdict(err)
	var coded *exit.Error
	if err == nil || errors.As(err, &coded) && coded.Err == nil {
		return code
	}
	fmt.Fprintf(e.Err, "error: %s\n", e.named(err.Error()))
	if code == exit.BadUsage && hint == "" && cmd != nil {
		hint = e.say("`%s --help` shows how", strings.TrimPrefix(cmd.CommandPath(), "davit "))
	}
	if hint != "" {
		fmt.Fprintf(e.Err, "hint: %s\n", e.named(hint))
	}
	return code
}

func (e *env) say(format string, args ...any) string { return fmt.Sprintf(format, args...) }

// named puts the program's name into commands that a text quotes.
func (e *env) named(text string) string { return command.Named(e.program, text) }

func (e *env) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "davit",
		Short: "Disaster recovery for Kubernetes: protect applications, and run them elsewhere when their site is lost",
		Long: `Davit protects applications, objects and data together, into a vault outside the cluster, and brings them up in
another cluster when theirs is lost.`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Annotations:   map[string]string{cobra.CommandDisplayNameAnnotation: e.program},
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			e.begun = true
			ctrllog.SetLogger(logr.Discard()) // the long-lived parts set their own
			klog.SetLogger(logr.Discard())
			if e.global.quiet {
				e.progress = &output.Progress{}
			}
			return errors.Join(exit.AsUsage(output.Check(cmd, e.global.output)), remote.Check(cmd, e.global.console))
		},
	}
	root.SetIn(e.In)
	root.SetOut(e.Out)
	root.SetErr(e.Err)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return exit.AsUsage(err) })
	root.CompletionOptions.SetDefaultShellCompDirective(cobra.ShellCompDirectiveNoFileComp)
	e.globalFlags(root)
	e.addCommands(root)
	return root
}

func (e *env) globalFlags(root *cobra.Command) {
	flags := root.PersistentFlags()
	flags.StringVar(&e.global.kubeconfig, "kubeconfig", "", "kubeconfig file (default: $KUBECONFIG, then ~/.kube/config)")
	flags.StringVar(&e.global.context, "context", "", "context of the kubeconfig (default: its current one)")
	flags.StringVar(&e.global.vault, "vault", "", "name of the vault (default: the only one there is)")
	flags.DurationVar(&e.global.timeout, "timeout", 0, "give up after this long (default: 1m for commands that only look, never for those that work)")
	flags.StringVarP(&e.global.output, "output", "o", string(output.Table), "output format: "+strings.Join(output.Formats, ", "))
	flags.BoolVarP(&e.global.quiet, "quiet", "q", false, "no progress on standard error")
	remote.Flag(flags, &e.global.console)
	_ = root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(output.Formats, cobra.ShellCompDirectiveNoFileComp))
}

func (e *env) addCommands(root *cobra.Command) {
	root.AddGroup(&cobra.Group{ID: "setup", Title: "Set up:"}, &cobra.Group{ID: "protect", Title: "Protect:"},
		&cobra.Group{ID: "recover", Title: "Recover:"}, &cobra.Group{ID: "look", Title: "Look:"}, &cobra.Group{ID: "console", Title: "At a console:"})
	group := func(id string, commands ...*cobra.Command) {
		for _, c := range commands {
			c.GroupID = id
			root.AddCommand(c)
		}
	}
	in := console.Host{
		In: e.In, Err: e.Err, Print: e.print, Progress: func() *output.Progress { return e.progress }, Now: e.now, Bounded: e.working, Opener: e.opener,
		Cluster: e.cluster, Ask: e.askFor, Timeout: func() time.Duration { return e.global.timeout },
	}
	put, away := installation.Install(e.installation()), installation.Uninstall(e.installation())
	put.AddCommand(console.Install(in))
	away.AddCommand(console.Uninstall(in))
	group("setup", put, away, e.vaultCommand(), enrolment.Command(enrolment.Host{In: e.In, Bounded: e.looking, Cluster: e.cluster, Print: e.print}))
	group("protect", e.protectCommand(), e.unprotectCommand(), e.suspendCommand("pause", true), e.suspendCommand("resume", false), e.backupCommand())
	group("recover", e.pointsCommand(), remote.Restore(e.remote(), e.restoreCommand()), e.verifyCommand(), e.restoreTestCommand(),
		e.planCommand(), remote.Runs(e.remote(), running.Runs(e.running())), witness.Command(witness.Host{Err: e.Err, Now: e.now, Opener: e.opener}))
	group("recover", remote.Begin(e.remote(), running.Failover(e.running()), running.Switchover(e.running()), running.Failback(e.running()), running.Drill(e.running()))...)
	room := console.Command(in)
	room.AddCommand(control.OfConsole(e.remote())...)
	group("look", room, e.statusCommand(), e.coverageCommand(), e.forecast().Readiness(),
		profiles.Command(args(cobra.MaximumNArgs(1), "give one profile's name, or none"), e.print), e.describeCommand(), e.logsCommand(), imagery.Command(e.imagery()), bundle.Command(args(cobra.NoArgs, ""), e.bundling()))
	group("console", append(remote.Commands(e.remote()), control.Commands(e.remote())...)...)
	root.AddCommand(e.versionCommand(), exitCodesTopic())
	root.AddCommand(e.partCommands()...)
}

func exitCodesTopic() *cobra.Command {
	return &cobra.Command{Use: "exit-codes", Short: "What the exit codes mean", Long: exit.Help}
}

// args wraps a check of the arguments so that it ends with the usage code.
func args(check cobra.PositionalArgs, names string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, given []string) error {
		if check(cmd, given) == nil {
			return nil
		}
		if names == "" {
			return exit.Usage("", "%s takes no arguments, but was given %q", cmd.Name(), given)
		}
		if len(given) > 0 && cmd.HasAvailableSubCommands() {
			return unknownCommand(cmd, given[0])
		}
		return exit.Usage("", "%s takes %s, but was given %d arguments", cmd.Name(), names, len(given))
	}
}

// unknownCommand names the commands below this one that may have been meant.
func unknownCommand(cmd *cobra.Command, word string) error {
	cmd.SuggestionsMinimumDistance = 2
	if near := cmd.SuggestionsFor(word); len(near) > 0 {
		return exit.Usage(fmt.Sprintf("did you mean `%s %s`?", cmd.Name(), near[0]), "%s has no command %q", cmd.Name(), word)
	}
	var names []string
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() {
			names = append(names, c.Name())
		}
	}
	return exit.Usage("", "%s has no command %q, only %s", cmd.Name(), word, strings.Join(names, ", "))
}

// looking bounds a command that only looks: nobody waits for it for ever.
func (e *env) looking(cmd *cobra.Command) (context.Context, context.CancelFunc) {
	return e.bounded(cmd, time.Minute)
}

// working bounds a command that works only if --timeout says so.
func (e *env) working(cmd *cobra.Command) (context.Context, context.CancelFunc) {
	return e.bounded(cmd, 0)
}

func (e *env) bounded(cmd *cobra.Command, limit time.Duration) (context.Context, context.CancelFunc) {
	if e.global.timeout > 0 {
		limit = e.global.timeout
	}
	if limit == 0 {
		return context.WithCancel(cmd.Context())
	}
	return context.WithTimeoutCause(cmd.Context(), limit, fmt.Errorf("%w after %s", exit.ErrTimeout, output.Duration(limit)))
}

func (e *env) print(r output.Result) error {
	e.progress.Done()
	return output.NewPrinter(output.Format(e.global.output), e.program, e.Out).Print(r)
}
