// Two charts as SVG: bars of what came, and a band of what is expected.

const SVG = "http://www.w3.org/2000/svg";

function shape(name, attributes, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, String(value));
  if (text !== undefined) made.textContent = text;
  return made;
}

/** Rows with `queue` and `events`. */
export function bars(rows) {
  const height = 18 * Math.max(rows.length, 1);
  const svg = shape("svg", { viewBox: `0 0 300 ${height}`, role: "img", "aria-label": "events by queue" });
  const most = Math.max(1, ...rows.map((row) => row.events));
  rows.forEach((row, place) => {
    const width = (110 * row.events) / most;
    svg.append(
      shape("text", { x: 140, y: place * 18 + 12, "text-anchor": "end" }, row.queue.slice(0, 22)),
      shape("rect", { class: "bar", x: 146, y: place * 18 + 3, width, height: 11 }),
      shape("text", { x: 150 + width, y: place * 18 + 12 }, String(row.events)),
    );
  });
  return svg;
}

/** A forecast with its points: the mean, and the 80 % interval around it. */
export function band({ points, bucket_seconds: seconds }) {
  const svg = shape("svg", { viewBox: "0 0 300 98", role: "img", "aria-label": "forecast of all queues" });
  const most = Math.max(1, ...points.map((point) => point.upper80 ?? point.mean));
  const x = (step) => 4 + (292 * step) / Math.max(points.length - 1, 1);
  const each = seconds >= 86_400 ? "a day" : seconds >= 3600 ? "an hour" : "a minute";
  const y = (value) => 80 - (70 * Math.max(value ?? 0, 0)) / most;
  const line = (name) => points.map((point, step) => `${x(step).toFixed(1)},${y(point[name] ?? point.mean).toFixed(1)}`);
  svg.append(
    shape("polygon", { class: "band", points: [...line("upper80"), ...line("lower80").reverse()].join(" ") }),
    shape("polyline", { class: "line", points: line("mean").join(" ") }),
    shape("text", { x: 4, y: 94 }, `from ${new Date(points[0].at).toLocaleString()}, up to ${Math.round(most)} ${each}`),
  );
  return svg;
}
