// Text as nodes. What strangers wrote goes into text nodes, never into markup.

export function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

/** Characters that turn the direction of writing or take no room, by which `exe.jpg` may be `gpj.exe`, are named. */
export function visible(text) {
  const hidden = /[\u200b\u2060\ufeff\u202a-\u202e\u2066-\u2069]/g;
  return text.replace(hidden, (found) => `⟪U+${found.charCodeAt(0).toString(16).toUpperCase().padStart(4, "0")}⟫`);
}

/** Words as the model sees them: runs of letters and digits, ideographs one by one, numbers made alike. */
function wordsOf(text) {
  const words = text.matchAll(/[\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff]|[\p{L}\p{N}]+/gu);
  return [...words].map(({ index, 0: word }) => {
    const lower = word.toLowerCase();
    return { from: index, length: word.length, lower, folded: lower.replace(/[0-9]+/g, "0") };
  });
}

/** The text as nodes; words, pairs and letters that moved the model are marked. */
export function highlighted(text, reasons) {
  const words = wordsOf(text);
  const weights = new Float32Array(text.length);
  const mark = (from, to, weight) => {
    for (let place = from; place < to; place += 1) {
      if (Math.abs(weight) > Math.abs(weights[place])) weights[place] = weight;
    }
  };
  const same = (word, wanted) => word !== undefined && (word.lower === wanted || word.folded === wanted);
  for (const { feature, weight } of reasons) {
    const space = feature.indexOf(" ");
    const [sort, what] = [feature.slice(0, space), feature.slice(space + 1).toLowerCase()];
    const [first, second] = what.split(" ");
    words.forEach((word, place) => {
      const to = word.from + word.length;
      if (sort === "word" && same(word, what)) mark(word.from, to, weight);
      if (sort === "pair" && same(word, first) && same(words[place + 1], second)) {
        mark(word.from, words[place + 1].from + words[place + 1].length, weight);
      }
      if (sort !== "letters" || word.lower.length !== word.length) return;
      // A space within the letters is the word's edge.
      const padded = ` ${word.lower} `;
      for (let found = padded.indexOf(what); found >= 0; found = padded.indexOf(what, found + 1)) {
        mark(Math.max(word.from + found - 1, word.from), Math.min(word.from + found - 1 + what.length, to), weight);
      }
    });
  }
  const nodes = [];
  for (let from = 0; from < text.length;) {
    const sign = Math.sign(weights[from]);
    let to = from + 1;
    while (to < text.length && Math.sign(weights[to]) === sign) to += 1;
    const part = visible(text.slice(from, to));
    nodes.push(sign === 0 ? document.createTextNode(part) : element("mark", part, sign < 0 ? "against" : ""));
    from = to;
  }
  return nodes;
}
