// Small charts as inline SVG. They stretch with their tile, so they hold no text; labels are HTML.

import { h, setText, svg } from "./dom.js";

const WIDTH = 100;
const HEIGHT = 40;

/**
 * Points over time. `points`: [{ time, value }], in order. The last one is drawn as unfinished when
 * `lastIsOpen`. `describe(point)` is shown while pointing at it, `label` is read aloud.
 */
export function lineChart({ points, lastIsOpen, label, small, describe, from, to }) {
  const peak = Math.max(...points.map((point) => point.value), 0);
  const scale = peak > 0 ? peak : 1;
  const x = (index) => (points.length < 2 ? WIDTH : (index / (points.length - 1)) * WIDTH);
  const y = (value) => HEIGHT - (value / scale) * (HEIGHT - 2) - 1;
  const at = (index) => `${x(index).toFixed(2)},${y(points[index].value).toFixed(2)}`;

  const drawing = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": label });
  drawing.append(svg("line", { class: "base", x1: 0, x2: WIDTH, y1: HEIGHT, y2: HEIGHT }));
  const finished = lastIsOpen ? points.length - 1 : points.length;
  if (finished > 1) {
    const path = Array.from({ length: finished }, (_, index) => at(index)).join(" L");
    drawing.append(
      svg("path", { class: "area", d: `M0,${HEIGHT} L${path} L${x(finished - 1).toFixed(2)},${HEIGHT} Z` }),
      svg("path", { class: "stroke", d: `M${path}` }),
    );
  }
  if (lastIsOpen && points.length > 1) {
    drawing.append(svg("path", { class: "open", d: `M${at(points.length - 2)} L${at(points.length - 1)}` }));
  }
  const chart = h("div", { class: small ? "chart small" : "chart" }, drawing);
  if (!describe) return chart;

  const middle = h("span", {});
  chart.append(h("div", { class: "axis", "aria-hidden": "true" }, h("span", {}, from), middle, h("span", {}, to)));
  const cursor = svg("line", { class: "cursor", y1: 0, y2: HEIGHT, visibility: "hidden" });
  drawing.append(cursor);
  drawing.addEventListener("pointermove", (event) => {
    const box = drawing.getBoundingClientRect();
    const share = Math.min(Math.max((event.clientX - box.left) / box.width, 0), 1);
    const index = Math.round(share * (points.length - 1));
    cursor.setAttribute("x1", x(index));
    cursor.setAttribute("x2", x(index));
    cursor.setAttribute("visibility", "visible");
    setText(middle, describe(points[index]));
  });
  drawing.addEventListener("pointerleave", () => {
    cursor.setAttribute("visibility", "hidden");
    setText(middle, "");
  });
  return chart;
}

/** One bar per point; the last is drawn lighter when `lastIsOpen`. */
export function barChart({ points, lastIsOpen, label, describe, from, to }) {
  const peak = Math.max(...points.map((point) => point.value), 0);
  const scale = peak > 0 ? peak : 1;
  const step = WIDTH / points.length;
  const drawing = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": label });
  drawing.append(svg("line", { class: "base", x1: 0, x2: WIDTH, y1: HEIGHT, y2: HEIGHT }));
  points.forEach((point, index) => {
    const height = Math.max((Math.max(point.value, 0) / scale) * HEIGHT, point.value > 0 ? 0.6 : 0);
    const open = lastIsOpen && index === points.length - 1;
    drawing.append(
      svg(
        "rect",
        {
          class: open ? "bar open" : "bar",
          x: (index * step + step * 0.12).toFixed(2),
          y: (HEIGHT - height).toFixed(2),
          width: (step * 0.76).toFixed(2),
          height: height.toFixed(2),
        },
        svg("title", {}, describe(point)),
      ),
    );
  });
  const axis = h("div", { class: "axis", "aria-hidden": "true" }, h("span", {}, from), h("span", {}, to));
  return h("div", { class: "chart bars" }, drawing, axis);
}

/** A horizontal bar that shows a share between 0 and 1. */
export function shareBar(share) {
  const width = Math.max(Math.min(share, 1), 0) * WIDTH;
  return h(
    "div",
    { class: "chart small", "aria-hidden": "true" },
    svg("svg", { viewBox: `0 0 ${WIDTH} 10`, preserveAspectRatio: "none" }, svg("rect", { class: "bar", width, height: 10 })),
  );
}
