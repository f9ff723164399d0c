// Draws the spectra of one weight matrix at one epoch, for every run.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const colours = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00",
    "#56B4E9"];
  const dashes = ["", "7 3", "8 3 2 3", "2 3", "", "7 3"];
  const box = { left: 62, right: 16, top: 14, bottom: 44 };
  const [width, height] = [720, 380];
  const svg = document.getElementById("canvas");
  const weight = document.getElementById("weight");
  const slider = document.getElementById("epoch");
  const epochs = [...new Set(data.runs.flatMap((run) => run.epochs))]
    .sort((one, other) => one - other);

  for (const name of data.weights) weight.add(new Option(name));
  slider.max = epochs.length - 1;
  slider.value = epochs.length - 1;

  const element = (name, attributes, text) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) {
      made.setAttribute(key, value);
    }
    if (text !== undefined) made.textContent = text;
    svg.append(made);
  };

  // The last measurement of a run that is no later than an epoch.
  const until = (run, epoch) => run.epochs.filter((one) => one <= epoch).pop();

  const draw = () => {
    svg.replaceChildren();
    const epoch = epochs[slider.value];
    const shown = [];
    data.runs.forEach((run, index) => {
      const spectra = run.spectra[weight.value];
      if (!spectra) return;
      const when = until(run, epoch);
      if (when === undefined || !spectra[when]) return;
      shown.push({ run, index, when, now: spectra[when],
        first: spectra[run.epochs[0]] });
    });
    const all = shown.flatMap(({ now, first }) =>
      [...now.values, ...first.values]);
    const low = Math.floor(Math.log10(Math.max(data.least,
      Math.min(data.tolerance / 10, ...all.filter((value) => value > 0)))));
    const most = Math.max(2, ...shown.map(({ now }) => now.full));
    const x = (at) => box.left
      + (at - 1) / (most - 1) * (width - box.left - box.right);
    const y = (value) => box.top + Math.log10(Math.max(value, 10 ** low))
      / low * (height - box.top - box.bottom);

    for (let decade = 0; decade >= low; decade -= 1) {
      const at = y(10 ** decade);
      element("line", { x1: box.left, x2: width - box.right, y1: at, y2: at,
        stroke: "#ddd" });
      element("text", { x: box.left - 6, y: at + 4, "text-anchor": "end",
        "font-size": 12 }, decade === 0 ? "1" : `1e${decade}`);
    }
    const step = Math.max(1, Math.round(most / 6));
    for (let at = 1; at <= most; at += step) {
      element("text", { x: x(at), y: height - box.bottom + 18,
        "text-anchor": "middle", "font-size": 12 }, at);
    }
    element("text", { x: (box.left + width) / 2, y: height - 8,
      "text-anchor": "middle", "font-size": 13 },
    "index of the singular value");
    element("text", { x: 0, y: 0, "text-anchor": "middle", "font-size": 13,
      transform: `translate(14 ${height / 2 - 10}) rotate(-90)` },
    "singular value / Frobenius norm");
    const level = y(data.tolerance);
    element("line", { x1: box.left, x2: width - box.right, y1: level,
      y2: level, stroke: "#555", "stroke-dasharray": "2 3" });
    element("text", { x: width - box.right, y: level - 5,
      "text-anchor": "end", "font-size": 12, fill: "#555" },
    `rank counts above ${data.tolerance}`);

    const path = (spectrum, style) => {
      const points = spectrum.at.map((at, index) =>
        `${x(at).toFixed(1)},${y(spectrum.values[index]).toFixed(1)}`);
      element("polyline", { points: points.join(" "), fill: "none", ...style });
    };
    if (shown.length) path(shown[0].first, { stroke: "#aaa" });
    for (const { index, now } of shown) {
      path(now, { stroke: colours[index % colours.length], "stroke-width": 2,
        "stroke-dasharray": dashes[index % dashes.length] });
    }
    document.getElementById("when").textContent = epoch;
    const words = shown.map(({ run, index, when, now }) => {
      const mark = document.createElement("span");
      mark.textContent = "\u25A0 ";
      mark.style.color = colours[index % colours.length];
      const rank = now.rank === null ? "not finite"
        : `rank ${now.rank} of ${now.full}`;
      const late = when === epoch ? "" : ` at epoch ${when}`;
      return [mark, `${run.name}: ${rank}${late}. `];
    });
    document.getElementById("ranks").replaceChildren(...words.flat(),
      "Grey: the initialisation.");
  };

  weight.addEventListener("change", draw);
  slider.addEventListener("input", draw);
  draw();
})();
