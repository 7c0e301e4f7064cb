// Brings the page up to date whenever the console has read the vault again. The
// page says all without it; a link refreshes it then.
(() => {
  const main = document.querySelector("main[data-live]");
  if (!main || !window.EventSource) return;
  // A console that stands still keeps its connections, and nothing errs: what says that
  // it lives are its beats. patience is three of them.
  const patience = 3 * Number(main.dataset.beat);
  const says = (text) => document.querySelectorAll("[data-state]").forEach((e) => { e.textContent = text; });
  let busy = false;
  const refresh = async () => {
    const focus = document.activeElement;
    const typing = focus && /^(INPUT|SELECT|TEXTAREA)$/.test(focus.tagName);
    const typed = [...main.querySelectorAll("form[method=post] input:not([type])")].some((i) => i.value !== i.defaultValue);
    if (busy || typing || typed || !getSelection().isCollapsed || document.hidden) return;
    busy = true;
    try {
      const answer = await fetch(location.href, { credentials: "same-origin", signal: AbortSignal.timeout(patience) });
      if (answer.redirected) return location.reload(); // the session is over
      if (!answer.ok) throw new Error(answer.status);
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").querySelector("main");
      // What was opened stays open, by its id: a run's page has more of them as it goes on.
      const details = () => { let i = 0; return [...main.querySelectorAll("details")].map((d) => [d.id || i++, d]); };
      const open = new Map(details().map(([key, d]) => [key, d.open]));
      const href = focus && main.contains(focus) && focus.getAttribute("href");
      const across = [...main.querySelectorAll(".wide")].map((d) => d.scrollLeft);
      main.replaceChildren(...fresh.childNodes);
      details().forEach(([key, d]) => { d.open = open.get(key) ?? d.open; });
      main.querySelectorAll(".wide").forEach((d, i) => { d.scrollLeft = across[i] || 0; });
      if (href) main.querySelector(`[href="${CSS.escape(href)}"]`)?.focus();
      says("live");
    } catch {
      says("the console does not answer");
    } finally {
      busy = false;
    }
  };
  let stream, silence, lost = false, full = false;
  const lose = () => {
    lost = true; // rounds may have been missed
    if (!full) says("the console does not answer; trying again");
  };
  const heard = () => {
    clearTimeout(silence);
    silence = setTimeout(() => { lose(); listen(); }, patience);
  };
  const listen = () => {
    stream?.close();
    stream = new EventSource(main.dataset.live);
    stream.onopen = () => {
      heard();
      says("live");
      if (lost) refresh();
      lost = full = false;
    };
    stream.addEventListener("full", () => { lost = full = true; says("not kept up to date: you have too many pages open; close some"); });
    stream.onerror = lose; // the browser tries again, or gives up: then the silence does
    stream.addEventListener("beat", heard);
    stream.addEventListener("round", () => { heard(); refresh(); });
    heard();
  };
  listen();
})();
