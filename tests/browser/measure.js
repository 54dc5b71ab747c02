// Runs in a page of frames, one picture in each: collects every visible text's box and says what is wrong with any.
// The findings end up as JSON in an element with the id "result".

const luminance = (rgb) => {
  const [r, g, b] = rgb.match(/[\d.]+/g).map((value) => {
    const part = value / 255;
    return part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};

// WCAG's contrast ratio: 4.5 is its limit for small text.
const contrast = (one, other) => {
  const [low, high] = [luminance(one), luminance(other)].sort((x, y) => x - y);
  return (high + 0.05) / (low + 0.05);
};

const meet = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;

const labels = (view, svg) => [...svg.querySelectorAll("text")]
  .map((text) => ({ text: text.textContent, style: view.getComputedStyle(text), box: text.getBoundingClientRect() }))
  .filter(({ text, style }) => text && style.display !== "none");

const faults = (view, svg, paper, texts) => {
  const bottom = svg.getBoundingClientRect().bottom;
  const wrong = [];
  for (const [index, { text, style, box }] of texts.entries()) {
    const inside = box.left >= 0 && box.top >= 0 && box.right <= view.innerWidth && box.bottom <= bottom;
    if (!inside) wrong.push(["clipped", text]);
    if (parseFloat(style.fontSize) < 11) wrong.push(["small", text]);
    if (contrast(style.fill, paper) < 4.5) wrong.push(["faint", text]);
    for (const other of texts.slice(index + 1)) if (meet(box, other.box)) wrong.push(["overlap", text, other.text]);
  }
  const bars = [...svg.querySelectorAll("rect")].filter((rect) => rect.querySelector("title"));
  for (const bar of bars.map((rect) => rect.getBoundingClientRect())) {
    if (bar.height < 20 || bar.right > view.innerWidth) wrong.push(["bar", bar.top]);
    for (const { text, box } of texts) if (meet(bar, box)) wrong.push(["on bar", text]);
  }
  return wrong;
};

const measure = (frame) => {
  const view = frame.contentWindow;
  const svg = frame.contentDocument.querySelector("svg");
  const paper = view.getComputedStyle(svg.querySelector('rect[height="100%"]')).fill;
  const texts = labels(view, svg);
  return {
    width: view.innerWidth,
    labels: texts.length,
    paper,
    wrong: faults(view, svg, paper, texts),
    scrolls: frame.contentDocument.documentElement.scrollWidth > view.innerWidth,
  };
};

addEventListener("load", () => {
  const found = JSON.stringify([...document.querySelectorAll("iframe")].map(measure));
  document.body.append(Object.assign(document.createElement("pre"), { id: "result", textContent: found }));
});
