package browser

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
)

// hands gives a page a clock that the test turns, for what its scripts wait for.
const hands = `let now = 0, last = 0; const timers = new Map();
window.setTimeout = (f, ms) => { timers.set(++last, [now + ms, f]); return last; };
window.clearTimeout = (id) => timers.delete(id);
AbortSignal.timeout = (ms) => { const c = new AbortController(); setTimeout(() => c.abort(), ms); return c.signal; };
const turn = (ms) => { now += ms; for (const [id, [at, f]] of [...timers]) if (at <= now) { timers.delete(id); f(); } };`

// A page whose stream falls silent says that the console does not answer, and opens
// another; one that hears beats does neither, however long. A console that takes a
// request and never answers it does not keep the page from asking again. What was opened
// on a page stays open, whatever comes before it.
func TestLiveSilence(t *testing.T) {
	script, err := os.ReadFile(filepath.Join(top(t), "internal", "console", "ui", "assets", "live.js"))
	if err != nil {
		t.Fatal(err)
	}
	says, pages, streams := make(chan string), make(chan string, 8), make(chan none, 8)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		what := "hangs"
		select {
		case what = <-pages:
		default:
		}
		if what == "hangs" {
			<-r.Context().Done()
			return
		}
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprintf(w, `<!DOCTYPE html><title>t</title><script>%s</script><script src="/live.js" defer></script>
<main data-live="/stream" data-beat="1000"><p id="is">%s</p><span data-state></span></main>`, hands, what)
	})
	mux.HandleFunc("GET /live.js", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/javascript")
		_, _ = w.Write(script)
	})
	mux.HandleFunc("GET /stream", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		streams <- none{}
		for {
			select {
			case <-r.Context().Done():
				return
			case what := <-says:
				fmt.Fprintf(w, "event: %s\ndata: {}\n\n", what)
				_ = http.NewResponseController(w).Flush()
			}
		}
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	p := start(t).open(t, true)
	pages <- "first"
	p.visit(server.URL)
	<-streams
	state := func(is string) { p.holds(fmt.Sprintf("document.querySelector('[data-state]').textContent === %q", is)) }
	state("live")
	armed := "Math.max(...[...timers.values()].map(([at]) => at)) === now + 3000"
	for range 10 { // the control: beats that come within three
		p.eval("turn(2000)", nil)
		says <- "beat"
		p.holds(armed)
	}
	state("live")
	if len(streams) != 0 {
		t.Error("a stream that beats was opened anew")
	}

	// Nothing comes any more, and no connection ends.
	pages <- `second</p><details id="said-b"><summary>b</summary></details>`
	p.eval("turn(2999)", nil)
	state("live")
	p.eval("turn(1); document.silent = document.querySelector('[data-state]').textContent", nil)
	p.holds("document.silent === 'the console does not answer; trying again'")
	<-streams
	state("live")
	p.holds("document.querySelector('#is').textContent === 'second'") // what it may have missed

	p.eval("document.querySelector('#said-b').open = true", nil)

	// A page that was asked for never comes.
	says <- "round"
	p.holds("timers.size === 3") // the silence, and two bounds of which one is of a page that came
	p.eval("turn(2000)", nil)
	says <- "beat"
	p.holds(armed)
	p.eval("turn(1000)", nil)
	state("the console does not answer")
	pages <- `third</p><details id="said-a"><summary>a</summary></details><details id="said-b"><summary>b</summary></details>`
	says <- "round"
	p.holds("document.querySelector('#is').textContent === 'third'")
	p.holds("document.querySelector('#said-b').open && !document.querySelector('#said-a').open") // what was opened stays so
	state("live")
}
