// Runs in a page of frames, an HTML page in each: says which words are clipped, overlap others, or are too faint.
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

const meet = (a, b) => a.left < b.right - 0.5 && b.left < a.right - 0.5 && a.top < b.bottom - 2 && b.top < a.bottom - 2;

// A run of text that wraps has a box for each of its lines. What scrolls away inside a scroller is not on the page.
const words = (view, root) => {
  const found = [];
  const walker = root.ownerDocument.createTreeWalker(root, 4);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const parent = node.parentElement;
    if (!node.data.trim() || !parent.getClientRects().length || parent.closest("style, script, svg")) continue;
    const range = root.ownerDocument.createRange();
    range.selectNodeContents(node);
    const scroller = parent.closest("[data-scrolls], .said");
    const pane = scroller && scroller.getBoundingClientRect();
    for (const box of range.getClientRects()) {
      if (pane && (box.bottom > pane.bottom || box.top < pane.top)) continue;
      found.push({ text: node.data.trim().slice(0, 40), style: view.getComputedStyle(parent), box });
    }
  }
  return found;
};

const measure = (frame) => {
  const view = frame.contentWindow;
  const root = frame.contentDocument.body;
  const paper = view.getComputedStyle(root).backgroundColor;
  const texts = words(view, root);
  const wrong = [];
  for (const [index, { text, style, box }] of texts.entries()) {
    if (box.left < 0 || box.right > view.innerWidth + 0.5) wrong.push(["clipped", text]);
    if (parseFloat(style.fontSize) < 11) wrong.push(["small", text]);
    if (contrast(style.color, paper) < 4.5) wrong.push(["faint", text]);
    for (const other of texts.slice(index + 1, index + 60)) if (meet(box, other.box)) wrong.push(["overlap", text, other.text]);
  }
  const outside = [...root.querySelectorAll("[src], [href]")].map((element) => element.outerHTML.slice(0, 80))
    .filter((text) => !/href="#/.test(text));
  return {
    width: view.innerWidth,
    words: texts.length,
    paper,
    wrong,
    outside,
    scrolls: frame.contentDocument.documentElement.scrollWidth > view.innerWidth,
  };
};

addEventListener("load", () => {
  const found = JSON.stringify([...document.querySelectorAll("iframe")].map(measure));
  document.body.append(Object.assign(document.createElement("pre"), { id: "result", textContent: found }));
});
