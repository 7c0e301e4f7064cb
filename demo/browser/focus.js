(() => {
  const e = document.activeElement;
  if (!e || e === document.body) return { Name: "BODY" };
  window.davitSeen.add(e);
  const style = getComputedStyle(e);
  const parse = (c) => (/rgba?\(([\d.]+), ([\d.]+), ([\d.]+)/.exec(c) || [0, 0, 0, 0]).slice(1, 4).map(Number);
  const luminance = (c) => {
    const [r, g, b] = c.map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  let below = e.parentElement;
  while (below && getComputedStyle(below).backgroundColor === "rgba(0, 0, 0, 0)") below = below.parentElement;
  const [x, y] = [luminance(parse(style.outlineColor)), luminance(below ? parse(getComputedStyle(below).backgroundColor) : [255, 255, 255])];
  return {
    Name: `${e.tagName} "${(e.textContent || e.name || "").trim().slice(0, 30)}"`,
    Width: parseFloat(style.outlineWidth), Style: style.outlineStyle, Ratio: (Math.max(x, y) + 0.05) / (Math.min(x, y) + 0.05),
  };
})()
