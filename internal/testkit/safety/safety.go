// Package safety is what keeps writers apart, and what a schedule can do without, so that
// tests see that it is missed.
package safety

import "davit.dev/davit/internal/plan"

// Options take safety away, one piece at a time, so that tests can see that
// the simulator misses it.
type Options struct {
	Trace bool
	// Drowsy, if it is set, is the kind of steps whose processes stand still before a write.
	Drowsy plan.Kind
	// Wakes, if it is set, is at what whoever stands still goes on, and not before: "restore", when one
	// takes an application up, "start" of it, "return" of an epoch, "change" of an Application, "name" that is moved back.
	Wakes string
	// Isolated has the site that runs the applications live on, under leases, and hear of
	// nobody for a minute from when another claims what it runs.
	Isolated bool
	// Leaning has the site that runs the applications live on, under leases that peers' promises keep, and nobody
	// but the one who claims what it runs hear of the vault for a minute from then on.
	Leaning bool
	// Renamed has another cluster bear the name of the usual target since what runs was claimed.
	Renamed bool
	// NoFence lets sites claim to have stopped without doing so.
	NoFence bool
	// NoWord lets an agent prove that an application has stopped without its nodes' word, by what the API
	// server lists: nothing, whatever containers still run.
	NoWord bool
	// ShortWait lets runs wait a second where sites keep their lease for longer.
	ShortWait bool
	// NoEpochCheck lets sites obey orders of any epoch.
	NoEpochCheck bool
	// NoFloor lets nodes not stop for a newer epoch, and start what they ran before they
	// lost their power.
	NoFloor bool
	// NoNumbers lets sites forget which orders they have seen.
	NoNumbers bool
	// NoSeal lets sites carry out an act that is older than a look which they
	// answered with "not done".
	NoSeal bool
	// NoTurn lets what takes a command back run beside it.
	NoTurn bool
	// Hasty lets a command's job begin when it is made, however late that is.
	Hasty bool
	// NoTask lets a volume be filled as soon as that is asked for, however late.
	NoTask bool
	// NoReturn lets the nodes of a target not know that a run gives an epoch back.
	NoReturn bool
	// NoStill lets whoever restores stop what was started meanwhile.
	NoStill bool
	// NoOwnMark lets a restore take off the mark of another.
	NoOwnMark bool
	// NoVersion lets gates be turned without a look whether anybody did meanwhile.
	NoVersion bool
	// NoCurrent lets a site hold an application for an order that was taken back.
	NoCurrent bool
	// NoPrerequisite lets servers of names take updates without a look at their guard.
	NoPrerequisite bool
	// NoAgain lets calls be sent without a look whether their order is still the newest, NoHeed lets servers obey
	// calls that come after newer ones.
	NoAgain, NoHeed bool
	// NoAsk lets runs forget how many people a step asks: the first to say yes is enough.
	NoAsk bool
	// NoHold lets a target go on promising that it stays passive, Cached lets it answer by what it read before,
	// NoNames lets runs count leases that are kept by the promises of others than their target, NoClusters of a
	// cluster that bore its name before.
	NoHold, Cached, NoNames, NoClusters bool
	// NoLook lets executors act without looking.
	NoLook bool
	// OldNews lets executors believe that an order was superseded which went out before
	// the run's own claim.
	OldNews bool
	// NoQuiesce lets a source say that an application is at rest while it writes.
	NoQuiesce bool
	// NoSandbox lets a target carry out orders of drills on what is live there.
	NoSandbox bool
	// LostEntry keeps the last of several entries out of the journal.
	LostEntry bool
	// Mute lets a run that goes no further not say why.
	Mute bool
	// WildClocks run fast and slow beyond what leases count with.
	WildClocks bool
	// NoProbe lets vantage points take a site for lost that answers them.
	NoProbe bool
	// NoQuorum lets one vantage point speak for all, NoHysteresis lets a moment's
	// agreement do, and Failback lets what came by a failover be declared again at once.
	NoQuorum, NoHysteresis, Failback bool
}
