function () {
  // What is wrong with the page as it is shown now: contrast of every text
  // (WCAG 2.2 AA), width, headings, labels.
  const faults = [];
  const parse = (c) => {
    const m = /rgba?\(([\d.]+), ([\d.]+), ([\d.]+)(?:, ([\d.]+))?\)/.exec(c);
    return m ? [+m[1], +m[2], +m[3], m[4] === undefined ? 1 : +m[4]] : [0, 0, 0, 0];
  };
  const over = (top, below) => [0, 1, 2].map((i) => top[i] * top[3] + below[i] * (1 - top[3])).concat(1);
  const luminance = (c) => {
    const [r, g, b] = c.slice(0, 3).map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrast = (a, b) => {
    const [x, y] = [luminance(a), luminance(b)];
    return (Math.max(x, y) + 0.05) / (Math.min(x, y) + 0.05);
  };
  const root = getComputedStyle(document.documentElement).backgroundColor;
  const scheme = matchMedia("(prefers-color-scheme: dark)").matches;
  const canvas = over(parse(root), scheme && parse(root)[3] ? [18, 18, 18, 1] : [255, 255, 255, 1]);
  const ground = (e) => {
    const layers = [];
    for (; e; e = e.parentElement) layers.unshift(parse(getComputedStyle(e).backgroundColor));
    return layers.reduce((below, top) => over(top, below), canvas);
  };
  const hidden = (e) => {
    const box = e.getBoundingClientRect();
    return box.width === 0 || box.height === 0 || box.right <= 0 || !e.checkVisibility({ visibilityProperty: true });
  };
  const shown = (text) => text.trim().replace(/\s+/g, " ").slice(0, 40);

  let texts = 0;
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let n = walker.nextNode(); n; n = walker.nextNode()) {
    const e = n.parentElement;
    if (!n.data.trim() || hidden(e) || e.closest("svg") || e.closest("option")) continue;
    texts++;
    const style = getComputedStyle(e);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && +style.fontWeight >= 700);
    const below = ground(e);
    const ratio = contrast(over(parse(style.color), below), below);
    if (ratio < (large ? 3 : 4.5)) faults.push(`contrast ${ratio.toFixed(2)} of "${shown(n.data)}"`);
    if (size < 12) faults.push(`"${shown(n.data)}" has ${size} px`);
  }
  for (const e of document.querySelectorAll("input:not([type=hidden]), select, button")) {
    const style = getComputedStyle(e);
    const below = ground(e);
    const ratio = contrast(over(parse(style.color), below), below);
    if (!hidden(e) && ratio < 4.5) faults.push(`contrast ${ratio.toFixed(2)} of ${e.tagName} ${e.name}`);
  }
  // Texts of drawings stand on the shapes that were drawn before them.
  for (const t of document.querySelectorAll("svg text")) {
    if (hidden(t)) continue;
    texts++;
    const svg = t.ownerSVGElement;
    let below = ground(svg);
    const box = t.getBBox();
    for (const s of svg.querySelectorAll("rect, circle, ellipse")) {
      const fill = parse(getComputedStyle(s).fill);
      const b = s.getBBox();
      const apart = b.x >= box.x + box.width || b.x + b.width <= box.x || b.y >= box.y + box.height || b.y + b.height <= box.y;
      if (fill[3] && !apart && s.compareDocumentPosition(t) & Node.DOCUMENT_POSITION_FOLLOWING) below = over(fill, below);
    }
    const ratio = contrast(over(parse(getComputedStyle(t).fill), below), below);
    if (ratio < 4.5) faults.push(`contrast ${ratio.toFixed(2)} of a drawing's "${shown(t.textContent)}"`);
  }

  const wide = document.documentElement.scrollWidth;
  if (wide > innerWidth || wide > document.documentElement.clientWidth) {
    const worst = [...document.querySelectorAll("main *")].filter((e) => e.getBoundingClientRect().right > innerWidth + 1 && !e.closest(".wide")).slice(0, 3);
    faults.push(`${wide} px, wider than the window: ${worst.map((e) => e.tagName + " " + shown(e.textContent)).join("; ")}`);
  }
  if (document.querySelectorAll("h1").length !== 1) faults.push("no h1, or several");
  if (document.querySelectorAll("main").length !== 1) faults.push("no main, or several");
  if (!document.title || !document.documentElement.lang) faults.push("no title or language");
  for (const e of document.querySelectorAll("input:not([type=hidden]), select, textarea")) {
    if (!e.labels.length && !e.ariaLabel) faults.push(`no label: ${e.name}`);
  }
  for (const e of document.querySelectorAll("img:not([alt]), svg:not([aria-hidden]):not(:has(> title))")) {
    faults.push(`no text for ${e.tagName} of a picture or drawing`);
  }
  for (const e of document.querySelectorAll("a, button, summary")) {
    if (!hidden(e) && !e.textContent.trim() && !e.ariaLabel) faults.push(`${e.tagName} says nothing`);
  }
  const ids = [...document.querySelectorAll("[id]")].map((e) => e.id);
  if (new Set(ids).size !== ids.length) faults.push("an id is there twice");
  const stops = [...document.querySelectorAll("a[href], button, input:not([type=hidden]), select, summary, textarea, [tabindex='0']")]
    .filter((e) => !e.disabled && (e.checkVisibility({ visibilityProperty: true })) && !e.closest("details:not([open]) > :not(summary)"));
  return { Faults: faults, Texts: texts, Stops: stops.length };
}
